# curve.awk: the learning curve of a run as text, from its metrics.jsonl. "." is training, "o" validation, in bits per byte.
#
#   awk -f launch/curve.awk [-v columns=64] [-v rows=16] runs/smoke/metrics.jsonl
function field(name,   at, rest) {
  at = index($0, "\"" name "\": ")
  if (!at) return ""
  rest = substr($0, at + length(name) + 4)
  sub(/[,}].*/, "", rest)
  return rest
}
function mark(s, bpb, sign,   x, y) {
  x = last > first ? int((s - first) / (last - first) * (columns - 1) + 0.5) : 0
  y = int((high - bpb) / (high - low) * (rows - 1) + 0.5)
  if (y < 0) y = 0
  if (cell[x, y] != "o") cell[x, y] = sign
}
BEGIN {
  if (!columns) columns = 64
  if (!rows) rows = 16
}
{
  s = field("step")
  if (s == "") next
  if (!(s in train)) order[n++] = s
  train[s] = field("train_bpb") + 0 # the last line of a step counts: a run that was killed repeats some
  v = field("val_bpb")
  if (v != "" && v != "null") valid[s] = v + 0
}
END {
  if (!n) {
    print "no steps in the file"
    exit 1
  }
  first = order[0] + 0
  last = order[n - 1] + 0
  for (i = 0; i < n; i++) sorted[i] = train[order[i]]
  for (i = 1; i < n; i++) for (j = i; j > 0 && sorted[j - 1] > sorted[j]; j--) { t = sorted[j]; sorted[j] = sorted[j - 1]; sorted[j - 1] = t }
  low = sorted[0]
  high = sorted[n - 1]
  # The first steps are far above the rest and would flatten it.
  if (n >= 10 && high > 1.5 * sorted[int(n * 0.95) - 1]) high = sorted[int(n * 0.95) - 1]
  for (s in valid) if (valid[s] < low) low = valid[s]
  if (high - low < 0.01) high = low + 0.01
  for (i = 0; i < n; i++) mark(order[i] + 0, train[order[i]], ".")
  for (s in valid) mark(s + 0, valid[s], "o")
  for (y = 0; y < rows; y++) {
    line = ""
    for (x = 0; x < columns; x++) line = line ((x, y) in cell ? cell[x, y] : " ")
    sub(/ +$/, "", line)
    if (y % 5 == 0 || y == rows - 1) printf "%7.2f |%s\n", high - (high - low) * y / (rows - 1), line
    else printf "%7s |%s\n", "", line
  }
  axis = ""
  for (x = 0; x < columns; x++) axis = axis "-"
  printf "%7s +%s\n", "bpb", axis
  printf "%9d%" (columns - 1) "d\n", first, last
  printf "%9sstep; . training, o validation\n", ""
}
