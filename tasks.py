"""Every task by name: the table of all tasks, the rows of one, copies of the hub's data.

    python tasks.py                               # the table
    python tasks.py sst2 --split=test --n=5       # rows as JSONL, just as the stages see them
    python tasks.py --mirror=DIR sst2 hh_helpful  # copies for a machine without the hub

A task belongs to a setting: texts with a label (nlp/texts.py), preference pairs (rm/pairs.py),
moves in chess (chess/moves.py) or texts that models write (gen/writing.py); see w2s/protocol.py.
"""

import fnmatch
import glob
import json
import sys
from pathlib import Path

# chess/ is no package: with an __init__.py it would hide the real one of that name.
sys.path += [str(Path(__file__).resolve().parent / f) for f in "nlp rm chess facts gen".split()]
import moves
import pairs
import texts
import writing
from w2s import cli, files, protocol, sources, strict
from w2s.files import BadInput

SETTINGS = (texts, pairs, moves, writing)
TASKS = {name: task for setting in SETTINGS for name, task in setting.TASKS.items()}
MODELS = ("openai-community/gpt2", "openai-community/gpt2-medium")  # default supervisor, student


def setting_of(ds):
    """The setting of a task, or of a JSONL file, by the fields of its first row: all or most."""
    for setting in SETTINGS:
        if ds in setting.TASKS:
            return setting
    if not ds.endswith(".jsonl") and not Path(ds).is_file():
        told = f"unknown task {ds!r}{cli.nearest(ds, TASKS)}"
        raise BadInput(f"{told}; or give the path of a .jsonl file")
    where, line = next(strict.lines_of(ds))
    row = strict.parse_object(line, where)
    has = {setting: row.keys() & {*setting.FIELDS} for setting in SETTINGS}
    setting = max(SETTINGS, key=lambda one: (has[one] == {*one.FIELDS}, len(has[one])))
    if has[setting]:
        return setting
    wanted = ", or ".join(f"{' '.join(s.FIELDS)} ({s.WHAT})" for s in SETTINGS)
    raise BadInput(f"{where} has {', '.join(row) or 'nothing'}; it must have {wanted}")


def named(words):
    """The tasks or files of --ds, of which a glob is all tasks that it matches."""
    found = [fnmatch.filter(TASKS, word) if glob.has_magic(word) else [word] for word in words]
    if [] in found:
        raise BadInput(f"--ds={words[found.index([])]} matches no task: python tasks.py lists them")
    return sum(found, [])


def setting_of_labels(labels):
    """The setting of a labels file, by its card or, without one, by its first row."""
    if labels not in TASKS and not Path(labels).is_file():
        what = "is a folder" if Path(labels).exists() else "does not exist"
        raise BadInput(f"{labels} {what}: give the --out of label.py")
    return setting_of_card(card) if (card := files.read_card(labels)) else setting_of(labels)


def setting_of_card(card):
    """The setting of a run or labels file; BadInput for a card of an earlier version."""
    for setting in SETTINGS:
        if card.get("setting") == setting.__name__:
            return setting
    raise BadInput(f"made by an earlier version of {card.get('stage')}.py: make it again")


def default_models(ds):
    """(supervisor, student) of a task or JSONL file where no --model is given."""
    return TASKS.get(ds, {}).get("models", MODELS)


def answers(setting, run, rows, device=None, dtype=None, **how):
    """One answer a row by the model of a run: P(label = 1), a move, or a text."""
    from w2s import answering, probes  # torch and transformers take seconds to import

    if files.read_card(run)["args"].get("probe"):
        how["predict"] = probes.answer
    model, tokenizer = answering.model_of(run, device, setting.OUTPUTS)
    return setting.answer(model, tokenizer, rows, dtype, bar=run, **how)


@cli.stage
def main(
    args, *names: str, split: str = "test", n: int = None, data_seed: int = 0, test: str = None,
    mirror: str = None,
):  # fmt: skip
    """The table of tasks; with a task, its rows as JSONL; with --mirror, copies of the data sets.

    Args:
        names: a task's name, or the path of a JSONL file; without it the table of tasks is shown
        split: weak, strong (the halves), test, or test_hard where there is one
    """
    if mirror:
        return sources.make_mirror(TASKS, mirror, names)
    if len(names) > 1:
        raise BadInput(f"one task at a time, not {' '.join(names)} (several go with --mirror=DIR)")
    if not names:
        return sources.show_table(SETTINGS)
    setting = setting_of(names[0])
    data = protocol.describe(setting, names[0], data_seed, n, n, test)
    splits = ("weak", "strong", *protocol.test_splits(setting, names[0]))
    if split not in splits:
        raise BadInput(f"{names[0]} has no split {split!r}; it has {', '.join(splits)}")
    read = protocol.half if split in ("weak", "strong") else protocol.test_rows
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    for row in read(setting, data, split):
        print(strict.printable(json.dumps(row, ensure_ascii=plain)))


if __name__ == "__main__":
    cli.run(main)
