"""pgr.py on runs that were never trained: cards, predictions and histories written by hand."""

import json
import math
import random
from types import SimpleNamespace

import pytest
from conftest import CARD

import pgr
import tasks
from w2s import curves, doubts, files
from w2s.files import BadInput

DATA = {"ds": "sst2", "test": None, "sha256": {}, "data_seed": 0, "n_train": None, "n_test": None}
RIGHT = {"weak": 68, "student": 78, "ceiling": 88}  # of 100 rows
DRAW = pgr.draw


def new_run(path, who, setting="texts", **changes):
    """A run directory with predictions that are right on the first rows; changes: of its card."""
    stage = "train_weak" if who == "weak" else "train_strong"
    args = {"model": "gpt2" if who == "weak" else "gpt2-medium", "seed": 0, "epochs": 2}
    args["n_val"] = None
    if who != "weak":
        args |= {"labels": "runs/labels.jsonl", "loss": "conf" if who == "student" else "xent"}
        args |= {"target": "weak" if who == "student" else "truth", "alpha": 0.5}
    card = {"stage": stage, "setting": setting, "finished": True, "args": args, "data": DATA}
    card |= {"inputs": {"labels": None}, "model_sha256": str(path)}
    if who == "student":
        card |= {"supervisor": [str(path).replace(who, "weak")], "labels_from": "label"}
    card |= {"args": args | changes.pop("args", {})} | changes
    files.write_card(path, card)
    score(path, RIGHT[who], setting)


def score(path, n_right, setting="texts", **changes):
    """Write predictions of 100 rows in 50 groups; changes: of their card."""
    rows = []
    for i in range(100):
        right, label = i < n_right, i % 2
        row = {"id": str(i), "label": label, "prob": 0.9 if right == label else 0.1}
        if setting == "moves":
            move = "e4" if right else "d4"
            row = {"id": str(i), "target": "e4", "move": move, "correct": int(right), "legal": 1}
        rows.append(row)
    inputs = {"model": files.read_card(path)["model_sha256"]}
    about = CARD | {"inputs": inputs, "test_groups": [str(i // 2) for i in range(100)]}
    files.write_jsonl(
        path / "eval/sst2-test.jsonl", rows, about | {"rows_sha256": "these"} | changes
    )


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """runs/weak, runs/student, runs/ceiling, and two seeds of each in runs/s0 and runs/s1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pgr, "draw", lambda *_: None)  # slow
    for folder in ("", "s0/", "s1/"):
        for who in RIGHT:
            new_run(files.Path(f"runs/{folder}{who}"), who)
    return files.Path("runs")


SEEDS = [f"runs/s*/{who}" for who in RIGHT]


def result(*patterns, **options):
    """What pgr.py writes."""
    pgr.main(*patterns, **options)
    return json.loads(files.Path("runs/pgr.json").read_text())


def change(path, **changes):
    """Change a card."""
    files.write_card(path, files.read_card(path) | changes)


def test_pgr_json_says_what_it_is_of(runs, capsys):
    told = result(*SEEDS)
    assert told["pgr"]["value"] == pytest.approx(0.5) and told["seeds"] == 2
    assert (told["n"], told["groups"], told["notes"]) == (100, 50, [])
    assert (told["task"], told["setting"], told["split"]) == ("sst2", "texts", "test")
    assert [told[who]["model"] for who in RIGHT] == ["gpt2", "gpt2-medium", "gpt2-medium"]
    assert told["student"]["rule"] == "conf alpha=0.5" and told["student"]["seeds"] == ["0", "1"]
    assert told["runs"]["weak"] == ["runs/s0/weak", "runs/s1/weak"]
    DRAW(told, "runs/pgr.png")
    assert files.Path("runs/pgr.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "PGR                             0.500" in shown and "95 % intervals" in shown
    assert result()["student"]["seeds"] == []


def test_moves_have_a_pgr_of_right_moves_and_agreement_of_moves(runs):
    for who in RIGHT:
        new_run(runs / who, who, setting="moves")
    told = result()
    assert told["pgr"]["value"] == pytest.approx(0.5) and told["diagnostics"] == {}
    assert told["agreement"]["all"]["value"] == pytest.approx(0.9)
    new_run(runs / "student", "student")
    with pytest.raises(BadInput, match="runs/student has not answered puzzles"):
        pgr.main()


def test_texts_that_models_write_have_a_judge_and_neither_truth_nor_agreement(runs, monkeypatch):
    """Badness falls: 6 - 4 n_right / 100 on average; the gap is the same 20 rows out of 100."""
    names = {"PREDICTION": ("id", "score"), "METRIC": "score", "said": None, "truth": None}
    writing = SimpleNamespace(
        **names,
        CHECKS={},
        __name__="writing",
        SOFT=False,
        WHAT="prompts",
        score=lambda row: row["score"],
    )
    monkeypatch.setattr(tasks, "SETTINGS", (writing,))
    for who, n_right in RIGHT.items():
        new_run(runs / who, who, setting="writing")
        judged(runs / who, n_right, "one")
    told = result()
    assert told["metric"] == "score" and told["pgr"]["value"] == pytest.approx(0.5)
    assert told["weak"]["score"] == pytest.approx(6 - 4 * 0.68) and "acc" not in told["weak"]
    assert told["agreement"] == told["diagnostics"] == {}
    DRAW(told, "runs/pgr.png")
    judged(runs / "ceiling", 88, "another")
    with pytest.raises(BadInput, match="runs/weak and runs/ceiling were judged by different"):
        pgr.main()


def judged(path, n_right, judge):
    """Write scores of 100 texts: 2 for the first, 6 for the others."""
    inputs = {"model": files.read_card(path)["model_sha256"], "judge": judge}
    rows = [{"id": str(i), "score": 2.0 if i < n_right else 6.0} for i in range(100)]
    about = CARD | {"inputs": inputs, "test_groups": [row["id"] for row in rows]}
    about |= {"rows_sha256": "these"}
    files.write_jsonl(path / "eval/sst2-test.jsonl", rows, about)


def test_rows_of_other_texts_under_the_same_ids_are_refused(runs, capsys):
    score(runs / "student", 75, rows_sha256="others")
    told = "runs/weak and runs/student answered other texts under the same ids"
    with pytest.raises(BadInput, match=told):
        pgr.main()
    assert result(other_texts=True)["notes"] == [told]
    score(runs / "student", 75, rows_sha256=None)
    assert "note: the card of runs/student's predictions lacks rows_sha256" in told_by(capsys)
    for who in RIGHT:
        files.card_path(runs / who / "eval/sst2-test.jsonl").unlink()
    told = result()
    assert told["groups"] == 100 and "every row counts as a group" in told["notes"][1]


def test_predictions_that_were_edited_are_refused_unless_their_card_is_gone(runs):
    path = runs / "student/eval/sst2-test.jsonl"
    path.write_text(path.read_text().replace('"prob": 0.1', '"prob": 1.1'))
    with pytest.raises(BadInput, match="'prob' is 1.1; it must be a number from 0 to 1"):
        pgr.main()
    path.write_text(path.read_text().replace('"prob": 1.1', '"prob": 0.3'))
    with pytest.raises(BadInput, match="sst2-test.jsonl .100 rows. differs from"):
        pgr.main()
    files.card_path(path).unlink()
    assert "0.3" in path.read_text() and result()["student"]["acc"] == 0.78


def told_by(capsys, *patterns):
    """What pgr.py prints."""
    capsys.readouterr()
    result(*patterns)
    return capsys.readouterr().out


def test_a_copied_seed_is_refused_and_one_run_in_two_places_is_told(runs, capsys):
    change(runs / "s1/student", model_sha256=str(runs / "s0/student"))
    score(runs / "s1/student", 75)
    with pytest.raises(
        BadInput, match="s0/student and runs/s1/student hold the same model: a copy"
    ):
        pgr.main(*SEEDS)
    told = told_by(capsys, "runs/weak", "runs/../runs/weak", "runs/ceiling")
    assert "note: runs/weak and runs/../runs/weak are one and the same model" in told
    for seed in ("s0", "s1"):  # what was never trained is the same for every seed
        change(runs / seed / "student", stage="eval", model_sha256="hub")
        score(runs / seed / "student", 75)
    assert result(*SEEDS)["seeds"] == 2


def test_what_differs_between_seeds_or_between_student_and_ceiling_is_told(runs):
    new_run(runs / "s1/student", "student", args={"loss": "xent", "seed": 1, "out": "elsewhere"})
    assert result(*SEEDS)["notes"] == ["the runs of runs/s*/student differ in loss: conf, xent"]
    new_run(runs / "ceiling", "ceiling", args={"model": "gpt2"}, data=DATA | {"n_train": 5})
    assert result()["notes"] == [
        "student and ceiling differ in model: gpt2-medium, gpt2",
        "runs/student and runs/ceiling were not trained on the same task, rows or halves",
    ]


def test_no_probe_and_an_option_that_a_stage_has_not_are_no_difference(runs):
    new_run(runs / "student", "student", args={"probe": False})
    new_run(runs / "ceiling", "ceiling")
    assert result()["notes"] == []


def test_what_labelled_is_named_where_it_is_not_the_supervisor_alone(runs):
    rows = [{"id": str(i), "weak": 0.9, "label": int(i < 3)} for i in range(4)]
    labels = runs / "labels.jsonl"
    sets = {"runs": ["runs/weak", "runs/b"]}, {"kind": "features"}
    for stage, args, by in (("label", sets[0], "of runs/weak + runs/b"),
                            ("controls", sets[1], "by controls.py --kind=features")):  # fmt: skip
        files.write_jsonl(labels, rows, CARD | {"stage": stage, "args": args})
        behind = ["runs/weak", "another"] if stage == "label" else ["runs/weak"]
        change(
            runs / "student", supervisor=behind, labels_from=stage,
            inputs={"labels": files.sha256(labels)},
        )  # fmt: skip
        assert result()["notes"] == [
            f"runs/student learned from labels {by} (75.0% of them right), so its PGR, taken "
            "against runs/weak, is not against what labelled"
        ]
    files.write_jsonl(labels, [{"id": "0", "weak": "Nf3"}], CARD | {"args": {"runs": ["runs/b"]}})
    student = CARD | {"stage": "train_strong", "args": {"labels": str(labels), "target": "weak"}}
    student |= {"labels_from": "label", "inputs": {"labels": files.sha256(labels)}}
    student |= {"supervisor": ["of runs/b", "x"]}  # of moves
    assert doubts.teachers({"model_sha256": "of runs/b"}, student, "w", "s") == [
        "s learned from labels of runs/b, so its PGR, taken against w, is not against what labelled"
    ]
    labels.write_text("made anew")
    assert "labels by controls.py, so its PGR" in result()["notes"][0]
    change(runs / "student", supervisor=["another"])
    wanted = "runs/student did not learn from the labels of runs/weak as it is now"
    assert result()["notes"] == [wanted]


def test_chance_is_told_once_and_last(runs, capsys):
    for seed in ("s0", "s1"):
        score(runs / seed / "weak", 50)
    told = told_by(capsys, *SEEDS)
    assert told.count("at chance") == 1 and "at chance" in told.splitlines()[-1]
    assert "at chance" not in told_by(capsys)


def test_another_metric_is_asked_for_by_name(runs, capsys):
    told = result(*SEEDS, metric="nll", want=0.05)
    nll = [-(n * math.log(0.9) + (100 - n) * math.log(0.1)) / 100 for n in RIGHT.values()]
    assert [told[who]["nll"] for who in RIGHT] == pytest.approx(nll)
    assert told["pgr"]["value"] == pytest.approx(0.5) and told["metric"] == "nll"
    assert "acc" not in told["weak"] and told["agreement"]["all"]["value"] == pytest.approx(0.9)
    DRAW(told, "runs/pgr.png")
    shown = capsys.readouterr().out
    assert "2 seeds" not in shown and "for a PGR known to +-0.05" in shown and "rows\n" in shown
    assert {*told["needed"]} == {"2", "3", "5", "10", "20", "50"}
    assert result(*SEEDS, metric="nll", want=1e-9)["needed"]["2"] is None
    assert "   2 seed(s)  no number of rows is enough\n" in capsys.readouterr().out
    rows = [{"id": str(i), "label": i % 2, "prob": 0.2} for i in range(100)]
    path = runs / "student/eval/sst2-test.jsonl"
    files.write_jsonl(path, rows, files.read_card(path))
    with pytest.raises(BadInput, match="--metric=precision cannot be computed: the student nev"):
        pgr.main(metric="precision")
    with pytest.raises(BadInput, match="--metric=loss is not one of acc, balanced_acc"):
        pgr.main(metric="loss")
    with pytest.raises(BadInput, match="--metric=score: rows have no such metric"):
        pgr.main(metric="score")
    for who in RIGHT:
        new_run(runs / who, who, setting="moves")
    with pytest.raises(BadInput, match="--metric=auroc: puzzles have no such metric"):
        pgr.main(metric="auroc")


def test_no_rows_are_planned_from_a_gap_that_is_not_there(runs, capsys):
    turned = ["runs/ceiling", "runs/student", "runs/weak"]
    assert result(*turned, want=0.1)["needed"] == {}
    assert "+-0.1, no number of rows is known" in capsys.readouterr().out
    score(runs / "ceiling", 70)
    told = result(want=0.1)
    assert told["pgr"]["value"] is None and told["needed"]["1"] > 50
    assert "roughly, as the PGR is undefined" in capsys.readouterr().out
    score(runs / "weak", 70)
    assert result(want=0.1, metric="nll")["needed"] == {}  # no gap at all


def test_one_seed_says_that_other_seeds_are_not_covered(runs, capsys):
    assert "one seed: the intervals are for these runs" in told_by(capsys)
    assert not result()["seeds_covered"]
    assert "all seeds answer every row alike: the intervals" in told_by(capsys, *SEEDS)
    assert not result(*SEEDS)["seeds_covered"]
    score(runs / "s1/student", 79)
    assert "other seeds" not in told_by(capsys, *SEEDS) and result(*SEEDS)["seeds_covered"]


def test_paths_may_be_absolute_or_have_a_slash_too_many(runs):
    absolute = str((runs / "weak").resolve())
    pgr.main(absolute)
    assert (runs / "pgr.json").exists()
    assert pgr.pair_seeds(["runs//s*/weak/"]) == {"0": ["runs/s0/weak"], "1": ["runs/s1/weak"]}


def test_an_option_of_the_rule_that_is_0_is_told(runs):
    card = files.read_card(runs / "student")
    args = card["args"] | {"loss": "conf", "alpha": 0, "as_released": False}
    files.write_card(runs / "student", card | {"args": args})
    assert result()["student"]["rule"] == "conf alpha=0"


def test_seeds_are_paired_by_what_the_star_matched(runs):
    one = {"0": ["runs/s0/weak"] * 2, "1": ["runs/s1/weak"] * 2}
    assert pgr.pair_seeds(["runs/s*/weak", "runs/s*/weak"]) == one
    assert pgr.pair_seeds(["s0/weak", "s1/student"]) == {"": ["s0/weak", "s1/student"]}
    (runs / "s2/student").mkdir(parents=True)
    for patterns, told in (
        (["runs/s*/weak", "runs/s*/student"], r"no run for \* = 2"),
        (["s0/weak", "runs/s*/weak"], "all three with a ., or none"),
        (["t*/weak"], "matches no folder"),
        (["s?/weak"], "only . is understood"),
    ):
        with pytest.raises(BadInput, match=told):
            pgr.pair_seeds(patterns)


# ---- curves


def with_history(runs, n_rows, n_val=None):
    """Labels that are right on 60 %, and histories: best at step 2, most agreement at step 3."""
    rng = random.Random(0)
    rows = [{"id": str(i), "text": "a b", "label": rng.randint(0, 1)} for i in range(n_rows)]
    for i, row in enumerate(rows):
        row["weak"] = float(row["label"] if i % 10 < 6 else 1 - row["label"])
    files.write_jsonl(runs / "labels.jsonl", rows, CARD)
    for who, course in (("student", [(0.7, 0.6), (0.8, 0.7), (0.75, 0.9), (0.65, 0.8)]),
                        ("ceiling", [(0.9, 0.9)])):  # fmt: skip
        lines = [{"step": i, "epoch": i / 2, "loss": 1.0, "true_acc": true, "agreement": agreement}
                 for i, (true, agreement) in enumerate(course)]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (runs / who / "history.jsonl").write_text(text)
        card = files.read_card(runs / who)
        inputs = {"labels": files.sha256(runs / "labels.jsonl")}
        args = card["args"] | {"n_val": n_val}
        change(runs / who, inputs=inputs, kept=lines[-1], args=args)
    return rows


def test_curves_tell_three_pgrs_with_the_error_of_few_rows(runs, capsys):

    rows = with_history(runs, 8_000)
    held_out = files.hold_out([{"group": row["id"]} | row for row in rows], None, 1)[1]
    weak = sum((row["weak"] > 0.5) == row["label"] for row in held_out) / len(held_out)
    told = result(curves=True)["stopping"]
    for name, accuracy in (("best", 0.8), ("stopped", 0.75), ("final", 0.65)):
        one = told[name]
        assert one["value"] == pytest.approx((accuracy - weak) / (0.9 - weak))
        assert one["low"] < one["value"] < one["high"] and one["reason"] is None
    assert "runs/student                  0.800   0.50   0.750   1.00  0.650" in (
        capsys.readouterr().out
    )
    assert (runs / "pgr.curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_on_few_rows_tell_no_pgr_but_why(runs):
    """A demo told -.217 [-.857, .143] of 100 rows, where the test rows gave .489."""
    with_history(runs, 200, n_val=20)
    told = result(curves=True)["stopping"]
    assert [one["value"] for one in told.values()] == [None] * 3
    assert "holds 0: there is no gap to recover" in told["best"]["reason"]


def test_curves_need_the_same_rows_held_out(runs):
    with pytest.raises(BadInput, match="runs/student is no student or ceiling that held out rows"):
        pgr.main(curves=True)
    with_history(runs, 200)
    card = files.read_card(runs / "ceiling")
    change(runs / "ceiling", args=card["args"] | {"n_val": 50})
    with pytest.raises(BadInput, match="runs/student and runs/ceiling held out other rows"):
        pgr.main(curves=True)
    (runs / "labels.jsonl").write_text("anew")
    with pytest.raises(BadInput, match="labels.jsonl has changed since runs/student"):
        pgr.main(curves=True)


def test_there_are_no_curves_of_runs_on_easy_rows_alone():
    """Which rows such a run held out cannot be read off its labels file."""
    card = {"args": {"labels": "labels.jsonl", "easy": 20}, "kept": {"true_acc": 0.5}}
    with pytest.raises(BadInput, match="held out rows of the whole file"):
        curves.held_out("runs/student", card)


@pytest.mark.parametrize(
    ("runs", "out"),
    [
        (("runs/weak", "runs/student", "runs/ceiling"), "runs/pgr.json"),
        (("runs/s*/weak", "runs/s*/student", "runs/s*/ceiling"), "runs/pgr.json"),
        (("s*/weak", "s*/student", "s*/ceiling"), "pgr.json"),
        (("runs/a/weak", "runs/a/student", "runs/b/ceiling"), "runs/pgr.json"),
        (("/x/a/weak", "/x/a/student", "/x/a/ceiling"), "/x/a/pgr.json"),
    ],
)
def test_the_result_goes_where_the_runs_are(runs, out):
    assert pgr.beside_all(*runs) == out
