"""The setting of texts with a 0/1 label: its tasks and rows, and how a model learns and answers.

{"id": "cola/train/17", "group": "cola/train/17", "text": "Him saw she.\\nIs ...?", "label": 0}
"""

import sys

import formats
from table import TASKS
from w2s import files, protocol, sources

WHAT, KEY, BALANCED = "rows", "text", True
FIELDS, OPTIONAL, CHECKS = ("text", "label"), (), files.CHECKS
PREDICTION = ("id", "label", "prob")
same = protocol.same_text


def read(ds, split):
    """All rows of one split of a task, or of a JSONL file with text and label."""
    if ds in TASKS:
        return TASKS[ds]["load"](split) if "load" in TASKS[ds] else read_source(ds, split)
    rows = protocol.read_own(sys.modules[__name__], ds)
    return [{field: row[field] for field in ("id", "group", "text", "label")} for row in rows]


def read_source(ds, split):
    """All rows of one split of a task that comes from the hub or a mirror.

    Ids are the source's row numbers: "dream/train/17/right" and ".../wrong" for the two rows of a
    k-way question. Rows with an empty field are left out, and told.
    """
    task, (source, *_) = TASKS[ds], TASKS[ds]["splits"][split]
    where, count, rows = sources.source_rows(ds, task, split)
    made, skipped = [], 0
    for number, row in rows:
        try:
            prompt = row and task["make"](row)
        except (ValueError, IndexError) as error:
            told = f"its columns do not fit together ({error}){sources.or_else(task)}"
            raise files.BadInput(f"{where}, row {number}: {told}") from None
        if row is None or prompt and not prompt.get("wrong", True):
            skipped += 1
        elif prompt:
            made.append((f"{ds}/{source}/{number}", prompt))
    if skipped:
        told = "have an empty field or but one answer and are left out"
        print(f"{where}: {skipped} of {count} {told}", file=sys.stderr)
    out, keys = [], task.get("regroup", list)([prompt["group"] for _, prompt in made])
    for (name, prompt), key in zip(made, keys):
        group = protocol.group_name(ds, same(key)) if key else name
        out += formats.as_rows(name, prompt, group)
    return out


def finish(rows, seed):
    """The rows as the stages see them."""
    return rows
