"""Stage 5: predictions of supervisor, student and ceiling -> performance gap recovered, with an interval.

    PGR = (student - weak) / (ceiling - weak)         1: as good as with ground truth; 0: no better than the supervisor

    python pgr.py                                                   # runs/weak runs/student runs/ceiling
    python pgr.py 'runs/s*/weak' 'runs/s*/student' 'runs/s*/ceiling'    # seeds, paired by what * matched

    python pgr.py --curves                                          # and the course of training: runs/pgr.curves.png

In: the predictions that eval.py left in the runs. Out: a table, --out (JSON) and --plot (PNG).
"""

import json
import re
from pathlib import Path

import numpy as np

from w2s import cli, files, protocol, stages, stats

WHO = ("weak", "student", "ceiling")


def main(
    weak: str = "runs/weak", student: str = "runs/student", ceiling: str = "runs/ceiling", *, ds: str = None,
    split: str = "test", out: str = "runs/pgr.json", plot: str = None, curves: bool = False, n_boot: int = stats.N_BOOT,
):  # fmt: skip
    """Performance gap recovered, with a paired bootstrap over groups of test rows and seeds.

    Args:
        weak: run directory of the supervisor, or a glob in quotes whose * is the seed
        student: likewise
        ceiling: likewise
        ds: the task whose predictions to read (default: the one that the runs were trained for)
        split: the test split whose predictions to read
        out: JSON file to write
        plot: PNG file to write: accuracies, agreement, misfit against gain, with intervals (default: --out with .png)
        curves: plot the students' history beside it, and tell the PGR at its best, stopped and final weights (paper, 5.1.1)
        n_boot: bootstrap resamples
    """
    cli.check(locals())
    if Path(out).suffix != ".json":
        raise files.BadInput(f"--out={out} must end in .json")
    plot = plot or str(Path(out).with_suffix(".png"))
    runs = pair_seeds([weak, student, ceiling])
    cards = [[stages.finished_run(run, None) for run in seed] for seed in runs]
    predictions = [
        [read(run, card, ds, split) for run, card in zip(*pair)] for pair in zip(runs, cards)
    ]
    first, groups = predictions[0][0]
    answer, truth = fields(cards[0][0])
    if curves and answer == "move":
        raise files.BadInput(
            "--curves is for runs that held rows out for early stopping: chess has none (paper, A.2)"
        )
    answers = [[], [], []]
    for seed, names in zip(predictions, runs):
        for k, (rows, _) in enumerate(seed):
            pairs = files.join(first, rows, runs[0][0], names[k])
            for one, other in pairs:
                if one[truth] != other[truth]:
                    raise files.BadInput(
                        f"{runs[0][0]} and {names[k]} disagree on the {truth} of {one['id']!r}: score both again"
                    )
            answers[k].append([row[answer] for _, row in pairs])
    true = [row[truth] for row in first]
    result = stats.compare(*answers, true, groups, n_boot)
    result["diagnostics"] = (
        stats.diagnose(*answers, true, groups, n_boot) if answer == "prob" else {}
    )
    result["runs"] = {who: [seed[k] for seed in runs] for k, who in enumerate(WHO)}
    show(result)
    result["notes"] = [note for seed, names in zip(cards, runs) for note in doubts(seed, names)]
    for note in result["notes"]:
        print(f"note: {note}")
    if curves:
        result["stopping"] = stopping(runs, cards, Path(plot).with_suffix(".curves.png"))
    files.write_text(out, json.dumps(result, indent=2) + "\n")
    print(out)
    draw(result, plot)


def pair_seeds(patterns):
    """The runs that several globs stand for, paired by what their * matched: one list of len(patterns) paths per seed.

    BadInput where one of them lacks a seed that another has.
    """
    matched = []
    for pattern in patterns:
        if set("?[") & set(pattern):
            raise files.BadInput(f"{pattern!r}: only * is understood, it stands for the seed")
        seed_of = re.compile(re.escape(pattern).replace(r"\*", "([^/]*)"))
        matched.append({seed_of.fullmatch(path).groups(): path for path in files.expand([pattern])})
    if len({"*" in pattern for pattern in patterns}) > 1:
        raise files.BadInput(f"{' '.join(patterns)}: give all three with a *, or none")
    for pattern, seeds in zip(patterns, matched):
        missing = sorted(set().union(*matched) - seeds.keys())
        if missing:
            raise files.BadInput(
                f"{pattern!r} has no run for * = {', '.join(missing[0])}, which another of them has"
            )
    return [[seeds[seed] for seeds in matched] for seed in sorted(matched[0])]


def read(run, card, ds, split):
    """(predictions, their groups) of one run; BadInput where it was not scored, or by a model it no longer has."""
    if ds is None and card["data"] is None:
        raise files.BadInput(
            f"{run} was trained on labels without a card, so its task is not known: add --ds"
        )
    scorer = stages.script(stages.setting(card), "eval")
    where = "".join(
        f" --{name}={word}"
        for name, word in (("ds", ds), ("split", split))
        if word not in (None, "test")
    )
    file = Path(run) / "eval" / f"{protocol.name_of(ds or card['data']['ds'])}-{split}.jsonl"
    if not file.exists():
        raise files.BadInput(f"{run} has no predictions {file}: run python {scorer} {run}{where}")
    rows = files.read_jsonl(file, ["id", *fields(card)])
    about = files.read_card(file) or {}
    if about and about["inputs"]["model"] != card["model_sha256"]:
        raise files.BadInput(
            f"{file} is of an earlier model of {run}: run python {scorer} {run}{where}"
        )
    return rows, about.get("test_groups") or [row["id"] for row in rows]


def fields(card):
    """Where a run's predictions have its answer, and the truth: chess has moves, all others P(label = 1)."""
    return ("move", "target") if stages.setting(card) == "chess" else ("prob", "label")


def shared_rows(weak, student):
    """True if, by their cards, a supervisor and its student were trained on some of the same rows."""
    if weak["data"] is None or student["data"] is None or None in map(stages.role, (weak, student)):
        return False
    if any(weak["data"][key] != student["data"][key] for key in ("ds", "sha256")):
        return False
    same_half = (stages.role(weak) == "weak") == (stages.role(student) == "weak")
    return same_half or weak["data"]["data_seed"] != student["data"]["data_seed"]


def doubts(cards, names):
    """What the cards of supervisor, student and ceiling say against calling them that, as a list of sentences."""
    weak, student, ceiling = cards
    told = []
    if shared_rows(weak, student):
        told.append(f"{names[0]} and {names[1]} were trained on some of the same rows")
    if student.get("supervisor") and weak["model_sha256"] not in student["supervisor"]:
        told.append(f"{names[1]} did not learn from the labels of {names[0]} as it is now")
    if stages.role(student) != "student":
        told.append(f"{names[1]} was not trained on weak labels, so it is no student")
    if stages.role(ceiling) != "ceiling":
        told.append(f"{names[2]} was not trained with --target=truth, so it is no ceiling")
    return told


def show(result):
    """The table on the terminal."""
    print(
        f"{result['n']} test rows in {result['groups']} groups, {result['seeds']} seed(s); 95 % intervals\n"
    )
    for who in WHO:
        print(
            f"{who:<30} {result[who]['acc']:6.3f}   {result[who]['low']:6.3f} to {result[who]['high']:.3f}"
        )
    pgr = result["pgr"]
    if pgr["value"] is None:
        print(f"{'PGR':<31} undefined: {pgr['reason']}")
    else:
        print(f"{'PGR':<30} {pgr['value']:6.3f}   {pgr['low']:6.3f} to {pgr['high']:.3f}")
    print("\nstudent agrees with supervisor")
    for name, one in relations(result).items():
        value = (
            "none"
            if one["value"] is None
            else f"{one['value']:6.3f}   {one['low']:6.3f} to {one['high']:.3f}"
        )
        print(f"  {name:<28} {value}")
    if (
        result["diagnostics"] and result["weak"]["low"] <= 0.5 <= result["weak"]["high"]
    ):  # a move has no such chance
        print(
            "\nthe supervisor is at chance: its model or --n_train is too small, or there are too few test rows"
        )
    print()


def relations(result):
    """{what to call it: estimate} of all that is told beside the PGR."""
    agreement = result["agreement"]
    where = {
        "on all rows": "all",
        "where it is right": "weak_right",
        "where it is wrong": "weak_wrong",
    }
    return {name: agreement[key] for name, key in where.items()} | result["diagnostics"]


def draw(result, path):
    """Bars of weak, student and ceiling as in the paper; agreement and the like; misfit against gain, except of moves."""
    from matplotlib.figure import Figure

    n_panels = 3 if result["diagnostics"] else 2
    figure = Figure(figsize=(4 * n_panels, 3.6), layout="constrained")
    axes, middle, *right = figure.subplots(1, n_panels)
    for x, (who, colour) in enumerate(zip(WHO, ("#c9c9c9", "#6a51a3", "#3d3d3d"))):
        one = result[who]
        axes.bar(x, one["acc"], yerr=bar(one, one["acc"]), color=colour, capsize=5, width=0.7)
        axes.annotate(
            f"{one['acc']:.3f}", (x, one["high"]), (0, 3), textcoords="offset points", ha="center"
        )
    pgr = result["pgr"]
    told = (
        "undefined"
        if pgr["value"] is None
        else f"{pgr['value']:.2f} [{pgr['low']:.2f}, {pgr['high']:.2f}]"
    )
    axes.set_title(f"PGR {told}", fontsize=11)
    axes.set_xticks(range(3), ["weak\nsupervisor", "student", "strong\nceiling"])
    axes.set_ylabel("test accuracy")
    highest = max(result[who]["high"] for who in WHO)
    axes.set_ylim(
        0.5 if min(result[who]["low"] for who in WHO) >= 0.5 else 0,
        1 if highest > 0.5 else 1.2 * highest or 1,
    )
    shown = {name: one for name, one in relations(result).items() if one["value"] is not None}
    for y, one in enumerate(shown.values()):
        middle.errorbar(
            one["value"], -y, xerr=bar(one, one["value"]), fmt="o", color="#6a51a3", capsize=3
        )
    middle.set_yticks([-y for y in range(len(shown))], list(shown))
    middle.set_title("student and supervisor", fontsize=11)
    for panel in right:
        x, y = shown["misfit"], shown["gain"]
        panel.errorbar(
            x["value"], y["value"], bar(y, y["value"]), bar(x, x["value"]), fmt="o", color="#6a51a3"
        )
        panel.axline((0, 0), slope=1, color="#c9c9c9")
        panel.set(xlabel="misfit", ylabel="gain")
        panel.set_title("gain = misfit on the line", fontsize=11)
    for panel in (axes, middle, *right):
        panel.spines[["top", "right"]].set_visible(False)
    stages.write_figure(figure, path)


def bar(one, value):
    """The interval of an estimate as matplotlib wants it: distances below and above, [[low], [high]]."""
    return [[max(0, value - one["low"])], [max(0, one["high"] - value)]]


def held_out(run, card):
    """The rows that a student or ceiling held out; BadInput where there are none, or nobody knows them any more."""
    labels = card["args"].get("labels")
    if (
        not labels
        or "true_acc" not in card.get("kept", {})
        or files.sha256(labels) != card["inputs"]["labels"]
    ):
        raise files.BadInput(
            f"--curves: {run} is no student or ceiling that held out rows, or its labels have changed"
        )
    rows = files.read_jsonl(labels, ["id", "label", "weak"])
    return protocol.hold_out(
        [{"group": row["id"]} | row for row in rows], card["args"]["n_val"], 1
    )[1]


def stopping(runs, cards, path):
    """The students' PGR on the rows held out, at the best, the stopped-on-weak-agreement and the final weights (5.1.1).

    Draws their history into path. Returns {"best" / "stopped" / "final": {value, low, high}}; the interval is over seeds
    alone, the held-out rows being the same few for all, and None for one seed; the value too where there is no gap. None of
    them looks at a test row; "best" looks at the truth of the held-out rows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes, accuracies = figure.add_subplot(), []
    for (_, student, ceiling), (_, card, of_ceiling) in zip(runs, cards):
        rows = held_out(student, card)
        if [row["id"] for row in rows] != [row["id"] for row in held_out(ceiling, of_ceiling)]:
            raise files.BadInput(f"--curves: {student} and {ceiling} held out other rows")
        history = files.read_jsonl(f"{student}/history.jsonl", ["epoch", "weak_acc", "true_acc"])
        weak = sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)
        stops = {
            "best": max(history, key=lambda line: line["true_acc"]),
            "stopped": card["kept"],
            "final": history[-1],
        }
        accuracies.append(
            [weak, *(stop["true_acc"] for stop in stops.values()), of_ceiling["kept"]["true_acc"]]
        )
        for field, style in (("true_acc", "-"), ("weak_acc", ":")):
            axes.plot(
                [line["epoch"] for line in history],
                [line[field] for line in history],
                style,
                color="#6a51a3",
            )
        for (name, stop), marker in zip(stops.items(), "*os"):
            label = name if len(accuracies) == 1 else None
            axes.plot(
                stop["epoch"],
                stop["true_acc"],
                marker,
                color="#3d3d3d",
                label=label,
                markersize=8,
                fillstyle="none",
            )
    axes.set(
        xlabel="epoch",
        ylabel="accuracy on held-out rows",
        title="- against ground truth, .. against weak labels",
    )
    axes.legend()
    stages.write_figure(figure, path)
    sums = np.array(accuracies).T[..., None]  # [5, S, 1]
    values, replicates = stats.bootstrap(sums, np.ones_like(sums), ["held out"])
    extent = "one seed, no interval" if len(runs) == 1 else "intervals over seeds alone, too narrow"
    print(f"PGR on {len(rows)} held-out rows, {extent}")
    told, gap = {}, stats.estimate(values[4] - values[0], replicates[:, 4] - replicates[:, 0])
    for k, name in enumerate(stops, 1):
        told[name] = stats.estimate(
            stats.pgr(*values[[0, k, 4]]), stats.pgr(*replicates[:, [0, k, 4]].T)
        )
        told[name] |= {"low": None, "high": None} if len(runs) == 1 else {}
        told[name] |= (
            {"value": None, "low": None, "high": None} if gap["low"] <= 0 else {}
        )  # as in compare()
        print(
            f"  {name:<28} "
            + "   ".join("none" if x is None else f"{x:6.3f}" for x in told[name].values())
        )
    return told


if __name__ == "__main__":
    cli.run(main)
