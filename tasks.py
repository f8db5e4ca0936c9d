"""Tasks: texts with a 0/1 label. Where they are is in sources.py, how they become text and label in formats.py.

    python tasks.py                          # the table of tasks
    python tasks.py sst2 --split=test --n=5  # rows as JSONL, just as the other stages see them (--split=weak|strong|test)
    python tasks.py --mirror=DIR sst2 boolq  # copies of the hub's data for a machine without it (all tasks: no names)

Which rows are tested and which trained on is the same for every kind of rows: protocol.py.
"""

import functools
import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent / folder) for folder in ("nlp", "facts")]
import sources
from w2s import cli, protocol


def read(ds, split):
    """All rows of one split of a task, or of a JSONL file with text and label, as {"id", "group", "text", "label"}."""
    if ds not in sources.TASKS:
        return [
            {field: row[field] for field in ("id", "group", "text", "label")}
            for row in protocol.read_own(KIND, ds)
        ]
    return (
        sources.TASKS[ds]["load"](split) if "load" in sources.TASKS[ds] else sources.read(ds, split)
    )


KIND = {
    "setting": "", "script": "tasks.py", "what": "rows", "known": sources.TASKS, "read": read, "text": "text", "balanced": True,
    "finish": lambda rows, seed: rows, "fields": ("text", "label"), "predictions": ("id", "label", "prob"),
}  # fmt: skip
describe, load = functools.partial(protocol.describe, KIND), functools.partial(protocol.load, KIND)
half, test_rows = (
    functools.partial(protocol.half, KIND),
    functools.partial(protocol.test_rows, KIND),
)


def main(
    *names: str,
    split: str = "test",
    n: int = None,
    data_seed: int = 0,
    test: str = None,
    mirror: str = None,
):
    """The table of tasks; with a task, its rows as JSONL; with --mirror, copies of the data sets for machines without the hub.

    Args:
        names: a task's name, or the path of a JSONL file with text and label; without it the table of tasks is shown
        split: weak, strong (the halves), test, or test_hard where there is one
        n: how many rows (default: all, in the halves at most 10,000)
    """
    cli.check(locals())
    protocol.show(KIND, names, split, n, data_seed, test, mirror)


if __name__ == "__main__":
    cli.run(main)
