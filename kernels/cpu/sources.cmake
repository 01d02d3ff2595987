# Each SIMD file gets its own flags; the level is picked at run time (cpu.c).
target_sources(arb_kernels PRIVATE cpu/cpu.c cpu/pool.c cpu/gemm.c cpu/gemm_block.c cpu/gemm_scalar.c cpu/draws_scalar.c)
target_link_libraries(arb_kernels PUBLIC Threads::Threads)
if("avx2" IN_LIST ARB_LEVELS)
  target_sources(arb_kernels PRIVATE cpu/gemm_avx2.c cpu/draws_avx2.c cpu/gemm_avx512.c cpu/draws_avx512.c)
  set_source_files_properties(cpu/gemm_avx2.c cpu/draws_avx2.c PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
  set_source_files_properties(cpu/gemm_avx512.c cpu/draws_avx512.c PROPERTIES COMPILE_OPTIONS
    "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx2;-mfma;-mprefer-vector-width=512")
endif()
