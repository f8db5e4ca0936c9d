"""One writer a folder: a lock file that says who holds it, and outlives nobody."""

import contextlib
import fcntl
import json
import os
import platform
import subprocess
import time
from pathlib import Path

from w2s.files import BadInput


@contextlib.contextmanager
def held(folder):
    """Hold `folder`, which is made, for as long as the block lasts.

    Its lock file, .lock, has {"pid", "host", "since", "born"}. BadInput names another holder; of
    one that died on this host the lock is taken over, and told. Looking and writing are one step,
    under the system's own lock of that file; it is emptied in the end, never removed.
    """
    path = Path(folder) / ".lock"
    pid, host = os.getpid(), platform.node()
    mine = {"pid": pid, "host": host, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path) as file:
            if holder := read(file):
                told = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
                if holder["host"] != host:
                    gone = f"if that is no more, delete {path}"
                    raise BadInput(f"{folder} is in use by {told}: wait for it; {gone}")
                if holder["born"] and holder["born"] == born(holder["pid"]):
                    raise BadInput(f"{folder} is in use by {told}: wait for it, or end it")
                print(f"{folder} was held by {told}, which is no more: going on in its place")
            write(file, json.dumps(mine | {"born": born(pid)}) + "\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        with alone(path) as file:
            write(file, "")


@contextlib.contextmanager
def alone(path):
    """The file, open to read and write, while nobody else has it so."""
    with open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def read(file):
    """Who holds the lock; None where nobody does."""
    file.seek(0)
    try:
        return json.loads(file.read())
    except ValueError:  # empty, or cut short by a full disk
        return None


def write(file, text):
    """Replace what the file holds."""
    file.truncate(0)
    file.write(text)
    file.flush()


def born(pid):
    """When a process began, as text; "" where there is none (its number may be used again)."""
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            state, *more = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if state in "ZX" else more[18]
        return ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
