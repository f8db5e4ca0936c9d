#!/usr/bin/env bash
# The tables of results/real.md, of the runs that results/record.py made in runs/record: the report
# in runs/record/nlp, then, printed, what the confidence loss gains, and the picture of that table as
# it stands in real.md.
#
#     python results/record.py --parts=nlp --jobs=14
#     results/record.sh runs/demo/facts      # folders of other grids' tasks, whose rows are printed
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=${OUT:-runs/record}

tasks=sst2,sciq,cola,ethics_justice
sizes="--seeds=3 --n_train=2000 --n_test=2000 --out=$out/nlp"
$python sweep.py --ds=$tasks --models=minilm,smollm2-135m,gemma3-270m --loss=xent,conf $sizes
$python sweep.py --ds=ethics_virtue --weak=minilm --strong=smollm2-135m,gemma3-270m \
    --loss=xent,conf $sizes

$python - $out "$@" <<'PYTHON'
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from w2s import effects, files

out, *more = sys.argv[1:]  # more: folders of a grid's task, such as runs/demo/facts
pair = "minilm", "smollm2-135m"
cases = [(folder.parent, *pair) for folder in sorted(Path(out, "nlp").glob("*/s2"))]
for folder in map(Path, more):
    weak = next(folder.glob("s0/labels-*.jsonl")).stem.removeprefix("labels-")
    student = next(folder.glob(f"s0/{weak}-*-xent")).name
    cases.append((folder, weak, student.removeprefix(f"{weak}-").removesuffix("-xent")))
print("| task | weak labels right | sure | conf less naive, points |\n|---|---|---|---|")


def read(run):
    """(rows of the predictions, groups) of a run."""
    file = next(path for path in Path(run, "eval").glob("*-test.jsonl"))
    return files.read_jsonl(file, ["prob", "label"]), files.read_card(file)["test_groups"]


for folder, weak, strong in cases:
    seeds = [folder / f"s{seed}" for seed in range(3)]
    labels = [files.read_jsonl(s / f"labels-{weak}.jsonl", ["weak", "label"]) for s in seeds]
    runs = [[read(s / f"{weak}-{strong}-{rule}") for rule in ("xent", "conf")] for s in seeds]
    groups = runs[0][0][1]
    right = [[[(r["prob"] > 0.5) == r["label"] for r in rows] for rows, _ in two] for two in runs]
    gain = np.array([np.subtract(conf, xent, dtype=float) for xent, conf in right]) * 100
    value, low, high = effects.interval(effects.crossed(gain[None], *effects.number(groups)), [1])
    sure = np.mean([abs(2 * row["weak"] - 1) for file in labels for row in file])
    good = np.mean([(row["weak"] > 0.5) == row["label"] for file in labels for row in file])
    told = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    print(f"| {folder.name} | {good:.3f} | {sure:.2f} | {told} |")
fig, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.axhline(0, color="grey", lw=0.8)
axes.margins(x=0.12)
line = r"^\| ([^|]+) \| (\S+) \| (\S+) \| (\S+) \[(\S+), (\S+)\] \|$"
for name, *numbers in re.findall(line, Path("results/real.md").read_text(), re.M):
    _, sure, value, low, high = map(float, numbers)
    axes.errorbar(sure, value, [[value - low], [high - value]], fmt="o", ms=4, capsize=2)
    axes.annotate(name, (sure, value), (4, 4), textcoords="offset points", fontsize=7)
axes.set_xlabel("how sure the weak labels are, mean |2 P(1) - 1|")
axes.set_ylabel("conf less naive student, points")
fig.savefig(f"{out}/conf.png", dpi=150)
PYTHON
