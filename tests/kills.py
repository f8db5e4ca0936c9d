"""SIGKILL at any moment, then the same commands again: do they end in the same bytes?

    python tests/kills.py --n=50 --seed=0     # kills at random moments of the stages, and counts
    python tests/kills.py --points --n=50     # just before random changes of a file or folder
    python tests/kills.py --races=100         # two processes that start at once in one folder

The stages of all three embedded settings, from train_weak.py to pgr.py, run one after another in
one process, a fork of this one, so that a call costs no import. What they leave is compared with
what they leave when nobody kills them, all but the times in cards.
"""

import contextlib
import inspect
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
os.environ["OMP_NUM_THREADS"] = "1"

import train_weak  # noqa: E402
from w2s import cli, files, locks, records, workers  # noqa: E402

FORK = multiprocessing.get_context("fork")
TIMES = ("time", "seconds")  # of cards
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.symlink", "os.mkdir", "os.link"}
# by setting: the model of both, options of the supervisor, and of all trainings
SMALL = {
    "facts": ("facts/xs", ["--n_train=400", "--n_test=60"], []),
    "facts_pairs": ("facts/xs", ["--n_train=200", "--n_test=60"], ["--batch_size=16"]),
    "puzzles": ("chess/xs", ["--n_train=64", "--n_test=30"], ["--epochs=1", "--batch_size=16"]),
}


def chain(settings=tuple(SMALL), save_every=2):
    """The words of all stages, in order, for the current folder."""
    every, lines = ["--dtype=float32", "--device=cpu"], []
    if "save_every" in inspect.signature(train_weak.main).parameters:
        every.append(f"--save_every={save_every}")
    for ds in settings:
        model, sizes, recipe = SMALL[ds]
        runs = [f"{ds}/{who}" for who in ("weak", "student", "ceiling")]
        how = [f"--model={model}", *recipe, *every]
        strong, rule = ["train_strong.py", f"{ds}/labels.jsonl", *how], ["--loss=conf"]
        lines += [
            ["train_weak.py", f"--ds={ds}", f"--out={runs[0]}", *sizes, *how],
            ["label.py", runs[0], "--dtype=float32"],
            [*strong, f"--out={runs[1]}", *rule * (ds != "puzzles")],
            [*strong, f"--out={runs[2]}", "--target=truth"],
            ["eval.py", *runs, "--dtype=float32"],
            ["pgr.py", *runs, f"--out={ds}/pgr.json"],
        ]
    return lines


def run(lines, folder, point=None, counts=None):
    """In a fork: call the stages in a folder; it kills itself before change number `point`.

    counts: a pipe's end, to send the number of changes through.
    """
    changes = 0

    def watch(event, args):
        nonlocal changes
        writes = event == "open" and set(str(args[1])) & set("wxa")
        if (event in CHANGES or writes) and "/dev/" not in str(args[0]):
            changes += 1
            if changes == point:
                os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(folder)
    log = open(f"{folder}.log", "a", buffering=1)
    if point or counts:
        sys.addaudithook(watch)
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        failed = next(filter(None, map(workers.in_words, lines)), None)
    if counts:
        counts.send(changes)
    os._exit(1 if failed else 0)


def call(lines, folder, seconds=None, **how):
    """Run the stages, and kill them after so many seconds; (exit code, seconds that it took)."""
    began = time.monotonic()
    process = FORK.Process(target=run, args=(lines, folder), kwargs=how)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode, time.monotonic() - began


def contents(folder):
    """{path: bytes} of all there is below a folder, cards without their times."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        data = path.read_bytes() if path.is_file() else b""
        if path.name.endswith("card.json") and data:
            card = {k: v for k, v in json.loads(data).items() if k not in TIMES}
            data = json.dumps(card).encode()
        found[str(path.relative_to(folder))] = data
    return found


def reference(lines, folder):
    """(contents, seconds, changes of files) of stages that nobody kills."""
    ours, its = FORK.Pipe()
    Path(folder).mkdir(parents=True)
    code, _ = call(lines, folder, counts=its)
    assert code == 0, Path(f"{folder}.log").read_text()
    shutil.rmtree(folder)
    Path(folder).mkdir()
    _, seconds = call(lines, folder)  # without counting
    return contents(folder), seconds, ours.recv()


def kills(home, n, seed, lines, points=False, tell=print):
    """(how many of n killed chains end the same, the most seconds that one lost)."""
    (wanted, seconds, changes), rng = reference(lines, f"{home}/reference"), random.Random(seed)
    same, worst = 0, 0.0
    for k in range(n):
        folder, at = f"{home}/{k}", rng.random()
        Path(folder).mkdir()
        how = {"point": 1 + int(at * changes)} if points else {"seconds": at * seconds}
        killed, first = call(lines, folder, **how)
        code, second = call(lines, folder)
        found = contents(folder)
        differ = [n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)]
        same += code == 0 and not differ
        lost = first + second - seconds
        worst = max(worst, lost)
        tell(f"kill {k} at {how}: {'the same' if not differ else differ}, {lost:.1f} s lost")
        if code or differ:
            tell(Path(f"{folder}.log").read_text())
        else:
            shutil.rmtree(folder)
    return same, worst


# ---- two at once


def contend(me, folder, times, dead, barrier, pipe):
    """One of two: take the output at the same moment as the other, and say how it went."""
    out = f"{folder}/run"
    for _ in range(times):
        if me == 0 and dead:
            leave_a_lock(out)
        barrier.wait(30)
        said = "worked"
        try:
            with locks.call(), contextlib.redirect_stdout(None):
                assert not records.is_done(out, {"me": me}, {}, True)
                barrier.wait(30)  # both have tried
                files.write_card(out, {"finished": True, "args": {"me": me}, "inputs": {}})
        except files.BadInput as error:
            said = "told" if re.search(r"in use by process \d+ on \S+ since", str(error)) else error
            barrier.wait(30)
        barrier.wait(30)
        pipe.send((said, files.read_card(out)["args"]["me"], sorted(os.listdir(folder))))


def leave_a_lock(out):
    """The lock of a process that was killed."""
    process = FORK.Process(target=lambda: locks.held(out).__enter__() and None or os._exit(0))
    process.start()
    process.join()


def race(folder, times, dead=False):
    """Of so many times that two processes start at once in a folder: how often one worked, the
    other was told, and what the one wrote is there, alone. dead: a killed one's lock is there."""
    Path(folder).mkdir(parents=True)
    barrier, both = FORK.Barrier(2), []
    for me in range(2):
        ours, its = FORK.Pipe()
        process = FORK.Process(target=contend, args=(me, str(folder), times, dead, barrier, its))
        process.start()
        both.append((ours, process))
    right = 0
    for _ in range(times):
        (one, wrote, there), (two, *_) = (pipe.recv() for pipe, _ in both)
        worked = [one, two].index("worked") if "worked" in (one, two) else None
        right += {one, two} == {"worked", "told"} and wrote == worked and there == ["run"]
    for _, process in both:
        process.join()
    return right


def main(*, n: int = 50, seed: int = 0, points: bool = False, races: int = None):
    """Kill, or race, and print the counts.

    Args:
        n: how many kills
        seed: of the moments
        points: kill just before changes of files instead of at any moment
        races: start two processes at once so many times, instead
    """
    with tempfile.TemporaryDirectory() as home:
        if races:
            free, dead = race(f"{home}/free", races), race(f"{home}/dead", races, dead=True)
            print(f"{free} of {races}: one worked, one was told; {dead} of {races} over a dead one")
            return
        import torch  # noqa: F401 before the forks

        from w2s import loop, models  # noqa: F401

        same, worst = kills(home, n, seed, chain(), points)
        print(f"{same} of {n} the same, lost at most {worst:.1f} s")
        sys.exit(same < n)


if __name__ == "__main__":
    main(**cli.parse(main, sys.argv[1:])[1])
