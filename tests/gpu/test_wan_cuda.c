/* The video VAE on a GPU against the CPU: the same bits both ways, with synthetic weights. */
#include "src/sidecar/wan.h"
#include "tests/gpu/encoder_test.h"

static arb_wan *opened(const arb_sidecar_options *o) {
  arb_wan *v = NULL;
  MUST(arb_wan_open(ARB_SIDECAR_SYNTHETIC, o, &v));
  return v;
}

static void both_ways(arb_wan *cpu, arb_wan *gpu, trace *seen, int64_t t, int64_t h, int64_t w) {
  const int64_t z = 1 + (t - 1) / ARB_WAN_FRAMES, pixels = 3 * t * h * w;
  const int64_t latents = ARB_WAN_CHANNELS * z * (h / ARB_WAN_SCALE) * (w / ARB_WAN_SCALE);
  float *frames = floats(pixels), *latent[2] = {floats(latents), floats(latents)};
  float *variance[2] = {floats(latents), floats(latents)}, *decoded[2] = {floats(pixels), floats(pixels)};
  char what[96];
  arb_synthetic_input("input.wan", pixels, frames);
  seen->n = seen->at = 0;
  MUST(arb_wan_encode(cpu, frames, t, h, w, ARB_WAN_NORMALISED, latent[0], variance[0]));
  MUST(arb_wan_encode(gpu, frames, t, h, w, ARB_WAN_NORMALISED, latent[1], variance[1]));
  snprintf(what, sizeof what, "latent of %lld frames of %lld x %lld", (long long)t, (long long)w, (long long)h);
  same(what, latent[0], latent[1], latents);
  same("its log variance", variance[0], variance[1], latents);
  gpu_check(seen->at == seen->n, "as many results inside");
  trace_free(seen);
  seen->model = "wan decoder";
  MUST(arb_wan_decode(cpu, latent[0], z, h / ARB_WAN_SCALE, w / ARB_WAN_SCALE, ARB_WAN_NORMALISED, true, decoded[0]));
  MUST(arb_wan_decode(gpu, latent[0], z, h / ARB_WAN_SCALE, w / ARB_WAN_SCALE, ARB_WAN_NORMALISED, true, decoded[1]));
  snprintf(what, sizeof what, "%lld decoded frames of %lld x %lld", (long long)t, (long long)w, (long long)h);
  same(what, decoded[0], decoded[1], pixels);
  trace_free(seen);
  seen->model = "wan encoder";
  free(frames);
  for (int i = 0; i < 2; i++) free(latent[i]), free(variance[i]), free(decoded[i]);
}

static void test_bits(bool conv_int8, bool floating) {
  static const int64_t clips[][3] = {{1, 16, 24}, {5, 16, 24}, {1, 8, 8}, {9, 8, 16}, {1, 40, 24}, {5, 128, 96}, {1, 224, 224}};
  const size_t count = conv_int8 || floating ? 2 : sizeof clips / sizeof clips[0];
  trace t = {.model = "wan encoder"};
  arb_sidecar_options c = on_cpu(), g = on_gpu();
  c.conv_int8 = g.conv_int8 = conv_int8;
  c.float_weights = g.float_weights = floating;
  c.probe = keep, g.probe = compare;
  c.probe_arg = g.probe_arg = &t;
  arb_wan *cpu = opened(&c), *gpu = opened(&g);
  gpu_check(strcmp(arb_wan_report(cpu)->digest, arb_wan_report(gpu)->digest) == 0, "the digest of the weights");
  for (size_t i = 0; i < count; i++) both_ways(cpu, gpu, &t, clips[i][0], clips[i][1], clips[i][2]);
  printf("wan: %lld bytes of weights, %lld of activations and scratch on %s\n", (long long)arb_wan_report(gpu)->resident_bytes,
         (long long)arb_wan_report(gpu)->work_bytes, arb_wan_report(gpu)->place);
  arb_wan_destroy(&cpu);
  arb_wan_destroy(&gpu);
}

/* What is not finite is refused alike, and the next clip is as if nothing had been. */
static void test_refused(void) {
  enum { PIXELS = 3 * 8 * 8, LATENTS = ARB_WAN_CHANNELS };
  const arb_sidecar_options c = on_cpu(), g = on_gpu();
  arb_wan *cpu = opened(&c), *gpu = opened(&g);
  float frames[PIXELS], want[LATENTS], got[LATENTS];
  arb_synthetic_input("input.wan", PIXELS, frames);
  const float before = frames[7];
  frames[7] = NAN;
  gpu_check(arb_wan_encode(gpu, frames, 1, 8, 8, ARB_WAN_RAW, got, NULL) == ARB_ERR_NUMERIC, "a NaN is refused");
  frames[7] = 3e38f; /* finite, but a sum overflows */
  const arb_status st = arb_wan_encode(cpu, frames, 1, 8, 8, ARB_WAN_RAW, want, NULL);
  gpu_check(arb_wan_encode(gpu, frames, 1, 8, 8, ARB_WAN_RAW, got, NULL) == st, "an overflow ends alike");
  arb_fail_clear();
  frames[7] = before;
  MUST(arb_wan_encode(cpu, frames, 1, 8, 8, ARB_WAN_RAW, want, NULL));
  MUST(arb_wan_encode(gpu, frames, 1, 8, 8, ARB_WAN_RAW, got, NULL));
  same("a clip after them", want, got, LATENTS);
  arb_wan_destroy(&cpu);
  arb_wan_destroy(&gpu);
}

int main(void) {
  arb_backend *be = gpu_backend(); /* or exit 77 */
  arb_backend_destroy(&be);
  test_bits(false, false);
  test_bits(true, false);
  test_bits(false, true);
  test_refused();
  return gpu_totals();
}
