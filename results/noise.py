"""Noise as a dial: students of simulated supervisors against their rate of errors, as a picture.

    results/noise.sh                      # makes the runs, then calls this
    python results/noise.py 'runs/noise/s*/*-*' --ceiling='runs/noise/s*/ceiling'

A simulated supervisor (controls.py --rate=R) is right on 1 - R of all rows by construction, so PGR
is (student - (1 - R)) / (ceiling - (1 - R)). In: scored runs; their cards say kind, rate and rule.
Out: a table and a PNG file.
"""

import collections
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import tasks
from w2s import cli, curves, files, records, stats
from w2s.files import BadInput


@cli.stage
def main(
    args, *students: str, ceiling: str = "runs/noise/s*/ceiling", plot: str = "results/noise.png"
):
    """Draw the students' accuracy and PGR against the rate of errors in their labels.

    Args:
        students: run directories, or globs in quotes
        ceiling: run directories of the ceilings of the same seeds
    """
    ceilings = {records.finished_run(run)["args"]["seed"]: run for run in cli.expand([ceiling])}
    lines = collections.defaultdict(lambda: collections.defaultdict(dict))
    for run in cli.expand(students or ("runs/noise/s*/*-*",)):
        args, made = records.finished_run(run)["args"], {}
        if args.get("labels"):
            made = (files.read_card(args["labels"]) or {"args": {}})["args"]
        if made.get("rate") is None or args["seed"] not in ceilings:
            raise BadInput(f"{run} is no student of controls.py --rate that has a ceiling")
        lines[f"{made['kind']}, {args['loss']}"][made["rate"]][args["seed"]] = run
    told = {}
    for name, rates in lines.items():
        for rate, runs in sorted(rates.items()):
            told[name, rate] = one = recovered(rate, runs, ceilings)
            pgr = one["pgr"]
            said = "undefined" if pgr["value"] is None else stats.in_words(pgr)
            print(f"{name:<24} {rate:5.0%} {stats.in_words(one['student'], 'acc')}   PGR {said}")
    draw(told, plot)


def recovered(rate, runs, ceilings):
    """stats.compare() of a supervisor that is right on 1 - rate of the rows; runs: {seed: run}."""
    seeds = sorted(runs)
    students, groups = zip(*(right(runs[seed]) for seed in seeds))
    score = [[[1 - rate] * len(groups[0])] * len(seeds), students]
    return stats.compare([*score, [right(ceilings[seed])[0] for seed in seeds]], None, groups[0])


def right(run):
    """(1 for each test row that a run has right, the rows' groups)."""
    found = [path for path in Path(run).glob("eval/*.jsonl")]
    if len(found) != 1:
        raise BadInput(f"{run} has {len(found)} files of predictions, not one: call eval.py")
    setting = tasks.setting_of_card(records.finished_run(run))
    rows = files.read_jsonl(found[0], setting.PREDICTION)
    return [setting.score(row) for row in rows], files.read_card(found[0])["test_groups"]


def draw(told, path):
    """Accuracy and PGR against the rate; told: {(line, rate): stats.compare()}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    accuracy, pgr = figure.subplots(1, 2)
    rates = sorted({rate for _, rate in told})
    accuracy.plot(rates, [1 - rate for rate in rates], ":", color="#3d3d3d", label="supervisor")
    top = next(iter(told.values()))["ceiling"]["acc"]
    accuracy.axhline(top, color="#3d3d3d", linewidth=1, label="ceiling")
    styles = zip(dict.fromkeys(name for name, _ in told), "o-,s--,^-.,v:".split(","))
    for (line, style), colour in zip(styles, ("#6a51a3", "#d95f02", "#1b9e77", "#7f7f7f")):
        for axes, who, key in ((accuracy, "student", "acc"), (pgr, "pgr", "value")):
            shown = [(r, one[who]) for (n, r), one in told.items() if n == line]
            shown = [(r, one) for r, one in shown if one[key] is not None]
            if shown:
                x, ones = zip(*shown)
                gaps = zip(*((o[key] - o["low"], o["high"] - o[key]) for o in ones))
                how = {"color": colour, "capsize": 3, "label": line, "yerr": list(gaps)}
                axes.errorbar(x, [one[key] for one in ones], fmt=style, **how)
    accuracy.set(xlabel="share of wrong labels", ylabel="test accuracy")
    pgr.set(xlabel="share of wrong labels", ylabel="PGR, 95 % intervals")
    accuracy.legend(frameon=False)
    curves.write_figure(figure, path)


if __name__ == "__main__":
    cli.run(main)
