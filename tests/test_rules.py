"""Recipes of results/rules.md at toy size; ensembles, controls, probes and prompts by hand."""

import importlib
import inspect
import itertools
import json
import random
import re
import shlex
import shutil
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CARD, slow

import controls
import eval
import label
import pgr
import sweep
import tasks
import texts
import train_strong
import train_weak
from w2s import cli, files, grids, losses, models, probes, protocol, votes
from w2s.files import HERE, BadInput

RECIPES = (HERE / "results/rules.md").read_text()
SMALL = {"n_train": 300, "n_test": 200}


def read(path):
    return [json.loads(line) for line in open(path)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder where four stages have run on facts: 200 rows trained on, 100 held out."""
    runs = tmp_path_factory.mktemp("rules") / "runs"
    train_weak.main(out=f"{runs}/weak", **SMALL)
    label.main(f"{runs}/weak")
    for target in ("weak", "truth"):
        train_strong.main(f"{runs}/labels.jsonl", target=target)
    eval.main(*(f"{runs}/{name}" for name in ("weak", "student", "ceiling")))
    return runs.parent


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def mine(home, tmp_path, monkeypatch):
    """A copy to spoil."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


# ---- the recipes


def recipes():
    """Every command of results/rules.md, as bash expands its loops and variables.

    Loops go round twice, which is enough for what one step hands to the next.
    """
    blocks = re.findall(r"^```\n(.*?)^```", RECIPES, re.S | re.M)
    script = "".join(block for block in blocks if not re.search(r"rules\.sh|python -c", block))
    script = re.sub(r"for s in (\d \d)[ \d]*;", r"for s in \1;", script)
    words = ["bash", "-c", 'python() { printf "%q " "$@"; echo; }\n' + script]
    told = subprocess.run(words, capture_output=True, text=True)
    assert not told.stderr
    return [shlex.split(line) for line in told.stdout.splitlines()]


@slow
def test_every_recipe_runs_at_toy_size_one_after_another(mine, monkeypatch):
    monkeypatch.setattr(pgr, "draw", lambda *_: None)  # slow
    done = recipes()
    assert len(done) > 25
    for script, *words in done:
        small = {}
        if script == "train_weak.py":
            small = SMALL
        elif script == "train_strong.py":
            small = {"epochs": 6 if "runs/said.jsonl" in words else 1}
        elif script == "eval.py" and "--model=facts/m" in words:
            small = {"n_test": 20}
        main = importlib.import_module(script.removesuffix(".py")).main
        args, options = cli.parse(main, words)
        main(*args, **options | small)
    with open("runs/imitator.json") as file:
        imitator = json.load(file)
    assert imitator["agreement"]["all"]["value"] > 0.9 and imitator["setting"] == "texts"
    before = read("runs/labels.jsonl")
    assert len(read("runs/agreed.jsonl")) < 300 and len(read("runs/sure.jsonl")) == 240
    for row, said in zip(before, read("runs/said.jsonl")):
        opinion = "yes" if row["weak"] > 0.5 else "no"
        assert said["text"] == f"{row['text']} I think this is {opinion} . What do you think ?"
        assert said["weak"] == row["weak"]
    assert {len(row["weak_all"]) for row in read("runs/voted.jsonl")} == {2}
    supervisors = [
        files.read_card(run)["model_sha256"] for run in ("runs/weak", "runs/chain1/student")
    ]
    assert files.read_card("runs/chain2/student")["supervisor"] == supervisors[::-1]
    assert files.read_card("runs/shots5")["args"]["shots"] == 5
    check_truncated(before, read("runs/f8.jsonl"))


def check_truncated(before, labelled):
    """The labels of controls.py --kind=features --dims=8 are scikit-learn's, nearly all."""
    from sklearn.linear_model import LogisticRegression

    taught = protocol.half(texts, files.read_card("runs/labels.jsonl")["data"], "weak")
    net, tokenizer = models.load("facts/m")
    rows = texts.encode(taught + before, tokenizer, net)
    x = probes.features(net, [row["tokens"] for row in rows]).numpy()[:, :8]
    reference = LogisticRegression(C=1e6, solver="newton-cholesky")
    reference.fit(x[: len(taught)], [row["label"] for row in taught])
    said = np.array([row["weak"] for row in labelled])
    assert np.mean(reference.predict(x[len(taught) :]) == said) > 0.9 and len(set(said)) == 2


def test_every_rule_is_among_the_recipes_and_in_the_help():
    told = re.findall(r"^\| `(\w+)` \|", RECIPES, re.M)
    helped = re.findall(r"^    (\w+)  +\S.*$", train_strong.__doc__, re.M)
    assert told == list(losses.LOSSES) and helped[: len(told)] == told


def test_a_rules_default_spelled_out_is_the_same_run(mine, capsys):
    for options in ({}, {"alpha": 0.5, "conf_prior": "half"}):
        train_strong.main("runs/labels.jsonl", out="runs/conf", loss="conf", epochs=1, **options)
    assert "already done" in capsys.readouterr().out


def test_a_run_of_a_rule_that_was_edited_since_is_not_done(mine, tmp_path, monkeypatch):
    """Neither alone nor in a grid, where it would stand beside runs of the rule as it is now."""
    asked = {"pairs": [("facts", "facts/xs", "facts/m")], "seeds": 1, "rules": {}}
    asked["rules"] = {name: {"loss": name} for name in ("xent", "conf")}

    def undone():
        return {*grids.undone(sweep.stages_of(str(tmp_path / "grid"), asked, {}))}

    for node in sweep.stages_of(str(tmp_path / "grid"), asked, {}).values():
        args = {"labels": node["words"][1]} | node["options"]
        inputs = {"rule": node.get("code", ""), "labels": "", "model": ""}
        card = CARD | {"args": args, "inputs": inputs, "model_sha256": "", "sha256": ""}
        files.write_card(node["out"], card)
        Path(node["out"]).touch()
    assert undone() == set()
    train_strong.main("runs/labels.jsonl", out="runs/edited", loss="conf", epochs=1)
    monkeypatch.setitem(losses.LOSSES, "conf", losses.LOSSES["logconf"] | {"loss": edited})
    sweep.code_of.cache_clear()
    assert undone() == {"facts/s0/facts-xs-facts-m-conf", "facts/s0/facts-xs-facts-m-conf.eval"}
    monkeypatch.setitem(losses.LOSSES, "xent", losses.LOSSES["xent"] | {"loss": edited})
    sweep.code_of.cache_clear()
    assert {"facts/s0/ceiling-facts-m", "facts/s0/facts-xs-facts-m-xent"} < undone()
    sweep.code_of.cache_clear()
    with pytest.raises(BadInput, match="other arguments or inputs .rule is not the same, or has"):
        train_strong.main("runs/labels.jsonl", out="runs/edited", loss="conf", epochs=1)


def test_who_edits_what_a_rule_calls_has_edited_the_rule(monkeypatch):
    """mix calls reverse_xent, which calls log_odds; xent neither. conf names WARM_UP."""
    rules = [losses.xent, losses.mix, types.FunctionType(by_lambda.__code__, vars(losses))]
    before = [train_strong.code_of(rule) for rule in rules]
    monkeypatch.setattr(edited, "__module__", losses.__name__)
    monkeypatch.setattr(losses, "log_odds", edited)
    after = [train_strong.code_of(rule) for rule in rules]
    assert before[0] == after[0] and before[1] != after[1] and before[2] != after[2]
    before = train_strong.code_of(losses.conf)
    monkeypatch.setattr(losses, "WARM_UP", 0.9)
    assert (
        train_strong.code_of(losses.conf) != before and train_strong.code_of(rules[0]) == after[0]
    )


def test_a_comment_more_is_no_other_rule(monkeypatch):
    before, source = train_strong.code_of(losses.xent), inspect.getsource(losses.xent)
    told = [source.replace("    return", "    # a remark\n    return"), source.replace("-", "+")]
    for text, same in zip(told, (True, False)):
        monkeypatch.setattr(inspect, "getsource", lambda one, text=text: text)
        assert (train_strong.code_of(losses.xent) == before) is same and text != source


def by_lambda(logits, weak, progress):
    return sum(map(lambda one: log_odds(one), [logits]))  # noqa: F821


def edited(logits, weak, progress, alpha=0.5, prior="half"):
    return losses.conf(logits, weak, progress, alpha, prior) * 2


# ---- ensembles


def test_soft_votes_over_several_classes_are_averaged_class_by_class():
    each = [[0.1, 0.2, 0.7], [0.3, 0.2, 0.5]]
    assert votes.combine(each, "soft") == pytest.approx([0.2, 0.2, 0.6])


def test_supervisors_vote():
    for each, soft, hard, weighed in (
        ([0.9, 0.6], 0.75, 1, (0.675, 1)),
        ([0.4, 0.3], 0.35, 0, (0.325, 0)),
        ([0.5, 0.9], 0.7, 0.5, (0.8, 0.75)),
    ):
        assert votes.combine(each, "soft") == pytest.approx(soft)
        assert votes.combine(each, "hard") == hard
        told = [votes.combine(each, vote, [0.25, 0.75]) for vote in ("soft", "hard")]
        assert told == pytest.approx(weighed)


def test_weights_that_leave_one_supervisor_alone_are_told(capsys):
    for weights, alone in (([0.004, 0.996], True), ([0.3, 0.7], False)):
        votes.tell_weights(["runs/a", "runs/b"], np.array(weights))
        told = capsys.readouterr().out
        assert ("all weight is on runs/b: these are its labels alone" in told) == alone


def test_weights_are_those_of_the_highest_likelihood():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    means = [np.where(truth == 1, good, 1 - good) for good in (0.7, 0.6, 0.5)]
    probs = np.array([np.clip(mean + rng.normal(0, 0.25, 400), 0.01, 0.99) for mean in means])
    likelihood = np.where(truth == 1, probs, 1 - probs)
    assert np.array_equal(votes.of_labels(probs, truth), likelihood)
    learned = votes.learn(likelihood)
    pairs = (pair for pair in itertools.product(range(51), repeat=2) if sum(pair) <= 50)
    grid = [np.array([a, b, 50 - a - b]) / 50 for a, b in pairs]
    best = max(grid, key=lambda weights: np.log(weights @ likelihood).sum())
    assert learned.sum() == pytest.approx(1) and 0.02 < learned[1] < 0.98
    assert np.abs(learned - best).max() < 0.03
    assert np.log(learned @ likelihood).sum() >= np.log(best @ likelihood).sum() - 1e-6


def test_filters_keep_the_confident_and_the_unanimous_rows_in_order(monkeypatch):
    monkeypatch.setattr(label, "BATCH", 2)
    weak = [0.6, 0.1, 0.9, 0.45, 0.7]
    each = [[0.7, 0.5], [0.1, 0.1], [0.8, 1.0], [0.3, 0.6], [0.6, 0.8]]
    rows = [{"weak": one, "weak_all": said} for one, said in zip(weak, each)]
    for select, keep, wanted in (
        ("all", 0.6, [0.1, 0.9, 0.7]),
        ("agreement", 1.0, [0.1, 0.9, 0.7]),
        ("agreement", 0.7, [0.1, 0.9]),
        ("all", 1.0, weak),
    ):
        assert [row["weak"] for row in label.chosen(rows, select, keep)] == wanted
    with pytest.raises(BadInput, match="=agreement --keep=0.4 leave 1 of 5 rows: a batch needs 2"):
        label.chosen(rows, "agreement", 0.4)


def test_even_hard_votes_say_how_ties_fall(capsys):
    rows = [{"weak": weak, "label": 1} for weak in (0.5, 1.0, 0.5)]
    card = {"models": ["facts/xs"], "data": {"ds": "facts"}, "test_rows": False}
    label.tell(texts, "out.jsonl", rows, rows, card)
    told = capsys.readouterr().out
    assert "2 of 3 votes are tied: their label is 0.5, which counts as 0" in told
    assert "33.3% of the weak labels are right" in told


def test_bootstrap_draws_whole_groups_with_replacement():
    rows = [{"id": str(i), "group": str(i // 4)} for i in range(800)]
    one, two = (train_weak.resampled(rows, seed) for seed in (1, 2))
    assert one != two and len(one) == len(two) == 800
    assert len({row["group"] for row in one}) / 200 == pytest.approx(1 - np.exp(-1), abs=0.1)
    assert all(one[i : i + 4] == [r for r in rows if r["group"] == one[i]["group"]]
               for i in range(0, 800, 4))  # fmt: skip
    assert train_weak.resampled(rows, 1) == one


# ---- controls


def test_simulated_supervisors_err_as_often_but_elsewhere():
    rng = random.Random(0)
    rows = [{"text": "x" * n, "label": n % 2, "weak": rng.random()} for n in range(1, 41)]
    strong = [rng.random() for _ in rows]
    own = {i for i, row in enumerate(rows) if (row["weak"] > 0.5) != (row["label"] == 1)}
    assert controls.errors(rows, "own", rng) == own
    k, doubts = len(own), {i: abs(p - 0.5) for i, p in enumerate(strong)}
    wrong = {i: p if rows[i]["label"] == 0 else 1 - p for i, p in enumerate(strong)}
    wanted = {
        "longest": set(range(40 - k, 40)),
        "shortest": set(range(k)),
        "unconfident": set(sorted(doubts, key=doubts.get)[:k]),
        "confident": set(sorted(wrong, key=wrong.get)[:k]),
    }
    for kind, chosen in wanted.items():
        assert controls.errors(rows, kind, rng, strong) == chosen
    one, two = (controls.errors(rows, "random", random.Random(seed)) for seed in (1, 2))
    assert len(one) == len(two) == k and one != two


# ---- probes


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "distilbert", "roberta"])
def test_features_are_what_the_final_layer_reads(tiny, tmp_path, monkeypatch, architecture):
    monkeypatch.chdir(tmp_path)
    net, tokenizer = models.load(tiny(architecture))
    tokens = tokenizer(["abc", "b", "hello there", "hello thera", "zz top"]).input_ids
    x = probes.features(net, tokens)
    layer = probes.final_layer(net)[1]
    torch.testing.assert_close(layer(x), models.predict(net, tokens), rtol=0, atol=2e-5)
    assert x.shape == (5, 32) and len(list((tmp_path / "runs/features").iterdir())) == 1
    if architecture == "llama":
        from transformers import AutoModel

        body = AutoModel.from_pretrained(tiny(architecture), dtype=torch.float32).eval()
        with torch.no_grad():
            wanted = [body(torch.tensor([ids])).last_hidden_state[0, -1] for ids in tokens]
        torch.testing.assert_close(x, torch.stack(wanted), rtol=0, atol=1e-5)


def test_features_are_computed_once_and_kept_by_content(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, tokenizer = models.load(tiny("gpt2"))
    tokens = tokenizer(["abc", "b"]).input_ids
    x, before = probes.features(net, tokens), probes.content(net, tokens, None)
    with torch.no_grad():
        net.score.weight.add_(1)  # the head is no part of the features
    monkeypatch.setattr(probes, "predict", None)
    assert torch.equal(probes.features(net, tokens), x)
    changed = [probes.content(net, other, None) for other in (tokens[:1], [tokens[0]] * 2)]
    net.config.n_head *= 2  # the same weights in another model
    changed.append(probes.content(net, tokens, None))
    net.config.n_head //= 2
    assert probes.content(net, tokens, None) == before
    with torch.no_grad():
        net.transformer.h[0].mlp.c_fc.bias[0] += 1
    changed.append(probes.content(net, tokens, None))
    assert len({before, *changed}) == 5
    with pytest.raises(TypeError):
        probes.features(net, tokens)


def test_a_probe_reaches_the_logistic_regression(here):
    """scikit-learn as the oracle: the same features, no penalty, no intercept; test accuracy."""
    from sklearn.linear_model import LogisticRegression

    data = protocol.describe(texts, "facts")
    train, test = protocol.half(texts, data, "strong"), protocol.test_rows(texts, data)
    net, tokenizer = models.load("facts/m")
    rows = texts.encode(train + test, tokenizer, net)
    x, n = probes.features(net, [row["tokens"] for row in rows]), len(train)
    y = torch.tensor([float(row["label"]) for row in rows])
    reference = LogisticRegression(C=1e6, fit_intercept=False, solver="newton-cholesky")
    reference.fit(x[:n], y[:n])
    # D.2's 200 epochs at 1e-3 come near
    for epochs, lr, near in ((300, 3e-2, 0.01), (200, 1e-3, 0.03)):
        layer, given = torch.nn.Linear(64, 2, bias=False), y[:n]
        history = probes.train(layer, x[:n], given, given, n, losses.xent, epochs, 128, lr)
        ours = (layer(x[n:]).diff(dim=1)[:, 0] > 0).numpy()
        right = (ours == y[n:].numpy()).mean()
        assert abs(right - reference.score(x[n:], y[n:])) < near and len(history) == epochs


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_rule_trains_a_probe(name):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 8, generator=generator)
    truth = (x[:, 0] > 0).float()
    given = (0.2 + 0.6 * truth + 0.2 * torch.rand(120, generator=generator)).clamp(0, 1)
    history = probes.train(
        torch.nn.Linear(8, 2), x, given, truth, 80, losses.rule(name)[0], 40, 20, 1e-2
    )
    assert history[-1]["true_acc"] > 0.7


def test_a_probe_leaves_the_body_alone_and_keeps_the_weights_that_agree_best(here):
    train_strong.main("runs/labels.jsonl", out="runs/probe", probe=True, epochs=30, seed=3)
    card, history = files.read_card("runs/probe"), read("runs/probe/history.jsonl")
    assert card["kept"] == max(history, key=lambda line: (line["agreement"], line["step"]))
    assert len(history) == 30 and card["args"]["batch_size"] == 128
    assert (card["resolved"]["lr"], card["resolved"]["head_lr"]) == (1e-3, 1e-3)
    before, (after, tokenizer) = models.load("facts/m")[0], models.load("runs/probe/model")
    old, new = before.state_dict(), after.state_dict()
    assert {name for name in new if not torch.equal(new[name], old[name])} == {"score.weight"}
    held_out = files.hold_out(read("runs/labels.jsonl"), None, 32)[1]
    probs = np.array(texts.answer(after, tokenizer, held_out))
    weak = np.array([row["weak"] for row in held_out])
    assert np.mean((probs > 0.5) == (weak > 0.5)) == pytest.approx(card["kept"]["agreement"])
    # what eval.py and label.py say is the same, by features that stay for the next probe
    before = len(list(files.Path("runs/features").iterdir()))
    said = [tasks.answers(texts, run, held_out) for run in ("runs/probe", "runs/probe")]
    assert said[0] == said[1] and np.allclose(said[0], probs, rtol=0, atol=1e-6)
    assert len(list(files.Path("runs/features").iterdir())) == before + 1


def test_the_seeds_and_rules_of_an_encoders_probes_share_one_set_of_features(mine, tiny):
    """DistilBERT's layer before the last starts at random, for all seeds alike."""
    rows = [row for row in read("runs/labels.jsonl")[:80]]
    with open("few.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    before = set(files.Path("runs").glob("features/*"))
    how = {"model": tiny("distilbert"), "probe": True, "epochs": 1, "batch_size": 32}
    for seed, loss in ((0, "xent"), (1, "conf")):
        train_strong.main("few.jsonl", out=f"runs/encoder{seed}", seed=seed, loss=loss, **how)
    assert len(set(files.Path("runs").glob("features/*")) - before) == 1


def test_of_equally_good_probes_the_latest_is_kept():
    x = torch.randn(40, 1)
    truth = (x[:, 0] >= 0).float()  # right from the first step on
    layers = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(1, 2, bias=False)
    history = probes.train(layers[0], x, truth, truth, 30, losses.xent, 5, 10, 1e-2)
    # nothing held out: the last
    probes.train(layers[1], x[:30], truth[:30], truth[:30], 30, losses.xent, 5, 10, 1e-2)
    assert [line["agreement"] for line in history] == [1.0] * 5
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_a_probe_that_does_not_stop_has_the_last_weights(here):
    how = {"probe": True, "epochs": 6, "lr": 1.0}
    for stop in (True, False):
        train_strong.main("runs/labels.jsonl", out=f"runs/probe-{stop}", stop=stop, **how)
    best, last = (files.read_card(f"runs/probe-{stop}") for stop in (True, False))
    assert best["kept"]["epoch"] < 6 and last["kept"]["epoch"] == 6  # else nothing is seen here
    assert best["model_sha256"] != last["model_sha256"]
    _, tokenizer = models.load("runs/probe-False/model")
    held_out = files.hold_out(read("runs/labels.jsonl"), None, 32)[1]
    said = np.array(tasks.answers(texts, "runs/probe-False", held_out)) > 0.5
    weak = np.array([row["weak"] for row in held_out]) > 0.5
    assert np.mean(said == weak) == pytest.approx(last["kept"]["agreement"])


# ---- bad input

LABELS = "runs/labels.jsonl"
PROMPT = ["eval.py", "--model=facts/m", "--out=n"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["label.py", "runs/weak", "--weights"], "--weights needs several supervisors, there is"),
        (["label.py", "runs/weak", "--select=agreement"], "--select needs several supervisors"),
        (["label.py", "runs/weak", "--keep=0.02"], "=0.02 leave 6 of 300 rows: a batch needs 32"),
        (["label.py", "runs/weak", "--keep=1.5"], "--keep=1.5 must be from 0 to 1"),
        (
            ["label.py", "runs/weak", "runs/student", "--weights"],
            "runs/student did not hold out the same rows",
        ),
        (["label.py", "runs/weak", "runs/ceiling"], "runs/ceiling has learned the ground truth of"),
        (["label.py", "runs/weak", "--part=3/2"], "--part=3/2 is no part of n"),
        (["train_strong.py", LABELS, "--alpha=0.7"], "alpha is no option of the rule xent"),
        (
            ["train_strong.py", LABELS, "--loss=conf", "--alpha=7"],
            "--alpha=7.0 must be from 0 to 1",
        ),
        (["train_strong.py", LABELS, "--loss=window", "--radius=0.9"], "--radius=0.9 must be from"),
        (["train_strong.py", LABELS, "--probe", "--head=zero"], "--head does not go with --probe"),
        (["train_strong.py", "runs/tested.jsonl"], "runs/tested.jsonl holds test rows"),
        (["eval.py", "runs/student", "--head=zero"], "--head goes with --model and --out; of a"),
        (["eval.py", "runs/student", "--shots=0"], "--shots goes with --model and --out; of a"),
        (["eval.py", "runs/student", "--max_len=9"], "--max_len goes with --model: a trained run"),
        ([*PROMPT, "--shots=6", f"--labels={LABELS}"], "has 70 tokens, the context 64"),
        ([*PROMPT, "--shots=1", "--labels=runs/tested.jsonl"], "may be in no prompt"),
        (
            ["pgr.py", "runs/weak", "runs/weak", "runs/ceiling", "--curves"],
            "runs/weak is no student or ceiling that held out",
        ),
        (["controls.py", LABELS, "--kind=shortset"], "--kind=shortset is not one of own, random"),
        (["controls.py", LABELS, "--kind=own", "--out=n"], "--out=n: labels end in .jsonl"),
        (["controls.py", LABELS, "--kind=confident", "--run=no"], "no does not exist"),
        (
            ["controls.py", LABELS, "--kind=features", "--dims=99", "--model=facts/xs"],
            "--dims=99: facts/xs has 32 features",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(here, command, capsys, words, told):
    if "runs/tested.jsonl" in " ".join(words) and not (here / "runs/tested.jsonl").exists():
        label.main("runs/weak", test_rows=True, out="runs/tested.jsonl")
    if words[0] != "pgr.py" and not any("--out" in w for w in words) and words[1] != "runs/student":
        words = [*words, "--out=n.jsonl" if words[0] in ("label.py", "controls.py") else "--out=n"]
    before = {path for path in here.rglob("*") if "features" not in str(path)}
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert {path for path in here.rglob("*") if "features" not in str(path)} == before
