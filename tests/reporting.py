"""A made-up grid, cards and predictions without any training, and how long its report takes.

python tests/reporting.py 22 5 5000     # tasks, seeds, test rows; one pair, two rules
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from conftest import CARD

sys.path.insert(0, str(Path(__file__).parents[1]))
import tasks
from w2s import files, grids, outcomes, report

SIZES = {"a/xs": 50_000, "a/s": 120_000, "a/m": 300_000, "a/l": 2_000_000}
BASE = {"a/xs": 0.65, "a/s": 0.72, "a/m": 0.8, "a/l": 0.86}
GAIN = {"xent": 0.4, "conf": 0.7}  # the PGR that is put in


def make_grid(folder, ds=("facts",), pairs=(("a/xs", "a/m"),), rules=("xent", "conf"), seeds=2,
              rows=200):  # fmt: skip
    """Write grid.json, cards, predictions and results.jsonl of models that are right by chance."""
    folder, rng = Path(folder), np.random.default_rng(0)
    grid = {"pairs": [(task, *pair) for task in ds for pair in pairs], "seeds": seeds}
    grid["rules"] = {rule: {"loss": rule} for rule in rules}
    grids.settle(folder, grid, {}, write=True)
    labels, groups = rng.integers(0, 2, rows).tolist(), [f"g{i // 4}" for i in range(rows)]
    hard = np.repeat(rng.random(-(-rows // 4)), 4)[:rows]  # rows of a group are alike
    done = set()
    for task, weak, strong, rule, seed in grids.cells(grid):
        low, high = BASE[weak], BASE[strong]
        skills = {"weak": low, "student": low + GAIN[rule] * (high - low), "ceiling": high}
        at, of = grids.places(task, weak, strong, rule, seed), tasks.setting_of(task)
        row_of = text if of is tasks.texts else move
        for who, skill in skills.items():
            run = folder / at[who]
            if run not in done:
                right = ((0.7 * hard + 0.3 * rng.random(rows)) < skill).tolist()
                told = [row_of(str(i), *row) for i, row in enumerate(zip(labels, right))]
                write_run(run, SIZES[weak if who == "weak" else strong], task, told, groups)
                done.add(run)
        label = {"id": "0", "label": 1, "target": "e4", "weak": 0.9 if row_of is text else "e4"}
        files.write_jsonl(folder / at["labels"], [label], CARD)
    grids.results(folder, grid, tasks.setting_of, "test")
    return folder


def write_run(run, size, task, rows, groups):
    """The cards of a run and of its predictions, and these."""
    resolved = {"parameters": size, "device": "cpu", "dtype": "float32", "processes": 1}
    card = CARD | {"stage": "train_weak", "resolved": resolved}
    card |= {"seconds": 30.0, "versions": {"python": "3.11"}, "commit": "0123456789ab"}
    files.write_card(run, card | {"model_sha256": str(run), "time": "2026-01-01T00:00:00"})
    about = CARD | {"inputs": {"model": str(run)}, "test_groups": groups, "rows_sha256": "these"}
    files.write_jsonl(run / f"eval/{task}-test.jsonl", rows, about)


def text(name, label, right):
    return {"id": name, "label": label, "prob": 0.8 if label == right else 0.2}


def move(name, _, right):
    said = "e4" if right else "d4"
    return {"id": name, "target": "e4", "move": said, "correct": int(right), "legal": 1}


if __name__ == "__main__":
    n_tasks, n_seeds, n_rows = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        names = list(tasks.texts.TASKS)[:n_tasks]
        make_grid(folder, names, seeds=n_seeds, rows=n_rows)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began, cpu = time.monotonic(), time.process_time()
        _, lines = outcomes.read_lines(folder)
        outcomes.measure(folder, lines, tasks.setting_of_card)
        print(f"statistics: {time.monotonic() - began:.1f} s, CPU {time.process_time() - cpu:.1f}")
        report.make(folder, tasks.setting_of_card)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"with pictures: {time.monotonic() - began:.1f} s; {before:.0f} -> {peak:.0f} MB")
