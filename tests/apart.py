"""Scripts in processes of their own that need not import torch: forks of one that has done so.

A process takes 5 seconds of processor time to import torch and transformers, its fork none. What
is run has its own folder, environment, output, signals and exit code, as from a shell. What is
read at import (OMP_NUM_THREADS, HF_*, PYTHONIOENCODING) is that of the server.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 300  # what takes longer is killed
PATHS = [str(HERE.parent / name) for name in (".", "nlp", "facts", "chess", "rm", "gen", "tests")]


@contextlib.contextmanager
def server(*modules, env=os.environ):
    """Yields start(words, cwd, env), which runs `python WORDS` in a fork and returns a Fork."""
    words = [sys.executable, __file__, *modules]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=env | {"OMP_NUM_THREADS": "1"}, **pipes) as process:

        def ask(**what):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        def start(words, cwd=".", env=None):
            return Fork(ask, [str(word) for word in words], cwd, env or {})

        yield start
        process.stdin.close()  # which ends it


class Fork:
    """A process, much like subprocess.Popen with its outputs captured."""

    def __init__(self, ask, words, cwd, env):
        self.ask, self.folder = ask, tempfile.TemporaryDirectory()
        at = {"cwd": os.path.abspath(cwd), "env": env, "out": self.folder.name}
        self.pid, self.returncode = ask(words=words, **at), None

    def poll(self):
        if self.returncode is None:
            self.returncode = self.ask(poll=self.pid)
        return self.returncode

    def communicate(self):
        """(stdout, stderr) once it has ended."""
        while self.poll() is None:
            time.sleep(0.02)
        return tuple(Path(self.folder.name, name).read_text() for name in ("1", "2"))

    def send_signal(self, number):
        os.kill(self.pid, number)


def serve():
    """Fork for every line that comes, until none does."""
    while line := sys.stdin.readline():
        what = json.loads(line)
        if "poll" in what:
            pid, status = os.waitpid(what["poll"], os.WNOHANG)
            told = os.waitstatus_to_exitcode(status) if pid else None
        elif not (told := os.fork()):
            return become(**what)
        print(json.dumps(told), flush=True)


def become(words, cwd, env, out):
    """Be `python WORDS`."""
    signal.alarm(SECONDS)
    for number, path in enumerate((os.devnull, f"{out}/1", f"{out}/2")):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    script, *sys.argv[1:] = words
    if script == "-c":
        code, sys.path[0] = sys.argv.pop(1), ""
        exec(compile(code, "-c", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[0], sys.path[0] = script, os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    sys.path[1:1] = PATHS  # as pytest has it
    for name in sys.argv[1:]:
        importlib.import_module(name)
    if models := sys.modules.get("w2s.models"):
        models.load("facts/xs", device="cpu")  # the first takes transformers another second
    gc.freeze()  # no fork looks through all that again
    serve()
