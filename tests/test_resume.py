"""What is stopped goes on: trainings end in the same bits, long answers are given once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from test_loop import fit, fresh, make_rows, parameters

import generate
import train_weak
from w2s import files, lm, loop, lora, losses, models, parts, probes, resume
from w2s.files import HERE, BadInput

MAIN = {
    "conf": {"loss": "conf", "micro_batch": 5},
    "bf16": {"loss": "conf", "dtype": "bf16"},
    "lora": {"loss": "xent", "micro_batch": 7},
    "language model": {"loss": lm.share_of_loss, "outputs": lm.nll, "weight_decay": 0.1},
}


def asks(loss, at, number=signal.SIGTERM):
    """The loss, which sends this process a signal in its steps of these numbers (of 12)."""
    left = set(at)

    def stops(logits, given, progress):
        if (step := round(progress * 12) + 1) in left:
            left.discard(step)
            signal.raise_signal(number)
        return loss(logits, given, progress)

    return stops


@pytest.mark.parametrize("kind", MAIN)
def test_a_training_stopped_at_any_step_ends_in_the_same_bits(tiny, tmp_path, kind, capsys):
    state, how = tmp_path / "state.safetensors", dict(MAIN[kind])
    rule = losses.LOSSES[how["loss"]] if isinstance(how["loss"], str) else {"loss": how["loss"]}
    loss, rows, held_out = rule["loss"], make_rows(low=2), make_rows(20, seed=1, low=2)
    if kind == "language model":
        rows, held_out = lm.shares(rows), lm.shares(held_out)
    how |= rule | {"held_out": held_out, "lr": 1e-3, "warm_up": 0.2, "epochs": 3}

    def run(**more):
        net = fresh(tiny, outputs=0 if kind == "language model" else 2)
        lora.add(net, 2 if kind == "lora" else None)
        history = fit(net, rows, **how | more)
        return parameters(net), history

    wanted, stops = run(), asks(loss, {1, 7, 11})
    for step in (1, 7, 11):
        with pytest.raises(SystemExit, match="143"):
            run(loss=stops, resume=state)
        assert parts.about(state)["step"] == step
        told = f"stopped at step {step} of 12: the state of step {step} is in {state}"
        assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [state.name]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    got = run(loss=stops, resume=state)
    assert torch.equal(got[0], wanted[0]) and got[1] == wanted[1] and state.exists()


class Died(Exception):
    pass


def dies(step):
    def loss(logits, given, progress):
        if progress * 8 >= step - 0.5:
            raise Died
        return losses.xent(logits, given)

    return loss


def test_a_state_is_written_every_so_often_and_the_last_good_one_stays(
    tiny, tmp_path, monkeypatch, capsys
):
    state = tmp_path / "state.safetensors"
    with pytest.raises(Died):
        fit(fresh(tiny), loss=dies(6), resume=state, save_every=1e-9)
    assert parts.about(state)["step"] == 6
    with safe_open(state, "pt") as file:  # anybody can read it
        assert {"weights/score.weight", "exp_avg/score.weight"} <= set(file.keys())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(os, "fsync", full)
        fit(fresh(tiny), loss=dies(7), resume=state, save_every=1e-9)
    assert "No space left on device: going on with that of step 6" in capsys.readouterr().out
    assert parts.about(state)["step"] == 6 and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(Died):
        fit(fresh(tiny), loss=dies(3), resume=tmp_path / "never", save_every=0)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_state_of_another_training_or_a_broken_one_is_refused(tiny, tmp_path):
    state = tmp_path / "state.safetensors"
    with pytest.raises(Died):
        fit(fresh(tiny), loss=dies(3), resume=state, save_every=1e-9)
    for other in ({"seed": 1}, {"lr": 1e-2}, {"rows": make_rows(seed=1)}, {"epochs": 3}):
        with pytest.raises(BadInput, match="state.safetensors is of another training"):
            fit(fresh(tiny), resume=state, **other)
    whole = state.read_bytes()
    for broken in (whole[:-1], whole[:100], b"", b"\xff" * 99, b"\2" + bytes(7) + b"{}"):
        state.write_bytes(broken)
        with pytest.raises(BadInput, match="state.safetensors is broken: delete it"):
            parts.about(state)


def test_no_state_is_written_of_weights_that_are_not_finite(tiny, tmp_path):
    """The run names the step whose loss it was, and the last good state."""
    state = tmp_path / "state.safetensors"

    def breaks(logits, given, progress):
        return losses.xent(logits, given) * (float("nan") if progress * 8 > 4.5 else 1)

    told = f"nan at step 6 of 8; the state of step 5 is in {state}: try a smaller --lr"
    with pytest.raises(FloatingPointError, match=told):
        # evaluated at every step, save the ones in the middle of a long epoch
        fit(fresh(tiny), make_rows(256), loss=breaks, batch_size=64, **{"resume": state}, save_every=1e-9)
    assert parts.about(state)["step"] == 5


# ---- stages


def started(folder, *words, wait, number):
    """A stage in a process of its own, to which a signal is sent once `wait` exists."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / words[0]), *words[1:]]
    process = subprocess.Popen(command, cwd=folder, env=env, stderr=-1, stdout=-1, text=True)
    while not (folder / wait).exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    return process, *process.communicate(timeout=60)


SMALL = {"n_train": 400, "n_test": 100, "epochs": 6}


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_stage_told_to_stop_goes_on_by_the_same_command(tmp_path, number, code):
    words = ["train_weak.py", *(f"--{name}={value}" for name, value in SMALL.items())]
    words += ["--out=run", "--save_every=1"]
    process, _, err = started(tmp_path, *words, wait="run/card.json", number=number)
    assert process.returncode == code and "stopped at step" in err, err
    state = tmp_path / "run" / resume.NAME
    where = parts.about(state)
    with pytest.raises(BadInput, match=r"other arguments .*seed was 0, now 1.*stopped at step"):
        train_weak.main(out=str(tmp_path / "run"), seed=1, **SMALL)
    done = subprocess.run(
        [sys.executable, str(HERE / words[0]), *words[1:]], cwd=tmp_path, capture_output=True, text=True
    )
    told = f"run: going on at step {where['step']} of {where['steps']} (state of "
    assert done.returncode == 0 and told in done.stdout
    assert not state.exists()
    train_weak.main(out=str(tmp_path / "whole"), **SMALL)
    names = ("model/model.safetensors", "history.jsonl")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
