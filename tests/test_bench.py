"""bench.py runs, and compares like with like."""

import inspect
import os
from concurrent.futures import Future

import pytest
import torch

import bench
from w2s.files import BadInput


class InThisProcess:
    """Stands for a process of its own, which takes ten seconds to start."""

    waits = {}  # side: how its threads wait

    def __init__(self, *args, **how):
        pass

    def submit(self, function, *args):
        self.waits.setdefault(args[1], set()).add(os.environ["GOMP_SPINCOUNT"])
        done = Future()
        done.set_result(function(*args))
        return done

    def shutdown(self):
        pass


def test_texts_longer_than_the_bench_makes_are_refused():
    for mean in (-5, 2_000):
        with pytest.raises(BadInput, match="must be from 3 to 500"):
            bench.main(mean=mean)


def test_the_bench_prints_its_tables_at_toy_size(capsys, monkeypatch):
    monkeypatch.setattr(bench, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(bench, "matmul_rate", lambda *how: 1e9)  # the longest part of the test
    for part in ("train", "score", "generative"):
        monkeypatch.setenv("GOMP_SPINCOUNT", "7")
        bench.main(part, shape="tiny", repeats=1, steps=1, mean=12)
    told = capsys.readouterr().out
    for line in (
        " threads, torch ",
        "ours",
        "HF Trainer, padded",
        "group by length",
        "HF Trainer.predict",
        "generative, mean 12 tokens",
        "HF Trainer, without padding",
    ):
        assert line in told
    # each side is a process of its own, which reads how its threads wait when it starts
    assert InThisProcess.waits == {"ours": {"7"}} | {
        name: {"300000"} for sides in bench.SIDES.values() for name in sides
    }


@pytest.mark.parametrize("fast", [True, False])
def test_both_sides_compute_in_the_type_that_the_processor_is_fast_in(monkeypatch, fast):
    monkeypatch.setattr("w2s.models.has_bf16", lambda device: fast)
    bench.side.cache_clear()
    ours, _ = bench.side("train", "ours", "tiny")
    theirs, _ = bench.side("train", "HF Trainer, padded", "tiny")
    score, _ = bench.side("score", "ours", "tiny")
    bench.side.cache_clear()
    dtype = "bf16" if fast else "float32"
    assert ours.keywords == {"dtype": dtype} and bench.native() == dtype
    assert inspect.getclosurevars(score).nonlocals["dtype"] == dtype
    assert inspect.getclosurevars(theirs).nonlocals["theirs"].args.bf16 == fast


def test_what_does_not_exist_is_told():
    with pytest.raises(BadInput, match="there is no part trian .did you mean train"):
        bench.main("trian")
    with pytest.raises(BadInput, match="there is no shape gpt2.*did you mean gpt2-6x384"):
        bench.main(shape="gpt2")


def test_both_sides_train_the_same_model_on_the_same_rows():
    device, rows = torch.device("cpu"), bench.make_rows(40, 12, 400)
    ours, theirs = (
        bench.make_model("tiny", device),
        bench.trainer("tiny", device, False, batch_size=8),
    )
    for name, weights in ours.state_dict().items():
        assert torch.equal(weights, theirs.model.state_dict()[name])
    assert rows[0]["input_ids"] == rows[0]["tokens"]
    batch = bench.trainer("tiny", device, True).data_collator(rows[:2])
    assert (
        torch.equal(batch["labels"] == -100, batch["attention_mask"] == 0)
        and not (batch["labels"] != batch["input_ids"])[batch["attention_mask"] == 1].any()
    )
    lengths = [len(row["tokens"]) for row in bench.make_rows(4000, 20, 400)]
    assert sum(lengths) / 4000 == pytest.approx(20, rel=0.03) and min(lengths) >= 3


def test_the_trainer_without_padding_takes_the_same_texts():
    device, rows = torch.device("cpu"), bench.make_rows(6, 12, 400)
    losses, shapes = [], []
    for padded in (True, False):
        theirs = bench.trainer("tiny", device, True, batch_size=6, padded=padded)
        batch = theirs.data_collator(rows)
        shapes.append(batch["input_ids"].shape)
        losses.append(theirs.compute_loss(theirs.model, batch).item())
    lengths = [len(row["tokens"]) for row in rows]
    assert shapes == [(6, max(lengths)), (1, sum(lengths))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # attention crosses no border
