#include "src/train/metrics.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

double arb_clock_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* mkdir -p */
static arb_status make_folder(char *path) {
  for (char *p = path + 1;; p++) {
    if (*p != '/' && *p != '\0') continue;
    const char saved = *p;
    *p = '\0';
    const int rc = mkdir(path, 0777);
    const int err = errno;
    *p = saved;
    ARB_REQUIRE(rc == 0 || err == EEXIST, ARB_ERR_IO, "cannot make the run folder %s: %s", path, strerror(err));
    if (saved == '\0') return ARB_OK;
  }
}

arb_status arb_metrics_open(arb_metrics *m, const arb_config *cfg, int64_t weights, int64_t resumed_step, FILE *console) {
  char path[2048];
  memset(m, 0, sizeof *m);
  m->console = console;
  m->weights = weights;
  m->first_step = resumed_step < 0 ? 0 : resumed_step;
  m->last_save = resumed_step;
  m->start = m->interval_start = arb_clock_seconds();
  if (!console) return ARB_OK;
  m->terminal = isatty(fileno(console)) && isatty(STDERR_FILENO); /* mpirun gives stdout a terminal even into a file */
  arb_trainer_path(cfg, "", path, sizeof path);
  ARB_TRY(make_folder(path));
  arb_trainer_path(cfg, "config.ini", path, sizeof path);
  FILE *resolved = fopen(path, "w");
  ARB_REQUIRE(resolved, ARB_ERR_IO, "%s: %s", path, strerror(errno));
  const arb_status st = arb_config_print(cfg, resolved);
  ARB_REQUIRE(fclose(resolved) == 0 && st == ARB_OK, ARB_ERR_IO, "%s: could not be written", path);
  arb_trainer_path(cfg, "metrics.jsonl", path, sizeof path);
  m->jsonl = fopen(path, resumed_step < 0 ? "w" : "a");
  ARB_REQUIRE(m->jsonl, ARB_ERR_IO, "%s: %s", path, strerror(errno));
  return ARB_OK;
}

void arb_metrics_close(arb_metrics *m) {
  if (m->jsonl) fclose(m->jsonl);
  m->jsonl = NULL;
}

static void print_rate(char *text, size_t size, double bytes_per_s) {
  if (bytes_per_s >= 1e6)
    snprintf(text, size, "%.2f MB/s", bytes_per_s / 1e6);
  else
    snprintf(text, size, "%.1f kB/s", bytes_per_s / 1e3);
}

static void progress_bar(const arb_metrics *m, const arb_config *cfg, int64_t step) {
  const int width = 32, filled = (int)(step * width / cfg->train.steps);
  fprintf(m->console, "\r[");
  for (int i = 0; i < width; i++) fputc(i < filled ? '#' : '.', m->console);
  fprintf(m->console, "] %lld/%lld ", (long long)step, (long long)cfg->train.steps);
  fflush(m->console);
}

arb_status arb_metrics_step(arb_metrics *m, const arb_config *cfg, const arb_step_result *r, double val_bpb) {
  m->interval_steps++;
  m->interval_flips += r->flips;
  m->interval_targets += r->targets;
  m->empty += r->empty;
  m->interval_bpb += r->train_bpb;
  if (!m->console) return ARB_OK;
  const int print = r->step % cfg->train.log_every == 0 || r->step == cfg->train.steps || val_bpb >= 0.0;
  if (!print) {
    if (m->terminal) progress_bar(m, cfg, r->step);
    return ARB_OK;
  }
  const double now = arb_clock_seconds(), seconds = now - m->interval_start;
  const double steps = (double)m->interval_steps;
  const double rate = (double)m->interval_targets / seconds, flip_rate = (double)m->interval_flips / steps / (double)m->weights;
  const double left = (now - m->start) / (double)(r->step - m->first_step) * (double)(cfg->train.steps - r->step);
  char rate_text[32], val_text[32] = "", save_text[48] = "", empty_text[48] = "";
  print_rate(rate_text, sizeof rate_text, rate);
  if (val_bpb >= 0.0) snprintf(val_text, sizeof val_text, "  val %.4f", val_bpb);
  if (m->empty > 0) snprintf(empty_text, sizeof empty_text, "  %lld samples skipped", (long long)m->empty);
  if (m->last_save >= 0) snprintf(save_text, sizeof save_text, "  saved %lld steps ago", (long long)(r->step - m->last_save));
  fprintf(m->console, "%sstep %lld/%lld  bpb %.4f%s  %s  %.0f ms/step  flips %.4f %%  eta %d:%02d%s%s\n",
          m->terminal ? "\r\033[K" : "", (long long)r->step, (long long)cfg->train.steps, m->interval_bpb / steps, val_text,
          rate_text, 1000.0 * seconds / steps, 100.0 * flip_rate, (int)left / 60, (int)left % 60, save_text, empty_text);
  fflush(m->console);
  char val_json[128] = "null";
  char wire_json[32 * ARB_TRAFFIC_CONTROL] = "";
  int64_t sent = 0;
  size_t used = 0;
  for (int k = 0; k < ARB_TRAFFIC_CONTROL; k++) {
    used += (size_t)snprintf(wire_json + used, sizeof wire_json - used, "%s\"%s\": %lld", k ? ", " : "",
                             arb_traffic_name((arb_traffic)k), (long long)r->wire[k]);
    sent += r->wire[k];
  }
  if (val_bpb >= 0.0) {
    static const char *const by[2] = {"image", "audio"};
    int n = snprintf(val_json, sizeof val_json, "%.6f", val_bpb);
    for (int k = 0; k < 2; k++)
      if (r->val_by[k] >= 0.0)
        n += snprintf(val_json + n, sizeof val_json - (size_t)n, ", \"val_bpb_%s\": %.6f", by[k], r->val_by[k]);
  }
  fprintf(m->jsonl,
          "{\"step\": %lld, \"train_bpb\": %.6f, \"val_bpb\": %s, \"bytes_per_s\": %.1f, \"ms_per_step\": %.3f, "
          "\"flip_rate\": %.9f, \"saturated\": %.9f, \"eta\": %.9g, \"wire_bytes_per_weight\": %.6f, \"wire_bytes\": {%s}, "
          "\"skipped\": %lld}\n",
          (long long)r->step, m->interval_bpb / steps, val_json, rate, 1000.0 * seconds / steps, flip_rate,
          (double)r->saturated / (double)m->weights, (double)arb_trainer_eta(cfg, r->step), (double)sent / (double)m->weights,
          wire_json, (long long)m->empty);
  ARB_REQUIRE(fflush(m->jsonl) == 0, ARB_ERR_IO, "metrics.jsonl: %s", strerror(errno));
  m->interval_start = arb_clock_seconds();
  m->interval_steps = m->interval_flips = m->interval_targets = 0;
  m->interval_bpb = 0.0;
  return ARB_OK;
}
