"""SIGKILL at any moment, then the same commands again: do they end in the same bytes?

    python tests/kills.py --n=50 --seed=0     # kills at random moments of the stages, and counts
    python tests/kills.py --points --n=50     # just before random changes of a file or folder
    python tests/kills.py --races=100         # two processes that start at once in one folder

The stages of an embedded setting, from train_weak.py to pgr.py, run one after another in one
process, a fork of this one, so that a call costs no import. What they leave is compared with
what they leave when nobody kills them, all but the times in cards.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
os.environ["OMP_NUM_THREADS"] = "1"

from w2s import cli, files, locks, records, workers  # noqa: E402

CARD = {"stage": "label", "finished": True, "inputs": {}, "data": None}
FORK = multiprocessing.get_context("fork")
TIMES = ("time", "seconds", "commit")  # of cards; the code may be committed meanwhile
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.symlink", "os.mkdir", "os.link"}
# by setting: the model of both, options of the supervisor, and of all trainings
SMALL = {
    "facts": ("facts/xs", ["--n_train=120", "--n_test=40"], []),
    "facts_pairs": ("facts/xs", ["--n_train=80", "--n_test=40"], ["--batch_size=16"]),
    "puzzles": ("chess/xs", ["--n_train=48", "--n_test=16"], ["--epochs=1", "--batch_size=16"]),
}


def chain(ds):
    """The words of all stages of a setting, in order, for the current folder."""
    model, sizes, recipe = SMALL[ds]
    how = [
        f"--model={model}",
        "--n_val=20",
        *recipe,
        "--dtype=float32",
        "--device=cpu",
        "--save_every=.1",
    ]
    strong, rule = ["train_strong.py", "labels.jsonl", *how], ["--loss=conf"] * (ds != "puzzles")
    return [
        ["train_weak.py", f"--ds={ds}", "--out=weak", *sizes, *how],
        ["label.py", "weak", "--dtype=float32"],
        [*strong, "--out=student", *rule],
        [*strong, "--out=ceiling", "--target=truth"],
        ["eval.py", "weak", "student", "ceiling", "--dtype=float32"],
        ["pgr.py", "weak", "student", "ceiling", "--out=pgr.json"],
    ]


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
    """Run the stages, and kill them after so many seconds; (exit code, processor time it took)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = FORK.Process(target=run, args=(lines, folder), kwargs=how)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process.exitcode, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


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


def reference(ds, folder):
    """(contents, seconds, changes of files, processor time) of stages that nobody kills."""
    began = time.monotonic()
    ours, its = FORK.Pipe()
    Path(folder).mkdir(parents=True)
    code, work = call(chain(ds), folder, counts=its)
    seconds = time.monotonic() - began
    assert code == 0, Path(f"{folder}.log").read_text()
    return contents(folder), seconds, ours.recv(), work


def warm_up():
    """Import what the stages do, so that no fork has to."""
    for name in ("torch", "matplotlib.figure", "label", "train_strong", "eval", "pgr"):
        importlib.import_module(name)
    from w2s import loop, models  # noqa: F401

    models.load("facts/xs", device="cpu")  # the first takes transformers another second
    gc.freeze()


def kills(home, n, seed, points=False, tell=print):
    """(how many of n killed calls end the same, the most seconds of work that one lost).

    A moment is drawn from all settings together, so a setting that takes longer is killed more.
    """
    warm_up()
    wanted = {ds: reference(ds, f"{home}/{ds}") for ds in SMALL}
    rng, same, worst = random.Random(seed), 0, 0.0
    for k in range(n):
        ds = rng.choices([*SMALL], [one[2 if points else 1] for one in wanted.values()])[0]
        (files_of, seconds, changes, work), at = wanted[ds], rng.random()
        folder = f"{home}/{k}"
        Path(folder).mkdir()
        how = {"point": 1 + int(at * changes)} if points else {"seconds": at * seconds}
        _, first = call(chain(ds), folder, **how)
        code, second = call(chain(ds), folder)
        found = contents(folder)
        differ = {n for n in files_of.keys() | found.keys() if files_of.get(n) != found.get(n)}
        same += code == 0 and not differ
        worst = max(worst, first + second - work)
        tell(f"{ds} killed at {how}: {differ or 'the same'}, {first + second - work:.1f} s lost")
        if code or differ:
            tell(Path(f"{folder}.log").read_text())
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
                files.write_card(out, CARD | {"args": {"me": me}})
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
        same, worst = kills(home, n, seed, points)
        print(f"{same} of {n} the same, lost at most {worst:.1f} s of work")
        sys.exit(same < n)


if __name__ == "__main__":
    main(**cli.parse(main, sys.argv[1:])[1])
