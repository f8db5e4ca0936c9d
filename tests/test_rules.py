"""Ensembles, controls, probes and prompts: the pure parts by hand, the commands of the README at toy size."""

import importlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import controls
import eval
import label
import pgr
import prompting as prompt
import tasks
import train_strong
import train_weak
from w2s import cli, files, losses, models, stages
from w2s import probes as probe
from w2s.files import HERE, BadInput

SECTION = re.search(r"## Rules, ensembles.*?\n## ", (HERE / "README.md").read_text(), re.S)[0]
SMALL = {"n_test": 200}


def read(path):
    return [json.loads(line) for line in open(path)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder where the five stages have run on facts, with 200 test rows."""
    home = tmp_path_factory.mktemp("rules")
    runs = home / "runs"
    train_weak.main(out=f"{runs}/weak", **SMALL)
    label.main(f"{runs}/weak", out=f"{runs}/labels.jsonl")
    for name, target in (("student", "weak"), ("ceiling", "truth")):
        train_strong.main(f"{runs}/labels.jsonl", out=f"{runs}/{name}", target=target)
    eval.main(*(f"{runs}/{name}" for name in ("weak", "student", "ceiling")))
    return home


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


# ---- the README


def commands():
    """Every command of the README's section on rules, as bash expands its loops and variables."""
    blocks = "".join(
        block for kind, block in re.findall(r"```(\w*)\n(.*?)```", SECTION, re.S) if not kind
    )
    told = subprocess.run(
        ["bash", "-c", 'python() { printf "%q " "$@"; echo; }\n' + blocks],
        capture_output=True,
        text=True,
    )
    assert not told.stderr
    return [shlex.split(line) for line in told.stdout.splitlines()]


def test_every_command_of_the_readme_runs_at_toy_size_one_after_another(here):
    done = commands()
    assert len(done) > 30
    for script, *words in done:
        small = (
            [f"--{name}={value}" for name, value in SMALL.items()]
            if script == "train_weak.py"
            else []
        )
        small = ["--n_test=200"] if script == "eval.py" and "--model=facts/m" in words else small
        main = importlib.import_module(script.removesuffix(".py")).main
        args, options = cli.parse(main, words + small)
        main(*args, **options)
    imitator = json.loads((here / "runs/imitator.json").read_text())
    assert imitator["agreement"]["all"]["value"] > 0.95 and imitator["notes"] == []
    assert len(read("runs/agreed.jsonl")) < 800 and len(read("runs/sure.jsonl")) == 640
    assert json.loads((here / "runs/pgr.json").read_text())["stopping"].keys() == {
        "best",
        "stopped",
        "final",
    }
    assert (here / "runs/pgr.curves.png").read_bytes().startswith(b"\x89PNG")
    assert len({len(row["weak_all"]) for row in read("runs/boosted.jsonl")} & {4}) == 1
    first, second = (
        files.read_card(run)["model_sha256"] for run in ("runs/weak", "runs/chain1/student")
    )
    assert files.read_card("runs/chain2/student")["supervisor"] == [second, first]


def test_the_readmes_new_rule_is_one_function_and_one_line_that_work(monkeypatch):
    code = re.search(r"```python\n(.*?)```", SECTION, re.S)[1]
    function, line = code.rstrip().rsplit("\n\n", 1)
    exec(function, losses.__dict__)
    monkeypatch.setitem(losses.LOSSES, "focal", eval_line(line)["focal"])
    monkeypatch.delattr(losses, "focal")
    logits, weak = torch.randn(6, 2), torch.rand(6)
    out = losses.rule("focal")["loss"](logits, weak, 0.5)
    assert out.shape == (6,) and (out < losses.xent(logits, weak)).all()


def eval_line(line):
    return __builtins__["eval"](f"{{{line}}}", losses.__dict__)


def test_every_rule_is_in_the_readme_and_in_the_help():
    told = re.findall(r"^\| `(\w+)` \|", SECTION, re.M)
    helped = re.findall(r"^    (\w+)  +\S.*$", train_strong.__doc__, re.M)
    assert told == list(losses.LOSSES) and helped[: len(told)] == told


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_rule_trains_a_student_and_a_probe(here, name):
    for options in ({}, {"probe": True, "epochs": 2}):
        out = f"runs/rule/{name}{len(options)}"
        train_strong.main("runs/labels.jsonl", out=out, loss=name, **options)
        assert stages.finished_run(out)["kept"]["weak_acc"] > 0.4


# ---- ensembles


def test_supervisors_vote():
    probs = np.array([[0.9, 0.4, 0.5], [0.6, 0.3, 0.9]])
    assert label.combine(probs, "soft").tolist() == pytest.approx([0.75, 0.35, 0.7])
    assert label.combine(probs, "hard").tolist() == [1, 0, 0.5]
    assert label.combine(probs, "soft", [0.25, 0.75]).tolist() == pytest.approx([0.675, 0.325, 0.8])
    assert label.combine(probs, "hard", [0.25, 0.75]).tolist() == [1, 0, 0.75]


def test_weights_that_leave_one_supervisor_alone_are_told(capsys):
    for weights, told in (([0.004, 0.996], True), ([0.3, 0.7], False)):
        label.tell(["runs/a", "runs/b"], [], "soft", np.array(weights))
        assert (
            "all weight is on runs/b: these are its labels alone" in capsys.readouterr().out
        ) == told


def test_weights_are_those_of_the_highest_likelihood():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    probs = np.array([np.clip(np.where(truth == 1, good, 1 - good) + rng.normal(0, 0.25, 400), 0.01, 0.99)
                      for good in (0.7, 0.6, 0.5)])  # fmt: skip
    learned = label.learn(probs, truth)
    likelihood = np.where(truth == 1, probs, 1 - probs)
    grid = [
        (a / 50, b / 50, 1 - (a + b) / 50)
        for a, b in itertools.product(range(51), repeat=2)
        if a + b <= 50
    ]
    best = max(grid, key=lambda w: np.log(np.array(w) @ likelihood).sum())
    assert (
        learned.sum() == pytest.approx(1)
        and np.abs(learned - best).max() < 0.03
        and 0.02 < learned[1] < 0.98
    )
    assert np.log(learned @ likelihood).sum() >= np.log(np.array(best) @ likelihood).sum() - 1e-6


def test_filters_keep_the_confident_and_the_unanimous_rows_in_order(monkeypatch):
    monkeypatch.setattr(label, "BATCH", 2)
    rows = [{"weak": weak, "weak_all": each} for weak, each in
            [(0.6, [0.7, 0.5]), (0.1, [0.1, 0.1]), (0.9, [0.8, 1.0]), (0.45, [0.3, 0.6]), (0.7, [0.6, 0.8])]]  # fmt: skip
    assert [row["weak"] for row in label.chosen(rows, "all", 0.6)] == [0.1, 0.9, 0.7]
    assert [row["weak"] for row in label.chosen(rows, "agreement", 1.0)] == [0.1, 0.9, 0.7]
    assert [row["weak"] for row in label.chosen(rows, "agreement", 0.7)] == [0.1, 0.9]
    assert label.chosen(rows, "all", 1.0) == rows
    with pytest.raises(
        BadInput, match="--select=agreement --keep=0.4 leave 1 of 5 rows: a batch needs 2"
    ):
        label.chosen(rows, "agreement", 0.4)


def test_even_hard_votes_say_how_ties_fall(here, capsys):
    train_weak.main(out="runs/other", seed=5, bootstrap=True, **SMALL)
    label.main("runs/weak", "runs/other", out="runs/tied.jsonl", vote="hard")
    ties = sum(row["weak"] == 0.5 for row in read("runs/tied.jsonl"))
    assert (
        ties
        and f"{ties} of 800 votes are tied (2 supervisors): their label is 0.5, which counts as 0"
        in capsys.readouterr().out
    )


def test_bootstrap_draws_whole_groups_with_replacement_and_holds_out_the_same_rows(
    here, monkeypatch
):
    seen = []

    def spy(net, train, given, held_out, **_):
        seen.append(([row["id"] for row in train], [row["id"] for row in held_out]))
        raise KeyboardInterrupt

    monkeypatch.setattr("w2s.loop.fit", spy)
    for k, options in enumerate(
        [{"seed": 1}, {"seed": 1, "bootstrap": True}, {"seed": 2, "bootstrap": True}]
    ):
        with pytest.raises(KeyboardInterrupt):
            train_weak.main(out=f"runs/drawn{k}", **options, **SMALL)
    (plain, held), (one, held_one), (two, held_two) = seen
    assert held == held_one == held_two and not set(held) & set(one) and one != two
    groups = [name.rsplit("/", 1)[0] for name in one]
    assert len(one) == len(plain) and set(one) < set(plain)
    assert len(set(groups)) / len(set(name.rsplit("/", 1)[0] for name in plain)) == pytest.approx(
        1 - np.exp(-1), abs=0.15
    )
    assert all(one.count(name) == groups.count(group) // 4 for name, group in zip(one, groups))


def test_boosting_leaves_each_supervisors_errors_half_the_weight(monkeypatch):
    rows = [{"label": 1}] * 5
    answers = {"a/model": [0.9, 0.9, 0.9, 0.9, 0.1], "b/model": [0.9, 0.9, 0.9, 0.2, 0.8]}
    monkeypatch.setattr(models, "probabilities", lambda name, *_, **__: answers[name])
    assert train_weak.boosted(rows, ["a"], None, None).tolist() == [
        1,
        1,
        1,
        1,
        4,
    ]  # error 1/5: times 4
    assert train_weak.boosted(rows, ["a", "b"], None, None).tolist() == [
        1,
        1,
        1,
        7,
        4,
    ]  # error 1/8: times 7
    answers["a/model"] = [0.1] * 4 + [0.9]
    with pytest.raises(BadInput, match="a errs on 80% of the .weighted. rows"):
        train_weak.boosted(rows, ["a"], None, None)


# ---- controls


def test_simulated_supervisors_err_as_often_but_elsewhere():
    import random

    rng = random.Random(0)
    rows = [{"text": "x" * n, "label": n % 2, "weak": rng.random()} for n in range(1, 41)]
    strong = [rng.random() for _ in rows]
    own = {i for i, row in enumerate(rows) if (row["weak"] > 0.5) != (row["label"] == 1)}
    assert controls.errors(rows, "own", rng) == own
    k = len(own)
    wanted = {
        "longest": set(range(40 - k, 40)),
        "shortest": set(range(k)),
        "unconfident": set(sorted(range(40), key=lambda i: abs(strong[i] - 0.5))[:k]),
        "confident": set(
            sorted(range(40), key=lambda i: strong[i] if rows[i]["label"] == 0 else 1 - strong[i])[
                :k
            ]
        ),
    }
    for kind, wrong in wanted.items():
        assert controls.errors(rows, kind, rng, strong) == wrong
    one, two = (
        controls.errors(rows, "random", random.Random(1)),
        controls.errors(rows, "random", random.Random(2)),
    )
    assert len(one) == len(two) == k and one != two


def test_controls_write_labels_files_at_equal_weak_accuracy(here):
    before = read("runs/labels.jsonl")
    for kind in ("own", "random", "longest", "confident"):
        controls.main("runs/labels.jsonl", kind=kind, out=f"runs/c/{kind}.jsonl")
        rows = read(f"runs/c/{kind}.jsonl")
        assert controls.accuracy(rows) == controls.accuracy(before) and {
            row["weak"] for row in rows
        } == {0.0, 1.0}
        assert [row["id"] for row in rows] == [row["id"] for row in before]
    assert [row["weak"] for row in read("runs/c/own.jsonl")] == [
        float(row["weak"] > 0.5) for row in before
    ]
    card = files.read_card("runs/c/random.jsonl")
    assert (
        card["supervisors"] == [files.read_card("runs/weak")["model_sha256"]]
        and card["data"]["ds"] == "facts"
    )
    controls.main("runs/labels.jsonl", kind="coin", out="runs/c/coin.jsonl")
    assert 0.35 < controls.accuracy(read("runs/c/coin.jsonl")) < 0.65
    controls.main("runs/labels.jsonl", kind="suffix", out="runs/c/suffix.jsonl")
    for row, said in zip(before, read("runs/c/suffix.jsonl")):
        opinion = "yes" if row["weak"] > 0.5 else "no"
        assert (
            said["text"] == f"{row['text']} I think this is {opinion} . What do you think ?"
            and said["weak"] == row["weak"]
        )


def test_a_truncated_supervisor_is_a_logistic_regression_on_the_first_features(here):
    controls.main(
        "runs/labels.jsonl", kind="features", model="facts/xs", dims=3, out="runs/c/three.jsonl"
    )
    from sklearn.linear_model import LogisticRegression

    data = files.read_card("runs/labels.jsonl")["data"]
    taught, rows = tasks.half(data, "weak"), read("runs/c/three.jsonl")
    net, tokenizer = models.load("facts/xs")
    x = hidden(
        "facts/xs", [row["tokens"] for row in models.encode([*taught, *rows], tokenizer, net)]
    )[:, :3]
    reference = LogisticRegression(C=1e6, max_iter=10_000).fit(
        x[:800], [row["label"] for row in taught]
    )
    agree = np.mean(reference.predict(x[800:]) == np.array([row["weak"] for row in rows]))
    assert agree > 0.9 and len({row["weak"] for row in rows}) == 2
    with pytest.raises(BadInput, match="--dims=99: facts/xs has 32 features"):
        controls.main(
            "runs/labels.jsonl", kind="features", model="facts/xs", dims=99, out="runs/c/no.jsonl"
        )


# ---- probes


def hidden(name, tokens):
    """Final hidden states of the last tokens [N, H], by transformers alone, one text at a time."""
    from transformers import AutoModel

    body = AutoModel.from_pretrained(
        HERE / name if name.startswith("facts/") else name, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        return np.array(
            [body(torch.tensor([ids])).last_hidden_state[0, -1].tolist() for ids in tokens]
        )


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "distilbert", "roberta"])
def test_features_are_what_the_final_layer_reads(tiny, tmp_path, monkeypatch, architecture):
    monkeypatch.chdir(tmp_path)
    net, tokenizer = models.load(tiny(architecture))
    tokens = tokenizer(["abc", "b", "hello there", "hello thera", "zz top"]).input_ids
    x = probe.features(net, tokens)
    name, layer = probe.final_layer(net)
    torch.testing.assert_close(layer(x), models.predict(net, tokens), rtol=0, atol=2e-5)
    assert x.shape == (5, 32) and len(list((tmp_path / "runs/features").iterdir())) == 1
    if architecture in ("gpt2", "llama"):
        np.testing.assert_allclose(x.numpy(), hidden(tiny(architecture), tokens), atol=1e-5)


def test_features_are_computed_once_and_kept_by_content(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, tokenizer = models.load(tiny("gpt2"))
    tokens = tokenizer(["abc", "b"]).input_ids
    x = probe.features(net, tokens)
    with monkeypatch.context() as patch:
        patch.setattr(probe, "predict", None)
        assert torch.equal(probe.features(net, tokens), x)
        with torch.no_grad():
            net.score.weight.add_(1)  # the head is no part of the features
        assert torch.equal(probe.features(net, tokens), x)
        for other in (tokens[:1], [tokens[0], tokens[0]]):
            with pytest.raises(TypeError):
                probe.features(net, other)
        with torch.no_grad():
            net.transformer.h[0].mlp.c_fc.bias[0] += 1
        with pytest.raises(TypeError):
            probe.features(net, tokens)


def test_a_probe_reaches_the_logistic_regression(here):
    """scikit-learn as the oracle: the same features, no penalty, no intercept; accuracy on the test rows."""
    from sklearn.linear_model import LogisticRegression

    data = tasks.describe("facts")
    train, test = tasks.half(data, "strong"), tasks.test_rows(data)
    net, tokenizer = models.load("facts/m")
    x = probe.features(
        net, [row["tokens"] for row in models.encode([*train, *test], tokenizer, net)]
    )
    y = np.array([row["label"] for row in [*train, *test]])
    n, truth = len(train), torch.tensor(y, dtype=torch.float32)
    reference = LogisticRegression(C=1e6, fit_intercept=False, max_iter=100_000).fit(x[:n], y[:n])
    layer = torch.nn.Linear(64, 2, bias=False)
    history = probe.train(
        layer, x[:n], truth[:n], truth[:n], n, losses.xent, epochs=2000, batch_size=128, lr=1e-2
    )
    ours = (layer(x).diff(dim=1)[:, 0] > 0).numpy()
    assert abs((ours[n:] == y[n:]).mean() - reference.score(x[n:], y[n:])) < 0.01
    assert (ours[n:] == reference.predict(x[n:])).mean() > 0.97 and len(history) == 2000
    recipe = torch.nn.Linear(64, 2, bias=False)
    probe.train(
        recipe, x[:n], truth[:n], truth[:n], n, losses.xent, epochs=200, batch_size=128, lr=1e-3
    )
    of_recipe = ((recipe(x).diff(dim=1)[:, 0] > 0).numpy()[n:] == y[n:]).mean()
    assert abs(of_recipe - reference.score(x[n:], y[n:])) < 0.03  # D.2's 200 epochs come near


def test_a_probe_leaves_the_body_alone_and_keeps_the_weights_that_agree_best(here):
    train_strong.main("runs/labels.jsonl", out="runs/probe", probe=True, epochs=30, seed=3)
    card, history = files.read_card("runs/probe"), read("runs/probe/history.jsonl")
    assert (
        card["kept"] == max(history, key=lambda line: (line["weak_acc"], line["step"]))
        and len(history) == 30
    )
    assert (card["args"]["batch_size"], card["args"]["lr"], card["derived"]["head_lr"]) == (
        128,
        1e-3,
        1e-3,
    )
    before, after = models.load("facts/m")[0], models.load("runs/probe/model")[0]
    same = {
        name
        for name, weights in after.state_dict().items()
        if torch.equal(weights, before.state_dict()[name])
    }
    assert after.state_dict().keys() - same == {"score.weight"}
    labels = read("runs/labels.jsonl")
    held_out = files.hold_out(labels, None, 32)[1]
    probs = np.array(models.probabilities("runs/probe/model", held_out))
    weak = np.array([row["weak"] for row in held_out])
    assert np.mean((probs > 0.5) == (weak > 0.5)) == pytest.approx(card["kept"]["weak_acc"])


def test_the_seeds_and_rules_of_an_encoders_probes_share_one_set_of_features(here, tiny):
    """DistilBERT's layer before the last starts at random: the same for all seeds, or every seed would need features."""
    before = set((here / "runs/features").glob("*"))
    for seed, loss in ((0, "xent"), (1, "xent"), (1, "conf")):
        out = f"runs/encoder/{seed}{loss}"
        train_strong.main(
            "runs/labels.jsonl",
            model=tiny("distilbert"),
            out=out,
            probe=True,
            epochs=1,
            seed=seed,
            loss=loss,
        )
    assert len(set((here / "runs/features").glob("*")) - before) == 1


def test_of_equally_good_probes_the_latest_is_kept():
    x, truth = torch.randn(40, 1), torch.ones(40)
    truth[x[:, 0] < 0] = 0  # right from the first step on
    layers = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(1, 2, bias=False)
    history = probe.train(layers[0], x, truth, truth, 30, losses.xent, 5, 10, 1e-2)
    probe.train(
        layers[1], x[:30], truth[:30], truth[:30], 30, losses.xent, 5, 10, 1e-2
    )  # nothing held out: the last
    assert [line["weak_acc"] for line in history] == [1.0] * 5 and torch.equal(
        layers[0].weight, layers[1].weight
    )


# ---- prompts


def test_prompts_show_examples_with_the_chosen_labels_and_take_the_next_token(
    tiny, tmp_path, monkeypatch
):
    from transformers import AutoModelForCausalLM

    asked = []
    load = models.load

    def spy(*args):
        net, tokenizer = load(*args)

        class Spy:
            unk_token_id = tokenizer.unk_token_id

            def __call__(self, texts, **options):
                asked.append(texts)
                return tokenizer(texts, **options)

            def get_vocab(self):
                return tokenizer.get_vocab()

        return net, Spy()

    monkeypatch.setattr(models, "load", spy)
    examples = [{"text": "ab", "label": 0, "weak": 0.9}, {"text": "q", "label": 1, "weak": 0.8}]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    rows = [
        {"id": "1", "text": "cd"},
        {"id": "2", "text": "q"},
    ]  # the second stands among the examples: not shown
    probs = prompt.probabilities(tiny("gpt2"), rows, 1, str(tmp_path / "l.jsonl"), "weak", 0)
    assert asked[-1] == ["ab\n1\n\ncd\n", "ab\n1\n\nq\n"]
    prompt.probabilities(tiny("gpt2"), rows, 1, str(tmp_path / "l.jsonl"), "truth", 0)
    assert asked[-1][0] == "ab\n0\n\ncd\n"
    prompt.probabilities(tiny("gpt2"), rows, 0, None, "weak", 0)
    assert asked[-1] == ["cd\n", "q\n"]
    lm, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny("gpt2"), dtype=torch.float32).eval(),
        load(tiny("gpt2"))[1],
    )
    zero, one = tokenizer.get_vocab()["0"], tokenizer.get_vocab()["1"]
    for text, prob in zip(["ab\n1\n\ncd\n", "ab\n1\n\nq\n"], probs):
        with torch.no_grad():
            said = (
                lm(torch.tensor([tokenizer(text).input_ids]))
                .logits[0, -1, [zero, one]]
                .softmax(0)[1]
                .item()
            )
        assert prob == pytest.approx(said, abs=1e-5)
    with pytest.raises(BadInput, match="holds 1 rows that are no test rows, fewer than --shots=2"):
        prompt.probabilities(tiny("gpt2"), rows, 2, str(tmp_path / "l.jsonl"), "weak", 0)


# ---- diagnostics


def test_the_three_pgrs_of_a_history(here, tmp_path):
    """By hand: held-out accuracies from the labels file, the student's history and the ceiling's kept line."""
    pgr.main("runs/weak", "runs/student", "runs/ceiling", curves=True, out=str(tmp_path / "p.json"))
    told = json.loads((tmp_path / "p.json").read_text())["stopping"]
    held_out = files.hold_out(read("runs/labels.jsonl"), None, 32)[1]
    weak = np.mean([(row["weak"] > 0.5) == row["label"] for row in held_out])
    history, ceiling = (
        read("runs/student/history.jsonl"),
        files.read_card("runs/ceiling")["kept"]["true_acc"],
    )
    by_weak = max(range(len(history)), key=lambda i: (history[i]["weak_acc"], i))
    stops = {"best": max(line["true_acc"] for line in history), "stopped": history[by_weak]["true_acc"],
             "final": history[-1]["true_acc"]}  # fmt: skip
    assert ceiling != weak
    for name, accuracy in stops.items():
        assert told[name] == {
            "value": pytest.approx((accuracy - weak) / (ceiling - weak)),
            "low": None,
            "high": None,
        }


@pytest.fixture
def mine(home, tmp_path, monkeypatch):
    """A copy to spoil."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


def test_curves_tell_no_pgr_without_a_gap_or_on_different_rows(mine, tmp_path):
    card = files.read_card("runs/ceiling")
    card["kept"]["true_acc"] = 0.1  # below the supervisor
    files.write_card("runs/ceiling", card)
    pgr.main("runs/weak", "runs/student", "runs/ceiling", curves=True, out=str(tmp_path / "p.json"))
    told = json.loads((tmp_path / "p.json").read_text())["stopping"]
    assert list(told.values()) == [{"value": None, "low": None, "high": None}] * 3
    label.main("runs/weak", keep=0.5, out="sure.jsonl")
    train_strong.main("sure.jsonl", model="facts/m", out="runs/sure", epochs=1)
    eval.main("runs/sure")
    with pytest.raises(BadInput, match="runs/sure and runs/ceiling held out other rows"):
        pgr.main("runs/weak", "runs/sure", "runs/ceiling", curves=True)


def test_a_boosted_run_is_of_the_runs_that_it_was_boosted_from(mine):
    train_weak.main(out="runs/b", boost="runs/weak", **SMALL)
    train_weak.main(out="runs/weak", seed=9, force=True, **SMALL)
    with pytest.raises(BadInput, match="what runs/b was boosted from has been trained anew"):
        train_weak.main(out="runs/c", boost="runs/b", **SMALL)


def test_examples_that_have_changed_prompt_nobody(mine):
    shutil.copy("runs/labels.jsonl", "own.jsonl")
    eval.main(model="facts/m", shots=1, labels="own.jsonl", n_test=20, out="runs/asked")
    with open("own.jsonl", "a") as file:
        file.write(
            "\n".join(json.dumps(row | {"id": row["id"] + "/2"}) for row in read("own.jsonl")[:1])
            + "\n"
        )
    with pytest.raises(BadInput, match="own.jsonl has changed since runs/asked was made"):
        eval.main("runs/asked", n_test=30, force=True)


def test_features_of_the_same_weights_in_another_model_are_others(tiny):
    model, _ = models.load(tiny("gpt2"))
    before = probe.content(model, [[1, 2]], None)
    assert probe.content(model, [[1, 2]], None) == before
    model.config.n_head *= 2
    assert probe.content(model, [[1, 2]], None) != before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["label.py", "runs/weak", "--weights", "--out=n.jsonl"],
            "--weights needs several supervisors, there is one: runs/weak",
        ),
        (
            ["label.py", "runs/weak", "--select=agreement", "--out=n.jsonl"],
            "--select=agreement needs several supervisors",
        ),
        (
            ["label.py", "runs/weak", "--keep=0.02", "--out=n.jsonl"],
            "--keep=0.02 leave 16 of 800 rows: a batch needs 32",
        ),
        (
            ["label.py", "runs/weak", "--keep=1.5", "--out=n.jsonl"],
            "--keep must be from 0 to 1, not 1.5",
        ),
        (
            ["label.py", "runs/weak", "runs/student", "--weights", "--out=n.jsonl"],
            "runs/student did not hold out the same rows",
        ),
        (
            ["train_strong.py", "runs/labels.jsonl", "--alpha=0.7", "--out=n"],
            "alpha is no option of the rule xent",
        ),
        (
            ["train_strong.py", "runs/labels.jsonl", "--loss=conf", "--alpha=7", "--out=n"],
            "--alpha must be from 0 to 1, not 7",
        ),
        (
            ["train_strong.py", "runs/labels.jsonl", "--probe", "--head=zero", "--out=n"],
            "--head does not go with --probe",
        ),
        (
            ["train_strong.py", "runs/tested.jsonl", "--out=n"],
            "runs/tested.jsonl holds test rows (label.py --test_rows)",
        ),
        (
            ["train_weak.py", "--boost=runs/student", "--out=n"],
            "--boost=runs/student must be a supervisor of the same rows",
        ),
        (
            ["train_weak.py", "--boost=runs/weak", "--bootstrap", "--out=n"],
            "goes without --bootstrap",
        ),
        (
            ["train_weak.py", "--boost=runs/weak", "--out=runs/weak", "--force"],
            "not --out or boosted from itself",
        ),
        (
            ["label.py", "runs/weak", "runs/ceiling", "--out=n.jsonl"],
            "runs/ceiling has learned the ground truth of the rows",
        ),
        (
            ["train_strong.py", "--loss=window", "--radius=0.9", "--out=n"],
            "--radius must be from 0 to 0.5",
        ),
        (["eval.py", "runs/student", "--head=zero"], "--head and --max_len go with --model"),
        (
            ["pgr.py", "runs/weak", "runs/weak", "runs/ceiling", "--curves"],
            "runs/weak is no student or ceiling that held out",
        ),
        (
            ["controls.py", "runs/labels.jsonl", "--kind=shortset", "--out=n.jsonl"],
            "--kind=shortset is not one of own, random",
        ),
        (
            ["controls.py", "runs/labels.jsonl", "--kind=own", "--out=n"],
            "rows and labels end in .jsonl",
        ),
        (
            ["controls.py", "runs/labels.jsonl", "--kind=confident", "--run=no", "--out=n.jsonl"],
            "no does not exist",
        ),
        (
            ["eval.py", "--model=facts/m", "--shots=5", "--out=n"],
            "--shots=5 --labels=FILE go together",
        ),
        (
            ["eval.py", "--model=facts/m", "--shots=6", "--labels=runs/labels.jsonl", "--out=n"],
            "70 tokens, the context 64",
        ),
        (
            ["eval.py", "--model=facts/m", "--shots=1", "--labels=runs/tested.jsonl", "--out=n"],
            "must stand in no prompt",
        ),
        (
            ["eval.py", "runs/student", "--shots=0"],
            "--shots=5 --labels=FILE go together, with --model",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(here, monkeypatch, capsys, words, told):
    if "runs/tested.jsonl" in " ".join(words) and not (here / "runs/tested.jsonl").exists():
        label.main("runs/weak", test_rows=True, out="runs/tested.jsonl")
    monkeypatch.setattr(sys, "argv", words)
    before = sorted(here.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        cli.run(importlib.import_module(words[0].removesuffix(".py")).main)
    error = capsys.readouterr().err
    assert (
        stopped.value.code == 2
        and told in error
        and error.startswith("error: ")
        and error.count("\n") == 1
    )
    assert sorted(here.rglob("*")) == before
