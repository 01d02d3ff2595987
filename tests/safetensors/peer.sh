#!/usr/bin/env bash
# peer.sh: our reader and writer against the safetensors package of Python, both ways: files that one writes, the other reads;
# and our GGUF reader against the gguf package.
# PYTHON names a python3 that has it (and numpy); by default python3. WEIGHTS_PRINT, ST_WRITE: our programs.
. "$(dirname "$0")/../check.sh"
python=${PYTHON:-python3}
if ! "$python" -c 'import numpy, safetensors.numpy' 2>/dev/null; then
  skip "SAFETENSORS FILES WERE NOT COMPARED WITH ANOTHER READER" "$python has no package safetensors"
  finish
fi
cat >"$scratch/peer.py" <<'PY'
import json, sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

def show(path):  # what weights_print prints
    names = {"float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16",
             "uint16": "U16", "int32": "I32", "uint32": "U32", "int64": "I64", "uint64": "U64"}
    for name, a in sorted(load_file(path).items()):
        print(name, names[str(a.dtype)], "(" + ", ".join(map(str, a.shape)) + ")", a.tobytes().hex())

mode, path = sys.argv[1:3]
if mode == "show":
    show(path)
    with safe_open(path, "np") as f:
        print(json.dumps(f.metadata(), sort_keys=True), file=sys.stderr)
elif mode == "write":
    r = np.random.default_rng(1)
    kinds = ["float16", "float32", "float64", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    shapes = [(), (1,), (3,), (2, 3), (0, 4), (5, 1, 2), (2, 1, 3, 1, 2)]
    a = {f"t.{k}.{i}": np.array(r.standard_normal(s) * 50).astype(k) if k[0] != "u" else np.array(r.integers(0, 99, s)).astype(k)
         for k in kinds for i, s in enumerate(shapes)}
    save_file(a, path, metadata={"format": "pt", "why": "\u00e9 \" \\"})
PY
"$python" "$scratch/peer.py" write "$scratch/theirs.safetensors"
same "our reader sees what theirs does in a file of theirs" "$("$python" "$scratch/peer.py" show "$scratch/theirs.safetensors" 2>/dev/null)" \
  "$("$WEIGHTS_PRINT" "$scratch/theirs.safetensors" 2>&1)"
"$ST_WRITE" "$scratch/ours.safetensors"
same "their reader sees what ours does in a file of ours" "$("$WEIGHTS_PRINT" "$scratch/ours.safetensors" 2>&1)" \
  "$("$python" "$scratch/peer.py" show "$scratch/ours.safetensors" 2>"$scratch/notes")"
same "their reader sees our notes" '{"format": "pt", "note": "2^(E/8) \"x\" \u00e9"}' "$(cat "$scratch/notes")"

if ! "$python" -c 'import gguf' 2>/dev/null; then
  skip "GGUF FILES WERE NOT COMPARED WITH ANOTHER WRITER" "$python has no package gguf"
  finish
fi
cat >"$scratch/gguf_peer.py" <<'PY'
import sys
import gguf, numpy as np
r = np.random.default_rng(2)
w = gguf.GGUFWriter(sys.argv[1], "pig")
w.add_string("general.name", "peer")
w.add_array("words", ["a", "bc", ""])
w.add_array("numbers", [1, 2, 3])
w.add_array("nested", [[1, 2], [3]])
w.add_float64("wide", 0.5)
w.add_bool("yes", True)
w.add_custom_alignment(64)
lines = []
for i, (shape, kind) in enumerate([((2, 1, 3, 1, 2), "float16"), ((5,), "float32"), ((3, 2), "float16"), ((1,), "float32"), ((4, 3), "int8"), ((7,), "float64")]):
    a = (r.standard_normal(shape) * 50).astype(kind)
    w.add_tensor(f"t.{i}", a)
    lines.append(f"t.{i} {kind[0].upper()}{kind[-2:] if kind != 'int8' else 8} ({', '.join(map(str, shape))}) {a.tobytes().hex()}")
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
print("\n".join(lines))
PY
expected=$("$python" "$scratch/gguf_peer.py" "$scratch/theirs.gguf" 2>/dev/null)
same "our reader sees what the gguf package wrote" "$expected" "$("$WEIGHTS_PRINT" "$scratch/theirs.gguf" 2>&1)"
finish
