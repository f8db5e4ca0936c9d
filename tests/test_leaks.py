"""A model is not asked about rows that it learned, nor taught by who knew them; or all say so."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import make_grid

import controls
import eval
import generative
import label
import pgr
import tasks
import train_strong
import train_weak
from w2s import files, grids, leaks, protocol, records, report
from w2s.files import BadInput

HOW = {"model": "facts/xs", "epochs": 1, "n_val": 8, "batch_size": 8}
TEST, LABELLED = "100 test rows learned", "truth of 40 labelled rows learned"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Supervisor, labels, student and ceiling of 40 rows of facts, and labels of the ceiling."""
    home = tmp_path_factory.mktemp("leaks")
    train_weak.main(out=f"{home}/weak", n_train=40, n_test=20, **HOW)
    label.main(f"{home}/weak")
    train_strong.main(f"{home}/labels.jsonl", **HOW)
    train_strong.main(f"{home}/labels.jsonl", target="truth", **HOW)
    label.main(f"{home}/ceiling", out=f"{home}/leaky.jsonl", allow_leak=True)
    return home


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    monkeypatch.setattr(pgr, "draw", lambda *_: None)  # slow
    return tmp_path / "runs"


def read(path):
    return [json.loads(line) for line in open(path)]


def learned(path):
    return leaks.read(path, files.read_card(path))


def write(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refused(what, call, *words, **options):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match=what) as error:
        call(*words, **options)
    assert "\n" not in str(error.value)
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


# ---- what is learned


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_hashes_are_those_that_earlier_files_have(texts):
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    found = leaks.marks(tasks.texts, [{"group": "g", "text": text} for text in texts], None)
    for names, own in zip((["\n\ng"] * len(texts), map(protocol.same_text, texts)), found):
        wanted = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
        assert own.tolist() == [int.from_bytes(one, "little") & ~1 for one in wanted]


def test_texts_count_without_case_and_punctuation_and_groups_by_name(here):
    row = {"id": "a", "group": "g", "text": "Is it so, or \u201cnot\u201d?"}
    rows = [row, row | {"group": "h", "text": "is it SO or not"}, row | {"text": "other"}]
    (g, h, same), (one, two, other) = leaks.marks(tasks.texts, rows, None).tolist()
    assert g == same != h and one == two != other and not (g | h | one | other) % 2


def test_moves_are_written_in_one_way_when_a_stage_sees_them():
    row = {"id": "a", "group": "g", "target": "Nc6"}
    rows = [row | {"prompt": text} for text in ("1. e4 e5 2. Nf3", "e4 e5 Nf3", "e4 e5 Nc3")]
    one, same, other = leaks.marks(tasks.moves, tasks.moves.finish(rows), None)[1]
    assert one == same != other


def test_hashes_are_found_in_arrays_of_any_length():
    own, empty = np.array([[2, 8], [4, 6]], dtype="<u8"), np.array([], dtype="<u8")
    assert leaks.are_in(own, np.array([3, 4], dtype="<u8")).tolist() == [[True, False]] + [
        [True, False]
    ]
    assert not leaks.are_in(own, empty).any()


def test_a_group_that_is_a_number_is_one_of_its_data_set():
    row = {"id": "a", "group": "7", "text": "one"}
    marks = [leaks.marks(tasks.texts, [row], ds and {"ds": ds})[0, 0] for ds in ("a", "b", "a")]
    assert marks[0] == marks[2] != marks[1]


def test_a_run_has_the_rows_it_was_trained_on_and_held_out(here):
    data = files.read_card("weak")["data"]
    for run, half, truth in (
        ("weak", "weak", 1),
        ("student", "strong", 0),
        ("ceiling", "strong", 1),
    ):
        rows, found = protocol.half(tasks.texts, data, half), learned(run)
        wanted = np.unique(leaks.marks(tasks.texts, rows, data)) | np.uint64(truth)
        assert np.array_equal(found, wanted) and len(rows) == 40
    assert np.array_equal(learned("labels.jsonl"), learned("weak"))
    raw = Path("weak/learned.npy").read_bytes()
    assert raw.startswith(b"\x93NUMPY") and len(raw) < 200 + 16 * 40
    assert files.read_card("weak")["learned"] == files.sha256("weak/learned.npy")


def test_what_a_model_learned_goes_on_with_it_over_two_generations(here):
    first, second = {"model": "weak/model", "n_val": 8, "batch_size": 8}, {"model": "two/model"}
    train_strong.main("labels.jsonl", out="two", epochs=1, **first)
    train_weak.main(ds="facts", out="three", n_train=16, n_val=4, data_seed=5, epochs=1,
                    batch_size=8, **second)  # fmt: skip
    assert {*learned("weak"), *learned("student")} == {*learned("two")} < {*learned("three")}
    assert leaks.started_from("./two/../two/model")[1]["stage"] == "train_strong"
    assert leaks.started_from("facts/xs") == ("", {})


def test_what_was_only_read_is_no_truth(here):
    source = {"data": None}
    rows = [{"id": "a", "group": "g", "prompt": "p", "a": "a", "b": "b", "label": 1}]
    card = {"stage": "generative", "args": {"model": "facts/xs"}, "data": None}
    told = leaks.learn("base", tasks.pairs, card, rows, source)
    assert told.keys() == {"learned"} and not any(learned_bits := np.load("base/learned.npy") & 1)
    assert len(learned_bits) == 2 and generative.leaks is leaks


# ---- refusals


def test_who_learned_the_truth_labels_no_such_row(here):
    card = files.read_card("ceiling")
    files.write_card("ceiling", card | {"args": card["args"] | {"target": "weak"}})  # by its rows
    told = "ceiling learned the truth of 40 of these 40 rows.*e.g. 'facts/train/.*--allow_leak"
    refused(told, label.main, "ceiling", out="new.jsonl")
    assert files.read_card("leaky.jsonl")["leaks"] == [LABELLED]
    assert files.read_card("leaky.jsonl")["allow_leak"] is True
    label.main("student", out="second.jsonl")  # its weak labels, not their truth: relabelling
    assert "leaks" not in files.read_card("second.jsonl")


def test_no_student_learns_from_who_knew_the_truth_and_the_mark_goes_on(here, capsys):
    how = HOW | {"out": "taught"}
    refused(
        "what labelled leaky.jsonl learned the truth of 40", train_strong.main, "leaky.jsonl", **how
    )
    refused("--model=ceiling/model learned the truth of 40", train_strong.main, "labels.jsonl",
            **how | {"model": "ceiling/model"})  # fmt: skip
    train_strong.main("leaky.jsonl", allow_leak=True, **how)
    assert files.read_card("taught")["leaks"] == [LABELLED]
    controls.main("leaky.jsonl", kind="coin")
    told = "what labelled coin.jsonl learned"
    refused(told, train_strong.main, "coin.jsonl", **how | {"out": "coin"})
    train_strong.main("taught/../leaky.jsonl", target="truth", **HOW | {"out": "ceiling2"})
    eval.main("weak", "taught", "ceiling")
    assert f"(leak: {LABELLED})" in capsys.readouterr().out
    assert "leaks" not in files.read_card("weak/eval/facts-test.jsonl")
    label.main("taught", out="third.jsonl")
    assert files.read_card("third.jsonl")["leaks"] == [LABELLED]
    pgr.main("weak", "taught", "ceiling", out="pgr.json")
    told, result = capsys.readouterr().out, json.loads(Path("pgr.json").read_text())
    assert result["leaks"] == result["student"]["leaks"] == [LABELLED]
    assert "leaks" not in result["weak"]
    marked = [line.split()[0] for line in told.splitlines() if line.endswith(f"{LABELLED})")]
    assert marked == ["student", "PGR"]


def test_no_run_is_tested_on_what_it_learned_in_any_way(here, capsys):
    rows = [{n: row[n] for n in ("text", "label")} for row in read("labels.jsonl")]
    rows[0]["text"] = rows[0]["text"].upper() + "!"
    seen = write("seen.jsonl", rows)
    for run in ("student", "ceiling"):
        refused(rf"{run} learned \d+ of these \d+ rows", eval.main, "weak", run, ds=seen)
    refused("base learned", eval.main, model="ceiling/model", ds=seen, out="base")
    eval.main("student", ds=seen, allow_leak=True)
    metrics = json.loads(Path("student/eval/seen-test.metrics.json").read_text())
    n = metrics["n"]
    assert metrics["leaks"] == [f"{n} test rows learned"] and metrics["allow_leak"]
    assert f"(leak: {n} test rows learned)" in capsys.readouterr().out
    group = read("labels.jsonl")[0]["group"]
    same = write("group.jsonl", [{"group": group, "text": f"new {y}", "label": y} for y in (0, 1)])
    refused("student learned 2 of these 2 rows", eval.main, "student", ds=same)


def test_a_text_that_was_learned_without_the_prompt_of_its_task_is_seen():
    """As rows of somebody else's copy of a data set are. Lines of their own are no prompt."""
    rows = [
        {"id": str(i), "group": f"g{i}", "text": f"film {i} was fine .\nIs this positive?"}
        for i in range(4)
    ]
    raw = [{"group": f"r{i}", "text": rows[i]["text"].split("\n")[0]} for i in (1, 2)]
    known = {"it": np.sort(leaks.marks(tasks.texts, raw, None).ravel())}
    with pytest.raises(BadInput, match="it learned 2 of these 4 rows, .*, e.g. '1'"):
        leaks.guard(tasks.texts, rows, None, known, False, "test")
    rows[0]["text"] = "film 0 was fine .\nAnd so was film 1 ."
    assert leaks.guard(tasks.texts, rows, None, known, False, "test") == {}


def test_what_is_not_known_is_told_and_what_is_false_refused(here, capsys):
    card = files.read_card("weak")
    files.write_card("weak", {n: value for n, value in card.items() if n != "learned"})
    label.main("weak", out="old.jsonl")
    assert "weak: what it learned is not known" in capsys.readouterr().out
    train_strong.main("old.jsonl", out="of_old", **HOW)
    assert "old.jsonl: what it started from, weak, learned" in capsys.readouterr().out
    Path("student/learned.npy").write_bytes(b"\x80\x04N.")
    refused("student/learned.npy is not what the card", eval.main, "student")
    Path("labels.card.json").unlink()
    train_strong.main("labels.jsonl", out="theirs", **HOW)  # nobody knows who labelled them


def test_other_rows_are_refused_by_their_hash_in_any_run_and_seed(here):
    runs = ("weak", "student", "ceiling")
    eval.main(*runs)
    for run in runs:
        file = f"{run}/eval/facts-test.jsonl"
        card = files.read_card(file)
        files.write_card(file, card | {"rows_sha256": "others"})
        refused("answered other texts under the same ids", pgr.main, *runs)
        files.write_card(file, {n: value for n, value in card.items() if n != "rows_sha256"})
        pgr.main(*runs, out="pgr.json")
        notes = json.loads(Path("pgr.json").read_text())["notes"]
        assert [note for note in notes if f"{run}'s predictions lacks rows_sha256" in note]
        files.write_card(file, card)


# ---- reports


def test_a_grid_says_of_every_line_and_mean_whether_it_leaks(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda *_: [])  # slow
    folder = make_grid(tmp_path / "grid", ds=("facts", "sst2"), seeds=1)
    file = folder / grids.places("facts", "a/xs", "a/m", "conf", 0)["student"] / "eval"
    card = files.read_card(file / "facts-test.jsonl")
    files.write_card(file / "facts-test.jsonl", card | {"leaks": [TEST]})
    (folder / "results.jsonl").unlink()
    grid = {"pairs": [(ds, "a/xs", "a/m") for ds in ("facts", "sst2")], "seeds": 1}
    grid["rules"] = {"xent": {}, "conf": {}}
    lines = grids.results(folder, grid, tasks.setting_of, "test")
    assert [line["rule"] for line in lines if line["leaks"]] == ["conf"]
    report.make(folder, tasks.setting_of_card)
    said = (folder / "report.md").read_text().splitlines()
    marked = [line for line in said if TEST in line]
    assert len(marked) == 3  # the cell, its mean over tasks, and the rules against each other
    assert all("conf" in line for line in marked)
    assert [cell["rule"] for cell in json.loads((folder / "pgr.json").read_text())["sections"]
            ["texts"]["cells"] if cell.get("leaks")] == ["conf"]  # fmt: skip


def test_examples_of_a_prompt_are_no_test_rows_in_another_spelling():
    import prompting

    asked = [{"id": "a", "group": "g", "text": "So it is."}]
    rows = [{"id": str(i), "text": text, "weak": 0.5} for i, text in enumerate(("so IT is", "no"))]
    rows += [{"id": "3", "group": "g", "text": "others", "weak": 0.5}]
    labels = Path("/nonexistent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read_jsonl", lambda *_: rows)
        assert [row["text"] for row in prompting.known(asked, labels, "weak", None)] == ["no"]


def test_no_option_of_leaks_is_among_the_arguments_of_a_card(here):
    for path in ("weak", "leaky.jsonl", "student"):
        assert "allow_leak" not in files.read_card(path)["args"]
    label.main("ceiling", out="leaky.jsonl", allow_leak=True)  # already done
    assert records.finished_run("ceiling")
