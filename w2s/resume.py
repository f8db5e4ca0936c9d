"""An interrupted training goes on, and ends in the same bits.

A training's state is one file of ours (see parts.py): what is trained, AdamW's moments and steps,
the schedule, the history, the losses since the last evaluation and the best weights so far. The
order of rows is drawn again. loop.fit() writes it every --save_every seconds and on SIGTERM or
Ctrl-C: into the system's memory between two steps, onto the disk by a thread beside the next ones.
"""

import array
import contextlib
import hashlib
import signal
import sys
import threading
import time
from pathlib import Path

from w2s.files import BadInput, rank, world
from w2s.parts import about, end_file, own, start_file, together

NAME = "state.safetensors"  # in a run directory


# ---- runs that were begun and not finished


def goes_on(out, changes, force):
    """For is_done(): tell how a run that was begun and not finished goes on.

    BadInput where it has a state and now has other arguments (`changes`, as text), unless force.
    """
    state = about(Path(out) / NAME)
    if state and not force:
        where = f"step {state['step']} of {state['steps']}"
        if changes:
            told = f"{out} was begun with other arguments or inputs ({changes}), stopped at {where}"
            raise BadInput(f"{told}: call it as before, choose another --out, or add --force")
        print(f"{out}: going on at {where} (state of {state['time'][11:16]})")
    else:
        others = f" with other arguments: {changes}" if changes else ""
        print(f"{out} was begun and not finished: starting again{others}")


# ---- a training


def digest(rows, *others):
    """sha256 of what a training is given: tokens and labels of its rows, and its settings."""
    found = hashlib.sha256(repr(others).encode())
    for row in rows:
        found.update(array.array("q", row["tokens"]).tobytes() + repr(row.get("given")).encode())
    return found.hexdigest()


@contextlib.contextmanager
def state_of(path, every, rows, *settings):
    """The State of a training, in which SIGTERM and Ctrl-C only ask for the last one to be written.

    path None, or every=0: nothing is written, and signals do what they did.
    """
    state, before = State(path, every, path and digest(rows, *settings)), {}

    def ask(number, _):
        state.signal = number
        signal.signal(number, before[number])  # who asks twice does not wait

    if path and every and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, ask)
    try:
        yield state
    finally:
        state.wait()
        if state.spare:
            state.spare.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)


class State:
    """Where a training stands, on its way to the disk and back; call: what must be the same."""

    def __init__(self, path=None, every=0, call=None):
        self.path, self.every, self.call = path and Path(path), every, call
        self.signal, self.thread, self.began = 0, None, time.monotonic()
        self.written = self.began
        self.kept = self.spare = None

    def begin(self, steps, trained, optimizer, schedule=None):
        """(steps done, history, losses, best weights) of before, all else put back.

        trained: {name: parameter}. (0, [], [], {}) without a state; BadInput for another's.
        """
        self.steps, self.trained = steps, trained
        self.optimizer, self.schedule = optimizer, schedule
        said = together("told", self.path and about(self.path))
        if not said:
            return 0, [], [], {}
        if said["call"] != self.call:
            told = "is of another training (rows, seed, rates or steps)"
            raise BadInput(f"{self.path} {told}: delete it, or make that call again")
        for key, p in trained.items():
            if said["shapes"].get(key) != [*p.shape]:  # one process cuts the embedding
                told = f"was written by {said['processes']} process(es), where {key} has another"
                raise BadInput(f"{self.path} {told} shape: call it with as many")
        self.kept, self.began = said["step"], self.began - said["seconds"]
        return said["step"], said["history"], *self.put_back(said)

    def put_back(self, said):
        """Put back weights, moments, rates and schedule; returns (losses, best weights)."""
        import torch
        from safetensors import safe_open

        file, best = safe_open(self.path, "pt") if rank() == 0 else None, {}

        def part(name, like):
            return together("part", file and file.get_tensor(name), like)

        with torch.no_grad():
            for key, p in self.trained.items():
                own(p).copy_(part(f"weights/{key}", p))
                if key in said["counts"]:
                    state = {"step": torch.tensor(said["counts"][key], device=p.device)}
                    for name in ("exp_avg", "exp_avg_sq"):
                        state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
                        own(state[name]).copy_(part(f"{name}/{key}", p))
                    self.optimizer.state[p] = state
                if said["best"]:
                    values = part(f"best/{key}", p)
                    best[key] = torch.empty_like(values, device="cpu", pin_memory=p.is_cuda)
                    best[key].copy_(values)
        for group, lr in zip(self.optimizer.param_groups, said["lr"]):
            group["lr"] = lr
        if self.schedule:
            self.schedule.load_state_dict(said["schedule"])
        kind = getattr(torch, said["kind"])  # the first has everybody's share of the losses
        losses = torch.tensor(said["losses"], dtype=kind, device=p.device) * (rank() == 0)
        return [*losses], best

    def after(self, step, history, losses, best):
        """Once a step is done: write where it is time; where a signal asked for it, end here.

        SystemExit(143) after SIGTERM, KeyboardInterrupt after Ctrl-C.
        """
        if not (self.path and self.every):
            return
        due = time.monotonic() - self.written >= self.every
        asked, due = together("most", (self.signal, due))  # all processes decide alike
        if asked or due:
            self.write(step, history, losses, best)
            self.written = time.monotonic()
        if asked:
            self.wait()
            kept = f"the state of step {self.kept} is in {self.path}" if self.kept else "no state"
            told = f"stopped at step {step} of {self.steps}: {kept}; the same command goes on"
            if rank() == 0:
                print(told, file=sys.stderr)
            if asked == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + asked)

    def write(self, step, history, losses, best):
        """Write the state, unless loss or weights are not finite."""
        import torch

        self.wait()
        last, states = next(reversed(self.trained.values())), self.optimizer.state
        mine = torch.stack(losses) if losses else own(last).new_zeros(0)
        finite = [x.isfinite().all() for x in (mine, *map(own, self.trained.values()))]
        if together("most", (not torch.stack(finite).all().item(),))[0]:
            return
        tensors = {}
        for key, p in self.trained.items():
            tensors[f"weights/{key}"] = p
            for name in ("exp_avg", "exp_avg_sq") if p in states else ():
                tensors[f"{name}/{key}"] = states[p][name]
            if best:
                tensors[f"best/{key}"] = together("as_shard", best[key], p)
        known = [key for key, p in self.trained.items() if p in states]
        counts = torch.stack([states[self.trained[key]]["step"] for key in known]).tolist()
        said = {"call": self.call, "step": step, "steps": self.steps, "processes": world()}
        said |= {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "history": history}
        said |= {"seconds": time.monotonic() - self.began}
        said |= {"losses": together("total", mine).tolist(), "kind": str(mine.dtype)[6:]}
        said |= {"best": bool(best), "counts": dict(zip(known, counts))}
        said |= {"lr": [group["lr"] for group in self.optimizer.param_groups]}
        said |= {"schedule": self.schedule and self.schedule.state_dict()}
        said |= {"shapes": {key: [*p.shape] for key, p in self.trained.items()}}
        self.send(tensors, said)

    def send(self, tensors, said):
        """Write a file, its last half in a thread. A full disk is told; the training goes on."""
        values, first = (together("in_one_piece", x) for x in tensors.values()), rank() == 0

        def finish():
            try:
                end_file(temporary, self.path, again=True)
                self.kept = said["step"]
            except OSError as error:
                failed(error)

        def failed(error):
            told = f"warning: {self.path} cannot be written: {error.strerror}: going on"
            print(f"{told} with {f'that of step {self.kept}' if self.kept else 'none'}")

        try:
            if first:
                temporary = self.spare = start_file(self.path, tensors, said, values)
                self.thread = threading.Thread(target=finish)
                self.thread.start()
        except OSError as error:
            failed(error)
        for _ in values:  # where tensors are sharded, everybody takes part in putting them together
            pass

    def wait(self):
        """Until the last state is on the disk."""
        if self.thread:
            self.thread.join()

    def told(self):
        """What to add to a message of failure: where the last good state is."""
        return f"; the state of step {self.kept} is in {self.path}" if self.kept else ""
