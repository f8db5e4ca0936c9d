"""What the cards of supervisor, student and ceiling say against comparing them, for pgr.py."""

from pathlib import Path

from w2s import files, records
from w2s.files import BadInput

OF_A_SEED = {"seed", "data_seed", "out", "labels", "runs", "device"}  # not told
RECIPE = ("model", "epochs", "batch_size", "lr", "max_len", "head", "lora", "probe")


def check_copies(runs, cards):
    """BadInput where two seeds of a trained run are the same model: a copy is no second seed."""
    for k in range(3):
        seen = {}
        for seed, names in zip(cards, runs):
            first = seen.setdefault(seed[k]["model_sha256"], names[k])
            if first != names[k] and records.role(seed[k]):
                told = "a copy is no second seed, leave it out"
                raise BadInput(f"{first} and {names[k]} hold the same model: {told}")


def seeds(patterns, cards):
    """Sentences on the arguments in which seeds of one glob, or student and ceiling, differ."""
    notes = []
    for k, pattern in enumerate(patterns):
        args = [seed[k]["args"] | {"stage": seed[k]["stage"]} for seed in cards]
        for name in sorted(set().union(*args) - OF_A_SEED):
            values = dict.fromkeys(str(one.get(name)) for one in args)
            if len(values) > 1:
                notes.append(f"the runs of {pattern} differ in {name}: {', '.join(values)}")
    for name in RECIPE:
        pairs = [[card["args"].get(name) for card in seed[1:]] for seed in cards]
        mine, others = next((pair for pair in pairs if pair[0] != pair[1]), (None, None))
        if mine != others and all(map(records.role, cards[0][1:])):
            notes.append(f"student and ceiling differ in {name}: {mine}, {others}")
    return notes


def roles(cards, names):
    """Sentences on what speaks against calling the runs of one seed what they are called."""
    (weak, student, ceiling), told = cards, []
    if shared_rows(weak, student):
        told.append(f"{names[0]} and {names[1]} were trained on some of the same rows")
    if student["data"] != ceiling["data"] and student["data"] and ceiling["data"]:
        told.append(f"{names[1]} and {names[2]} were not trained on the same task, rows or halves")
    told += teachers(weak, student, *names[:2])
    if records.role(student) != "student":
        told.append(f"{names[1]} was not trained on weak labels, so it is no student")
    if records.role(ceiling) != "ceiling":
        told.append(f"{names[2]} was not trained with --target=truth, so it is no ceiling")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if cards[one]["model_sha256"] == cards[other]["model_sha256"]:
            told.append(f"{names[one]} and {names[other]} are one and the same model")
    return told


def shared_rows(weak, student):
    """True if a supervisor and its student were trained on some of the same rows."""
    of_weak, of_student = map(records.role, (weak, student))
    if weak["data"] is None or student["data"] is None or None in (of_weak, of_student):
        return False
    if any(weak["data"][key] != student["data"][key] for key in ("ds", "sha256")):
        return False
    same_half = (of_weak == "weak") == (of_student == "weak")
    return same_half or weak["data"]["data_seed"] != student["data"]["data_seed"]


def teachers(weak, student, weak_name, name):
    """A sentence where something else than the supervisor alone wrote a student's labels, or []."""
    behind = student.get("supervisor")
    if not behind or records.role(student) != "student":
        return []
    if weak["model_sha256"] not in behind:
        return [f"{name} did not learn from the labels of {weak_name} as it is now"]
    labels = student["args"]["labels"]
    unchanged = Path(labels).is_file() and files.sha256(labels) == student["inputs"]["labels"]
    source = (files.read_card(labels) if unchanged else None) or {"stage": "label", "args": {}}
    stage = student.get("labels_from") or source["stage"]
    if stage == "label" and behind == [weak["model_sha256"]]:
        return []
    runs, kind = source["args"].get("runs"), source["args"].get("kind")
    by = f"of {' + '.join(runs)}" if runs else f"of {len(behind)} models"
    if stage != "label":
        by = f"by {stage}.py" + (f" --kind={kind}" if kind else "")
    by += right(labels) if unchanged else ""
    told = f"so its PGR, taken against {weak_name}, is not against what labelled"
    return [f"{name} learned from labels {by}, {told}"]


def right(labels):
    """How many labels of a file are right, as text; "" where that cannot be said of them."""
    rows = [row for row in files.read_jsonl(labels, ["weak"]) if row.get("label") in (0, 1)]
    hits = sum((row["weak"] > 0.5) == row["label"] for row in rows)
    return f" ({hits / len(rows):.1%} of them right)" if rows else ""
