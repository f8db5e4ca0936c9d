"""A made-up grid, cards and predictions without any training, and how long its report takes.

python tests/reporting.py 22 5 5000     # tasks, seeds, test rows; one pair, two rules
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import tasks
from w2s import files, grids, outcomes, report

SIZES = {"a/xs": 50_000, "a/s": 120_000, "a/m": 300_000, "a/l": 2_000_000}
BASE = {"a/xs": 0.65, "a/s": 0.72, "a/m": 0.8, "a/l": 0.86}
GAIN = {"xent": 0.4, "conf": 0.7}  # the PGR that is put in


def make_grid(folder, ds=("facts",), pairs=(("a/xs", "a/m"),), rules=("xent", "conf"), seeds=2,
              rows=200, row_of=None):  # fmt: skip
    """Write grid.json, cards, predictions and results.jsonl of models right by chance.

    row_of: (id, label, right) -> a prediction; by default one of texts.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    grid = {"pairs": [(task, *pair) for task in ds for pair in pairs], "seeds": seeds}
    grid["rules"] = {rule: {"loss": rule} for rule in rules}
    grids.settle(folder, grid, {}, write=True)
    labels, groups = rng.integers(0, 2, rows).tolist(), [f"g{i // 4}" for i in range(rows)]
    hard = np.repeat(rng.random(-(-rows // 4)), 4)[:rows]  # rows of a group are alike
    lines, done = [], set()
    for cell in grids.cells(grid):
        task, weak, strong, rule, seed = cell
        low, high = BASE[weak], BASE[strong]
        of_rule = low + GAIN.get(rule, 0.5) * (high - low)
        skills = {"weak": low, "student": of_rule, "ceiling": high}
        at = grids.places(*cell)
        scored = {who: f"{at[who]}/eval/{task}-test.jsonl" for who in skills}
        for who, skill in skills.items():
            if at[who] not in done:
                done.add(at[who])
                right = (0.7 * hard + 0.3 * rng.random(rows)) < skill
                size = SIZES[weak if who == "weak" else strong]
                write_run(
                    folder / at[who], size, folder / scored[who], labels, right, groups, row_of
                )
        files.write_jsonl(folder / at["labels"], [{"id": "0", "label": 1, "weak": 0.9}], {})
        setting = tasks.setting_of(task)
        lines.append(grids.result(folder, cell, at, scored, setting, grids.answers))
        lines[-1] |= {"split": "test"}
    told = "".join(json.dumps(line) + "\n" for line in lines)
    files.write_text(folder / "results.jsonl", told)
    return folder


def write_run(run, size, file, labels, right, groups, row_of):
    """The cards of a run and of its predictions, and these."""
    resolved = {"parameters": size, "device": "cpu", "dtype": "float32", "processes": 1}
    card = {"stage": "train_weak", "finished": True, "args": {}, "resolved": resolved}
    card |= {"seconds": 30.0, "versions": {"python": "3.11"}, "commit": "0123456789ab"}
    files.write_card(run, card | {"model_sha256": str(run), "time": "2026-01-01T00:00:00"})
    row_of = row_of or text
    rows = [row_of(str(i), label, bool(one)) for i, (label, one) in enumerate(zip(labels, right))]
    about = {"inputs": {"model": str(run)}, "test_groups": groups, "rows_sha256": "these"}
    files.write_jsonl(file, rows, about)


def text(name, label, right):
    return {"id": name, "label": label, "prob": 0.8 if label == right else 0.2}


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
        print(
            f"and all with pictures: {time.monotonic() - began:.1f} s; {before:.0f} -> {peak:.0f} MB"
        )
