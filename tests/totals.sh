#!/usr/bin/env bash
# totals.sh [--failed] LOG...: adds up what tests report in logs of "ctest -V", and of shell tests run directly: cmocka programs, once
# per process and rank, and lines "N passed, N failed, N skipped". An entry of ctest that fails without reporting a failure (it
# crashed, hung, leaked) counts as one failed; one that reports nothing counts as one test. Prints one such line.
# --failed: instead prints the output of the entries that failed.
set -euo pipefail
mode=totals
if [ "${1:-}" = --failed ]; then mode=failed; shift; fi
awk -v mode="$mode" '
  function number(s, before,   t) { t = substr(s, index(s, before) + length(before)); sub(/^[^0-9]*/, "", t); return t + 0 }
  function count(id, line,   part, i) {
    if (line ~ /^\[  PASSED  \] [0-9]+ test\(s\)/) p[id] += number(line, "]")
    else if (line ~ /^\[  FAILED  \] [0-9]+ test\(s\)/) f[id] += number(line, "]")
    else if (line ~ /^\[  SKIPPED \] [0-9]+ test\(s\)/) s[id] += number(line, "]")
    else if (line ~ /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/) {
      split(line, part, /[a-z, ]+/)
      p[id] += part[1]; f[id] += part[2]; s[id] += part[3]
    }
  }
  function close_file(   id) {
    for (id in p) { passed += p[id] }
    for (id in f) { failed += f[id] }
    for (id in s) { skipped += s[id] }
    delete_all()
  }
  function delete_all(   id) {
    for (id in p) delete p[id]
    for (id in f) delete f[id]
    for (id in s) delete s[id]
    for (id in text) delete text[id]
  }
  FNR == 1 { close_file(); ctest = 0 }
  /^Test project / { ctest = 1 } # it may repeat the output of failed tests, without their number
  { sub(/\r$/, "") }
  /^[0-9]+: / {
    id = $0
    sub(/:.*/, "", id)
    line = $0
    sub(/^[0-9]+: /, "", line)
    count(id, line)
    if (length(text[id]) < 20000) text[id] = text[id] "  " line "\n"
    next
  }
  /^ *[0-9]+\/[0-9]+ +Test +#[0-9]+: / {
    id = number($0, "#")
    reported = p[id] + f[id] + s[id]
    bad = 0
    if ($0 ~ /\*\*\*Skipped/) { if (!reported) s[id] = 1 }
    else if ($0 ~ /   Passed +[0-9.]+ sec/) { if (!reported) p[id] = 1 }
    else { bad = 1; if (!f[id]) f[id] = 1 }
    if (bad && mode == "failed") printf "%s\n%s", $0, text[id]
    next
  }
  !ctest { count("direct", $0) }
  END {
    close_file()
    if (mode == "totals") printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
  }' "$@"
