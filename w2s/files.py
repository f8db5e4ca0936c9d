"""Rows in and out: JSONL files that appear whole or not at all, checked on reading, and the cards that describe them.

Three kinds of file pass between the stages (one JSON object a line, UTF-8):

    rows         {"id": "sst2/train/17", "group": "sst2/train/17", "text": "a charming film", "label": 1}
    labels       rows of the strong half + "weak": 0.83, the supervisor's P(label = 1)
    predictions  {"id": "sst2/validation/3", "label": 1, "prob": 0.71}, prob = P(label = 1)

A card is a JSON file that says how something was made: `card.json` in a run directory, `labels.card.json` beside
`labels.jsonl`. A run is finished when its card says so; nothing unfinished is ever scored or labelled with.
No torch here: `--help`, pgr.py and every check of the user's input must answer at once.
"""

import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent  # the repository


class BadInput(Exception):
    """The user's input is wrong. The message is one line: what, where, what to do. cli.run prints it and exits with 2."""


def is_text(value):
    """True for a string that says something and that UTF-8 can hold (JSON allows lone surrogates, tokenizers do not)."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any("\ud800" <= c <= "\udfff" for c in value)
    )


def is_probability(value):
    """True for a number from 0 to 1; NaN, booleans and strings are none."""
    return type(value) in (int, float) and 0 <= value <= 1


TEXT = (is_text, "a string that is not empty")
CHECKS = dict.fromkeys(("id", "group", "text", "prompt", "a", "b", "target", "fen"), TEXT) | {
    "label": (lambda value: type(value) is int and value in (0, 1), "0 or 1"),
    "weak": (is_probability, "a number from 0 to 1"),
    "prob": (is_probability, "a number from 0 to 1"),
    "difficulty": (lambda value: type(value) in (int, float) and math.isfinite(value), "a number"),
}


# ---- JSONL


def read_jsonl(path, required, checks=CHECKS, optional=()):
    """The objects of a JSONL file as a list of dicts, the required fields present and checked; id, group, optional checked.

    Lines are counted as the file's newlines (U+2028 inside a text ends no line). Integer ids and groups become strings.
    Raises BadInput with file and line for anything that cannot be used: missing or empty file, a line that is not a JSON
    object (a file cut short ends in one), a missing or wrong field, an id that stands twice, a file that differs from
    the card beside it.
    """
    lines = read_bytes(path).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise BadInput(
            f"{path} is empty: it needs one JSON object a line, with {', '.join(required)}"
        )
    rows, first_line = [], {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except UnicodeDecodeError:
            raise BadInput(f"{path}:{number} is not UTF-8: save the file as UTF-8") from None
        except (ValueError, RecursionError):
            cut = " (the last line: was the file cut short?)" if number == len(lines) else ""
            raise BadInput(
                f"{path}:{number} is not JSON{cut}: {line[:60].decode(errors='replace')!r}"
            ) from None
        if not isinstance(row, dict):
            raise BadInput(
                f"{path}:{number} is not an object with {', '.join(required)}: {str(row)[:60]}"
            )
        for field in ("id", "group"):
            if type(row.get(field)) is int:
                row[field] = str(row[field])
        for field in required:
            if field not in row:
                hint = "; rows without weak labels go to --ds=FILE" if field == "weak" else ""
                raise BadInput(
                    f"{path}:{number} has no field {field!r}; it has {', '.join(row) or 'none'}{hint}"
                )
        for field in ("id", "group", *optional, *required):
            passes, wanted = checks.get(field, (None, None))
            if field in row and passes and not passes(row[field]):
                raise BadInput(
                    f"{path}:{number} field {field!r} is {json.dumps(row[field])[:60]}; it must be {wanted}"
                )
        if "id" in row and first_line.setdefault(row["id"], number) != number:
            raise BadInput(
                f"{path}:{number} repeats the id {row['id']!r} of line {first_line[row['id']]}; ids must be unique"
            )
        rows.append(row)
    card = read_card(path)
    if card and card.get("sha256") != sha256(path):
        raise BadInput(
            f"{path} ({len(rows)} rows) differs from {card_path(path)} ({card.get('rows')} rows): "
            "make it again, or delete the card if you edited the file on purpose"
        )
    return rows


def read_bytes(path):
    """The bytes of a file; BadInput where there is no such file or it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def write_text(path, text):
    """Write a file whole or not at all: temporary name, fsync, rename."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def write_jsonl(path, rows, card):
    """Write rows and, after them, the card beside them; the card holds the file's sha256, so a cut file is noticed."""
    # The old card goes first: were it to stay, an interruption between the two writes would leave a pair that disagrees.
    card_path(path).unlink(missing_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_card(path, card | {"rows": len(rows), "sha256": sha256(path)})


def sha256(path):
    """Hex sha256 of a file, or of the names and contents of all files of a folder (a model directory)."""
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return hashlib.sha256(
            "".join(f"{p.relative_to(path)} {sha256(p)}\n" for p in files).encode()
        ).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join(left, right, left_name, right_name):
    """Pairs (left row, right row) with equal ids, in the order of `left`; BadInput unless both hold the same ids."""
    by_id = {row["id"]: row for row in right}
    alone = [row["id"] for row in left if row["id"] not in by_id] or sorted(
        by_id.keys() - {row["id"] for row in left}
    )
    if alone:
        raise BadInput(
            f"{left_name} ({len(left)} rows) and {right_name} ({len(right)} rows) hold different ids, e.g. {alone[0]!r}: "
            "score both on the same test rows (same --ds, --split and --n_test)"
        )
    return [(row, by_id[row["id"]]) for row in left]


def hashed(text):
    """A number that looks random and is the same everywhere, as bytes."""
    return hashlib.sha256(text.encode()).digest()


def expand(patterns):
    """Paths of runs, each glob among them replaced by the folders that it matches, in order; BadInput where there are none."""
    paths = []
    for pattern in patterns:
        found = (
            sorted(filter(os.path.isdir, glob.glob(pattern)))
            if glob.has_magic(pattern)
            else [pattern]
        )
        if not found:
            raise BadInput(f"{pattern!r} matches no folder")
        paths += found
    return paths


# ---- cards


def card_path(path):
    """Where the card of a run directory or of a JSONL file is."""
    path = Path(path)
    return path.with_suffix(".card.json") if path.suffix == ".jsonl" else path / "card.json"


def read_card(path):
    """The card of a run directory or JSONL file as a dict, None where there is none; BadInput where it is not JSON."""
    file = card_path(path)
    if not file.exists():
        return None
    try:
        return dict(json.loads(read_bytes(file)))
    except (ValueError, TypeError):
        raise BadInput(
            f"{file} is no card (a JSON object): delete it and make {path} again"
        ) from None


def write_card(path, card):
    """Write the card of a run directory or JSONL file."""
    write_text(card_path(path), json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def new_card(stage, args, inputs, data):
    """What every card holds.

    args: the stage's arguments with defaults filled in; inputs: {argument: sha256 of the file it names}; data: which rows
    (task, data seed, sizes; tasks.describe), for the stages after this one, or None where nobody knows.
    """
    packages = [
        name
        for name in ("torch", "transformers", "datasets", "numpy")
        if importlib.util.find_spec(name)
    ]
    return {
        "stage": stage,
        "finished": True,
        "args": args,
        "inputs": inputs,
        "data": data,
        "commit": commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def begin(out, stage, args, inputs, data, derived):
    """Make the run directory anew and write its card, not yet finished: from here on the folder is a run under way.

    derived: what the defaults came to (learning rate, rows held out, ...); told, and kept on the card.
    """
    for old in ("model", "eval"):
        shutil.rmtree(Path(out) / old, ignore_errors=True)
    (Path(out) / "history.jsonl").unlink(missing_ok=True)
    card = new_card(stage, args, inputs, data) | {"finished": False, "derived": derived}
    write_card(out, card)
    print(f"{out}: " + ", ".join(f"{name} {value}" for name, value in derived.items()))
    return card | {"began": time.monotonic()}


def end(out, card, history, kept):
    """Write the history and the finished card of a run whose model is saved; kept: the line of history of its weights."""
    seconds = round(time.monotonic() - card.pop("began"), 1)
    write_text(Path(out) / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history))
    write_card(
        out,
        card
        | {
            "finished": True,
            "seconds": seconds,
            "kept": kept,
            "model_sha256": sha256(Path(out) / "model"),
        },
    )
    agreement = (
        f", agrees with {kept['agreement']:.1%} of the held-out labels"
        if "agreement" in kept
        else ""
    )
    print(f"{out}: kept the weights of epoch {kept['epoch']:.2f}{agreement}; {seconds} s")


def commit():
    """The git commit of this code, with a + where files differ from it; None outside a git checkout."""
    git = [
        "git",
        "--no-optional-locks",
        "-C",
        str(HERE),
    ]  # a training must not get in the way of a commit
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return None
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True
    ).stdout
    return head.stdout.strip() + ("+" if changed else "")


def changed(card, args, inputs):
    """What differs between a card and the arguments and inputs of now, as text, "" for nothing.

    Where a file lies does not matter, what is in it does: inputs are compared by their sha256, not by their paths.
    """
    before, files = card["args"], {"out", *inputs, *card["inputs"]}
    told = []
    for name in {**before, **args}:
        if name not in files and before.get(name) != args.get(name):
            told.append(f"{name} was {before.get(name)}, now {args.get(name)}")
    for name in {**card["inputs"], **inputs}:
        if card["inputs"].get(name) != inputs.get(name):
            told.append(f"{name} is not the same, or has changed")
    return "; ".join(told)


def is_done(out, args, inputs, force, labels=False):
    """True (and told) if `out` was finished with the same arguments and inputs, so that there is nothing to do.

    labels: whether `out` is a labels file, and not a run directory.
    Raises BadInput where going on would lose something: a finished run of another setting (unless force), or a folder
    or file that no stage of ours made. An unfinished run is told and made again from the start.
    """
    out, wanted = (
        Path(out),
        "rows and labels end in .jsonl"
        if labels
        else "a run is a folder, give a name without .jsonl",
    )
    if labels != (out.suffix == ".jsonl"):
        raise BadInput(f"--out={out}: {wanted}")
    card = read_card(out)
    if card is None:
        if out.suffix != ".jsonl" and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput(
                f"--out={out} exists and is no run of ours (it has no card.json): choose another name"
            )
        if out.suffix == ".jsonl" and out.exists() and not force:
            raise BadInput(
                f"--out={out} exists without a card, so we did not make it: choose another name, or add --force"
            )
        return False
    changes = changed(card, args, inputs)
    if not card.get("finished"):
        print(
            f"{out} was begun and not finished: starting again{' with other arguments: ' * bool(changes)}{changes}"
        )
        return False
    if force:
        return False
    if changes:
        raise BadInput(
            f"{out} was made with other arguments or inputs ({changes}): choose another --out, or add --force"
        )
    since = (
        ""
        if card["commit"] == commit()
        else f" (by commit {card['commit']}; the code is now at {commit()})"
    )
    print(
        f"{out} is already done with the same arguments and inputs{since}; --force makes it again"
    )
    return True
