#!/usr/bin/env bash
# Everything there is to run on an NVIDIA GPU, in one go of under 9 minutes: on a machine with nvcc's compute-sanitizer
# and PyTorch (transformers, safetensors), and without cargo.
#
#     cargo build --release                                      # where cargo is; nvcc's images go into the program
#     benches/gpu.sh [--fipk FILE] [--out DIR] [--python PYTHON] [--only STAGE,STAGE]
#
# Stages, each with a limit of its own, so that one that hangs does not take the rest with it:
#   doctor selftest wrappers memcheck racecheck synccheck kernels attention steps
# Each leaves DIR/STAGE.json or DIR/STAGE.log; DIR/table.md says what came out, beside what was aimed at. Ends in 1
# if a stage failed.
set -uo pipefail
cd "$(dirname "$0")/.."

fipk=target/release/fipk out=gpu-round python=python3 only=
while [ $# -gt 0 ]; do
  case "$1" in
    --fipk | --out | --python | --only) [ $# -gt 1 ] || { echo "$1 wants a value" >&2; exit 2; } ;;
  esac
  case "$1" in
    --fipk) fipk=$2 ;;
    --out) out=$2 ;;
    --python) python=$2 ;;
    --only) only=$2 ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done
[ -x "$fipk" ] || { echo "$fipk is not there: build it by cargo build --release, or name it with --fipk" >&2; exit 2; }
mkdir -p "$out"
: > "$out/stages.tsv"

# stage NAME SECONDS FILE COMMAND..: the command's output goes to FILE, its complaints to NAME.log.
stage() {
  local name=$1 limit=$2 file=$3 began=$SECONDS status=0
  shift 3
  case ",${only:-$name}," in *",$name,"*) ;; *) return 0 ;; esac
  printf '== %s: %s\n' "$name" "$*"
  timeout --kill-after=5 "$limit" "$@" > "$out/$file" 2> "$out/$name.err" || status=$?
  [ -s "$out/$name.err" ] || rm -f "$out/$name.err"
  printf '%s\t%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - began))" "$*" >> "$out/stages.tsv"
  [ "$status" = 0 ] || { echo "   failed with $status after $((SECONDS - began)) s"; tail -n 5 "$out/$file" "$out/$name.err" 2>/dev/null; }
  return 0
}

# A row of each family is enough for the sanitizer, which runs kernels a hundred times slower.
checked='{wrapper_*,gemm_*,attention_*,layer_norm_*,conv2d_*}'
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)

stage doctor    20 doctor.json    "$fipk" doctor --json
stage wrappers  30 wrappers.json  "$fipk" selftest --device cuda:0 --filter 'wrapper_*' --json
stage selftest  90 selftest.json  "$fipk" selftest --device cuda:0 --json
stage memcheck  50 memcheck.log   "$sanitizer" --tool memcheck --error-exitcode 9 "$fipk" selftest --device cuda:0 --filter "$checked"
stage racecheck 50 racecheck.log  "$sanitizer" --tool racecheck --error-exitcode 9 "$fipk" selftest --device cuda:0 --filter "$checked"
stage synccheck 30 synccheck.log  "$sanitizer" --tool synccheck --error-exitcode 9 "$fipk" selftest --device cuda:0 --filter "$checked"
stage kernels   70 kernels.json   "$fipk" bench kernels --device cuda:0 --shape bert-base,vit-b16,minilm,square,attention --seconds 0.1 --json
stage attention 40 attention.json "$python" benches/peers/attention.py --device cuda --dtype bf16 --json
stage steps    150 steps.log      "$python" benches/peers/compare.py --fipk "$fipk" --device cuda --dtype bf16 --compile --rounds 1 \
  --out "$out/steps.json" bert-base-32 bert-base vit-b16-64

"$python" benches/gpu_table.py "$out" | tee "$out/table.md"
exit "${PIPESTATUS[0]}"
