"""The protocol (paper, appendix A.1), the same in every setting: a test set and two halves.

    test    one set for everybody, moved by no seed; where classes are balanced, exactly, and any
            prefix but for one group
    pool    the training rows that share no group and no text with a test row; a class over 55 %
            is cut
    halves  the pool cut in two by --data_seed, group by group: weak half -> the supervisor's
            ground truth; strong half -> weak labels, for student and ceiling

Everything random is a hash of names, so that rows are the same on every machine, and a smaller
--n_train or --n_test is a prefix of a larger one. Groups that share a text are one, named by its
first row: there the order of an own file matters. `setting` is a module such as nlp/texts.py.
"""

import collections
import functools
import sys
from pathlib import Path

from w2s import files
from w2s.files import BadInput, by_group, hashed
from w2s.leaks import same_text, text_hash  # noqa: F401

MAX_TRAIN = 10_000  # rows in each half unless --n_train says otherwise


def describe(setting, ds, data_seed=0, n_train=None, n_test=None, test=None):
    """Which rows an experiment is about, as every card has it ("data") for the stages after it.

    ds: a task's name or the path of a JSONL file; test: a JSONL file of test rows for an own file.
    """
    if test and ds in setting.TASKS:
        raise BadInput(f"--test goes with a JSONL file of your own: {ds} has its own test set")
    asked = {"ds": ds, "test": test}
    own = {name: path for name, path in asked.items() if path and path not in setting.TASKS}
    paths = {name: str(Path(path).resolve()) for name, path in own.items()}
    digests = {name: files.sha256(path) for name, path in own.items()}
    sizes = {"data_seed": data_seed, "n_train": n_train, "n_test": n_test}
    return asked | paths | {"sha256": digests} | sizes


@functools.cache  # asked for every row
def name_of(ds):
    """What a task is called in ids and file names: a JSONL file's name loses its ending."""
    return Path(ds).stem


def tell(ds, what):
    """Say something of a data set's rows on stderr."""
    print(f"{name_of(ds)}: {what}", file=sys.stderr)


def group_name(ds, key):
    """The name of the group of rows that share a text, `key`."""
    return f"{name_of(ds)}/{hashed(key).hex()[:16]}"


def read_own(setting, path):
    """The rows of a JSONL file, checked; the line number makes an id, the text a group.

    Row 7 of a training file has nothing to do with row 7 of a test file: a number is no group.
    """
    rows = files.read_jsonl(path, setting.FIELDS, setting.CHECKS, setting.OPTIONAL)
    for number, row in enumerate(rows, 1):
        row.setdefault("group", group_name(path, row[setting.KEY]))
        row.setdefault("id", f"{name_of(path)}/{number}")
    if len({row["id"] for row in rows}) < len(rows):
        raise BadInput(f"{path} has ids that look like line numbers: give every row its own id")
    return rows


def load(setting, ds, split):
    """All rows of one split of a task, or of a JSONL file, in groups of their own names."""
    if "all" in setting.TASKS.get(ds, {"splits": ()})["splits"]:
        return cut_test(joined(setting, setting.read(ds, "all")))[split == "test"]
    return setting.read(ds, split)


def joined(setting, rows):
    """The rows, groups that share a text made one: no text is ever on two sides of a cut."""
    first, parent = {}, {}

    def root(name):
        while name in parent:
            parent[name] = parent.get(parent[name], parent[name])
            name = parent[name]
        return name

    for row in rows:
        there = root(first.setdefault(text_hash(setting, row[setting.KEY]), row["group"]))
        if (here := root(row["group"])) != there:
            parent[here] = there
    return [row | {"group": root(row["group"])} for row in rows] if parent else rows


def test_splits(setting, ds):
    """The names of a data set's test splits; what comes in one piece has one cut from it."""
    splits = setting.TASKS[ds]["splits"] if ds in setting.TASKS else ()
    return [split for split in splits if split not in ("train", "all")] or ["test"]


def split_own(setting, data):
    """(training rows, test rows) of an own file; without --test a fifth of it is the test set."""
    for name, digest in data["sha256"].items():
        if not Path(data[name]).is_file() or files.sha256(data[name]) != digest:
            raise BadInput(f"{data[name]} is gone or has changed: start again from stage 1")
    rows = load(setting, data["ds"], "train")
    if data["test"]:
        return rows, load(setting, data["test"], "test")
    return cut_test(joined(setting, rows))


def cut_test(rows):
    """(the other rows, test rows), a fifth of them, cut by group."""
    groups, fifth, n, test = by_group(rows, "test"), len(rows) / 5, 0, []
    large = [group for group in groups if len(group) / 2 > fifth]  # no test set has room for these
    groups = [group for group in groups if len(group) / 2 <= fifth]
    while n < len(groups) and len(test) + len(groups[n]) / 2 <= fifth:
        test += groups[n]
        n += 1
    return [row for group in large + groups[n:] for row in group], test


def test_rows(setting, data, split="test"):
    """The test rows, the same for every model. Reads no training row of the hub."""
    ds, splits, own = data["ds"], test_splits(setting, data["ds"]), data["ds"] not in setting.TASKS
    if split not in splits:
        raise BadInput(f"{ds} has no test split {split!r}; it has {', '.join(splits)}")
    rows = joined(setting, split_own(setting, data)[1] if own else load(setting, ds, split))
    if setting.BALANCED:
        rows = told_balanced(setting, ds, f"{split} rows", rows, balanced_test)
    else:
        rows = [row for group in by_group(rows, "test") for row in group]
    if not rows:
        why = "no balanced test set can be made, its rows are of one class or there are none"
        raise BadInput(f"{ds}: {why if setting.BALANCED else 'it has no test rows'}")
    cut = setting.finish(rows, 0)[: data["n_test"]]
    ones = sum(row["label"] for row in cut) if setting.BALANCED else len(cut) / 2
    if abs(2 * ones - len(cut)) > 1:
        told = f"the first {len(cut)} of {len(rows)} {split} rows are {ones / len(cut):.0%} ones"
        tell(ds, f"{told}, as groups stay together: see --n_test")
    return cut


def half(setting, data, which):
    """The rows of the "weak" or the "strong" half, at most n_train of them (default MAX_TRAIN)."""
    ds, key, what = data["ds"], setting.KEY, f"training {setting.WHAT}"
    if "all" in setting.TASKS.get(ds, {"splits": ()})["splits"]:
        pool, test = cut_test(joined(setting, setting.read(ds, "all")))  # read once
    elif ds in setting.TASKS:
        pool = load(setting, ds, "train")
        test = [row for split in test_splits(setting, ds) for row in load(setting, ds, split)]
    else:
        pool, test = split_own(setting, data)
    tested = {side for row in test for side in (row["group"], text_hash(setting, row[key]))}
    apart = []
    for own, row in zip(pool, joined(setting, pool)):  # a group has two names where it was joined
        if not tested & {own["group"], row["group"], text_hash(setting, row[key])}:
            apart.append(row)
    if n := len(pool) - len(apart):
        tell(ds, f"{n} {what} share a group or a {key} with the test set and are left out")
    pool = told_balanced(setting, ds, what, apart, balanced) if setting.BALANCED else apart
    cut = {"weak": [], "strong": []}
    for group in by_group(pool, f"halves {data['data_seed']}"):
        min(cut["weak"], cut["strong"], key=len).extend(group)
    rows, asked = cut[which], data["n_train"]
    if asked and asked > len(rows):
        tell(ds, f"{len(rows)} rows in its {which} half, fewer than --n_train={asked}")
    if not rows:
        told = f"no {what} are left, they are of one class or all of them are tested"
        none = f"no {setting.WHAT} are left for the {which} half, as groups are not cut"
        raise BadInput(f"{ds}: {none if pool else told}")
    return setting.finish(rows[: asked or MAX_TRAIN], data["data_seed"])


def told_balanced(setting, ds, what, rows, balance):
    """balance(rows); tells how many rows it leaves out, and how many texts have both labels."""
    kept, labels = balance(rows), collections.defaultdict(set)
    for row in rows:
        labels[text_hash(setting, row[setting.KEY])].add(row["label"])
    both = sum(len(given) > 1 for given in labels.values())
    if both:
        told = f"{both} of the {setting.KEY}s have both labels (case and punctuation aside)"
        tell(ds, f"{len(rows)} {what}, {told}")
    if len(kept) < len(rows):
        tell(ds, f"{len(rows)} {what}, {len(kept)} after balancing the classes")
    return kept


def balanced(rows):
    """The rows; a class over 55 % of them is cut to the size of the other (paper, A.1)."""
    ones = sum(row["label"] for row in rows)
    surplus = abs(2 * ones - len(rows))
    if max(ones, len(rows) - ones) <= 0.55 * len(rows):
        return rows
    larger = [row["id"] for row in rows if row["label"] == (2 * ones > len(rows))]
    dropped = set(sorted(larger, key=lambda name: hashed(f"balance/{name}"))[:surplus])
    return [row for row in rows if row["id"] not in dropped]


def balanced_test(rows):
    """Rows in a random order of groups, as many 1s as 0s, and every prefix within a group of it.

    A class over 55 % is cut first. Groups that would widen the lead of a class wait until the other
    has caught up. Those that wait at the end are left out, and so is what is still ahead.
    """
    waiting = {-1: collections.deque(), 0: collections.deque(), 1: collections.deque()}
    for place, group in enumerate(by_group(balanced(rows), "test")):
        surplus = sum(1 if row["label"] else -1 for row in group)
        waiting[(surplus > 0) - (surplus < 0)].append((place, surplus, group))
    kept, lead = [], 0
    while queues := [queue for sign, queue in waiting.items() if queue and sign * lead <= 0]:
        _, surplus, group = min(queues, key=lambda queue: queue[0][0]).popleft()
        ahead = int(lead > 0)  # within the group, the class that is behind comes first
        kept += sorted(group, key=lambda row, ahead=ahead: row["label"] == ahead)
        lead += surplus
    ahead = [i for i, row in enumerate(kept) if lead and row["label"] == (lead > 0)]
    dropped = set(ahead[len(ahead) - abs(lead) :])
    return [row for i, row in enumerate(kept) if i not in dropped]
