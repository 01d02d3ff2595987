# layers.awk: reads C sources (paths relative to the root) and prints "path:line: rule: what" for everything that breaks the
# rules of the tree. Comments and strings are removed first, except for the marker words. POSIX awk.
BEGIN {
  # Folder, height, group. A file may include its own group and lower heights; folders of one height do not know each other.
  place("src/base", 0); place("kernels/common", 1)
  place("kernels", 2); place("kernels/rows", 2); place("kernels/host", 2); place("kernels/ref", 2); place("kernels/cpu", 2)
  place("kernels/cuda", 2); place("kernels/lockstep", 2); place("kernels/dense", 2); place("dist", 2); place("dist/single", 2); place("dist/loopback", 2); place("dist/mpi", 2)
  place("dist/nccl", 2); place("src/config", 3); place("src/data", 3); place("src/checkpoint", 3); place("src/safetensors", 3)
  place("src/media", 3)
  place("src/model", 4); place("src/sidecar", 4); place("src/features", 4.5); place("src/train", 5); place("src/bench", 6); place("launch", 7); place("tools/checkpoint", 7)
  # One group, several folders.
  for (f in height) if (height[f] == 2) group[f] = f ~ /^dist/ ? "dist" : "kernels"
  # Headers of others, and the only folders that know them.
  only("mpi.h", "dist/mpi"); only("nccl.h", "dist/nccl"); only("cuda_runtime.h", "kernels/cuda dist/nccl")
  only("hdf5.h", "src/checkpoint src/features"); only("ini.h", "src/config"); only("lzma.h", "src/data")
  only("png.h", "src/media"); only("jpeglib.h", "src/media"); only("sndfile.h", "src/media"); only("samplerate.h", "src/media")
  # Calls that end the process or read its environment are for programs.
  may["exit"] = may["_exit"] = may["_Exit"] = may["quick_exit"] = may["abort"] = may["getenv"] = "launch tools/checkpoint"
  may["_exit"] = may["_exit"] " dist/mpi"
  may["getenv"] = may["getenv"] " dist/mpi"
  markers = "TO" "DO|FIX" "ME|XX" "X"
}
function place(folder, h) { height[folder] = h; group[folder] = folder }
function only(header, folders) { owners[header] = folders }
function has(list, word) { return index(" " list " ", " " word " ") > 0 }
function complain(line, rule, what) { printf "%s:%d: %s: %s\n", file, line, rule, what }
# The line without comments and the insides of strings; in_comment lasts over lines.
function strip(s,   out, c, two) {
  out = ""
  while (s != "") {
    if (in_comment) {
      c = index(s, "*/")
      if (!c) return out
      s = substr(s, c + 2)
      in_comment = 0
      continue
    }
    two = substr(s, 1, 2)
    c = substr(s, 1, 1)
    if (two == "/*") { in_comment = 1; s = substr(s, 3); continue }
    if (two == "//") return out
    if (c == "\"" || c == "'") {
      out = out c
      s = substr(s, 2)
      while (s != "" && substr(s, 1, 1) != c) s = substr(s, substr(s, 1, 1) == "\\" ? 3 : 2)
      out = out c
      s = substr(s, 2)
      continue
    }
    out = out c
    s = substr(s, 2)
  }
  return out
}
function folder_of(path) { return path ~ /\// ? substr(path, 1, match(path, /\/[^\/]*$/) - 1) : "" }
function start() {
  file = FILENAME
  sub(/^\.\//, "", file)
  folder = folder_of(file)
  in_comment = 0
  directives = kernels = waits = early = 0
  guard = "ARB_" toupper(file)
  gsub(/[^A-Z0-9]/, "_", guard)
  product = file !~ /^(tests|tools\/ulp)\//
  if (product && !(folder in height)) complain(1, "unknown folder", folder " is not on the map of layers")
}
function end_of_file() {
  if (file == "") return
  if (lines > 600) complain(lines, "too long", lines " lines, at most 600")
  # Which kernels start early is seen in one file where they are made and launched in the same one.
  if (early && waits < kernels) complain(early, "early launch", kernels " kernels, of which " waits " call arb_previous_done")
  if (file ~ /\.(h|cuh)$/ && directives < 2) complain(1, "include guard", "missing, expected " guard)
}
function check_quoted(to,   at) {
  at = folder_of(to)
  if (at == "" || (getline peek < to) < 0) {
    complain(FNR, "include path", "\"" to "\" is not a path from the root")
    close(to)
    return
  }
  close(to)
  if (!product) return
  if (!(at in height)) complain(FNR, "include direction", folder " includes " to)
  else if (group[at] != group[folder] && height[at] >= height[folder]) complain(FNR, "include direction", folder " includes " to)
}
FNR == 1 { end_of_file(); start() }
{
  lines = FNR
  raw = $0
  if (match(raw, "(^|[^A-Za-z0-9_])(" markers ")([^A-Za-z0-9_]|$)")) complain(FNR, "marker", substr(raw, RSTART, RLENGTH))
  quoted = raw
  code = strip(raw)
}
code ~ /^[ \t]*#/ {
  directives++
  if (file ~ /\.(h|cuh)$/) {
    want = directives == 1 ? "ifndef" : directives == 2 ? "define" : ""
    if (want != "" && code !~ ("^#" want " " guard "[ \t]*$")) complain(FNR, "include guard", "expected #" want " " guard)
  }
}
code ~ /^[ \t]*#[ \t]*include/ {
  name = quoted
  if (name ~ /#[ \t]*include[ \t]*"/) {
    sub(/^[^"]*"/, "", name); sub(/".*/, "", name)
    check_quoted(name)
  } else if (name ~ /</) {
    sub(/^[^<]*</, "", name); sub(/>.*/, "", name)
    if (product && (name in owners) && !has(owners[name], folder)) complain(FNR, "foreign header", folder " includes <" name ">")
  }
  next
}
code ~ /__global__/ { kernels++ }
code ~ /arb_previous_done\(\)/ { waits++ }
code ~ /ARB_CUDA_CHAIN\(/ { early = FNR }
product {
  rest = code
  while (match(rest, /[A-Za-z_][A-Za-z0-9_]*[ \t]*\(/)) {
    word = substr(rest, RSTART, RLENGTH)
    before = RSTART > 1 ? substr(rest, RSTART - 1, 1) : ""
    rest = substr(rest, RSTART + RLENGTH)
    sub(/[ \t]*\($/, "", word)
    if ((word in may) && before != "." && before != ">" && !has(may[word], folder)) complain(FNR, "forbidden call", word "() in " folder)
  }
}
END { end_of_file() }
