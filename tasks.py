"""Data sets: rows to train and test on. Where they are is in sources.py, how they become text and a 0/1 label in formats.py.

    python tasks.py                          # the table of tasks
    python tasks.py sst2 --split=test --n=5  # rows as JSONL, just as the other stages see them (--split=weak|strong|test)
    python tasks.py --mirror=DIR sst2 boolq  # copies of the hub's data for a machine without it (all tasks: no names)

The protocol is the paper's (appendix A.1), the same for every task:

    test    one set for everybody, exactly balanced, moved by no seed; of any prefix at most one group is out of balance
    pool    the training rows without those that share a group or a text with a row of a test set; a class over 55 % is cut
    halves  the pool cut in two by --data_seed, group by group: rows about the same passage never part
            weak half -> the supervisor's ground truth; strong half -> gets weak labels, trains student and ceiling

Everything random is a hash of names, so that rows and ids are the same on every machine, and a smaller --n_train or
--n_test is a prefix of a larger one.
"""

import collections
import json
import math
import sys
from pathlib import Path

import cli
import hub
import rows as files
import sources
from rows import BadInput
from sources import TASKS, hashed

MAX_TRAIN = 10_000  # rows in each half unless --n_train says otherwise


def load(ds, split):
    """All rows of one split ("train", "test", "test_hard") of a task, or of a JSONL file, before any protocol."""
    if ds not in TASKS:
        return own_rows(ds)
    task, splits = TASKS[ds], test_splits(ds)
    if split != "train" and split not in splits:
        raise BadInput(f"{ds} has no split {split!r}; it has {', '.join(splits)}")
    if "all" in task["splits"]:
        return cut_test(sources.read(ds, "all"))[split == "test"]
    return task["load"](split) if "load" in task else sources.read(ds, split)


def test_splits(ds):
    """The names of a task's test splits; data sets that come in one piece have one cut from it."""
    return [split for split in TASKS[ds]["splits"] if split not in ("train", "all")] or ["test"]


def own_rows(path):
    """The rows of a JSONL file with text and label; where it has no id, the line number makes one; no group, a row is one.

    Such a group has the file's name in it: row 7 of a training file and row 7 of a test file have nothing in common.
    """
    rows = files.read_jsonl(path, ["text", "label"])
    for number, row in enumerate(rows, 1):
        row.setdefault("group", f"{name_of(path)}/{row.get('id', number)}")
        row.setdefault("id", f"{name_of(path)}/{number}")
    if len({row["id"] for row in rows}) < len(rows):
        raise BadInput(f"{path} gives some rows an id that looks like another row's line number: give every row its own id")
    return [{field: row[field] for field in ("id", "group", "text", "label")} for row in rows]


def describe(ds, data_seed=0, n_train=None, n_test=None, test=None, known=TASKS):
    """Which rows an experiment is about, as it stands on every card ("data"), so that later stages use the very same.

    ds: a task's name (one of `known`) or the path of a JSONL file; test: a JSONL file of test rows, for own files alone.
    Raises BadInput for an unknown task or a missing file.
    """
    own = [path for path in (ds, test) if path and path not in known]
    if own and own[0] == ds and not ds.endswith(".jsonl") and not Path(ds).is_file():
        raise BadInput(f"unknown task --ds={ds}{cli.nearest(ds, known)}; or give the path of a .jsonl file")
    if test and ds in known:
        raise BadInput(f"--test goes with a JSONL file of your own: {ds} has its own test set")
    for path in own:
        files.read_bytes(path)
    paths = {"ds": ds, "test": test}
    return {
        **{name: str(Path(path).resolve()) if path in own else path for name, path in paths.items()},
        "sha256": {name: files.sha256(path) for name, path in paths.items() if path in own},
        "data_seed": data_seed,
        "n_train": n_train,
        "n_test": n_test,
    }


def name_of(ds):
    """What a task is called in ids and file names: its own name, or a JSONL file's without the ending."""
    return ds if ds in TASKS else Path(ds).stem


def split_of(data):
    """(training rows, test rows) of a data description, before balancing; own files without --test lose a fifth to test."""
    check_unchanged(data)
    if data["ds"] in TASKS:
        return None, None
    rows = load(data["ds"], "train")
    return (rows, load(data["test"], "test")) if data["test"] else cut_test(rows)


def check_unchanged(data):
    """BadInput where an own file of a data description is no longer what it was."""
    for name, digest in data["sha256"].items():
        if not Path(data[name]).is_file() or files.sha256(data[name]) != digest:
            raise BadInput(f"{data[name]} is gone or has changed since train_weak.py read it: start again from there")


def cut_test(rows):
    """(the other rows, test rows), a fifth of them, cut by group, for data that come without a test set."""
    groups = by_group(rows, "test")
    test = []
    while groups and len(test) + len(groups[0]) / 2 <= len(rows) / 5:
        test += groups.pop(0)
    return [row for group in groups for row in group], test


def test_rows(data, split="test"):
    """The test rows of a data description: the same for every model, exactly balanced. Reads no training row of the hub."""
    own_test = split_of(data)[1]
    if own_test is not None and split != "test":
        raise BadInput(f"{data['ds']} has no split {split!r}; it has test")
    everything = load(data["ds"], split) if own_test is None else own_test
    rows = balanced_test(everything)
    tell_balance(data, f"{split} rows", everything, rows)
    if not rows:
        raise BadInput(f"{data['ds']}: no balanced test set can be made, its test rows are of one class or there are none")
    return rows[: data["n_test"]]


def half(data, which):
    """The rows of the "weak" or the "strong" half, at most n_train of them (default MAX_TRAIN)."""
    pool, test = split_of(data)
    if pool is None:
        pool, test = load(data["ds"], "train"), [row for split in test_splits(data["ds"]) for row in load(data["ds"], split)]
    tested = {row["group"] for row in test} | {row["text"] for row in test}
    apart = [row for row in pool if row["group"] not in tested and row["text"] not in tested]
    if len(apart) < len(pool):
        left_out = f"{len(pool) - len(apart)} training rows share a group or a text with the test set"
        print(f"{name_of(data['ds'])}: {left_out} and are left out", file=sys.stderr)
    pool = balanced(apart)
    tell_balance(data, "training rows", apart, pool)
    if not pool:
        raise BadInput(f"{data['ds']}: no training rows are left, they are of one class or all of them are test rows")
    return cut_half(pool, data, which)


def cut_half(pool, data, which):
    """The rows of the "weak" or the "strong" half of the pool, cut group by group, at most n_train of them."""
    cut = {"weak": [], "strong": []}
    for group in by_group(pool, f"halves {data['data_seed']}"):
        min(cut["weak"], cut["strong"], key=len).extend(group)
    if data["n_train"] and data["n_train"] > len(cut[which]):
        told = f"{len(cut[which])} rows in its {which} half, fewer than --n_train={data['n_train']}"
        print(f"{name_of(data['ds'])} has {told}", file=sys.stderr)
    return cut[which][: data["n_train"] or MAX_TRAIN]


def tell_balance(data, what, before, after):
    """Say how many rows balancing left out."""
    if len(after) < len(before):
        print(f"{name_of(data['ds'])}: {len(before)} {what}, {len(after)} after balancing the classes", file=sys.stderr)


def hold_out(rows, n_val, batch_size):
    """(rows to train on, rows held out for early stopping), cut by group, the same for every seed.

    n_val: rows held out, at least (groups stay whole); None holds out a tenth of the groups and, where that leaves as many
    to train on, at least 100 rows; 0 none. BadInput where fewer than batch_size rows are left to train on.
    """
    groups = by_group(rows, "held out")
    if n_val is None:
        some, least = math.ceil(len(groups) / 10), 100 if len(rows) >= 200 else 0
    else:
        some, least = 0, n_val
    held_out = []
    while groups and (some > 0 or len(held_out) < least):
        held_out += groups.pop(0)
        some -= 1
    train = [row for group in groups for row in group]
    if len(train) < batch_size:
        raise BadInput(
            f"{len(train)} rows to train on ({len(held_out)} of {len(rows)} are held out, in whole groups, see --n_val) "
            f"are fewer than one batch: give more rows or a smaller --batch_size than {batch_size}"
        )
    return train, held_out


def by_group(rows, salt):
    """The rows as a list of groups, in an order drawn by the salt."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row)
    return [groups[name] for name in sorted(groups, key=lambda name: hashed(f"{salt}/{name}"))]


def balanced(rows):
    """The rows, the larger class cut down to the size of the smaller one where it holds over 55 % (paper, A.1)."""
    labels = collections.Counter(row["label"] for row in rows)
    more, fewer = max(labels[0], labels[1]), min(labels[0], labels[1])
    if more <= 0.55 * len(rows):
        return rows
    larger = [row["id"] for row in rows if row["label"] == int(labels[1] > labels[0])]
    dropped = set(sorted(larger, key=lambda name: hashed(f"balance/{name}"))[: more - fewer])
    return [row for row in rows if row["id"] not in dropped]


def balanced_test(rows):
    """Rows in a fixed random order of groups, with exactly as many 1s as 0s, and every prefix within a group of it.

    A class over 55 % is cut first (of five rows about one scenario four may be 0s). Then groups that would widen the lead of
    a class wait until the other class has caught up; those that wait at the end, and the last rows of a class still ahead,
    are left out.
    """
    waiting = {-1: collections.deque(), 0: collections.deque(), 1: collections.deque()}
    for place, group in enumerate(by_group(balanced(rows), "test")):
        surplus = sum(1 if row["label"] else -1 for row in group)
        waiting[(surplus > 0) - (surplus < 0)].append((place, surplus, group))
    kept, lead = [], 0
    while queues := [queue for sign, queue in waiting.items() if queue and sign * lead <= 0]:
        _, surplus, group = min(queues, key=lambda queue: queue[0][0]).popleft()
        # within the group, the class that is behind first
        kept, lead = kept + sorted(group, key=lambda row: row["label"] == (lead > 0)), lead + surplus  # noqa: B023
    ahead = [i for i, row in enumerate(kept) if row["label"] == (lead > 0)][-abs(lead) :] if lead else []
    return [row for i, row in enumerate(kept) if i not in set(ahead)]


def main(*names: str, split: str = "test", n: int = None, data_seed: int = 0, test: str = None, mirror: str = None):
    """The table of tasks; with a task, its rows as JSONL; with --mirror, copies of the data sets for machines without the hub.

    Args:
        names: a task's name, or the path of a JSONL file with text and label; without it the table of tasks is shown
        split: weak, strong (the halves), test, or test_hard where there is one
        n: how many rows (default: all, in the halves at most 10,000)
        data_seed: moves the halves
        test: a JSONL file of test rows, for a JSONL file of your own
        mirror: a folder to write the named tasks' data to (default: all tasks'), for W2S_MIRROR; what is there is kept
    """
    cli.check(locals())
    if mirror:
        return make_mirror(mirror, names)
    if len(names) > 1:
        raise BadInput(f"one task at a time, not {' '.join(names)} (several go with --mirror=DIR)")
    if not names:
        return show_table()
    data = describe(names[0], data_seed, n, n, test)
    for row in half(data, split) if split in ("weak", "strong") else test_rows(data, split):
        print(json.dumps(row, ensure_ascii=False))


def show_table():
    """The table of tasks, a line for each split: its rows in the source and the share of 1s there, before any cutting."""
    print("rows: in the source; 1s: their share before classes are cut (.500: a right and a wrong answer); ?: not on record\n")
    line = "{:<23} {:<17} {:>7} {:>5}  {:<11} {:<7} {:<43} {}".format
    print(line("task", "split", "rows", "1s", "group", "licence", "hub id, config", "revision"))
    for name, task in TASKS.items():
        for split, (source, count, ones) in task["splits"].items():
            where = " ".join(filter(None, (task.get("repo", "made here"), task.get("config"))))
            told = split if split == source else f"{split} = {source}"
            share = "?" if ones is None else f"{ones:.3f}"[1:]
            group, licence = task.get("group", "row"), task.get("licence", "?")
            print(line(name, told, count or "?", share, group, licence, where, task.get("revision", "main")[:20]))


def make_mirror(folder, names):
    """Write the data of the named tasks (default: of all that the hub has) to a mirror; one that fails stops no other."""
    for name in names:
        if name not in TASKS:
            raise BadInput(f"unknown task {name}{cli.nearest(name, TASKS)}")
    failed = []
    for name in names or [name for name, task in TASKS.items() if "repo" in task and not hub.by_hand(task)]:
        try:
            hub.write_mirror(folder, name, TASKS[name])
        except BadInput as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    if failed:
        raise BadInput(f"{folder} lacks {' '.join(failed)} (see above); the same command again goes on where it was")
    print(f"next, on the other machine: W2S_MIRROR={folder} python tasks.py {(names or ['boolq'])[0]} --n=5")


if __name__ == "__main__":
    cli.run(main)
