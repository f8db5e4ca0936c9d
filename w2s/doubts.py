"""What the cards of supervisor, student and ceiling say against comparing them, for pgr.py."""

import itertools
from pathlib import Path

from w2s import files, records
from w2s.files import BadInput

OF_A_SEED = {"seed", "data_seed", "out", "labels", "runs", "device"}  # not told
RECIPE = ("model", "epochs", "batch_size", "lr", "max_len", "head", "lora", "probe")


def check_copies(runs, cards):
    """BadInput where two seeds of a trained run are the same model."""
    for of_seeds, names in zip(zip(*cards), zip(*runs)):
        seen = {}
        for card, name in zip(of_seeds, names):
            first = seen.setdefault(card["model_sha256"], name)
            if first != name and records.role(card):
                told = "hold the same model: a copy is no second seed, leave it out"
                raise BadInput(f"{first} and {name} {told}")


def seeds(patterns, cards):
    """Sentences on the arguments in which seeds of one glob, or student and ceiling, differ."""
    notes = []
    for k, pattern in enumerate(patterns):
        args = [seed[k]["args"] | {"stage": seed[k]["stage"]} for seed in cards]
        for name in sorted(set().union(*args) - OF_A_SEED):
            values = dict.fromkeys(str(one.get(name)) for one in args)
            if len(values) > 1:
                notes.append(f"the runs of {pattern} differ in {name}: {', '.join(values)}")
    for name in RECIPE if all(map(records.role, cards[0][1:])) else ():
        pairs = ([card["args"].get(name) or None for card in seed[1:]] for seed in cards)
        for mine, others in [pair for pair in pairs if pair[0] != pair[1]][:1]:
            notes.append(f"student and ceiling differ in {name}: {mine}, {others}")
    return notes


def roles(cards, names):
    """Sentences on what speaks against calling the runs of one seed what they are called."""
    (weak, student, ceiling), told, data = cards, [], [card["data"] for card in cards[1:]]
    if shared_rows(weak, student):
        told.append(f"{names[0]} and {names[1]} were trained on some of the same rows")
    if all(data) and data[0] != data[1]:
        told.append(f"{names[1]} and {names[2]} were not trained on the same task, rows or halves")
    told += teachers(weak, student, *names[:2])
    if records.role(student) != "student":
        told.append(f"{names[1]} was not trained on weak labels, so it is no student")
    if records.role(ceiling) != "ceiling":
        told.append(f"{names[2]} was not trained with --target=truth, so it is no ceiling")
    for (one, first), (other, second) in itertools.combinations(zip(cards, names), 2):
        if one["model_sha256"] == other["model_sha256"]:
            told.append(f"{first} and {second} are one and the same model")
    return told


def shared_rows(weak, student):
    """True if a supervisor and its student were trained on some of the same rows."""
    halves = [records.role(card) == "weak" for card in (weak, student) if records.role(card)]
    one, other = weak["data"], student["data"]
    if not one or not other or len(halves) < 2:
        return False
    same_task = (one["ds"], one["sha256"]) == (other["ds"], other["sha256"])
    return same_task and (halves[0] == halves[1] or one["data_seed"] != other["data_seed"])


def teachers(weak, student, weak_name, name):
    """A sentence where something else than the supervisor alone wrote a student's labels, or []."""
    behind = student.get("supervisor")
    if not behind or records.role(student) != "student":
        return []
    if weak["model_sha256"] not in behind:
        return [f"{name} did not learn from the labels of {weak_name} as it is now"]
    labels, stage = student["args"]["labels"], student["labels_from"]
    if stage == "label" and behind == [weak["model_sha256"]]:
        return []
    by, args, rows = f"of {len(behind)} models", {}, [{}]
    if Path(labels).is_file() and files.sha256(labels) == student["inputs"]["labels"]:
        args = (files.read_card(labels) or {"args": {}})["args"]
        rows = files.read_jsonl(labels, ["weak"], {})
    if stage != "label":
        by = f"by {stage}.py" + (f" --kind={args['kind']}" if "kind" in args else "")
    elif "runs" in args:
        by = f"of {' + '.join(args['runs'])}"
    if "label" in rows[0]:  # of moves, what is right is not known here
        right = sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)
        by += f" ({right:.1%} of them right)"
    told = f"so its PGR, taken against {weak_name}, is not against what labelled"
    return [f"{name} learned from labels {by}, {told}"]
