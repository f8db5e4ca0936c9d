"""Files that others wrote, read so that none of them surprises: bytes, JSON, cards, text to print.

What is refused is refused by name and in one line, before more than that line is read. JSON is what
RFC 8259 calls interoperable: UTF-8, each key once, finite numbers, whole numbers of 64 bits. A
byte-order mark at a file's start and CRLF are taken, as editors on Windows write them. No pickle is
read anywhere (model folders: folders.py).
"""

import json
import math
import os
import re
import stat

MOST = 10 * 2**20  # bytes of a line; the longest text that a model reads is a hundredth of it
LARGEST = 256 * 2**20  # bytes of a card, which has a group's name for every test row
DEPTH = 100  # of lists and objects in each other
# control characters (a terminal obeys them), marks that turn the reading direction, half characters
UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
UNSAFE = re.compile(f"[{UNSAFE}]")


class BadInput(Exception):
    """The user's input is wrong. The message is one line: what, where, what to do."""


class Unfit(ValueError):
    """JSON for Python, but not for us; the end of a sentence that begins with the place."""


# ---- text


def printable(text):
    """The text with JSON's escapes for what a terminal would obey; a line stays a line."""
    return UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], str(text))


def check_names(names):
    """BadInput for a name, of a file or a model, that cannot be printed as it is."""
    for name in names:
        if UNSAFE.search(str(name)):
            told = "holds control characters or is not UTF-8: give it another name"
            raise BadInput(f"the name {json.dumps(name)} {told}")


# ---- bytes


def opened(path):
    """The file, open to read bytes; BadInput for a missing one, a folder, a pipe or a device."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
            raise BadInput(f"{path} cannot be read: it is {kind}, not a file")
        return open(path, "rb")
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def read_bytes(path, most=None):
    """The bytes of a file; BadInput where it cannot be read or has more than `most`."""
    with opened(path) as file:
        if most and os.fstat(file.fileno()).st_size > most:
            raise BadInput(f"{path} has over {most // 2**20} MB: is it the right file?")
        return file.read()


def lines_of(path):
    """(place, line) for each line of a file, as bytes; U+2028 inside a text ends no line."""
    with opened(path) as file:
        number = 0
        while line := file.readline(MOST + 1):
            number += 1
            if len(line) > MOST:
                told = f"has over {MOST // 2**20} MB in one line: a row is one line"
                raise BadInput(f"{path}:{number} {told}")
            yield f"{path}:{number}", line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    if not number:
        raise BadInput(f"{path} is empty: it needs a JSON object a line")


# ---- JSON


def once(items):
    """A JSON object; Unfit where a key occurs twice: programs differ in which of them they take."""
    made = dict(items)
    if len(made) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unfit(f"has the key {twice!r} twice: leave one out")
    return made


def whole_number(word):
    """A whole number; Unfit over 64 bits."""
    if len(word) > 20 or not -(2**63) <= int(word) < 2**63:
        raise Unfit(f"has the whole number {word[:30]}, over 2^63: write it as text, in quotes")
    return int(word)


def finite(word):
    """A number; Unfit for NaN, Infinity and 1e999."""
    if not math.isfinite(number := float(word)):
        raise Unfit(f"has the number {word[:30]}, which is not finite: mend or leave out the row")
    return number


STRICT = {"object_pairs_hook": once, "parse_float": finite, "parse_constant": finite}
DECODE = json.JSONDecoder(**STRICT, parse_int=whole_number).decode


def parse(data, where, decode=DECODE):
    """The JSON value in bytes; BadInput, with the place, where it is none or none of ours."""
    try:
        text = data.decode()
        value = decode(text)
        if text.count("[") + text.count("{") > DEPTH and depth(value) > DEPTH:
            raise RecursionError
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError:
        raise BadInput(f"{where} is not UTF-8: save the file as UTF-8") from None
    except UnicodeEncodeError:
        told = "has half a character (a lone surrogate, \\ud800 to \\udfff)"
        raise BadInput(f"{where} {told}: write the text anew as UTF-8") from None
    except RecursionError:
        raise BadInput(f"{where} is nested over {DEPTH} deep: flatten it") from None
    except Unfit as error:
        raise BadInput(f"{where} {error}") from None
    except ValueError:
        if not data.strip():
            raise BadInput(f"{where} is blank: leave the line out") from None
        start = data[:60].decode(errors="replace").rstrip()
        cut = " (the last line: was the file cut short?)" if data[-1:] not in b"\n}" else ""
        raise BadInput(f"{where} is not JSON{cut}: {start!r}") from None


def parse_object(data, where, decode=DECODE):
    """The JSON object in bytes; BadInput where it is none."""
    if not isinstance(row := parse(data, where, decode), dict):
        raise BadInput(f"{where} is not a JSON object: {str(row)[:60]}")
    return row


def depth(value):
    """How many lists and objects are in each other; no recursion, as it asks of any JSON."""
    levels, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        level = [x for one in level for x in (one.values() if isinstance(one, dict) else one)]
        levels += bool(level)
    return levels


# ---- what JSON has to hold


def misfit(value, wanted, at=""):
    """What a value, called `at`, lacks of what is wanted, in words; None where it fits.

    wanted: a type (float: any number) · a tuple or range, one of these types or values · [of each
    part] · {key: of that part}, where "key?" may be missing and others are not looked at.
    """
    if isinstance(wanted, dict) and type(value) is dict:
        for key, of_part in wanted.items():
            name, place = key.removesuffix("?"), f"{at}.{key}".strip(".?")
            if name not in value and name == key:
                return f"lacks {place!r}"
            if name in value and (told := misfit(value[name], of_part, place)):
                return told
        return None
    if isinstance(wanted, list) and type(value) is list:
        found = (misfit(part, wanted[0], f"{at}[{i}]") for i, part in enumerate(value))
        return next(filter(None, found), None)
    if any(fits(value, one) for one in (wanted if isinstance(wanted, tuple | range) else [wanted])):
        return None
    found = f"has {at!r} as" if at else "is"
    return f"{found} {json.dumps(value, default=str)[:60]}, not {in_words(wanted)}"


def fits(value, wanted):
    """Whether a value is of a type, or is this value, or has this shape."""
    if isinstance(wanted, type):
        return type(value) is wanted or (wanted is float and type(value) is int)
    if isinstance(wanted, dict | list):
        return type(value) is type(wanted) and not misfit(value, wanted)
    return type(value) is type(wanted) and value == wanted


def in_words(wanted):
    """What is wanted, for a message."""
    if isinstance(wanted, tuple | range):
        return " or ".join(map(in_words, wanted))
    names = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
    names |= {dict: "an object", list: "a list"}
    kind = type(wanted) if isinstance(wanted, dict | list) else wanted
    return names[kind] if isinstance(kind, type) else json.dumps(wanted)


TEXT, COUNT, LABELS = (str, None), (int, None), {"labels": (str, None)}
DATA = {"ds": str, "test": TEXT, "sha256": dict, "data_seed": int}
DATA |= {"n_train": COUNT, "n_test": COUNT}
ARGS = {  # of a card, by its stage, what later stages read without asking
    "train_weak": {"model": str, "n_val": COUNT},
    "train_strong": {"model": str, "labels": str, "target": ("weak", "truth"), "loss": TEXT},
    "api": {"target": ("weak", "truth", None)},
    "eval": {"data?": dict, "model?": TEXT},
}
CARD = {
    "stage": str, "setting?": str, "finished": bool, "args": dict, "inputs": dict,
    "data": (DATA, None), "model_sha256?": str, "supervisor?": ([str], None),
    "supervisors?": ([str], None), "labels_from?": TEXT, "models?": [str], "test_rows?": bool,
    "test_groups?": [str], "rows?": int, "sha256?": str, "rows_sha256?": TEXT, "commit?": TEXT,
    "leaks?": [str], "seconds?": float, "resolved?": dict, "versions?": dict, "kept?": dict,
    "time?": str,
}  # fmt: skip


def read_card(file, of, run=False):
    """The card in `file`, which is that of the path `of`; BadInput says which field is wrong.

    run: what later stages take from a run's arguments is checked too.
    """
    card = parse(read_bytes(file, LARGEST), file)
    told = misfit(card, CARD) or wrong_names(card)
    if not told and run and card["finished"]:
        told = misfit(card, {"args": ARGS.get(card["stage"], dict), "model_sha256": str})
        if not told and card.get("supervisor"):  # it learned from labels
            told = misfit(card, {"labels_from": TEXT, "args": {"labels": str}, "inputs": LABELS})
    if not told and "test_groups" in card and card["finished"]:
        told = misfit(card, {"inputs": {"model": str}, "rows": int})
        if not told and len(card["test_groups"]) != card["rows"]:
            told = f"has {len(card['test_groups'])} 'test_groups' for {card['rows']} rows"
    if told:
        raise BadInput(f"{file} is no card of ours: it {told}; delete it and make {of} again")
    return card


def wrong_names(card):
    """What is wrong where a name in a card cannot be printed as it is; None where all can."""
    names = [*card["args"].items(), *(card["data"] or {}).items()]
    odd = [key for key, name in names if key != "system" and UNSAFE.search(str(name))]
    return f"has control characters in {odd[0]!r}" if odd else None


def read(path, wanted):
    """The JSON value of a whole file; BadInput where it does not fit `wanted`, see misfit()."""
    value = parse(read_bytes(path, LARGEST), path)
    if told := misfit(value, wanted):
        raise BadInput(f"{path} {told}: delete it, and make it again")
    return value
