"""Files by chance, handed to everything that reads rows, cards, mirrors and model folders.

    python tests/fuzz.py --n=100000     # prints how many were tried, refused and taken

Each file is either JSON by chance, a good file in which something is other JSON, or its bytes cut
and changed. A reader may take it or raise BadInput, in one line that can be printed; it raises
nothing else, is done within SECONDS and leaves no file behind. hypothesis makes the files, and the
smallest one that fails.
"""

import contextlib
import copy
import io
import json
import os
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
import label
import tasks
from w2s import cli, doubts, files, folders, records, scores, strict
from w2s.files import BadInput

SECONDS, CHUNK = 5, 2_000  # for one file; examples of one call of hypothesis, whose memory grows
ROWS = [
    {"id": "1", "group": "a", "text": "him saw she", "label": 1, "weak": 0.5},
    {"id": "2", "group": "a", "prompt": "hi ", "a": "ho", "b": "hu", "label": 0, "weak": 1},
    {"id": 3, "group": 4, "prompt": "e4 e5 Nf3", "target": "Nc6", "weak": "Nc6", "difficulty": 1.5},
    {"id": "4", "prompt": "e4 e5", "target": "Nf3", "fen": "8/8/8/4k3/8/4K3/4P3/8 w - - 0 1"},
    {"prompt": "ba mi ru said", "completion": "so", "weak": "", "weak_all": ["", "so"]},
]
DATA = {"ds": "facts", "test": None, "sha256": {}, "data_seed": 0, "n_train": None, "n_test": 5}
CARD = {"stage": "train_strong", "setting": "texts", "finished": True}
CARD |= {"args": {"model": "m", "labels": "l.jsonl", "target": "weak", "loss": "xent", "n_val": 5}}
CARD |= {
    "inputs": {"model": "x", "labels": "z"},
    "data": DATA,
    "model_sha256": "x",
    "supervisor": ["y"],
    "labels_from": "label",
}
CARDS = [CARD, CARD | {"stage": "train_weak"}, CARD | {"stage": "eval", "args": {"model": "m"}}]
CARDS += [CARD | {"stage": "label", "rows": 1, "test_groups": ["a"], "sha256": "y"}]
CONFIG = json.loads((files.HERE / "facts/xs/config.json").read_text())
TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
SAID = "\n\nHuman: a\n\nAssistant:"
TABLES = {  # tasks whose sources are read in different ways: {column: a value}
    "hh_helpful": {"chosen": f"{SAID} b", "rejected": f"{SAID} c"},
    "ultrafeedback": {"prompt": "p", "chosen": [{"content": "a", "role": "user"}],
                      "rejected": [{"content": "b", "role": "user"}], "score_chosen": 1.5,
                      "score_rejected": 2.5},
    "lichess": {"ctx": "1. e4 e5 2. Nf3", "target": "Nc6"},
    "cola": {"sentence": "him saw she", "label": 0},
    "safety_prompts": {"prompt": "how?", "is_safe": True},
    "real_toxicity_prompts": {"prompt": {"text": "a"},
                              "continuation": {"text": "b", "toxicity": 0.1}},
}  # fmt: skip


# ---- what is in the files

WORDS = st.sampled_from(["id", "text", "label", "args", "data", "ds", "", "\x1b[2J", "\ud800",
                         "../x", "-rf", "a\nb", "é", "\x00"])  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2**63, 10**30, float("nan"), float("inf"), 1e308, 0.5])
LEAVES = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | WORDS | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def changed(draw, values):
    """One of some values, in which up to two parts are other JSON, missing or new."""
    value = copy.deepcopy(draw(st.sampled_from(values)))
    for _ in range(draw(st.integers(0, 2))):
        part = value
        while part and isinstance(part, dict | list):
            places = sorted(part) if isinstance(part, dict) else range(len(part))
            at = draw(st.sampled_from(places))
            if not isinstance(part[at], dict | list) or draw(st.booleans()):
                part[at] = draw(VALUES)
                if isinstance(part, dict) and draw(st.integers(0, 3)) == 0:
                    del part[at]
                break
            part = part[at]
    return value


@st.composite
def damaged(draw, data):
    """Bytes that are cut, or in which a few are others or new."""
    data = bytearray(draw(data))
    for _ in range(draw(st.integers(0, 4))):
        at, how = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        if how == 0:
            del data[at:]
        elif how == 1:
            data[at:at] = draw(
                st.binary(max_size=8) | st.sampled_from([b"\xef\xbb\xbf", b"\r\n", b"["])
            )
        elif how == 2:
            data[at : at + 1] = draw(st.binary(max_size=2))
        else:
            del data[at : at + draw(st.integers(1, 20))]
    return bytes(data)


def as_json(value):
    """JSON as bytes, NaN and half characters with it."""
    return json.dumps(value).encode()


def spoiled(values):
    """Bytes of JSON: by chance, or of a value that is changed, or then damaged."""
    good = changed(values).map(as_json)
    other = damaged(good) | VALUES.map(as_json) | st.binary(max_size=200)
    return st.booleans().flatmap(lambda mostly: good if mostly else other)


LINES = st.lists(spoiled(ROWS), min_size=1, max_size=4).map(b"\n".join)
HEADER = {name: TENSOR for name in "abcd"}  # as many as the configuration has layers
MODELS = st.tuples(
    spoiled([CONFIG]),
    spoiled([HEADER]),
    st.sampled_from([None, None, None, 0, 2**63, 7]),
    st.binary(max_size=4).map(lambda more: bytes(16) + more) | st.binary(max_size=4),
)
MIRRORS = st.sampled_from(sorted(TABLES)).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(changed([TABLES[name]]), min_size=1, max_size=4), st.integers(0, 9),
        st.binary(max_size=30),
    )
)  # fmt: skip


# ---- who reads them


def read_rows(data):
    """As --ds=FILE is read, and as a labels file is."""
    Path("rows.jsonl").write_bytes(data)
    setting = tasks.setting_of("rows.jsonl")
    with contextlib.suppress(BadInput):
        records.read_labels(setting, "rows.jsonl")
    setting.finish(setting.read("rows.jsonl", "train"), 0)


def read_cards(data):
    """As the card of a run, of predictions, and of labels is read."""
    for path in ("run/card.json", "l.card.json"):
        Path(path).write_bytes(data)
    with contextlib.suppress(BadInput):
        card = files.read_card("l.jsonl") or {}
        tasks.setting_of_card(card)
        records.changed(card, {"seed": 0}, {"x": "y"})
    with contextlib.suppress(BadInput):
        Path("run/card.metrics.json").write_bytes(data)
        scores.known(Path("run/card.jsonl"), {}, {"model": "x"})
    card = records.finished_run("run", (*records.TRAINERS, "eval", "api"))
    doubts.roles([card] * 3, "abc")
    doubts.seeds("abc", [[card] * 3] * 2)
    label.supervisors(["run"])


def read_mirror(case):
    """As a task's rows are read from a parquet, or a CSV, of a mirror."""
    import pyarrow
    import pyarrow.parquet

    name, rows, how, more = case
    task, setting = tasks.TASKS[name], tasks.setting_of(name)
    split = next(iter(task["splits"]))
    folder = Path("mirror") / task["repo"] / task.get("config", "default")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{task['splits'][split][0]}.parquet"
    try:
        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
        data = out.getvalue()
    except (pyarrow.ArrowException, OverflowError, UnicodeError, NotImplementedError):
        data, how = b"", 9  # no table can hold this: it is written as CSV
    if how == 8:
        at = len(data) - 1 - sum(more) % len(data)
        data = data[:at] + more + data[at + len(more) :]
    if how == 9:
        file = file.with_suffix(".csv")
        cells = [",".join(json.dumps(str(value)) for value in row.values()) for row in rows]
        text = "\n".join([",".join(TABLES[name]), *cells])
        data = text.encode(errors="surrogatepass") + more
    file.write_bytes(data)
    try:
        setting.finish(list(setting.read(name, split)), 0)
    finally:
        file.unlink()


def read_model(case):
    """As --model=FOLDER is looked at before it is loaded."""
    config, header, length, numbers = case
    length = len(header) if length is None else length
    Path("model/config.json").write_bytes(config)
    told = struct.pack("<Q", length) + header + numbers
    Path("model/model.safetensors").write_bytes(told)
    folders.check("model", "model")


READERS = {"rows": (LINES, read_rows), "cards": (spoiled(CARDS), read_cards)}
READERS |= {"mirrors": (MIRRORS, read_mirror), "models": (MODELS, read_model)}
SHARE = {"rows": 0.4, "cards": 0.3, "mirrors": 0.15, "models": 0.15}


def late(*_):
    raise AssertionError(f"not done after {SECONDS} s")


def attempt(read, case):
    """(whether the reader takes a case, its seconds); AssertionError for what it must not do."""
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read(case)
        taken = True
    except BadInput as error:
        taken = False
        line = f"error: {strict.printable(error)}"
        assert not strict.UNSAFE.search(line), line
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    left = {str(path) for path in Path().rglob("*") if path.is_file()} - OURS
    assert not left, f"left behind: {left}"
    return taken, time.monotonic() - began


OURS = {"rows.jsonl", "run/card.json", "run/card.metrics.json", "l.card.json", "model/config.json"}
OURS |= {"model/model.safetensors"}


def try_all(name, n, seed):
    """{"tried", "taken", "slowest"} of n files for one reader."""
    cases, read = READERS[name]
    told = {"tried": 0, "taken": 0, "slowest": 0.0}

    def one(case):
        taken, seconds = attempt(read, case)
        told["tried"] += 1
        told["taken"] += taken
        told["slowest"] = max(told["slowest"], seconds)

    while told["tried"] < n:
        how = hypothesis.settings(
            max_examples=min(CHUNK, n - told["tried"]), deadline=None, database=None,
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.seed(seed)(how(hypothesis.given(cases)(one)))()
        seed += 1
    return told


def main(*, n: int = 1000, seed: int = 0):
    """Hand n files by chance to the readers of rows, cards, mirrors and model folders."""
    cli.check({"n": n, "seed": seed})
    signal.signal(signal.SIGALRM, late)
    before, mirror = os.getcwd(), os.environ.get("W2S_MIRROR")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["W2S_MIRROR"] = "mirror"
        for one in ("run", "model"):
            Path(one).mkdir()
        try:
            made = {name: try_all(name, round(n * SHARE[name]), seed) for name in READERS}
        finally:
            os.chdir(before)
            os.environ |= {"W2S_MIRROR": mirror or ""}
    for name, told in made.items():
        refused, slowest = told["tried"] - told["taken"], f"{told['slowest'] * 1000:.0f} ms"
        print(f"{name:<8} {told['tried']:>7} files, {refused:>7} refused, slowest {slowest}")
    tried = sum(told["tried"] for told in made.values())
    print(f"{tried} files: no traceback, no hang, no file left behind")
    return made


if __name__ == "__main__":
    cli.run(main)
