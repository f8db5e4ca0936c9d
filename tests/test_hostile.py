"""Over 80 bad inputs: each is answered by one line that names the place, exit code 2, no change.

A case is (what is spoiled, words of the command, what the line must hold). Every case starts from
the same folder, which is in order: test_what_is_not_spoiled_is_taken shows that.
"""

import hashlib
import importlib
import json
import os
import pickle
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from conftest import CARD

from w2s import files, folders, strict
from w2s.files import HERE

SECONDS = 20  # for each; nothing here trains
DATA = {"test": None, "sha256": {}, "data_seed": 0, "n_train": None, "n_test": None}
ROW = {"id": "r", "group": "r", "text": "the pet of ba mi ru is cat ?", "label": 1, "weak": 0.5}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """own.jsonl, labels.jsonl, a model, three scored runs, a mirror of hh_helpful."""
    importlib.import_module("w2s.models")  # torch takes its seconds here, not in a case
    here = tmp_path_factory.mktemp("good")
    rows = [ROW | {"id": f"r{i}", "group": f"r{i}", "label": i % 2} for i in range(60)]
    for i, row in enumerate(rows):
        row["text"] = f"the pet of ba mi ru {i} is cat ?"
    write_rows(here / "own.jsonl", rows)
    data = DATA | {"ds": str(here / "own.jsonl")}
    data["sha256"] = {"ds": files.sha256(here / "own.jsonl")}
    files.write_jsonl(here / "labels.jsonl", rows, CARD | {"data": data})
    shutil.copytree(HERE / "facts/xs", here / "model")
    for who, stage in (
        ("weak", "train_weak"),
        ("student", "train_strong"),
        ("ceiling", "train_strong"),
    ):
        args = {
            "model": "model",
            "n_val": None,
            "seed": 0,
            "labels": "labels.jsonl",
            "loss": "xent",
        }
        args |= {"target": "truth" if who == "ceiling" else "weak"}
        files.write_card(here / who, CARD | {"stage": stage, "args": args, "data": data}
                         | {"model_sha256": who})  # fmt: skip
        (here / who / "model").symlink_to("../model")
        right = {"weak": 0.3, "student": 0.2, "ceiling": 0.1}[who]
        told = [
            {"id": row["id"], "label": row["label"], "prob": abs(row["label"] - right)}
            for row in rows
        ]
        about = CARD | {"stage": "eval", "inputs": {"model": who}, "data": data}
        about |= {"test_groups": [row["group"] for row in rows], "rows_sha256": "these"}
        files.write_jsonl(here / who / "eval/own-test.jsonl", told, about)
    write_mirror(here / "mirror/Anthropic/hh-rlhf/helpful-base")
    return here


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_mirror(folder):
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    starts = [f"\n\nHuman: {i}?\n\nAssistant:" for i in range(40)]
    sides = {name: [f"{one} {name}" for one in starts] for name in ("chosen", "rejected")}
    for split in ("train", "test"):
        pyarrow.parquet.write_table(pyarrow.table(sides), folder / f"{split}.parquet")


# ---- how something is spoiled; each returns a function without arguments


def raw(path, data):
    """The file holds these bytes."""
    return lambda: Path(path).write_bytes(data)


def line(data, path="own.jsonl", at=3):
    """A line of a JSONL file is another."""

    def spoil():
        lines = Path(path).read_bytes().splitlines()
        lines[at - 1] = data if isinstance(data, bytes) else json.dumps(data).encode()
        Path(path).write_bytes(b"\n".join(lines) + b"\n")

    return spoil  # fmt: skip


def row(**changes):
    """A row, as JSON, in which some fields are others."""
    return line(ROW | changes)


def instead(path, make):
    """Something else is in the place of a file."""

    def spoil():
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
        make(path)

    return spoil  # fmt: skip


def card(path, without=(), **changes):
    """Some fields of a card are others or missing."""

    def spoil():
        told = json.loads(Path(path).read_text()) | changes
        Path(path).write_text(json.dumps({k: told[k] for k in told if k not in without}))

    return spoil  # fmt: skip


def part(path, name, **changes):
    """Some fields of an object in a card are others; None: they are missing."""

    def spoil():
        told = json.loads(Path(path).read_text())
        told[name] = {k: v for k, v in (told[name] | changes).items() if v != "missing"}
        Path(path).write_text(json.dumps(told))

    return spoil  # fmt: skip


def config(file="config.json", **changes):
    """Some settings of the model are others."""
    return card(f"model/{file}", **changes)


def header(change):
    """The header of the weights is another: change(header) -> bytes before the numbers."""

    def spoil():
        path = Path("model/model.safetensors")
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        path.write_bytes(change(json.loads(data[8 : 8 + length]), data[8 + length :]))

    return spoil  # fmt: skip


def whole(told, rest, length=None):
    """The bytes of a safetensors file."""
    told = json.dumps(told).encode()
    return struct.pack("<Q", length or len(told)) + told + rest


def weights(change):
    """The weights are others: change({name: tensor})."""

    def spoil():
        from safetensors.torch import load_file, save_file

        tensors = load_file("model/model.safetensors")
        change(tensors)
        save_file(tensors, "model/model.safetensors", {"format": "pt"})

    return spoil  # fmt: skip


def pickled(name):
    """The weights are in a pickle alone, one that would run a program."""

    class Program:
        def __reduce__(self):
            return os.mkdir, ("it-ran",)

    def spoil():
        import torch

        Path("model/model.safetensors").unlink()
        torch.save({"weight": Program()}, f"model/{name}")

    return spoil  # fmt: skip


def sharded(weight_map):
    """The weights are in shards, of which an index tells."""

    def spoil():
        Path("model/model.safetensors").rename("model/model-00001-of-00002.safetensors")
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        Path("model/model.safetensors.index.json").write_text(text)

    return spoil  # fmt: skip


def parquet(make):
    """The test rows of hh_helpful in the mirror are another table."""

    def spoil():
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(
            make(pyarrow), "mirror/Anthropic/hh-rlhf/helpful-base/test.parquet"
        )

    return spoil  # fmt: skip


def half_utf8(pyarrow):
    texts = pyarrow.array([b"good", b"\xff\xfe bad"]).cast(pyarrow.binary())
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, texts.buffers())
    return pyarrow.table({"chosen": texts, "rejected": ["a", "b"]})


def nothing():
    pass


DEEP, SHARD = b"[" * 100_000 + b"]" * 100_000, "model-00001-of-00002.safetensors"
OWN, MODEL = ["tasks.py", "own.jsonl"], ["train_weak.py", "--ds=own.jsonl", "--model=model"]
MODEL += ["--out=new", "--device=cpu", "--n_val=10"]
PAIRS, PGR = (
    ["tasks.py", "hh_helpful", "--n=5"],
    ["pgr.py", "weak", "student", "ceiling", "--out=p.json"],
)
STRONG, LABEL = (
    ["train_strong.py", "labels.jsonl", "--model=model"],
    ["label.py", "weak", "--out=l.jsonl"],
)
THIRD, LCARD, WCARD = "own.jsonl:3", "labels.card.json", "weak/card.json"
PCARD = "student/eval/own-test.card.json"
EPOCHS = "must be positive, and at most 1,000,000"
CASES = {
    # lines and rows
    "a line of 100 MB": (line(b'{"text": "' + b"x" * 100_000_000), OWN, [THIRD, "over 10 MB"]),
    "a first line of 20 MB": (line(b"x" * 20_000_000, at=1), OWN, ["own.jsonl:1", "over 10 MB"]),
    "NaN": (row(label=float("nan")), OWN, [THIRD, "NaN", "not finite"]),
    "Infinity": (row(label=float("inf")), OWN, [THIRD, "Infinity"]),
    "minus Infinity in another field": (row(more=[-float("inf")]), OWN, [THIRD, "-Infinity"]),
    "1e999": (line(b'{"text": "a", "label": 1, "x": 1e999}'), OWN, [THIRD, "1e999"]),
    "100,000 lists in each other": (line(DEEP), OWN, [THIRD, "nested over 100 deep"]),
    "500 lists in each other": (line(DEEP[99_500:-99_500]), OWN, [THIRD, "nested over 100 deep"]),
    "200 objects in each other": (line(b'{"a":' * 200 + b"1" + b"}" * 200), OWN, [THIRD, "nested"]),
    "UTF-16": (
        raw("own.jsonl", json.dumps(ROW).encode("utf-16")),
        OWN,
        ["own.jsonl:1 is not UTF-8"],
    ),
    "Latin-1": (line('{"text": "café", "label": 1}'.encode("latin-1")), OWN, [THIRD, "not UTF-8"]),
    "a mark of byte order in the middle": (line(b"\xef\xbb\xbf{}"), OWN, [THIRD, "not JSON"]),
    "half a character": (row(text="\ud800"), OWN, [THIRD, "half a character"]),
    "half a character in a key": (line({"\udfff": 1}), OWN, [THIRD, "half a character"]),
    "a key twice": (line(b'{"text": "a", "label": 1, "label": 0}'), OWN, [THIRD, "'label' twice"]),
    "a key twice, deep inside": (line(b'{"a": [{"b": 1, "b": 1}]}'), OWN, [THIRD, "'b' twice"]),
    "2^63": (row(id=2**63), OWN, [THIRD, str(2**63), "over 2^63"]),
    "a number of 5,000 digits": (
        line(b'{"label": ' + b"9" * 5000 + b"}"),
        OWN,
        [THIRD, "over 2^63"],
    ),
    "a NUL byte": (line(b'{"text": "a\0b", "label": 1}'), OWN, [THIRD, "not JSON"]),
    "zeros": (raw("own.jsonl", bytes(4096)), OWN, ["own.jsonl:1 is not JSON"]),
    "an empty file": (raw("own.jsonl", b""), OWN, ["own.jsonl is empty"]),
    "an empty line": (line(b""), OWN, [THIRD, "is blank"]),
    "a list": (line([1, 2]), OWN, [THIRD, "not a JSON object"]),
    "a number as text": (row(text=5), OWN, [THIRD, "'text' is 5"]),
    "a blank text": (row(text=" \n"), OWN, [THIRD, "'text'"]),
    "true as label": (row(label=True), OWN, [THIRD, "'label' is true"]),
    "a label too large": (row(label=2**62), OWN, [THIRD, "'label'"]),
    "no label": (line({"id": "x", "text": "a"}), OWN, [THIRD, "no field 'label'"]),
    "an id twice": (row(id="r0"), OWN, [THIRD, "repeats the id 'r0' of line 1"]),
    "an id that moves the cursor": (row(id="\x1b[2J\x1b[1;1H"), OWN, [THIRD, "'id'", "\\u001b"]),
    "an id of two lines": (row(id="a\nerror: b"), OWN, [THIRD, "'id'"]),
    "a key that moves the cursor": (
        line(b'{"\\u001b[2J": 1}', at=1),
        OWN,
        ["own.jsonl:1", "\\u001b[2J"],
    ),
    "a key that turns the direction": (line('{"\u202e": 1}'.encode(), at=1), OWN, ["\\u202e"]),
    "the end is cut": (line(b'{"id": "x", "te', at=60), OWN, ["own.jsonl:60", "not JSON"]),
    # what is no file
    "a pipe": (instead("own.jsonl", os.mkfifo), OWN, ["own.jsonl", "a pipe or a device"]),
    "a folder": (instead("own.jsonl", os.mkdir), OWN, ["own.jsonl", "a folder"]),
    "a device": (instead("own.jsonl", lambda p: os.symlink("/dev/zero", p)), OWN, ["a device"]),
    "a link to itself": (
        instead("own.jsonl", lambda p: os.symlink(p, p)),
        OWN,
        ["own.jsonl", "links"],
    ),
    "a link to nothing": (
        instead("own.jsonl", lambda p: os.symlink("no", p)),
        OWN,
        ["does not exist"],
    ),
    "a pipe of test rows": (
        lambda: os.mkfifo("t.jsonl"),
        [*OWN, "--test=t.jsonl"],
        ["t.jsonl", "pipe"],
    ),
    "a name of 300 letters": (
        nothing,
        ["tasks.py", "x" * 300 + ".jsonl"],
        ["x.jsonl", "name too long"],
    ),
    "a pipe as card": (instead(LCARD, os.mkfifo), STRONG, [LCARD, "a pipe"]),
    "a pipe as run": (instead("weak", os.mkfifo), LABEL, ["weak"]),
    # names
    "a name that moves the cursor": (nothing, ["tasks.py", "\x1b[2J.jsonl"], ["\\u001b[2J.jsonl"]),
    "a name of two lines": (nothing, ["train_weak.py", "--out=a\nb"], ["a\\nb", "control"]),
    "a name that is not UTF-8": (
        nothing,
        ["train_weak.py", "--out=a\udce9"],
        ["a\\udce9", "UTF-8"],
    ),
    "a match that moves the cursor": (
        lambda: os.mkdir("weak\x1b[2J"),
        ["label.py", "weak*"],
        ["u001b"],
    ),
    # cards
    "a card {}": (raw(LCARD, b"{}"), STRONG, [LCARD, "lacks 'stage'"]),
    "a card []": (raw(LCARD, b"[]"), STRONG, [LCARD, "is []"]),
    "a card of pairs": (raw(WCARD, b'[["stage", "label"]]'), LABEL, [WCARD, "not an object"]),
    "a card that is null": (raw(WCARD, b"null"), LABEL, [WCARD, "null"]),
    "a card with NaN": (card(WCARD, seconds=float("nan")), LABEL, [WCARD, "NaN"]),
    "a card 100,000 deep": (raw(WCARD, DEEP), LABEL, [WCARD, "nested"]),
    "a card cut short": (raw(WCARD, b'{"stage": "tra'), LABEL, [WCARD, "not JSON"]),
    "a card that is not UTF-8": (raw(WCARD, b'{"stage": "\xff"}'), LABEL, [WCARD, "not UTF-8"]),
    "a card with a key twice": (raw(WCARD, b'{"stage": 1, "stage": 1}'), LABEL, [WCARD, "twice"]),
    "leaks a number": (card(WCARD, leaks=5), LABEL, [WCARD, "'leaks'", "a list"]),
    "args a list": (card(WCARD, args=[1]), LABEL, [WCARD, "'args'", "an object"]),
    "no args": (card(WCARD, without=["args"]), LABEL, [WCARD, "lacks 'args'"]),
    "args without a model": (part(WCARD, "args", model="missing"), LABEL, [WCARD, "'args.model'"]),
    "n_val a text": (part(WCARD, "args", n_val="many"), LABEL, [WCARD, "'args.n_val'", "many"]),
    "data missing": (card(WCARD, without=["data"]), LABEL, [WCARD, "lacks 'data'"]),
    "data a text": (card(WCARD, data="own.jsonl"), LABEL, [WCARD, "'data'", "own.jsonl"]),
    "data without ds": (part(WCARD, "data", ds="missing"), LABEL, [WCARD, "data"]),
    "ds that moves the cursor": (part(WCARD, "data", ds="\x1b[2J"), LABEL, [WCARD, "'ds'"]),
    "ds a pipe": (lambda: (os.mkfifo("f"), part(WCARD, "data", ds="f")()), LABEL, ["f is gone"]),
    "stage a number": (card(WCARD, stage=7), LABEL, [WCARD, "'stage' as 7"]),
    "finished no": (card(WCARD, finished="no"), LABEL, [WCARD, "'finished'", "true or false"]),
    "target unknown": (
        part("student/card.json", "args", target="both"),
        ["label.py", "student"],
        ["student/card.json", "'args.target'", "both"],
    ),
    "model_sha256 a list": (card(WCARD, model_sha256=[]), LABEL, [WCARD, "'model_sha256'"]),
    "supervisor a number": (
        card("student/card.json", supervisor=5),
        ["label.py", "student"],
        ["student/card.json", "'supervisor'"],
    ),
    "setting unknown": (card(LCARD, setting="sounds"), STRONG, ["made by an earlier version"]),
    "only the sha256": (lambda: card(LCARD, without=CARD)(), STRONG, [LCARD, "lacks 'stage'"]),
    "rows as the card does not say": (card(LCARD, rows=61), STRONG, ["60 rows", "61 rows"]),
    "few groups": (card(PCARD, test_groups=["a"]), PGR, [PCARD, "1 'test_groups' for 60 rows"]),
    "groups of numbers": (card(PCARD, test_groups=[1] * 60), PGR, [PCARD, "'test_groups[0]'"]),
    "predictions without inputs": (card(PCARD, without=["inputs"]), PGR, [PCARD, "lacks 'inputs'"]),
    "inputs without model": (card(PCARD, inputs={}), PGR, [PCARD, "lacks 'inputs.model'"]),
    "predictions with NaN": (
        lambda: (
            os.remove(PCARD),
            line(b'{"id": "r2", "label": 1, "prob": NaN}', PCARD[:-10] + ".jsonl")(),
        ),
        PGR,
        ["student/eval/own-test.jsonl:3", "NaN"],
    ),
    # model folders
    "a pickle alone": (
        pickled("pytorch_model.bin"),
        MODEL,
        ["pytorch_model.bin, a pickle", "python -c", "weights_only=True"],
    ),
    "a .pt alone": (pickled("model.pt"), MODEL, ["model.pt, a pickle", "weights_only=True"]),
    "a .ckpt alone": (pickled("last.ckpt"), MODEL, ["last.ckpt, a pickle", "weights_only=True"]),
    "a .pkl alone": (pickled("w.pkl"), MODEL, ["w.pkl, a pickle", "weights_only=True"]),
    "no weights": (
        lambda: os.remove("model/model.safetensors"),
        MODEL,
        ["model.safetensors is missing"],
    ),
    "code of its own": (
        config(auto_map={"AutoConfig": "code.C"}, model_type="mine"),
        MODEL,
        ["--model=model", "auto_map", "never run"],
    ),
    "code of the hub": (config(attn_implementation="a/kernel"), MODEL, ["attn_implementation"]),
    "weights by another name": (
        config(transformers_weights="x.bin"),
        MODEL,
        ["transformers_weights"],
    ),
    "a configuration with NaN": (config(rms_norm_eps=float("nan")), MODEL, ["config.json", "NaN"]),
    "10^9 layers": (config(num_hidden_layers=10**9), MODEL, ["num_hidden_layers is 1000000000"]),
    "10^9 labels": (config(num_labels=10**9), MODEL, ["num_labels is 1000000000"]),
    "less than no layers": (config(num_hidden_layers=-1), MODEL, ["num_hidden_layers is -1"]),
    "a vocabulary of 10^11": (config(vocab_size=10**11), MODEL, ["asks for 3,200,000,0"]),
    "a width of 10^6": (config(hidden_size=10**6), MODEL, ["do not belong together"]),
    "a width of 10^18": (
        config(intermediate_size=10**18),
        MODEL,
        ["--model=model cannot be loaded"],
    ),
    "no heads": (config(num_attention_heads=0), MODEL, ["--model=model cannot be loaded"]),
    "another width": (config(intermediate_size=64), MODEL, ["(32, 128)", "by its config.json"]),
    "a configuration 100,000 deep": (
        raw("model/config.json", DEEP),
        MODEL,
        ["config.json is nested"],
    ),
    "a configuration that is a list": (
        raw("model/config.json", b"[]"),
        MODEL,
        ["config.json", "object"],
    ),
    "a tokenizer that is broken": (
        raw("model/tokenizer.json", b'{"a": '),
        MODEL,
        ["cannot be loaded"],
    ),
    "a tokenizer 100,000 deep": (raw("model/tokenizer.json", DEEP), MODEL, ["cannot be loaded"]),
    "settings of a tokenizer cut": (
        raw("model/tokenizer_config.json", b"{"),
        MODEL,
        ["tokenizer_config"],
    ),
    "a pipe among the files": (
        lambda: os.mkfifo("model/notes"),
        MODEL,
        ["notes is no file but a pipe"],
    ),
    "a pipe as weights": (instead("model/model.safetensors", os.mkfifo), MODEL, ["a pipe"]),
    "a link to nothing among them": (
        lambda: os.symlink("no", "model/x"),
        MODEL,
        ["x is a link to nothing"],
    ),
    "a name that moves it": (raw("model/\x1b[2J", b""), MODEL, ["\\u001b[2J", "control"]),
    "weights of no bytes": (
        raw("model/model.safetensors", b""),
        MODEL,
        ["model.safetensors", "cut"],
    ),
    "weights that are a page": (
        raw("model/model.safetensors", b"<html>" * 99),
        MODEL,
        ["header says"],
    ),
    "a header beyond the file": (
        header(lambda h, d: whole(h, d, 2**62)),
        MODEL,
        ["header says 46116"],
    ),
    "numbers beyond the file": (
        header(lambda h, d: whole(h, d[:-9])),
        MODEL,
        ["ends beyond the file"],
    ),
    "a header of lists": (header(lambda h, d: whole([h], d)), MODEL, ["the header", "JSON object"]),
    "a shape that is a text": (
        header(lambda h, d: whole(h | {"model.norm.weight": {"dtype": "F32", "shape": "32"}}, d)),
        MODEL,
        ["'model.norm.weight.shape'"],
    ),
    "shapes that overlap": (
        header(lambda h, d: whole(h | {"more": h["model.norm.weight"]}, d)),
        MODEL,
        ["cannot be loaded"],
    ),
    "weights that are NaN": (
        weights(lambda w: w["model.norm.weight"].fill_(float("nan"))),
        MODEL,
        ["model.norm.weight is not finite"],
    ),
    "a weight missing": (
        weights(lambda w: w.pop("model.norm.weight")),
        MODEL,
        ["model.norm.weight is missing"],
    ),
    "a shard missing": (
        sharded({"a": SHARD, "b": "model-00002-of-00002.safetensors"}),
        MODEL,
        ["model-00002-of-00002.safetensors is missing"],
    ),
    "a shard elsewhere": (sharded({"a": f"../model/{SHARD}"}), MODEL, ["'../model/", "beside it"]),
    "a shard that is a pickle": (
        sharded({"a": "pytorch_model.bin"}),
        MODEL,
        ["'pytorch_model.bin'"],
    ),
    "an index of nothing": (raw("model/model.safetensors.index.json", b"{"), MODEL, ["index.json"]),
    # mirrors
    "a parquet that is none": (
        raw("mirror/Anthropic/hh-rlhf/helpful-base/test.parquet", b"PAR1"),
        PAIRS,
        ["helpful-base/test.parquet cannot be read"],
    ),
    "a parquet cut short": (
        lambda: os.truncate("mirror/Anthropic/hh-rlhf/helpful-base/test.parquet", 600),
        PAIRS,
        ["cannot be read"],
    ),
    "texts that are not UTF-8": (parquet(half_utf8), PAIRS, ["helpful-base/test.parquet", "UTF8"]),
    "another column": (
        parquet(lambda p: p.table({"chosen": ["a"]})),
        PAIRS,
        ["no column 'rejected'"],
    ),
    "numbers for texts": (
        parquet(lambda p: p.table({"chosen": ["a"], "rejected": [5]})),
        PAIRS,
        ["row 0", "has 'rejected' as 5, not a text"],
    ),
    "a column that moves the cursor": (
        parquet(lambda p: p.table({"\x1b[2J": ["a"]})),
        PAIRS,
        ["u001b"],
    ),
    "a mirror that is gone": (
        lambda: shutil.rmtree("mirror"),
        PAIRS,
        ["W2S_MIRROR", "does not exist"],
    ),
    "a mirror that is a file": (
        instead("mirror", lambda p: Path(p).touch()),
        PAIRS,
        ["W2S_MIRROR"],
    ),
    # numbers
    "epochs without end": (
        nothing,
        [*MODEL, "--epochs=100000000000"],
        ["--epochs=100000000000", EPOCHS],
    ),
    "rows without end": (
        nothing,
        [*MODEL, "--n_train=99999999999999999999"],
        ["--n_train=999", "most"],
    ),
    "seeds without end": (
        nothing,
        ["sweep.py", "--seeds=999999999"],
        ["--seeds=999999999", "most"],
    ),
    "a rank without end": (nothing, [*MODEL, "--lora=1000000000"], ["--lora=1000000000", "most"]),
}


@pytest.fixture
def here(good, tmp_path, monkeypatch):
    """A copy of the good folder, in which everything runs."""
    folder = tmp_path / "here"
    shutil.copytree(good, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("W2S_MIRROR", "mirror")
    for path in (LCARD, *(f"{who}/{name}" for who in ("weak", "student", "ceiling")
                          for name in ("card.json", "eval/own-test.card.json"))):  # fmt: skip
        Path(path).write_text(Path(path).read_text().replace(str(good), str(folder)))
    return folder


def tree(folder):
    """{path: what is there} below a folder; bytes by their hash; no pipe is opened."""
    told = {}
    for path in sorted(Path(folder).rglob("*")):
        mode = path.lstat().st_mode
        told[str(path)] = os.readlink(path) if stat.S_ISLNK(mode) else stat.S_IFMT(mode)
        if stat.S_ISREG(mode):
            told[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return told


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_names_the_place(here, command, capfd, name):
    spoil, words, told = CASES[name]
    spoil()
    before = tree(here)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(SECONDS)
    try:
        with pytest.raises(SystemExit) as stopped:
            command(*words)
    finally:
        signal.alarm(0)
    error = capfd.readouterr().err
    assert stopped.value.code == 2 and error.startswith("error: ")
    assert error.endswith("\n") and error.count("\n") == 1 and not strict.UNSAFE.search(error[:-1])
    assert not [word for word in told if word not in error], error[:500]
    assert tree(here) == before


def test_there_are_over_80_of_them():
    assert len(CASES) > 80


def test_files_by_chance_are_taken_or_refused(monkeypatch, capsys):
    """A few of those of python tests/fuzz.py --n=100000; a reader that raises anything is red."""
    made = fuzz.main(n=240)
    assert sum(told["tried"] for told in made.values()) >= 240
    assert all(0 < told["taken"] < told["tried"] for told in made.values())

    monkeypatch.setitem(fuzz.READERS, "rows", (fuzz.LINES, json.loads))
    with pytest.raises((ValueError, ExceptionGroup)):
        fuzz.main(n=100)


def test_what_is_not_spoiled_is_taken(here, command, capsys):
    """Marks of byte order, CRLF, odd texts and links are no reason to refuse anything."""
    rows = Path("own.jsonl").read_bytes().replace(b"\n", b"\r\n")
    odd = {"id": "odd", "text": "\x1b[2J\x00\x9b2J\u202e \U0001f600", "label": 1}
    Path("own.jsonl").write_bytes(b"\xef\xbb\xbf" + rows + json.dumps(odd).encode())
    command(*OWN, "--split=weak")
    command(*OWN, "--split=test")
    command(*PAIRS)
    command("train_strong.py", "labels.jsonl", "--model=model", "--out=new", "--epochs=1",
            "--n_val=10", "--device=cpu")  # fmt: skip
    command(*PGR)
    shown = capsys.readouterr().out
    assert not strict.UNSAFE.search(shown.replace("\n", "")) and "PGR" in shown


def test_a_pickle_is_converted_by_the_command_that_is_told(here, command, capsys, monkeypatch):
    import torch
    from safetensors.torch import load_file

    tensors = load_file("model/model.safetensors")
    torch.save(tensors | {"tied": tensors["model.norm.weight"]}, "model/pytorch_model.bin")
    Path("model/model.safetensors").unlink()
    with pytest.raises(SystemExit):
        command(*MODEL)
    told = capsys.readouterr().err.rpartition("without running one: ")[2]
    python, option, code, *files_of = shlex.split(told)
    assert (python, option) == ("python", "-c") and told.count("\n") == 1
    monkeypatch.setattr("sys.argv", ["-c", *files_of])
    exec(code, {})
    folders.check("model", "model")
    assert torch.equal(load_file("model/model.safetensors")["tied"], tensors["model.norm.weight"])
    pickled("pytorch_model.bin")()
    with pytest.raises(pickle.UnpicklingError):
        exec(code, {})
    assert not Path("it-ran").exists()


@pytest.mark.parametrize("name", ["a line of 100 MB", "a pipe", "an id that moves the cursor",
                                  "a card {}", "a name that is not UTF-8"])  # fmt: skip
def test_it_is_so_in_a_process_of_its_own_whose_terminal_knows_ascii_alone(here, name):
    spoil, words, told = CASES[name]
    spoil()
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    words = [sys.executable, HERE / words[0], *map(os.fsencode, words[1:])]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=SECONDS)
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1
    assert not [word for word in told if word not in done.stderr]


def test_rows_are_shown_on_a_terminal_that_knows_ascii_alone(here):
    write_rows(Path("é.jsonl"), [ROW | {"id": f"é{i}", "text": f"café {i}"} for i in range(20)])
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    words = [sys.executable, HERE / "tasks.py", "é.jsonl", "--split=weak"]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert "é" not in done.stdout + done.stderr
