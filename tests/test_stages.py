"""The five stages end to end at toy size, in process. Peers' bugs B, E, F, G, H and J."""

import json
import os
import random
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import CARD

import controls
import eval
import label
import pgr
import tasks
import train_strong
import train_weak
from w2s import answering, files, loop, models, protocol, records
from w2s.files import HERE, BadInput

SMALL = {"n_train": 100, "n_test": 100}
RUNS = [f"runs/s0/{who}" for who in ("weak", "student", "ceiling")]


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """A folder where the stages have run on 100 rows of facts; a second supervisor in runs/s1."""
    home = tmp_path_factory.mktemp("experiment")
    for seed in (0, 1):
        train_weak.main(out=f"{home}/runs/s{seed}/weak", seed=seed, **SMALL)
    label.main(f"{home}/runs/s0/weak")
    for options in ({"loss": "conf"}, {"target": "truth"}):
        train_strong.main(f"{home}/runs/s0/labels.jsonl", **options)
    eval.main(*(f"{home}/{run}" for run in RUNS))
    return home


@pytest.fixture
def here(experiment, tmp_path, monkeypatch):
    """A copy of the experiment to spoil, as the current folder."""
    shutil.copytree(experiment / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pgr, "draw", lambda *_: None)  # slow
    return tmp_path


def read(path):
    return [json.loads(line) for line in open(path)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def own_rows(n=200):
    """Rows of texts whose words, save a few, the tokenizer of facts does not know."""
    rng, said = random.Random(0), ("bad", "good")
    labels = [rng.randrange(2) for _ in range(n)]
    return [{"text": f"people say this is {said[y]} number {i}", "label": y}
            for i, y in enumerate(labels)]  # fmt: skip


def copied(run, name, **changes):
    """A copy of a run under another name, with other data on its card."""
    shutil.copytree(run, name)
    card = files.read_card(name)
    files.write_card(name, card | {"data": card["data"] | changes})
    return name


# ---- what is written


def test_the_files_are_those_of_the_contract(here):
    labels = read("runs/s0/labels.jsonl")
    assert list(labels[0]) == ["id", "group", "text", "label", "weak"] and len(labels) == 100
    assert len({row["weak"] for row in labels}) > 20  # soft, not hardened
    predictions = read("runs/s0/student/eval/facts-test.jsonl")
    assert list(predictions[0]) == ["id", "label", "prob"] and len(predictions) == 100
    history = read("runs/s0/student/history.jsonl")
    assert list(history[0]) == ["step", "epoch", "loss", "agreement", "true_acc"]
    about = [files.read_card(f"{run}/eval/facts-test.jsonl") for run in RUNS]
    assert len({card["rows_sha256"] for card in about}) == 1 and about[0]["rows_sha256"]
    for jsonl in ("runs/s0/labels.jsonl", "runs/s0/student/eval/facts-test.jsonl"):
        assert files.read_card(jsonl)["sha256"] == files.sha256(jsonl)
    metrics = json.loads((here / "runs/s0/weak/eval/facts-test.metrics.json").read_text())
    named = "acc low high n groups precision recall f1 balanced_acc auroc nll ece".split()
    assert metrics.keys() >= set(named) and metrics["groups"] == 25
    assert metrics["nll"]["low"] < metrics["nll"]["value"] < metrics["nll"]["high"]
    assert not list(here.rglob("*.tmp"))


def test_the_card_of_a_run_says_what_the_defaults_came_to(here):
    card = files.read_card("runs/s0/student")
    wanted = "stage setting finished args resolved inputs data commit versions time seconds kept"
    assert card.keys() >= {*wanted.split(), "model_sha256"} and card["finished"]
    args = {"loss": "conf", "alpha": 0.5, "conf_prior": "half", "epochs": 2, "batch_size": 32}
    args |= {"model": "facts/m", "stop": True, "n_val": None}
    assert args.items() <= card["args"].items() and "prior" not in card["args"]
    resolved = {"lr": 1e-4, "head_lr": 1e-3, "dtype": "float32", "processes": 1, "device": "cpu"}
    assert resolved.items() <= card["resolved"].items()
    assert card["resolved"]["parameters"] == 206_400
    assert card["resolved"]["rows"] + card["resolved"]["held_out"] == 100
    assert files.read_card("runs/s0/ceiling")["args"]["loss"] == "xent"


def test_student_and_ceiling_train_on_the_same_rows_and_the_supervisor_on_others(here):
    """openai/weak-to-strong's bug E: the ceiling trains on the weak model's half."""
    data = protocol.describe(tasks.texts, "facts", **SMALL)
    weak, strong = (protocol.half(tasks.texts, data, which) for which in ("weak", "strong"))
    labels = read("runs/s0/labels.jsonl")
    assert [row["id"] for row in labels] == [row["id"] for row in strong]
    assert not {row["group"] for row in weak} & {row["group"] for row in labels}
    cards = [files.read_card(run) for run in RUNS]
    assert cards[1]["resolved"] == cards[2]["resolved"]
    one, two = (card["inputs"] | {"rule": "conf, xent"} for card in cards[1:])
    assert one == two
    assert cards[0]["data"] == cards[1]["data"] == cards[2]["data"] == data


def test_the_student_sees_weak_labels_and_the_rule_the_ceiling_truth_and_cross_entropy(
    here, monkeypatch, capsys
):
    seen = []

    def spy(model, rows, loss, **options):
        given = "weak" if all(row["given"] == row.get("weak") for row in rows) else "label"
        assert given == "weak" or all(row["given"] == row["label"] for row in rows)
        seen.append((given, getattr(loss, "func", loss).__name__, getattr(loss, "keywords", {})))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", spy)
    conf = {"loss": "conf", "alpha": 0.75, "conf_prior": "weak"}
    for options in (conf, {}, conf | {"target": "truth"}):
        with pytest.raises(KeyboardInterrupt):
            train_strong.main("runs/s0/labels.jsonl", out=f"runs/new{len(seen)}", **options)
    with pytest.raises(KeyboardInterrupt):
        train_weak.main(out="runs/new_weak", **SMALL)
    assert "ground truth is learned by xent, not by --loss=conf" in capsys.readouterr().out
    assert seen == [
        ("weak", "conf", {"alpha": 0.75, "prior": "weak"}),
        ("weak", "xent", {}),
        ("label", "xent", {}),
        ("label", "xent", {}),
    ]


def test_a_supervisor_gets_labels_and_a_student_of_its_own(here, capsys):
    train_weak.main(out="runs/weak_2", epochs=1, **SMALL)
    assert "next: python label.py runs/weak_2 --out=runs/labels_2.jsonl" in capsys.readouterr().out
    shutil.copytree("runs/s0", "runs/s2")
    controls.main("runs/s2/labels.jsonl", kind="coin")
    told = "next: python train_strong.py runs/s2/coin.jsonl --out=runs/s2/coin_student\n"
    assert told in capsys.readouterr().out
    card = files.read_card("runs/s2/labels.jsonl")
    files.write_card("runs/s2/labels.jsonl", card | {"models": ["bert"]})
    controls.main("runs/s2/labels.jsonl", kind="random")
    assert "runs/s2/random.jsonl --model=NAME --out=" in capsys.readouterr().out


def test_a_run_is_read_in_the_context_that_it_was_trained_in(here, monkeypatch):
    card = files.read_card(RUNS[0])
    files.write_card(RUNS[0], card | {"resolved": card["resolved"] | {"max_len": 4096}})
    monkeypatch.setattr(models, "load", lambda path, **how: how)
    assert answering.model_of(RUNS[0])["max_len"] == 4096  # not the 1,024 of a model without a run


def test_where_a_run_lies_unless_out_says_so(tmp_path, monkeypatch, capsys):
    def never(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "fit", never)
    for ds, out in (("facts", "runs/weak"), ("facts_pairs", "runs/pairs/weak")):
        with pytest.raises(KeyboardInterrupt):
            train_weak.main(ds=ds, n_train=40, n_val=0, stop=False, batch_size=20)
        assert files.read_card(out)["setting"] == tasks.setting_of(ds).__name__


def test_everybody_is_scored_on_the_same_rows(here):
    """openai/weak-to-strong's bug G: long examples are dropped per tokenizer."""
    train_weak.main(out="runs/short", max_len=5, epochs=1, **SMALL)
    eval.main("runs/short")
    data = protocol.describe(tasks.texts, "facts", n_test=100)
    wanted = [row["id"] for row in protocol.test_rows(tasks.texts, data)]
    for run in ("runs/short", *RUNS):
        assert [row["id"] for row in read(f"{run}/eval/facts-test.jsonl")] == wanted


# ---- again, otherwise, interrupted


def test_what_is_gone_or_was_edited_is_made_anew(here, capsys):
    labels, predictions = here / "runs/s0/labels.jsonl", here / "runs/s0/weak/eval/facts-test.jsonl"
    before = labels.read_bytes(), predictions.read_bytes()
    labels.unlink()
    shutil.rmtree("runs/s1/weak/model")
    train_weak.main(out="runs/s1/weak", seed=1, **SMALL)
    label.main("runs/s0/weak")
    assert capsys.readouterr().out.count("is gone: it is made anew") == 2
    for spoil in (predictions.unlink, lambda: predictions.write_bytes(before[0])):
        spoil()
        eval.main("runs/s0/weak")
        assert (labels.read_bytes(), predictions.read_bytes()) == before


def test_running_everything_again_changes_nothing(here, capsys):
    """openai/weak-to-strong's bug B: a re-run overwrites results and weak labels."""
    before = contents(here)
    train_weak.main(out="runs/s0/weak", **SMALL)
    label.main("runs/s0/weak")
    conf = {"loss": "conf"}
    for default in ({"alpha": 0.5}, {"conf_prior": "half"}, {"epochs": 2}):
        train_strong.main("runs/s0/labels.jsonl", **conf, **default)
    eval.main("runs/s0/weak", "runs/s0/student")
    assert capsys.readouterr().out.count("already done") == 7
    shutil.copy("runs/s0/labels.jsonl", "runs/other.jsonl")
    with open("runs/other.jsonl", "a") as file:
        file.write("\n".join(open("runs/s0/labels.jsonl").readlines()[:1]).replace("facts", "f"))
    for labels, options, told in (
        ("runs/s0/labels.jsonl", {"loss": "xent"}, "loss was conf, now xent"),
        ("runs/s0/labels.jsonl", conf | {"lr": 1e-3}, "lr was None, now 0.001"),
        ("runs/other.jsonl", conf, "labels is not the same, or has changed"),
    ):  # openai/weak-to-strong's bug J: folder names of initials, in which `loss` and `lr` clash
        with pytest.raises(BadInput, match=f"made with other arguments or inputs .*{told}"):
            train_strong.main(labels, model="facts/m", out="runs/s0/student", **options)
    (here / "runs/other.jsonl").unlink()
    assert contents(here) == before


def test_forced_again_gives_the_same_bits(here):
    made = "runs/s0/student/model/model.safetensors", "runs/s0/student/eval/facts-test.jsonl"
    before = [files.sha256(file) for file in made]
    train_strong.main("runs/s0/labels.jsonl", loss="conf", force=True)
    assert not (here / made[1]).exists()  # predictions of the model before are gone with it
    eval.main("runs/s0/student")
    assert [files.sha256(file) for file in made] == before


def test_training_never_reads_the_test_rows_it_is_scored_on(here, monkeypatch):
    """openai/weak-to-strong's bug H: evaluates on test while training."""

    def never(*_):
        raise AssertionError("training looked at the test set")

    monkeypatch.setattr(protocol, "test_rows", never)
    train_weak.main(out="runs/weak", epochs=1, **SMALL)
    label.main()
    train_strong.main(epochs=1)
    ids = {row["id"] for row in protocol.load(tasks.texts, "facts", "test")}
    data = protocol.describe(tasks.texts, "facts")
    assert not ids & {row["id"] for row in protocol.half(tasks.texts, data, "weak")}


def test_an_interrupted_run_is_told_trained_again_and_never_scored(here, monkeypatch, capsys):
    whole = files.sha256("runs/s0/weak/model")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_weak.main(out="runs/new", **SMALL)
        before = contents(here)
        with pytest.raises(KeyboardInterrupt):  # what was finished stays until it is replaced
            train_weak.main(out="runs/s0/weak", force=True, **SMALL)
        assert contents(here) == before
    told = "runs/new is not finished: call train_weak.py again with the same"
    for stage, runs in (
        (label, ["runs/new"]),
        (eval, ["runs/new"]),
        (pgr, ["runs/new"] + RUNS[1:]),
    ):
        with pytest.raises(BadInput, match=told):
            stage.main(*runs)
    train_weak.main(out="runs/new", **SMALL)
    assert "begun and not finished: starting again" in capsys.readouterr().out
    assert files.sha256("runs/new/model") == whole


# ---- labels


def test_an_ensemble_votes_softly_or_hard(here):
    for vote in ("soft", "hard"):
        label.main("runs/s*/weak", out=f"runs/{vote}.jsonl", vote=vote)
    three = [read(f"runs/{name}.jsonl") for name in ("soft", "hard", "s0/labels")]
    for soft, hard, one in zip(*three):
        assert soft["weak_all"] == hard["weak_all"] and len(soft["weak_all"]) == 2
        assert soft["weak_all"][0] == one["weak"]
        assert soft["weak"] == pytest.approx(sum(soft["weak_all"]) / 2)
        assert hard["weak"] == sum(p > 0.5 for p in hard["weak_all"]) / 2
    other = copied("runs/s1/weak", "runs/other", data_seed=1)
    for run, told in (
        ("runs/s0/weak/", "runs/s0/weak/ is given twice"),
        (os.path.abspath("runs/s0/weak"), "is given twice: a supervisor has one vote"),
        (other, "not trained on the same task, sizes and data seed"),
    ):
        with pytest.raises(BadInput, match=told):
            label.main("runs/s0/weak", run, out="runs/both.jsonl")


def test_nothing_held_out_means_that_nothing_stops(here):
    train_weak.main(out="runs/all", n_train=64, n_val=0, epochs=1)
    card = files.read_card("runs/all")
    assert (card["resolved"]["held_out"], card["resolved"]["stop"]) == (0, False)
    with pytest.raises(BadInput, match="--stop looks at held-out rows, and there are none"):
        train_weak.main(out="runs/none", n_train=64, n_val=0, stop=True)


def test_a_run_inside_its_models_folder_is_refused(here):
    models.save(*models.load("facts/xs"), "mine")
    with pytest.raises(BadInput, match="--out=mine/weak is inside --model=mine: choose another"):
        train_weak.main(model="mine", out="mine/weak", n_train=64)
    train_weak.main(model="mine", out="mine-weak", n_train=64, epochs=1)


def test_low_rank_terms_of_a_language_model_may_be_trained_in_bf16(here):
    how = {"model": "chess/xs", "lora": 2, "dtype": "bf16", "n_train": 40, "epochs": 1}
    train_weak.main(ds="puzzles", out="runs/moves", **how)
    assert files.read_card("runs/moves")["finished"]


def test_answers_in_another_type_need_force(here):
    before = contents(here)
    with pytest.raises(BadInput, match="answers with another dtype .None, now bf16.: add --force"):
        eval.main("runs/s0/weak", dtype="bf16")
    assert contents(here) == before
    eval.main("runs/s0/weak", dtype="bf16", force=True)


def test_parts_of_the_strong_half_keep_groups_whole(here, capsys):
    for k in (1, 2):
        label.main("runs/s0/weak", part=f"{k}/2", out=f"runs/part{k}.jsonl")
        assert f"part{k}.jsonl --out=runs/part{k}_student\n" in capsys.readouterr().out
    one, two = (read(f"runs/part{k}.jsonl") for k in (1, 2))
    assert not {row["group"] for row in one} & {row["group"] for row in two}
    whole = sorted(row["id"] for row in read("runs/s0/labels.jsonl"))
    assert sorted(row["id"] for row in one + two) == whole


def test_labels_from_elsewhere_need_no_card_but_eval_needs_ds(here, capsys):
    rows = read("runs/s0/labels.jsonl")
    theirs = [{name: row[name] for name in ("id", "text", "label", "weak")} for row in rows]
    write(here / "theirs.jsonl", theirs)
    train_strong.main("theirs.jsonl", model="facts/m", out="runs/theirs", epochs=1)
    said = capsys.readouterr().out
    assert "theirs.jsonl has no card of ours" in said and "all labels say the same" not in said
    assert "next: python eval.py runs/theirs --ds=test.jsonl" in said
    with pytest.raises(BadInput, match="add --ds"):
        eval.main("runs/theirs")
    write(here / "ones.jsonl", [row | {"weak": 0.8} for row in theirs])
    records.read_labels(tasks.texts, "ones.jsonl")
    assert "all labels say the same" in capsys.readouterr().out
    eval.main("runs/theirs", ds="facts", n_test=60)
    assert len(read("runs/theirs/eval/facts-test.jsonl")) == 60
    write(here / "test.jsonl", theirs[:40])
    eval.main("runs/theirs", ds="test.jsonl", allow_leak=True)
    # a file that it was not trained for is all tested
    assert 30 <= len(read("runs/theirs/eval/test-test.jsonl")) <= 40


def test_a_supervisor_that_is_no_model_of_ours_gets_a_pgr_by_its_answers(here):
    """Its labels train the student; a file of its answers to the test rows stands in for its run.

    Here they are those of runs/s0/weak, so that both PGRs are the same.
    """
    pgr.main(*RUNS)
    file = "runs/s0/weak/eval/facts-test.jsonl"
    theirs = [{"id": row["id"], "weak": row["prob"]} for row in read(file)]
    write(here / "theirs.jsonl", theirs[::-1])
    asked = {"answers": "theirs.jsonl", "ds": "facts", "n_test": SMALL["n_test"]}
    eval.main(out="runs/theirs", **asked)
    pgr.main("runs/theirs", *RUNS[1:], out="runs/theirs.json")
    ours, result = (json.load(open(path)) for path in ("runs/s0/pgr.json", "runs/theirs.json"))
    assert ours["pgr"] == result["pgr"] and result["weak"]["model"] == "theirs.jsonl"
    before = contents(here)
    write(here / "theirs.jsonl", theirs[1:])
    with pytest.raises(BadInput, match="other arguments or inputs .answers is not the same"):
        eval.main(out="runs/theirs", **asked)
    told = f"theirs.jsonl lacks 1 of the 100 test rows, such as {theirs[0]['id']!r} .python tasks"
    with pytest.raises(BadInput, match=told):
        eval.main(out="runs/theirs", **asked, force=True)
    for wrong in ({"shots": 5}, {"model": "facts/m"}, {"ds": "puzzles"}):
        with pytest.raises(BadInput, match="goes with --model|go together|probabilities of a"):
            eval.main(out="runs/other", **asked | wrong)
    (here / "theirs.jsonl").unlink()
    assert contents(here) == {k: v for k, v in before.items() if k.name != "theirs.jsonl"}


def test_an_ensemble_gets_a_pgr_by_its_vote_on_the_test_rows(here):
    label.main("runs/s0/weak", "runs/s1/weak", test_rows=True, out="runs/vote.jsonl")
    eval.main(answers="runs/vote.jsonl", ds="facts", n_test=SMALL["n_test"], out="runs/vote")
    eval.main("runs/s1/weak")
    runs = ("runs/vote", "runs/s0/weak", "runs/s1/weak")
    vote, *both = ([row["prob"] for row in read(f"{run}/eval/facts-test.jsonl")] for run in runs)
    assert vote == pytest.approx([sum(one) / 2 for one in zip(*both)])
    pgr.main("runs/vote", *RUNS[1:])


# ---- scores


def test_a_model_is_scored_without_training(here, capsys):
    eval.main(model="facts/xs", out="runs/zero", n_test=100)
    # its head is zero: the tokenizer has no "0" and "1"
    assert "runs/zero is at chance" in capsys.readouterr().out
    pgr.main("runs/zero", *RUNS[1:])
    told = "was made by eval.py: give the --out of train_weak.py or train_strong.py"
    with pytest.raises(BadInput, match=told):
        label.main("runs/zero", out="runs/no.jsonl")


def test_predictions_on_other_rows_or_of_an_earlier_model_are_not_compared(here):
    with pytest.raises(BadInput, match="holds this model's answers to other rows"):
        eval.main("runs/s0/weak", n_test=60)
    eval.main("runs/s0/weak", n_test=60, force=True)
    with pytest.raises(BadInput, match="hold different ids"):
        pgr.main(*RUNS)
    with pytest.raises(BadInput, match="has no predictions .*sst2-test.jsonl: run python eval.py"):
        pgr.main(*RUNS, ds="sst2")
    files.write_card(RUNS[0], files.read_card(RUNS[0]) | {"model_sha256": "another"})
    with pytest.raises(BadInput, match="is of an earlier model"):
        pgr.main(*RUNS)


def test_what_was_scored_on_a_file_is_compared_on_that_file_and_no_other_of_its_name(here, capsys):
    file = write(here / "mine.jsonl", read("runs/s0/labels.jsonl")[:40])
    (here / "other").mkdir()
    shutil.copy(file, here / "other")
    eval.main(*RUNS, ds="mine.jsonl", allow_leak=True)
    line = f"next: python pgr.py {' '.join(RUNS)} --ds=mine.jsonl --out=runs/s0/pgr.json"
    assert line in capsys.readouterr().out
    eval.main(*RUNS, ds="fac?s")  # a glob of one
    assert line.replace("mine.jsonl", "facts") in capsys.readouterr().out
    pgr.main(*RUNS, ds="mine.jsonl", out="runs/s0/pgr.json")
    with pytest.raises(BadInput, match="is of .*/mine.jsonl, not of --ds=other/mine.jsonl: run "):
        pgr.main(*RUNS, ds="other/mine.jsonl")


def test_runs_that_are_not_what_they_are_called_are_told(here):
    def notes(*runs):
        pgr.main(*runs, out="runs/pgr.json")
        return json.loads((here / "runs/pgr.json").read_text())["notes"]

    weak, student, ceiling = RUNS
    assert notes(*RUNS) == []
    assert notes(weak, ceiling, student) == [
        "runs/s0/ceiling was not trained on weak labels, so it is no student",
        "runs/s0/student was not trained with --target=truth, so it is no ceiling",
    ]
    other = copied(weak, "runs/other", data_seed=1)
    told = "runs/other and runs/s0/student were trained on some of the same rows"
    assert notes(other, student, ceiling) == [told]


# ---- all the way


def test_an_own_file_goes_all_the_way_to_a_pgr(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = own_rows()
    for name, some in (("mine", rows[:160]), ("held", rows[160:])):
        write(tmp_path / f"{name}.jsonl", some)
    train_weak.main(ds="mine.jsonl", test="held.jsonl", model="facts/xs", epochs=1)
    assert "of the tokens are unknown to this tokenizer" in capsys.readouterr().out
    label.main()
    for target in ("weak", "truth"):
        train_strong.main(model="facts/m", target=target, epochs=1)
    eval.main()
    assert "at chance" in capsys.readouterr().out
    pgr.main()
    result = json.loads((tmp_path / "runs/pgr.json").read_text())
    assert 30 <= result["n"] <= 40 and result["pgr"]["value"] is None
    assert (tmp_path / "runs/pgr.png").read_bytes().startswith(b"\x89PNG")
    ids = {row["id"].split("/")[0] for row in read("runs/student/eval/mine-test.jsonl")}
    assert ids == {"held"}


def test_what_is_printed_next_can_be_pasted_whatever_the_folder_is_called(
    tmp_path, command, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pgr, "draw", lambda *_: None)
    runs = "a[1] it's"
    todo = [["train_weak.py", f"--out={runs}/weak", "--n_train=40", "--n_test=40", "--n_val=0"]]
    todo[0] += ["--nostop", "--epochs=1"]
    done = []
    while todo:
        words = todo.pop(0)
        command(*words)
        done.append(words[0])
        if words[0] == "eval.py" and done.count("eval.py") == 2:
            command("eval.py", *(f"{runs}/{who}" for who in ("weak", "student", "ceiling")))
        told = capsys.readouterr().out.partition("next: ")[2]
        todo += [shlex.split(line)[1:] for line in told.splitlines()]
    assert done == "train_weak.py label.py train_strong.py train_strong.py eval.py eval.py".split(
    ) + ["pgr.py"]  # fmt: skip
    assert (tmp_path / "runs/pgr.json").exists() or (tmp_path / runs / "pgr.json").exists()


def test_a_supervisor_that_is_not_the_default_leaves_the_name_of_the_student_to_you(
    tmp_path, command, monkeypatch, capsys
):
    """Else the line that is printed would train another student than the user thinks of."""
    monkeypatch.chdir(tmp_path)
    command("train_weak.py", "--model=facts/s", "--n_train=40", "--n_val=0", "--nostop")
    capsys.readouterr()
    command("label.py")
    for line in capsys.readouterr().out.partition("next: ")[2].splitlines():
        assert "train_strong.py runs/labels.jsonl --model=NAME --out=runs/" in line


def test_the_bare_commands_work_one_after_another_from_any_folder(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pgr, "draw", lambda *_: None)
    stages = "train_weak.py", "label.py", "train_strong.py", "train_strong.py --target=truth"
    for words in (*stages, "eval.py", "pgr.py"):
        command(*words.split())
    result = json.loads((tmp_path / "runs/pgr.json").read_text())
    assert result["weak"]["high"] < result["ceiling"]["low"] and result["pgr"]["value"] > 0
    data = protocol.describe(tasks.texts, "facts")
    assert result["n"] == len(protocol.test_rows(tasks.texts, data))


# ---- mistakes


LABELS = "runs/s0/labels.jsonl"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train_strong.py no.jsonl", "no.jsonl does not exist: give the --out of label.py"),
        (f"train_strong.py {LABELS} --loss=cnof", "unknown loss --loss=cnof (did you mean conf?)"),
        (
            f"train_strong.py {LABELS} --conf_prior=half",
            "--conf_prior is no option of the rule xent",
        ),
        ("train_weak.py --n_train=10 --n_val=0 --nostop", "10 rows to train on (0 of 10 are held"),
        ("train_weak.py --ds=ones.jsonl --model=facts/xs", "they are of one class"),
        ("train_weak.py --model=facts/xxs", "and facts/xxs (did you mean facts/xs"),
        ("train_weak.py --model=runs/s0/weak", "is a run directory: its model is runs/s0/weak/"),
        (f"train_weak.py --model={LABELS}", "has no config.json: give a"),
        ("label.py runs", "runs is not a run directory"),
        ("label.py runs/s0/weak --out=new.csv", "labels end in .jsonl"),
        ("label.py runs/s0/weak --part=0/2", "the first of two parts is 1/2"),
        ("label.py runs/s0/weak --part=1/2 --test_rows", "not with --test_rows"),
        ("eval.py runs/none", "runs/none does not exist"),
        ("eval.py --model=facts/m", "--model, or --answers, and --out go together"),
        ("eval.py --model=facts/m --out=runs/s0/weak --force", "is a run of train_weak.py"),
        ("eval.py runs/s0/weak --target=truth --seed=5", "--target goes with --shots"),
        ("eval.py runs/s0/weak --seed=5", "--seed goes with --shots"),
        ("eval.py runs/s0/weak --max_len=9", "--max_len goes with --model"),
        ("eval.py runs/s0/weak --head=zero", "--head goes with --model"),
        (f"eval.py runs/s0/weak --labels={LABELS}", "--labels goes with --shots of 1 or more"),
        ("eval.py runs/s0/weak --test=ones.jsonl", "--test goes with --ds"),
        (
            "pgr.py runs/s0/weak runs/s1/weak runs/s0/student runs/s0/student",
            "globs are written in quotes",
        ),
        ("pgr.py --out=pgr.csv", "--out=pgr.csv must end in .json"),
        ("pgr.py --plot=a.pdf", "ends in .png"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(here, command, capsys, words, told):
    write(here / "ones.jsonl", [{"text": f"words {i}", "label": 1} for i in range(200)])
    if words.startswith("train"):
        words += " --out=new"
    before = contents(here)
    with pytest.raises(SystemExit) as done:
        command(*words.split())
    said = capsys.readouterr().err.splitlines()
    assert done.value.code == 2 and said[-1].startswith("error: ") and told in said[-1]
    assert sum(line.startswith("error") for line in said) == 1
    assert contents(here) == before


def test_nothing_that_torch_and_transformers_say_at_import_drowns_the_one_line(here):
    words = [sys.executable, HERE / "train_weak.py", "--device=cuda:7", "--out=new"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --device=cuda:7")
    assert done.stderr.count("\n") == 1


def test_runs_of_several_settings_are_not_scored_together(tmp_path):
    for name in ("texts", "pairs"):
        card = CARD | {"stage": "eval", "setting": name, "model_sha256": name}
        files.write_card(tmp_path / name, card)
    with pytest.raises(BadInput, match="these runs are of several settings"):
        eval.main(str(tmp_path / "texts"), str(tmp_path / "pairs"))


def test_label_tells_how_many_labels_say_1(here, capsys):
    label.main("runs/s0/weak", out="again.jsonl")
    ones = [row["weak"] > 0.5 for row in read("again.jsonl")]
    assert f"{sum(ones) / len(ones):.1%} of the labels say 1" in capsys.readouterr().out


def test_a_head_that_lacks_what_the_models_own_logits_have_is_not_scored_untrained(
    here, monkeypatch
):
    from w2s import models

    load = models.load

    def lacking(*words, **options):
        model, tokenizer = load(*words, **options)
        model.w2s["head"] = "unembedding alone"
        return model, tokenizer

    monkeypatch.setattr(models, "load", lacking)
    with pytest.raises(BadInput, match="its logits have a bias or cap"):
        eval.main(model="facts/xs", out="runs/untrained", n_test=20)
    assert not (here / "runs/untrained").exists()
