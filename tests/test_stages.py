"""The five stages end to end at toy size, in process; a few commands through the shell. Peers' bugs B, E, F, G, H and J."""

import json
import random
import shutil
import subprocess
import sys

import pytest

import eval
import label
import pgr
import tasks
import train_strong
import train_weak
from w2s import files, loop, protocol, stats
from w2s.files import HERE, BadInput

SMALL = {"n_train": 200, "n_test": 200}


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """A folder where the five stages have run on 200 rows of facts with two seeds: runs/s0/weak, ..."""
    home = tmp_path_factory.mktemp("experiment")
    for seed in (0, 1):
        runs = home / f"runs/s{seed}"
        train_weak.main(out=f"{runs}/weak", seed=seed, **SMALL)
        label.main(f"{runs}/weak", out=f"{runs}/labels.jsonl")
        for name, options in (("student", {"loss": "conf"}), ("ceiling", {"target": "truth"})):
            train_strong.main(f"{runs}/labels.jsonl", out=f"{runs}/{name}", seed=seed, **options)
    eval.main(*(str(run) for run in sorted(home.glob("runs/s*/*")) if run.is_dir()))
    return home


@pytest.fixture
def here(experiment, tmp_path, monkeypatch):
    """A copy of the experiment to spoil, as the current folder."""
    shutil.copytree(experiment / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    return [json.loads(line) for line in open(path)]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_files_are_those_of_the_contract(here):
    labels = read("runs/s0/labels.jsonl")
    assert list(labels[0]) == ["id", "group", "text", "label", "weak"] and len(labels) == 200
    assert len({row["weak"] for row in labels}) > 20  # soft, not hardened
    predictions = read("runs/s0/student/eval/facts-test.jsonl")
    assert list(predictions[0]) == ["id", "label", "prob"] and len(predictions) == 200
    history = read("runs/s0/student/history.jsonl")
    assert (
        list(history[0]) == ["step", "epoch", "loss", "agreement", "true_acc"]
        and len(history) == 2 * 4
    )  # 4 steps an epoch
    card = json.loads((here / "runs/s0/student/card.json").read_text())
    assert card["finished"] and card["args"]["loss"] == "conf" and card["seconds"] > 0
    assert {
        "stage",
        "args",
        "resolved",
        "inputs",
        "commit",
        "versions",
        "model_sha256",
    } <= card.keys()
    for jsonl in ("runs/s0/labels", "runs/s0/student/eval/facts-test"):
        assert json.loads((here / f"{jsonl}.card.json").read_text())["sha256"] == files.sha256(
            f"{jsonl}.jsonl"
        )
    assert not list(here.rglob("*.tmp"))


def test_pgr_prints_a_table_and_writes_json_and_a_picture(here, capsys):
    pgr.main(
        "runs/s*/weak", "runs/s*/student", "runs/s*/ceiling", out="out/pgr.json", plot="out/pgr.png"
    )
    shown = capsys.readouterr().out
    result = json.loads((here / "out/pgr.json").read_text())
    assert (result["n"], result["groups"], result["seeds"]) == (200, 50, 2)
    assert {"value", "low", "high", "reason"} == result["pgr"].keys() and {
        "acc",
        "low",
        "high",
    } == result["weak"].keys()
    for told in ("supervisor", "PGR", "where it is wrong", "out/pgr.json", "out/pgr.png", "95 %"):
        assert told in shown
    assert (here / "out/pgr.png").read_bytes().startswith(b"\x89PNG")
    by_hand = [
        sum(
            (row["prob"] > 0.5) == row["label"]
            for row in read(f"runs/s{seed}/weak/eval/facts-test.jsonl")
        )
        / 200
        for seed in (0, 1)
    ]
    assert result["weak"]["acc"] == pytest.approx(sum(by_hand) / 2)


def test_student_and_ceiling_train_on_the_same_rows_and_the_supervisor_on_others(here):
    """openai/weak-to-strong's bug E: the ceiling trains on the weak model's half, the student on the other."""
    data = protocol.describe(tasks.texts, "facts", **SMALL)
    labels = read("runs/s0/labels.jsonl")
    assert [row["id"] for row in labels] == [
        row["id"] for row in protocol.half(tasks.texts, data, "strong")
    ]
    weak_groups = {row["group"] for row in protocol.half(tasks.texts, data, "weak")}
    assert not weak_groups & {row["group"] for row in labels}
    cards = [files.read_card(f"runs/s0/{run}") for run in ("student", "ceiling")]
    assert cards[0]["inputs"] == cards[1]["inputs"] and cards[0]["resolved"] == cards[1]["resolved"]
    assert cards[0]["data"] == cards[1]["data"] == files.read_card("runs/s0/weak")["data"] == data


def test_the_student_sees_weak_labels_and_the_rule_the_ceiling_truth_and_cross_entropy(
    here, monkeypatch
):
    seen = []

    def spy(model, rows, loss, **options):
        given = "weak" if all(row["given"] == row.get("weak") for row in rows) else "label"
        seen.append((given, getattr(loss, "func", loss).__name__, getattr(loss, "keywords", {})))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", spy)
    labels = "runs/s0/labels.jsonl"
    for options in (
        {"loss": "conf", "alpha": 0.75, "conf_prior": "weak"},
        {},
        {"loss": "conf", "target": "truth"},
    ):
        with pytest.raises(KeyboardInterrupt):
            train_strong.main(labels, out=f"runs/new{len(seen)}", **options)
    with pytest.raises(KeyboardInterrupt):
        train_weak.main(out="runs/new_weak", **SMALL)
    assert seen == [
        ("weak", "conf", {"alpha": 0.75, "prior": "weak"}),
        ("weak", "xent", {}),
        ("label", "xent", {}),
        ("label", "xent", {}),
    ]


def test_everybody_is_scored_on_the_same_rows(here):
    """openai/weak-to-strong's bug G: long examples are dropped per tokenizer."""
    train_weak.main(out="runs/short", max_len=5, **SMALL)
    eval.main("runs/short")
    wanted = [
        row["id"]
        for row in protocol.test_rows(
            tasks.texts, protocol.describe(tasks.texts, "facts", n_test=200)
        )
    ]
    for run in ("short", "s0/weak", "s0/student", "s1/ceiling"):
        assert [row["id"] for row in read(f"runs/{run}/eval/facts-test.jsonl")] == wanted


def test_running_everything_again_changes_nothing(here, capsys):
    """openai/weak-to-strong's bug B: a re-run evaluates an untrained head and overwrites results and weak labels."""
    before = contents(here)
    train_weak.main(out="runs/s0/weak", **SMALL)
    label.main("runs/s0/weak", out="runs/s0/labels.jsonl")
    with pytest.raises(BadInput, match="runs/s0/weak was made with other arguments or inputs"):
        train_weak.main(out="runs/s0/weak", lr=1e-3, **SMALL)
    eval.main("runs/s0/weak", "runs/s0/student")
    assert contents(here) == before
    assert capsys.readouterr().out.count("already done") == 4


def test_forced_again_gives_the_same_bits(here):
    model, predictions = (
        "runs/s0/student/model/model.safetensors",
        "runs/s0/student/eval/facts-test.jsonl",
    )
    before = files.sha256(model), files.sha256(predictions)
    labels = files.read_card("runs/s0/student")["args"]["labels"]
    train_strong.main(labels, out="runs/s0/student", loss="conf", seed=0, force=True)
    assert not (here / predictions).exists()  # predictions of the model before are gone with it
    eval.main("runs/s0/student")
    assert (files.sha256(model), files.sha256(predictions)) == before


def test_runs_of_another_setting_never_share_a_folder(here):
    """openai/weak-to-strong's bug J: folder names of initials, in which `loss` and `lr` clash."""
    labels = files.read_card("runs/s0/student")["args"]["labels"]
    for options, told in (
        ({"loss": "xent"}, "loss was conf, now xent"),
        ({"loss": "conf", "lr": 1e-3}, "lr was None, now 0.001"),
    ):
        with pytest.raises(BadInput, match=told):
            train_strong.main(labels, out="runs/s0/student", seed=0, **options)
    # of another input: the same labels file with other labels in it
    shutil.copy("runs/s1/labels.jsonl", labels := "runs/mine.jsonl")
    train_strong.main(labels, model="facts/m", out="runs/mine", n_val=0, epochs=1)
    shutil.copy("runs/s0/labels.jsonl", labels)
    with pytest.raises(BadInput, match="labels is not the same, or has changed"):
        train_strong.main(labels, model="facts/m", out="runs/mine", n_val=0, epochs=1)


def test_training_never_reads_the_test_rows_it_is_scored_on(here, monkeypatch):
    """openai/weak-to-strong's bug H: evaluates on test while training."""

    def never(*_):
        raise AssertionError("training looked at the test set")

    monkeypatch.setattr(protocol, "test_rows", never)
    train_weak.main(out="runs/weak", **SMALL)
    label.main(out="runs/labels.jsonl")
    train_strong.main("runs/labels.jsonl")
    ids = {row["id"] for row in protocol.load(tasks.texts, "facts", "test")}
    assert not ids & {
        row["id"]
        for row in protocol.half(tasks.texts, protocol.describe(tasks.texts, "facts"), "weak")
    }


def test_an_interrupted_run_is_told_trained_again_and_never_scored(here, monkeypatch, capsys):
    whole = files.sha256("runs/s0/weak/model")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_weak.main(out="runs/s0/weak", force=True, **SMALL)
    for stage in (label.main, eval.main):
        with pytest.raises(
            BadInput, match="runs/s0/weak is not finished: call train_weak.py again with the same"
        ):
            stage("runs/s0/weak")
    with pytest.raises(BadInput, match="is not finished"):
        pgr.main("runs/s0/weak", "runs/s0/student", "runs/s0/ceiling")
    train_weak.main(out="runs/s0/weak", **SMALL)
    assert "begun and not finished: starting again" in capsys.readouterr().out
    assert files.sha256("runs/s0/weak/model") == whole


def test_predictions_of_an_earlier_model_are_not_compared(here):
    card = files.read_card("runs/s0/weak")
    files.write_card("runs/s0/weak", card | {"model_sha256": "another"})
    with pytest.raises(BadInput, match="is of an earlier model"):
        pgr.main("runs/s0/weak", "runs/s0/student", "runs/s0/ceiling")


def test_pgr_writes_json_and_png_and_nothing_else(here):
    for options, told in (
        ({"out": "pgr.csv"}, "--out=pgr.csv must end in .json"),
        ({"plot": "a.pdf"}, "must end in .png"),
    ):
        with pytest.raises(BadInput, match=told):
            pgr.main("runs/s0/weak", "runs/s0/student", "runs/s0/ceiling", **options)


def test_predictions_on_other_rows_are_refused(here):
    with pytest.raises(BadInput, match="holds this model's answers to other rows"):
        eval.main("runs/s0/weak", n_test=100)
    eval.main("runs/s0/weak", n_test=100, force=True)
    with pytest.raises(BadInput, match="hold different ids"):
        pgr.main("runs/s0/weak", "runs/s0/student", "runs/s0/ceiling")
    with pytest.raises(BadInput, match="has no predictions .*sst2-test.jsonl: run python eval.py"):
        pgr.main("runs/s0/weak", "runs/s0/student", "runs/s0/ceiling", ds="sst2")


def test_an_ensemble_votes_softly_or_hard(here):
    for vote in ("soft", "hard"):
        label.main("runs/s*/weak", out=f"runs/{vote}.jsonl", vote=vote)
    soft, hard = read("runs/soft.jsonl"), read("runs/hard.jsonl")
    single = read("runs/s0/labels.jsonl")
    for s, h, one in zip(soft, hard, single):
        assert (
            s["weak_all"] == h["weak_all"]
            and s["weak_all"][0] == one["weak"]
            and len(s["weak_all"]) == 2
        )
        assert s["weak"] == pytest.approx(sum(s["weak_all"]) / 2)
        assert h["weak"] == sum(p > 0.5 for p in h["weak_all"]) / 2
    train_weak.main(out="runs/other_half", data_seed=1, **SMALL)
    with pytest.raises(BadInput, match="runs/s0/weak/ is given twice"):
        label.main("runs/s0/weak", "runs/s0/weak/", out="runs/both.jsonl")
    with pytest.raises(BadInput, match="not trained on the same task, sizes and data seed"):
        label.main("runs/s0/weak", "runs/other_half", out="runs/both.jsonl")


def test_labels_from_elsewhere_need_no_card_but_eval_needs_ds(here, capsys):
    rows = [
        {k: row[k] for k in ("id", "text", "label", "weak")} for row in read("runs/s0/labels.jsonl")
    ]
    (here / "theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_strong.main("theirs.jsonl", model="facts/m", out="runs/theirs")
    assert "theirs.jsonl has no card of ours" in capsys.readouterr().out
    with pytest.raises(BadInput, match="add --ds"):
        eval.main("runs/theirs")
    eval.main("runs/theirs", ds="facts", n_test=200)
    assert len(read("runs/theirs/eval/facts-test.jsonl")) == 200


def test_a_model_is_scored_without_training(here, capsys):
    eval.main(model="facts/xs", out="runs/zero", n_test=200)
    assert (
        "runs/zero is at chance" in capsys.readouterr().out
    )  # its head is zero: the tokenizer has no "0" and "1"
    pgr.main("runs/zero", "runs/s0/student", "runs/s0/ceiling")
    with pytest.raises(
        BadInput, match="was made by eval.py: give the --out of train_weak.py or train_strong.py"
    ):
        label.main("runs/zero", out="runs/no.jsonl")
    with pytest.raises(BadInput, match="--model and --out go together"):
        eval.main(model="facts/xs")


def test_a_student_that_saw_its_supervisors_rows_is_told(here, capsys):
    train_weak.main(out="runs/s0/other", data_seed=1, **SMALL)
    eval.main("runs/s0/other")
    capsys.readouterr()
    pgr.main("runs/s0/other", "runs/s0/student", "runs/s0/ceiling")
    assert (
        "note: runs/s0/other and runs/s0/student were trained on some of the same rows"
        in capsys.readouterr().out
    )
    pgr.main("runs/s0/weak", "runs/s0/student", "runs/s0/ceiling")
    assert "same rows" not in capsys.readouterr().out


def test_what_is_no_student_or_no_ceiling_is_told(here, capsys):
    def notes(*runs):
        pgr.main(*(f"runs/{run}" for run in runs))
        return json.loads((here / "runs/pgr.json").read_text())["notes"]

    assert notes("s0/weak", "s0/student", "s0/ceiling") == []
    assert notes("s1/weak", "s0/student", "s0/ceiling") == [
        "runs/s0/student did not learn from the labels of runs/s1/weak as it is now"
    ]
    assert notes("s0/weak", "s0/ceiling", "s0/student") == [
        "runs/s0/ceiling was not trained on weak labels, so it is no student",
        "runs/s0/student was not trained with --target=truth, so it is no ceiling",
    ]
    assert "note: runs/s0/ceiling was not trained on weak labels" in capsys.readouterr().out


def test_labels_from_elsewhere_scored_on_rows_they_hold_are_told(here, capsys):
    rows = [
        {k: row[k] for k in ("id", "text", "label", "weak")} for row in read("runs/s0/labels.jsonl")
    ]
    (here / "theirs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_strong.main("theirs.jsonl", model="facts/m", out="runs/theirs", epochs=1)
    (here / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:40]))
    capsys.readouterr()
    eval.main(
        "runs/theirs", ds="test.jsonl"
    )  # a file that it was not trained for is a test set, all of it
    n = len(read("runs/theirs/eval/test-test.jsonl"))
    assert 30 <= n <= 40
    assert (
        f"warning: runs/theirs was trained on {n} of these {n} test rows" in capsys.readouterr().out
    )
    eval.main("runs/s0/student", ds="runs/s0/labels.jsonl")
    assert "warning: runs/s0/student was trained on" in capsys.readouterr().out
    (here / "theirs.jsonl").write_text(
        json.dumps(rows[0]) + "\n"
    )  # no longer what it was trained on
    eval.main("runs/theirs", ds="test.jsonl", force=True)
    assert "was trained on" not in capsys.readouterr().out


def test_a_run_with_test_rows_of_its_own_is_scored_on_these(here):
    rows = [{"text": f"the pet of {i} is cat ?", "label": i % 2} for i in range(240)]
    for name, some in (("mine", rows[:200]), ("held", rows[200:])):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    train_weak.main(ds="mine.jsonl", test="held.jsonl", model="facts/xs", out="runs/mine", epochs=1)
    eval.main("runs/mine", ds="mine.jsonl")
    assert {row["id"].split("/")[0] for row in read("runs/mine/eval/mine-test.jsonl")} == {"held"}


def test_rows_of_one_class_are_told(tmp_path):
    rows = [{"text": f"words {i}", "label": 1} for i in range(200)]
    (tmp_path / "ones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match="no training rows are left, they are of one class"):
        train_weak.main(
            ds=str(tmp_path / "ones.jsonl"), model="facts/xs", out=str(tmp_path / "run")
        )


def test_an_own_file_goes_all_the_way_to_a_pgr(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    rows = [
        {"text": f"people say this is {rng.choice(['good', 'bad'])} number {i}"} for i in range(200)
    ]
    rows = [row | {"label": int("good" in row["text"])} for row in rows]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_weak.main(ds="mine.jsonl", model="facts/xs")
    assert "of the tokens are unknown to this tokenizer" in capsys.readouterr().out
    label.main()
    for target in ("weak", "truth"):
        train_strong.main(model="facts/m", target=target)
    eval.main()
    assert "is at chance" in capsys.readouterr().out
    pgr.main()
    result = json.loads((tmp_path / "runs/pgr.json").read_text())
    assert 32 <= result["n"] <= 40 and result["pgr"]["value"] is None
    assert (tmp_path / "runs/student/eval/mine-test.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train_strong.py", "no.jsonl"], "no.jsonl does not exist"),
        (
            ["train_strong.py", "runs/s0/labels.jsonl", "--loss=cnof", "--out=new"],
            "unknown loss --loss=cnof (did you mean conf?)",
        ),
        (
            ["train_weak.py", "--n_train=10", "--out=new"],
            "10 rows to train on (0 of 10 are held out",
        ),
        (
            ["train_weak.py", "--model=facts/xxs", "--out=new"],
            "the hub is out of reach and facts/xxs is not",
        ),
        (
            ["train_weak.py", "--model=runs/s0/weak", "--out=new"],
            "is a run directory: its model is runs/s0/weak/model",
        ),
        (["train_weak.py", "--device=cuda:7", "--out=new"], "--device=cuda:7 cannot be used here"),
        (
            ["train_weak.py", "--model=runs/s0/labels.jsonl", "--out=new"],
            "is a file: give the folder",
        ),
        (
            ["eval.py", "--model=facts/m", "--out=runs/s0/weak", "--force"],
            "--out=runs/s0/weak is a run of train_weak.py",
        ),
        (["label.py", "runs", "--out=new.jsonl"], "runs is not a run directory"),
        (["label.py", "runs/s0/weak", "--out=new.csv"], "rows and labels end in .jsonl"),
        (["eval.py", "runs/none"], "runs/none does not exist"),
        (
            ["pgr.py", "runs/s0/weak", "runs/s1/weak", "runs/s0/student", "runs/s1/student"],
            "globs in quotes",
        ),
        (
            ["pgr.py", "runs/s*/weak", "runs/s*/student", "runs/s0/ceiling"],
            "give all three with a *, or none",
        ),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(here, command, capsys, words, told):
    if words[0] == "train_weak.py" and "--n_train=10" in words:
        words = [*words, "--n_val=0"]
    before = contents(here)
    with pytest.raises(SystemExit) as done:
        command(*words)
    said = capsys.readouterr().err
    assert (
        done.value.code == 2
        and said.startswith("error: ")
        and said.count("\n") == 1
        and told in said
    )
    assert contents(here) == before


def test_nothing_that_torch_and_transformers_say_at_import_drowns_the_one_line(here):
    words = [sys.executable, HERE / "train_weak.py", "--device=cuda:7", "--out=new"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: --device=cuda:7")
        and done.stderr.count("\n") == 1
    )


def test_the_bare_commands_work_one_after_another_from_any_folder(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = subprocess.run([sys.executable, HERE / "train_weak.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in (
        "label.py",
        "train_strong.py",
        "train_strong.py --target=truth",
        "eval.py",
        "pgr.py",
    ):
        command(*words.split())
    result = json.loads((tmp_path / "runs/pgr.json").read_text())
    assert result["weak"]["high"] < result["ceiling"]["low"]
    assert 0 < result["pgr"]["value"] and result["n"] == len(
        protocol.test_rows(tasks.texts, protocol.describe(tasks.texts, "facts"))
    )


def test_metrics_stand_beside_the_predictions(here):
    metrics = json.loads((here / "runs/s0/weak/eval/facts-test.metrics.json").read_text())
    rows = read("runs/s0/weak/eval/facts-test.jsonl")
    groups = [
        row["group"]
        for row in protocol.test_rows(
            tasks.texts, protocol.describe(tasks.texts, "facts", n_test=200)
        )
    ]
    wanted = stats.accuracy([row["prob"] for row in rows], [row["label"] for row in rows], groups)
    assert wanted | {"n": 200, "groups": 50} == {
        name: value for name, value in metrics.items() if type(value) is not dict
    }
    assert metrics.keys() - wanted.keys() > {
        "precision",
        "recall",
        "f1",
        "balanced_acc",
        "auroc",
        "nll",
        "ece",
    }
    assert metrics["nll"]["low"] < metrics["nll"]["value"] < metrics["nll"]["high"]
