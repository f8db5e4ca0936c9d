"""What is stopped goes on: trainings end in the same bits, long answers are given once."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from test_loop import fit, fresh, make_rows, parameters

import generate
import train_weak
from w2s import files, lm, loop, lora, losses, models, parts, probes, resume
from w2s.files import BadInput

MAIN = {
    "conf": {"loss": "conf", "micro_batch": 2},
    "bf16": {"loss": "conf", "dtype": "bf16"},
    "lora": {"loss": "xent", "micro_batch": 2},
    "language model": {"loss": lm.share_of_loss, "outputs": lm.nll, "weight_decay": 0.1},
}


def asks(loss, at, steps=12):
    """The loss, which sends this process SIGTERM in its steps of these numbers."""
    left = set(at)

    def stops(logits, given, progress):
        if (step := round(progress * steps) + 1) in left:
            left.discard(step)
            signal.raise_signal(signal.SIGTERM)
        return loss(logits, given, progress)

    return stops


@pytest.mark.parametrize("kind", MAIN)
def test_a_training_stopped_at_any_step_ends_in_the_same_bits(tiny, tmp_path, kind, capsys):
    state, how = tmp_path / "state.safetensors", dict(MAIN[kind])
    rule = losses.LOSSES[how["loss"]] if isinstance(how["loss"], str) else {"loss": how["loss"]}
    loss, rows, held_out = rule["loss"], make_rows(36, low=2), make_rows(8, seed=1, low=2)
    if kind == "language model":
        rows, held_out = lm.shares(rows), lm.shares(held_out)
    how |= rule | {"held_out": held_out, "lr": 1e-3, "warm_up": 0.2, "batch_size": 3}

    def run(**more):
        net = fresh(tiny, outputs=0 if kind == "language model" else 2)
        lora.add(net, 2 if kind == "lora" else None)
        history = fit(net, rows, **how | more)
        return parameters(net), history

    wanted, stops = run(), asks(loss, {1, 7, 19}, 24)  # 7 and 19 are not evaluated
    handler = signal.getsignal(signal.SIGTERM)
    took = [0]
    for step in (1, 7, 19):
        with pytest.raises(SystemExit, match="143"):
            run(loss=stops, resume=state)
        assert parts.about(state)["step"] == step
        took.append(parts.about(state)["seconds"])  # of all calls together
        told = f"stopped at step {step} of 24: the state of step {step} is in {state}"
        assert told in capsys.readouterr().err
    assert took == sorted(set(took))
    assert [path.name for path in tmp_path.iterdir()] == [state.name]
    assert signal.getsignal(signal.SIGTERM) == handler
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
        return losses.xent(logits, given) * (float("nan") if progress * 32 > 4.5 else 1)

    told = f"nan at step 6 of 32; the state of step 5 is in {state}: try a smaller --lr"
    with pytest.raises(FloatingPointError, match=told):  # it is evaluated at step 8
        how = {"loss": breaks, "batch_size": 2, "epochs": 1}
        fit(fresh(tiny), resume=state, save_every=1e-9, **how)
    assert parts.about(state)["step"] == 5


def test_a_state_right_after_an_evaluation_asks_one_device_alone(tmp_path):
    weights = torch.nn.Parameter(torch.ones(2, device="meta"))  # as strict as a GPU
    state = resume.State(tmp_path / "state", 60)
    state.trained, state.optimizer = {"p": weights}, torch.optim.AdamW([weights])
    with pytest.raises(RuntimeError, match="item.* cannot be called on meta"):  # so it was asked
        state.write(1, [], [], {})


# ---- stages


SMALL = {"n_train": 150, "n_test": 100, "epochs": 3}
STOPPED = """
import signal, sys
import train_weak
from w2s import cli, loop

def asks(*words, teach=loop.teach, steps=iter(range(9))):
    if next(steps) == 4:
        signal.raise_signal(number)
    return teach(*words)

loop.teach, number = asks, int(sys.argv.pop())
cli.run(train_weak.main)
"""


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_stage_told_to_stop_goes_on_by_the_same_command(
    tmp_path, number, code, monkeypatch, capsys, apart
):
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    done = apart(["-c", STOPPED, *words, "--out=run", int(number)], tmp_path)
    _, said = done.communicate()
    assert done.returncode == code and "stopped at step 5 of " in said, said
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"other arguments .*seed was 0, now 1.*stopped at step 5"):
        train_weak.main(out="run", seed=1, **SMALL)
    (tmp_path / "run" / ".model.999999999.tmp").mkdir()  # of a process that is no more
    monkeypatch.setattr(
        parts, "about", lambda path, read=parts.about: read(path) | {"seconds": 1e3}
    )
    train_weak.main(out="run", save_every=100, **SMALL)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert 1e3 < files.read_card("run")["seconds"] < 2e3  # what was done before counts
    assert "run: going on at step 5 of " in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"card.json", "history.jsonl", "learned.npy", "model"}
    Path("run/state.safetensors").touch()  # a kill just after the end leaves it
    train_weak.main(out="run", **SMALL)
    assert not Path("run/state.safetensors").exists()
    train_weak.main(out="whole", **SMALL)
    assert files.sha256("run/model") == files.sha256("whole/model")
    assert files.sha256("run/history.jsonl") == files.sha256("whole/history.jsonl")


def test_force_starts_a_stopped_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(losses, "xent", asks(losses.xent, {1}))
        patch.setitem(losses.LOSSES["xent"], "loss", losses.xent)
        train_weak.main(out="run", **SMALL | {"epochs": 1})
    assert parts.about("run/state.safetensors")
    train_weak.main(out="run", force=True, seed=1, **SMALL | {"epochs": 1})
    told = capsys.readouterr().out
    assert "starting again with other arguments: seed was 0, now 1" in told
    assert "going on" not in told


# ---- short memory


def test_half_the_micro_batch_is_taken_where_memory_is_short(tiny, monkeypatch, capsys):
    """It changes nothing but rounding, and is told once."""
    held_out, most = make_rows(20, seed=1), 5
    how = {"held_out": held_out, "loss": "conf", "epochs": 1}
    wanted = fresh(tiny, dtype=torch.float64)
    history = fit(wanted, **how)
    logits = loop.row_logits

    def short(model, rows):
        out = logits(model, rows)
        if len(rows) > most and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    cut = fresh(tiny, dtype=torch.float64)
    got = fit(cut, outputs=short, **how)
    torch.testing.assert_close(parameters(cut), parameters(wanted), rtol=0, atol=1e-10)
    assert [line["loss"] for line in got] == pytest.approx([line["loss"] for line in history])
    told = capsys.readouterr().out
    assert told.count("memory was short for 16 rows at once, going on with 4: nothing") == 1
    calls = iter(range(1, 99))

    def short_once(model, rows):
        if next(calls) == 2:  # the first piece has left a gradient
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(model, rows)

    whole, cut = (fresh(tiny, dtype=torch.float64) for _ in range(2))
    fit(whole, epochs=1)
    fit(cut, epochs=1, micro_batch=8, outputs=short_once)
    torch.testing.assert_close(parameters(cut), parameters(whole), rtol=0, atol=1e-10)
    most = 0
    with pytest.raises(BadInput, match="GPU's memory is too small for this model: train"):
        fit(fresh(tiny), outputs=short, **how)


def test_half_the_rows_are_asked_at_once_where_memory_is_short(tiny, capsys):
    net, tokens = fresh(tiny), [row["tokens"] for row in make_rows()]

    def logits(model, texts):
        if len(texts) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return models.logits(model, texts)

    wanted = models.predict(net, tokens)
    got = models.predict(net, tokens, outputs=logits)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert capsys.readouterr().out.count("memory was short for") == 1
    models.predict(net, tokens, outputs=logits)
    assert not capsys.readouterr().out


# ---- long answers


def test_answers_go_on_by_the_rows_already_answered(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "EVERY", 0)
    net, tokens = fresh(tiny), [row["tokens"] for row in make_rows()]
    wanted, seen, last = models.predict(net, tokens, batch_tokens=64), [], 20

    def logits(model, texts):
        if len(seen) == last:
            raise Died
        seen.append(len(texts))
        return models.logits(model, texts)

    def ask(net=net, tokens=tokens):
        seen.clear()
        return models.predict(net, tokens, name="here", batch_tokens=64, outputs=logits)

    with pytest.raises(Died):
        ask()
    (file,), answered = list(parts.PARTS.iterdir()), sum(seen)
    last = None
    whole = len(ask(fresh(tiny, seed=1, head="zero"), tokens)) - sum(seen)
    assert not whole and f"{answered} rows" not in capsys.readouterr().out  # another model
    ask(tokens=tokens[1:])
    assert sum(seen) == 63  # other texts
    assert torch.equal(ask(), wanted) and sum(seen) == 64 - answered
    assert f"going on after {answered} rows that {file} has answered" in capsys.readouterr().out
    assert torch.equal(ask(), wanted) and not seen  # a stage may ask several models
    parts.forget()
    assert not parts.PARTS.exists()


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.0, "samples": 2}])
def test_texts_go_on_with_the_same_random_numbers(tiny, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    net, prompts = fresh(tiny, outputs=0), [row["tokens"][:9] for row in make_rows(12)]
    monkeypatch.setattr(generate, "BATCH_TOKENS", 30)

    def write():
        return generate.write(net, prompts, 5, end=3, name="here", **drawn)

    wanted, pad = write(), generate.pad_left
    monkeypatch.setattr(parts, "EVERY", 0)
    calls = iter([0, 0, 0, 1])
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(generate, "pad_left", lambda *how: pad(*how) if 1 / (1 - next(calls)) else 0)
        write()
    assert write() == wanted
    parts.forget()


def test_held_out_rows_of_a_language_model_are_fewer_at_once_where_memory_is_short(tiny, capsys):
    net = models.load(tiny("llama"), device="cpu", outputs=0)[0]
    rows = [row | {"asked": 1, "given": 1.0} for row in make_rows(20)]

    def nll(model, part):
        if len(part) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return lm.nll(model, part)

    loss = lambda out, given, progress: out[:, 0]  # noqa: E731
    wanted = loop.evaluate(net, rows, None, loss, lm.nll)
    assert loop.evaluate(net, rows, None, loss, nll) == pytest.approx(wanted)
    assert "memory was short for 20 rows at once, going on with 5" in capsys.readouterr().out


def test_a_probe_goes_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "CACHE", tmp_path / "features")
    how = {"lr": 1e-2, "epochs": 12, "batch_size": 64, "held_out": make_rows(8), "name": "here"}

    def run(loss, **more):
        net = fresh(tiny)
        return probes.fit(net, make_rows(), loss, **how, **more), net.score.weight

    wanted, state = run(losses.xent), tmp_path / "state.safetensors"
    xent = lambda logits, given, progress: losses.xent(logits, given)  # noqa: E731
    with pytest.raises(SystemExit):
        run(asks(xent, {5}), resume=state)
    got = run(losses.xent, resume=state)
    assert parts.about(state)["step"] == 5
    assert got[0] == wanted[0] and torch.equal(got[1], wanted[1])
