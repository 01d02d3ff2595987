/* The stream of frames through an encoder or a decoder. */
#include <math.h>

#include "src/sidecar/wan_impl.h"

static int64_t bordered(int h, int w, int c) { return (int64_t)(h + 2) * (w + 2) * c; }
static int64_t bare(int h, int w, int64_t c) { return (int64_t)h * w * c; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static void ring_take(arb_wan_ring *r, arb_arena *arena, int64_t count) {
  for (int i = 0; i < 3; i++) r->slot[i] = arb_arena_take(arena, ARB_F32, count);
  r->seen = 0;
}

/* Where the next frame goes. */
static float *ring_next(arb_wan_ring *r) { return r->slot[r->seen++ % 3]; }

/* frame[0 .. 2]: the last three, the newest last, NULL before the first. */
static void ring_look_back(const arb_wan_ring *r, const float *frame[3]) {
  for (int i = 0; i < 3; i++) frame[i] = r->seen >= 3 - i ? r->slot[(r->seen - 3 + i) % 3] : NULL;
}

static void size_after(const arb_wan_step *s, int *h, int *w) {
  if (s->kind == ARB_WAN_DOWN2 || s->kind == ARB_WAN_DOWN3) {
    *h /= 2;
    *w /= 2;
  } else if (s->kind == ARB_WAN_UP2 || s->kind == ARB_WAN_UP3) {
    *h *= 2;
    *w *= 2;
  }
}

void arb_wan_stream_take(arb_wan_stream *s, arb_arena *arena) {
  const arb_wan_half *const half = s->half;
  int h = s->h, w = s->w;
  int64_t scratch = bordered(h, w, half->in.cin), work = 0;
  s->pixels = arb_arena_take(arena, ARB_F32, bare(h, w, half->in.cin));
  if (s->side == ARB_WAN_DECODER) s->latent = arb_arena_take(arena, ARB_F32, bare(h, w, half->latent.cout));
  if (!s->still) ring_take(&s->first, arena, bordered(h, w, half->in.cin));
  s->opened = arb_arena_take(arena, ARB_F32, bare(h, w, half->in.cout));
  for (int i = 0; i < half->steps; i++) {
    const arb_wan_step *const step = &half->step[i];
    arb_wan_state *const state = &s->state[i];
    *state = (arb_wan_state){.h = h, .w = w};
    size_after(step, &h, &w);
    switch (step->kind) {
      case ARB_WAN_RES:
        if (!s->still) {
          ring_take(&state->ring[0], arena, bordered(h, w, step->cin));
          ring_take(&state->ring[1], arena, bordered(h, w, step->cout));
        }
        if (step->convs == 3) state->out = arb_arena_take(arena, ARB_F32, bare(h, w, step->cout));
        scratch = most(scratch, bordered(h, w, step->cin > step->cout ? step->cin : step->cout));
        work = most(work, bare(h, w, step->cout));
        break;
      case ARB_WAN_ATTN:
        s->normed = arb_arena_take(arena, ARB_F32, bare(h, w, step->cin));
        s->qkv = arb_arena_take(arena, ARB_F32, bare(h, w, 3 * step->cin));
        s->keys = arb_arena_take(arena, ARB_F32, arb_kv_floats(1, step->cin, bare(h, w, 1)));
        break;
      case ARB_WAN_DOWN2:
      case ARB_WAN_DOWN3:
        if (step->kind == ARB_WAN_DOWN3 && !s->still) ring_take(&state->ring[0], arena, bare(h, w, step->cin));
        state->out = arb_arena_take(arena, ARB_F32, bare(h, w, step->cout));
        scratch = most(scratch, bordered(state->h, state->w, step->cin));
        break;
      case ARB_WAN_UP2:
      case ARB_WAN_UP3:
        if (step->kind == ARB_WAN_UP3 && !s->still) {
          ring_take(&state->ring[0], arena, bare(state->h, state->w, step->cin));
          state->timed = arb_arena_take(arena, ARB_F32, bare(state->h, state->w, 2 * step->cin));
        }
        state->out = arb_arena_take(arena, ARB_F32, bare(h, w, step->cout));
        scratch = most(scratch, bordered(h, w, step->cin));
    }
  }
  if (!s->still) ring_take(&s->last, arena, bordered(h, w, half->head.cin));
  scratch = most(scratch, bordered(h, w, half->head.cin));
  s->closed = arb_arena_take(arena, ARB_F32, bare(h, w, half->head.cout));
  if (s->side == ARB_WAN_ENCODER) s->latent = arb_arena_take(arena, ARB_F32, bare(h, w, half->latent.cout));
  s->scratch = arb_arena_take(arena, ARB_F32, scratch);
  s->work = arb_arena_take(arena, ARB_F32, work);
}

/* out (+)= a 1 x 1 x 1 convolution of bare pixels. */
static void pointwise(const arb_wan_stream *s, const arb_wan_conv *c, const float *x, int h, int w, float *out, bool add) {
  const arb_wan_input in = {.frame = {x}, .row = (int64_t)w * c->cin, .pixel = c->cin, .stride = 1};
  arb_wan_convolve(s->ops, c, &in, h, w, out, c->cout, add);
}

/* out (+)= a 3 x 3 x 3 causal convolution; x, normed by `gain` if there is one, is the next frame of the ring. */
static void causal(const arb_wan_stream *s, const arb_wan_conv *c, arb_wan_ring *r, const float *x, const arb_wan_gain *gain,
                   int h, int w, float *out, bool add) {
  arb_wan_input in = {.row = (int64_t)(w + 2) * c->cin, .pixel = c->cin, .stride = 1};
  float *const frame = s->still ? s->scratch : ring_next(r);
  arb_wan_frame(s->ops, x, c->cin, h, w, c->cin, gain, frame);
  if (s->still)
    in.frame[2] = frame;
  else
    ring_look_back(r, in.frame);
  arb_wan_convolve(s->ops, c, &in, h, w, out, c->cout, add);
}

/* out = the 3 x 1 x 1 convolution of the last three frames of a ring of bare frames. */
static void timed(const arb_wan_stream *s, const arb_wan_conv *c, const arb_wan_ring *r, int h, int w, float *out) {
  arb_wan_input in = {.row = (int64_t)w * c->cin, .pixel = c->cin, .stride = 1};
  ring_look_back(r, in.frame);
  arb_wan_convolve(s->ops, c, &in, h, w, out, c->cout, false);
}

static float *residual(arb_wan_stream *s, const arb_wan_step *step, arb_wan_state *state, float *x) {
  const int h = state->h, w = state->w;
  causal(s, &step->conv[0], &state->ring[0], x, &step->gain[0], h, w, s->work, false);
  float *sum = x;
  if (step->convs == 3) {
    pointwise(s, &step->conv[2], x, h, w, state->out, false);
    sum = state->out;
  }
  causal(s, &step->conv[1], &state->ring[1], s->work, &step->gain[1], h, w, sum, true);
  return sum;
}

/* x += proj(softmax(q k' / sqrt(c)) v), over the pixels of the frame. */
static void attend(arb_wan_stream *s, const arb_wan_step *step, int h, int w, float *x) {
  const int64_t n = bare(h, w, 1), c = step->cin;
  arb_kv kv;
  arb_kv_place(&kv, 1, c, n, s->keys);
  arb_wan_norm(s->ops, x, n, &step->gain[0], s->normed);
  pointwise(s, &step->conv[0], s->normed, h, w, s->qkv, false);
  arb_ops_append(s->ops, &kv, s->qkv + c, 3 * c, s->qkv + 2 * c, 3 * c, n);
  arb_ops_attend(s->ops, &kv, s->qkv, 3 * c, n, 1.0f / sqrtf((float)c), false, s->normed, c);
  pointwise(s, &step->conv[1], s->normed, h, w, x, true);
}

/* Pads right and bottom by one and keeps every second pixel; then, frames 0, 2, 4, ... come out. NULL: none this time. */
static float *down(arb_wan_stream *s, const arb_wan_step *step, arb_wan_state *state, const float *x) {
  const int h = state->h, w = state->w, c = step->cin;
  const int64_t row = (int64_t)(w + 2) * c;
  const bool halves_time = step->kind == ARB_WAN_DOWN3 && !s->still;
  float *const to = halves_time ? ring_next(&state->ring[0]) : state->out;
  arb_wan_frame(s->ops, x, c, h, w, c, NULL, s->scratch);
  const arb_wan_input in = {.frame = {s->scratch + row + c}, .row = row, .pixel = c, .stride = 2};
  arb_wan_convolve(s->ops, &step->conv[0], &in, h / 2, w / 2, to, step->cout, false);
  if (!halves_time) return state->out;
  const int64_t t = state->frames++;
  if (t % 2 == 1) return NULL;
  if (t == 0)
    arb_ops_copy(s->ops, state->out, to, bare(h / 2, w / 2, c));
  else
    timed(s, &step->conv[1], &state->ring[0], h / 2, w / 2, state->out);
  return state->out;
}

static void up(arb_wan_stream *s, const arb_wan_step *step, const arb_wan_state *state, const float *x, int64_t ldx) {
  const int h = state->h, w = state->w, c = step->cin;
  arb_wan_frame_doubled(s->ops, x, ldx, h, w, c, s->scratch);
  const arb_wan_input in = {.frame = {s->scratch}, .row = (int64_t)(2 * w + 2) * c, .pixel = c, .stride = 1};
  arb_wan_convolve(s->ops, &step->conv[0], &in, 2 * h, 2 * w, state->out, step->cout, false);
}

static void deliver(arb_wan_stream *s, const float *x, int h, int w, int c) {
  const float *const seen = arb_ops_read(s->ops, x, bare(h, w, c));
  if (seen) s->sink(s->sink_arg, seen, c);
}

static void finish(arb_wan_stream *s, const float *x, int h, int w) {
  const arb_wan_half *const half = s->half;
  causal(s, &half->head, &s->last, x, &half->head_gain, h, w, s->closed, false);
  if (s->side == ARB_WAN_DECODER) {
    deliver(s, s->closed, h, w, half->head.cout);
    return;
  }
  pointwise(s, &half->latent, s->closed, h, w, s->latent, false);
  deliver(s, s->latent, h, w, half->latent.cout);
}

static void tell(const arb_wan_stream *s, const char *name, const float *x, int h, int w, int c) {
  const float *const seen = s->probe ? arb_ops_read(s->ops, x, bare(h, w, c)) : NULL;
  if (seen) s->probe(s->probe_arg, name, seen, bare(h, w, 1), c);
}

/* The frame x goes through the steps from `i` on. */
static void flow(arb_wan_stream *s, int i, float *x) {
  for (; i < s->half->steps; i++) {
    const arb_wan_step *const step = &s->half->step[i];
    arb_wan_state *const state = &s->state[i];
    switch (step->kind) {
      case ARB_WAN_RES:
        x = residual(s, step, state, x);
        tell(s, step->name, x, state->h, state->w, step->cout);
        break;
      case ARB_WAN_ATTN:
        attend(s, step, state->h, state->w, x);
        break;
      case ARB_WAN_DOWN2:
      case ARB_WAN_DOWN3:
        x = down(s, step, state, x);
        if (x == NULL) return;
        break;
      case ARB_WAN_UP2:
      case ARB_WAN_UP3:
        if (step->kind == ARB_WAN_UP3 && state->frames++ > 0) {
          /* Two frames of one. The frames after the first are a causal sequence of their own. */
          arb_ops_copy(s->ops, ring_next(&state->ring[0]), x, bare(state->h, state->w, step->cin));
          timed(s, &step->conv[1], &state->ring[0], state->h, state->w, state->timed);
          up(s, step, state, state->timed, 2 * step->cin);
          flow(s, i + 1, state->out);
          up(s, step, state, state->timed + step->cin, 2 * step->cin);
        } else {
          up(s, step, state, x, step->cin);
        }
        x = state->out;
    }
  }
  const arb_wan_state *const end = &s->state[s->half->steps - 1];
  finish(s, x, end->h, end->w);
}

void arb_wan_stream_push(arb_wan_stream *s) {
  const arb_wan_half *const half = s->half;
  const float *x = s->pixels;
  if (s->side == ARB_WAN_DECODER) {
    pointwise(s, &half->latent, x, s->h, s->w, s->latent, false);
    x = s->latent;
  }
  causal(s, &half->in, &s->first, x, NULL, s->h, s->w, s->opened, false);
  tell(s, half->in.name[0], s->opened, s->h, s->w, half->in.cout);
  flow(s, 0, s->opened);
}
