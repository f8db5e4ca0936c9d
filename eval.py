"""Stage 4: run(s) -> predictions on test rows, and metrics.

    python eval.py                                     # runs/weak runs/student runs/ceiling
    python eval.py 'runs/*/student' --ds=ethics_justice --split=test_hard     # on another task
    python eval.py --model=openai-community/gpt2 --ds=sst2 --out=runs/zero_shot      # no training
    python eval.py --model=facts/m --shots=5 --labels=runs/labels.jsonl --out=runs/prompted

In: finished runs. Out, in each: eval/<task>-<split>.jsonl (predictions), its card, .metrics.json.
Everybody answers the same rows: the test set of the task that the run was trained for.
Next: pgr.py.
"""

import json
from pathlib import Path

import tasks
from w2s import cli, files, protocol, records
from w2s.files import BadInput


@cli.stage
def main(
    args, *runs: str, ds: str = None, split: str = "test", test: str = None, n_test: int = None,
    model: str = None, out: str = None, head: str = None, max_len: int = None, shots: int = None,
    labels: str = None, target: str = None, judge: str = None, bad: int = None,
    samples: int = None, temperature: float = None, top_p: float = None, max_new: int = None,
    seed: int = None, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Score runs on the test rows of their task, or of another.

    Args:
        ds: score on this task or JSONL file instead of the one that the run was trained for
        model: with --out and no runs: a model to score without training
        labels: the labels file that the examples of a prompt come from
        target: whose labels the examples show: weak (default) or truth
        seed: moves the examples of a prompt, or what is drawn by --temperature (default: 0)
    """
    check_options(args)
    if model:
        cards = {out: untrained(args, force)}
    else:
        runs = cli.expand(runs or ("runs/weak", "runs/student", "runs/ceiling"))
        cards = {run: records.finished_run(run, (*records.TRAINERS, "eval")) for run in runs}
    if len({card.get("setting") for card in cards.values()}) > 1:
        raise BadInput("these runs are of several settings: score each setting in its own call")
    rows_of, scores, how = {}, {}, {"device": device, "dtype": dtype}
    for run, card in cards.items():
        setting = tasks.setting_of_card(card)
        data = scored_on(setting, run, card, ds, test, n_test)
        write, writes = tasks.writing.chosen(setting, args), setting is tasks.writing
        scorer = setting.judge_of(data["ds"], judge, bad) if writes else None
        key = json.dumps(data, sort_keys=True)
        if key not in rows_of:
            rows_of[key] = protocol.test_rows(setting, data, split)
        about = run, card, data, split, rows_of[key]
        scores[run] = score(setting, *about, how | write, force, scorer)
    show(scores, setting.METRIC)
    if [records.role(card) for card in cards.values()] == ["weak", "student", "ceiling"]:
        records.tell_next(["pgr.py", *cards, f"--out={files.beside(runs[0], 'pgr.json')}"])


def check_options(args):
    """BadInput for options that mean nothing together."""
    model, shots, labels = args["model"], args["shots"], args["labels"]
    if (model is None) != (args["out"] is None) or (model and args["runs"]):
        raise BadInput("--model and --out go together, without runs: they score what is untrained")
    if (labels is None) != (not shots) or (shots is not None and (args["head"] or not model)):
        told = "with --model and without --head; --shots=0 alone"
        raise BadInput(f"--shots=5 --labels=FILE go together, {told}")
    for name in ("head", "max_len"):
        if args[name] is not None and not model:
            raise BadInput(f"--{name} goes with --model: a trained run has its own")
    for name, other in (("target", None), ("seed", "temperature")):
        if args[name] is not None and not shots and not (other and args[other]):
            raise BadInput(f"--{name} goes with --shots of 1 or more: it chooses the examples")


def untrained(args, force):
    """The card of --out, a run that is scored without training; ask() writes it."""
    model, out, labels, ds = (args[name] for name in ("model", "out", "labels", "ds"))
    setting = tasks.setting_of(ds or "facts")
    if setting is not tasks.texts and (args["head"] or args["shots"] is not None):
        raise BadInput("--head and --shots are for texts")
    if setting.OUTPUTS == 1:
        raise BadInput("a reward model that was not trained says 0 of everything: train it first")
    if (before := files.read_card(out)) and before["stage"] != "eval":
        raise BadInput(f"--out={out} is a run of {before['stage']}.py: choose another name")
    data = protocol.describe(setting, ds or "facts", n_test=args["n_test"], test=args["test"])
    kept = {name: args[name] for name in ("model", "head", "max_len")} | {"data": data}
    if args["shots"] is not None:
        kept |= {"shots": args["shots"], "labels": labels}
        kept |= {"target": args["target"] or "weak", "seed": args["seed"] or 0}
    inputs = records.model_input(model) | ({"labels": files.sha256(labels)} if labels else {})
    if records.is_done(out, kept, inputs, force):
        return files.read_card(out)
    card = records.new_card("eval", setting, kept, inputs, data)
    return card | {"model_sha256": inputs.get("model", model)}


def scored_on(setting, run, card, ds, test, n_test):
    """Which test rows: those of the run's own data, unless --ds, --test or --n_test differ."""
    own = card["data"]
    n_test = n_test or (own and own["n_test"])
    if ds is None:
        if own is None:
            raise BadInput(f"{run} was trained on labels without a card: add --ds, its task")
        if test is not None:
            raise BadInput("--test goes with --ds")
        return own | {"n_test": n_test}
    if tasks.setting_of(ds) is not setting:
        raise BadInput(f"--ds={ds} has other rows than {run}, which answers {setting.WHAT}")
    if ds not in setting.TASKS and test is None:
        # a file that the run was not trained for is a test set, all of it
        test = own["test"] if own and own["ds"] == str(Path(ds).resolve()) else ds
    return protocol.describe(setting, ds, n_test=n_test, test=test)


def score(setting, run, card, data, split, rows, how, force, scorer=None):
    """The metrics of a run on test rows; they and the predictions are written into it.

    If this very model was scored on these rows before, they are read. how: {"device", "dtype"} and
    how texts are written, which the scorer judges (writing.judge_of).
    """
    file = Path(run) / "eval" / f"{protocol.name_of(data['ds'])}-{split}.jsonl"
    metrics_file = file.with_suffix(".metrics.json")
    args = {"data": {k: data[k] for k in ("ds", "test", "sha256", "n_test")}, "split": split} | how
    inputs = {"model": card["model_sha256"]}
    if scorer:
        inputs["judge"] = scorer["sha256"]
    if not force and is_scored(file, args, inputs) and metrics_file.exists():
        print(f"{file} is already done; --force scores again")
        return json.loads(metrics_file.read_text())
    tell_leak(setting, run, card, rows)
    answers = ask(setting, run, card, rows, how)
    if scorer:
        answers = setting.judged(scorer, answers, how["device"], how["dtype"])
    predictions = [setting.prediction(*pair) for pair in zip(rows, answers)]
    metrics = setting.measure(predictions, rows)
    files.write_text(metrics_file, json.dumps(metrics, indent=2) + "\n")
    about = records.new_card("eval", setting, args, inputs, data)
    # groups, by which pgr.py resamples, and which rows these are: predictions say neither
    of_rows = [[row[name] for name in ("id", setting.KEY, setting.TRUTH)] for row in rows]
    about |= {"test_groups": [row["group"] for row in rows]}
    about |= {"rows_sha256": files.hashed(json.dumps(of_rows)).hex()}
    about |= {name: scorer[name] for name in ("judge", "bad") if scorer}
    files.write_jsonl(file, predictions, about)
    print(file)
    return metrics


def is_scored(file, args, inputs):
    """True if the predictions are of these arguments and this model; BadInput if of other rows."""
    before = files.read_card(file)
    if not before or before["inputs"] != inputs:
        return False
    if before["args"]["data"] != args["data"]:
        told = "answers to other rows (--ds, --test, --n_test): add --force to replace them"
        raise BadInput(f"{file} holds this model's {told}")
    return before["args"] == args


def tell_leak(setting, run, card, rows):
    """Warn if a run that learned from a labels file is scored on texts of that file."""
    labels = Path(card["args"].get("labels") or "")
    if not labels.is_file() or files.sha256(labels) != card["inputs"].get("labels"):
        return
    seen = {setting.same(row[setting.KEY]) for row in files.read_jsonl(labels, [setting.KEY])}
    if leaked := sum(setting.same(row[setting.KEY]) in seen for row in rows):
        told = f"{leaked} of these {len(rows)} test {setting.WHAT}: its score means little"
        print(f"warning: {run} was trained on {told}")


def ask(setting, run, card, rows, how):
    """One answer a row by a run's model; a run that was not trained gets its card."""
    if card["stage"] != "eval":
        return tasks.answers(setting, run, rows, **how)
    args, labels = card["args"], card["args"].get("labels")
    if labels and files.sha256(labels) != card["inputs"]["labels"]:
        raise BadInput(f"{labels} has changed since {run} was made: choose another --out")
    if "shots" in args:
        import prompting

        asked = {name: args[name] for name in ("shots", "labels", "target", "seed", "max_len")}
        answers = prompting.probabilities(args["model"], rows, **asked, **how, bar=run)
    else:
        from w2s import models

        start = {"head": args["head"], "max_len": args["max_len"], "device": how["device"]}
        model, tokenizer = models.load(args["model"], **start, outputs=setting.OUTPUTS)
        if model.w2s["head"] == "unembedding alone":
            told = "a bias or cap that its answers would lack: train it first"
            raise BadInput(f"--model={args['model']}: its logits have {told}")
        write = {name: value for name, value in how.items() if name != "device"}
        answers = setting.answer(model, tokenizer, rows, bar=run, **write)
    files.write_card(run, card)
    return answers


def show(scores, metric):
    """The tables on the terminal; scores: {run: metrics}."""
    width = max(32, *map(len, scores))
    extra = ("legal", "ece", "max", "empty", "length")
    extra = [name for name in extra if name in [*scores.values()][0]]
    name = "accuracy" if metric == "acc" else f"{metric:>8}"
    print(f"\n{'run':<{width}} {name}   95 % interval    rows", *(f"{name:>7}" for name in extra))
    for run, metrics in scores.items():
        values = "".join(f"{metrics[name]['value']:8.3f}" for name in extra if name in metrics)
        print(f"{run:<{width}} {as_text(metrics, metric)} {metrics['n']:6}{values}")
    chance = [run for run, m in scores.items() if "auroc" in m and m["low"] <= 0.5 <= m["high"]]
    if chance:
        what = "is at chance" if len(chance) == 1 else "are at chance"
        print(f"{', '.join(chance)} {what}: the model, --n_train or --n_test is too small")
    for run, metrics in scores.items():
        for bucket in metrics.get("by_difficulty", []):
            name = f"{run}, difficulty {bucket['from']}"
            name += f" to {bucket['to']}" if bucket["to"] != bucket["from"] else ""
            print(f"{name:<{width}} {as_text(bucket)} {bucket['n']:6}")


def as_text(one, metric="acc"):
    """An accuracy, or another metric, and its interval."""
    return f"{one[metric]:8.3f}   {one['low']:.3f} to {one['high']:.3f} "


if __name__ == "__main__":
    cli.run(main)
