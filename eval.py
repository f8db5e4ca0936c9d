"""Stage 4: run(s) -> predictions on test rows, and metrics.

    python eval.py                                     # runs/weak runs/student runs/ceiling
    python eval.py runs/*/student --ds='ethics_*' --split=test_hard   # on other tasks: one table
    python eval.py --model=openai-community/gpt2 --ds=sst2 --out=runs/zero_shot      # no training
    python eval.py --model=facts/m --shots=5 --labels=runs/labels.jsonl --out=runs/prompted
    python eval.py --answers=theirs.jsonl --ds=sst2 --out=runs/theirs   # of people or any tool

In: finished runs. Out, in each: eval/<task>-<split>.jsonl (predictions), its card, .metrics.json.
Everybody answers the same rows: the test set of the task that the run was trained for.
Next: pgr.py.
"""

import itertools
import json
import math
from pathlib import Path

import tasks
from w2s import cli, files, folders, leaks, locks, parts, protocol, records, scores
from w2s.files import BadInput

RATED = "ethics_utilitarianism"


@cli.stage
def main(
    args, *runs: str, ds: str = None, split: str = "test", test: str = None, n_test: int = None,
    model: str = None, answers: str = None, out: str = None, head: str = None,
    max_len: int = None, shots: int = None, labels: str = None, target: str = None,
    ratings: bool = False, judge: str = None, bad: int = None, samples: int = None,
    temperature: float = None, top_p: float = None, max_new: int = None, seed: int = None,
    device: str = None, dtype: str = None, force: bool = False, allow_leak: bool = False,
):  # fmt: skip
    """Score runs on the test rows of their task, or of another.

    Args:
        ds: tasks or JSONL files with commas, or 'ethics_*' in quotes (default: the run's own)
        test: test rows, when --ds is a file (default: a fifth of the one trained on, else all)
        model: with --out and no runs: a model to score without training, or RUN/model
        answers: likewise: whose answers to score, JSONL: id, weak = P(label = 1), of pairs a and b
        labels: the labels file of a prompt's examples (default: the truth of the weak half)
        target: whose labels the examples show: weak (default) or truth
        seed: moves the examples of a prompt, or what is drawn by --temperature (default: 0)
    """
    check_options(args)
    names = expanded(ds)
    if out:
        cards = {out: untrained(args | {"ds": names[0]}, force)}
    else:
        runs = cli.expand(runs or ("runs/weak", "runs/student", "runs/ceiling"))
        cards = {run: records.finished_run(run, (*records.TRAINERS, "eval")) for run in runs}
    if len({card.get("setting") for card in cards.values()}) > 1:
        raise BadInput("these runs are of several settings: score each setting in its own call")
    learned = {run: {run: leaks.of_run(run, card)} for run, card in cards.items()}
    rows_of, plan, metrics = {}, [], {run: {} for run in cards}
    for name, (run, card) in itertools.product(names, cards.items()):
        setting = tasks.setting_of_card(card)
        data = scored_on(setting, run, card, name, test, n_test)
        how = {"device": device, "dtype": dtype} | tasks.writing.chosen(setting, args)
        scorer = setting.judge_of(data["ds"], judge, bad) if setting is tasks.writing else None
        key = json.dumps(data, sort_keys=True)
        rows = rows_of[key] = rows_of.get(key) or protocol.test_rows(setting, data, split)
        leak = leaks.guard(setting, rows, data, learned[run], allow_leak, "test")
        plan.append((setting, run, card, data, split, rows, how, scorer, leak))
    parts.together("join")  # nothing runs before all rows are there
    for setting, run, card, data, *more in plan:
        metrics[run][data["ds"]] = score(setting, run, card, data, *more, force)
    parts.together("leave")
    if len(names) > 1:
        return show_tasks(metrics, setting.METRIC)
    of_runs = {run: one for run, of_tasks in metrics.items() for one in of_tasks.values()}
    scores.show(of_runs, setting.METRIC)
    if [records.role(card) for card in cards.values()] == ["weak", "student", "ceiling"]:
        of = [f"--ds={names[0]}"] * (ds is not None) + [f"--split={split}"] * (split != "test")
        cli.tell_next(["pgr.py", *cards, *of, f"--out={files.beside(runs[0], 'pgr.json')}"])


def check_options(args):
    """BadInput for options that mean nothing together."""
    model, shots, sources = args["model"], args["shots"], ("runs", "model", "answers")
    given = [name for name in sources if args[name]]
    if len(given) > 1 or (args["out"] is None) != (given in ([], ["runs"])):
        raise BadInput("--model, or --answers, and --out go together, without runs")
    asks = {"head": args["head"], "shots": shots, "ratings": args["ratings"] or None}
    asks = [f"--{name}" for name, value in asks.items() if value is not None]
    if asks and not model:
        raise BadInput(f"{asks[0]} goes with --model and --out; of a run, --model=RUN/model")
    if len(asks) > 1:
        raise BadInput(f"{' and '.join(asks)} do not go together")
    if args["max_len"] is not None and not model:
        raise BadInput("--max_len goes with --model: a trained run has its own")
    for name, other in (("labels", None), ("target", None), ("seed", "temperature")):
        if args[name] is not None and not shots and not (other and args[other]):
            told = f"--shots of 1 or more{f', or with --{other}' if other else ''}"
            raise BadInput(f"--{name} goes with {told}")
    if args["target"] == "weak" and not args["labels"]:
        raise BadInput("--target=weak goes with --labels: other examples show the ground truth")


def expanded(ds):
    """The tasks or files of --ds: one, a list with commas, or globs over the names of tasks."""
    if ds is None or Path(ds).is_file():
        return [ds]
    names = tasks.named(ds.split(","))
    if len({tasks.setting_of(name).__name__ for name in names}) > 1:
        raise BadInput(f"--ds={ds} names tasks of several settings: score each in its own call")
    return list(dict.fromkeys(names))


def untrained(args, force):
    """The card of --out, of a model scored without training or of a file of answers."""
    model, answers, out, labels, ds = map(args.get, ("model", "answers", "out", "labels", "ds"))
    setting = tasks.setting_of(ds or "facts")
    if setting is not tasks.texts and (args["head"] or args["shots"] is not None):
        raise BadInput("--head and --shots are for texts")
    if answers and not setting.SOFT:
        raise BadInput(f"--answers are probabilities of a label, not {setting.WHAT}")
    if model and setting.OUTPUTS == 1:
        raise BadInput("a reward model that was not trained says 0 of everything: train it first")
    if (before := files.read_card(out)) and before["stage"] != "eval":
        raise BadInput(f"--out={out} is a run of {before['stage']}.py: choose another name")
    data = protocol.describe(setting, ds or "facts", n_test=args["n_test"], test=args["test"])
    kept = {n: args[n] for n in ("model", "answers", "head", "max_len")} | {"data": data}
    if args["shots"] is not None:
        kept |= {"shots": args["shots"], "labels": labels, "seed": args["seed"] or 0}
        kept["target"] = args["target"] or ("weak" if labels or not args["shots"] else "truth")
    kept |= {"ratings": True} if args["ratings"] else {}
    source = {"answers": files.sha256(answers)} if answers else folders.model_input(model)
    inputs = source | ({"labels": files.sha256(labels)} if labels else {})
    if records.is_done(out, kept, inputs, force):
        return files.read_card(out)
    card = records.new_card("eval", setting, kept, inputs, data)
    read = files.read_card(labels or answers) if labels or answers else None
    card |= leaks.inherited(leaks.started_from(model)[1], read or {})
    return card | {"model_sha256": source["answers" if answers else "model"]}


def scored_on(setting, run, card, ds, test, n_test):
    """Which test rows: those of the run's own data, unless --ds, --test or --n_test differ."""
    own = card["data"]
    n_test = n_test or (own and own["n_test"])
    if card["args"].get("ratings") and (ds or own["ds"]) != RATED:
        raise BadInput(f"--ratings is for --ds={RATED}, whose rows are two situations")
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


def score(setting, run, card, data, split, rows, how, scorer, leak, force):
    """The metrics of a run on test rows; they and the predictions are written into it.

    If this very model was scored on these rows before, they are read. how: {"device", "dtype"} and
    how texts are written, which the scorer judges (writing.judge_of); leak: leaks.guard().
    """
    file, *about = scores.place(run, card, data, split, how, scorer)
    locks.hold(file, writes=False)
    if metrics := parts.together("told", None if force else scores.known(file, *about)):
        return metrics
    locks.hold(file)
    answers = ask(setting, run, card, data, rows, how)
    if card["stage"] == "eval":
        files.write_card(run, card)
    if scorer:
        answers = setting.judged(scorer, answers, how["device"], how["dtype"])
    if files.rank() > 0:
        return {}
    predictions = [setting.prediction(*pair) for pair in zip(rows, answers)]
    return scores.write(setting, file, *about, data, rows, predictions, leaks.inherited(card, leak))


def ask(setting, run, card, data, rows, how):
    """One answer a row by a run's model, or file."""
    if card["stage"] != "eval":
        return tasks.answers(setting, run, rows, **how)
    args, labels = card["args"], card["args"].get("labels")
    if labels and files.sha256(labels) != card["inputs"]["labels"]:
        raise BadInput(f"{labels} has changed since {run} was made: choose another --out")
    if args.get("answers"):
        return answers_of(args["answers"], rows)
    import prompting  # and torch, which takes seconds
    from w2s import models

    how = how | {"max_len": args["max_len"], "bar": run}
    if "shots" in args:
        asked = {name: args[name] for name in ("shots", "labels", "target", "seed")}
        return prompting.probabilities(args["model"], rows, **asked, **how, data=data)
    if args.get("ratings"):
        return prompting.ratings(args["model"], rows, **how)
    start = {"head": args["head"], "max_len": args["max_len"], "device": how["device"]}
    model, tokenizer = models.load(args["model"], **start, outputs=setting.OUTPUTS)
    if model.w2s["head"] == "unembedding alone":
        told = "a bias or cap that its answers would lack: train it first"
        raise BadInput(f"--model={args['model']}: its logits have {told}")
    write = {name: how[name] for name in how.keys() - {"device", "max_len"}}
    return setting.answer(model, tokenizer, rows, **write)


def answers_of(file, rows):
    """P(label = 1) of each row by a file with id and weak; BadInput where one is missing.

    Of pairs it has a and b as well, either way round: the sides of a user's pairs are drawn anew.
    """
    sides, said = [name for name in ("a", "b") if name in rows[0]], {}
    lines = files.read_jsonl(file, ["id", "weak", *sides])
    for line in lines:
        given = [line[side] for side in sides]
        said[line["id"], *given[::-1]] = 1 - line["weak"]
        said[line["id"], *given] = line["weak"]
    asked = [(row["id"], *(row[side] for side in sides)) for row in rows]
    if missing := [name for name, *given in asked if (name, *given) not in said]:
        told = f"lacks {len(missing)} of the {len(rows)} test rows, such as {missing[0]!r}"
        raise BadInput(f"{file} {told} (python tasks.py TASK prints them)")
    if len(lines) > len(rows):
        print(f"{len(lines) - len(rows)} of {len(lines)} answers are of no test row (see --test)")
    return [said[one] for one in asked]


def show_tasks(metrics, metric):
    """The table of runs and tasks, ready for a document; metrics: {run: {task: metrics}}."""
    names = [protocol.name_of(ds) for ds in [*metrics.values()][0]]
    print(f"\n| run | {' | '.join(names)} | Average |\n|{'---|' * (len(names) + 2)}")
    for run, of_tasks in metrics.items():
        ones = [*of_tasks.values()]
        ones.append(mean(ones, metric))
        cells = (f"{x[metric]:.3f} [{x['low']:.3f}, {x['high']:.3f}]" for x in ones)
        print(f"| {run}{leaks.mark(leaks.inherited(*of_tasks.values()))} | {' | '.join(cells)} |")


def mean(ones, metric="acc"):
    """The mean of a metric on several tasks and its interval: {metric, "low", "high"}.

    Their errors are taken as independent, as the tasks share no rows: distances from the value to
    an end of its interval add in quadrature, below and above for themselves.
    """
    value = sum(one[metric] for one in ones) / len(ones)
    of_ends = ([one[metric] - one[end] for one in ones] for end in ("low", "high"))
    below, above = (math.hypot(*distances) / len(ones) for distances in of_ends)
    return {metric: value, "low": value - below, "high": value + above}


if __name__ == "__main__":
    cli.run(main, processes=True)
