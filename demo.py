"""The whole experiment on `facts`: three seeds, naive fine-tuning and the confidence loss.

    python demo.py        # half a minute on two cores

Every line after a $ is a command that you could type. Here the seeds run side by side, and torch
is imported once: sixteen imports of it would take longer than the training.
The result is a picture, runs/demo/demo.png: weak supervisor, both students and the strong ceiling.
"""

import importlib
import json
import multiprocessing
import os
import shlex
import sys
from pathlib import Path

import pgr
from w2s import cli
from w2s.curves import write_figure

OUT = "runs/demo"


def step(script, *words):
    """Run one command of the experiment, just as the shell would."""
    print(f"$ python {script}.py", shlex.join(words), flush=True)
    main = importlib.import_module(script).main
    args, options = cli.parse(main, list(words))
    main(*args, **options)


def one_seed(seed):
    """Supervisor, weak labels, two students and the ceiling of one seed."""
    here = f"{OUT}/s{seed}"
    step("train_weak", f"--seed={seed}", f"--out={here}/weak")
    step("label", f"{here}/weak", f"--out={here}/labels.jsonl")
    train = ("train_strong", f"{here}/labels.jsonl", f"--seed={seed}")
    step(*train, f"--out={here}/naive")
    step(*train, f"--out={here}/conf", "--loss=conf")
    step(*train, f"--out={here}/ceiling", "--target=truth")


def draw(results, path):
    """The first picture of the README: accuracies of `results`, {student: pgr.json}, as bars."""
    from matplotlib.figure import Figure

    naive, conf = results["naive"], results["conf"]
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    pgr.bars(axes, {
        "weak\nsupervisor": (naive["weak"], "#c9c9c9"),
        f"naive student\nPGR {naive['pgr']['value']:.2f}": (naive["student"], "#9e9ac8"),
        f"confidence loss\nPGR {conf['pgr']['value']:.2f}": (conf["student"], "#6a51a3"),
        "strong\nceiling": (naive["ceiling"], "#3d3d3d"),
    })  # fmt: skip
    title = f"facts/xs -> facts/m, {naive['n']} test rows, {naive['seeds']} seeds"
    axes.set(title=title, ylabel="test accuracy, 95 % intervals", ylim=(0.5, 0.9))
    write_figure(figure, path)


@cli.stage
def main(args, *, seeds: int = 3):
    """Run the demo."""
    import train_strong  # noqa: F401
    from w2s import models  # noqa: F401  the workers below inherit torch and transformers

    # a fork inherits what is imported; elsewhere than on Linux it is unsafe beside threads
    start = "fork" if sys.platform == "linux" else "spawn"
    processes = min(seeds, max(2, os.cpu_count()))
    with multiprocessing.get_context(start).Pool(processes) as pool:
        pool.map(one_seed, range(seeds), chunksize=1)
    runs = ("weak", "naive", "conf", "ceiling")
    step("eval", *(f"{OUT}/s{seed}/{run}" for seed in range(seeds) for run in runs))
    results = {}
    for student in ("naive", "conf"):
        print(f"\n==== weak -> {student} student -> ceiling")
        out = f"{OUT}/{student}.json"
        step("pgr", *(f"{OUT}/s*/{run}" for run in ("weak", student, "ceiling")), f"--out={out}")
        results[student] = json.loads(Path(out).read_bytes())
    if all(result["pgr"]["value"] is not None for result in results.values()):
        draw(results, f"{OUT}/demo.png")


if __name__ == "__main__":
    cli.run(main)
