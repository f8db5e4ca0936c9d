#!/usr/bin/env bash
# The facts grid on a Slurm of its own, a node of which is killed in the middle (results/grids.md).
# It needs what tests/slurm.sh needs.
#
#   results/slurm.sh [STAGES [OPTIONS]]  # killed when STAGES are finished; OPTIONS of sbatch
#
# LOCAL=FOLDER: compare with the local sweep there, instead of making one. PYTHON=.venv/bin/python
set -eu
stages=${1:-14} options=${2:---no-requeue}
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
python=${PYTHON:-python}
dir=$(mktemp -d /tmp/slurm.XXXX)
grid=(--models=facts/xs,facts/s,facts/m --seeds=2)
finished() { find "$dir/grid" -name '*card.json' | wc -l; }
seconds() { echo "$SECONDS s: $*"; }
submit() { $python sweep.py "${grid[@]}" --out="$dir/grid" --slurm="$options"; }

if [ -z "${LOCAL:-}" ]; then
  LOCAL=$dir/local
  $python sweep.py "${grid[@]}" --out="$LOCAL"
  seconds "the local sweep"
fi
tests/slurm.sh start "$dir"
trap 'tests/slurm.sh stop "$dir"' EXIT
export SLURM_CONF=$dir/slurm.conf
SECONDS=0
submit
seconds "submitted"
while [ "$(finished)" -lt "$stages" ]; do sleep 0.2; done
tests/slurm.sh kill "$dir" n2
seconds "n2 is killed, $(finished) of 44 stages are finished; on it ran job $(squeue -hw n2 -o %A)"
while [ "$(sinfo -hN -n n2 -o %T)" != 'down*' ]; do sleep 0.2; done
seconds "Slurm has noticed; $(finished) of 44 are finished"
submit
while [ -n "$(squeue -h)" ]; do sleep 0.5; done
seconds "done"
$python - "$LOCAL" "$dir/grid" <<'END'
import json
import sys

one, other = (
    {
        str([line[name] for name in ("task", "weak", "strong", "rule", "seed")]): line
        for line in map(json.loads, open(f"{folder}/results.jsonl"))
        if line.pop("seconds")
    }
    for folder in sys.argv[1:]
)
print(len(one), "lines; the same but for seconds:", one == other)
END
