"""Every task by name: the table of all tasks, the rows of one, copies of the hub's data.

    python tasks.py                               # the table
    python tasks.py sst2 --split=test --n=5       # rows as JSONL, just as the stages see them
    python tasks.py --mirror=DIR sst2 hh_helpful  # copies for a machine without the hub (all tasks: no names)

Which setting a task belongs to: texts with a label (nlp/texts.py), preference pairs (rm/pairs.py), or moves in chess
(chess/moves.py). Which rows are tested and which trained on is the same for all: w2s/protocol.py.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Not packages: chess/ with an __init__.py would hide the package of that name.
sys.path += [str(HERE / folder) for folder in ("nlp", "rm", "chess", "facts")]
import moves
import pairs
import texts
from w2s import cli, files, protocol, sources
from w2s.files import BadInput

SETTINGS = (texts, pairs, moves)
TASKS = {name: task for setting in SETTINGS for name, task in setting.TASKS.items()}
MODELS = ("openai-community/gpt2", "openai-community/gpt2-medium")  # default supervisor, student


def setting_of(ds):
    """The setting of a task, or of a JSONL file, whose first row's fields say it; BadInput for anything else."""
    for setting in SETTINGS:
        if ds in setting.TASKS:
            return setting
    if not ds.endswith(".jsonl") and not Path(ds).is_file():
        told = f"unknown task {ds!r}{cli.nearest(ds, TASKS)}"
        raise BadInput(f"{told}; or give the path of a .jsonl file")
    try:
        row = dict(json.loads(files.read_bytes(ds).split(b"\n", 1)[0]))
    except (ValueError, TypeError, RecursionError):
        return texts  # no JSONL: reading it tells what is wrong, and where
    for setting, fields in ((moves, {"target"}), (pairs, {"a", "b"}), (texts, {"text"})):
        if fields <= row.keys():
            return setting
    told = f"{ds}:1 has none of: text (a text), a and b (a pair), target (a move)"
    raise BadInput(f"{told}; it has {', '.join(row) or 'nothing'}")


def setting_of_labels(labels):
    """The setting of a labels file, by its card or, without one, by its rows."""
    card = files.read_card(labels)
    return setting_of_card(card) if card else setting_of(labels)


def setting_of_card(card):
    """The setting of a run or labels file; BadInput for a card of an earlier version."""
    for setting in SETTINGS:
        if card.get("setting") == setting.__name__:
            return setting
    raise BadInput(f"made by an earlier version of {card.get('stage')}.py: make it again")


def default_models(ds):
    """(supervisor, student): the models of a task, or a JSONL file, where none is named."""
    return TASKS.get(ds, {}).get("models", MODELS)


def show_table():
    """Print the table of tasks, a line for each split of the source, before any cutting."""
    told = "the share of 1s before classes are cut, .500: a right and a wrong answer"
    print(f"rows: in the source; 1s: {told}; ?: not on record\n")
    line = "{:<7} {:<23} {:<17} {:>7} {:>5}  {:<13} {:<7} {:<43} {}".format
    head = "setting task split rows 1s group licence".split()
    print(line(*head, "hub id, config", "revision"))
    for setting in SETTINGS:
        for name, task in setting.TASKS.items():
            where = f"{task.get('repo', 'made here')} {task.get('config', '')}".strip()
            about = task.get("group", "row"), task.get("licence", "?"), where
            for split, (source, count, ones) in task["splits"].items():
                told = split if split == source else f"{split} = {source}"
                counts = count or "?", "?" if ones is None else f"{ones:.3f}"[1:]
                revision = task.get("revision", "main")[:20]
                print(line(setting.__name__, name, told, *counts, *about, revision))


def make_mirror(folder, names):
    """Write the data of the named tasks (default: of all that the hub has) to a mirror; one that fails stops no other."""
    on_hub = [name for name, task in TASKS.items() if "repo" in task and "by_hand" not in task]
    for name in names:
        if name not in on_hub:
            raise BadInput(f"{name} is no task of the hub{cli.nearest(name, on_hub)}")
    failed = []
    for name in names or on_hub:
        try:
            sources.write_mirror(folder, name, TASKS[name])
        except BadInput as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    if failed:
        told = "the same command again goes on where it was"
        raise BadInput(f"{folder} lacks {' '.join(failed)} (see above); {told}")
    command = f"W2S_MIRROR={folder} python tasks.py {(names or on_hub)[0]} --n=5"
    print(f"next, on the other machine: {command}")


@cli.stage
def main(
    args, *names: str, split: str = "test", n: int = None, data_seed: int = 0, test: str = None,
    mirror: str = None,
):  # fmt: skip
    """The table of tasks; with a task, its rows as JSONL; with --mirror, copies of the data sets.

    Args:
        names: a task's name, or the path of a JSONL file; without it the table of tasks is shown
        split: weak, strong (the halves), test, or test_hard where there is one
        n: how many rows (default: all, in the halves at most 10,000)
    """
    if mirror:
        return make_mirror(mirror, names)
    if len(names) > 1:
        raise BadInput(f"one task at a time, not {' '.join(names)} (several go with --mirror=DIR)")
    if not names:
        return show_table()
    setting = setting_of(names[0])
    data = protocol.describe(setting, names[0], data_seed, n, n, test)
    splits = ("weak", "strong", *protocol.test_splits(setting, names[0]))
    if split not in splits:
        raise BadInput(f"{names[0]} has no split {split!r}; it has {', '.join(splits)}")
    read = protocol.half if split in ("weak", "strong") else protocol.test_rows
    for row in read(setting, data, split):
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    cli.run(main)
