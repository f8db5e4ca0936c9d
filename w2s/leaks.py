"""What models learned, as hashes, so that no row is asked of a model that has its answer.

RUN/learned.npy and LABELS.learned.npy are sorted arrays (uint64): for each row a hash of its group
and one of its text as same_text() has it. The lowest bit is 1 for what was learned from
the ground truth, 0 for weak labels and for texts that were only read. A run has what its --model
learned before, a labels file what its supervisors learned from the truth. Where rows leak a stage
stops or, with --allow_leak, writes "allow_leak" and "leaks" on its card, for all made from it.
"""

import functools
import unicodedata
from pathlib import Path

import numpy as np

from w2s import files
from w2s.files import HERE, BadInput, hashed

TRUTH = np.uint64(1)


# ---- hashes


def same_text(text):
    """The text without case and punctuation: equal for two spellings of one text."""
    return " ".join(text.casefold().translate(punctuation()).split()) or text.strip()


@functools.cache
def punctuation():
    """What str.translate needs to put spaces for all punctuation; what a table lacks takes time."""
    return {c: " " if unicodedata.category(chr(c))[0] == "P" else chr(c) for c in range(0x10000)}


@functools.lru_cache(2**20)  # each text is compared several times, and this is the slow part
def text_hash(setting, text):
    """What two spellings of a text have in common."""
    return hashed(setting.same(text))


def marks(setting, rows, data):
    """Hashes [2, N] (uint64, even) of the groups and the texts of N rows; data: as on cards.

    A group that is only a number is one of its data set: others have a group 7 too.
    """
    ds, key = data["ds"] if data else "", setting.KEY
    groups = (row["group"] for row in rows)
    groups = (hashed(f"\n{ds if name.isdecimal() else ''}\n{name}") for name in groups)
    # the stages see moves in one notation, so that they need no other normalisation
    is_text = setting.same is same_text
    texts = (text_hash(setting, row[key]) if is_text else hashed(row[key]) for row in rows)
    return np.stack([numbers(groups), numbers(texts)])


def numbers(digests):
    """[N] (uint64, even) of N sha256."""
    return np.frombuffer(b"".join(one[:8] for one in digests), dtype="<u8") & ~TRUTH


def are_in(own, learned):
    """Whether each hash is among those of read(), a sorted array, however it was learned."""
    learned = np.append(learned & ~TRUTH, np.iinfo("u8").max)  # which is odd, so it is no hash
    return learned[np.searchsorted(learned, own)] == own


# ---- files


def file_of(path):
    """Where it is kept what a run, or what stands behind a JSONL file, learned."""
    path = Path(path)
    return path.with_suffix(".learned.npy") if path.suffix == ".jsonl" else path / "learned.npy"


def write(path, arrays):
    """Write the union of arrays of hashes, whole or not at all; its sha256."""
    found = np.sort(np.concatenate(arrays))  # np.unique takes half a second for 400,000
    found = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    with files.whole(file_of(path)) as temporary, open(temporary, "wb") as file:
        np.save(file, found, allow_pickle=False)
    return files.sha256(file_of(path))


def read(path, card):
    """The hashes of a run or JSONL file by its card; none, and told, where they are not known.

    BadInput where the file is not the one that the card tells of.
    """
    file = file_of(path)
    if not card.get("learned") or not file.exists():
        print(f"{path}: what it learned is not known, so no leak can be seen (an older version?)")
        return np.array([], dtype="<u8")
    if lacks := card.get("learned_lacks"):
        print(f"{path}: what it started from, {lacks}, learned is not known")
    try:
        found = np.load(file, allow_pickle=False) if files.sha256(file) == card["learned"] else None
    except (ValueError, EOFError, OSError):
        found = None
    if found is None or found.dtype != "<u8" or found.ndim != 1:
        raise BadInput(f"{file} is not what the card of {path} tells of: make {path} again")
    return found


def copy(source, card, path):
    """Give a JSONL file that is made from another what stands behind that; card: the other's."""
    if "learned" in card and file_of(source).exists():
        write(path, [read(source, card)])


def started_from(model):
    """(run, its card) of a --model that is RUN/model, ("", {}) of all others."""
    for folder in (Path(model), HERE / model) if model else ():
        if (folder / "config.json").is_file():
            run = folder.resolve().parent
            card = files.read_card(run) or {}
            return (run, card) if "stage" in card else ("", {})
    return "", {}


# ---- what is learned


def learn(out, setting, card, rows, *sources):
    """Write what a run, or a file to train on, teaches; returns what its card says of that.

    rows: trained on or held out; what --model had learned is added. sources: cards as in behind().
    """
    args, model = card["args"], card["args"].get("model")
    truth = card["stage"] == "train_weak" or args.get("target") == "truth"
    own, (run, before) = marks(setting, rows, card["data"]) | np.uint64(truth), started_from(model)
    lacks = before.get("learned_lacks", None if "learned" in before or not run else model)
    known = [read(run, before)] if run else []
    told = {"learned": write(out, [own.ravel(), *known])} | inherited(before, *sources)
    return told | ({"learned_lacks": lacks} if lacks else {})


def of_truth(path, card):
    """Those of read() that were learned from the ground truth."""
    found = read(path, card)
    return found[found & TRUTH == TRUTH]


def behind(out, known, *sources):
    """Write what stands behind a labels file; returns what its card says of that.

    known: {run: of_truth()} of its supervisors; sources: cards whose leaks are its own.
    """
    told = {"learned": write(out, list(known.values()))} | inherited(*sources)
    lacks = [run for run, card in zip(known, sources) if "learned" not in card]
    lacks += [card["learned_lacks"] for card in sources if "learned_lacks" in card]
    return told | ({"learned_lacks": ", ".join(map(str, lacks))} if lacks else {})


def inherited(*cards):
    """What cards say of leaks, for the card of what is made from theirs."""
    told = list(dict.fromkeys(one for card in cards for one in card.get("leaks", ())))
    return {"allow_leak": True, "leaks": told} if told else {}


def mark(one):
    """ " (leak: 12 test rows learned)", or "" for a card, line or result without a leak."""
    return f" (leak: {'; '.join(one['leaks'])})" if one.get("leaks") else ""


# ---- refusals


def of_run(run, card):
    """What a run learned; of one that is scored without training, what its --model did."""
    if card["stage"] != "eval":
        return read(run, card)
    made, before = started_from(card["args"]["model"])
    return read(made, before) if made else np.array([], dtype="<u8")


def of_labels(setting, rows, labels, card, args, allow):
    """guard() of rows whose weak labels are to be learned: who knows their truth supervises no one.

    Neither supervisors nor --model may; card: that of the labels, {} where they have none.
    """
    if args["target"] == "truth":
        return {}
    (run, before), known = started_from(args.get("model")), {}
    if card:
        known[f"what labelled {labels}"] = of_truth(labels, card)
    if run:
        known[f"--model={args['model']}"] = of_truth(run, before)
    return guard(setting, rows, card.get("data"), known, allow, "truth")


def guard(setting, rows, data, known, allow, what):
    """What a card says of rows that leak, {} where none does; BadInput unless leaks are allowed.

    known: {who: its hashes}; what: "test" of rows to be tested, "truth" of rows to be labelled.
    """
    known = {who: one for who, one in known.items() if len(one)}
    if not known:
        return {}
    own = marks(setting, rows, data)
    bare = [row[setting.KEY].rpartition("\n") for row in rows]
    if setting.same is same_text and bare[0][0] and len({prompt for *_, prompt in bare}) == 1:
        texts = (text_hash(setting, text) for text, *_ in bare)  # learned without the task's prompt
        own = np.vstack([own, numbers(texts)])
    of_each = {who: are_in(own, one).any(axis=0) for who, one in known.items()}
    found = np.any([*of_each.values()], axis=0).nonzero()[0]
    if not len(found):
        return {}
    who = next(who for who, has in of_each.items() if has[found[0]])
    n = f"{len(found)} of these {len(rows)} {setting.WHAT}"
    told = f"{who} learned{' the truth of' * (what == 'truth')} {n}, their group or their text"
    told += f", e.g. {rows[found[0]]['id']!r}"
    if not allow:
        go_on = "--allow_leak goes on, and marks all that is made from it"
        raise BadInput(f"{told}: give other rows or another model ({go_on})")
    print(f"warning: {told}: all that is made from this is marked")
    of = f"{len(found)} test" if what == "test" else f"truth of {len(found)} labelled"
    return {"allow_leak": True, "leaks": [f"{of} {setting.WHAT} learned"]}
