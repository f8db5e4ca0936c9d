#!/usr/bin/env bash
# Bootstrapping (paper, 4.3.1): a chain of models, each the supervisor of the next, with fresh rows
# for every step; against the last model trained on the first one's labels of all these rows.
#
#     results/bootstrap.sh runs/boot 0                              # chess/xs -> chess/s -> chess/m
#     DS=sst2 results/bootstrap.sh runs/sst2/boot 0 \
#         openai-community/gpt2 openai-community/gpt2-medium openai-community/gpt2-large
#
# OUT and SEED, then the models, three or more. Leaves OUT/weak, OUT/step2 ... OUT/stepN, OUT/naive
# and OUT/ceiling. Of several seeds: python pgr.py 'runs/boot*/weak' 'runs/boot*/step3' ...
set -eu
[ $# -gt 1 ] || { echo "usage: $0 OUT SEED [MODEL MODEL MODEL ...]" >&2; exit 2; }
out=$1 seed=$2
shift 2
[ $# -gt 0 ] || set -- chess/xs chess/s chess/m
[ $# -gt 2 ] || { echo "error: a chain has three models or more, not $#: $*" >&2; exit 2; }
models=("$@") steps=$(($# - 1)) here=$(dirname "$0")/../
python=${PYTHON:-$(command -v python || command -v python3)}
strong() { "$python" "${here}train_strong.py" "$@" --seed="$seed"; }

"$python" "${here}train_weak.py" --ds="${DS:-puzzles}" --model="$1" --seed="$seed" --out="$out/weak"
teacher=$out/weak
for k in $(seq 1 "$steps"); do
    labels=$out/labels$((k + 1)).jsonl
    "$python" "${here}label.py" "$teacher" --part="$k/$steps" --out="$labels"
    teacher=$out/step$((k + 1))
    strong "$labels" --model="${models[$k]}" --out="$teacher"
done
"$python" "${here}label.py" "$out/weak" --out="$out/labels.jsonl"
strong "$out/labels.jsonl" --model="${models[$steps]}" --out="$out/naive"
strong "$out/labels.jsonl" --model="${models[$steps]}" --out="$out/ceiling" --target=truth
"$python" "${here}eval.py" "$out/weak" "$out"/step* "$out/naive" "$out/ceiling"
for student in naive "step$#"; do
    echo "== $student"
    runs=("$out/weak" "$out/$student" "$out/ceiling")
    "$python" "${here}pgr.py" "${runs[@]}" --out="$out/pgr_$student.json"
done
