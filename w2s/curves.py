"""pgr.py --curves: accuracy on held-out rows in the course of training (paper, Fig. 7)."""

import numpy as np

from w2s import effects, files, stats
from w2s.figures import COLOURS, new_figure, write_figure
from w2s.files import BadInput


def held_out(run, card):
    """The rows that a student or ceiling held out; BadInput where nobody knows them any more."""
    labels = card["args"].get("labels")
    if not labels or "true_acc" not in card.get("kept", {}) or card["args"].get("easy") is not None:
        told = "is no student or ceiling that held out rows of the whole file (--n_val, no --easy)"
        raise BadInput(f"--curves: {run} {told}")
    if files.sha256(labels) != card["inputs"]["labels"]:
        raise BadInput(f"--curves: {labels} has changed since {run} learned from it")
    rows = files.read_jsonl(labels, ["id", "label", "weak"])
    return files.hold_out([{"group": row["id"]} | row for row in rows], card["args"]["n_val"])[1]


def stopping(runs, cards, path):
    """The PGR on held-out rows at three weights of the student (5.1.1); draws Fig. 7 into path.

    runs, cards: [S][3]. best: by the truth of these rows; stopped: by the labels given; final: the
    last weights. Returns {name: {value, low, high, reason}}. Histories do not say which rows were
    right, so the three accuracies count as independent, which makes the intervals rather wide.
    """
    (figure, (axes,)), accuracies = new_figure(1, height=3.6), []
    print(f"\n{'held-out rows (truth)':<28} {'best':>6} {'epoch':>6} stopped  epoch  final")
    for (_, *names), (_, *both) in zip(runs, cards):
        rows, others = (held_out(*pair) for pair in zip(names, both))
        if [row["id"] for row in rows] != [row["id"] for row in others]:
            raise BadInput(f"--curves: {names[0]} and {names[1]} held out other rows")
        weak = sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)
        axes.axhline(weak, color=COLOURS[0], zorder=0)
        stops = [course(axes, *pair) for pair in zip(names, COLOURS[1:])]
        accuracies.append([weak, *stops[0], both[1]["kept"]["true_acc"]])
    axes.set_title("- true, .. given labels; * best, o stopped; grey: supervisor", fontsize=9)
    axes.set(xlabel="epoch", ylabel=f"accuracy on {len(rows)} held-out rows")
    write_figure(figure, path)
    sums = np.array(accuracies).T[..., None]  # [5, S, 1]
    found = effects.crossed(sums, np.zeros(1, int), 1)
    of_rows = np.diag(found.means * (1 - found.means)) / len(rows)
    found = found._replace(groups=of_rows, n_groups=len(rows))
    print(f"PGR on these {len(rows)} rows, far less certain than on the test rows")
    told = {}
    for k, name in enumerate(("best", "stopped", "final"), 1):
        told[name] = stats.recovered(effects.weighted(found, np.eye(5)[[0, k, 4]]))
        print(f"  {name:<28} {stats.in_words(told[name])}")
    if reason := told["best"]["reason"]:  # the gap is the same for all three
        print(f"  {reason}")
    return told


def course(axes, run, colour):
    """Draw and print a run's history; returns its true accuracy at its best, stopped and last."""
    history = files.read_jsonl(f"{run}/history.jsonl", ["epoch", "agreement", "true_acc"])
    best = max(history, key=lambda line: line["true_acc"])
    stopped = max(history, key=lambda line: (line["agreement"], line["step"]))
    epochs = [line["epoch"] for line in history]
    for field, style in (("true_acc", "-"), ("agreement", ":")):
        axes.plot(epochs, [line[field] for line in history], style, color=colour)
    for line, marker in ((best, "*"), (stopped, "o")):
        axes.plot(line["epoch"], line["true_acc"], marker, color=colour, fillstyle="none")
    told = [f"{line['true_acc']:6.3f} {line['epoch']:6.2f}" for line in (best, stopped)]
    print(f"{run:<28} {'  '.join(told)} {history[-1]['true_acc']:6.3f}")
    return [line["true_acc"] for line in (best, stopped, history[-1])]
