#include <stdio.h>

#include "src/sidecar/sidecar.h"

static void line(FILE *out, const char *name, const arb_sidecar_count *c) {
  fprintf(out, "  %-10s %7lld %12lld %9lld %9lld %9lld %12lld %10lld %12lld\n", name, (long long)c->tensors,
          (long long)c->parameters, (long long)c->requested, (long long)c->quantized, (long long)c->quantized_int8,
          (long long)c->int8_bytes, (long long)c->scale_bytes, (long long)c->float_bytes);
}

void arb_sidecar_print(const arb_sidecar_report *r, FILE *out) {
  fprintf(out, "sidecar %s: imported, frozen, no gradient path\n", r->model);
  fprintf(out, "  file        %s\n", r->file);
  fprintf(out, "  its digest  %s\n", r->file_digest);
  fprintf(out, "  %-10s %7s %12s %9s %9s %9s %12s %10s %12s\n", "class", "tensors", "parameters", "requested", "quantized",
          "int8", "int8 bytes", "scales", "float bytes");
  for (int c = 0; c < ARB_SIDECAR_CLASSES; c++)
    if (r->of[c].tensors > 0) line(out, arb_sidecar_class_name((arb_sidecar_class)c), &r->of[c]);
  line(out, "all", &r->all);
  fprintf(out, "  resident    %lld bytes of weights (allocated), %lld of activations and scratch, on %s\n",
          (long long)r->resident_bytes, (long long)r->work_bytes, r->place);
  fprintf(out, "  digest      %s (weights as held, and options)\n", r->digest);
}
