"""Stages side by side: processes that import torch once and call main() after main()."""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from multiprocessing import connection
from pathlib import Path

from tqdm import tqdm

from w2s import cli, files, grids
from w2s.files import BadInput

GRACE = 20  # seconds in which a stage that is stopped keeps what it needs to go on


# ---- in a worker


def serve(pipe, parent, visible, threads):
    """In a worker: run what comes through the pipe, (words, log) of stages, while the sweep lives.

    visible: the CUDA device of this worker ("": none), or None; threads: of torch, or None.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides
    signal.signal(signal.SIGTERM, cli.stop)
    threading.Thread(target=outlive_nobody, args=(parent,), daemon=True).start()
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible  # before torch looks for devices
    import torch

    if threads:
        torch.set_num_threads(threads)
    while True:
        pipe.send(call(*pipe.recv()))
        if visible is not None:
            torch.cuda.empty_cache()


def outlive_nobody(parent):
    """End this process when the sweep is no more, even if it was killed."""
    if sys.platform == "linux":  # at once, so that who takes over meets nobody
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def call(words, log):
    """Call a stage's main() as the shell would, its output in a log; None, or why it failed."""
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8", buffering=1) as file:
            os.dup2(file.fileno(), 1)  # for what is no Python
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                return in_words(words)
    except OSError as error:  # a full disk
        return f"{log} cannot be written: {error.strerror}"


def in_words(words):
    """None, or the line that tells why the stage failed, which is in the log too."""
    print("$ python", shlex.join(words))
    script, *words = words
    try:
        main = importlib.import_module(script.removesuffix(".py")).main
        args, options = cli.parse(main, words)
        main(*args, **options)
        return None
    except (BadInput, FloatingPointError) as error:
        print(told := f"error: {error}")
        return told
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {files.first_line(error)}"


# ---- in the sweep


def machine(todo, jobs, device):
    """(devices, one of each worker, "" or None on a CPU; how processes start; threads of each).

    On GPUs one worker a CUDA device, unless --jobs says otherwise. On a CPU as many as there are
    cores, but not more than stages that could ever run at once; they share the threads. Where no
    device is asked for, trainings of below 200,000 parameters take it: a GPU would wait for Python.
    """
    import torch  # and transformers: forked workers inherit them

    from w2s import models  # noqa: F401

    if device not in (None, "cpu", "cuda"):  # cuda:1, mps
        return [None] * (jobs or 1), "spawn", None
    tiny = not device and max(map(grids.work, todo.values())) < 1_800_000  # as grids.work() counts
    if device != "cpu" and not tiny and (n := torch.cuda.device_count()):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n)))
        names = visible.split(",")[:n]
        return [names[k % n] for k in range(jobs or n)], "spawn", None
    depth, cores = {}, int(os.environ.get("SLURM_CPUS_ON_NODE") or os.cpu_count())
    for name, node in todo.items():
        depth[name] = 1 + max((depth.get(need, 0) for need in node["needs"]), default=0)
    widest = max(map([*depth.values()].count, depth.values()))
    jobs = jobs or min(max(2, cores), widest)
    threads = None if "OMP_NUM_THREADS" in os.environ else max(1, cores // jobs)
    # a fork inherits what is imported; elsewhere than on Linux it is unsafe beside threads
    return ["" if tiny else None] * jobs, "fork" if sys.platform == "linux" else "spawn", threads


def start(how, device, threads):
    """(pipe, process, device) of a new worker."""
    context = multiprocessing.get_context(how)
    ours, its = context.Pipe()
    process = context.Process(target=serve, args=(its, os.getpid(), device, threads), daemon=True)
    process.start()
    its.close()  # so that the end of the worker is the end of the pipe
    return ours, process, device


def run(folder, todo, jobs=None, device=None, order=None):
    """Run the stages of `todo`, those that need nothing more to do side by side.

    Returns {name: why it failed, in a line}. What needs a failed stage is left; a worker that dies
    is replaced. On an interruption all workers are ended, and killed if that takes too long.
    """
    if not todo:
        return {}  # at once, without torch
    devices, how, threads = machine(todo, jobs, device)
    left, failed, free, workers, busy = (order or by_urgency)(todo), {}, list(devices), {}, {}
    open_ones, total = set(todo), sum(map(grids.work, todo.values()))
    tqdm.monitor_interval = 0  # no thread of its own: we fork
    shown = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}, {remaining} to go]"
    try:
        with tqdm(total=total, bar_format=shown, **cli.paced()) as bar:
            while True:
                ready = [name for name in left if not open_ones & set(todo[name]["needs"])]
                for name in ready[: len(devices) - len(busy)]:
                    idle = [pipe for pipe in workers if pipe not in busy]
                    if not idle:
                        pipe, *worker = start(how, free.pop(), threads)
                        workers[pipe] = worker
                    pipe = idle[0] if idle else pipe
                    pipe.send((todo[name]["words"], f"{folder}/logs/{name}.log"))
                    busy[pipe] = name
                    left.remove(name)
                if not busy:
                    return failed
                told = f"{len(todo) - len(open_ones)} of {len(todo)} stages, {len(busy)} running"
                bar.set_description_str(told, refresh=sys.stderr.isatty())
                ended = connection.wait(list(workers), max(1, bar.mininterval))
                if not ended:
                    bar.refresh()  # its clock goes on while stages are long
                for pipe in ended:
                    told, name = receive(pipe, workers, free), busy.pop(pipe, None)
                    if name is None:  # it died idle
                        continue
                    if told:
                        failed[name] = told
                    else:
                        open_ones.remove(name)
                    bar.update(grids.work(todo[name]))
    finally:
        for process, _ in workers.values():
            process.terminate()
        until = time.monotonic() + GRACE
        for process, _ in workers.values():
            process.join(max(0, until - time.monotonic()))
            process.kill()
            process.join()


def receive(pipe, workers, free):
    """What a worker tells of its stage; one that died makes room for another."""
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        process, device = workers.pop(pipe)
        process.join()
        free.append(device)
        killed = "killed: was memory short?" if process.exitcode == -signal.SIGKILL else "gone"
        return f"its process was {killed} (exit code {process.exitcode})"


def by_urgency(todo):
    """Names of stages, those first after which most work waits."""
    after = {}
    for name in reversed(todo):
        after[name] = after.get(name, 0) + grids.work(todo[name])
        for need in todo[name]["needs"]:
            after[need] = max(after.get(need, 0), after[name])
    return sorted(todo, key=after.get, reverse=True)
