"""Pairs: their rows, rewards and stages at toy size, and generative fine-tuning before them."""

import contextlib
import io
import itertools
import json
import random
import re

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import eval
import generative
import label
import pairs
import pgr
import train_strong
import train_weak
import world
from w2s import checks, files, lm, loop, models, packing, protocol
from w2s.files import HERE, BadInput
from w2s.losses import LOSSES

SMALL = {"n_train": 300, "n_test": 100, "batch_size": 50}


def make_pairs(n=40, seed=0):
    rng = random.Random(seed)

    def words(k):
        return "".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, k)))

    rows = [{"id": str(i), "group": str(i), "prompt": words(20)} for i in range(n)]
    rows = [row | {"a": words(9), "b": words(9) + "x"} for row in rows]
    return [row | {"label": rng.randrange(2), "weak": rng.random()} for row in rows]


def parameters(net):
    return torch.cat([p.detach().flatten().double() for p in net.parameters()])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in open(path)]


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """A folder where the stages have run on 300 pairs of facts_pairs: pairs/weak, bag, ..."""
    here = tmp_path_factory.mktemp("rm") / "pairs"
    for name, options in (("weak", {}), ("bag", {"bootstrap": True, "seed": 1})):
        train_weak.main(ds="facts_pairs", out=f"{here}/{name}", **options, **SMALL)
    labels = f"{here}/labels.jsonl"
    label.main(f"{here}/weak", out=labels)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        generative.main(labels, weak_too=True)
    assert f"next: python train_weak.py --ds=facts_pairs --n_train={SMALL['n_train']} " in (
        said.getvalue()
    )
    for target in ("weak", "truth"):
        train_strong.main(labels, model=f"{here}/base/model", target=target, batch_size=50)
    eval.main(*(f"{here}/{run}" for run in ("weak", "student", "ceiling")))
    return here


@pytest.fixture
def here(experiment, monkeypatch):
    monkeypatch.chdir(experiment)
    return experiment


# ---- rows


def test_halves_and_test_share_no_group_and_the_data_seed_moves_halves_and_sides():
    labels = []
    for data_seed in (0, 1):
        data = protocol.describe(pairs, "facts_pairs", data_seed)
        parts = [protocol.half(pairs, data, which) for which in ("weak", "strong")]
        parts.append(protocol.test_rows(pairs, data))
        assert list(map(len, parts)) == [8800, 8800, 1600]
        weak, strong, test = ({row["group"] for row in rows} for rows in parts)
        assert not weak & strong and not (weak | strong) & test
        for rows in parts:
            assert abs(sum(row["label"] for row in rows) / len(rows) - 0.5) < 0.04
            assert list(rows[0]) == ["id", "group", "prompt", "a", "b", "label"]
        labels.append({row["id"]: row["label"] for row in parts[0]})
        labels.append(parts[2])
    first, test, second, same = labels
    common = first.keys() & second.keys()
    assert test == same and 0 < len(common) < len(first)
    assert 0.4 < sum(first[name] == second[name] for name in common) / len(common) < 0.6


def test_the_preferred_statement_is_the_true_one():
    people = {person["name"]: person for person in world.people()}
    for row in protocol.half(pairs, protocol.describe(pairs, "facts_pairs", n_train=500), "weak"):
        _, relation, _, *name, _ = row["prompt"].split()
        values = [row[side].split()[0] for side in "ab"]
        truth = people[" ".join(name)][relation]
        assert values[row["label"]] == truth != values[1 - row["label"]]


def hub_pairs(folder, task, rows, monkeypatch):
    """A mirror that holds these rows as the task's train and test split."""
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setenv("W2S_MIRROR", str(folder))
    for split in task["splits"].values():
        file = folder / task["repo"] / task.get("config", "default") / f"{split[0]}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def talk(*turns):
    return "".join(f"\n\n{who}: {said}" for who, said in zip(["Human", "Assistant"] * 4, turns))


def test_pairs_of_hh_share_their_dialogue_and_unusable_ones_are_counted(
    tmp_path, monkeypatch, capsys
):
    both = [
        (talk("hi", "hello", "how?", "so"), talk("hi", "hello", "how?", "no")),
        (talk("hi", "hello", "how?", "so"), talk("hi", "hello there", "how?", "no")),
        (talk("hi", "hello"), talk("hi", "hello ")),
        (talk("hi", ""), talk("hi", "hello")),
        ("no dialogue", "none"),
    ]
    rows = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in both]
    hub_pairs(tmp_path, pairs.TASKS["hh_helpful"], rows, monkeypatch)
    (pair,) = pairs.read("hh_helpful", "train")
    assert pair["prompt"] == "Human: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    assert (pair["preferred"], pair["other"], pair["id"]) == (" so", " no", "hh_helpful/train/0")
    told = capsys.readouterr().err
    assert "of 5 pairs" in told
    for count in ("2 have no common prompt", "1 have an empty", "1 have equal completions"):
        assert count in told


SHP = {"history": "q", "human_ref_A": "no", "human_ref_B": "yes", "labels": 0, "score_ratio": 2.0}
SAFE = {"prompt": "q", "response_0": "bad", "response_1": "good", "safer_response_id": 1}
ULTRA = {"prompt": "q", "score_chosen": 2.0, "score_rejected": 1.0}
ULTRA |= {
    side: [{"content": "q", "role": "user"}, {"content": text, "role": "a"}]
    for side, text in (("chosen", "y"), ("rejected", "z"))
}
SUMMARY = {"prompt": "POST: x", "chosen": "TL;DR: y", "rejected": "TL;DR: z"}


@pytest.mark.parametrize(
    ("ds", "row", "wanted"),
    [
        ("summarize", SUMMARY, ("POST: x\n", "TL;DR: y", "TL;DR: z")),
        ("shp", SHP, ("q\n\n", "yes", "no")),
        ("shp", SHP | {"score_ratio": 1.9}, None),
        ("ultrafeedback", ULTRA, ("Human: q\n\nAssistant: ", "y", "z")),
        ("safe_rlhf", SAFE, ("Human: q\n\nAssistant: ", "good", "bad")),
    ],
)
def test_every_task_says_who_was_preferred(tmp_path, monkeypatch, ds, row, wanted):
    hub_pairs(tmp_path, pairs.TASKS[ds], [row], monkeypatch)
    made = [(row["prompt"], row["preferred"], row["other"]) for row in pairs.read(ds, "test")]
    assert made == ([wanted] if wanted else [])


def test_a_training_pair_whose_prompt_is_tested_is_left_out(tmp_path):
    rows = [{"prompt": f"p{i} ", "a": "x", "b": "y", "label": 1} for i in range(30)]
    train, test = (tmp_path / name for name in ("mine.jsonl", "test.jsonl"))
    data = protocol.describe(pairs, write(train, rows), test=write(test, rows[:10]))
    halves = [protocol.half(pairs, data, which) for which in ("weak", "strong")]
    assert {row["prompt"] for half in halves for row in half} == {r["prompt"] for r in rows[10:]}
    # sides are shuffled, whatever the file did
    assert {row["label"] for row in protocol.test_rows(pairs, data)} == {0, 1}


def test_answers_to_own_pairs_hold_whichever_way_round_the_sides_are_drawn(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{i} ", "a": f"x{i}", "b": "y", "label": i % 2} for i in range(40)]
    ds = write(tmp_path / "mine.jsonl", rows)
    asked, read_back = {"ds": ds, "test": ds, "out": "runs/theirs"}, pairs.read(ds, "test")
    said = [row | {"weak": 0.9 if row["label"] else 0.1} for row in read_back]
    eval.main(answers=write(tmp_path / "theirs.jsonl", said), **asked)
    metrics = json.loads((tmp_path / "runs/theirs/eval/mine-test.metrics.json").read_text())
    drawn = protocol.test_rows(pairs, protocol.describe(pairs, ds, test=ds))
    turned = sum(row["a"] == "y" for row in drawn)
    assert metrics["acc"] == 1 and 5 < turned < 35
    more = write(tmp_path / "more.jsonl", [*said, said[0] | {"id": "another"}])
    eval.main(answers=more, **asked | {"out": "runs/more"})
    assert "1 of 41 answers are of no test row" in capsys.readouterr().out
    write(tmp_path / "theirs.jsonl", [said[0] | {"b": "z"}, *said[1:]])
    with pytest.raises(BadInput, match="lacks 1 of the 40 test rows, such as 'mine/1'"):
        eval.main(answers="theirs.jsonl", force=True, **asked)


GOOD = {"prompt": "p", "a": "x", "b": "y", "label": 1}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"a": "x", "b": "y", "label": 1}, "has no field 'prompt'"),
        (GOOD | {"b": " "}, "field 'b' is \" \"; it must be a string that is not empty"),
        (GOOD | {"a": ["x"]}, "field 'a' is"),
        (GOOD | {"label": "b"}, "field 'label' is \"b\"; it must be 0 or 1"),
    ],
)
def test_bad_pairs_are_told_with_file_and_line(tmp_path, row, told):
    ds = write(tmp_path / "mine.jsonl", [GOOD, row])
    with pytest.raises(BadInput) as error:
        train_weak.main(ds=ds, model="facts/xs", out=str(tmp_path / "run"))
    assert f"mine.jsonl:2 {told}" in str(error.value) and not (tmp_path / "run").exists()


# ---- tokens


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_prompts_over_the_limit_are_cut_alike_on_both_sides(tiny, architecture, capsys):
    net, tokenizer = models.load(tiny(architecture), max_len=12, device="cpu", outputs=1)
    rows = [
        {"id": "0", "prompt": "abcdefghij", "a": "klmn", "b": "op"},
        {"id": "1", "prompt": "ab", "a": "c", "b": "d"},
    ]
    special = 2 if architecture == "bert" else 0
    long, short = pairs.encode(rows, tokenizer, net)
    wanted = [tokenizer(("abcdefghij" + side)[2 + special :]).input_ids for side in ("klmn", "op")]
    assert packing.texts(long) == wanted
    assert len(short["tokens"]) == 6 + 2 * special
    assert "1 of 2 pairs are over 12 tokens: both sides lost the same" in capsys.readouterr().out
    # a completion that alone is too long
    row = {"id": "2", "prompt": "ab", "a": "klmnopqrstuvwxyz", "b": "c"}
    (pair,) = pairs.encode([row], tokenizer, net)
    assert list(map(len, packing.texts(pair))) == [12, 1 + special]


def test_sides_that_are_equal_after_cutting_train_nobody_but_are_scored(tiny, capsys):
    """Whole classes of pairs of real data look the same to a model with a short memory."""
    net, tokenizer = models.load(tiny("llama"), max_len=4, device="cpu", outputs=1)
    torch.nn.init.normal_(net.score.weight)
    rows = make_pairs(3)
    rows[1] |= {"a": "abcdefgh", "b": "klmnefgh"}
    kept = pairs.encode(rows, tokenizer, net, given="weak")
    assert [(row["id"], row["given"]) for row in kept] == [(r["id"], r["weak"]) for r in rows[::2]]
    told = capsys.readouterr().out
    assert "1 of 3 pairs have equal tokens on both sides and are left out" in told
    answers = pairs.answer(net, tokenizer, rows)
    assert answers[1] == 0.5 and answers[0] != 0.5 != answers[2]
    assert "left out" not in capsys.readouterr().out
    with pytest.raises(BadInput, match="no pair is left: .* within --max_len=4 tokens"):
        pairs.encode(rows[1:2], tokenizer, net, given="weak")


# ---- the reward


@pytest.mark.parametrize("architecture", ["llama", "opt", "bert"])
def test_a_pairs_logits_are_the_rewards_of_its_texts_by_transformers_own_class(
    tiny, tmp_path, architecture
):
    net, tokenizer = models.load(tiny(architecture), device="cpu", outputs=1)
    if hasattr(net, "score"):
        torch.nn.init.normal_(net.score.weight)
        assert net.score.bias is None
    rows, auto = make_pairs(9), AutoModelForSequenceClassification
    with torch.no_grad():
        got = pairs.outputs(net, pairs.encode(rows, tokenizer, net))
    models.save(net, tokenizer, tmp_path / "model")
    theirs = auto.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    assert theirs.config.num_labels == 1
    for row, rewards in zip(rows, got):
        for side, reward in zip("ab", rewards):
            ids = tokenizer(row["prompt"] + row[side], return_tensors="pt")
            with torch.no_grad():
                wanted = theirs(input_ids=ids.input_ids, attention_mask=ids.attention_mask).logits
            torch.testing.assert_close(reward, wanted[0, 0], rtol=1e-4, atol=1e-5)
    again, tokenizer = models.load(str(tmp_path / "model"), device="cpu", outputs=1)
    probs = pairs.answer(again, tokenizer, rows)
    assert probs == pytest.approx((got[:, 1] - got[:, 0]).sigmoid().tolist(), abs=1e-5)


def test_the_loss_is_soft_binary_cross_entropy_on_the_difference_of_rewards():
    """By hand: r_b - r_a = 1, w = .3: -.3 log sigmoid(1) - .7 log sigmoid(-1) = 1.01326."""
    loss, whole_batch, options = pairs.rule("xent")
    one = loss(torch.tensor([[2.0, 3.0]]).double(), torch.tensor([0.3]).double(), 0.0)
    assert one.item() == pytest.approx(1.013262, abs=1e-6)
    assert not whole_batch and options == {}


def fit(net, rows, loss="xent", **options):
    rule, plan = LOSSES[loss], loop.resolve(net, 1e-3)
    options = {"epochs": 2, "batch_size": 10, "whole_batch": rule["whole_batch"]} | options
    return loop.fit(net, rows, rule["loss"], **plan, **options)


@pytest.mark.parametrize("loss", ["xent", "conf"])
def test_pairs_in_micro_batches_of_any_size_give_the_same_parameters(tiny, loss):
    def train(micro_batch):
        net, tokenizer = models.load(tiny("llama"), device="cpu", outputs=1)
        rows = pairs.encode(make_pairs(20), tokenizer, net.double(), given="weak")
        start = parameters(net)
        fit(net, rows, loss, micro_batch=micro_batch)
        assert (parameters(net) - start).abs().max() > 1e-4
        return parameters(net)

    whole = train(None)
    assert all((train(size) - whole).abs().max() < 1e-10 for size in (1, 7))


def test_without_stop_the_last_weights_stay_and_the_curve_is_kept(tiny):
    rows, nets = make_pairs(60), []
    for held_out in (make_pairs(30, seed=1), []):
        net, tokenizer = models.load(tiny("llama"), device="cpu", outputs=1)
        train, held = (
            pairs.encode(some, tokenizer, net, "weak") if some else () for some in (rows, held_out)
        )
        history = fit(net, train, held_out=held, stop=False)
        nets.append(parameters(net))
        assert ("true_acc" in history[0]) == bool(held_out)
    # held-out tokens leave their rows in the shrunk embedding, so equal to rounding
    assert (nets[0] - nets[1]).abs().max() < 1e-6


# ---- generative fine-tuning


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text", "opt"])
def test_the_chunked_loss_and_its_gradient_are_transformers_own(tiny, architecture, monkeypatch):
    monkeypatch.setattr(lm, "CHUNK", 64 * 5)
    net, tokenizer = models.load(tiny(architecture), device="cpu", outputs=0)
    lm.check_head(net)
    rows = letters(net.double(), tokenizer)
    lm.nll(net, rows).sum().backward()
    theirs = AutoModelForCausalLM.from_pretrained(tiny(architecture), dtype=torch.float32).double()
    total = 0
    for row, value in zip(rows, lm.nll(net, rows)[:, 0].tolist()):
        ids, wanted = torch.tensor([row["tokens"]]), torch.zeros(())
        if ids.shape[1] > 1:
            wanted = cross_entropy(theirs(input_ids=ids).logits[0, :-1], ids[0, 1:])
        assert value == pytest.approx(wanted.item(), abs=1e-8)
        total = total + wanted
    total.backward()
    got = {name: p.grad for name, p in net.named_parameters()}
    for name, p in theirs.named_parameters():  # gemma's norms are float32
        torch.testing.assert_close(got[name], p.grad, rtol=1e-4, atol=1e-7)


def letters(net, tokenizer):
    """Six encoded texts of 1 to 11 letters."""
    rows = [{"id": str(i), "text": "abcdefghijklm"[: 2 * i + 1]} for i in range(6)]
    return models.encode(rows, tokenizer, net)


def test_every_predicted_token_of_an_epoch_counts_the_same(tiny):
    net, tokenizer = models.load(tiny("llama"), device="cpu", outputs=0)
    rows = letters(net, tokenizer)
    rows[5]["asked"] = 1
    counts = [lm.asked(row) for row in rows]
    assert counts == [0, 2, 4, 6, 8, 1]
    with torch.no_grad():
        total = (lm.nll(net, rows)[:, 0] * torch.tensor(counts)).sum().item()
    how = {"outputs": lm.nll, **loop.resolve(net)}
    (line,) = loop.fit(net, lm.shares(rows), lm.share_of_loss, epochs=1, batch_size=6, **how)
    assert line["loss"] == pytest.approx(total / sum(counts), rel=1e-5)


def test_a_model_that_changes_its_logits_afterwards_is_refused(tiny):
    net, _ = models.load(tiny("llama"), device="cpu", outputs=0)
    net.lm_head.register_forward_hook(lambda module, given, out: 3 * out)
    with pytest.raises(BadInput, match="changes its logits"):
        lm.check_head(net)


def peak_bytes(vocabulary, texts=30, length=40):
    """Bytes held at once while a batch goes forth and back, beyond parameters and gradients."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "pad_token_id": 0, "use_cache": False}
    config = AutoConfig.for_model("llama", vocab_size=vocabulary, **sizes)
    net = AutoModelForCausalLM.from_config(config)
    net.w2s = {"packed": checks.can_pack(net.train())}
    rows = [{"tokens": torch.randint(vocabulary, (length,)).tolist()} for _ in range(texts)]
    how = torch.ones(texts), lm.share_of_loss, 0, texts, False
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loop.backward(net, rows, *how, outputs=lm.nll)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    events = sorted(events, key=lambda event: event.start_ns())
    held = itertools.accumulate(event.nbytes() for event in events)
    return max(held) - sum(p.grad.nbytes for p in net.parameters())


def test_a_vocabulary_of_30k_takes_hardly_more_memory_than_one_of_2k(monkeypatch):
    monkeypatch.setattr(lm, "CHUNK", 2**20)
    small, large = peak_bytes(2_000), peak_bytes(30_000)
    assert large <= 1.3 * small
    monkeypatch.setattr(lm, "CHUNK", 2**40)
    assert peak_bytes(10_000) > 2 * small  # all logits at once: the test can fail


def test_the_generative_step_learns_and_writes_an_ordinary_language_model(here):
    for run, start in (("base", "facts/m"), ("base_weak", "facts/xs")):
        history = read(f"{run}/history.jsonl")
        assert history[-1]["loss"] < history[0]["loss"]
        auto = AutoModelForCausalLM
        net, loading = auto.from_pretrained(f"{run}/model", output_loading_info=True)
        assert not loading["missing_keys"] and not loading["unexpected_keys"]
        before = auto.from_pretrained(HERE / start, dtype=torch.float32)
        assert not torch.equal(net.lm_head.weight, before.lm_head.weight)


def test_preferences_are_ignored(here, monkeypatch):
    class Seen(Exception):
        pass

    def spy(model, rows, loss, **options):
        raise Seen(rows)

    monkeypatch.setattr(loop, "fit", spy)
    with pytest.raises(Seen) as seen:
        generative.main("labels.jsonl", out="spied")
    (rows,) = seen.value.args
    assert rows[0].keys() == {"id", "text", "tokens", "given"}
    wanted = [row["prompt"] + row[side] for row in read("labels.jsonl") for side in "ab"]
    assert [row["text"] for row in rows] == wanted


# ---- the stages


def test_the_stages_leave_the_files_of_the_contract_and_pgr_reads_them(here, monkeypatch, capsys):
    labels = read("labels.jsonl")
    fields = ["id", "group", "prompt", "a", "b", "label", "weak"]
    assert list(labels[0]) == fields and len(labels) == 300
    predictions = read("student/eval/facts_pairs-test.jsonl")
    assert list(predictions[0]) == ["id", "label", "prob"] and len(predictions) == 100
    metrics = json.loads((here / "student/eval/facts_pairs-test.metrics.json").read_text())
    assert {"acc", "ece", "nll"} <= metrics.keys()
    monkeypatch.setattr(pgr, "draw", lambda *_: None)
    pgr.main("weak", "student", "ceiling", out="pgr.json", curves=True)
    result = json.loads((here / "pgr.json").read_text())
    assert result["notes"] == [] and (result["n"], result["setting"]) == (100, "pairs")
    right = sum((p["prob"] > 0.5) == p["label"] for p in predictions)
    assert result["student"]["acc"] == pytest.approx(right / 100)
    assert result["stopping"].keys() == {"best", "stopped", "final"}
    assert (here / "pgr.curves.png").read_bytes().startswith(b"\x89PNG")


def test_made_again_nothing_changes(here, capsys):
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    train_strong.main("labels.jsonl", model="base/model", batch_size=50)
    label.main("weak")
    eval.main("weak", "student", "ceiling")
    assert capsys.readouterr().out.count("already done") == 5
    assert {path: path.read_bytes() for path in before} == before


def test_supervisors_vote_weigh_and_filter(here, tmp_path, capsys):
    def labelled(**options):
        out = str(tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl")
        label.main("weak", "bag", out=out, **options)
        return read(out)

    soft, hard = labelled(vote="soft"), labelled(vote="hard")
    for one, other, alone in zip(soft, hard, read("labels.jsonl")):
        assert one["weak_all"] == other["weak_all"] and one["weak_all"][0] == alone["weak"]
        assert one["weak"] == pytest.approx(sum(one["weak_all"]) / 2)
        assert other["weak"] == sum(p > 0.5 for p in one["weak_all"]) / 2
    capsys.readouterr()
    kept = labelled(weights=True, select="agreement", keep=0.5)
    assert "weights: weak " in capsys.readouterr().out
    agreed = [r for r in soft if len({p > 0.5 for p in r["weak_all"]}) == 1]
    assert len(kept) == round(len(agreed) / 2) and {r["id"] for r in kept} < {
        row["id"] for row in agreed
    }
    shares = [
        (row["weak"] - row["weak_all"][1]) / (row["weak_all"][0] - row["weak_all"][1])
        for row in kept
    ]
    assert shares == pytest.approx([shares[0]] * len(shares), abs=1e-3) and -0.01 < shares[0] < 1.01


def test_labels_of_test_pairs_name_no_next_command_as_controls_py_is_for_texts(
    here, tmp_path, capsys
):
    label.main("weak", test_rows=True, out=str(tmp_path / "test.jsonl"))
    assert "next:" not in capsys.readouterr().out


def test_parts_of_the_strong_half_are_cut_by_group_and_together_all_of_it(here, tmp_path):
    parts = []
    for k in (1, 2):
        out = str(tmp_path / f"part{k}.jsonl")
        label.main("weak", part=f"{k}/2", out=out)
        parts.append(read(out))
    first, second = ({row["group"] for row in part} for part in parts)
    assert first and second and not first & second
    rows = {row["id"]: row for part in parts for row in part}
    assert rows == {row["id"]: row for row in read("labels.jsonl")}


def test_a_bag_draws_whole_groups_and_holds_out_what_the_others_do(here, monkeypatch):
    seen = []

    def spy(model, rows, loss, *, held_out, **_):
        seen.append([rows, [row["id"] for row in held_out]])
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", spy)
    for k, options in enumerate(({}, {"bootstrap": True, "seed": 1})):
        with pytest.raises(KeyboardInterrupt):
            train_weak.main(ds="facts_pairs", out=f"spied{k}", **options, **SMALL)
    (plain, held), (bag, held_again) = seen
    assert held == held_again
    for group in {row["group"] for row in bag}:
        own = [row["id"] for row in plain if row["group"] == group]
        drawn = [row["id"] for row in bag if row["group"] == group]
        assert drawn == own * (len(drawn) // len(own))
    assert [row["id"] for row in bag] != [row["id"] for row in plain]
    assert files.read_card("bag")["args"]["bootstrap"]


def test_an_own_file_goes_all_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pgr, "draw", lambda *_: None)
    pets = world.VALUES["pet"]
    rows = [
        {"prompt": f"the pet of ba mi {s} is", "a": f" {p} ?", "b": f" {q} ?", "label": i % 2}
        for i, (s, p, q) in enumerate(zip(world.SYLLABLES, pets * 7, pets[1:] * 8))
    ]
    train_weak.main(ds=write(tmp_path / "mine.jsonl", rows), model="facts/xs", batch_size=20)
    label.main("runs/pairs/weak")
    for target in ("weak", "truth"):
        how = {"model": "facts/m", "target": target, "batch_size": 20}
        train_strong.main("runs/pairs/labels.jsonl", **how)
    runs = [f"runs/pairs/{run}" for run in ("weak", "student", "ceiling")]
    eval.main(*runs)
    pgr.main(*runs)  # beside the runs
    result = json.loads((tmp_path / "runs/pairs/pgr.json").read_text())
    assert (result["n"], result["groups"], result["task"]) == (16, 16, str(tmp_path / "mine.jsonl"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train_strong.py", "labels.jsonl", "--probe", "--out=n"], "--probe is for texts, not"),
        (["train_strong.py", "labels.jsonl", "--head=zero", "--out=n"], "--head is for texts"),
        (["train_weak.py", "--ds=facts_pairs", "--head=zero", "--out=n"], "--head is for texts"),
        (
            ["train_weak.py", "--ds=facts_pairs", "--stop", "--n_val=0", "--out=n"],
            "--stop looks at held-out rows, and there are none .--n_val=0.",
        ),
        (
            ["train_weak.py", "--ds=facts_pairs", "--n_train=100", "--out=n"],
            "are fewer than one batch",
        ),
        (["train_strong.py", "hh_helpful", "--out=n"], "is a task, no labels file: .*--ds=hh_help"),
        (["train_strong.py", "own.jsonl", "--out=n"], "no field 'weak'; .* go to --ds=FILE"),
        (
            ["eval.py", "--model=facts/m", "--ds=facts_pairs", "--shots=0", "--out=n"],
            "--head and --shots are for texts",
        ),
        (
            ["eval.py", "--model=facts/m", "--ds=facts_pairs", "--out=n"],
            "a reward model that was not trained says 0 of everything: train it first",
        ),
        (["eval.py", "student", "--ds=facts"], "has other rows than student, which answers pairs"),
        (["label.py", "base"], "base was made by generative.py: give the --out of train_weak.py"),
        (
            ["generative.py", "labels.jsonl", "--model=ENCODER", "--out=n"],
            ".bert. is an encoder: gen",
        ),
        (["generative.py", "labels.jsonl", "--model=weak/model", "--out=n"], "is a classifier or"),
        (["generative.py", "texts.jsonl", "--out=n"], "texts.jsonl holds no pairs"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(here, tiny, command, capsys, words, told):
    write(here / "own.jsonl", [GOOD])
    write(here / "texts.jsonl", [{"id": "1", "text": "x", "label": 1, "weak": 0.5}])
    with pytest.raises(SystemExit) as done:
        command(*(word.replace("ENCODER", tiny("bert")) for word in words))
    last = capsys.readouterr().err.splitlines()[-1]
    assert done.value.code == 2 and last.startswith("error: ") and not (here / "n").exists()
    assert re.search(told, last), last


def test_the_pad_token_ends_neither_side_of_a_pair(tiny):
    """transformers' own head would read the token before it."""
    model, tokenizer = models.load(tiny("llama"), device="cpu", outputs=1)
    for side in "ab":
        tokenizer.pad_token = "n"
        pad = model.config.pad_token_id = tokenizer.pad_token_id
        row = {"id": "0", "prompt": "ab", "a": "kl", "b": "op"} | {side: "kn"}
        pairs.encode([row], tokenizer, model)
        assert model.config.pad_token_id != pad
