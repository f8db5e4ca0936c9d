#!/usr/bin/env bash
# Bootstrapping (paper, 4.3.1): a chain M1 -> M2 -> ... -> Mn, every model the supervisor of the next, with fresh puzzles for every
# step; against naive M1 -> Mn on all these puzzles at once, and the ceiling on the same.
#
#     bash chess/bootstrap_chess.sh runs/chess/boot 0                                  # chess/xs -> chess/s -> chess/m, seed 0
#     bash chess/bootstrap_chess.sh runs/chess/boot 0 chess/xs chess/s chess/m         # the chain as an explicit list
#     DS=lichess bash chess/bootstrap_chess.sh runs/lichess/boot 0 gpt2 gpt2-medium gpt2-large
#
# Leaves OUT/weak, OUT/step2 ... OUT/stepN, OUT/naive and OUT/ceiling; of several seeds: python pgr.py 'OUT*/weak' ...
set -eu
[ $# -gt 1 ] || { echo "usage: bash $0 OUT SEED [MODEL MODEL MODEL ...]" >&2; exit 2; }
out=$1 seed=$2
shift 2
[ $# -gt 0 ] || set -- chess/xs chess/s chess/m
[ $# -gt 2 ] || { echo "error: a chain has three models or more, not $#: $*" >&2; exit 2; }
models=("$@") steps=$(($# - 1)) here=$(dirname "$0") python=${PYTHON:-$(command -v python || command -v python3)}

"$python" "$here/train_chess.py" --ds="${DS:-puzzles}" --model="$1" --seed="$seed" --out="$out/weak"
teacher=$out/weak
for k in $(seq 1 "$steps"); do
    "$python" "$here/label_chess.py" "$teacher" --part="$k/$steps" --out="$out/labels$((k + 1)).jsonl"
    teacher=$out/step$((k + 1))
    "$python" "$here/train_chess.py" "$out/labels$((k + 1)).jsonl" --model="${models[$k]}" --seed="$seed" --out="$teacher"
done
"$python" "$here/label_chess.py" "$out/weak" --out="$out/labels.jsonl"
"$python" "$here/train_chess.py" "$out/labels.jsonl" --model="${models[$steps]}" --seed="$seed" --out="$out/naive"
"$python" "$here/train_chess.py" "$out/labels.jsonl" --model="${models[$steps]}" --seed="$seed" --out="$out/ceiling" --target=truth
"$python" "$here/eval_chess.py" "$out/weak" "$out"/step* "$out/naive" "$out/ceiling"
for student in naive "step$#"; do
    echo "== $student"
    "$python" "$here/../pgr.py" "$out/weak" "$out/$student" "$out/ceiling" --out="$out/pgr_$student.json"
done
