"""The protocol (paper, appendix A.1), the same for every kind of rows: one test set, and two halves of the training rows.

    test    one set for everybody, moved by no seed; where classes are balanced, exactly, and of any prefix at most one group
            is out of balance
    pool    the training rows without those that share a group or a text with a row of a test set; a class over 55 % is cut
    halves  the pool cut in two by --data_seed, group by group: rows about the same passage never part
            weak half -> the supervisor's ground truth; strong half -> gets weak labels, trains student and ceiling

Everything random is a hash of names, so that rows and ids are the same on every machine, and a smaller --n_train or
--n_test is a prefix of a larger one. A kind of rows (tasks.KIND, pairs.KIND of rm/) is a dict:

    setting      the folder of its scripts: "", "rm" or "chess"; script: the one that prints its rows
    what         what messages call the rows
    known        {name: task}; task["splits"]: {"train": ..., "test": ...}, or {"all": ...}, which is cut 80/20
    read         read(ds, split) -> the rows of a task's split, or all of a JSONL file's, each with "id" and "group"
    text         the field that no training row shares with a test row; same: makes two spellings of it equal
    balanced     whether there is a 0/1 "label" whose classes are balanced
    finish       finish(rows, seed) -> the rows as the stages see them
    fields       what a row has beside id and group; optional: what it may have; predictions: the fields of a prediction
    checks       rows.CHECKS, where a field of the kind is of another type
"""

import collections
import json
import math
import sys
from pathlib import Path

from w2s import cli, files, hub
from w2s.files import BadInput, hashed

MAX_TRAIN = 10_000  # rows in each half unless --n_train says otherwise


def describe(kind, ds, data_seed=0, n_train=None, n_test=None, test=None):
    """Which rows an experiment is about, as it stands on every card ("data"), so that later stages use the very same.

    ds: a task's name or the path of a JSONL file; test: a JSONL file of test rows, for own files alone.
    Raises BadInput for an unknown task or a missing file.
    """
    known = kind["known"]
    own = [path for path in (ds, test) if path and path not in known]
    if own and own[0] == ds and not ds.endswith(".jsonl") and not Path(ds).is_file():
        raise BadInput(
            f"unknown task {ds!r}{cli.nearest(ds, known)}; or give the path of a .jsonl file"
        )
    if test and ds in known:
        raise BadInput(f"--test goes with a JSONL file of your own: {ds} has its own test set")
    for path in own:
        files.read_bytes(path)
    paths = {"ds": ds, "test": test}
    return {
        **{
            name: str(Path(path).resolve()) if path in own else path for name, path in paths.items()
        },
        "sha256": {name: files.sha256(path) for name, path in paths.items() if path in own},
        "data_seed": data_seed,
        "n_train": n_train,
        "n_test": n_test,
    }


def name_of(ds):
    """What a task is called in ids and file names: its own name, or a JSONL file's without the ending."""
    return Path(ds).stem


def read_own(kind, path):
    """The rows of a JSONL file, every field checked, with an id (the line number makes one) and a group.

    A row without a group stands with the rows of the same text alone: the supervisor must not know the truth of what it
    labels, and row 7 of a training file has nothing to do with row 7 of a test file.
    """
    rows = files.read_jsonl(
        path, kind["fields"], kind.get("checks", files.CHECKS), kind.get("optional", ())
    )
    for number, row in enumerate(rows, 1):
        row.setdefault("group", f"{name_of(path)}/{hashed(row[kind['text']]).hex()[:16]}")
        row.setdefault("id", f"{name_of(path)}/{number}")
    if len({row["id"] for row in rows}) < len(rows):
        raise BadInput(
            f"{path} gives some rows an id that looks like another row's line number: give every row its own id"
        )
    return rows


def load(kind, ds, split):
    """All rows of one split ("train", "test", "test_hard") of a task, or of a JSONL file, before any protocol."""
    if ds in kind["known"] and "all" in kind["known"][ds]["splits"]:
        return cut_test(kind["read"](ds, "all"))[split == "test"]
    return kind["read"](ds, split)


def test_splits(kind, ds):
    """The names of a data set's test splits; one that comes in one piece, as own files do, has one cut from it."""
    splits = kind["known"][ds]["splits"] if ds in kind["known"] else ()
    return [split for split in splits if split not in ("train", "all")] or ["test"]


def split_of(kind, data):
    """(training rows, test rows) of an own file's description, before balancing; without --test it loses a fifth to test."""
    for name, digest in data["sha256"].items():
        if not Path(data[name]).is_file() or files.sha256(data[name]) != digest:
            raise BadInput(
                f"{data[name]} is gone or has changed since the first stage read it: start again from there"
            )
    rows = load(kind, data["ds"], "train")
    return (rows, load(kind, data["test"], "test")) if data["test"] else cut_test(rows)


def cut_test(rows):
    """(the other rows, test rows), a fifth of them, cut by group, for data that come without a test set."""
    groups, fifth, test = by_group(rows, "test"), len(rows) / 5, []
    large = [group for group in groups if len(group) / 2 > fifth]  # no test set has room for these
    groups = [group for group in groups if len(group) / 2 <= fifth]
    while groups and len(test) + len(groups[0]) / 2 <= fifth:
        test += groups.pop(0)
    return [row for group in large + groups for row in group], test


def test_rows(kind, data, split="test"):
    """The test rows of a data description: the same for every model, moved by no seed. Reads no training row of the hub."""
    ds, splits = data["ds"], test_splits(kind, data["ds"])
    if split not in splits:
        raise BadInput(f"{ds} has no test split {split!r}; it has {', '.join(splits)}")
    everything = load(kind, ds, split) if ds in kind["known"] else split_of(kind, data)[1]
    if kind["balanced"]:
        rows = balanced_test(everything)
        tell_balance(data, f"{split} rows", everything, rows)
    else:
        rows = [row for group in by_group(everything, "test") for row in group]
    if not rows:
        why = "no balanced test set can be made, its test rows are of one class or there are none"
        raise BadInput(f"{ds}: {why if kind['balanced'] else 'there are no test ' + kind['what']}")
    return kind["finish"](rows, 0)[: data["n_test"]]


def half(kind, data, which):
    """The rows of the "weak" or the "strong" half, at most n_train of them (default MAX_TRAIN)."""
    ds, text, what = data["ds"], kind["text"], kind["what"]
    if ds in kind["known"]:
        pool = load(kind, ds, "train")
        test = [row for split in test_splits(kind, ds) for row in load(kind, ds, split)]
    else:
        pool, test = split_of(kind, data)
    tested = {row["group"] for row in test} | {row[text] for row in test}
    apart = [row for row in pool if row["group"] not in tested and row[text] not in tested]
    if len(apart) < len(pool):
        left_out = (
            f"{len(pool) - len(apart)} training {what} share a group or a {text} with the test set"
        )
        print(f"{name_of(ds)}: {left_out} and are left out", file=sys.stderr)
    pool = balanced(apart) if kind["balanced"] else apart
    tell_balance(data, f"training {what}", apart, pool)
    if not pool:
        why = f"{'they are of one class or ' if kind['balanced'] else ''}all of them are tested"
        raise BadInput(
            f"{ds}: no training {what} are left, {why if test or apart else 'there are none'}"
        )
    rows = cut_half(pool, data, which)
    if not rows:
        raise BadInput(
            f"{ds}: no {what} are left for the {which} half, as groups are not cut: give more groups"
        )
    return kind["finish"](rows, data["data_seed"])


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
        print(
            f"{name_of(data['ds'])}: {len(before)} {what}, {len(after)} after balancing the classes",
            file=sys.stderr,
        )


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
        kept, lead = (
            kept + sorted(group, key=lambda row: row["label"] == (lead > 0)),
            lead + surplus,
        )  # noqa: B023
    ahead = (
        [i for i, row in enumerate(kept) if row["label"] == (lead > 0)][-abs(lead) :]
        if lead
        else []
    )
    return [row for i, row in enumerate(kept) if i not in set(ahead)]


def show(kind, names, split, n, data_seed, test, mirror):
    """What tasks.py and its like do: print the table of tasks or a task's rows as JSONL, or write a mirror."""
    if mirror:
        return make_mirror(kind, mirror, names)
    if len(names) > 1:
        raise BadInput(f"one task at a time, not {' '.join(names)} (several go with --mirror=DIR)")
    if not names:
        return show_table(kind["known"])
    data, splits = (
        describe(kind, names[0], data_seed, n, n, test),
        ("weak", "strong", *test_splits(kind, names[0])),
    )
    if split not in splits:
        raise BadInput(f"{names[0]} has no split {split!r}; it has {', '.join(splits)}")
    for row in (
        half(kind, data, split) if split in ("weak", "strong") else test_rows(kind, data, split)
    ):
        print(json.dumps(row, ensure_ascii=False))


def show_table(known):
    """The table of tasks, a line for each split: its rows in the source and the share of 1s there, before any cutting."""
    print(
        "rows: in the source; 1s: their share before classes are cut (.500: a right and a wrong answer); ?: not on record\n"
    )
    line = "{:<23} {:<17} {:>7} {:>5}  {:<11} {:<7} {:<43} {}".format
    print(line("task", "split", "rows", "1s", "group", "licence", "hub id, config", "revision"))
    for name, task in known.items():
        for split, (source, count, ones) in task["splits"].items():
            where = " ".join(filter(None, (task.get("repo", "made here"), task.get("config"))))
            told = split if split == source else f"{split} = {source}"
            share = "?" if ones is None else f"{ones:.3f}"[1:]
            group, licence = task.get("group", "row"), task.get("licence", "?")
            print(
                line(
                    name,
                    told,
                    count or "?",
                    share,
                    group,
                    licence,
                    where,
                    task.get("revision", "main")[:20],
                )
            )


def make_mirror(kind, folder, names):
    """Write the data of the named tasks (default: of all that the hub has) to a mirror; one that fails stops no other."""
    known = kind["known"]
    on_hub = [name for name, task in known.items() if "repo" in task and not hub.by_hand(task)]
    for name in names:
        if name not in on_hub:
            raise BadInput(f"{name} is no task of the hub{cli.nearest(name, on_hub)}")
    failed = []
    for name in names or on_hub:
        try:
            hub.write_mirror(folder, name, known[name])
        except BadInput as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    if failed:
        raise BadInput(
            f"{folder} lacks {' '.join(failed)} (see above); the same command again goes on where it was"
        )
    print(
        f"next, on the other machine: W2S_MIRROR={folder} python {kind['script']} {(names or on_hub)[0]} --n=5"
    )
