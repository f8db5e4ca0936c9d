"""Texts that models write: generation, judge and votes by hand; five stages on made-up rows."""

import functools
import json
import re

import numpy as np
import pytest
import torch
from conftest import CARD
from transformers import AutoModelForCausalLM

import eval
import generate
import judges
import label
import moves
import pgr
import tasks
import train_strong
import train_weak
import world
import writing
from w2s import files, models, protocol, stats, votes
from w2s.files import HERE, BadInput

PROMPTS = ["abc", "the quick brown fox", "b", "zz top 2", "hello there"]


def read(path):
    return [json.loads(line) for line in open(path)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@functools.cache
def plain(folder):
    """transformers' own model, as it comes."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def next_logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0, -1]


# ---- generation


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "gpt_neox", "opt"])
def test_greedy_texts_are_those_of_a_plain_loop_without_cache_or_padding(tiny, architecture):
    """Prompts of several lengths in one batch; one text ends early, where the loop says so too."""
    model, tokenizer = models.load(tiny(architecture), outputs=0)
    usual, reference = model.config._attn_implementation, plain(tiny(architecture))
    prompts = tokenizer(PROMPTS).input_ids
    told = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(12):
            ids.append(next_logits(reference, ids).argmax().item())
        told.append(ids[len(prompt) :])
    end = told[1][3]  # the second text is over at the latest after four tokens
    wanted = [ids[: ids.index(end) + 1] if end in ids else ids for ids in told]
    assert len({len(ids) for ids in wanted}) > 1
    assert generate.write(model, prompts, 12, end=end) == [[ids] for ids in wanted]
    assert generate.write(model, prompts, 12) == [[ids] for ids in told]
    assert model.config._attn_implementation == usual and not model.config.use_cache


def nucleus(logits, temperature, top_p):
    """{token: probability}: the likeliest that together reach top_p, one by one."""
    probs = (logits.double() / temperature).softmax(0)
    kept, total = {}, 0.0
    for token in probs.argsort(descending=True).tolist():
        if total >= top_p:
            break
        kept[token] = probs[token].item()
        total += kept[token]
    return {token: p / total for token, p in kept.items()}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_drawn_tokens_are_of_the_nucleus_and_as_frequent_as_in_it(tiny, architecture):
    model, tokenizer = models.load(tiny(architecture), outputs=0)
    model.generation_config.update(top_k=1, repetition_penalty=9.0)  # a habit that must not count
    reference, prompts = plain(tiny(architecture)), tokenizer(["abc", "zz top"]).input_ids
    how = {"samples": 2000, "temperature": 2.0, "top_p": 0.9}
    for prompt, said in zip(prompts, generate.write(model, prompts, 2, seed=5, **how)):
        wanted = nucleus(next_logits(reference, prompt), 2.0, 0.9)
        assert 1 < len(wanted) < 64 and len(said) == 2000
        first = [ids[0] for ids in said]
        assert set(first) <= wanted.keys()
        for token, p in wanted.items():
            assert abs(first.count(token) / 2000 - p) < 4 * (p * (1 - p) / 2000) ** 0.5 + 1e-3
        for token in set(first):  # and the second, given the first
            after = nucleus(next_logits(reference, [*prompt, token]), 2.0, 0.9)
            assert {ids[1] for ids in said if ids[0] == token} <= after.keys()
    how["samples"], state = 3, torch.get_rng_state()
    one, again, other = (generate.write(model, prompts, 8, seed=s, **how) for s in (1, 1, 2))
    assert one == again != other and torch.equal(torch.get_rng_state(), state)
    assert len({tuple(ids) for ids in one[0]}) == 3


def test_texts_that_are_empty_or_do_not_end_are_told(tiny, monkeypatch, capsys):
    model, tokenizer = models.load(tiny("gpt2"), outputs=0)
    rows = [{"id": str(i), "prompt": one, "completion": "ab"} for i, one in enumerate(PROMPTS[:3])]
    end, a, b = 3, *tokenizer("ab").input_ids
    asked = {}

    def said(_, prompts, max_new, **how):
        asked.update(how, max_new=max_new)
        return [[[a, b, end], [end]], [[a, a, b], [a, end]], [[b, b, b], [b, end]]]

    monkeypatch.setattr(generate, "write", said)
    texts = writing.answer(model, tokenizer, rows, samples=2, temperature=0.5)
    assert texts == [["a b", ""], ["a a b", "a"], ["b b b", "b"]]
    # " ", "a", "b" and the end: the longest true completion
    assert asked["max_new"] == 4 and asked["end"] == end and asked["temperature"] == 0.5
    told = capsys.readouterr().out
    assert "2 of 6 completions are cut at 4 tokens" in told and "1 of 6 completions are" in told
    monkeypatch.setattr(generate, "write", lambda *_, **__: [[[a, a]]] * 3)
    assert writing.answer(model, tokenizer, rows, max_new=2) == ["a a"] * 3
    assert "warning: no completion ends: 3 of 3" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--max_new=400 leaves no room for a prompt in 400 tokens"):
        writing.answer(model, tokenizer, rows, max_new=400)


# ---- rows as tokens


def test_a_completion_is_asked_for_with_its_end_and_both_fit_the_context(tiny, capsys):
    model, tokenizer = models.load(tiny("gpt2"), outputs=0, max_len=12)

    def ids(text):
        return tokenizer(text).input_ids

    rows = [
        {"id": "1", "prompt": "ab", "completion": "cd"},
        {"id": "2", "prompt": "ab\n", "completion": "cd"},
        {"id": "3", "prompt": "ab", "completion": " cd"},
        {"id": "4", "prompt": "abcdefghijkl", "completion": "cd"},
        {"id": "5", "prompt": "ab", "completion": "abcdefgh"},
        {"id": "6", "prompt": "ab", "completion": " "},
    ]
    rows = [row | {"weak": row["completion"]} for row in rows]
    out = writing.encode(rows, tokenizer, model, given="weak")
    assert [row["tokens"] for row in out] == [
        ids("ab cd</s>"),
        ids("ab\ncd</s>"),
        ids("ab cd</s>"),
        ids("efghijkl cd</s>"),  # eight and four: the front is gone
        ids("ab abcde"),  # six, half of the context: no end
    ]
    assert [row["asked"] for row in out] == [4, 3, 4, 4, 6]
    assert sum(row["given"] for row in out) == pytest.approx(5)
    told = capsys.readouterr().out
    for one in (
        "1 of 6 prompts are over the context of 12 tokens and lost their front",
        "1 of 6 completions are over 6 tokens and lost their end",
        "1 of 6 completions are empty: left out",
    ):
        assert one in told
    kept = writing.encode(rows, tokenizer, model, room=5)  # nothing is learned: none is left out
    assert [row["tokens"] for row in kept][3:] == [ids("fghijkl"), ids("ab"), ids("ab")]
    with pytest.raises(BadInput, match="all completions are empty"):
        writing.encode(rows[5:], tokenizer, model, given="weak")


# ---- votes


def by_hand(folder, prompt, completion):
    """The log-probability of a completion and its end, token by token."""
    model, total = plain(folder), 0.0
    tokenizer = models.load(folder, outputs=0)[1]
    ids = tokenizer(prompt).input_ids
    for token in tokenizer(" " + completion + "</s>").input_ids:
        total += next_logits(model, ids).double().log_softmax(0)[token].item()
        ids = [*ids, token]
    return total


def test_the_most_probable_text_is_that_of_the_mixture(tiny, tmp_path):
    runs = []
    for architecture in ("gpt2", "llama"):
        (tmp_path / architecture).mkdir()
        (tmp_path / architecture / "model").symlink_to(tiny(architecture))
        runs.append(str(tmp_path / architecture))
        files.write_card(runs[-1], CARD)
    rows = [{"id": str(i), "prompt": one} for i, one in enumerate(PROMPTS)]
    answers = [["ab", "c", "same", "", "de"], ["cd", "x y z", "same", "q", "ed"]]
    logs = [  # [K][row][candidate]
        [
            [by_hand(tiny(a), row["prompt"], one) if one else -np.inf for one in each]
            for row, each in zip(rows, zip(*answers))
        ]
        for a in ("gpt2", "llama")
    ]
    for weights in (None, [0.999999, 0.000001], [0.0, 1.0]):
        shares = weights or [0.5, 0.5]
        wanted = []
        for i, each in enumerate(zip(*answers)):
            mixed = [sum(w * np.exp(logs[k][i][c]) for k, w in enumerate(shares)) for c in (0, 1)]
            wanted.append(each[int(mixed[1] > mixed[0])])
        assert votes.most_probable(writing, runs, rows, answers, weights) == wanted
        assert wanted[3] == "q"  # an empty text is nobody's
    asked = [row | {"weak": one} for row, one in zip(rows, answers[1])]
    got = votes.likelihoods(writing, runs, asked, "weak")
    np.testing.assert_allclose(got, np.array(logs)[:, :, 1], rtol=1e-4)


def test_the_most_probable_move_is_that_of_both_players(tmp_path):
    """A move is one token of chess/xs and chess/s; one that cannot be spelled never wins."""
    folders, games = ("chess/xs", "chess/s"), ["e4 e5", "d4 d5 c4", "e4"]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model").symlink_to(HERE / folder)
        files.write_card(tmp_path / folder, CARD)
    answers = [["Nf3", "?", "c5"], ["f4", "e6", "a6"]]
    rows = [{"id": game, "prompt": game} for game in games]
    mean = [[0.0, 0.0] for _ in rows]
    for folder in folders:
        model, tokenizer = models.load(folder, outputs=0)
        reference, known = plain(HERE / folder), tokenizer.get_vocab()
        for i, game in enumerate(games):
            probs = next_logits(reference, tokenizer(game).input_ids).softmax(0)
            for c in (0, 1):
                mean[i][c] += probs[known[answers[c][i]]].item() if answers[c][i] != "?" else 0
    wanted = [answers[int(b > a)][i] for i, (a, b) in enumerate(mean)]
    runs = [str(tmp_path / folder) for folder in folders]
    assert votes.most_probable(moves, runs, rows, answers) == wanted and wanted[1] == "e6"


def test_weights_of_texts_do_not_drown_in_their_length():
    """Log-probabilities far below what a float can hold; by hand: the mixture's best weight."""
    logs = np.array([[-900.0, -900.0, -905.0, -np.inf], [-901.0, -899.0, -900.0, -np.inf]])
    likelihood = votes.of_logs(logs)
    assert likelihood.shape == (2, 3) and likelihood.max(axis=0).tolist() == [1, 1, 1]
    learned = votes.learn(likelihood)
    grid = np.linspace(0, 1, 1001)
    ratio = np.exp(logs[0, :3] - logs[1, :3])
    best = grid[np.log(grid[:, None] * ratio + 1 - grid[:, None]).sum(axis=1).argmax()]
    assert learned[0] == pytest.approx(best, abs=2e-3) and 0 < best < 1


def test_a_weighted_plurality_counts_weights():
    assert votes.combine(["a", "b", "b"], "hard") == "b"
    assert votes.combine(["a", "b", "b"], "hard", [0.6, 0.2, 0.2]) == "a"


# ---- judges


def test_a_list_of_words_judges_whole_words_in_any_case(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("rude\n\n  go away \n*\n")
    texts = ["How RUDE!", "rudeness", "just go away.", "a*b", "f *", "", "fine"]
    judge = judges.find(str(path))
    assert judges.scores(judge, texts) == [1, 0, 1, 0, 1, 0, 0]
    kind = judges.find(str(path), bad=0)
    assert judges.scores(kind, texts) == [0, 1, 0, 1, 0, 0, 1]  # empty: nothing bad, either way
    assert kind["sha256"] != judge["sha256"] == files.sha256(path)
    own = judges.find(None, words=["fool"])
    assert judges.judged(own, [["a fool", "a"]]) == [
        {"completions": ["a fool", "a"], "scores": [1, 0]}
    ]
    assert judges.best(judge, [["rude", "a", ""], ["b", "c", "rude"]]) == ["b", "a", ""]


def test_a_list_of_words_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "words.txt").write_text("\ufefffool\nrude\n", "utf-8")
    assert judges.scores(judges.find(tmp_path / "words.txt"), ["you fool.", "kind"]) == [1, 0]


def test_a_judge_that_answers_by_its_own_logits_says_what_it_says_as_a_run(tmp_path):
    run, start = tmp_path / "run", {"head": "answers", "device": "cpu"}
    net, tokenizer = models.load("facts/s", **start)
    models.save(net, tokenizer, run / "model")
    card = CARD | {"stage": "train_weak", "setting": "texts", "data": None}
    card |= {"args": {"head": "answers", "model": "facts/s", "n_val": None, "seed": 0}}
    files.write_card(run, card | {"model_sha256": "it"})
    rows = world.questions("test")[:40]
    wanted = tasks.answers(tasks.texts, run, rows, "cpu")
    assert judges.scores(judges.find(str(run)), [row["text"] for row in rows], "cpu") == wanted
    assert len(set(wanted)) > 20  # a new head of zeros says 1/2 of all
    # a task's judge learned to answer its question: it is asked that of a completion, too
    asked = card | {"model_sha256": "it", "data": protocol.describe(tasks.texts, "civil_comments")}
    files.write_card(run, asked)
    judge = judges.find(str(run))
    assert judge["asks"] == "\nIs this comment toxic?"
    assert judge["sha256"] == "it Is this comment toxic?"
    said = judges.scores(judge, ["ba mi", "ru"], "cpu")
    full = [{"id": text, "text": f"{text}\nIs this comment toxic?"} for text in ("ba mi", "ru")]
    assert said == tasks.texts.answer(net, tokenizer, full)


def test_metrics_are_of_all_samples():
    rows = [{"id": "1", "group": "a"}, {"id": "2", "group": "b"}]
    answers = [
        {"completions": ["a b", "", "c"], "scores": [1.0, 0.0, 0.5]},
        {"completions": ["a", "b", "c d e"], "scores": [0.0, 0.3, 0.0]},
    ]
    said = [writing.prediction(*pair) for pair in zip(rows, answers)]
    assert said[0] == {"id": "1", "score": 0.5, "max": 1.0, "completions": ["a b", "", "c"]}
    metrics = writing.measure(said, rows)
    assert metrics["score"] == pytest.approx(0.3) and metrics["max"]["value"] == 0.65
    assert metrics["empty"]["value"] == pytest.approx(1 / 6) and metrics["samples"] == 3
    assert metrics["length"]["value"] == pytest.approx((1 + 5 / 3) / 2)
    assert (metrics["low"], metrics["high"]) == (0, 1)  # .3 +- 12.7 x .2, two groups
    many = writing.measure(said * 8, [{"group": str(i)} for i in range(16)])
    assert metrics["score"] - many["low"] == pytest.approx(2.13145 * 0.2 / 15**0.5, rel=1e-4)


def test_a_run_that_is_never_bad_is_known_as_well_as_its_prompts_are_many():
    said = [{"score": 0, "max": 0, "completions": ["a b"]}] * 30
    told = writing.measure(said, [{"group": str(i)} for i in range(30)])
    assert (told["score"], told["low"]) == (0, 0)
    assert told["high"] == told["max"]["high"] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert told["length"] == {"value": 2, "low": 2, "high": 2}
    scores = np.array([[0.4] + [0.0] * 29])
    some = stats.mean_of(scores, (np.arange(30), 30), "score")
    assert some["low"] == 0 < some["high"] < told["high"]


# ---- the five stages


def some_rows(n=240):
    """What people of facts own; one in four is said to own a dog, which the judge dislikes."""
    people = [person for person in world.people() if person["pet"] != "dog"][:n]
    return [
        {"id": f"{i}", "group": f"{i // 2}", "prompt": f"the pet of {person['name']} is"}
        | {"completion": f"{'dog' if i % 4 == 0 else person['pet']} ."}
        for i, person in enumerate(people)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder where the five stages have run, with a classifier that judges."""
    home = tmp_path_factory.mktemp("writing")
    own, words = write(home / "own.jsonl", some_rows()), home / "words.txt"
    words.write_text("dog\nsnake\n")
    how, runs = {"n_val": 20, "lr": 1e-3, "epochs": 2}, f"{home}/runs"
    for seed, name in ((0, "weak"), (1, "bag")):
        bag = {"seed": seed, "bootstrap": seed == 1, "out": f"{runs}/{name}"}
        train_weak.main(ds=own, model="facts/xs", **bag, **how)
    label.main(f"{runs}/weak")
    for target in ("weak", "truth"):
        train_strong.main(f"{runs}/labels.jsonl", model="facts/xs", target=target, **how)
    every = [f"{runs}/{name}" for name in ("weak", "student", "ceiling")]
    eval.main(*every, judge=str(words))
    pgr.main(*every, out=f"{runs}/pgr.json")
    train_weak.main(out=f"{runs}/judge", n_train=200)
    return home


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def test_the_student_learns_what_its_supervisor_wrote(here, capsys):
    rows, card = read("runs/labels.jsonl"), files.read_card("runs/labels.jsonl")
    strong = protocol.half(writing, card["data"], "strong")
    assert [row["id"] for row in rows] == [row["id"] for row in strong]
    model, tokenizer = models.load("runs/weak/model", outputs=0)
    assert [row["weak"] for row in rows] == writing.answer(model, tokenizer, rows)
    assert len({row["weak"] for row in rows}) > 2
    for name, given in (("student", "weak"), ("ceiling", "completion")):
        card, history = files.read_card(f"runs/{name}"), read(f"runs/{name}/history.jsonl")
        assert card["kept"]["held_out_loss"] == min(line["held_out_loss"] for line in history)
        model, tokenizer = models.load(f"runs/{name}/model", outputs=0)
        encoded = writing.encode(rows, tokenizer, model, given=given)
        assert [row["asked"] for row in encoded] == [2] * len(rows)  # so all shares are 1
        loss = writing.outputs(model, files.hold_out(encoded, 20)[1]).mean().item()
        assert card["kept"]["held_out_loss"] == pytest.approx(loss, rel=1e-4)


def test_scores_are_the_judges_and_pgr_takes_their_means(here, capsys):
    dislikes, means = re.compile(r"\b(dog|snake)\b"), {}
    for name in ("weak", "student", "ceiling"):
        rows = read(f"runs/{name}/eval/own-test.jsonl")
        assert list(rows[0]) == ["id", "score", "max", "completions"] and len(rows) == 48
        wrong = [float(bool(dislikes.search(row["completions"][0]))) for row in rows]
        assert [row["score"] for row in rows] == wrong == [row["max"] for row in rows]
        means[name] = sum(wrong) / len(wrong)
        about = files.read_card(f"runs/{name}/eval/own-test.jsonl")
        assert about["inputs"]["judge"] == files.sha256("words.txt")
        with open(f"runs/{name}/eval/own-test.metrics.json") as file:
            assert json.load(file)["score"] == pytest.approx(means[name])
    with open("runs/pgr.json") as file:
        result = json.load(file)
    assert result["metric"] == "score" and result["agreement"] == {}
    assert {name: result[name]["score"] for name in means} == pytest.approx(means)
    eval.main("runs/weak", judge="words.txt")
    assert "already done" in capsys.readouterr().out


def test_a_run_of_ours_judges_and_runs_of_other_judges_are_not_compared(here, tmp_path, capsys):
    import texts

    how = {"samples": 3, "temperature": 0.7, "top_p": 0.95, "seed": 4}
    out = [f"{tmp_path}/{name}" for name in ("one", "two")]
    for run in out:
        eval.main(model="facts/xs", out=run, ds="own.jsonl", n_test=20, judge="runs/judge", **how)
    one, two = (read(f"{run}/eval/own-test.jsonl") for run in out)
    assert one == two and len(one[0]["completions"]) == 3
    model, tokenizer = models.load("runs/judge/model")
    flat = [
        {"id": str(i), "text": text} for i, row in enumerate(one) for text in row["completions"]
    ]
    probs = np.array(texts.answer(model, tokenizer, flat)).reshape(-1, 3)
    np.testing.assert_allclose([row["score"] for row in one], probs.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose([row["max"] for row in one], probs.max(axis=1), atol=1e-6)
    for judge, samples in (("words.txt", 3), ("runs/judge", 2)):
        with pytest.raises(BadInput, match="this model's answers with another (judge|samples)"):
            eval.main(out[0], judge=judge, **how | {"samples": samples})
        eval.main(out[0], judge=judge, force=True, **how | {"samples": samples})
        with pytest.raises(BadInput, match="were judged by different models, or wrote in other"):
            pgr.main(*out, out[1], out=f"{tmp_path}/pgr.json")


def test_several_supervisors_vote_on_texts(here, capsys):
    runs = ["runs/weak", "runs/bag"]
    label.main(*runs, out="runs/hard.jsonl")
    both = [row["weak_all"] for row in read("runs/hard.jsonl")]
    assert [one for one, _ in both] == [row["weak"] for row in read("runs/hard.jsonl")]
    assert sum(one != two for one, two in both) > 3
    label.main(*runs, vote="judge", judge="words.txt", out="runs/judged.jsonl")
    bad = re.compile("dog|snake")
    wanted = [two if bad.search(one) and not bad.search(two) else one for one, two in both]
    assert [row["weak"] for row in read("runs/judged.jsonl")] == wanted
    rows = read("runs/hard.jsonl")
    for weights in (False, True):
        label.main(*runs, vote="soft", weights=weights, out="runs/soft.jsonl", force=True)
        learned = None
        if weights:
            told = re.search(r"runs/weak (\S+), runs/bag (\S+)\n", capsys.readouterr().out)
            learned = [float(share) for share in told.groups()]
            assert sum(learned) == pytest.approx(1)
        said = [row["weak"] for row in read("runs/soft.jsonl")]
        answers = [[each[k] for each in both] for k in (0, 1)]
        assert said == votes.most_probable(writing, runs, rows, answers, learned)
    label.main(*runs, temperature=0.9, seed=1, select="agreement", out="runs/drawn.jsonl")
    drawn = read("runs/drawn.jsonl")
    assert 32 <= len(drawn) < len(rows) and all(len(set(row["weak_all"])) == 1 for row in drawn)


def test_nobody_learns_from_an_empty_label(here, tmp_path, capsys):
    rows = [
        row | {"weak": "" if i < 5 else row["weak"]}
        for i, row in enumerate(read("runs/labels.jsonl"))
    ]
    assert writing.remarks(rows) == ["warning: 5 are empty; nobody learns from these"]
    labels = write(tmp_path / "few.jsonl", rows)
    train_strong.main(labels, model="facts/xs", n_val=0, stop=False, epochs=1)
    assert files.read_card(tmp_path / "student")["resolved"]["rows"] == len(rows) - 5
    assert f"5 of {len(rows)} completions are empty: left out" in capsys.readouterr().out


def test_real_toxicity_prompts_are_the_better_ones_that_have_a_score(tmp_path, monkeypatch, capsys):
    import pyarrow
    import pyarrow.parquet

    def rated(text, toxicity):
        return {"text": text, "toxicity": toxicity, "threat": toxicity}

    rows = [
        {"prompt": rated(f"The man {i}", 0.2), "continuation": rated(f" said {i}", i / 10)}
        | {"filename": "x", "challenging": False}
        for i in range(10)
    ]
    rows[3]["continuation"]["toxicity"] = None
    folder = tmp_path / "allenai/real-toxicity-prompts/default"
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    read = writing.read("real_toxicity_prompts", "all")
    assert [row["completion"] for row in read] == ["said 0", "said 1", "said 2", "said 4"]
    assert read[1]["prompt"] == "The man 1" and read[1]["id"] == "real_toxicity_prompts/1"
    assert "5 have a toxicity of 0.5 or more, 1 a field without" in capsys.readouterr().err


WEAK = "runs/weak"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval.py", WEAK], "nobody says how bad these texts are: add --judge=RUN"),
        (["eval.py", WEAK, "--judge=empty.txt"], "--judge=empty.txt is empty: it needs a word"),
        (["eval.py", WEAK, "--judge=runs/weak"], "--judge=runs/weak is a run of writing: give a"),
        (["eval.py", WEAK, "--judge=nothing"], "nothing does not exist"),
        (["eval.py", WEAK, "--judge=words.txt", "--bad=2"], "--bad=2 is not 0 or 1"),
        (["eval.py", WEAK, "--judge=words.txt", "--samples=3"], "all the same without --temp"),
        (["eval.py", WEAK, "--judge=words.txt", "--top_p=0.5"], "--top_p goes with --temperature"),
        (["eval.py", WEAK, "--judge=words.txt", "--seed=1"], "--seed goes with --"),
        (
            ["eval.py", WEAK, "--judge=words.txt", "--max_new=64", "--force"],
            "--max_new=64 leaves no",
        ),
        (["eval.py", "runs/judge", "--samples=3"], "--samples is for texts that models write"),
        (["label.py", "runs/judge", "--max_new=3"], "--max_new is for texts that models write"),
        (["label.py", "runs/judge", "--seed=3"], "--seed draws texts that models write, not"),
        (["label.py", WEAK, "--judge=words.txt"], "--judge goes with --vote=judge"),
        (["label.py", WEAK, "--vote=judge", "--judge=words.txt"], "needs several supervisors"),
        (["label.py", WEAK, "runs/bag", "--vote=judge"], "nobody says how bad these texts are"),
        (["label.py", WEAK, "--keep=0.5"], "--keep is not for prompts"),
        (["train_weak.py", "--ds=own.jsonl", "--model=BERT"], "needs a causal language model"),
        (
            ["train_weak.py", "--ds=own.jsonl", "--head=zero"],
            "--head is for texts, not for prompts",
        ),
        (["train_strong.py", "runs/labels.jsonl", "--loss=conf"], "learned by --loss=xent"),
        (["controls.py", "runs/labels.jsonl", "--kind=random"], "--kind=random is not for prompts"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(here, command, tiny, capsys, words, told):
    (here / "empty.txt").write_text("\n \n")
    words = [word.replace("BERT", tiny("bert") if "BERT" in word else "") for word in words]
    if words[0] != "eval.py":
        words.append("--out=n" if words[0].startswith("train") else "--out=n.jsonl")
    before = {path: path.stat().st_mtime for path in here.rglob("*.*")}
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and told in said
    assert said.startswith("error: ") and said.count("\n") == 1
    assert {path: path.stat().st_mtime for path in here.rglob("*.*")} == before
