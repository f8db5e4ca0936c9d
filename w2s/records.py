"""Run directories and labels files: what a stage writes down, and what the next one takes.

A run is finished when its card says so; nothing unfinished is ever scored or labelled with.
A card holds {"stage", "setting", "finished", "args", "resolved", "inputs", "data", "commit",
"versions", "time"}: the arguments with their defaults, what was derived from them, the sha256 of
the inputs and of the code of a rule, and which rows it is all about (protocol.describe).
"""

import json
import os
import platform
import time
from pathlib import Path

from w2s import cli, files, locks, parts, resume
from w2s.files import BadInput

TRAINERS = ("train_weak", "train_strong")


# ---- writing


def new_card(stage, setting, args, inputs, data):
    """What every card holds; inputs: {argument: sha256 of the file that it names}."""
    from importlib import metadata, util  # not above: --help does not need them, and they take time

    packages = filter(util.find_spec, ("torch", "transformers", "datasets", "numpy"))
    versions = {package: metadata.version(package) for package in packages}
    card = {"stage": stage, "setting": setting.__name__, "finished": True, "args": args}
    card |= {"inputs": inputs, "data": data, "commit": cli.commit()}
    card |= {"versions": {"python": platform.python_version()} | versions}
    return card | {"time": time.strftime("%Y-%m-%dT%H:%M:%S")}


def begin(out, card, model, train, held_out, plan, force=False):
    """Make the folder a run under way, by a card that is not finished; a finished run stays until
    end(). What the defaults came to is printed and kept, "resolved"; plan: epochs, rates and so on.
    A state, from which the training goes on (resume.py), stays too, unless force. BadInput, and
    nothing is written, where the model cannot do --checkpointing.
    """
    if card["args"].get("checkpointing") and not model.supports_gradient_checkpointing:
        told = f"transformers cannot recompute the activations of {model.config.model_type}"
        raise BadInput(f"--checkpointing: {told}: take a smaller --micro_batch instead")
    if force:
        (Path(out) / resume.NAME).unlink(missing_ok=True)
    resolved = {"rows": len(train), "held_out": len(held_out)} | plan | model.w2s
    resolved |= {"device": str(model.device), "processes": files.world()}
    card = card | {"finished": False, "resolved": resolved}
    if not (files.read_card(out) or {}).get("finished"):
        files.write_card(out, card)
    print(f"{out}: " + ", ".join(f"{name} {value}" for name, value in resolved.items()))
    before = parts.about(Path(out) / resume.NAME) or {"seconds": 0}
    return card | {"began": time.monotonic() - before["seconds"]}


def end(out, card, history, kept):
    """The model saved in OUT/new becomes the run's, with history and card; kept: of its weights."""
    seconds = round(time.monotonic() - card.pop("began"), 1)
    files.write_card(out, card)  # not finished: what was there before is gone from here on
    for old in ("model", "eval"):
        files.remove(Path(out) / old)
    os.replace(f"{out}/new", f"{out}/model")
    lines = "".join(json.dumps(line) + "\n" for line in history)
    files.write_text(Path(out) / "history.jsonl", lines)
    finished = {"finished": True, "seconds": seconds, "kept": kept}
    files.write_card(out, card | finished | {"model_sha256": files.sha256(Path(out) / "model")})
    (Path(out) / resume.NAME).unlink(missing_ok=True)  # not before: so far it could be lost
    agrees = ""
    if "agreement" in kept:
        agrees = f", agrees with {kept['agreement']:.1%} of the held-out labels"
    print(f"{out}: kept the weights of epoch {kept['epoch']:.2f}{agrees}; {seconds} s")


# ---- done already?


def is_done(out, args, inputs, force, suffix=""):
    """True (and told) if `out` was finished with the same arguments and inputs.

    suffix: ".jsonl" for a labels file, "" for a run directory. BadInput where going on would lose
    something: a finished run of other arguments (unless force), or what no stage of ours made.
    """
    out = Path(out)
    if (out.suffix == ".jsonl") != bool(suffix):
        raise BadInput(f"--out={out}: labels end in .jsonl, a run is a folder")
    locks.hold(out, force or not (files.read_card(out) or {}).get("finished"))
    card = files.read_card(out)
    if card is None:
        check_is_free(out, force)
        return False
    changes = changed(card, args, inputs)
    if not card.get("finished"):
        resume.goes_on(out, changes, force)
    elif not force and changes:
        told = f"{out} was made with other arguments or inputs ({changes})"
        raise BadInput(f"{told}: choose another --out, or add --force")
    elif not force and not (lost := out / "model" if card["stage"] in TRAINERS else out).exists():
        print(f"{lost} is gone: it is made anew")
    elif not force:
        made, now = card["commit"], cli.commit()
        edited = " (+: with changes)" if str(now).endswith("+") else ""
        since = f" (by commit {made}; the code is now at {now}{edited})"
        since = since if edited or made != now else ""
        print(f"{out} is already done with the same arguments and inputs{since}; see --force")
        if not suffix:  # which a kill just after the end leaves
            (out / resume.NAME).unlink(missing_ok=True)
        return True
    return False


def check_is_free(out, force):
    """BadInput if `out`, which has no card, is a file or folder that somebody else made."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.suffix != ".jsonl":
        raise BadInput(f"--out={out} exists and is no run (it has no card.json): choose another")
    if not force:
        raise BadInput(f"--out={out} exists without a card: choose another, or add --force")


def changed(card, args, inputs):
    """What differs between a card and the arguments and inputs of now, as text, "" for nothing."""
    before, known, told = card["args"], card["inputs"], []
    for name in (before | args).keys() - {"out", *inputs, *known}:
        if before.get(name) != args.get(name):
            told.append(f"{name} was {before.get(name)}, now {args.get(name)}")
    for name in known | inputs:
        if known.get(name) != inputs.get(name):
            told.append(f"{name} is not the same, or has changed")
    return "; ".join(sorted(told))


# ---- reading


def finished_run(path, stages=TRAINERS):
    """The card of a finished run directory made by one of these stages; BadInput for all else."""
    wanted = "give the --out of " + " or ".join(f"{stage}.py" for stage in stages)
    card = None if Path(path).suffix == ".jsonl" else files.read_card(path, run=True)
    if card is None:
        no_run = "is not a run directory (it has no card.json)"
        raise BadInput(f"{path} {no_run if Path(path).exists() else 'does not exist'}: {wanted}")
    if card["stage"] not in stages:
        raise BadInput(f"{path} was made by {card['stage']}.py: {wanted}")
    if not card.get("finished"):
        raise BadInput(f"{path} is not finished: call {card['stage']}.py again with the same words")
    return card


def role(card):
    """What a run is in the experiment: "weak", "student", "ceiling"; None if it was not trained."""
    if card["stage"] in ("train_strong", "api"):  # what an API was asked untrained has no target
        return {"weak": "student", "truth": "ceiling"}.get(card["args"]["target"])
    return "weak" if card["stage"] == "train_weak" else None


def read_labels(setting, labels):
    """(rows, card) of a labels file; somebody else's has no card ({}), and perhaps no groups."""
    card = files.read_card(labels) or {}
    if labels in setting.TASKS:
        raise BadInput(f"{labels} is a task, no labels file: see train_weak.py --ds={labels}")
    fields = ["weak", "id", *setting.FIELDS]
    rows = files.read_jsonl(labels, fields, setting.CHECKS, setting.OPTIONAL)
    rows = [{"group": row["id"]} | row for row in rows]
    if not card:
        if not setting.SOFT:
            rows = setting.finish(rows, 0)  # perhaps in another notation
        print(f"{labels} has no card of ours: its task is not known, so eval.py will need --ds")
        if setting.SOFT and len({row["weak"] > 0.5 for row in rows}) == 1:
            print("warning: all labels say the same, and that is all that a student could learn")
    if card.get("test_rows"):
        raise BadInput(f"{labels} holds test rows (label.py --test_rows): nobody may train on them")
    return rows, card


def check_training(setting, args):
    """BadInput for options of a training that mean nothing together, or for this setting."""
    what, probe = setting.WHAT, args.get("probe")
    for name in ("probe", "head"):
        if args.get(name) and setting.OUTPUTS != 2:
            raise BadInput(f"--{name} is for texts, not for {what}")
    if Path(args["model"]).resolve() in Path(args["out"]).resolve().parents:
        raise BadInput(f"--out={args['out']} is inside --model={args['model']}: choose another")
    if args["stop"] and args["n_val"] == 0:
        raise BadInput("--stop looks at held-out rows, and there are none (--n_val=0)")
    generative = setting.OUTPUTS == 0 or args.get("head") == "answers"
    if generative and files.world() > 1:
        raise BadInput("torchrun does not train a language model's own head: it is not split yet")
    for name in ("head", "micro_batch", "checkpointing", "lora", "compile"):
        if probe and args[name]:
            raise BadInput(f"--{name} does not go with --probe, which trains the last layer alone")
