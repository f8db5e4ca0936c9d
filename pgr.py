"""Stage 5: predictions of supervisor, student and ceiling -> performance gap recovered.

    PGR = (student - weak) / (ceiling - weak)    1: like ground truth; 0: no better than weak

    python pgr.py                                       # runs/weak runs/student runs/ceiling
    python pgr.py 's*/weak' 's*/student' 's*/ceiling'   # seeds, paired by what * matched
    python pgr.py --curves                   # and the course of training: runs/pgr.curves.png

In: the predictions that eval.py left in the runs. Out: a table, --out (JSON) and --plot (PNG).
"""

import json
import re
from pathlib import Path

import tasks
from w2s import cli, doubts, files, protocol, records, stats
from w2s.curves import COLOURS, stopping, write_figure
from w2s.files import BadInput
from w2s.stats import WHO

RULE = ("alpha", "conf_prior", "radius", "as_released")
WRITTEN = ("samples", "temperature", "top_p", "max_new")


@cli.stage
def main(
    args, weak: str = "runs/weak", student: str = "runs/student", ceiling: str = "runs/ceiling", *,
    ds: str = None, split: str = "test", out: str = "runs/pgr.json", plot: str = None,
    other_texts: bool = False, curves: bool = False, n_boot: int = stats.N_BOOT,
):  # fmt: skip
    """Performance gap recovered, with a paired bootstrap over groups of test rows and seeds.

    Args:
        weak: run directory of the supervisor, or a glob in quotes whose * is the seed
        student: likewise
        ceiling: likewise
        ds: the task whose predictions to read (default: the one that the runs were trained for)
        out: JSON file to write
        plot: PNG file to write (default: --out with .png)
        other_texts: allow other texts under the same ids, as after controls.py --kind=suffix
    """
    if Path(out).suffix != ".json":
        raise BadInput(f"--out={out} must end in .json")
    if n_boot < 100:
        raise BadInput(f"--n_boot={n_boot}: an interval needs at least 100 resamples")
    plot = plot or str(Path(out).with_suffix(".png"))
    matched = pair_seeds([weak, student, ceiling])
    runs, stages = list(matched.values()), (*records.TRAINERS, "eval", "api")
    cards = [[records.finished_run(run, stages) for run in seed] for seed in runs]
    setting = tasks.setting_of_card(cards[0][0])
    doubts.check_copies(runs, cards)
    if curves and not setting.SOFT:
        raise BadInput(
            f"--curves: {setting.WHAT} hold no rows out that are right or wrong: no course"
        )
    answers, groups, notes = read_all(setting, runs, cards, ds, split, other_texts)
    result = compare(setting, answers, groups, n_boot)
    describe(result, matched, cards, setting, ds, split)
    result["notes"] = notes + doubts.seeds((weak, student, ceiling), cards)
    for seed, names in zip(cards, runs):
        result["notes"] += doubts.roles(seed, names)
    show(result)
    if curves:
        result["stopping"] = stopping(runs, cards, Path(plot).with_suffix(".curves.png"))
    files.write_text(out, json.dumps(result, indent=2) + "\n")
    print(out)
    draw(result, plot)
    if result["diagnostics"] and result["weak"]["low"] <= 0.5 <= result["weak"]["high"]:
        print("the supervisor is at chance: train it longer, on more rows, or test on more rows")


def pair_seeds(patterns):
    """{what the * of the globs matched: one run a pattern}; BadInput where one lacks a seed."""
    matched = []
    for pattern in patterns:
        if set("?[") & set(pattern) and not Path(pattern).exists():
            raise BadInput(f"{pattern!r}: only * is understood, it stands for the seed")
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
    """([3][S] lists of predictions of the same rows in the same order, their groups, notes)."""
    answers, notes, hashes, judges, first = [[], [], []], [], {}, {}, None
    for seed, names in zip(cards, runs):
        for k, (card, name) in enumerate(zip(seed, names)):
            rows, about = read(setting, name, card, ds, split)
            if first is None:
                first, first_name, groups = rows, name, about.get("test_groups")
            hashes.setdefault(about.get("rows_sha256"), name)
            how = [about.get("args", {}).get(one) for one in WRITTEN]
            judges.setdefault((about.get("inputs", {}).get("judge"), *how), name)
            pairs = join(first, rows, first_name, name)
            for one, other in pairs:
                if setting.truth and setting.truth(one) != setting.truth(other):
                    told = f"on the {setting.TRUTH} of {one['id']!r}: score both again"
                    raise BadInput(f"{first_name} and {name} disagree {told}")
            answers[k].append([other for _, other in pairs])
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
    return answers, groups or [row["id"] for row in first], notes


def join(left, right, left_name, right_name):
    """Pairs of rows with equal ids, in the order of `left`; BadInput unless both hold the same."""
    by_id = {row["id"]: row for row in right}
    alone = [row["id"] for row in left if row["id"] not in by_id]
    alone = alone or sorted(by_id.keys() - {row["id"] for row in left})
    if alone:
        raise BadInput(
            f"{left_name} ({len(left)} rows) and {right_name} ({len(right)} rows) hold different "
            f"ids, e.g. {alone[0]!r}: score both on the same test rows (--ds, --split, --n_test)"
        )
    return [(row, by_id[row["id"]]) for row in left]


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
    return files.read_jsonl(file, setting.PREDICTION), about


def compare(setting, answers, groups, n_boot):
    """stats.compare() of the predictions [3][S] of a setting."""

    def each(value):
        """[3, S, N]"""
        return [[[value(row) for row in rows] for rows in seeds] for seeds in answers]

    given, said = (), each(setting.said) if setting.said else None
    if "prob" in setting.PREDICTION:
        given = each(lambda row: row["prob"]), [row["label"] for row in answers[0][0]]
    how = {"n_boot": n_boot, "metric": setting.METRIC}
    return stats.compare(each(setting.score), said, groups, *given, **how)


def describe(result, matched, cards, setting, ds, split):
    """Add to a result what it is of: task, setting, split, models, rule, seeds, runs."""
    for who, card in zip(WHO, cards[0]):
        result[who]["model"] = card["args"].get("model")
    args = cards[0][1]["args"]
    options = [f"{name}={args[name]}" for name in RULE if args.get(name)]
    rule = " ".join([args["loss"], *options]) if args.get("loss") else None
    result["student"] |= {"rule": rule, "seeds": [seed for seed in matched if seed]}
    result |= {"task": ds or cards[0][0]["data"]["ds"], "setting": setting.__name__}
    result |= {"split": split, "runs": dict(zip(WHO, map(list, zip(*matched.values()))))}


def show(result):
    """The table on the terminal."""
    metric = result["metric"]
    told = f"{result['n']} test rows in {result['groups']} groups, {result['seeds']} seed(s)"
    print(f"{told}; {metric}, 95 % intervals\n")
    for who in WHO:
        print(f"{who:<30} {stats.in_words(result[who], metric)}")
    pgr = result["pgr"]
    undefined = f" undefined: {pgr['reason']}"
    print(f"{'PGR':<30} {undefined if pgr['value'] is None else stats.in_words(pgr)}")
    if result["agreement"]:
        print("\nstudent agrees with supervisor")
    for name, one in relations(result).items():
        print(f"  {name:<28} {stats.in_words(one)}")
    print()
    for note in result["notes"]:
        print(f"note: {note}")


def relations(result):
    """{what to call it: estimate} of all that is told beside the PGR."""
    names = {"all": "on all rows", "weak_right": "where it is right"}
    names |= {"weak_wrong": "where it is wrong", "similarity": "similarity beyond chance"}
    told = result["agreement"] | result["diagnostics"]
    return {names.get(name, name): one for name, one in told.items()}


def draw(result, path):
    """Bars of the three as in the paper, and where the student agrees with its supervisor."""
    from matplotlib.figure import Figure

    both = bool(result["agreement"])
    figure = Figure(figsize=(8 if both else 4.5, 3.6), layout="constrained")
    models = " -> ".join(str(result[who]["model"]) for who in WHO[:2])
    rule = result["student"]["rule"] or "not trained"
    figure.suptitle(f"{result['task']}: {models}, {rule}", fontsize=9)
    axes, *agreement = figure.subplots(1, 1 + both, squeeze=False)[0]
    names, metric = ("weak\nsupervisor", "student", "strong\nceiling"), result["metric"]
    bars(axes, {name: (result[who], c) for name, who, c in zip(names, WHO, COLOURS)}, metric)
    pgr, told = result["pgr"], "PGR undefined"
    if pgr["value"] is not None:
        told = f"PGR {pgr['value']:.2f} [{pgr['low']:.2f}, {pgr['high']:.2f}]"
    lowest = min(result[who]["low"] for who in WHO)
    highest = max(result[who]["high"] for who in WHO)
    limits = 0.5 if lowest >= 0.5 else min(0, lowest), 1 if 0.5 < highest <= 1 else None
    axes.set(title=told, ylabel=f"{metric} on the test rows", ylim=limits)
    for panel in agreement:
        shown = {
            f"supervisor\nis {name}": (one, colour)
            for name, colour in (("right", COLOURS[0]), ("wrong", COLOURS[1]))
            if (one := result["agreement"][f"weak_{name}"])["value"] is not None
        }
        bars(panel, shown, "value")
        panel.set(title="student agrees where the", ylim=(0, 1))
    write_figure(figure, path)


def bars(axes, shown, key="acc"):
    """Estimates with their intervals; shown: {label: ({key, "low", "high"}, colour)}."""
    above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
    for x, (one, colour) in enumerate(shown.values()):
        axes.bar(x, one[key], yerr=whiskers(one, key), color=colour, capsize=5, width=0.7)
        axes.annotate(f"{one[key]:.3f}", (x, one["high"]), **above)
    axes.set_xticks(range(len(shown)), list(shown))


def whiskers(one, key="value"):
    """The interval of an estimate as matplotlib wants it: distances below and above."""
    return [[max(0, one[key] - one["low"])], [max(0, one["high"] - one[key])]]


if __name__ == "__main__":
    cli.run(main)
