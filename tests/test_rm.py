"""Reward models and generative fine-tuning: pairs, the stages at toy size, formulas against references, bad input, memory."""

import itertools
import json
import math
import random
import subprocess
import sys

import eval_rm
import label_rm
import pytest
import torch
import train_rm
from test_loop import parameters
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import eval
import generative
import label
import pairs
import pgr
import train_strong
from w2s import checks, files, lm, loop, models, packing
from w2s.files import HERE, BadInput
from w2s.losses import LOSSES

SMALL = {"n_train": 300, "n_test": 100, "batch_size": 50}


def make_pairs(n=40, seed=0):
    rng = random.Random(seed)
    words = lambda k: "".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, k)))  # noqa: E731
    rows = [
        {"id": str(i), "group": str(i), "prompt": words(20), "a": words(9), "b": words(9) + "x"}
        for i in range(n)
    ]
    return [row | {"label": rng.randrange(2), "weak": rng.random()} for row in rows]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in open(path)]


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """A folder where the stages have run on 300 pairs of facts_pairs: runs/rm/weak, ..."""
    home = tmp_path_factory.mktemp("rm")
    here = f"{home}/runs/rm"
    train_rm.main(out=f"{here}/weak", **SMALL)
    label_rm.main(f"{here}/weak", out=f"{here}/labels.jsonl")
    generative.main(f"{here}/labels.jsonl", out=f"{here}/base", weak_too=True)
    for target, out in (("weak", "student"), ("truth", "ceiling")):
        train_rm.main(
            f"{here}/labels.jsonl",
            model=f"{here}/base/model",
            target=target,
            out=f"{here}/{out}",
            batch_size=50,
        )
    eval_rm.main(
        *(f"{here}/{run}" for run in ("weak", "student", "ceiling")), plot=f"{here}/curves.png"
    )
    return home


# ---- pairs


@pytest.mark.parametrize("data_seed", [0, 1])
def test_halves_and_test_share_no_group_and_sides_are_even(data_seed):
    data = pairs.describe("facts_pairs", data_seed)
    weak, strong, test = pairs.half(data, "weak"), pairs.half(data, "strong"), pairs.test_rows(data)
    assert (len(weak), len(strong), len(test)) == (8800, 8800, 1600)
    groups = [{row["group"] for row in rows} for rows in (weak, strong, test)]
    assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & groups[2]
    for rows in (weak, strong, test):
        assert abs(sum(row["label"] for row in rows) / len(rows) - 0.5) < 3 * 0.5 / math.sqrt(
            len(rows)
        )
        assert list(rows[0]) == ["id", "group", "prompt", "a", "b", "label"]


def test_the_data_seed_moves_halves_and_sides_and_nothing_moves_the_test_set():
    first, second = (pairs.describe("facts_pairs", seed) for seed in (0, 1))
    assert pairs.test_rows(first) == pairs.test_rows(second)
    label = [
        {row["id"]: row["label"] for row in pairs.half(data, "weak")} for data in (first, second)
    ]
    common = label[0].keys() & label[1].keys()
    assert 0 < len(common) < len(label[0])
    assert 0.4 < sum(label[0][name] == label[1][name] for name in common) / len(common) < 0.6


def test_the_preferred_statement_is_the_true_one():
    import world

    truth = {
        (p["name"], relation): p[relation] for p in world.people() for relation in world.RELATIONS
    }
    for row in pairs.half(pairs.describe("facts_pairs"), "weak")[:500]:
        _, relation, _, *name, _ = row["prompt"].split()
        values = [row[side].split()[0] for side in "ab"]
        assert values[row["label"]] == truth[" ".join(name), relation] != values[1 - row["label"]]


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


def test_pairs_of_hh_share_their_dialogue_and_unusable_ones_are_dropped_counted_and_told(
    tmp_path, monkeypatch, capsys
):
    rows = [
        {
            "chosen": talk("hi", "hello", "how?", "so"),
            "rejected": talk("hi", "hello", "how?", "no"),
        },
        {
            "chosen": talk("hi", "hello", "how?", "so"),
            "rejected": talk("hi", "hello there", "how?", "no"),
        },
        {"chosen": talk("hi", "hello"), "rejected": talk("hi", "hello ")},
        {"chosen": talk("hi", ""), "rejected": talk("hi", "hello")},
        {"chosen": "no dialogue", "rejected": "none"},
    ]
    hub_pairs(tmp_path, pairs.PAIRS["hh_helpful"], rows, monkeypatch)
    (pair,) = pairs.load("hh_helpful", "train")
    assert pair["prompt"] == "Human: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    assert (pair["preferred"], pair["other"], pair["id"]) == (" so", " no", "hh_helpful/train/0")
    told = capsys.readouterr().err
    for count in (
        "of 5 pairs",
        "2 have no common prompt",
        "1 have an empty completion",
        "1 have equal completions",
    ):
        assert count in told


@pytest.mark.parametrize(
    ("ds", "row", "wanted"),
    [
        (
            "summarize",
            {"prompt": "POST: x", "chosen": "TL;DR: y", "rejected": "TL;DR: z"},
            ("POST: x\n", "TL;DR: y", "TL;DR: z"),
        ),
        (
            "shp",
            {
                "history": "q",
                "human_ref_A": "no",
                "human_ref_B": "yes",
                "labels": 0,
                "score_ratio": 2.0,
            },
            ("q\n\n", "yes", "no"),
        ),
        (
            "shp",
            {
                "history": "q",
                "human_ref_A": "no",
                "human_ref_B": "yes",
                "labels": 0,
                "score_ratio": 1.9,
            },
            None,
        ),
        (
            "ultrafeedback",
            {"prompt": "q", "score_chosen": 2.0, "score_rejected": 1.0}
            | {
                k: [{"content": "q", "role": "user"}, {"content": v, "role": "a"}]
                for k, v in (("chosen", "y"), ("rejected", "z"))
            },
            ("Human: q\n\nAssistant: ", "y", "z"),
        ),
        (
            "safe_rlhf",
            {"prompt": "q", "response_0": "bad", "response_1": "good", "safer_response_id": 1},
            ("Human: q\n\nAssistant: ", "good", "bad"),
        ),
    ],
)
def test_every_task_says_who_was_preferred(tmp_path, monkeypatch, ds, row, wanted):
    hub_pairs(tmp_path, pairs.PAIRS[ds], [row], monkeypatch)
    made = [(row["prompt"], row["preferred"], row["other"]) for row in pairs.load(ds, "test")]
    assert made == ([wanted] if wanted else [])


def test_a_training_pair_whose_prompt_is_tested_is_left_out(tmp_path):
    rows = [{"prompt": f"p{i} ", "a": "x", "b": "y", "label": 1} for i in range(30)]
    data = pairs.describe(
        write(tmp_path / "mine.jsonl", rows), test=write(tmp_path / "test.jsonl", rows[:10])
    )
    prompts = {row["prompt"] for which in ("weak", "strong") for row in pairs.half(data, which)}
    assert prompts == {row["prompt"] for row in rows[10:]}
    assert {row["label"] for row in pairs.test_rows(data)} == {
        0,
        1,
    }  # sides are shuffled, whatever the file did


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
    assert "1 of 2 pairs are longer than 12 tokens" in capsys.readouterr().out
    (pair,) = pairs.encode(
        [{"id": "2", "prompt": "ab", "a": "klmnopqrstuvwxyz", "b": "c"}], tokenizer, net
    )
    assert [len(ids) for ids in packing.texts(pair)] == [
        12,
        1 + special,
    ]  # a completion that alone is too long


# ---- the reward


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert", "opt", "roberta"])
def test_a_pairs_logits_are_the_rewards_of_its_texts_by_transformers_own_class(
    tiny, tmp_path, architecture
):
    net, tokenizer = models.load(tiny(architecture), device="cpu", outputs=1)
    if hasattr(net, "score"):
        torch.nn.init.normal_(net.score.weight)
        assert net.score.bias is None
    rows = make_pairs(9)
    encoded = pairs.encode(rows, tokenizer, net)
    with torch.no_grad():
        got = packing.row_logits(net, encoded)
    models.save(net, tokenizer, tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    ).eval()
    assert theirs.config.num_labels == 1
    for row, rewards in zip(rows, got):
        for side, reward in zip("ab", rewards):
            ids = tokenizer(row["prompt"] + row[side], return_tensors="pt")
            with torch.no_grad():
                wanted = theirs(input_ids=ids.input_ids, attention_mask=ids.attention_mask).logits[
                    0, 0
                ]
            torch.testing.assert_close(reward, wanted, rtol=1e-4, atol=1e-5)
    probs = pairs.probabilities(str(tmp_path / "model"), rows, device="cpu")
    assert probs == pytest.approx((got[:, 1] - got[:, 0]).sigmoid().tolist(), abs=1e-5)


def test_the_loss_is_soft_binary_cross_entropy_on_the_difference_of_rewards():
    """By hand: r_b - r_a = 1, w = 0.3: -0.3 log sigmoid(1) - 0.7 log sigmoid(-1) = 0.3 x 0.31326 + 0.7 x 1.31326 = 1.01326."""
    rewards, weak = (
        torch.tensor([[2.0, 3.0]], dtype=torch.float64),
        torch.tensor([0.3], dtype=torch.float64),
    )
    assert LOSSES["xent"]["loss"](rewards, weak, 0.0).item() == pytest.approx(1.013262, abs=1e-6)
    rewards, weak = torch.randn(20, 2, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        rewards[:, 1] - rewards[:, 0], weak, reduction="none"
    )
    torch.testing.assert_close(LOSSES["xent"]["loss"](rewards, weak, 0.0), wanted)


@pytest.mark.parametrize("loss", LOSSES)
def test_pairs_in_micro_batches_of_any_size_give_the_same_parameters(tiny, loss):
    def train(micro_batch):
        net, tokenizer = models.load(tiny("llama"), device="cpu", outputs=1)
        rows = pairs.encode(make_pairs(), tokenizer, net.double())
        loop.fit(
            net,
            rows,
            "weak",
            **LOSSES[loss],
            epochs=2,
            batch_size=10,
            micro_batch=micro_batch,
            lr=1e-3,
        )
        return parameters(net)

    whole = train(None)
    assert all((train(size) - whole).abs().max() < 1e-10 for size in (1, 3, 7))
    assert (
        whole - parameters(models.load(tiny("llama"), device="cpu", outputs=1)[0])
    ).abs().max() > 1e-4


def test_without_stop_the_last_weights_stay_and_the_curve_is_kept(tiny):
    rows, nets = make_pairs(60), []
    for held_out in (make_pairs(30, seed=1), ()):
        net, tokenizer = models.load(tiny("llama"), device="cpu", outputs=1)
        encoded = [pairs.encode(some, tokenizer, net) for some in (rows, held_out) if some]
        history = loop.fit(
            net,
            encoded[0],
            "weak",
            **LOSSES["xent"],
            held_out=encoded[1] if held_out else (),
            stop=False,
            lr=1e-3,
        )
        nets.append(parameters(net))
        assert ("true_acc" in history[0]) == bool(held_out)
    # held-out tokens leave their rows in the shrunk embedding, so equal to rounding
    assert (nets[0] - nets[1]).abs().max() < 1e-6


# ---- generative fine-tuning


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "opt"])
def test_the_chunked_loss_and_its_gradient_are_transformers_own(tiny, architecture, monkeypatch):
    monkeypatch.setattr(lm, "CHUNK", 64 * 5)
    net, tokenizer = models.load(tiny(architecture), device="cpu", outputs=0)
    lm.check_head(net, architecture)
    net.double()
    rows = models.encode(
        [{"id": str(i), "text": "abcdefghijklm"[: 2 * i + 1]} for i in range(6)], tokenizer, net
    )
    lm.nll(net, rows).sum().backward()
    got = {name: p.grad.clone() for name, p in net.named_parameters()}
    theirs = AutoModelForCausalLM.from_pretrained(tiny(architecture), dtype=torch.float32).double()
    total = 0
    for row, value in zip(rows, lm.nll(net, rows)[:, 0].tolist()):
        ids = torch.tensor([row["tokens"]])
        wanted = (
            cross_entropy(theirs(input_ids=ids).logits[0, :-1], ids[0, 1:])
            if ids.shape[1] > 1
            else torch.zeros(())
        )
        assert value == pytest.approx(wanted.item(), abs=1e-8)
        total = total + wanted
    total.backward()
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(
            got[name], p.grad, rtol=1e-4, atol=1e-7
        )  # gemma's norms are float32


def test_every_predicted_token_of_an_epoch_counts_the_same(tiny):
    net, tokenizer = models.load(tiny("llama"), device="cpu", outputs=0)
    rows = models.encode(
        [{"id": str(i), "text": "abcdefghijklm"[: 2 * i + 2]} for i in range(6)], tokenizer, net
    )
    rows[0]["asked"] = 1
    with torch.no_grad():
        total = sum(
            lm.nll(net, [row]).item() * row.get("asked", len(row["tokens"]) - 1) for row in rows
        )
    n = sum(row.get("asked", len(row["tokens"]) - 1) for row in rows)
    (history,) = lm.fit(net, rows, epochs=1, batch_size=6)
    assert history["loss"] == pytest.approx(total / n, rel=1e-5)


def test_a_model_that_changes_its_logits_afterwards_is_refused(tiny, monkeypatch):
    net, _ = models.load(tiny("llama"), device="cpu", outputs=0)
    net.lm_head.register_forward_hook(lambda module, given, out: 3 * out)
    with pytest.raises(BadInput, match="changes its logits"):
        lm.check_head(net, "some/model")


def peak_bytes(vocabulary, texts=30, length=40):
    """Bytes held at once while a batch goes forth and back, beyond parameters and gradients: every allocation is counted."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": 0,
    }
    net = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", vocab_size=vocabulary, use_cache=False, **sizes)
    )
    net.w2s = {"packed": checks.can_pack(net.train())}
    rows = [{"tokens": torch.randint(vocabulary, (length,)).tolist()} for _ in range(texts)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loop.backward(
            net, rows, torch.ones(texts), lm.share_of_loss, 0, texts, False, outputs=lm.nll
        )
    events = [
        event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    held = itertools.accumulate(
        event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())
    )
    return max(held) - sum(p.grad.nbytes for p in net.parameters())


def test_a_vocabulary_of_150k_takes_hardly_more_memory_than_one_of_10k(monkeypatch):
    small, large = peak_bytes(10_000), peak_bytes(150_000)
    assert large <= 1.3 * small
    monkeypatch.setattr(lm, "CHUNK", 2**40)
    assert peak_bytes(50_000) > 2 * small  # all logits at once: the test can fail


def test_the_generative_step_learns_and_writes_an_ordinary_language_model(experiment):
    here = experiment / "runs/rm"
    for run, start in (("base", "facts/m"), ("base_weak", "facts/xs")):
        history = read(here / run / "history.jsonl")
        assert history[-1]["loss"] < history[0]["loss"]
        net, loading = AutoModelForCausalLM.from_pretrained(
            here / run / "model", output_loading_info=True
        )
        assert not loading["missing_keys"] and not loading["unexpected_keys"]
        before = AutoModelForCausalLM.from_pretrained(HERE / start, dtype=torch.float32)
        assert not torch.equal(net.lm_head.weight, before.lm_head.weight)


def test_preferences_are_ignored(experiment, tmp_path):
    rows = [
        row | {"weak": 1 - row["weak"], "label": 1 - row["label"]}
        for row in read(experiment / "runs/rm/labels.jsonl")
    ]
    generative.main(
        write(tmp_path / "lies.jsonl", rows), model="facts/m", out=str(tmp_path / "base")
    )
    ours, theirs = (
        files.sha256(folder / "base/model/model.safetensors")
        for folder in (tmp_path, experiment / "runs/rm")
    )
    assert ours == theirs


# ---- the stages


def test_the_stages_leave_the_files_of_the_contract_and_pgr_reads_them(
    experiment, monkeypatch, capsys
):
    monkeypatch.chdir(experiment)
    labels = read("runs/rm/labels.jsonl")
    assert (
        list(labels[0]) == ["id", "group", "prompt", "a", "b", "label", "weak"]
        and len(labels) == 300
    )
    predictions = read("runs/rm/student/eval/facts_pairs-test.jsonl")
    assert list(predictions[0]) == ["id", "label", "prob"] and len(predictions) == 100
    metrics = json.loads(
        (experiment / "runs/rm/student/eval/facts_pairs-test.metrics.json").read_text()
    )
    assert {"acc", "ece", "nll", "ties"} <= metrics.keys()
    pgr.main("runs/rm/weak", "runs/rm/student", "runs/rm/ceiling")
    result = json.loads((experiment / "runs/pgr.json").read_text())
    assert result["notes"] == [] and result["n"] == 100
    assert result["student"]["acc"] == pytest.approx(
        sum((p["prob"] > 0.5) == p["label"] for p in predictions) / 100
    )
    capsys.readouterr()
    before = {path: path.read_bytes() for path in experiment.rglob("*") if path.is_file()}
    train_rm.main("runs/rm/labels.jsonl", model="runs/rm/base/model", batch_size=50)
    label_rm.main()
    eval_rm.main()
    told = capsys.readouterr().out
    assert told.count("already done") == 5 and "best    epoch" not in told
    for word in ("calibration error", "ties", "stopped", "final"):
        assert word in told
    assert {path: path.read_bytes() for path in before if path.suffix != ".png"} == {
        path: text for path, text in before.items() if path.suffix != ".png"
    }


def test_student_and_ceiling_see_the_same_pairs_with_other_labels(experiment, monkeypatch, capsys):
    seen = []

    def spy(model, rows, given, loss, **options):
        seen.append(
            (
                given,
                getattr(loss, "func", loss).__name__,
                getattr(loss, "keywords", {}),
                [row["id"] for row in rows],
            )
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", spy)
    rules = (
        {"loss": "conf"},
        {"loss": "conf", "target": "truth"},
        {"loss": "window", "radius": 0.1},
    )
    for i, options in enumerate((*rules, {"loss": "logconf", "as_released": True})):
        out = str(experiment / f"runs/spied{i}")
        with pytest.raises(KeyboardInterrupt):
            train_rm.main(f"{experiment}/runs/rm/labels.jsonl", out=out, batch_size=50, **options)
        with pytest.raises(BadInput, match="is not finished: call rm/train_rm.py again"):
            eval_rm.main(out)
    assert [one[:3] for one in seen] == [
        ("weak", "conf", {}),
        ("label", "xent", {}),
        ("weak", "window", {"radius": 0.1}),
        ("weak", "logconf", {"as_released": True}),
    ]
    assert seen[0][3] == seen[1][3]
    assert "ground truth is learned by xent, not by --loss=conf" in capsys.readouterr().out


def go_through(ds, tmp_path, **options):
    """Supervisor, labels, student, ceiling, scores and PGR on a task; returns pgr.json."""
    runs = f"{tmp_path}/rm"
    train_rm.main(ds=ds, model="facts/xs", out=f"{runs}/weak", **options)
    label_rm.main(f"{runs}/weak", out=f"{runs}/labels.jsonl")
    for target, out in (("weak", "student"), ("truth", "ceiling")):
        train_rm.main(
            f"{runs}/labels.jsonl",
            model="facts/xs",
            target=target,
            out=f"{runs}/{out}",
            batch_size=20,
        )
    everybody = [f"{runs}/{run}" for run in ("weak", "student", "ceiling")]
    eval_rm.main(*everybody, plot=f"{runs}/curves.png")
    pgr.main(*everybody, out=f"{runs}/pgr.json")
    return json.loads((tmp_path / "rm/pgr.json").read_text())


def test_an_own_file_goes_all_the_way(tmp_path):
    rows = [
        {"prompt": f"the pet of person {i} is", "a": " cat", "b": f" dog {i % 7}", "label": i % 2}
        for i in range(200)
    ]
    result = go_through(write(tmp_path / "mine.jsonl", rows), tmp_path, batch_size=20)
    assert result["n"] == 40 and result["groups"] == 40


@pytest.mark.skipif(
    not (HERE / "../shared/hub/Anthropic").exists(), reason="the mirror with real rows is not here"
)
def test_hh_from_the_mirror_goes_all_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("W2S_MIRROR", str(HERE / "../shared/hub"))
    result = go_through("hh_helpful", tmp_path, n_train=60, n_test=50, batch_size=20)
    assert result["n"] == 50


def test_labels_from_elsewhere_need_no_card_but_eval_needs_ds(experiment, tmp_path, capsys):
    rows = [row | {"group": row["id"]} for row in read(experiment / "runs/rm/labels.jsonl")]
    labels = write(tmp_path / "theirs.jsonl", rows)
    train_rm.main(labels, model="facts/xs", out=str(tmp_path / "run"), batch_size=50)
    assert "has no card of ours" in capsys.readouterr().out
    with pytest.raises(BadInput, match="add --ds"):
        eval_rm.main(str(tmp_path / "run"))
    eval_rm.main(str(tmp_path / "run"), ds="facts_pairs", n_test=50, plot=str(tmp_path / "c.png"))
    assert len(read(tmp_path / "run/eval/facts_pairs-test.jsonl")) == 50


def test_stopping_needs_held_out_pairs():
    with pytest.raises(BadInput, match="--n_val=0 holds none out"):
        train_rm.main(stop=True, n_val=0)


def test_a_split_that_is_no_test_split_is_refused(capsys):
    for split in ("train", "bogus"):
        with pytest.raises(
            BadInput, match=f"facts_pairs has no split '{split}'; it has weak, strong, test"
        ):
            pairs.main("facts_pairs", split=split)
    assert not capsys.readouterr().out


def test_a_missing_mirror_file_names_the_script_that_writes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    with pytest.raises(BadInput, match="python rm/pairs.py --mirror=DIR shp writes it"):
        pairs.load("shp", "test")


def test_runs_and_labels_of_another_setting_are_told_where_they_belong(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.chdir(experiment)
    files.write_card(tmp_path / "run", files.new_card("train_weak", {}, {}, None))
    files.write_jsonl(
        tmp_path / "labels.jsonl",
        [{"id": "a", "text": "x", "label": 1, "weak": 1}],
        {"stage": "label"},
    )
    for call, told in (
        (
            lambda: eval.main("runs/rm/weak"),
            "made by rm/train_rm.py: .* goes to rm/label_rm.py and rm/eval_rm.py",
        ),
        (
            lambda: label.main("runs/rm/weak", out="new.jsonl"),
            "give the --out of train_weak.py or train_strong.py; ",
        ),
        (
            lambda: eval_rm.main(str(tmp_path / "run")),
            "made by train_weak.py: .* goes to label.py and eval.py",
        ),
        (
            lambda: label_rm.main(str(tmp_path / "run")),
            "give the --out of rm/train_rm.py; that run goes to label.py",
        ),
        (lambda: eval_rm.main("runs/none"), "does not exist: give the --out of rm/train_rm.py"),
        (
            lambda: train_strong.main("runs/rm/labels.jsonl"),
            "made by rm/label_rm.py: it goes to rm/train_rm.py",
        ),
        (
            lambda: train_rm.main(str(tmp_path / "labels.jsonl")),
            "made by label.py: it goes to train_strong.py",
        ),
        (
            lambda: train_rm.main("hh_helpful"),
            "hh_helpful is a task, no labels file: .* --ds=hh_helpful",
        ),
        (
            lambda: train_rm.main(write(tmp_path / "own.jsonl", [GOOD])),
            "no field 'weak'; .* go to --ds=FILE",
        ),
        (
            lambda: pgr.main("runs/rm/base", "runs/rm/student", "runs/rm/ceiling"),
            "run python rm/eval_rm.py runs/rm/base",
        ),
    ):
        with pytest.raises(BadInput, match=told):
            call()


GOOD = {"prompt": "p", "a": "x", "b": "y", "label": 1}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"a": "x", "b": "y", "label": 1}, "mine.jsonl:2 has no field 'prompt'"),
        (
            GOOD | {"prompt": ""},
            "mine.jsonl:2 field 'prompt' is \"\"; it must be a string that is not empty",
        ),
        (GOOD | {"b": " "}, "mine.jsonl:2 field 'b' is \" \""),
        (GOOD | {"a": ["x"]}, "mine.jsonl:2 field 'a' is"),
        (GOOD | {"label": "b"}, "mine.jsonl:2 field 'label' is \"b\"; it must be 0 or 1"),
    ],
)
def test_bad_pairs_are_told_with_file_and_line(tmp_path, row, told):
    with pytest.raises(BadInput) as error:
        train_rm.main(
            ds=write(tmp_path / "mine.jsonl", [GOOD, row]),
            model="facts/xs",
            out=str(tmp_path / "run"),
        )
    assert told in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train_rm.py", "--ds=sst2"], "unknown task 'sst2'"),
        (["train_rm.py", "--target=truth"], "--target goes with a labels file"),
        (["train_rm.py", "none.jsonl"], "none.jsonl does not exist"),
        (["train_rm.py", "--n_train=100", "--out=new"], "fewer than one batch"),
        (
            ["label_rm.py", "runs/rm/base"],
            "runs/rm/base was made by rm/generative.py: give the --out of rm/train_rm.py",
        ),
        (
            ["generative.py", "--model=ENCODER", "--out=new"],
            "is an encoder (bert): generative fine-tuning needs a causal",
        ),
        (
            ["generative.py", "--model=runs/rm/weak/model", "--out=new"],
            "is a classifier or reward model",
        ),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    experiment, tiny, command, monkeypatch, capsys, words, told
):
    monkeypatch.chdir(experiment)
    with pytest.raises(SystemExit) as done:
        command(f"rm/{words[0]}", *(word.replace("ENCODER", tiny("bert")) for word in words[1:]))
    said = capsys.readouterr().err
    assert done.value.code == 2 and said.splitlines()[-1].startswith("error: ") and told in said
    assert not (experiment / "new").exists()


def test_the_bare_commands_work_one_after_another_from_any_folder(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = subprocess.run([sys.executable, HERE / "rm/train_rm.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels = "runs/rm/labels.jsonl"
    for words in (
        "label_rm.py",
        f"train_rm.py {labels}",
        f"train_rm.py {labels} --target=truth",
        "eval_rm.py",
    ):
        command(*f"rm/{words}".split())
    runs = [f"{tmp_path}/runs/rm/{run}" for run in ("weak", "student", "ceiling")]
    pgr.main(*runs, out=f"{tmp_path}/pgr.json")
    result = json.loads((tmp_path / "pgr.json").read_text())
    assert result["weak"]["high"] < result["ceiling"]["low"] and result["pgr"]["value"] > 0
