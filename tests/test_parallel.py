"""Two processes under torchrun (gloo, on the CPU) give what one gives: weights, history, and the folder they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_loop import fresh, make_rows

from w2s import loop
from w2s.losses import LOSSES

HERE = Path(__file__).parent
# GPT-2 in float64: the gradient of its key biases is rounding alone, and AdamW makes whole steps of whatever it gets
ARCHITECTURES = {"llama": torch.float32, "bert": torch.float32, "gpt2": torch.float64}
SETTINGS = [
    (a, loss, size) for a in ARCHITECTURES for loss in ("xent", "conf") for size in (None, 3)
]


def train(folder, architecture, loss, micro_batch):
    """10 steps, 17 rows in a batch, so that two processes cannot share them evenly; (net, history)."""
    net = fresh(lambda _: folder, architecture, ARCHITECTURES[architecture])
    options = {
        "epochs": 2,
        "batch_size": 17,
        "lr": 5e-5,
        "micro_batch": micro_batch,
        "held_out": make_rows(9, seed=1),
    }
    return net, loop.fit(net, make_rows(84), "weak", **LOSSES[loss], **options)


def torchrun(*words, folder):
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        *map(str, words),
    ]
    path = {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=folder, env=os.environ | path, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def pairs(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    torchrun(HERE / "test_parallel.py", *map(tiny, ARCHITECTURES), folder, folder=folder)
    return folder


@pytest.mark.parametrize(("architecture", "loss", "micro_batch"), SETTINGS)
def test_two_processes_give_the_parameters_of_one(tiny, pairs, architecture, loss, micro_batch):
    net, history = train(tiny(architecture), architecture, loss, micro_batch)
    theirs = load_file(pairs / f"{architecture}-{loss}-{micro_batch}.safetensors")
    mine = net.state_dict()
    assert theirs.keys() == mine.keys()
    assert max((theirs[key] - value).abs().max() for key, value in mine.items()) < 1e-5
    their_history = json.loads((pairs / f"{architecture}-{loss}-{micro_batch}.json").read_text())
    assert [line["step"] for line in their_history] == [line["step"] for line in history]
    for a, b in zip(their_history, history):
        assert a == pytest.approx(b, abs=1e-5)


ROW = {
    "train_strong.py": lambda i: {"text": "ab0c1" * (i % 9 + 1), "label": i % 2, "weak": i % 7 / 7},
    "rm/train_rm.py": lambda i: {
        "prompt": "ab" * (i % 5 + 1),
        "a": "c" * (i % 3 + 1),
        "b": "de",
        "label": i % 2,
        "weak": i % 7 / 7,
    },
}


@pytest.mark.parametrize("script", ROW)
def test_a_script_under_torchrun_leaves_the_folder_that_one_process_leaves(
    tiny, tmp_path, command, monkeypatch, script
):
    rows = [{"id": str(i)} | ROW[script](i) for i in range(60)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "labels.jsonl",
        f"--model={tiny('llama')}",
        "--loss=conf",
        "--batch_size=10",
        "--lr=1e-4",
    ]
    told = torchrun(HERE.parent / script, *words, "--out=two", folder=tmp_path)
    assert told.count("two: kept the weights") == 1
    monkeypatch.chdir(tmp_path)
    command(script, *words, "--out=one")
    one, two = (
        sorted(str(p.relative_to(tmp_path / run)) for p in (tmp_path / run).rglob("*"))
        for run in ("one", "two")
    )
    assert one == two
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys() and max((one[key] - two[key]).abs().max() for key in one) < 1e-5
    one, two = (json.loads((tmp_path / run / "card.json").read_text()) for run in ("one", "two"))
    assert (
        one["kept"] == pytest.approx(two["kept"], abs=1e-5)
        and one["inputs"] == two["inputs"]
        and two["finished"]
    )


if __name__ == "__main__":  # one of the two processes
    from safetensors.torch import save_file

    from w2s import parallel

    folders, out = dict(zip(ARCHITECTURES, sys.argv[1:])), sys.argv[-1]
    parallel.join(out)
    for architecture, loss, micro_batch in SETTINGS:
        net, history = train(folders[architecture], architecture, loss, micro_batch)
        assert any(isinstance(p, parallel.DTensor) for p in net.parameters())
        whole = {
            key: p.full_tensor().detach() if isinstance(p, parallel.DTensor) else p
            for key, p in net.state_dict().items()
        }
        if parallel.rank() == 0:
            name = f"{out}/{architecture}-{loss}-{micro_batch}"
            save_file({key: p.contiguous() for key, p in whole.items()}, f"{name}.safetensors")
            Path(f"{name}.json").write_text(json.dumps(history))
    torch.distributed.destroy_process_group()
    os._exit(0)  # an ordinary exit now and then aborts in gloo's threads
