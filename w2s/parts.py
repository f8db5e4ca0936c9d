"""Files of tensors that appear whole or not at all; long answers, kept part by part; short memory.

A file of ours is safetensors with JSON in its header. No pickle is written or read.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from w2s import cli
from w2s.files import BadInput, world

EVERY, PARTS = 300, Path("runs/parts")  # seconds; of answers under way
TYPES = {"float32": "F32", "float64": "F64", "bfloat16": "BF16", "float16": "F16"}
TYPES |= {"int64": "I64", "uint8": "U8"}
MINE = set()  # parts that this process read or wrote


# ---- files of tensors


def start_file(path, tensors, said, values=None):
    """Write {name: tensor} and JSON to a temporary file beside `path`, which is returned.

    values: of sharded tensors, each in one piece, in this order. OSError where the disk is full.
    """
    header, end = {"__metadata__": {"about": json.dumps(said)}}, 0
    for name, x in tensors.items():
        begin, end = end, end + x.numel() * x.element_size()
        kind = TYPES[str(x.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": [*x.shape], "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "rb+" if temporary.exists() else "wb") as file:  # see end_file()
            file.write(len(head).to_bytes(8, "little") + head)
            for x in values or tensors.values():
                file.write(raw(x))
            file.truncate()
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def raw(x):
    """The bytes of a tensor, as a buffer."""
    import torch

    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def end_file(temporary, path, again=False):
    """Bring a file of start_file() onto the disk and to its name; the one before stays till then.

    again: it then becomes the temporary file, to be overwritten next time: for a system, memory
    that it knows costs a tenth of new. OSError where it fails; the temporary file is gone then.
    """
    spare = Path(path).with_name(f".{Path(path).name}.old.{os.getpid()}.tmp")
    try:
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # there is none, or this file system has no links
            os.link(path, spare) if again else None
        os.replace(temporary, path)
        if spare.exists():
            os.replace(spare, temporary)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def about(path):
    """The JSON of a file of ours, None where there is no such file; BadInput where it is broken.

    Without torch: is_done() tells of a state before anything is loaded.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 2**27)))
            said = json.loads(header.pop("__metadata__")["about"])
            ends = [0, *(one["data_offsets"][1] for one in header.values())]
            if os.fstat(file.fileno()).st_size != 8 + size + max(ends):
                raise ValueError
            return said
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{path} is broken: delete it, and what it holds starts again") from None


def own(p):
    """The values of a parameter; where it is sharded, this process's part of them."""
    p = p.detach()
    return p.to_local() if hasattr(p, "to_local") else p


def together(name, *values):
    """parallel.NAME(...) of the processes of torchrun; of one alone, the first of the values."""
    if world() == 1:
        return values[0] if values else None
    from w2s import parallel  # and with it torch

    return getattr(parallel, name)(*values)


# ---- long answers


def answers(model, tokens, size, run, options, name=None, draws=False):
    """[(row numbers, what run(row numbers) says, a tensor)] of all texts, the longest first.

    size(tokens of the longest): rows in a batch. What is named takes long: it is kept in PARTS
    every EVERY seconds and found there again, until forget(). options: what the answers depend on
    besides model and texts. draws: the random numbers go on, too. Memory short: half the rows.
    """
    from tqdm import tqdm

    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    part = Part(model, [tokens, options], draws) if name and world() == 1 else None
    said = part.read() if part else []
    order = order[: len(order) - sum(len(batch) for batch, _ in said)]
    bar = tqdm(total=len(tokens), desc=name, unit="row", disable=not name, **cli.paced())
    bar.update(len(tokens) - len(order))
    try:
        while order:  # the longest first: if memory is short, it is at once
            n = max(1, size(len(tokens[order[-1]])) // getattr(model, "less", 1))
            last = order[-n:]
            told = None if hasattr(model, "less") else name or "evaluation"
            out, fits = with_less(lambda n, last=last: run(last[-n:]), len(last), told)
            if fits < len(last):
                model.less = getattr(model, "less", 1) * -(-len(last) // fits)
            said.append((last[-fits:], out))  # stays on a GPU, which is not waited for
            order = order[:-fits]
            bar.update(fits)
            if part:
                part.after(said)
        return said
    except (KeyboardInterrupt, SystemExit):
        if part:
            part.after(said, EVERY / 10)
        raise
    finally:
        bar.close()


class Part:
    """The answers of one call so far, in a file that is named by all that they depend on."""

    def __init__(self, model, asked, draws):
        self.model, self.asked, self.draws, self.file = model, asked, draws, None
        self.written = time.monotonic()

    def path(self):
        """Where they are; it takes a look at all weights, so only where something may be there."""
        if not self.file:
            says = getattr(getattr(self.model, "score", None), "words", None)
            config = self.model.config.to_dict() | {"_name_or_path": None}
            digest = hashlib.sha256(repr([type(self.model), config, says, self.asked]).encode())
            for name, weights in self.model.state_dict().items():
                digest.update(name.encode() + bytes(raw(weights)))
            self.file = PARTS / f"{digest.hexdigest()[:32]}.safetensors"
        return self.file

    def read(self):
        """What a process before this one was answered, [(row numbers, tensor)]."""
        import torch
        from safetensors.torch import load_file

        if not PARTS.is_dir() or not (said := about(self.path())):
            return []
        MINE.add(self.path())
        tensors, device = load_file(self.path()), self.model.device
        print(f"going on after {sum(map(len, said))} rows that {self.path()} has answered")
        if self.draws:
            torch.set_rng_state(tensors["random"])
            if device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random on the GPU"], device)
        return [(batch, tensors[f"{i}"].to(device)) for i, batch in enumerate(said)]

    def after(self, said, every=None):
        """Write all answers so far, where `every` seconds have passed since they were."""
        import torch

        if time.monotonic() - self.written < (EVERY if every is None else every):
            return
        tensors = {f"{i}": out for i, (_, out) in enumerate(said)}
        tensors["random"] = torch.get_rng_state()
        if (device := self.model.device).type == "cuda":
            tensors["random on the GPU"] = torch.cuda.get_rng_state(device)
        try:
            temporary = start_file(self.path(), tensors, [batch for batch, _ in said])
            end_file(temporary, self.path())
            MINE.add(self.path())
        except OSError as error:  # the answers themselves are not in danger
            print(f"warning: {self.path()} cannot be written: {error.strerror}")
        self.written = time.monotonic()


def forget():
    """Delete the parts of this process: what they were for is written."""
    while MINE:
        MINE.pop().unlink(missing_ok=True)
    if PARTS.is_dir() and not any(PARTS.iterdir()):
        PARTS.rmdir()


def with_less(run, size, name=None):
    """(run(size), size), halved for as long as a GPU's memory is short; told where named.

    BadInput at size 1, and under torchrun, where the others would wait for ever.
    """
    import torch

    asked = size
    while True:
        try:
            out = run(size)
            break
        except torch.OutOfMemoryError:
            if size == 1 or world() > 1:
                how = "train with a smaller --micro_batch or --max_len, --checkpointing or --lora"
                how += "; label and score without torchrun"
                raise BadInput(f"the GPU's memory is too small for this model: {how}") from None
        size //= 2  # not above: there the exception still holds what did not fit
        torch.cuda.empty_cache()
    if size < asked and name:
        told = f"memory was short for {asked} rows at once, going on with {size}"
        print(f"{name}: {told}: nothing else changes (--micro_batch, of a training)")
    return out, size
