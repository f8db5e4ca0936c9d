"""The command line: every option with its meaning, and fire closed against its traps.

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
import signal
import sys
from contextlib import redirect_stderr, suppress

from w2s.files import BadInput

# Threads that wait for others must not spin: on a busy machine that costs several times the time.
# Set before torch is imported; OpenMP reads it once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Batches differ in length: a GPU's memory falls to pieces, and finding more makes steps wait.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

# ---- options: a stage's signature has type and default, this table the check and the meaning

POSITIVE = (lambda value: value > 0, "must be positive")
NATURAL = (lambda value: 0 <= value < 2**63, "must not be negative, nor larger than 2^63")


def share(most):
    """The check of a number from 0 to `most`."""
    return lambda value: 0 <= value <= most, f"must be from 0 to {most}"


def of(*names):
    """The check of one of these words."""
    return names.__contains__, f"is not one of {', '.join(names)}"


def matching(pattern, wanted):
    """The check of a text that fits a regular expression."""
    return re.compile(pattern).fullmatch, f"is not {wanted}"


METRICS = "acc balanced_acc f1 precision recall auroc nll ece score".split()
ERRORS = ("own", "random", "longest", "shortest", "unconfident", "confident")
OPTIONS = {
    "ds": (None, "a task (python tasks.py lists them), or the path of your own JSONL file"),
    "test": (None, "JSONL file of test rows, when --ds is a file (default: a fifth of its groups)"),
    "split": (None, "test, or another test split of the task (ETHICS has test_hard)"),
    "model": (None, "folder or hub id of a causal model or encoder (default: by task)"),
    "out": (None, "the run directory, or the file, to make"),
    "labels": (None, "the labels file; it is used whole"),
    "runs": (None, "run directories; globs in quotes"),
    "target": (of("weak", "truth"), "weak: the weak labels; truth: ground truth, for the ceiling"),
    "loss": (None, "the rule, what to do with weak labels (see above)"),
    "alpha": (share(1), "conf, logconf, entropy: largest weight of the second term (default: 0.5)"),
    "conf_prior": (of("half", "weak"), "conf: share of a batch hardened to 1 (default: half)"),
    "radius": (share(0.5), "window, mix: threshold on |P(1) - 1/2| (default: batch median)"),
    "as_released": (None, "logconf: with the warm-up of the released code, a jump after a tenth"),
    "probe": (None, "train the last layer alone, on features computed once (runs/features)"),
    "easy": (NATURAL, "moves: train only on puzzles of this difficulty or less (Fig. 20)"),
    "seed": (NATURAL, "random seed of initialisation and order"),
    "data_seed": (NATURAL, "moves the two halves, never the test set"),
    "n_train": (POSITIVE, "rows in each half (default: all there are, at most 10,000)"),
    "n_test": (POSITIVE, "rows of the test set (default: all; eval.py: as in training)"),
    "n_val": (NATURAL, "rows held out (default: a tenth of the groups, at least 100; moves 0)"),
    "epochs": (POSITIVE, "passes over the rows (default: texts 2, pairs 1, moves 5, writing 3)"),
    "batch_size": (POSITIVE, "rows in a batch (default: 32, pairs 220, writing 16; probes 128)"),
    "stop": (None, "keep the weights that fit held-out labels best (default: texts do)"),
    "micro_batch": (POSITIVE, "rows that go through at once, to save memory; the result is equal"),
    "lr": (POSITIVE, "learning rate (default by size, 1e-4, 5e-5 or 1e-5; LoRA 2e-4, probes 1e-3)"),
    "max_len": (POSITIVE, "tokens of a text; longer ones lose their front (default: 1024 or less)"),
    "head": (
        of("unembedding", "zero", "answers"),
        "unembedding (of the tokens 0 and 1; default), zero, or answers: no new head, the language "
        "model itself, which can then be asked other questions (texts)",
    ),
    "lora": (POSITIVE, "train low-rank terms of this rank instead of the matrices; merged at last"),
    "checkpointing": (None, "recompute activations in the backward pass, to save memory"),
    "compile": (None, "let torch.compile fuse the model: half a minute first; on a GPU"),
    "device": (matching(r"cpu|mps|cuda(:\d+)?", "cpu, mps, cuda, cuda:1"), "default: a GPU if any"),
    "dtype": (of("bf16", "float32"), "bf16 or float32 (default: as hardware and size suit)"),
    "force": (None, "run again and replace a finished result"),
    "bootstrap": (None, "draw groups of rows with replacement, by --seed: bagging over seeds"),
    "vote": (of("soft", "hard", "judge"), "soft: most probable; hard: plurality; judge: least bad"),
    "judge": (None, "finished run of texts, or file with a word a line, that says what is bad"),
    "bad": ((lambda value: value in (0, 1), "is not 0 or 1"), "the judge's bad label (default: 1)"),
    "samples": (POSITIVE, "texts drawn for each prompt, with --temperature (default: 1)"),
    "temperature": (POSITIVE, "draw tokens, the flatter the higher (default: the likeliest)"),
    "top_p": (share(1), "draw among the likeliest tokens that have this probability together"),
    "max_new": (POSITIVE, "tokens written after a prompt (default: 100, or as the longest truth)"),
    "weights": (None, "weigh the supervisors by what they say of the rows that they held out"),
    "select": (of("all", "agreement"), "agreement: drop rows on which the supervisors differ"),
    "keep": (share(1), "the share of the rows to keep, those with the most confident labels"),
    "part": (matching(r"\d\d?/\d\d?", "k/n, such as 1/2"), "k/n: the k-th of n parts of the half"),
    "test_rows": (None, "label the test rows, for controls.py --kind=suffix alone"),
    "shots": (NATURAL, "prompt --model with this many examples before each row (0: none)"),
    "ratings": (None, "ethics_utilitarianism: rate each situation alone, the higher is better"),
    "soft": (POSITIVE, "export: copies of each row, round(soft x P(1)) of them labelled 1"),
    "system": (None, "the sentence that says how to answer (default: 1 for yes, 0 for no)"),
    "chat": (None, "answer: the exported file that the model was fine-tuned on, if it was"),
    "base_url": (None, "answer: another OpenAI-compatible server, http://host:8000/v1"),
    "jobs": (POSITIVE, "answer: how many questions at once"),
    "kind": (of(*ERRORS, "coin", "features", "suffix"), "which simulated supervisor (see above)"),
    "rate": (share(1), "the share of the labels to get wrong"),
    "dims": (POSITIVE, "features: how many of them the simulated supervisor sees"),
    "plot": (matching(r".*\.png", "a name that ends in .png"), "PNG file to write"),
    "curves": (None, "plot the course of training too, and tell the PGR at three stops (5.1.1)"),
    "metric": (of(*METRICS), "what is compared (default: acc; of texts that models write score)"),
    "grid": (None, "the folder of a grid (sweep.py), to report on it as a whole; takes --metric"),
    "want": (POSITIVE, "tell how many rows and seeds make half the PGR's interval this wide"),
    "n": (POSITIVE, "how many rows (default: all, in the halves at most 10,000)"),
    "mirror": (None, "folder to write the named tasks' data to (default: all), for W2S_MIRROR"),
    "seeds": (POSITIVE, "how many seeds"),
    "weak_too": (None, "fine-tune the supervisor's base model alike, into OUT_weak (Fig. 18)"),
    "games": (None, "PGN file, or parquet with columns moves, white_elo, black_elo"),
    "min_elo": (NATURAL, "both players of a game must be rated this high"),
    "nodes": (POSITIVE, "engine nodes of the long search"),
    "sample": (NATURAL, "so many puzzles are searched again with 20 times the nodes"),
    "engine": (None, "the engine's program (default: stockfish)"),
    "processes": (POSITIVE, "how many engines at once (default: one per core)"),
    "size": (None, "which size of model: xs, s or m"),
    "steps": (POSITIVE, "how many steps are timed"),
    "tokens": (
        POSITIVE,
        "to train on; texts are read again where there are fewer (default: by size)",
    ),
    "repeats": (POSITIVE, "interleaved repeats whose median is printed"),
}


def stage(main):
    """main(args, ...) as a function of its options alone, to be called by name.

    `args`, which is put in here, is what a card records: all options, checked, without force.
    """
    signature = inspect.signature(main)
    own = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(main)
    def call(*words, **options):
        bound = own.bind(*words, **options)
        bound.apply_defaults()
        check(bound.arguments)
        args = {name: value for name, value in bound.arguments.items() if name != "force"}
        return main(args, *words, **options)

    call.__signature__ = own
    return call


def recipe(args, defaults):
    """The defaults of a setting, each replaced by what the user gave for it."""
    return defaults | {name: args[name] for name in defaults if args[name] is not None}


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
        paths += found
    return paths


# ---- running a script


def run(main, processes=False):
    """Call main() with the command line's arguments; processes: it may run under torchrun.

    Exit code 0: done; 2: the user's input is wrong; 1: anything else.
    """
    # Library bars and warnings must not drown the one line that tells what is wrong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if world_size() > 1 and not processes:
            raise BadInput("torchrun is for the scripts that train: call this one with python")
        args, options = parse(main, sys.argv[1:])
        main(*args, **options)
    except (BadInput, FloatingPointError) as error:  # or the loss is not finite
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)  # so that a shell loop around us stops too


def world_size():
    """How many processes torchrun started, 1 without it; BadInput where that is no number."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdigit():
        raise BadInput(f"WORLD_SIZE={size} is not a number: unset it, or call torchrun")
    return int(size)


def parse(main, words):
    """(args, options) for main(*args, **options) from the words of a command line.

    Shows the help and exits with 0 on --help; BadInput where anything is off.
    """
    import fire

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
    if "" in args:
        raise BadInput("an argument is empty: was a shell variable not set?")
    return args, {name: convert(name, word, known[name]) for name, word in options.items()}


def show_help(main, known):
    """Print the script's own docstring, then every argument with its type, default and meaning."""
    import fire

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
