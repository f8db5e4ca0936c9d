"""Two processes as of torchrun (gloo, on the CPU) give what one gives: weights, folder, answers."""

import contextlib
import functools
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import slow
from safetensors.torch import load_file
from test_loop import fit, fresh, make_rows

from w2s import lora, parallel, parts
from w2s.files import BadInput
from w2s.losses import LOSSES

HERE = Path(__file__).parent
# GPT-2 in float64: the gradient of its key biases is rounding alone, of which AdamW makes steps
ARCHITECTURES = {"llama": torch.float32, "bert": torch.float32, "gpt2": torch.float64}
CHECKPOINTING = {"checkpointing": True}
SETTINGS = {  # name: (architecture, loss, rank of --lora, options)
    "llama-lora": ("llama", "conf", 2, {}),
    "gpt2-lora-checkpointing": ("gpt2", "xent", 2, CHECKPOINTING | {"micro_batch": 3}),
    "bert-lora": ("bert", "conf", 2, CHECKPOINTING),
    "bert-xent": ("bert", "xent", None, {"micro_batch": 3}),
    "bert-conf": ("bert", "conf", None, {}),
    "gpt2-xent": ("gpt2", "xent", None, {}),
    "gpt2-conf": ("gpt2", "conf", None, CHECKPOINTING | {"micro_batch": 3}),
    "llama-conf-3": ("llama", "conf", None, {"micro_batch": 3}),
}
# a batch is dealt out in one of two ways, which xent and conf take; mix does what it does in order
RULES = LOSSES if "W2S_SLOW" in os.environ else ("xent", "conf", "mix")
SETTINGS |= {f"llama-{loss}": ("llama", loss, None, {}) for loss in RULES}


def train(folder, setting):
    """Three steps of 17, 17 and 16 rows: two processes cannot share them evenly."""
    architecture, loss, r, options = SETTINGS[setting]
    net = fresh(lambda _: folder, architecture, ARCHITECTURES[architecture])
    lora.add(net, r)
    options = {
        "epochs": 1,
        "batch_size": 17,
        "lr": 5e-5,
        "held_out": make_rows(9, seed=1),
    } | options
    history = fit(net, make_rows(50), loss, **options)
    lora.merge(net)
    return net, history


RUNS = {"texts": "facts", "moves": "puzzles", "others": "puzzles", "writing": "manners"}
SCORING = {  # where the answers are: (the field, the call)
    "texts.jsonl": ("weak", "label.py texts --out=texts.jsonl"),
    "texts/eval/facts-test.jsonl": ("prob", "eval.py texts"),
    "shots/eval/facts-test.jsonl": (
        "prob",
        "eval.py --model=facts/m --n_test=9 --shots=2 --out=shots",
    ),
    "moves.jsonl": ("weak", "label.py moves --out=moves.jsonl"),
    "both.jsonl": ("weak", "label.py moves others --vote=soft --out=both.jsonl"),
    "writing/eval/manners-test.jsonl": ("completions", "eval.py writing --n_test=7"),
}


def score(call, folder):
    """The calls of SCORING in a folder with runs."""
    os.chdir(folder)
    for _, words in SCORING.values():
        with contextlib.suppress(SystemExit):
            call(*words.split())


def processes(apart, *words, folder, n=2):
    """What the first of n processes prints that torchrun would start, all to the same port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{one.getsockname()[1]}"}
    env |= {"WORLD_SIZE": f"{n}"}
    ranks = [env | {"RANK": f"{k}", "LOCAL_RANK": f"{k}"} for k in range(n)]
    started = [apart(words, folder, env) for env in ranks]
    told = [one.communicate() for one in started]
    assert not any(one.returncode for one in started), told
    return told[0][0]


def torchrun(*words, folder, n=2, fails=False):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
    path = {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    how = {"capture_output": True, "text": True, "cwd": folder, "timeout": 300}
    done = subprocess.run([*start, *map(str, words)], env=os.environ | path, **how)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def pairs(tiny, apart, tmp_path_factory):
    """What two processes trained, one/ and two/: the same runs, and what two made of these."""
    folder = tmp_path_factory.mktemp("pairs")
    train_weak = importlib.import_module("train_weak")
    for name, ds in RUNS.items():
        sizes = {"n_train": 48, "n_test": 40, "n_val": 8, "epochs": 1}
        out = str(folder / "one" / name)
        train_weak.main(ds=ds, out=out, seed=len(name), batch_size=16, **sizes)
    shutil.copytree(folder / "one", folder / "two")
    processes(apart, HERE / "test_parallel.py", *map(tiny, ARCHITECTURES), folder, folder=folder)
    return folder


@pytest.mark.parametrize("setting", SETTINGS)
def test_two_processes_give_the_parameters_of_one(tiny, pairs, setting):
    """With --lora they gave the base model: what was learned was added to no shard."""
    net, history = train(tiny(SETTINGS[setting][0]), setting)
    theirs, mine = load_file(pairs / f"{setting}.safetensors"), net.state_dict()
    assert theirs.keys() == mine.keys()
    assert max((theirs[key] - value).abs().max() for key, value in mine.items()) < 1e-5
    their_history = json.loads((pairs / f"{setting}.json").read_text())
    assert len(their_history) == len(history)
    for a, b in zip(their_history, history):
        assert a == pytest.approx(b, abs=1e-5)
    base = fresh(tiny, SETTINGS[setting][0], ARCHITECTURES[SETTINGS[setting][0]])
    pairs_of = zip(net.base_model.parameters(), base.base_model.parameters())
    assert max((a - b).abs().max() for a, b in pairs_of) > 2e-5
    moved = [key for key, value in base.state_dict().items() if not torch.equal(theirs[key], value)]
    assert len(moved) >= 9  # every matrix of the layers, and the head


def test_two_processes_answer_as_one(pairs, command, monkeypatch):
    """Each its share of the rows; who is not the first writes and says nothing."""
    monkeypatch.chdir(pairs)
    score(command, pairs / "one")
    for name, (field, _) in SCORING.items():
        one, two = (
            [json.loads(line) for line in (pairs / who / name).read_text().splitlines()]
            for who in ("one", "two")
        )
        assert len(one) > 6 and len({row[field] for row in one if field != "completions"}) != 1
        if not isinstance(one[0][field], float):
            assert one == two, name
        for a, b in zip(one, two, strict=True):
            assert a == b | {field: pytest.approx(b[field], abs=1e-6)}, name
    one, two = (
        sorted(str(p.relative_to(pairs / who)) for p in (pairs / who).rglob("*"))
        for who in ("one", "two")
    )
    assert one == two


def test_bad_input_ends_all_processes_with_one_line(tmp_path):
    done = torchrun(HERE.parent / "label.py", "nothing", folder=tmp_path, fails=True)
    told = [line for line in done.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: nothing does not exist: give the --out of train_weak.py or train_strong.py"
    ]
    assert "exitcode  : 2" in done and "label.py" in done and not os.listdir(tmp_path)


ROWS = {
    "texts": lambda i: {"text": "ab0c1" * (i % 9 + 1), "label": i % 2, "weak": i % 7 / 7},
    "pairs": lambda i: {
        "prompt": "ab" * (i % 5 + 1),
        "a": "c" * (i % 3 + 1),
        "b": "de",
        "label": i % 2,
        "weak": i % 7 / 7,
    },
}


@pytest.mark.parametrize("kind", ["texts", pytest.param("pairs", marks=slow)])
def test_two_processes_of_a_stage_leave_the_folder_that_one_leaves(
    tiny, tmp_path, command, apart, monkeypatch, kind
):
    """The slow case is by torchrun itself."""
    rows = [{"id": str(i)} | ROWS[kind](i) for i in range(60)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["labels.jsonl", f"--model={tiny('llama')}", "--loss=conf", "--batch_size=10"]
    words += ["--lr=1e-4", *(["--lora=2"] if kind == "texts" else [])]
    both = [HERE.parent / "train_strong.py", *words, "--out=two"]
    start = torchrun if kind == "pairs" else functools.partial(processes, apart)
    told = start(*both, folder=tmp_path)
    assert told.count("two: kept the weights") == 1
    monkeypatch.chdir(tmp_path)
    command("train_strong.py", *words, "--out=one")
    one, two = (
        sorted(str(p.relative_to(tmp_path / run)) for p in (tmp_path / run).rglob("*"))
        for run in ("one", "two")
    )
    assert one == two
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys() and max((one[key] - two[key]).abs().max() for key in one) < 1e-5
    one, two = (json.loads((tmp_path / run / "card.json").read_text()) for run in ("one", "two"))
    assert one["kept"] == pytest.approx(two["kept"], abs=1e-5)
    assert one["inputs"] == two["inputs"] and two["finished"]


def test_what_is_not_sharded_is_its_own_part():
    """The layer of a probe, of which each process has the whole."""
    layer = torch.nn.Linear(2, 2)
    best = layer.weight.detach().clone()
    assert parallel.as_shard(best, layer.weight) is best
    assert parallel.in_one_piece(layer.weight) is layer.weight


GO_ON = """
import os, signal, sys
sys.path.append(sys.argv[1])
import torch
from safetensors.torch import save_file
from test_loop import fit, fresh, make_rows
from w2s import files, loop, parallel

parallel.join()
teach, held_out = loop.teach, make_rows(9, seed=1)

def train(out, stop=None, state="state.safetensors"):
    steps = iter(range(1, 99))

    def stops(*words):
        if next(steps) == stop and files.rank() == files.world() - 1:  # not the first
            signal.raise_signal(signal.SIGTERM)
        return teach(*words)

    net, loop.teach = fresh(lambda _: sys.argv[2]), stops
    fit(net, make_rows(84), "conf", resume=state, held_out=held_out, batch_size=17)
    whole = {key: parallel.in_one_piece(p).detach().clone() for key, p in net.named_parameters()}
    if files.rank() == 0:
        save_file(whole, out)

if files.world() == 2:
    train("whole", state="none")
    try:
        train("stopped", stop=3)
    except SystemExit as ended:
        assert ended.code == 143
train(f"by {files.world()}")
torch.distributed.destroy_process_group()
os._exit(0)
"""


@slow
def test_sharded_trainings_go_on_also_with_another_number_of_processes(tiny, tmp_path):
    """The last process is told to stop; all end after the same step."""
    (tmp_path / "go_on.py").write_text(GO_ON)
    for n in (2, 3):
        torchrun(tmp_path / "go_on.py", HERE, tiny("llama"), folder=tmp_path, n=n)
    state = tmp_path / "state.safetensors"
    assert parts.about(state)["step"] == 3 and not (tmp_path / "stopped").exists()
    wanted, same, near = (load_file(tmp_path / name) for name in ("whole", "by 2", "by 3"))
    assert all(torch.equal(same[key], value) for key, value in wanted.items())
    assert max((near[key] - value).abs().max() for key, value in wanted.items()) < 1e-5
    how = {"held_out": make_rows(9, seed=1), "batch_size": 17, "resume": state}
    with pytest.raises(BadInput, match="written by 2 process.*call it with as many"):
        fit(fresh(tiny), make_rows(84), "conf", **how)


if __name__ == "__main__":  # one of the two processes
    from safetensors.torch import save_file
    from torch.distributed.tensor import DTensor

    from w2s import cli, files, parallel

    folders, out = dict(zip(ARCHITECTURES, sys.argv[1:])), sys.argv[-1]
    parallel.join()
    for setting, (architecture, *_) in SETTINGS.items():
        net, history = train(folders[architecture], setting)
        assert any(isinstance(p, DTensor) for p in net.parameters())
        whole = {
            key: (p.full_tensor() if isinstance(p, DTensor) else p).detach().contiguous()
            for key, p in net.state_dict().items()
        }
        if files.rank() == 0:
            save_file(whole, f"{out}/{setting}.safetensors")
            Path(f"{out}/{setting}.json").write_text(json.dumps(history))

    def call(script, *words):
        sys.argv = [script, *words]
        cli.run(importlib.import_module(script.removesuffix(".py")).main, processes=True)

    parallel.join = lambda: None
    parallel.leave = lambda: files.rank() and sys.exit()  # the others wait for the next call
    score(call, f"{out}/two")
    torch.distributed.destroy_process_group()
    os._exit(0)  # an ordinary exit now and then aborts in gloo's threads
