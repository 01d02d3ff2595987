/* Every slot of the CUDA backend against the reference: the same random arguments, every output byte compared, and guard bytes
 * behind each buffer. Widths with odd tails, several grains, extreme and non-finite values.
 * "--small": few shapes, for a memory checker. */
#include "tests/gpu/slot_buffers.h"

/* ---- row operations of one width ---- */

static void row_slots(int64_t width, int style) {
  const arb_rows r = some_rows(3);
  const int64_t m = arb_rows_count(&r), ldz = width + gpu_below(3) * 4 + (gpu_below(3) == 0), pad = gpu_below(2) * 4;
  both *e, *q, *s, *inv, *x, *y, *z, *out, *dy, *g, *dz;
  const char *const inputs[3] = {"add_norm_quant x + y", "add_norm_quant y", "add_norm_quant x"};
  for (int form = 0; form < 3; form++) {
    begin(inputs[form], width, style, m, 0);
    e = make((size_t)width, BYTES), bytes(e, -128, 127);
    x = form != 1 ? make(size_of(m, width, 4), FLOATS) : NULL;
    y = form != 2 ? make(size_of(m, width, 2), BF16S) : NULL;
    if (x) floats(x, width, style);
    if (y) bf16s(y, style);
    out = form == 1 ? NULL : make(size_of(m, width, 4), FLOATS);
    q = make(size_of(m, width, 1), BYTES), s = make(size_of(m, 1, 4), FLOATS), inv = make(size_of(m, 1, 4), FLOATS);
    CALL(add_norm_quant, &r, width, AT(float, x), AT(uint16_t, y), AT(float, out), AT(int8_t, e), AT(int8_t, q), AT(float, s),
         AT(float, inv));
  }
  for (int form = 0; form < 4; form++) {
    stacks t;
    begin("norm_backward", width, style, m, form);
    make_stack(&t, 1, &width, 1, 1, 3);
    e = make((size_t)width, BYTES), bytes(e, -40, 40);
    x = make(size_of(m, width, 4), FLOATS), floats(x, width, style);
    inv = make(size_of(m, 1, 4), FLOATS), scales(inv, style);
    dy = make(size_of(m, width, 2), BF16S), bf16s(dy, style);
    g = make(size_of(m, width, 4), FLOATS), floats(g, width, PLAIN);
    q = make(size_of(m, width, 1), BYTES), s = make(size_of(m, 1, 4), FLOATS);
    CALL(norm_backward, &r, width, AT(float, x), AT(float, inv), AT(int8_t, e), AT(uint16_t, dy), form & 1, AT(float, g),
         form & 2 ? &t.side[on_gpu] : NULL, AT(int8_t, q), AT(float, s));
  }
  begin("input_norm_backward", width, style, m, 0);
  e = make((size_t)width, BYTES), bytes(e, -40, 40);
  x = make(size_of(m, width, 2), BF16S), bf16s(x, style);
  inv = make(size_of(m, 1, 4), FLOATS), scales(inv, style);
  dy = make(size_of(m, width, 2), BF16S), bf16s(dy, style);
  g = make(size_of(m, width, 2), BF16S);
  CALL(input_norm_backward, &r, width, AT(uint16_t, x), AT(float, inv), AT(int8_t, e), AT(uint16_t, dy), AT(uint16_t, g));

  begin("gate_norm_quant", width, style, m, ldz);
  e = make((size_t)width, BYTES), bytes(e, -40, 40);
  x = make(size_of(m, width, 4), FLOATS), floats(x, width, style);
  z = make(size_of(m, ldz, 2), BF16S), bf16s(z, style);
  q = make(size_of(m, width, 1), BYTES), s = make(size_of(m, 1, 4), FLOATS), inv = make(size_of(m, 1, 4), FLOATS);
  CALL(gate_norm_quant, &r, width, AT(float, x), AT(uint16_t, z), ldz, AT(int8_t, e), AT(int8_t, q), AT(float, s),
       AT(float, inv));

  begin("gate_norm_backward", width, style, m, ldz);
  e = make((size_t)width, BYTES), bytes(e, -40, 40);
  x = make(size_of(m, width, 4), FLOATS), floats(x, width, style);
  z = make(size_of(m, ldz, 2), BF16S), bf16s(z, style);
  inv = make(size_of(m, 1, 4), FLOATS), scales(inv, style);
  dy = make(size_of(m, width, 2), BF16S), bf16s(dy, style);
  g = make(size_of(m, width, 2), BF16S);
  dz = make(size_of(m, 2 * width + pad, 2), BF16S);
  CALL(gate_norm_backward, &r, width, AT(float, x), AT(uint16_t, z), ldz, AT(float, inv), AT(int8_t, e), AT(uint16_t, dy),
       AT(uint16_t, g), ROWS(dz, uint16_t, width), 2 * width + pad);

  begin("glu_norm_quant", width, style, m, 2 * width + pad);
  e = make((size_t)width, BYTES), bytes(e, -40, 40);
  z = make(size_of(m, 2 * width + pad, 2), BF16S), bf16s(z, style);
  q = make(size_of(m, width, 1), BYTES), s = make(size_of(m, 1, 4), FLOATS), inv = make(size_of(m, 1, 4), FLOATS);
  CALL(glu_norm_quant, &r, width, AT(uint16_t, z), ROWS(z, uint16_t, width), 2 * width + pad, AT(int8_t, e), AT(int8_t, q),
       AT(float, s), AT(float, inv));

  stacks pair;
  const int64_t halves[] = {width, width};
  begin("glu_norm_backward", width, style, m, 2 * width + pad);
  make_stack(&pair, 2, halves, 1, 1, 3);
  e = make((size_t)width, BYTES), bytes(e, -40, 40);
  z = make(size_of(m, 2 * width + pad, 2), BF16S), bf16s(z, style);
  inv = make(size_of(m, 1, 4), FLOATS), scales(inv, style);
  dy = make(size_of(m, width, 2), BF16S), bf16s(dy, style);
  q = make(size_of(m, 2 * width, 1), BYTES), s = make(size_of(m, 1, 4), FLOATS);
  CALL(glu_norm_backward, &r, width, AT(uint16_t, z), ROWS(z, uint16_t, width), 2 * width + pad, AT(float, inv), AT(int8_t, e),
       AT(uint16_t, dy), &pair.side[on_gpu], AT(int8_t, q), AT(float, s));

  for (int with_g = 0; with_g < 2; with_g++) {
    stacks t;
    begin("xent", width, style, m, with_g);
    make_stack(&t, 1, &width, 1, 1, 3);
    y = make(size_of(m, width, 2), BF16S), bf16s(y, style);
    x = make(size_of(m, 1, 4), BYTES), words(x, -1, (int)width - 1);
    q = with_g ? make(size_of(m, width, 1), BYTES) : NULL;
    g = make(size_of(m, 1, 4), FLOATS);
    s = make(8, BYTES), bytes(s, 1, 5);
    inv = make(8, BYTES), bytes(inv, 1, 5);
    CALL(xent, &r, AT(uint16_t, y), AT(int32_t, x), 0x1p-9f, &t.side[on_gpu], AT(int8_t, q), AT(float, g), AT(int64_t, s),
         AT(int64_t, inv));
  }
}

static void scan_slots(int64_t width, int64_t context, int style) {
  const arb_rows r = some_rows(context);
  const int64_t m = arb_rows_count(&r), ldz = 2 * width + gpu_below(5), lddz = 2 * width + gpu_below(3);
  begin("mlgru_forward", width, context, style, m);
  both *z = make(size_of(m, ldz, 2), BF16S), *bias = make((size_t)width * 4, FLOATS), *h = make(size_of(m, width, 4), FLOATS);
  bf16s(z, style);
  floats(bias, width, PLAIN);
  CALL(mlgru_forward, &r, context, width, AT(uint16_t, z), ROWS(z, uint16_t, width), ldz, AT(float, bias), AT(float, h));
  begin("mlgru_backward", width, context, style, m);
  z = make(size_of(m, ldz, 2), BF16S), bias = make((size_t)width * 4, FLOATS), h = make(size_of(m, width, 4), FLOATS);
  both *dh = make(size_of(m, width, 2), BF16S), *dz = make(size_of(m, lddz, 2), BF16S);
  bf16s(z, style);
  floats(bias, width, PLAIN);
  floats(h, width, style);
  bf16s(dh, style);
  CALL(mlgru_backward, &r, context, width, AT(uint16_t, z), ROWS(z, uint16_t, width), ldz, AT(float, bias), AT(float, h),
       AT(uint16_t, dh), AT(uint16_t, dz), ROWS(dz, uint16_t, width), lddz);
}

/* ---- stacks ---- */

static void grad_slots(int members, const int64_t *rows, int style) {
  stacks t;
  const arb_rows r = some_rows(5);
  const int uses = 1 + (int)gpu_below(3), use = (int)gpu_below(uses);
  begin("grad_quant", members, rows[0], style, use);
  make_stack(&t, members, rows, 1, uses, 3);
  const int64_t m = arb_rows_count(&r), n = t.side[0].n, ldg = n + gpu_below(2) * 8 + (gpu_below(4) == 0);
  const int wide = (int)gpu_below(2);
  both *g = wide ? make(size_of(m, ldg, 4), FLOATS) : make(size_of(m, ldg, 2), BF16S), *hq = make(size_of(m, n, 1), BYTES),
       *sh = make(size_of(m, 1, 4), FLOATS);
  if (wide)
    floats(g, ldg, style);
  else
    bf16s(g, style);
  if (gpu_below(4) == 0) memset(g->ref, 0, g->bytes / (size_t)r.grains); /* a grain without gradient */
  CALL(grad_quant, &r, wide ? AT(float, g) : NULL, wide ? NULL : AT(uint16_t, g), ldg, &t.side[on_gpu], use, AT(int8_t, hq),
       AT(float, sh));
}

/* Row scales of a gradient: ordinary, none at all in one grain, tiny, one that overflows. */
static void gradient_scales(both *sh, const arb_rows *r) {
  float *x = (float *)sh->ref;
  scales(sh, gpu_below(3) ? PLAIN : SCALED);
  for (int64_t i = 0; i < arb_rows_count(r); i++)
    if (gpu_below(9) == 0) x[i] = 0.0f;
  if (gpu_below(3) == 0) memset(x, 0, (size_t)r->rows_per_grain * sizeof *x);
  if (gpu_below(6) == 0)
    for (int64_t i = 0; i < arb_rows_count(r); i++) x[i] *= 0x1p-115f;
  if (gpu_below(12) == 0) x[gpu_below(arb_rows_count(r))] = 0x1p127f;
}

/* Votes of rows in groups, with gaps. */
static both *groups_of(int64_t n, int64_t k, arb_vote_groups *g) {
  g->rows = 1 + gpu_below(n);
  g->stride = g->rows * k + gpu_below(9) * (gpu_below(2) ? 4 : 1);
  return make((size_t)((n + g->rows - 1) / g->rows * g->stride), BYTES);
}

static void product_slots(int members, const int64_t *rows, int64_t k, int64_t context) {
  stacks t;
  const arb_rows r = some_rows(context);
  begin("linear products", members, rows[0], k, context);
  make_stack(&t, members, rows, k, 1, 60);
  const int64_t m = arb_rows_count(&r), n = t.side[0].n;
  both *q = make(size_of(m, k, 1), BYTES), *hq = make(size_of(m, n, 1), BYTES), *s = make(size_of(m, 1, 4), FLOATS);
  both *y = make(size_of(m, n, 2), BF16S), *dx = make(size_of(m, k, 2), BF16S), *sh = make(size_of(m, 1, 4), FLOATS);
  bytes(q, -127, 127), bytes(hq, -127, 127), scales(s, PLAIN), gradient_scales(sh, &r);
  arb_vote_groups groups;
  both *apart = groups_of(n, k, &groups);
  send();
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    MUST(be->ops.linear_forward(be, &r, AT(int8_t, q), AT(float, s), &t.side[on_gpu], AT(uint16_t, y)));
    MUST(be->ops.linear_dx(be, &r, AT(int8_t, hq), AT(float, s), &t.side[on_gpu], AT(uint16_t, dx)));
    MUST(be->ops.linear_dw_vote(be, &r, AT(int8_t, hq), AT(float, sh), AT(int8_t, q), AT(float, s), 15, &t.side[on_gpu]));
    arb_stack w = t.side[on_gpu];
    w.votes = AT(int8_t, apart);
    w.groups = groups;
    MUST(be->ops.linear_dw_vote(be, &r, AT(int8_t, hq), AT(float, sh), AT(int8_t, q), AT(float, s), 15, &w));
  }
  compare();
}

static void embed_slots(int64_t n, int64_t k, int64_t context) {
  stacks t;
  const int slots = 1 + (int)gpu_below(4);
  const arb_rows r = some_rows(context);
  const int64_t m = arb_rows_count(&r);
  begin("embedding", n, k, context, slots);
  make_stack(&t, 1, &n, k, slots, 40);
  both *ids = make(size_of(m, 1, 4), BYTES), *out = make(size_of(m, slots * n, 2), BF16S), *hq = make(size_of(m, n, 1), BYTES);
  both *d = make(size_of(slots * r.grains, n * k, 4), BYTES), *cexp = make(size_of(slots * r.grains, 1, 4), BYTES);
  both *sh[4];
  words(ids, 0, (int)k - 1), bytes(hq, -127, 127);
  for (int i = 0; i < slots; i++) sh[i] = make(size_of(m, 1, 4), FLOATS), gradient_scales(sh[i], &r);
  arb_vote_groups groups;
  both *apart = groups_of(n, k, &groups);
  send();
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    const arb_stack *w = &t.side[on_gpu];
    const int32_t pad = (int32_t)(k / 2);
    MUST(be->ops.embed_forward(be, &r, context, AT(int32_t, ids), slots, pad, w, AT(uint16_t, out)));
    for (int i = 0; i < slots; i++)
      MUST(be->ops.embed_dw(be, &r, context, AT(int32_t, ids), slots, i, pad, AT(int8_t, hq), AT(float, sh[i]), w,
                            AT(int32_t, cexp) + i * r.grains, AT(int32_t, d) + i * r.grains * n * k));
    MUST(be->ops.vote_join(be, &r, AT(int32_t, d), AT(int32_t, cexp), 15, w));
    arb_stack other = *w;
    other.votes = AT(int8_t, apart);
    other.groups = groups;
    MUST(be->ops.vote_join(be, &r, AT(int32_t, d), AT(int32_t, cexp), 15, &other));
  }
  compare();
}

static void update_slots(int members, const int64_t *rows, int64_t k, int range) {
  stacks t;
  begin("update", members, rows[0], k, range);
  make_stack(&t, members, rows, k, 1, range);
  const int64_t n = t.side[0].n;
  both *s = make(size_of(n, 1, 8), BYTES), *top = make(size_of(members, 1, 4), BYTES),
       *low = make(size_of(members, 1, 4), BYTES);
  both *csum = make(size_of(members, k, 8), BYTES), *msum = make(size_of(members, 1, 8), BYTES), *flips = make(16, BYTES);
  bytes(flips, 0, 3);
  if (gpu_below(4) == 0) memset(t.votes->ref, 0, (size_t)(rows[0] * k)); /* a member without votes */
  send();
  const int64_t grains = 1 + gpu_below(31);
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    const arb_update_work work = {AT(uint64_t, s),    AT(int32_t, top),   AT(int32_t, low),
                                  AT(uint64_t, csum), AT(uint64_t, msum), NULL};
    MUST(be->ops.vote_rows(be, &t.side[on_gpu], &work));
    MUST(be->ops.vote_columns(be, &t.side[on_gpu], &work));
    MUST(be->ops.update(be, &t.side[on_gpu], &work, grains, 127 / (int)grains, AT(int64_t, flips)));
    MUST(be->ops.update(be, &t.side[on_gpu], &work, 0, 127, AT(int64_t, flips)));
  }
  compare();
}

/* A slice of a stack, perhaps of no row: an update with its own sums, then fresh state. */
static void slice_slots(int members, const int64_t *rows, int64_t k) {
  stacks t;
  begin("slice", members, rows[0], k, 0);
  make_stack(&t, members, rows, k, 1, 60);
  const int64_t n = t.side[0].n, count = gpu_below(5) ? gpu_below(n + 1) : 0, first = gpu_below(n - count + 1);
  both *s = make(size_of(n, 1, 8), BYTES), *top = make(size_of(members, 1, 4), BYTES),
       *low = make(size_of(members, 1, 4), BYTES);
  both *csum = make(size_of(members, k, 8), BYTES), *msum = make(size_of(members, 1, 8), BYTES), *flips = make(16, BYTES);
  bytes(flips, 0, 3);
  send();
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    arb_stack w = arb_stack_slice(&t.side[on_gpu], first, count);
    w.votes += first * k;
    w.code += first * k;
    w.e += first;
    w.p += first;
    w.r += first;
    arb_update_work work = {AT(uint64_t, s), AT(int32_t, top), AT(int32_t, low), AT(uint64_t, csum), AT(uint64_t, msum), NULL};
    MUST(be->ops.vote_rows(be, &w, &work));
    MUST(be->ops.vote_columns(be, &w, &work));
    MUST(be->ops.update(be, &w, &work, 4, 31, AT(int64_t, flips)));
    if (count % 2) MUST(be->ops.init_stack(be, &w));
  }
  compare();
}

/* Packed trits, there and back through blocks with gaps; rows in blocks. */
static void shard_slots(int64_t n, int64_t k) {
  begin("trits", n, k, 0, 0);
  const int64_t per_block = 1 + gpu_below(n), blocks = (n + per_block - 1) / per_block, width = arb_packed_bytes(k),
                stride = per_block * width + gpu_below(9);
  both *code = make(size_of(n, k, 1), BYTES), *packed = make((size_t)(blocks * stride), BYTES),
       *back = make(size_of(n, k, 1), BYTES), *joined = make(size_of(n, width, 1), BYTES);
  bytes(code, 0, 254);
  bytes(packed, 0, 242);
  send();
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t at = b * per_block, rows = n - at < per_block ? n - at : per_block;
      MUST(be->ops.pack_trits(be, AT(uint8_t, code) + at * k, rows, k, AT(uint8_t, packed) + b * stride));
    }
    MUST(be->ops.unpack_trits(be, AT(uint8_t, packed), stride, per_block, n, k, AT(uint8_t, back)));
    MUST(be->ops.join_rows(be, AT(uint8_t, packed), stride, per_block, n, width, AT(uint8_t, joined)));
    MUST(be->ops.pack_trits(be, AT(uint8_t, code), 0, k, AT(uint8_t, packed)));
    MUST(be->ops.unpack_trits(be, AT(uint8_t, packed), stride, per_block, 0, k, AT(uint8_t, back)));
  }
  int kept = 1;
  for (int64_t i = 0; i < n * k; i++) kept &= arb_code_trit(back->ref[i]) == arb_code_trit(code->ref[i]);
  gpu_check(kept, "trits: packing keeps them");
  compare();
}

/* update_many against the three slots of the reference, stack by stack. */
static void many_slots(int count) {
  enum { MOST_STACKS = 5 };
  stacks t[MOST_STACKS];
  both *work[MOST_STACKS][6], *flips;
  int64_t grains[MOST_STACKS];
  begin("update_many", count, 0, 0, 0);
  for (int i = 0; i < count; i++) {
    const int members = 1 + (int)gpu_below(2);
    const int64_t rows[2] = {1 + gpu_below(90), 1 + gpu_below(40)},
                  k = gpu_below(2) ? 16 * (1 + gpu_below(30)) : 1 + gpu_below(500);
    make_stack(&t[i], members, rows, k, 1, i % 2 ? 15 : 127);
    const arb_stack *w = &t[i].side[0];
    grains[i] = gpu_below(6);
    work[i][0] = make(size_of(w->n, 1, 8), BYTES), work[i][1] = make(size_of(members, 1, 4), BYTES);
    work[i][2] = make(size_of(members, 1, 4), BYTES), work[i][3] = make(size_of(members, k, 8), BYTES);
    work[i][4] = make(size_of(members, 1, 8), BYTES);
  }
  flips = make(16, BYTES), bytes(flips, 0, 3);
  send();
  float *factors[MOST_STACKS];
  arb_update_work device[MOST_STACKS];
  const arb_stack *stack[MOST_STACKS];
  for (int i = 0; i < count; i++) {
    int on_gpu = 0;
    arb_update_work w = {AT(uint64_t, work[i][0]), AT(int32_t, work[i][1]),  AT(int32_t, work[i][2]),
                         AT(uint64_t, work[i][3]), AT(uint64_t, work[i][4]), NULL};
    if (grains[i]) {
      MUST(ref->ops.vote_rows(ref, &t[i].side[0], &w));
      MUST(ref->ops.vote_columns(ref, &t[i].side[0], &w));
      MUST(ref->ops.update(ref, &t[i].side[0], &w, grains[i], 15, AT(int64_t, flips)));
    }
    on_gpu = 1;
    MUST(gpu->ops.alloc(gpu, (size_t)arb_update_factors(&t[i].side[1]) * sizeof(float), (void **)&factors[i]));
    device[i] = (arb_update_work){AT(uint64_t, work[i][0]), AT(int32_t, work[i][1]),  AT(int32_t, work[i][2]),
                                  AT(uint64_t, work[i][3]), AT(uint64_t, work[i][4]), factors[i]};
    stack[i] = &t[i].side[1];
  }
  const int on_gpu = 1;
  MUST(gpu->ops.update_many(gpu, stack, device, grains, count, 15, AT(int64_t, flips)));
  compare();
  for (int i = 0; i < count; i++) gpu->ops.free(gpu, factors[i]);
}

static void start_slots(int members, const int64_t *rows, int64_t k) {
  stacks t;
  begin("init_stack", members, rows[0], k, 0);
  make_stack(&t, members, rows, k, 1, 1);
  const int64_t count = 1 + gpu_below(3000), first = 8 * gpu_below(1 << 20);
  both *draws = make((size_t)((count + 7) / 8 * 8) * 2, BYTES);
  const uint32_t tensor = (uint32_t)gpu_random(), grain = (uint32_t)gpu_below(100);
  send();
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    MUST(be->ops.init_stack(be, &t.side[on_gpu]));
    MUST(be->ops.draws(be, ARB_DRAW_VOTE, tensor, grain, first, count, AT(uint16_t, draws)));
  }
  compare();
}

static void digest_slot(int64_t rows, int64_t row_bytes) {
  begin("digest", rows, row_bytes, 0, 0);
  both *b = make(size_of(rows, row_bytes, 1), BYTES);
  bytes(b, -128, 127);
  send();
  arb_u128 sum[2];
  const uint64_t array = gpu_random();
  const int64_t first = gpu_below(1000);
  for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
    arb_backend *be = on_gpu ? gpu : ref;
    MUST(be->ops.digest(be, array, AT(void, b), rows, row_bytes, first, &sum[on_gpu]));
  }
  gpu_check(sum[0].lo == sum[1].lo && sum[0].hi == sum[1].hi, "digest: sum");
  compare();
}

/* The widths of a real model with thousands of rows, against the threaded backend. */
static void large_shapes(void) {
  const int64_t glu[] = {1408, 1408}, memory[] = {512, 512, 512}, head[] = {297}, out[] = {512}, odd[] = {100, 203};
  const int64_t wide[] = {160, 297, 512, 768, 1408};
  arb_backend_destroy(&ref);
  MUST(arb_backend_cpu_create(16, "auto", &ref));
  many = 1100;
  for (int i = 0; i < 5; i++) row_slots(wide[i], PLAIN), row_slots(wide[i], WILD);
  for (int i = 0; i < 3; i++) {
    const int style = i == 1 ? SCALED : PLAIN;
    grad_slots(2, glu, style), grad_slots(3, memory, style), grad_slots(1, head, style), grad_slots(1, out, style);
    grad_slots(2, odd, style);
  }
  many = 7;
  scan_slots(512, 512, PLAIN), scan_slots(160, 128, PLAIN), scan_slots(300, 333, WILD);
  embed_slots(256, 297, 512), embed_slots(64, 297, 128);
  for (int i = 0; i < 2; i++) {
    product_slots(2, glu, 512, 512), product_slots(3, memory, 512, 512), product_slots(1, head, 512, 512);
    product_slots(1, out, 1408, 512), product_slots(1, out, 512, 512), product_slots(1, out, 768, 512);
  }
}

static int64_t any_width(void) { return 1 + gpu_below(300); }

int main(int argc, char **argv) {
  const int small = argc > 1 && strcmp(argv[1], "--small") == 0;
  const int plain = argc > 1 && strcmp(argv[argc - 1], "--plain") == 0;
  gpu = gpu_backend();
  MUST(arb_backend_ref_create(&ref));
  arb_cuda_sync_launches(gpu, small);
  arb_cuda_products_plain(gpu, plain);
  for (int64_t width = 1; width <= 300; width += small ? 61 : 1) row_slots(width, (int)(width % STYLES));
  const int64_t wide[] = {296, 297, 512, 768, 1408, 4001};
  for (int i = 0; i < (small ? 3 : 6); i++)
    for (int style = 0; style < STYLES; style++) row_slots(wide[i], style);
  for (int i = 0; i < (small ? 4 : 60); i++)
    scan_slots(i % 3 ? any_width() : 64 * (1 + gpu_below(4)), 1 + gpu_below(200), i % STYLES);
  for (int i = 0; i < (small ? 12 : 300); i++) {
    const int members = 1 + (int)gpu_below(4), even = (int)gpu_below(2);
    int64_t rows[ARB_MAX_MEMBERS];
    for (int j = 0; j < members; j++) rows[j] = even ? 8 * (1 + gpu_below(64)) : any_width();
    const int64_t k = gpu_below(2) ? 16 * (1 + gpu_below(16)) : any_width();
    grad_slots(members, rows, i % STYLES);
    update_slots(members, rows, k, i % 3 ? 15 : 127);
    start_slots(members, rows, k);
    if (gpu->ops.update_many) many_slots(1 + (int)gpu_below(4));
    slice_slots(members, rows, k);
    shard_slots(any_width(), k);
    if (i % 2) product_slots(members, rows, k, 1 + gpu_below(40));
    if (i % 3 == 0) embed_slots(8 * (1 + gpu_below(12)), k, 1 + gpu_below(30));
    if (i % 3 == 1) digest_slot(any_width(), gpu_below(2) ? any_width() : 8 * any_width());
  }
  if (!small) {
    const int64_t glu[] = {1408, 1408}, memory[] = {512, 512, 512}, head[] = {297}, out[] = {512}, vast[] = {9000},
                  limit[] = {12288}, beyond[] = {12300};
    for (int style = 0; style < STYLES; style++) {
      grad_slots(2, glu, style), grad_slots(3, memory, style), grad_slots(1, head, style), grad_slots(1, vast, style);
      grad_slots(1, limit, style), grad_slots(1, beyond, style);
    }
    update_slots(2, glu, 512, 15), update_slots(3, memory, 512, 15), update_slots(1, head, 512, 15),
        update_slots(1, out, 1408, 15);
    product_slots(2, glu, 512, 64), product_slots(3, memory, 512, 64), product_slots(1, head, 512, 70),
        product_slots(1, out, 1408, 64);
    embed_slots(256, 297, 64), embed_slots(64, 297, 100), embed_slots(16, 2000, 50);
    slice_slots(2, glu, 512), slice_slots(3, memory, 512), shard_slots(2816, 512), shard_slots(512, 1408);
    digest_slot(100000, 1), digest_slot(3, 4), digest_slot(1000, 512), digest_slot(77, 1404);
  }
  if (!small) large_shapes();
  arb_backend_destroy(&gpu);
  arb_backend_destroy(&ref);
  return gpu_totals();
}
