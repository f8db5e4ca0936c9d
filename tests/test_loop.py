"""The loop: a batch is a batch however it is cut, the same seed gives the same bits."""

import copy
import itertools
import random

import pytest
import torch
from conftest import ARCHITECTURES

import bench
from w2s import lm, loop, lora, losses, models, packing
from w2s.losses import LOSSES, conf


def make_rows(n=64, seed=0, low=1, high=40):
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        tokens = [rng.randrange(4, 64) for _ in range(rng.randint(low, high))]
        label = int(tokens[-1] > 33)
        rows.append({"id": str(i), "tokens": tokens, "label": label, "given": rng.random()})
    return rows


def fresh(tiny, architecture="llama", dtype=torch.float32, **how):
    net, _ = models.load(tiny(architecture), device="cpu", **how)
    return net.to(dtype)


def parameters(net):
    return torch.cat([p.detach().flatten().double() for p in net.parameters()])


def fit(net, rows=None, loss="xent", lr=None, dtype=None, **options):
    """loop.fit with what a stage resolves before: 4 batches an epoch by default."""
    plan = loop.resolve(net, lr, dtype)
    rule = LOSSES[loss] if isinstance(loss, str) else {"loss": loss}
    options = {"epochs": 2, "batch_size": 16} | plan | rule | options
    return loop.fit(net, rows or make_rows(), options.pop("loss"), **options)


def train(net, loss="xent", rows=None, **options):
    """The parameters after fit(), with a rate that moves them."""
    fit(net, rows, loss, **{"epochs": 5, "lr": 5e-5} | options)
    return parameters(net)


@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_of_any_size_give_the_same_parameters(tiny, loss):
    """openai's and EleutherAI's losses depend on the micro-batch; here they see the whole batch."""
    # the other rules take the ways of these two
    both, start = loss in ("xent", "conf"), parameters(fresh(tiny, dtype=torch.float64))
    rows, sizes = (make_rows(32), (1, 3, 100)) if both else (make_rows(16), (3,))
    how = {"batch_size": 8, "epochs": 1 if both else 2, "lr": 1e-4}
    whole = train(fresh(tiny, dtype=torch.float64), loss, rows, **how)
    assert (whole - start).abs().max() > 1e-4
    for size in sizes:
        cut = train(fresh(tiny, dtype=torch.float64), loss, rows, micro_batch=size, **how)
        assert (cut - whole).abs().max() < 1e-10, size


@pytest.mark.parametrize("loss", ["xent", "conf"])
def test_micro_batches_in_float32_differ_by_rounding(tiny, loss):
    whole, cut = (
        train(fresh(tiny), loss, make_rows(32), batch_size=8, micro_batch=size, epochs=2)
        for size in (8, 3)
    )
    assert (cut - whole).abs().max() < 1e-5


def test_the_confidence_loss_by_micro_batch_would_not_be_the_same(tiny):
    """The test above can fail: ranking each micro-batch by itself gives other parameters."""
    whole, cut = (
        train(fresh(tiny, dtype=torch.float64), "conf", epochs=2, **how)
        for how in ({}, {"whole_batch": False, "micro_batch": 3})
    )
    assert (cut - whole).abs().max() > 1e-6


def test_the_gradient_of_a_batch_is_the_gradient_of_its_mean_loss(tiny):
    net, rows = fresh(tiny, dtype=torch.float64), make_rows(10)
    tokens = [row["tokens"] for row in rows]
    weak = torch.tensor([row["given"] for row in rows]).double()
    conf(packing.logits(net, tokens), weak, 0.7).mean().backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    mean = loop.backward(net, tokens, weak, conf, 0.7, micro_batch=4, whole_batch=True)
    assert mean.item() == pytest.approx(conf(packing.logits(net, tokens), weak, 0.7).mean().item())
    for p, g in zip(net.parameters(), wanted):
        torch.testing.assert_close(p.grad, g, rtol=1e-10, atol=1e-12)


def bytes_held(run):
    """What autograd holds for the backward pass at the peak of run()."""
    held = {"now": 0, "peak": 0}

    class Saved:
        def __init__(self, tensor):
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            held["now"] += self.size
            held["peak"] = max(held["peak"], held["now"])

        def __del__(self):
            held["now"] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        run()
    return held["peak"]


@pytest.mark.parametrize("loss", ["xent", "conf"])
def test_micro_batches_save_memory(tiny, loss):
    """openai/weak-to-strong's bug D: every micro-batch stays in one graph.

    Counts the bytes that autograd holds at once.
    """
    net, rows = fresh(tiny), make_rows(32, low=30, high=30)
    tokens, given = [row["tokens"] for row in rows], torch.tensor([row["given"] for row in rows])
    rule = LOSSES[loss]

    def peak(size):
        how = 0.5, size, rule["whole_batch"]
        run = lambda: loop.backward(net, tokens, given, rule["loss"], *how)  # noqa: E731
        return bytes_held(run)

    assert peak(4) < 0.3 * peak(32)


def test_checkpointing_changes_nothing_but_memory(tiny):
    plain, saving = (
        train(fresh(tiny, "gpt2", torch.float64), "conf", checkpointing=on, epochs=2)
        for on in (False, True)
    )
    assert (plain - saving).abs().max() < 1e-10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_only_the_embedding_rows_that_occur_changes_nothing(
    tiny, architecture, monkeypatch
):
    """Bit for bit in float32, all weights; some tokens and the pad token never occur."""
    rows = [
        row | {"tokens": [2 * (token // 2) for token in row["tokens"]] + [2]} for row in make_rows()
    ]
    few, every = fresh(tiny, architecture), fresh(tiny, architecture)
    how = {"clip": 1e9, "held_out": rows[:9], "lr": 1e-3, "epochs": 1}
    train(few, "conf", rows, **how)
    monkeypatch.setattr(loop, "world", lambda: 2)  # there it stays whole
    with loop.used_tokens(every, rows, rows[:9]) as (same, _):
        assert same is rows
    monkeypatch.undo()
    every.w2s["packed"], packed = False, packing.packed
    monkeypatch.setattr(packing, "padded", lambda *how: packed(*how))  # packed all the same
    train(every, "conf", rows, **how)
    assert torch.equal(parameters(few), parameters(every))
    assert few.get_input_embeddings().weight.shape[0] == 64


def test_same_seed_same_bits_and_another_seed_another_order(tiny):
    one, two, other = (train(fresh(tiny), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_every_epoch_has_its_own_order_and_every_row_once():
    """openai/weak-to-strong's bug H: the same order every epoch."""
    generator = torch.Generator().manual_seed(0)
    first, second = loop.batches(100, 32, generator), loop.batches(100, 32, generator)
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert sorted(torch.cat(first).tolist()) == list(range(100))
    assert sorted(map(len, first)) == [25] * 4 and sorted(
        map(len, loop.batches(33, 32, generator))
    ) == [16, 17]


def test_epochs_are_drawn_as_they_begin_in_the_order_of_before():
    """A million epochs made a million orders before the first step."""
    generator = torch.Generator().manual_seed(3)
    wanted = [batch.tolist() for _ in range(3) for batch in loop.batches(10, 4, generator)]
    drawn = loop.orders(10, 4, 10**12, 3, 0, "here")
    assert [batch.tolist() for _, batch, _ in itertools.islice(drawn, 9)] == wanted
    later = loop.orders(10, 4, 3, 3, 5, "here")
    assert [(step, batch.tolist()) for step, batch, _ in later] == [*enumerate(wanted, 1)][5:]


@pytest.mark.parametrize("per_epoch", [1, 3, 5, 8, 13, 100])
def test_an_epoch_is_evaluated_at_its_eighths(per_epoch):
    wanted = {round(k * per_epoch / 8) for k in range(1, 17)} - {0}
    steps = loop.orders(per_epoch, 1, 2, 0, 0, "here")
    assert {step for step, _, evaluates in steps if evaluates} == wanted


def test_with_one_batch_an_epoch_it_is_told_that_the_seed_moves_nothing(tiny, capsys):
    rows = make_rows(16)
    one, two = (train(fresh(tiny), rows=rows, seed=seed) for seed in (0, 1))
    assert (one - two).abs().max() < 1e-6  # rounding: rows of one length change places
    assert capsys.readouterr().out.count("training: one batch an epoch: --seed moves only") == 2
    train(fresh(tiny))
    assert capsys.readouterr().out == ""


def test_early_stopping_keeps_what_agrees_best_with_the_given_labels_ties_to_the_later(
    tiny, monkeypatch
):
    agreement = iter([0.6, 0.9, 0.7, 0.9, 0.8, 0.5, 0.5, 0.5])
    weights = []

    def scripted(model, *how):
        # the embedding is whole again only after training
        weights.append(parameters(model.model.layers))
        return {"agreement": next(agreement), "true_acc": 1 - len(weights) / 10}

    monkeypatch.setattr(loop, "evaluate", scripted)
    net = fresh(tiny)
    history = fit(net, held_out=make_rows(8), epochs=1, batch_size=8)
    assert [line["epoch"] for line in history] == [k / 8 for k in range(1, 9)]
    kept = parameters(net.model.layers)
    assert torch.equal(kept, weights[3]) and not torch.equal(weights[3], weights[7])
    assert loop.kept(history) == history[3]


def test_ground_truth_decides_nothing(tiny):
    """Flipping every true label changes the diagnostic and nothing else."""
    rows, held_out = make_rows(64), make_rows(40, seed=1)
    nets, histories = [], []
    for flip in (False, True):
        parts = [
            [row | {"label": row["label"] ^ flip} for row in part] for part in (rows, held_out)
        ]
        nets.append(fresh(tiny))
        histories.append(fit(nets[-1], parts[0], "conf", held_out=parts[1], lr=1e-3))
    assert torch.equal(*map(parameters, nets))
    for a, b in zip(*histories):
        assert a.pop("true_acc") == pytest.approx(1 - b.pop("true_acc")) and a == b


def test_evaluation_says_how_often_the_model_agrees(tiny):
    net, rows = fresh(tiny), make_rows(30)
    logits = models.predict(net, [row["tokens"] for row in rows])
    says = (logits[:, 1] > logits[:, 0]).tolist()
    wanted = {"agreement": sum(s == (row["given"] > 0.5) for s, row in zip(says, rows)) / 30}
    wanted["true_acc"] = sum(s == (row["label"] == 1) for s, row in zip(says, rows)) / 30
    got = loop.evaluate(net, rows, "float32", losses.xent, packing.row_logits)
    assert got == pytest.approx(wanted)


@pytest.mark.parametrize("stop", [False, True])
def test_a_language_models_history_has_its_loss_on_held_out_rows(tiny, stop, monkeypatch):
    """By token, in nats; the weights of the lowest are kept where asked for."""
    net, held_out = fresh(tiny, outputs=0), make_rows(40, seed=1, low=2)
    how = {"loss": lm.share_of_loss, "outputs": lm.nll, "stop": stop, "lr": 0.3}
    history = fit(net, lm.shares(make_rows(low=2)), held_out=lm.shares(held_out), **how)
    nll = lm.nll(net, held_out)[:, 0].tolist()
    counts = [len(row["tokens"]) - 1 for row in held_out]
    by_hand = sum(n * x for n, x in zip(counts, nll)) / sum(counts)
    wanted = loop.kept(history) if stop else history[-1]
    assert wanted["held_out_loss"] == pytest.approx(by_hand, rel=1e-5)
    assert loop.kept(history)["held_out_loss"] == min(line["held_out_loss"] for line in history)
    assert loop.kept(history) != history[-1]  # such a rate does not end at its best
    assert all(line.keys() == {"step", "epoch", "loss", "held_out_loss"} for line in history)


def test_predictions_do_not_depend_on_how_the_rows_are_batched(tiny):
    net, rows = fresh(tiny), make_rows(50)
    tokens = [row["tokens"] for row in rows]
    alone = torch.cat([models.predict(net, [ids]) for ids in tokens])
    for batch_tokens in (1, 100, 10**6):
        torch.testing.assert_close(
            models.predict(net, tokens, batch_tokens=batch_tokens), alone, rtol=1e-5, atol=1e-5
        )


def test_the_loop_learns(tiny):
    rows = [
        row | {"tokens": row["tokens"] + [10 + row["label"]], "given": float(row["label"])}
        for row in make_rows(600, high=8)
    ]
    history = fit(
        fresh(tiny), rows[:500], held_out=rows[500:], epochs=4, batch_size=32, lr=1e-3, head_lr=1e-3
    )
    assert loop.kept(history)["true_acc"] > 0.9


@pytest.mark.parametrize("warm_up", [0.0, 0.5])
def test_the_rate_falls_along_a_cosine_and_the_heads_is_ten_times_the_bodys(
    tiny, monkeypatch, warm_up
):
    rates, step = [], torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        rates.append([group["lr"] for group in self.param_groups])
        assert {group["weight_decay"] for group in self.param_groups} == {warm_up / 10}
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    fit(fresh(tiny), warm_up=warm_up, weight_decay=warm_up / 10)
    cosine = [1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
    rise = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1] if warm_up else [1] * 8
    wanted = [round(a * b, 4) for a, b in zip(cosine, rise)]
    assert [round(body * 1e4, 4) for body, _ in rates] == pytest.approx(wanted, abs=1e-4)
    assert all(head == pytest.approx(10 * body) for body, head in rates)


def test_weight_decay_reaches_the_tokens_that_never_occur(tiny):
    rows = [row | {"tokens": [5, 6, 7]} for row in make_rows()]
    net, before = fresh(tiny), fresh(tiny).get_input_embeddings().weight
    fit(net, rows, weight_decay=0.1)
    assert (net.get_input_embeddings().weight[60].norm() < before[60].norm()).item()


# ---- what is resolved before training


class Sized(torch.nn.Module):
    """A model of n parameters that takes no memory."""

    device = torch.device("cpu")

    def __init__(self, n):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(n, device="meta"))

    def num_parameters(self, only_trainable=False):
        return len(self.weight)


@pytest.mark.parametrize(
    ("millions", "lr", "head_lr", "dtype"),
    [
        (9.9, 1e-4, 1e-3, "float32"),
        (10.1, 5e-5, 5e-5, "bf16"),
        (399, 5e-5, 5e-5, "bf16"),
        (401, 1e-5, 1e-5, "bf16"),
    ],
)
def test_rates_and_dtype_follow_the_size(millions, lr, head_lr, dtype, monkeypatch):
    monkeypatch.setattr(models, "has_bf16", lambda device: True)
    n = int(millions * 1e6)
    plan = {"lr": lr, "head_lr": head_lr, "dtype": dtype}
    assert loop.resolve(Sized(n)) == plan
    own = loop.resolve(Sized(n), lr=3e-5, dtype="float32")
    assert own["head_lr"] / own["lr"] == pytest.approx(head_lr / lr) and own["lr"] == 3e-5
    assert own["dtype"] == "float32"


def large(monkeypatch):
    """GPT-2's vocabulary, 14.7M parameters, 1.9M of them without the tokens that do not occur."""
    shape = bench.SHAPES["gpt2-6x384"] | dict(n_layer=2, n_embd=256, n_head=4)
    monkeypatch.setitem(bench.SHAPES, "gpt2-2x256", shape)
    return bench.make_model("gpt2-2x256", torch.device("cpu"))


def test_a_model_is_as_large_as_it_is_whole(monkeypatch):
    """fit() shrank the embedding before it derived rates and dtype: 1e-4 / 1e-3 in float32 here."""
    monkeypatch.setattr(models, "has_bf16", lambda device: True)
    net, seen = large(monkeypatch), []
    plan = loop.resolve(net)
    assert plan == {"lr": 5e-5, "head_lr": 5e-5, "dtype": "bf16"}
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        seen.append((net.num_parameters(), [group["lr"] for group in self.param_groups]))
        return step(self, *args, **kwargs)

    def loss(logits, given, progress):
        seen.append(net.transformer.h[0].attn.c_attn.weight.dtype)
        return losses.xent(logits, given)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    fit(net, make_rows(4), epochs=1, loss=loss)
    (n, rates) = seen[1]
    assert n < 10_000_000 and rates == [5e-5, 5e-5]


def test_low_rank_terms_of_such_a_model_train_in_bf16(monkeypatch):
    """Bf16 matrices in a float32 run crashed; the terms count as no parameters."""
    monkeypatch.setattr(models, "has_bf16", lambda device: True)
    net = large(monkeypatch)
    lora.add(net, 4, None, 1)
    plan = loop.resolve(net)
    assert plan == {"lr": 2e-4, "head_lr": 2e-4, "dtype": "bf16"}
    assert net.transformer.h[0].attn.c_attn.weight.dtype == torch.bfloat16
    history = fit(net, make_rows(4), epochs=1, batch_size=4, held_out=make_rows(2))
    assert net.transformer.h[0].attn.c_attn.lora_b.abs().max() > 0
    assert history[-1].keys() == {"step", "epoch", "loss", "agreement", "true_acc"}


# ---- going on


# ---- what goes wrong


def test_a_loss_that_is_no_longer_finite_stops_the_run(tiny):
    net = fresh(tiny)
    with torch.no_grad():
        net.score.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="try a smaller --lr"):
        fit(net)


def test_labels_that_teach_nothing_are_told_once(tiny, capsys):
    """The window's median of a constant 1/2 is 0: no student is less confident."""
    rows = [row | {"given": 0.5} for row in make_rows()]
    fit(fresh(tiny), rows, "window")
    told = capsys.readouterr().out
    assert told == (
        "warning: training: the loss is 0: by this rule (--loss) these labels teach nothing\n"
    )


def test_bf16_autocast_trains_float32_weights(tiny):
    net = fresh(tiny)
    before = copy.deepcopy(net)
    history = fit(net, None, "conf", held_out=make_rows(8), dtype="bf16", micro_batch=5)
    assert all(p.dtype == torch.float32 for p in net.parameters()) and history[-1]["loss"] < 5
    assert not torch.equal(parameters(net), parameters(before))


def test_compile_compiles_the_layers_whose_code_is_one(tiny, monkeypatch):
    model, compiled = fresh(tiny), []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append(self))
    loop.prepare(model, checkpointing=False, compile=True)
    assert compiled == list(model.model.layers)
