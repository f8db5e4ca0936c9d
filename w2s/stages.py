"""What the stages of every setting share: they take runs and labels of the stage before, and score runs on test rows.

A setting is a folder of scripts: "" (texts with a label), rm (preference pairs). kind: a kind of rows, see protocol.py.
"""

import json
from pathlib import Path

from w2s import files, hub, protocol
from w2s.files import BadInput

TRAINERS = ("train_weak", "train_strong")


def setting(card):
    """The setting of the script that wrote a card."""
    return card["stage"].rpartition("/")[0]


def script(folder, step):
    """The script of a setting that does a step ("train", "label" or "eval"): eval.py, rm/eval_rm.py."""
    return (
        f"{folder}/{step}_{folder}.py"
        if folder
        else {"train": "train_strong.py"}.get(step, f"{step}.py")
    )


def role(card):
    """What a run is in the experiment: "weak", "student", "ceiling", or None if it was never trained."""
    if card["stage"] == script(setting(card), "eval").removesuffix(".py"):
        return None
    return (
        {"weak": "student", "truth": "ceiling"}[card["args"]["target"]]
        if card["args"].get("labels")
        else "weak"
    )


def finished_run(path, stages=TRAINERS):
    """The card of a finished run directory made by one of these stages (None: by any).

    BadInput for anything else, so that nothing half-trained is ever used.
    """
    wanted = " or ".join(f"{stage}.py" for stage in stages or TRAINERS)
    card = None if Path(path).suffix == ".jsonl" else files.read_card(path)
    if card is None or "args" not in card:
        there = (
            "is not a run directory (it has no card.json)"
            if Path(path).exists()
            else "does not exist"
        )
        raise BadInput(f"{path} {there}: give the --out of {wanted}")
    if stages and card["stage"] not in stages:
        told, own = (
            f"{path} was made by {card['stage']}.py: give the --out of {wanted}",
            setting(card),
        )
        if own != stages[0].rpartition("/")[0]:
            told += f"; that run goes to {script(own, 'label')} and {script(own, 'eval')}"
        raise BadInput(told)
    if not card.get("finished"):
        raise BadInput(
            f"{path} is not finished: call {card['stage']}.py again with the same arguments as before"
        )
    return card


def check_labels(labels, target, example, **others):
    """BadInput for options that have no meaning with a labels file (others), or, --target, without one."""
    if labels is None and target != "weak":
        raise BadInput(f"--target goes with a labels file: python {example} --target=truth")
    given = [f"--{name}" for name, value in others.items() if value]
    if labels and given:
        raise BadInput(
            f"{' '.join(given)} and a labels file do not go together: the rows are those of {labels}"
        )


def read_labels(kind, labels):
    """(rows, data description, sha256 of the models behind the labels, teachers' teachers too) of a labels file.

    It may be somebody else's: then it has no card, so that the last two are None, and perhaps no groups.
    """
    card = files.read_card(labels) or {}
    if card and setting(card) != kind["setting"]:
        raise BadInput(
            f"{labels} was made by {card['stage']}.py: it goes to {script(setting(card), 'train')}"
        )
    if labels in kind["known"]:
        raise BadInput(
            f"{labels} is a task, no labels file: the ground truth of a task is learned with --ds={labels}"
        )
    rows = files.read_jsonl(
        labels,
        ["weak", "id", *kind["fields"]],
        kind.get("checks", files.CHECKS),
        kind.get("optional", ()),
    )
    if not card:
        evaluator = script(kind["setting"], "eval")
        print(
            f"{labels} has no card of ours: which task it is about is not known, so {evaluator} will need --ds"
        )
    if card.get("test_rows"):
        raise BadInput(f"{labels} holds test rows (label.py --test_rows): nobody may train on them")
    return [{"group": row["id"]} | row for row in rows], card.get("data"), card.get("supervisors")


def supervisors(runs, stages=TRAINERS):
    """(the runs' cards, sha256 of the models behind their labels); BadInput unless they can label the same rows together."""
    cards = [finished_run(run, stages) for run in runs]
    for i, (run, card) in enumerate(zip(runs, cards)):
        if Path(run) in map(Path, runs[:i]):
            raise BadInput(f"{run} is given twice: a supervisor has one vote")
        if role(card) == "ceiling":
            raise BadInput(f"{run} has learned the ground truth of the rows that it is to label")
        if card["data"] is None:
            raise BadInput(
                f"{run} was trained on labels without a card: which rows it has not seen is not known"
            )
        if card["data"] != cards[0]["data"]:
            raise BadInput(
                f"{run} was not trained on the same task, sizes and data seed as {runs[0]}: {card['data']}"
            )
    return cards, [
        sha for card in cards for sha in (card["model_sha256"], *(card.get("supervisor") or []))
    ]


def untrained(kind, model, out, args, data, force):
    """The card of `out`, a run that is never trained but scored; evaluate()'s `answer` writes it. args: what goes with it."""
    before, stage = files.read_card(out), script(kind["setting"], "eval").removesuffix(".py")
    if before and before["stage"] != stage:
        raise BadInput(
            f"--out={out} is a run of {before['stage']}.py: choose another name for the scores of {model}"
        )
    args = {"model": model, "data": data} | args
    inputs = hub.model_input(model) | (
        {"labels": files.sha256(args["labels"])} if args.get("labels") else {}
    )
    if files.is_done(out, args, inputs, force):
        return finished_run(out, (stage,))
    return files.new_card(stage, args, inputs, data) | {"model_sha256": inputs.get("model", model)}


def scored_on(kind, run, card, ds, test, n_test):
    """The data description of the test rows for a run: its own, unless --ds, --test or --n_test say otherwise."""
    own = card["data"]
    if ds is None and own is None:
        raise BadInput(
            f"{run} was trained on labels without a card, so its task is not known: add --ds"
        )
    if ds is None and test is not None:
        raise BadInput("--test goes with --ds")
    if ds is not None and ds not in kind["known"] and test is None:
        # a file that the run was not trained for is a test set, all of it
        test = own["test"] if own and own["ds"] == str(Path(ds).resolve()) else ds
    data = (
        own if ds is None else protocol.describe(kind, ds, n_test=own and own["n_test"], test=test)
    )
    return data | {"n_test": n_test or data["n_test"]}


def evaluate(kind, runs, answer, how, ds=None, split="test", test=None, n_test=None, force=False):
    """Score runs, each on the test rows of its task or of --ds: [(run, predictions, metrics, the predictions' groups)].

    runs: [(run, card)]; answer(run, card, rows, **how) gives (predictions, metrics) of one run, which are written beside it
    unless this very model was scored on these rows; how: {"device", "dtype"}, kept on the card of the predictions.
    """
    todo = [(run, card, scored_on(kind, run, card, ds, test, n_test)) for run, card in runs]
    test_sets, scored = {}, []
    for run, card, data in todo:
        key = json.dumps(data, sort_keys=True)
        if key not in test_sets:
            test_sets[key] = protocol.test_rows(kind, data, split)
        file = Path(run) / "eval" / f"{protocol.name_of(data['ds'])}-{split}.jsonl"
        metrics_file, groups = (
            file.with_suffix(".metrics.json"),
            [row["group"] for row in test_sets[key]],
        )
        args = {
            "data": {k: data[k] for k in ("ds", "test", "sha256", "n_test")},
            "split": split,
        } | how
        inputs = {"model": card["model_sha256"]}
        if not force and is_scored(file, args, inputs) and metrics_file.exists():
            predictions = files.read_jsonl(file, kind["predictions"])
            print(f"{file} is already done; --force scores again")
        else:
            tell_leak(kind, run, card, test_sets[key])
            predictions, metrics = answer(run, card, test_sets[key], **how)
            files.write_text(metrics_file, json.dumps(metrics, indent=2) + "\n")
            about = files.new_card(
                script(kind["setting"], "eval").removesuffix(".py"), args, inputs, data
            )
            # The card carries the groups, which predictions do not: pgr.py resamples by them.
            files.write_jsonl(file, predictions, about | {"test_groups": groups})
            print(file)
        scored.append((run, predictions, json.loads(metrics_file.read_text()), groups))
    return scored


def is_scored(file, args, inputs):
    """True if the predictions were made with these arguments and this model; BadInput where they are of other rows."""
    before = files.read_card(file)
    if before and before["inputs"] == inputs and before["args"]["data"] != args["data"]:
        raise BadInput(
            f"{file} holds this model's answers to other rows (--ds, --test, --n_test): add --force to replace"
        )
    return before is not None and (before["args"], before["inputs"]) == (args, inputs)


def tell_leak(kind, run, card, rows):
    """Warn if a run that learned from a labels file is scored on texts of that file."""
    labels, text = Path(card["args"].get("labels") or ""), kind["text"]
    if labels.is_file() and files.sha256(labels) == card["inputs"].get("labels"):
        same = kind.get("same", str)
        seen = {same(row[text]) for row in files.read_jsonl(labels, [text])}
        leaked = sum(same(row[text]) in seen for row in rows)
        if leaked:
            print(
                f"warning: {run} was trained on {leaked} of these {len(rows)} test {text}s: its score means little"
            )


def tell_next(*commands):
    """Print what to call next, to be pasted."""
    print("next: " + "\n      ".join(f"python {command}" for command in commands))


def both(script, labels):
    """The calls that train student and ceiling on a labels file, beside it."""
    return [
        f"{script} {labels} --out={beside(labels, run)}"
        for run in ("student", "ceiling --target=truth")
    ]


def beside(path, name):
    """The path of that name in the same folder."""
    return Path(path).parent / name


def tell_pgr(scored):
    """Print the call of pgr.py where supervisor, student and ceiling have been scored; scored: [(run, card)]."""
    runs = [run for run, _ in scored]
    if [role(card) for _, card in scored] == ["weak", "student", "ceiling"]:
        tell_next(f"pgr.py {' '.join(runs)} --out={beside(runs[0], 'pgr.json')}")


def write_figure(figure, path):
    """Save a figure as PNG and tell where; BadInput where it cannot be."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise BadInput(f"--plot={path} cannot be written: {error.strerror}") from None
    print(path)
