#!/usr/bin/env bash
# Noise as a dial (results/rules.md): facts/m on the truth with a share R of it made wrong; seeds 0
# to 2. Errors anywhere under two rules, and where a strong model is unsure. Then table and picture.
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

$python - $out <<'PYTHON'
import sys
from pathlib import Path

import numpy as np

from w2s import files, stats
from w2s.figures import STYLES, new_figure, whiskers, write_figure

RATES = (0.1, 0.2, 0.3, 0.4)
LINES = {"random, xent": "random-{}", "random, conf": "random-{}-conf"}
LINES |= {"unconfident, xent": "unconfident-{}"}


def right(name):
    """(whether each answer of three seeds' runs is right [3, N], the rows' groups [N])."""
    paths = [Path(sys.argv[1], f"s{seed}", name, "eval/facts-test.jsonl") for seed in range(3)]
    rows = [files.read_jsonl(path, ["prob", "label"]) for path in paths]
    said = [[(row["prob"] > 0.5) == row["label"] for row in one] for one in rows]
    return np.array(said, dtype=float), files.read_card(paths[0])["test_groups"]


ceiling, groups = right("ceiling")
figure, (accuracy, pgr) = new_figure(2, share=False)
accuracy.plot(RATES, [1 - rate for rate in RATES], ":", color="grey", label="supervisor")
accuracy.axhline(ceiling.mean(), color="grey", label="ceiling")
for k, ((line, name), (colour, _, marker, _)) in enumerate(zip(LINES.items(), STYLES[1:])):
    for rate in RATES:  # the simulated supervisor is right on 1 - rate of the rows by construction
        x = rate + 0.008 * (k - 1)  # side by side
        weak = np.full_like(ceiling, 1 - rate)
        told = stats.compare([weak, right(name.format(rate))[0], ceiling], None, groups)
        own = told["pgr"]
        said = "undefined" if own["value"] is None else stats.in_words(own)
        print(f"{line:<18} {rate:4.0%} {stats.in_words(told['student'], 'acc')}   PGR {said}")
        look = {"color": colour, "marker": marker, "capsize": 3, "label": line * (rate == 0.1)}
        accuracy.errorbar(x, told["student"]["acc"], whiskers(told["student"], "acc"), **look)
        if own["value"] is not None:
            pgr.errorbar(x, own["value"], whiskers(own), **look | {"label": None})
accuracy.set(xlabel="share of wrong labels", ylabel="test accuracy")
pgr.set(xlabel="share of wrong labels", ylabel="PGR, 95 % intervals", xlim=accuracy.get_xlim())
accuracy.legend(frameon=False, fontsize=8)
write_figure(figure, f"{sys.argv[1]}/noise.png")
PYTHON
