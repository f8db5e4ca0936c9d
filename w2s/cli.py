"""The command line: fire, closed against its traps.

Bare fire runs first and complains about a mistyped flag afterwards, takes `--force=false` for true, `--out=123` for an
int and `--ds=a,b` for a tuple, keeps the last of two equal options, and feeds surplus words to whatever is left. Here
fire only binds the words to the names of main()'s signature; everything is checked against the annotations, and only
then main() runs. The user's mistakes are one line on stderr and exit code 2.
"""

import difflib
import functools
import inspect
import io
import math
import os
import re
import signal
import sys
from contextlib import redirect_stderr, suppress

from w2s.files import BadInput

POSITIVE = (
    "n_train",
    "n_test",
    "epochs",
    "batch_size",
    "micro_batch",
    "lr",
    "max_len",
    "n_boot",
    "n",
    "dims",
    "lora",
)
POSITIVE += ("repeats", "steps", "seeds", "tokens", "nodes", "processes")
NOT_NEGATIVE = ("seed", "data_seed", "n_val", "shots", "sample", "min_elo", "easy")
FRACTION = {"alpha": 1, "radius": 0.5, "keep": 1}  # from 0 to
ENDING = {"plot": ".png"}
CHOICES = {
    "head": ("unembedding", "zero"),
    "target": ("weak", "truth"),
    "vote": ("soft", "hard"),
    "select": ("all", "agreement"),
    "kind": (
        "own",
        "random",
        "longest",
        "shortest",
        "unconfident",
        "confident",
        "coin",
        "features",
        "suffix",
    ),
    "conf_prior": ("half", "weak"),
    "dtype": ("bf16", "float32"),
    "shape": ("gpt2-6x384", "tiny", "qwen-0.5b", "qwen-1.5b", "qwen-7b"),
}


# What the options that several scripts have mean, for --help; the docstring of main() explains the others, or says otherwise.
COMMON = {
    "test": "a JSONL file of test rows, when --ds is your own file (default: a fifth of its groups)",
    "split": "weak, strong (the halves) or test",
    "mirror": "a folder to write the named tasks' data to (default: all tasks'), for W2S_MIRROR; what is there is kept",
    "alpha": "conf, logconf, entropy: the largest weight of the second term (default: 0.5; the paper's largest students: 0.75)",
    "conf_prior": "conf: how many of a batch are hardened to 1: half of it (default), or as many as the weak labels say: weak",
    "radius": "window, mix: the confidence |P(1) - 1/2| that divides the rows (default: the batch's median of the weak labels)",
    "as_released": "logconf: with the warm-up of the released code, which creeps to a tenth of alpha and jumps to all of it",
    "seed": "moves initialisation and order",
    "data_seed": "moves the two halves, never the test set",
    "n_train": "rows in each half (default: all there are, at most 10,000)",
    "n_test": "rows of the test set (default: all; in scoring, as many as in the runs' training)",
    "n_val": "rows held out for early stopping (default: a tenth of the groups, of 200 rows or more at least 100; 0: none)",
    "epochs": "passes over the rows",
    "batch_size": "rows in a batch",
    "micro_batch": "rows that go through at once, to save memory; the result does not depend on it (default: the batch)",
    "lr": "learning rate (default by size: 1e-4 under 10M parameters, 5e-5 up to 400M, 1e-5 above)",
    "max_len": "tokens of a text; longer ones lose their beginning (default: 1024 or the model's own limit)",
    "head": 'unembedding or zero, how a causal model\'s head starts (default: unembedding where there are tokens "0" and "1")',
    "lora": "train low-rank terms of this rank beside the frozen matrices, merged on saving (lr then 2e-4 by default)",
    "checkpointing": "recompute activations in the backward pass, to save memory",
    "compile": "let torch.compile fuse the model: half a minute first, for long runs on a GPU",
    "device": "cpu, cuda, cuda:1, ... (default: the GPU where there is one)",
    "dtype": "bf16 (autocast) or float32 (default: bf16 where the hardware has it and the model has 10M parameters)",
    "force": "make what is finished again, and replace it",
}


def run(main, processes=False):
    """Call main() with the command line's arguments; exit code 0 done, 2 the user's input is wrong, 1 anything else.

    processes: whether main() may run under torchrun. Ctrl-C ends the process by SIGINT, as a shell expects.
    """
    # Library bars and warnings must not drown the one line that tells what is wrong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Batches differ in length: a GPU's memory falls to pieces, and finding more makes every step wait.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    try:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not processes:
            raise BadInput("torchrun is for the scripts that train: call this one with python")
        args, options = parse(main, sys.argv[1:])
        main(*args, **options)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:  # the loss is not finite
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)  # so that a shell loop around us stops too


def parse(main, words):
    """(args, options) for main(*args, **options) from the words of a command line; BadInput where anything is off.

    Options are `--name=value`, `--name value` or, for booleans, `--name`. Shows the help and exits with 0 on --help.
    """
    import fire

    known = inspect.signature(main).parameters
    if "--help" in words or "-h" in words:
        # fire takes the meaning of an option from the last section of the docstring, "Args:"
        shared = [name for name in known if f"\n        {name}: " not in main.__doc__]
        main.__doc__ += "".join(f"    {name}: {COMMON[name]}\n    " for name in shared)
        text = fire.helptext.HelpText(
            main, trace=fire.trace.FireTrace(main, name=os.path.basename(sys.argv[0]))
        )
        text = re.sub(
            r"^( +)-\w, --", r"\1--", text, flags=re.MULTILINE
        )  # fire's one-letter names are refused below
        print(
            inspect.getmodule(main).__doc__,
            re.search(r"(?s)\n(POSITIONAL ARGUMENTS|FLAGS)\n.*", text)[0],
            sep="",
        )
        sys.exit(0)
    check_names([word for word in words if word.startswith("-")], known)

    bound = {}

    @fire.decorators.SetParseFn(
        str
    )  # keep the words as they are: fire would turn "123" into an int, "a,b" into a tuple
    @functools.wraps(main)
    def record(*args, **options):
        bound["args"], bound["options"] = args, options

    silent = io.StringIO()
    try:
        with redirect_stderr(silent):
            fire.Fire(record, command=words)
    except fire.core.FireExit:
        surplus = re.findall(r"Could not consume arg: (\S+)", silent.getvalue())
        word = f" ({surplus[0]!r})" if surplus else ""
        raise BadInput(
            f"too many words on the command line{word}: options are written --name=value, globs in quotes; see --help"
        ) from None
    for word in bound["args"]:
        if word == "":
            raise BadInput("an argument is empty: was a shell variable not set?")
    return bound["args"], {
        name: convert(name, word, known[name].annotation) for name, word in bound["options"].items()
    }


def check_names(flags, known):
    """BadInput unless every flag is an option of main(), given once."""
    seen = set()
    for flag in flags:
        match = re.fullmatch(r"--([A-Za-z][\w-]*)(=.*)?", flag, re.DOTALL)
        if not match:
            raise BadInput(
                f"{flag!r} is not understood: options are written --name=value; see --help"
            )
        name = match[1].replace("-", "_")
        plain = (
            name.removeprefix("no")
            if name not in known and name.removeprefix("no") in known
            else name
        )
        options = [n for n, p in known.items() if p.kind is not inspect.Parameter.VAR_POSITIONAL]
        if plain not in options:
            raise BadInput(
                f"there is no option --{match[1]}{nearest(plain, options, '--')}; see --help"
            )
        if plain in seen:
            raise BadInput(f"--{plain} is given twice")
        seen.add(plain)


def nearest(name, names, prefix=""):
    """A hint like ' (did you mean --n_train?)', or all names where none is near."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f" (did you mean {' or '.join(prefix + n for n in near)}?)"
    return f" (there are {', '.join(prefix + n for n in sorted(names))})"


def convert(name, word, wanted):
    """The word given for an option as the type its annotation names (int, float, bool, str); BadInput if it is not one."""
    if wanted is bool:
        # fire hands over "True" for --name and "False" for --noname
        if word not in ("True", "False"):
            raise BadInput(
                f"--{name}={word}: --{name} takes no value; write --{name} to turn it on, leave it out for off"
            )
        return word == "True"
    if word in ("True", "False", ""):
        raise BadInput(f"--{name} needs a value: --{name}=...")
    if wanted is str:
        return word
    with suppress(ValueError, OverflowError):
        if math.isfinite(wanted(word)):
            return wanted(word)
    raise BadInput(f"--{name}={word} is not {'a whole number' if wanted is int else 'a number'}")


def check(options):
    """BadInput unless the values of the common options make sense; called first thing in every main()."""
    for name, value in options.items():
        if value is None:
            continue
        if name in POSITIVE and not value > 0:
            raise BadInput(f"--{name} must be positive, not {value}")
        if name in NOT_NEGATIVE and not value >= 0:
            raise BadInput(f"--{name} must not be negative, not {value}")
        if name in NOT_NEGATIVE and not value < 2**63:
            raise BadInput(f"--{name}={value} is too large")
        if name in FRACTION and not 0 <= value <= FRACTION[name]:
            raise BadInput(f"--{name} must be from 0 to {FRACTION[name]}, not {value}")
        if name in ENDING and not value.endswith(ENDING[name]):
            raise BadInput(f"--{name}={value} must end in {ENDING[name]}")
        if name == "device" and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
            raise BadInput(f"--device={value} is not cpu, mps, cuda or cuda:1 and the like")
        if name in CHOICES and value not in CHOICES[name]:
            raise BadInput(f"--{name}={value} is not one of {', '.join(CHOICES[name])}")
