"""JSONL files that appear whole or not at all, checked on reading, and the cards beside them.

Three kinds of file pass between the stages (one JSON object a line, UTF-8):

    rows         {"id": "sst2/train/17", "group": "sst2/train/17", "text": "a film", "label": 1}
    labels       rows of the strong half + "weak": 0.83, the supervisor's P(label = 1)
    predictions  {"id": "sst2/validation/3", "label": 1, "prob": 0.71}, prob = P(label = 1)

Pairs have "prompt", "a", "b" instead of "text"; moves "prompt", "target", and a move as "weak".
The card, `card.json` in a run directory or `labels.card.json` beside `labels.jsonl`, says how it
was made (records.py). No torch here: `--help` and every check of the input must answer at once.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import sys
from operator import itemgetter
from pathlib import Path

from w2s import strict
from w2s.strict import BadInput, read_bytes  # noqa: F401

HERE = Path(__file__).resolve().parent.parent  # the repository


def is_text(value):
    """True for a string that is not blank and that UTF-8 can hold (no lone surrogates)."""
    is_there = isinstance(value, str) and value.strip()
    return is_there and (value.isascii() or not re.search(r"[\ud800-\udfff]", value))


TEXT = (is_text, "a string that is not empty")
# type() and not isinstance(): JSON's true and false are no numbers
PROBABILITY = (lambda x: type(x) in (int, float) and 0 <= x <= 1, "a number from 0 to 1")
CHECKS = dict.fromkeys(("id", "group", "text", "prompt", "a", "b", "target", "fen"), TEXT)
CHECKS |= dict.fromkeys(("weak", "prob"), PROBABILITY) | {
    "id": (lambda x: is_text(x) and not strict.UNSAFE.search(x), "a text in one line"),
    "label": (lambda value: type(value) is int and value in (0, 1), "0 or 1"),
    "difficulty": (lambda value: type(value) in (int, float) and abs(value) < math.inf, "a number"),
}


# ---- JSONL


def read_jsonl(path, required, checks=CHECKS, optional=()):
    """The objects of a JSONL file as a list of dicts; required and optional fields are checked.

    Whole numbers as id or group become strings. BadInput, with file and line, for a line that is no
    JSON object, a missing or wrong field, an id that occurs twice; and if the card does not fit.
    """
    rows, first = [], {}
    known = {name: checks.get(name) for name in ("id", "group", *optional, *required)}
    for where, line in strict.lines_of(path):
        row = strict.parse_object(line, where)
        for field in ("id", "group"):
            if type(row.get(field)) is int:
                row[field] = str(row[field])
        for field in required:
            if field not in row:
                hint = "; rows without weak labels go to --ds=FILE" if field == "weak" else ""
                raise BadInput(f"{where} has no field {field!r}; it has {', '.join(row)}{hint}")
        for field, check in known.items():
            if check and field in row and not check[0](row[field]):
                found = json.dumps(row[field])[:60]
                raise BadInput(f"{where} field {field!r} is {found}; it must be {check[1]}")
        rows.append(row)
        if "id" in row and first.setdefault(row["id"], len(rows)) != len(rows):
            raise BadInput(f"{where} repeats the id {row['id']!r} of line {first[row['id']]}")
    card = read_card(path)
    if card and (card.get("sha256"), card.get("rows")) != (sha256(path), len(rows)):
        told = f"{path} ({len(rows)} rows) differs from {card_path(path)} ({card.get('rows')} rows)"
        raise BadInput(f"{told}: make it again, or delete the card if you edited it on purpose")
    return rows


@contextlib.contextmanager
def whole(path):
    """A temporary path for a file or folder, which takes the place of `path` once it is whole."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir():
            remove(path)
        os.replace(temporary, path)
    except Exception as error:
        if not isinstance(error, (OSError, UnicodeError)) and "os error" not in str(error):
            raise  # it is none of the system's, which Rust's libraries tell in their own way
        why = getattr(error, "strerror", None) or first_line(error)
        raise BadInput(f"{path} cannot be written: {why}") from None
    finally:
        remove(temporary)


def remove(path):
    """Remove a file, a link, or a folder and all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        return shutil.rmtree(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def write_text(path, text, card=None):
    """Write a file whole or not at all, and onto the disk; card: just before it takes its place."""
    if rank() > 0:
        return
    with whole(path) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if card:
            write_card(path, card)


def write_jsonl(path, rows, card, beside=()):
    """Write rows, (path, text) beside them and their card; of its sha256, a cut file is noticed."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, lines, card | {"finished": False})  # cut short, no false pair
    for other, text in beside:
        write_text(other, text)
    write_card(path, card | {"rows": len(rows), "sha256": sha256(path)})


# ---- cards


def card_path(path):
    """Where the card of a run directory or of a JSONL file is."""
    path = Path(path)
    return path.with_suffix(".card.json") if path.suffix == ".jsonl" else path / "card.json"


def read_card(path, run=False):
    """The checked card of a run directory or JSONL file, None where there is none."""
    file = card_path(path)
    return strict.read_card(file, path, run) if os.path.lexists(file) else None


def write_card(path, card):
    """Write the card of a run directory or JSONL file."""
    write_text(card_path(path), json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def world():
    """How many processes torchrun started, 1 without it; BadInput where that is no number."""
    return number_of("WORLD_SIZE", "1")


def rank():
    """Which of these processes this is; the first, 0, writes and prints for all."""
    return number_of("RANK", "0") if world() > 1 else 0  # others than torchrun set RANK too


def number_of(name, default):
    """A number that torchrun sets in the environment."""
    value = os.environ.get(name, default)
    if not value.isdigit():
        raise BadInput(f"{name}={value} is not a number: unset it, or call torchrun")
    return int(value)


# ---- rows and paths


def hashed(text):
    """A number that looks random and is the same everywhere, as bytes."""
    return hashlib.sha256(text.encode()).digest()


def by(rows, key):
    """{key(row): the rows that have it}, in order."""
    found = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def by_group(rows, salt):
    """The rows as a list of groups (lists of rows), in an order drawn by the salt."""
    groups = by(rows, itemgetter("group"))
    return [groups[name] for name in sorted(groups, key=lambda name: hashed(f"{salt}/{name}"))]


def hold_out(rows, n_val, batch_size=None):
    """(rows to train on, rows held out for early stopping), cut by group, the same for every seed.

    n_val: rows held out, at least (groups stay whole); None: a tenth of the groups and, of 200 rows
    or more, at least 100. BadInput where fewer than batch_size are left to train on.
    """
    groups, n, n_groups, held_out = by_group(rows, "held out"), 0, 0, []
    if n_val == 0:
        groups = [rows]  # in their own order
    if n_val is None:
        n_groups, n_val = math.ceil(len(groups) / 10), 100 if len(rows) >= 200 else 0
    while n < len(groups) and (n < n_groups or len(held_out) < n_val):
        held_out += groups[n]
        n += 1
    train = [row for group in groups[n:] for row in group]
    held = f"{len(held_out)} of {len(rows)} are held out, see --n_val"
    told = f"{len(train)} rows to train on ({held}) are"
    if len(groups) == 1 and held_out:
        raise BadInput(f"all {len(rows)} rows share one group, text or prompt, which is never cut")
    if batch_size and len(train) < batch_size:
        raise BadInput(f"{told} fewer than one batch: a smaller --batch_size than {batch_size}?")
    if batch_size and len(held_out) > len(rows) / 3:
        print(f"{told} few: give more rows or a smaller --n_val", file=sys.stderr)
    return train, held_out


def first_line(error):
    """The first line of an exception's message, cut to a readable length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def sha256(path):
    """Hex sha256 of a file, or of the names and contents of all files of a folder."""
    path = Path(path)
    if not path.is_dir():
        with strict.opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inside = sorted(p for p in path.rglob("*") if p.is_file())
    return hashed("".join(f"{p.relative_to(path)} {sha256(p)}\n" for p in inside)).hex()


def beside(path, name):
    """The path of that name in the same folder."""
    return Path(path).parent / name
