"""One writer for every output: a lock beside it says who is writing, and outlives nobody.

Promised: of all processes on all hosts that see a folder, over NFS too, one writes to an output;
the others stop at once and name it. Nothing is asked of the kernel across hosts: the lock of NAME
is `.NAME.lock`, a symbolic link to nowhere whose target is the text that says who holds it. Making
a link is one step that only one can take, and its text is whole from the first moment.

The lock of a process that died on this host is taken over, and told. Another host's never is: who
knows whether it lives? The message then names the file to delete. A host is a name, a machine-id
and a namespace of process ids, so a container is a host of its own; only containers of one name on
two machines, whose namespaces have one number, could be taken for each other.
"""

import contextlib
import errno
import itertools
import json
import os
import platform
import re
import secrets
import subprocess
import time
from pathlib import Path

from w2s.files import BadInput, card_path, rank, remove

BESIDE = (".card.json", ".metrics.json", ".png", ".curves.png")  # of labels.jsonl, of pgr.json
CALLS = []  # (ExitStack, locks that it holds) of the calls of stages that are under way


@contextlib.contextmanager
def call():
    """Outputs that are held, hold(), in this block are released at its end."""
    with contextlib.ExitStack() as stack:
        CALLS.append((stack, set()))
        try:
            yield
        finally:
            CALLS.pop()


def hold(out, writes=True):
    """Hold an output, a file or run directory, until the stage that calls this has ended.

    What dead processes left half written of it is removed. writes: False where it is whole already
    and will be read; held then if there is a lock, of somebody who writes or of the dead. BadInput
    as in held(), or where `out` is read-only. Under torchrun the first process holds it for all.
    """
    (stack, outs), lock = CALLS[-1], lock_of(out)
    if lock in outs or rank() > 0 or not (writes or os.path.lexists(lock)):
        return
    if os.path.exists(out) and not os.access(out, os.W_OK):
        raise BadInput(f"{out} is read-only: choose another --out")
    stack.enter_context(held(out, lock))
    outs.add(lock)
    for left in leftovers(Path(out)):
        remove(left)


@contextlib.contextmanager
def held(out, lock=None):
    """Hold `out` for as long as the block lasts; folders that this needs are made, and go with it.

    BadInput names another holder. Of one that died on this host the lock is taken over, and told.
    """
    lock, made, mine = lock or lock_of(out), [], None
    try:
        try:
            mine = take(out, lock, made)
        except OSError as error:
            raise BadInput(f"{out} cannot be written: {error.strerror or error}") from None
        yield
    finally:
        if mine and mine["pid"] == os.getpid() and read(lock) == mine:
            lock.unlink()
        for folder in made:
            with contextlib.suppress(OSError):  # it has something in it, or is gone
                folder.rmdir()


def take(out, lock, made):
    """Make the lock of `out`, returned, and the folders above it, which are added to `made`."""
    pid = os.getpid()
    mine = {"pid": pid, "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    mine |= {"born": born(pid), "where": where(), "token": secrets.token_hex(8)}
    for attempt in itertools.count():
        try:
            missing = [folder for folder in lock.parents if not folder.exists()]
            if lock.parent.is_file():
                raise NotADirectoryError(errno.ENOTDIR, f"{lock.parent} is a file")
            lock.parent.mkdir(parents=True, exist_ok=True)
            made[:0] = missing
            if create(lock, mine):
                return mine
        except FileNotFoundError:  # its folder was just removed: make it again
            if attempt == 100:
                raise
        if (holder := read(lock)) is None:  # it was just released
            continue
        told = "process {pid} on {host} since {since}".format_map(holder)
        if (holder["host"], holder["where"]) != (mine["host"], mine["where"]):
            gone = f"if that is no more, delete {lock}"
            raise BadInput(f"{out} is in use by {told}: wait for it; {gone}")
        if holder["born"] and holder["born"] == born(holder["pid"]):
            raise BadInput(f"{out} is in use by {told}: wait for it, or end it")
        with held(out, lock.with_name(f"{lock.name}.over")):  # one at a time looks and removes
            if read(lock) == holder:
                lock.unlink()
                print(f"{out} was held by {told}, which is no more: going on in its place")


def create(path, mine):
    """Make the lock, and return whether it was made by this process."""
    text = json.dumps(mine)
    try:
        os.symlink(text, path)
    except FileExistsError:
        return read(path) == mine  # made, though a server that was asked twice says no
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        # a file system without links
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
            file.write(text)
        return read(path) == mine
    return True


def read(path):
    """Who holds the lock; None where there is none."""
    unknown = dict.fromkeys(("pid", "host", "since", "born", "where"), "unknown")
    try:
        text = os.readlink(path) if path.is_symlink() else path.read_text(encoding="utf-8")
        return unknown | json.loads(text)
    except FileNotFoundError:
        return None
    except ValueError:  # no link, and just being written, or cut short
        return unknown


def lock_of(out):
    """Where the lock of an output is: beside it, whatever it is called by."""
    path = Path(os.path.realpath(out))
    return path.with_name(f".{path.name}.lock")


def leftovers(out):
    """What is called .NAME.PID.tmp of an output: its holder's, or left by a dead process."""
    if out.suffix in (".jsonl", ".json"):
        return temporary(out.parent, {out.name, *(out.stem + end for end in BESIDE)})
    inside = temporary(out)
    ours = card_path(out).exists() or len(inside) == len(os.listdir(out)) if inside else False
    return temporary(out.parent, {out.name, f"{out.name}.old"}) + (inside if ours else [])


def temporary(folder, names=None):
    """The paths in a folder that are called .NAME.PID.tmp; names: which NAMEs (None: any)."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"\.(.+)\.\d+\.tmp", path.name)
        if match and (names is None or match[1] in names):
            found.append(path)
    return found


def where():
    """Which machine, and which namespace of process ids, so far as the system tells."""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id")
        name = machine.read_text().strip() if machine.exists() else ""
        return f"{name} {os.readlink('/proc/self/ns/pid')}"
    return ""


def born(pid):
    """When a process began, as text; "" where there is none (its number may be used again)."""
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            state, *more = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if state in "ZX" else f"{more[18]} {boot}"
        return ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
