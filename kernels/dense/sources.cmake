# kernels/dense once per instruction-set level, like kernels/rows.
foreach(level ${ARB_LEVELS})
  add_library(arb_dense_${level} OBJECT dense/product.c dense/rows.c)
  target_link_libraries(arb_dense_${level} PRIVATE arb_flags)
  target_compile_definitions(arb_dense_${level} PRIVATE ARB_LEVEL=${level})
  target_compile_options(arb_dense_${level} PRIVATE $<$<CONFIG:Release>:-O3> ${ARB_ROW_FLAGS_${level}})
  if(ARB_SANITIZE MATCHES address) # sums stay in registers: encoders of full size are run under it
    target_compile_options(arb_dense_${level} PRIVATE -fno-sanitize-address-use-after-scope)
  endif()
  target_sources(arb_kernels PRIVATE $<TARGET_OBJECTS:arb_dense_${level}>)
endforeach()
target_sources(arb_kernels PRIVATE dense/dense.c)
