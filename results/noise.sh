#!/usr/bin/env bash
# Noise as a dial (results/rules.md): facts/m on the truth with a share R of it made wrong; seeds 0
# to 2. Errors anywhere under two rules, and where a strong model is unsure. Then the picture.
#
#     results/noise.sh             # some minutes; what is done already is not done again
set -eu
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
python=${PYTHON:-.venv/bin/python}
out=${OUT:-runs/noise}
mkdir -p $out

one() { # a seed
    here=$out/s$1
    $python train_weak.py --seed=$1 --out=$here/weak
    $python label.py $here/weak --out=$here/labels.jsonl
    $python train_strong.py $here/labels.jsonl --target=truth --seed=$1 --out=$here/ceiling
    for rate in 0.1 0.2 0.3 0.4; do
        for kind in random unconfident; do
            labels=$here/$kind-$rate.jsonl
            $python controls.py $here/labels.jsonl --kind=$kind --rate=$rate --seed=$1 \
                --run=$here/ceiling --out=$labels
            $python train_strong.py $labels --seed=$1 --out=$here/$kind-$rate
        done
        $python train_strong.py $here/random-$rate.jsonl --seed=$1 --loss=conf \
            --out=$here/random-$rate-conf
    done
    $python eval.py $here/ceiling "$here/*-*"
}

export -f one
export python out
seq 0 2 | xargs -P 2 -I{} bash -euc 'one {}' >> $out/log.txt
$python results/noise.py "$out/s*/*-*" --ceiling="$out/s*/ceiling"
