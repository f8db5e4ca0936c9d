"""The command line: fire, closed against its traps (what the options mean: options.py).

Bare fire runs first and complains about a mistyped flag afterwards, takes `--force=false` for
true, `--out=123` for an int and `--ds=a,b` for a tuple, and keeps the last of two equal options.
Here fire only binds words to the names of main()'s signature; main() runs once all are checked.
"""

import difflib
import functools
import glob
import inspect
import io
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import fire

from w2s import locks, strict
from w2s.files import HERE, beside, first_line, rank, world
from w2s.options import OPTIONS
from w2s.strict import BadInput

# Threads that wait for others spin about as long as waking them takes, then sleep: longer costs
# several times the time on a busy machine. Set before torch is imported; OpenMP reads it once.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Batches differ in length: a GPU's memory falls to pieces, and finding more makes steps wait.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

UNTOLD = ("force", "save_every", "allow_leak")  # change no result; cards tell what leaks


def paced():
    """How often a progress bar is drawn: in a log once a minute, after the first."""
    return {} if sys.stderr.isatty() else {"mininterval": 60, "delay": 60}


def stage(main):
    """main(args, ...) as a function of its options alone, to be called by name.

    `args`, which is put in here, is what a card records: all options, checked, save UNTOLD.
    """
    signature = inspect.signature(main)
    own = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(main)
    def call(*words, **options):
        bound = own.bind(*words, **options)
        bound.apply_defaults()
        check(bound.arguments)
        args = {name: value for name, value in bound.arguments.items() if name not in UNTOLD}
        with locks.call():
            return main(args, *words, **options)

    call.__signature__ = own
    return call


def recipe(args, defaults):
    """The defaults of a setting, each replaced by what the user gave for it.

    Where nothing is held out, nothing stops unless that is asked for.
    """
    given = {name: args[name] for name in defaults if args[name] is not None}
    return defaults | ({"stop": False} if given.get("n_val") == 0 else {}) | given


def check(options):
    """BadInput unless the values of the options make sense."""
    for name, value in options.items():
        passes, wrong = OPTIONS.get(name, (None,))[0] or (None, None)
        if passes and value is not None and not passes(value):
            raise BadInput(f"--{name}={value} {wrong}")


def expand(patterns):
    """Paths of runs; each glob is replaced by the folders that it matches, in order."""
    paths = []
    for pattern in patterns:
        is_glob = glob.has_magic(pattern) and not os.path.exists(pattern)
        found = sorted(filter(os.path.isdir, glob.glob(pattern))) if is_glob else [pattern]
        if not found:
            raise BadInput(f"{pattern!r} matches no folder")
        strict.check_names(found)
        paths += found
    return paths


def run(main, processes=False):
    """Call main() with the command line's arguments; processes: it may run under torchrun.

    Exit code 0: done; 2: the user's input is wrong; 143: SIGTERM; 1: anything else.
    """
    signal.signal(signal.SIGTERM, stop)
    # Library bars and warnings must not drown the one line that tells what is wrong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a terminal without Unicode gets escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        with first_speaks():
            if world() > 1 and not processes:
                raise BadInput("torchrun is for what trains or scores: call this one with python")
            args, options = parse(main, sys.argv[1:])
            main(*args, **options)
            sys.stdout.flush()
    except (BadInput, FloatingPointError) as error:  # or the loss is not finite
        print(f"error: {strict.printable(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except OSError as error:  # a full disk; or the reader of a pipe (`| head`) has seen enough
        if not isinstance(error, BrokenPipeError):
            where = "standard output: " if type(error) is OSError and not error.filename else ""
            print(f"error: {where}{first_line(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it fails once more
        sys.exit(1)
    except (RuntimeError, MemoryError) as error:
        if type(error).__name__ not in ("OutOfMemoryError", "MemoryError"):  # without torch
            raise
        how = "take a smaller --model, --lora, or a smaller --micro_batch"
        print(f"error: memory is too small ({first_line(error)}): {how}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 143:
            print("stopped; call again to go on", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)  # so that a shell loop around us stops too


def stop(*_):
    """SIGTERM ends a call in order: half-written files are removed, outputs released."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked twice, it still ends in order
    raise SystemExit(143)


@contextmanager
def first_speaks():
    """Under torchrun the first process tells for all; one that fails alone does so after 5 s."""
    if rank() == 0:
        return (yield)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except Exception:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(5)
            raise


def commit():
    """The git commit of this code, with a + where files differ from it; None outside git."""
    # without locks: a training must not get in the way of a commit
    git = ["git", "--no-optional-locks", "-C", str(HERE), "describe", "--always", "--exclude=*"]
    with suppress(OSError):  # there is no git
        said = subprocess.run([*git, "--dirty=+", "--abbrev=12"], capture_output=True, text=True)
        return said.stdout.strip() or None


def parse(main, words):
    """(args, options) for main(*args, **options) from the words of a command line.

    Shows the help and exits with 0 on --help; BadInput where anything is off.
    """
    known = inspect.signature(main).parameters
    if "--help" in words or "-h" in words:
        show_help(main, known)
        sys.exit(0)
    check_names([word for word in words if word.startswith("-")], known)
    bound, silent = [], io.StringIO()

    # keep the words as they are: fire would turn "123" into an int, "a,b" into a tuple
    @fire.decorators.SetParseFn(str)
    @functools.wraps(main)
    def record(*args, **options):
        bound[:] = args, options

    try:
        with redirect_stderr(silent):
            fire.Fire(record, command=words)
    except fire.core.FireExit:
        surplus = re.search(r"Could not consume arg: (\S+)", silent.getvalue())
        told = f"too many words on the command line{f' ({surplus[1]!r})' if surplus else ''}"
        how = "options are --name=value, globs are written in quotes"
        raise BadInput(f"{told}: {how}; see --help") from None
    args, options = bound
    strict.check_names([*args, *(word for name, word in options.items() if name != "system")])
    if "" in args:
        raise BadInput("an argument is empty: was a shell variable not set?")
    return args, {name: convert(name, word, known[name]) for name, word in options.items()}


def show_help(main, known):
    """Print the script's own docstring, then every argument with its type, default and meaning."""
    # fire takes the meaning of an option from the last section of the docstring, "Args:"
    doc = main.__doc__.rstrip() + ("" if "Args:" in main.__doc__ else "\n\n    Args:")
    missing = [name for name in known if f"\n        {name}: " not in doc]
    doc += "".join(f"\n        {name}: {OPTIONS[name][1]}" for name in missing)
    main.__doc__ = f"{doc}\n    "
    text = fire.helptext.HelpText(main, trace=fire.trace.FireTrace(main))
    text = re.sub(r"^( +)-\w, --", r"\1--", text, flags=re.MULTILINE)  # no one-letter names
    arguments = re.search(r"(?s)\n(POSITIONAL ARGUMENTS|FLAGS)\n.*", text)[0]
    print(inspect.getmodule(main).__doc__, arguments, sep="")


def check_names(flags, known):
    """BadInput unless every flag is an option of main(), given once."""
    options = [n for n, p in known.items() if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    seen = set()
    for flag in flags:
        match = re.fullmatch(r"--([A-Za-z][\w-]*)(=.*)?", flag, re.DOTALL)
        if not match:
            raise BadInput(f"{flag!r} is not understood: options are written --name=value")
        name = match[1].replace("-", "_")
        name = name if name in known else name.removeprefix("no")
        if name not in options:
            near = nearest(name, options, "--")
            raise BadInput(f"there is no option --{match[1]}{near}; see --help")
        if name in seen:
            raise BadInput(f"--{name} is given twice")
        seen.add(name)


def nearest(name, names, prefix=""):
    """A hint like ' (did you mean --n_train?)', or all names where none is near."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f" (did you mean {' or '.join(prefix + n for n in near)}?)"
    return f" (there are {', '.join(prefix + n for n in sorted(names))})"


def convert(name, word, parameter):
    """The word given for an option as the type of its annotation; BadInput if it is not one."""
    wanted, switch = parameter.annotation, word in ("True", "False")  # fire's for --x, --nox
    if wanted is bool and switch:
        return word == "True"
    if wanted is bool:
        raise BadInput(f"--{name}={word}: --{name} takes no value; for off, leave it out")
    if switch or not word:
        raise BadInput(f"--{name} needs a value: --{name}=...")
    if wanted is str:
        return word
    with suppress(ValueError, OverflowError):
        if math.isfinite(wanted(word)):
            return wanted(word)
    raise BadInput(f"--{name}={word} is not {'a whole number' if wanted is int else 'a number'}")


def tell_students(out, card, default_models):
    """Tell how student and ceiling learn from labels, by their card; the student's name is open
    where the supervisor is none of default_models(task)."""
    task = card.get("data") and card["data"]["ds"]
    usual = task and {*card["models"]} == {default_models(task)[0]}
    train = ["train_strong.py", out, *([] if usual else ["--model=NAME"])]  # of a stronger model
    of = "" if Path(out).stem == "labels" else f"{Path(out).stem}_"  # others' students stay
    student, ceiling = (f"--out={beside(out, of + who)}" for who in ("student", "ceiling"))
    tell_next([*train, student], [*train, ceiling, "--target=truth"])


def tell_next(*commands):
    """Print what to call next, ready to be pasted; a command is a list of words."""
    lines = [shlex.join(["python", *map(str, command)]) for command in commands]
    print("next: " + "\n      ".join(lines))
