"""Grids: every stage once, what is missing and no more, whatever fails or is killed."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import CARD, slow

import sweep
import tasks
from w2s import cli, files, grids, locks, workers
from w2s.files import HERE, BadInput

TINY = ["--n_train=64", "--n_test=40", "--epochs=1"]
ASKED = ["--models=facts/xs,facts/s", "--seeds=2", "--loss=xent", *TINY]


@pytest.fixture(scope="module")
def start(apart):
    """start(folder, words) starts the sweep in a process of its own."""
    return lambda folder, *words: apart([HERE / "sweep.py", *words, f"--out={folder}"])


def finish(process):
    out, err = process.communicate()
    return process.returncode, out, err


def here(folder, *words):
    """The sweep in this process, which only fits where nothing is to run."""
    args, options = cli.parse(sweep.main, [*words, f"--out={folder}"])
    sweep.main(*args, **options)


def cards(folder):
    walked = os.walk(folder)  # folders may vanish meanwhile
    paths = [
        Path(at, name) for at, _, names in walked for name in names if name[-9:] == "card.json"
    ]
    return {path: path.stat().st_mtime_ns for path in paths}


def lines(folder, *but):
    every = files.read_jsonl(folder / "results.jsonl", grids.KEY, {})
    return [{name: value for name, value in line.items() if name not in but} for line in every]


@pytest.fixture(scope="module")
def grid(start, tmp_path_factory):
    """A finished grid of two models, one rule and two seeds."""
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    code, _, err = finish(start(folder, *ASKED))
    assert code == 0, err
    return folder


def test_a_line_has_every_ingredient(grid):
    first, second = lines(grid)
    assert [first["seed"], second["seed"]] == [0, 1] and first["n"] == 40
    rows = {
        who: files.read_jsonl(grid / path, ["prob", "label"])
        for who, path in first["predictions"].items()
    }
    right = {
        who: [(row["prob"] > 0.5) == row["label"] for row in of_one] for who, of_one in rows.items()
    }
    values = {who: sum(of_one) / 40 for who, of_one in right.items()}
    assert first["values"] == values and first["metric"] == "acc"
    labels = files.read_jsonl(grid / first["labels"], ["weak", "label"])
    assert first["label_acc"] == sum((x["weak"] > 0.5) == x["label"] for x in labels) / len(labels)
    card = files.read_card(grid / first["runs"]["ceiling"])
    assert card["args"]["target"] == "truth" and card["args"]["n_val"] is None
    assert first["seconds"]["ceiling"] == card["seconds"]
    assert first["parameters"] == {"weak": 54048, "strong": card["resolved"]["parameters"]}


def test_a_finished_grid_answers_at_once_and_runs_nothing(grid, capsys):
    before, began = cards(grid), time.process_time()
    here(grid, *ASKED)
    assert cards(grid) == before and time.process_time() - began < 3
    told = capsys.readouterr().out
    assert "14 stages, 0 of them to do: 0 failed; 2 lines" in told
    assert "facts: facts/xs -> facts/s, xent" in told


def test_more_models_cost_what_is_new_and_one_that_fails_stops_no_other(start, grid, tmp_path):
    """A ceiling stays with the labels it learned from; a broken student's log is named."""
    folder, broken = tmp_path / "grid", tmp_path / "broken"
    shutil.copytree(grid, folder)
    shutil.copytree(HERE / "facts/s", broken)
    (broken / "tokenizer.json").write_text("no tokenizer")
    before = {path.relative_to(grid): at for path, at in cards(grid).items()}
    shown = ["--weak=facts/m,facts/xs", f"--strong=facts/s,{broken}", "--loss=xent", *TINY]
    code, out, err = finish(start(folder, *shown, "--seeds=1"))
    assert code == 1 and "3 lines" in out
    after = {path.relative_to(folder): at for path, at in cards(folder).items()}
    assert {path: after[path] for path in before} == before
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 3 and all("cannot be loaded" in line for line in failed), err
    log = failed[0].split("(see ")[1].removesuffix(")")
    assert "cannot be loaded" in open(log).read() and "3 stages that need them" in err
    assert [line["weak"] for line in lines(folder)] == ["facts/m", "facts/xs", "facts/xs"]


def test_what_a_rule_gave_before_it_was_edited_is_no_result_and_force_makes_it_anew(
    start, grid, tmp_path
):
    folder = tmp_path / "grid"
    shutil.copytree(grid, folder)
    student = folder / "facts/s1/facts-xs-facts-s-xent"
    files.write_card(student, files.read_card(student) | {"inputs": {"rule": "of before"}})
    code, out, err = finish(start(folder, *ASKED))
    assert code == 1 and "add --force" in err and "2 of them to do: 1 failed; 1 lines" in out
    assert lines(folder) == lines(grid)[:1]
    code, out, err = finish(start(folder, *ASKED, "--force"))
    assert code == 0 and "2 of them to do: 0 failed; 2 lines" in out, err
    assert lines(folder, "seconds") == lines(grid, "seconds")


def test_a_report_has_no_result_of_before_where_other_seeds_are_asked_for_either(grid, tmp_path):
    folder = tmp_path / "grid"
    shutil.copytree(grid, folder)
    ceiling = folder / "facts/s1/ceiling-facts-s"
    files.write_card(ceiling, files.read_card(ceiling) | {"inputs": {"rule": "of before"}})
    here(folder, *(word.replace("seeds=2", "seeds=1") for word in ASKED))
    assert lines(folder) == lines(grid)[:1]


def test_a_folder_has_no_rule_that_one_of_its_tasks_cannot_take(tmp_path):
    plan = {"pairs": [("facts", "facts/xs", "facts/s")], "rules": {"conf": {}}, "seeds": 1}
    grids.settle(tmp_path / "grid", plan, {}, write=True)
    with pytest.raises(BadInput, match="puzzles: moves are hard labels.* or choose another --out"):
        here(tmp_path / "grid", "--ds=puzzles", "--loss=xent", "--seeds=1")


@slow
def test_killed_at_any_moment_it_goes_on_to_the_same_results(start, grid, tmp_path):
    folder = tmp_path / "grid"
    for number, code, enough in ((signal.SIGTERM, 143, 1), (signal.SIGKILL, -9, 5)):
        process = start(folder, *ASKED)
        while len(cards(folder)) < enough and process.poll() is None:
            time.sleep(0.02)
        children = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
        process.send_signal(number)
        assert finish(process)[0] == code and len(children) > 0
        until = time.monotonic() + 20
        while any(locks.born(child) for child in children):
            assert time.monotonic() < until, "a worker outlives its sweep"
    code, out, err = finish(start(folder, *ASKED))
    assert code == 0 and "going on in its place" in out, err
    assert lines(folder, "seconds") == lines(grid, "seconds")


def test_a_setting_whose_answers_nobody_compares_has_lines_too(tmp_path):
    file = tmp_path / "eval" / "manners-test.jsonl"
    file.parent.mkdir()
    rows = [{"id": str(i), "score": i / 2, "max": 1, "completions": ["a"]} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert grids.answers(tasks.setting_of("manners"), file) == [0, 0.5, 1]


def test_the_papers_grid_shares_half_of_its_stages():
    """By hand: 3 supervisors, 3 labels, 3 ceilings, 12 students and 18 evals, not 12 times 7."""
    args = {"ds": "facts", "models": "a,b,c,d", "weak": None, "strong": None}
    rules = sweep.rules_of("xent,conf", {"alpha": 0.75})
    assert rules == sweep.rules_of("xent,conf:alpha=.75", {})
    plan = {"pairs": sweep.pairs_of(**args), "rules": rules, "seeds": 1}
    nodes = grids.build("g", plan, dict.fromkeys(grids.STAGES, {}))
    scripts = [grids.script_of(node) for node in nodes.values()]
    assert {script: scripts.count(script) for script in grids.STAGES} == {
        "train_weak": 3, "label": 3, "train_strong": 15, "eval": 18,
    }  # fmt: skip
    words = nodes["facts/s0/a-c-conf-alpha-0.75"]["words"]
    assert words[:2] == ["train_strong.py", "g/facts/s0/labels-a.jsonl"]
    assert {"--model=c", "--loss=conf", "--alpha=0.75", "--seed=0"} < set(words)
    for name, node in nodes.items():  # a stage comes after what it needs
        assert all(list(nodes).index(need) < list(nodes).index(name) for need in node["needs"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ds=facts,bolq"], "unknown task 'bolq' .did you mean boolq"),
        (["--ds=etics_*"], "etics_. matches no task"),
        (["--ds=facts,facts"], "names facts twice"),
        (["--ds=facts,"], "empty name"),
        (["--models=facts/xs"], "one model"),
        (["--weak=facts/xs"], "--weak=a,b and --strong=c,d together"),
        (["--models=facts/xs,facts/x"], "no/such|facts/x|out of reach"),
        (["--loss=xent,cnof"], "unknown loss --loss=cnof .did you mean conf"),
        (["--loss=xent:alpha=0.5"], "--alpha is no option of the rule xent"),
        (["--loss=xent,product", "--alpha=0.5"], "--alpha is no option of any of --loss"),
        (["--loss=conf:epochs=3"], "a rule has the options alpha"),
        (["--loss=conf:alpha=.5,conf:alpha=0.50"], "conf:alpha=0.5 twice"),
        (["--seeds=0"], "--seeds=0 must be positive"),
        (["--jobs=0"], "--jobs=0 must be positive"),
        (["--n_trian=5"], "no option --n_trian .did you mean --n_train"),
        (["--keep=0.5"], "there is no option --keep"),
        (["--split=hard"], "--split=hard: facts has no such test split"),
        (["--ds=puzzles", "--loss=conf"], "moves are hard labels"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(tmp_path, words, told, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match=told):
        here(tmp_path / "grid", *words)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_of_one_grid_and_one_sweep(grid, tmp_path):
    other = [word.replace("64", "65") for word in ASKED]
    with pytest.raises(BadInput, match="another grid .n_train was 64, now 65."):
        here(grid, *other)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds something else"):
        here(tmp_path, *ASKED)
    with locks.held(grid), pytest.raises(BadInput, match=f"in use by process {os.getpid()} on "):
        here(grid, *ASKED)
    here(grid, *ASKED)


@pytest.mark.parametrize("option, run", [("test", False), ("judge", False), ("judge", True)])
def test_a_folder_is_of_one_file_of_each_kind(option, run, tmp_path):
    given, options = tmp_path / "given", {option: f"{tmp_path}/given"}
    grid = {"pairs": [("facts", "a", "b")], "rules": {"xent": {}}, "seeds": 1}

    def write(what):
        if run:  # a judge that is a model
            return files.write_card(given, CARD | {"model_sha256": what})
        given.write_text(what)

    write("these")
    grids.settle(tmp_path / "grid", grid, options, write=True)
    grids.settle(tmp_path / "grid", grid, options, write=True)
    write("others")
    with pytest.raises(BadInput, match="is another grid .*given was "):
        grids.settle(tmp_path / "grid", grid, options, write=False)


def test_a_judge_makes_no_stage_undone_for_ever(tmp_path):
    """Its sha256 is an input of the predictions, no argument; settle() compares it by folder."""
    node = {"out": f"{tmp_path}/a-test.jsonl", "words": ["eval.py", "--x"]}
    files.write_jsonl(node["out"], [], CARD | {"args": {"split": "test"}})
    assert grids.is_done(node | {"options": {"split": "test", "judge": "words.txt", "bad": 0}})
    assert not grids.is_done(node | {"options": {"split": "test_hard", "judge": "words.txt"}})


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """stage(how, *needs): a stage of a grid that evaluates `how`."""
    (tmp_path / "at_will.py").write_text(
        "import os, time\ndef main(how: str):\n    eval(how)\n    print('well')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(grids, "work", lambda node: 1)
    out = {"out": f"{tmp_path}/x", "model": ""}
    return lambda how, *needs: {"words": ["at_will.py", how], "needs": needs} | out


def test_the_clock_of_a_grid_goes_on_while_a_stage_is_long(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "paced", lambda: {"mininterval": 1})
    assert not workers.run(tmp_path, {"long": stage("time.sleep(3)")}, jobs=1, device="cpu")
    assert "0 of 1 stages, 1 running [00:02" in capsys.readouterr().err


def test_a_worker_that_dies_or_a_full_disk_fails_its_stage_alone(stage, tmp_path):
    todo = {"killed": stage("os.kill(os.getpid(), 9)"), "after": stage("1", "killed")}
    todo |= {"wrong": stage("1 / 0"), "full": stage("1"), "well": stage("1 + 1")}
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/full.log").symlink_to("/dev/full")
    failed = workers.run(tmp_path, todo, jobs=1, device="cpu")
    assert failed.keys() == {"killed", "wrong", "full"}
    assert "was memory short?" in failed["killed"] and failed["wrong"].startswith("ZeroDivision")
    assert "No space left on device" in failed["full"]
    assert (tmp_path / "logs/well.log").read_text() == "$ python at_will.py '1 + 1'\nwell\n"


def test_a_gpu_is_not_asked_where_it_would_only_wait(monkeypatch):
    """An H200 took 47 s for the demo, two cores take half a minute: its kernels are too small."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    grid = {"pairs": [("facts", "facts/xs", "facts/m")], "rules": sweep.rules_of("xent", {})}
    grid["seeds"] = 1
    tiny = sweep.stages_of("runs/x", grid, {})
    larger = sweep.stages_of("runs/x", grid | {"pairs": [("facts", "facts/xs", "chess/m")]}, {})
    assert workers.machine(tiny, 2, None)[:2] == ([""] * 2, "fork")
    assert workers.machine(larger, None, None) == (["0"], "spawn", None)
    assert workers.machine(tiny, None, "cuda") == (["0"], "spawn", None)


def test_a_worker_without_a_gpu_sees_none(stage, tmp_path):
    told = stage("print([os.environ['CUDA_VISIBLE_DEVICES']])")  # a KeyError, were it not set
    assert not workers.run(tmp_path, {"tiny": told}, jobs=1)
    assert "['']\n" in (tmp_path / "logs/tiny.log").read_text()
