"""JSONL, joins, cards: nothing is half-written, nothing of others lost. More in test_hostile.py."""

import json

import pytest
from conftest import CARD

import pgr
import texts
from w2s import cli, files, locks, records
from w2s.files import BadInput

GOOD = {"id": "a", "group": "a", "text": "words", "label": 1, "weak": 0.5}


def write(path, *lines):
    path.write_bytes(
        b"".join(
            line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
        )
    )
    return path


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            [GOOD, b'{"id": "b", "text": "wor'],
            ":2 is not JSON (the last line: was the file cut short?)",
        ),
        ([b"label: 1\n", GOOD], ":1 is not JSON: 'label: 1'"),
        ([GOOD, b"\n"], ":2 is blank: leave the line out"),
        ([GOOD, {"id": "b", "label": 1, "weak": 0.5}], ":2 has no field 'text'"),
        ([GOOD | {"label": 2}], "field 'label' is 2; it must be 0 or 1"),
        ([GOOD | {"label": "1"}], "field 'label' is \"1\""),
        ([GOOD | {"label": 1.0}], "field 'label' is 1.0"),
        ([GOOD | {"weak": 1.01}], "field 'weak' is 1.01; it must be a number from 0 to 1"),
        ([GOOD | {"weak": None}], "field 'weak' is null"),
    ],
)
def test_a_bad_line_is_told_with_file_and_line(tmp_path, lines, told):
    file = write(tmp_path / "labels.jsonl", *lines)
    with pytest.raises(BadInput) as error:
        files.read_jsonl(file, ["id", "text", "label", "weak"])
    assert (
        told in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)
    )


def test_a_missing_file_or_a_folder_is_told(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        files.read_jsonl(tmp_path / "no.jsonl", ["id"])
    with pytest.raises(BadInput, match="cannot be read"):
        files.read_jsonl(tmp_path, ["id"])


def test_lines_are_newlines_not_unicode_line_separators(tmp_path):
    odd = "one\u2028two\u0085three\x0bfour\rfive"
    file = write(
        tmp_path / "rows.jsonl",
        json.dumps(GOOD | {"text": odd}, ensure_ascii=False).encode() + b"\n",
        b"bad\n",
    )
    with pytest.raises(BadInput, match=":2 is not JSON"):
        files.read_jsonl(file, ["id"])
    files.write_jsonl(file, [GOOD | {"text": odd}], CARD)
    assert files.read_jsonl(file, ["id"])[0]["text"] == odd


def test_integer_ids_become_strings(tmp_path):
    file = write(
        tmp_path / "rows.jsonl", GOOD | {"id": 17, "group": 3}, GOOD | {"id": 18, "group": 3}
    )
    assert [(row["id"], row["group"]) for row in files.read_jsonl(file, ["id"])] == [
        ("17", "3"),
        ("18", "3"),
    ]


def test_a_file_of_ours_cut_between_two_lines_differs_from_its_card(tmp_path):
    file = tmp_path / "labels.jsonl"
    files.write_jsonl(file, [GOOD, GOOD | {"id": "b"}], CARD)
    assert len(files.read_jsonl(file, ["id"])) == 2
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(BadInput, match=r"\(1 rows\) differs from .*labels.card.json \(2 rows\)"):
        files.read_jsonl(file, ["id"])


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    files.write_text(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BadInput, match="cannot be written: No space left on device"):
        files.write_text(file, "new")
    assert file.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_join_is_by_id_and_refuses_a_mismatch():
    left = ["a", "b"]
    assert pgr.join(left, ["b", "a"], "L", "R") == [1, 0]
    for other in (["a"], ["a", "c"], ["a", "b", "c"]):
        with pytest.raises(
            BadInput, match=r"L \(2 rows\) and R .* hold different ids, e.g. '[bc]'"
        ):
            pgr.join(left, other, "L", "R")


def finished(path, **changes):
    card = records.new_card("train_weak", texts, {"seed": 0}, {"in": "x"}, None)
    files.write_card(path, card | changes)
    (path / "model").mkdir(exist_ok=True)


@pytest.fixture(autouse=True)
def stage():
    with locks.call():
        yield


def test_a_finished_run_is_kept_refused_or_replaced(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert records.is_done(run, {"seed": 0}, {"in": "x"}, False) is False
    finished(run)
    assert records.is_done(run, {"seed": 0}, {"in": "x"}, False) is True
    assert "already done" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"other arguments or inputs \(seed was 0, now 1\)"):
        records.is_done(run, {"seed": 1}, {"in": "x"}, False)
    with pytest.raises(
        BadInput, match=r"other arguments or inputs \(in is not the same, or has changed\)"
    ):
        records.is_done(run, {"seed": 0}, {"in": "y"}, False)
    assert records.is_done(run, {"seed": 1}, {"in": "y"}, True) is False
    finished(run, commit="elsewhere")
    assert records.is_done(run, {"seed": 0}, {"in": "x"}, False) is True
    assert "by commit elsewhere; the code is now at" in capsys.readouterr().out
    for now, told in (("abc", ""), ("abc+", " (by commit abc+; the code is now at abc+ (+: wi")):
        finished(run, commit=now)
        monkeypatch.setattr(cli, "commit", lambda now=now: now)
        assert records.is_done(run, {"seed": 0}, {"in": "x"}, False) is True
        assert f"same arguments and inputs{told}" in capsys.readouterr().out


def test_an_unfinished_run_starts_again_and_is_never_an_input(tmp_path, capsys):
    run = tmp_path / "run"
    finished(run, finished=False)
    assert records.is_done(run, {"seed": 0}, {"in": "x"}, False) is False
    assert "begun and not finished: starting again\n" in capsys.readouterr().out
    assert records.is_done(run, {"seed": 1}, {"in": "x"}, False) is False
    assert "with other arguments: seed was 0, now 1" in capsys.readouterr().out
    with pytest.raises(BadInput, match="is not finished"):
        records.finished_run(run)


def test_what_is_no_run_is_neither_overwritten_nor_read(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(BadInput, match="is no run"):
            records.is_done(tmp_path / "thesis", {}, {}, force)
    with pytest.raises(BadInput, match="is not a run directory"):
        records.finished_run(tmp_path / "thesis")
    with pytest.raises(BadInput, match="does not exist"):
        records.finished_run(tmp_path / "nowhere")
    (tmp_path / "mine.jsonl").write_text("{}")
    with pytest.raises(BadInput, match="exists without a card"):
        records.is_done(tmp_path / "mine.jsonl", {}, {}, False, suffix=".jsonl")
    with pytest.raises(BadInput, match="a run is a folder"):
        records.is_done(tmp_path / "mine.jsonl", {}, {}, True)


def grouped(n, per_group):
    return [{"id": str(i), "group": str(-(i // per_group))} for i in range(n)]


def test_where_nothing_is_held_out_the_rows_keep_their_order():
    rows = grouped(40, 4)
    assert files.hold_out(rows, 0, 32) == (rows, [])
    assert files.hold_out(rows, 4, 32)[0] != rows[:36]  # else groups are drawn


def test_rows_of_one_group_are_never_cut_and_that_is_told():
    with pytest.raises(BadInput, match="all 300 rows share one group, text or prompt"):
        files.hold_out(grouped(300, 300), None, 32)


def test_only_a_training_is_told_that_few_rows_are_left(capsys):
    files.hold_out(grouped(200, 1), None)
    assert not capsys.readouterr().err
    files.hold_out(grouped(200, 1), None, 32)
    assert "100 rows to train on (100 of 200 are held out" in capsys.readouterr().err
