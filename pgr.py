"""Stage 5: predictions of supervisor, student and ceiling -> performance gap recovered.

    PGR = (student - weak) / (ceiling - weak)    1: like ground truth; 0: no better than weak

    python pgr.py                                       # runs/weak runs/student runs/ceiling
    python pgr.py 's*/weak' 's*/student' 's*/ceiling'   # seeds, paired by what * matched
    python pgr.py --curves                   # and the course of training: runs/pgr.curves.png
    python pgr.py --metric=auroc --want=0.1  # how many rows and seeds make the PGR known to +-0.1
    python pgr.py --grid=runs/grid           # report.md, report.html and pictures of a sweep

In: the predictions that eval.py left in the runs. Out: a table, --out (JSON) and --plot (PNG).
"""

import inspect
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np

import tasks
from w2s import cli, doubts, files, leaks, locks, outcomes, protocol, records, report, stats
from w2s.curves import stopping
from w2s.figures import draw
from w2s.files import BadInput
from w2s.scores import WRITING
from w2s.stats import WHO

RULE = ("alpha", "conf_prior", "radius", "as_released")


@cli.stage
def main(
    args, weak: str = "runs/weak", student: str = "runs/student", ceiling: str = "runs/ceiling", *,
    ds: str = None, split: str = "test", out: str = None, plot: str = None,
    other_texts: bool = False, curves: bool = False, metric: str = None, want: float = None,
    grid: str = None,
):  # fmt: skip
    """Performance gap recovered, with an interval over groups of test rows and seeds.

    Args:
        weak: run directory of the supervisor, or a glob in quotes whose * is the seed
        student: likewise
        ceiling: likewise
        ds: the task whose predictions to read (default: the one that the runs were trained for)
        out: JSON file to write (default: pgr.json in the folder that all these runs are in)
        other_texts: allow other texts under the same ids, as after controls.py --kind=suffix
    """
    if grid:
        return report_of(grid, args)
    out = out or beside_all(weak, student, ceiling)
    if Path(out).suffix != ".json":
        raise BadInput(f"--out={out} must end in .json")
    plot = plot or str(Path(out).with_suffix(".png"))
    matched = pair_seeds([weak, student, ceiling])
    runs, stages = list(matched.values()), (*records.TRAINERS, "eval", "api")
    cards = [[records.finished_run(run, stages) for run in seed] for seed in runs]
    setting = tasks.setting_of_card(cards[0][0])
    doubts.check_copies(runs, cards)
    if curves and not setting.SOFT:
        raise BadInput(f"--curves: {setting.WHAT} hold no rows out that are right or wrong")
    if not outcomes.has_metric(setting, metric := metric or setting.METRIC):
        raise BadInput(f"--metric={metric}: {setting.WHAT} have no such metric")
    locks.hold(out)
    columns, groups, notes, abouts = read_all(setting, runs, cards, ds, split, other_texts)
    result = stats.compare(**columns, groups=groups, metric=metric, want=want)
    if alone := [who for who in WHO if result[who][metric] is None]:
        told = "never says 1, or the test rows have one label"
        raise BadInput(f"--metric={metric} cannot be computed: the {alone[0]} {told}")
    describe(result, matched, cards, abouts, setting, ds, split)
    result["notes"] = notes + doubts.seeds((weak, student, ceiling), cards)
    for seed, names in zip(cards, runs):
        result["notes"] += doubts.roles(seed, names)
    show(result)
    show_needed(result, want)
    if curves:
        result["stopping"] = stopping(runs, cards, Path(plot).with_suffix(".curves.png"))
    files.write_text(out, json.dumps(result, indent=2) + "\n")
    print(out)
    draw(result, plot)
    tell_chance(result)


def beside_all(*patterns):
    """The default --out: pgr.json in the folder that all the runs are in."""
    folders = {str(Path(pattern).parent) for pattern in patterns}
    if len({*map(os.path.isabs, folders)}) > 1:
        folders = {*map(os.path.abspath, folders)}
    common = os.path.commonpath(folders)
    fixed = itertools.takewhile(lambda part: "*" not in part, Path(common).parts)
    return str(Path(*fixed, "pgr.json"))


def pair_seeds(patterns):
    """{what the * of the globs matched: one run a pattern}; BadInput where one lacks a seed."""
    matched = []
    for pattern in patterns:
        if set("?[") & set(pattern) and not Path(pattern).exists():
            raise BadInput(f"{pattern!r}: only * is understood, it stands for the seed")
        pattern = str(Path(pattern))  # without // or a / at the end, as in what is found
        seed_of = re.compile(re.escape(pattern).replace(r"\*", "([^/]*)"))
        found = {path: seed_of.fullmatch(path).groups() for path in cli.expand([pattern])}
        matched.append({"/".join(seed): path for path, seed in found.items()})
    if len({"*" in pattern for pattern in patterns}) > 1:
        raise BadInput(f"{' '.join(patterns)}: give all three with a *, or none")
    for pattern, seeds in zip(patterns, matched):
        if missing := sorted(set().union(*matched) - seeds.keys()):
            raise BadInput(f"{pattern!r} has no run for * = {missing[0]}, another of them has one")
    return {seed: [seeds[seed] for seeds in matched] for seed in sorted(matched[0])}


def read_all(setting, runs, cards, ds, split, other_texts=False):
    """({what stats.compare() takes of the same rows in the same order}, groups, notes, cards)."""
    answers, abouts, notes, hashes, judges, first = [[], [], []], [[], [], []], [], {}, {}, None
    for seed, names in zip(cards, runs):
        for k, (card, name) in enumerate(zip(seed, names)):
            rows, about = read(setting, name, card, ds, split)
            ids = [row["id"] for row in rows]
            truth = [setting.truth and setting.truth(row) for row in rows]
            if first is None:
                first, first_name, right, groups = ids, name, truth, about.get("test_groups")
            hashes.setdefault(about.get("rows_sha256"), name)
            how = about.get("inputs", {}) | about.get("args", {})
            judges.setdefault(tuple(how.get(one) for one in ("judge", *WRITING)), name)
            if ids != first:
                order = join(first, ids, first_name, name)
                rows, truth = [rows[i] for i in order], [truth[i] for i in order]
            if truth != right:
                i = next(i for i, one in enumerate(truth) if one != right[i])
                told = f"on the {setting.TRUTH} of {first[i]!r}: score both again"
                raise BadInput(f"{first_name} and {name} disagree {told}")
            answers[k].append(outcomes.columns(setting, rows))
            abouts[k] += [card, about]
    if len(judges) > 1:
        told = "were judged by different models, or wrote in other ways: score both again alike"
        raise BadInput(f"{' and '.join(list(judges.values())[:2])} {told}")
    known = [name for sha, name in hashes.items() if sha]
    if len(known) > 1:
        told = f"{known[0]} and {known[1]} answered other texts under the same ids"
        if not other_texts:
            raise BadInput(f"{told}: score both with eval.py --force, or allow it: --other_texts")
        notes.append(told)
    if None in hashes:
        told = "whether it answered the same texts is not known: eval.py --force scores it again"
        notes.append(f"the card of {hashes[None]}'s predictions lacks rows_sha256, {told}")
    if groups is None:
        notes.append(f"the predictions of {first_name} have no card: every row counts as a group")
    given = {"said": None, "label": right if "prob" in answers[0][0] else None}
    for name in answers[0][0].keys() - {"truth"}:
        given[name] = np.array([[one[name] for one in seeds] for seeds in answers])
    return given, groups or first, notes, abouts


def join(left, right, left_name, right_name):
    """Where each of the ids `left` is among the ids `right`; BadInput unless both hold the same."""
    where = {name: i for i, name in enumerate(right)}
    alone = [name for name in left if name not in where] or sorted(where.keys() - {*left})
    if alone:
        raise BadInput(
            f"{left_name} ({len(left)} rows) and {right_name} ({len(right)} rows) hold different "
            f"ids, e.g. {alone[0]!r}: score both on the same test rows (--ds, --split, --n_test)"
        )
    return [where[name] for name in left]


def read(setting, run, card, ds, split):
    """(predictions, their card) of a run; BadInput if it was not scored, or by an earlier model."""
    if ds is None and card["data"] is None:
        raise BadInput(f"{run} was trained on labels without a card: add --ds, its task")
    if tasks.setting_of_card(card) is not setting:
        raise BadInput(f"{run} has not answered {setting.WHAT}: give three runs of one setting")
    again = f"run python eval.py {run} --split={split}" + (f" --ds={ds}" if ds else "")
    file = Path(run) / "eval" / f"{protocol.name_of(ds or card['data']['ds'])}-{split}.jsonl"
    if not file.exists():
        raise BadInput(f"{run} has no predictions {file}: {again}")
    about = files.read_card(file) or {}
    if about and about["inputs"]["model"] != card["model_sha256"]:
        raise BadInput(f"{file} is of an earlier model of {run}: {again}")
    scored = (about.get("data") or {}).get("ds")
    if ds and scored not in (None, ds, str(Path(ds).resolve())):
        raise BadInput(f"{file} is of {scored}, not of --ds={ds}: {again}")
    return files.read_jsonl(file, setting.PREDICTION, setting.CHECKS), about


def describe(result, matched, cards, abouts, setting, ds, split):
    """Add to a result what it is of: task, setting, split, models, rule, seeds, runs, leaks."""
    for who, of_who, card in zip(WHO, abouts, cards[0]):
        model = card["args"].get("model") or card["args"].get("answers")
        result[who] |= leaks.inherited(*of_who) | {"model": model}
    result |= leaks.inherited(*(result[who] for who in WHO))
    args = cards[0][1]["args"]
    told = [f"{n}={args[n]}" for n in RULE if args.get(n) is not None and args[n] is not False]
    rule = " ".join([args["loss"], *told]) if args.get("loss") else None
    result["student"] |= {"rule": rule, "seeds": [seed for seed in matched if seed]}
    result |= {"task": ds or cards[0][0]["data"]["ds"], "setting": setting.__name__}
    result |= {"split": split, "runs": dict(zip(WHO, map(list, zip(*matched.values()))))}


def show(result):
    """The table on the terminal."""
    metric, n_seeds = result["metric"], result["seeds"]
    told = f"{result['n']} test rows in {result['groups']} groups, {n_seeds} seed(s)"
    print(f"{told}; {metric}, 95 % intervals\n")
    for who in WHO:
        print(f"{who:<30} {stats.in_words(result[who], metric)}{leaks.mark(result[who])}")
    pgr = result["pgr"]
    told = f" undefined: {pgr['reason']}" if pgr["value"] is None else stats.in_words(pgr)
    print(f"{'PGR':<30} {told}{leaks.mark(result)}")
    if result["agreement"]:
        print("\nstudent agrees with supervisor")
    names = {"all": "on all rows", "weak_right": "where it is right"}
    names |= {"weak_wrong": "where it is wrong", "similarity": "similarity beyond chance"}
    names |= {"misfit": "misfit, (student - weak)^2", "gain": "gain in squared error"}
    for name, one in (result["agreement"] | result["diagnostics"]).items():
        print(f"  {names.get(name, name):<28} {stats.in_words(one)}")
    print()
    if not result["seeds_covered"]:
        told = "one seed" if n_seeds == 1 else "all seeds answer every row alike"
        print(f"{told}: the intervals are for these runs, and say nothing of other seeds")
    for note in result["notes"]:
        print(f"note: {note}")


def tell_chance(result):
    """Say so if the supervisor is no better than a coin."""
    chance = result["metric"] == "acc" and result["diagnostics"]
    if chance and result["weak"]["low"] <= 0.5 <= result["weak"]["high"]:
        print("the supervisor is at chance: train it longer, on more rows, or test on more rows")


def show_needed(result, want):
    """How many seeds and groups of rows would do, on the terminal."""
    if not want:
        return
    rough = "as far as these data tell"
    if result["pgr"]["value"] is None:
        rough = "roughly, as the PGR is undefined"
    if not result["needed"]:
        rough = "no number of rows is known"
    print(f"for a PGR known to +-{want:g}, {rough}:")
    for n_seeds, n_groups in result["needed"].items():
        told = "no number of rows is enough"
        if n_groups:
            told = f"{n_groups} groups, {round(n_groups * result['n'] / result['groups'])} rows"
        print(f"  {n_seeds:>2} seed(s)  {told}")


def report_of(folder, args):
    """--grid: the report of a whole grid, and its table on the terminal."""
    for name, known in inspect.signature(main).parameters.items():
        if name not in ("grid", "metric") and args[name] != known.default:
            raise BadInput(f"--grid goes with --metric alone: leave {name}={args[name]} out")
    report.show(folder, report.make(folder, tasks.setting_of_card, args["metric"]))


if __name__ == "__main__":
    cli.run(main)
