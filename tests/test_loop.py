"""The loop: the batch is the batch however it is cut, early stopping looks at the given labels alone, same seed same bits."""

import copy
import random

import pytest
import torch
from conftest import ARCHITECTURES

import bench
from w2s import loop, models, packing
from w2s.losses import LOSSES, conf


def make_rows(n=64, seed=0, low=1, high=40):
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        tokens = [rng.randrange(4, 64) for _ in range(rng.randint(low, high))]
        rows.append(
            {"id": str(i), "tokens": tokens, "label": int(tokens[-1] > 33), "weak": rng.random()}
        )
    return rows


def fresh(tiny, architecture="llama", dtype=torch.float32):
    net, _ = models.load(tiny(architecture), device="cpu")
    return net.to(dtype)


def parameters(net):
    return torch.cat([p.detach().flatten().double() for p in net.parameters()])


def train(net, loss="xent", rows=None, **options):
    options = {"epochs": 5, "batch_size": 16, "lr": 5e-5} | options
    loop.fit(
        net, rows or make_rows(), "weak", **LOSSES[loss], **options
    )  # 4 batches an epoch: 20 steps
    return parameters(net)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_micro_batches_of_any_size_give_the_same_parameters_after_20_steps(
    tiny, loss, dtype, tolerance
):
    """openai's and EleutherAI's losses depend on the micro-batch; the confidence loss ranks the whole batch here."""
    start, rows = parameters(fresh(tiny, dtype=dtype)), make_rows(32)
    whole = train(fresh(tiny, dtype=dtype), loss, rows, batch_size=8)
    assert (whole - start).abs().max() > 1e-4
    for size in (
        (1, 3, 4, 8, 100) if loss in ("xent", "conf") else (3,)
    ):  # the others take the ways of these two
        cut = train(fresh(tiny, dtype=dtype), loss, rows, batch_size=8, micro_batch=size)
        assert (cut - whole).abs().max() < tolerance, size


def test_the_confidence_loss_by_micro_batch_would_not_be_the_same(tiny):
    """The test above can fail: ranking each micro-batch by itself gives other parameters."""
    whole = train(fresh(tiny, dtype=torch.float64), "conf")
    net = fresh(tiny, dtype=torch.float64)
    loop.fit(
        net,
        make_rows(),
        "weak",
        conf,
        whole_batch=False,
        epochs=5,
        batch_size=16,
        lr=5e-5,
        micro_batch=3,
    )
    assert (parameters(net) - whole).abs().max() > 1e-6


def test_the_gradient_of_a_batch_is_the_gradient_of_its_mean_loss(tiny):
    net, rows = fresh(tiny, dtype=torch.float64), make_rows(10)
    tokens, weak = (
        [row["tokens"] for row in rows],
        torch.tensor([row["weak"] for row in rows]).double(),
    )
    conf(packing.logits(net, tokens), weak, 0.7).mean().backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    mean = loop.backward(net, tokens, weak, conf, 0.7, micro_batch=4, whole_batch=True)
    assert mean.item() == pytest.approx(conf(packing.logits(net, tokens), weak, 0.7).mean().item())
    for p, g in zip(net.parameters(), wanted):
        torch.testing.assert_close(p.grad, g, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_save_memory(tiny, loss):
    """openai/weak-to-strong's bug D: every micro-batch stays in one graph. Counts the bytes that autograd holds at once."""
    net, rows = fresh(tiny), make_rows(32, low=30, high=30)
    tokens, weak = [row["tokens"] for row in rows], torch.tensor([row["weak"] for row in rows])

    def peak(micro_batch):
        whole = LOSSES[loss]["whole_batch"]
        return bench.peak(
            net.device,
            lambda: loop.backward(net, tokens, weak, LOSSES[loss]["loss"], 0.5, micro_batch, whole),
        )

    assert peak(4) < 0.3 * peak(32)


def test_checkpointing_changes_nothing_but_memory(tiny):
    plain, saving = (
        train(fresh(tiny, "gpt2", torch.float64), "conf", checkpointing=on) for on in (False, True)
    )
    assert (plain - saving).abs().max() < 1e-10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_only_the_embedding_rows_that_occur_changes_nothing(
    tiny, architecture, monkeypatch
):
    """Bit for bit in float32, all weights, tokens that never occur and the pad token among them."""
    rows = [
        row | {"tokens": [2 * (token // 2) for token in row["tokens"]] + [2]} for row in make_rows()
    ]
    few, all_rows = fresh(tiny, architecture), fresh(tiny, architecture)
    train(few, "conf", rows, clip=1e9, held_out=rows[:9], lr=1e-3)
    monkeypatch.setattr(loop, "shrink_embedding", lambda model, rows: (None, None))
    train(all_rows, "conf", rows, clip=1e9, held_out=rows[:9], lr=1e-3)
    assert torch.equal(parameters(few), parameters(all_rows))
    assert few.get_input_embeddings().weight.shape == (
        64,
        few.get_input_embeddings().weight.shape[1],
    )


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


def test_early_stopping_keeps_what_agrees_best_with_the_given_labels_ties_to_the_later(
    tiny, monkeypatch
):
    agreement = iter([0.6, 0.9, 0.7, 0.9, 0.8, 0.5, 0.5, 0.5])
    weights = []

    def scripted(model, rows, given, dtype):
        weights.append(
            parameters(model.model.layers)
        )  # the embedding is whole again only after training
        return {"weak_acc": next(agreement), "true_acc": 1 - len(weights) / 10}

    monkeypatch.setattr(loop, "evaluate", scripted)
    net = fresh(tiny)
    history = loop.fit(
        net, make_rows(), "weak", **LOSSES["xent"], held_out=make_rows(8), epochs=1, batch_size=8
    )
    assert [line["epoch"] for line in history] == [k / 8 for k in range(1, 9)]
    assert torch.equal(parameters(net.model.layers), weights[3]) and not torch.equal(
        weights[3], weights[7]
    )
    assert loop.kept(history) == history[3]


def test_ground_truth_decides_nothing(tiny):
    """Flipping every true label changes the diagnostic and nothing else."""
    rows, held_out = make_rows(64), make_rows(40, seed=1)
    lied = (
        [row | {"label": 1 - row["label"]} for row in rows],
        [row | {"label": 1 - row["label"]} for row in held_out],
    )
    nets, histories = [], []
    for train_rows, val_rows in ((rows, held_out), lied):
        nets.append(fresh(tiny))
        histories.append(
            loop.fit(
                nets[-1],
                train_rows,
                "weak",
                **LOSSES["conf"],
                held_out=val_rows,
                batch_size=16,
                lr=1e-3,
            )
        )
    assert torch.equal(parameters(nets[0]), parameters(nets[1]))
    for a, b in zip(*histories):
        assert a["true_acc"] == pytest.approx(1 - b["true_acc"])
        assert {k: a[k] for k in ("step", "loss", "weak_acc")} == {
            k: b[k] for k in ("step", "loss", "weak_acc")
        }


def test_evaluation_says_how_often_the_model_agrees(tiny):
    net, rows = fresh(tiny), make_rows(30)
    logits = models.predict(net, [row["tokens"] for row in rows])
    says = (logits[:, 1] > logits[:, 0]).tolist()
    wanted = {"weak_acc": sum(s == (row["weak"] > 0.5) for s, row in zip(says, rows)) / 30}
    wanted["true_acc"] = sum(s == (row["label"] == 1) for s, row in zip(says, rows)) / 30
    assert loop.evaluate(net, rows, "weak", "float32") == pytest.approx(wanted)


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
        row | {"tokens": row["tokens"] + [10 + row["label"]], "weak": float(row["label"])}
        for row in make_rows(600)
    ]
    history = loop.fit(
        fresh(tiny), rows[:500], "weak", **LOSSES["xent"], held_out=rows[500:], epochs=4, lr=1e-3
    )
    assert loop.kept(history)["true_acc"] > 0.9


def test_the_rate_falls_along_a_cosine_and_the_heads_is_ten_times_the_bodys(tiny, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    loop.fit(fresh(tiny), make_rows(), "weak", **LOSSES["xent"], epochs=2, batch_size=16)
    assert [round(body * 1e4, 4) for body, _ in rates] == [
        1.0,
        0.9619,
        0.8536,
        0.6913,
        0.5,
        0.3087,
        0.1464,
        0.0381,
    ]
    assert all(head == pytest.approx(10 * body) for body, head in rates)


@pytest.mark.parametrize(
    ("millions", "wanted"),
    [(9, (1e-4, 1e-3)), (22, (5e-5, 5e-5)), (355, (5e-5, 5e-5)), (774, (1e-5, 1e-5))],
)
def test_the_default_rate_follows_the_size(millions, wanted):
    class Sized:
        def num_parameters(self, only_trainable=False):
            return millions * 10**6

    assert loop.default_lr(Sized()) == wanted


def test_a_loss_that_is_no_longer_finite_stops_the_run(tiny):
    net = fresh(tiny)
    with torch.no_grad():
        net.score.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="try a smaller --lr"):
        loop.fit(net, make_rows(), "weak", **LOSSES["xent"])


def test_bf16_autocast_trains_float32_weights(tiny):
    net = fresh(tiny)
    before = copy.deepcopy(net)
    history = loop.fit(
        net,
        make_rows(),
        "weak",
        **LOSSES["conf"],
        held_out=make_rows(8),
        dtype="bf16",
        micro_batch=5,
    )
    assert all(p.dtype == torch.float32 for p in net.parameters()) and history[-1]["loss"] < 5
    assert not torch.equal(parameters(net), parameters(before))
