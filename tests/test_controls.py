"""controls.py on labels files of texts, pairs and moves; no model is trained."""

import random

import pytest
from conftest import CARD

import controls
import tasks
from w2s import files
from w2s.files import BadInput

FIELDS = {"texts": {"text": "a b"}, "pairs": {"prompt": "p", "a": "x", "b": "y"}}


def new_labels(setting, n=40):
    """labels.jsonl of a setting, a third of it wrong."""
    rng, rows = random.Random(0), []
    for i in range(n):
        label = rng.randint(0, 1)
        weak = 0.5 + (0.4 if label else -0.4) * (1 if i % 3 else -1)
        row = {"id": str(i), "group": str(i), **FIELDS[setting], "label": label}
        rows.append(row | {"weak": weak, "weak_all": [weak, weak]})
    card = CARD | {"setting": setting, "supervisors": ["a"], "models": ["m"]}
    files.write_jsonl("labels.jsonl", rows, card)
    return rows


@pytest.mark.parametrize("setting", FIELDS)
def test_errors_are_as_many_but_others_for_texts_and_pairs(setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = new_labels(setting)
    strong = [row["label"] * 0.8 + 0.1 - i / 1000 for i, row in enumerate(before)]
    monkeypatch.setattr(tasks, "answers", lambda *_: strong)
    monkeypatch.setattr(controls.records, "finished_run", lambda _: {"model_sha256": "b"})
    for kind in ("own", "random", "confident", "unconfident"):
        controls.main("labels.jsonl", kind=kind)
        rows = files.read_jsonl(f"{kind}.jsonl", ["weak", *FIELDS[setting]])
        assert controls.accuracy(rows) == controls.accuracy(before)
        assert {row["weak"] for row in rows} == {0.0, 1.0} and "weak_all" not in rows[0]
    card = files.read_card("random.jsonl")
    assert (card["stage"], card["supervisors"], card["models"]) == ("controls", ["a"], ["m"])
    controls.main("labels.jsonl", kind="coin", out="coin.jsonl")
    assert len(files.read_jsonl("coin.jsonl", ["weak"])) == 40


def test_kinds_that_mean_nothing_for_a_setting_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_labels("pairs")
    for kind in ("longest", "shortest", "features", "suffix"):
        with pytest.raises(BadInput, match=f"--kind={kind} is not for pairs"):
            controls.main("labels.jsonl", kind=kind)
    monkeypatch.setattr(tasks, "setting_of_labels", lambda _: tasks.moves)
    for kind in ("random", "coin"):
        with pytest.raises(BadInput, match=f"--kind={kind} is not for puzzles"):
            controls.main("labels.jsonl", kind=kind)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.75])
def test_the_rate_says_how_many_labels_are_wrong(rate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = new_labels("texts")
    wrong_before = {i for i, row in enumerate(before) if (row["weak"] > 0.5) != row["label"]}
    controls.main("labels.jsonl", rate=rate)
    rows = files.read_jsonl(f"random-{rate:g}.jsonl", ["weak"])
    wrong = {i for i, row in enumerate(rows) if row["weak"] != row["label"]}
    assert len(wrong) == 40 * rate  # 0, 4, 12, 30
    assert not rate or wrong != wrong_before
    assert files.read_card(f"random-{rate:g}.jsonl")["args"]["rate"] == rate


def test_the_errors_of_a_smaller_rate_are_among_those_of_a_larger_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_labels("texts")
    wrong = []
    for rate in (0.2, 0.4):
        controls.main("labels.jsonl", rate=rate)
        rows = files.read_jsonl(f"random-{rate:g}.jsonl", ["weak"])
        wrong.append({i for i, row in enumerate(rows) if row["weak"] != row["label"]})
    assert wrong[0] < wrong[1]


def test_kinds_whose_errors_cannot_be_counted_take_no_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_labels("texts")
    for kind in ("own", "coin", "features", "suffix"):
        with pytest.raises(BadInput, match=f"--rate is not for --kind={kind}"):
            controls.main("labels.jsonl", kind=kind, rate=0.3)
    with pytest.raises(BadInput, match="--rate=1.5 must be from 0 to 1"):
        controls.main("labels.jsonl", rate=1.5)
