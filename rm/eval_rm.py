"""Stage 4 on preference pairs: reward models -> predictions on the test pairs, metrics, and the curves of Fig. 7.

    python rm/eval_rm.py                                             # runs/rm/weak runs/rm/student runs/rm/ceiling
    python rm/eval_rm.py 'runs/rm/s*/student' --plot=runs/rm/seeds.png

In: finished run directories of train_rm.py. Out, in each: eval/<task>-test.jsonl (prob = P(b preferred)), its card, and
.metrics.json. A table: pairwise accuracy, agreement with the first run, calibration error, ties. Next: pgr.py.
"""

import json
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import pairs
from w2s import cli, files, stages, stats


def main(
    *runs: str, ds: str = None, test: str = None, n_test: int = None, plot: str = None, device: str = None,
    dtype: str = None, force: bool = False,
):  # fmt: skip
    """Score reward models on the test pairs of their task, or of another. Other options: cli.COMMON.

    Args:
        runs: run directories (default: runs/rm/weak runs/rm/student runs/rm/ceiling); unfinished ones are refused
        ds: score on this task or JSONL file of pairs instead of the one that the run was trained for
        plot: PNG file to write: accuracy on the held-out pairs by epoch (default: curves.png in the folder of the first run)
    """
    cli.check(locals())
    runs = files.expand(runs or ("runs/rm/weak", "runs/rm/student", "runs/rm/ceiling"))
    todo = [(run, stages.finished_run(run, pairs.STAGES)) for run in runs]
    how = {"device": device, "dtype": dtype}
    show(stages.evaluate(pairs.KIND, todo, answer, how, ds, test=test, n_test=n_test, force=force))
    histories = [[json.loads(line) for line in open(Path(run) / "history.jsonl")] for run in runs]
    draw(runs, histories, plot or f"{Path(runs[0]).parent}/curves.png")
    stages.tell_pgr(todo)


def answer(run, card, rows, device, dtype):
    """(predictions, metrics) of one run on test pairs."""
    probs = pairs.probabilities(f"{run}/model", rows, device, dtype, bar=run)
    predictions = [
        {"id": row["id"], "label": row["label"], "prob": prob} for row, prob in zip(rows, probs)
    ]
    metrics = stats.metrics(probs, [row["label"] for row in rows], [row["group"] for row in rows])
    return predictions, metrics | {"ties": sum(prob == 0.5 for prob in probs)}


def show(results):
    """The table on the terminal; results: see stages.evaluate; agreement is with the first run, a tie says a."""
    print(
        f"\n{'run':<28} {'accuracy':>8}   95 % interval   agrees with first        calibration error      ties of pairs"
    )
    first = [row["prob"] > 0.5 for row in results[0][1]]
    for run, predictions, one, groups in results:
        agreed = "other pairs"
        if [row["id"] for row in predictions] == [row["id"] for row in results[0][1]]:
            agree = stats.accuracy([row["prob"] for row in predictions], first, groups)
            agreed = f"{agree['acc']:.3f}  {agree['low']:.3f} to {agree['high']:.3f}"
        ece = f"{one['ece']['value']:.3f}  {one['ece']['low']:.3f} to {one['ece']['high']:.3f}"
        interval = f"{one['low']:.3f} to {one['high']:.3f}"
        print(
            f"{run:<28} {one['acc']:8.3f}   {interval}  {agreed:>22}   {ece:>20}   {one['ties']:4} of {one['n']}"
        )
        if one["low"] <= 0.5 <= one["high"]:
            print(
                f"  {run} is at chance: the interval holds 0.5, so the model or --n_train is too small, or --n_test is"
            )


def draw(runs, histories, path):
    """Fig. 7: accuracy on held-out pairs by fraction of the epoch; told: at its best, stopped on given labels, at the end."""
    from matplotlib.figure import Figure

    curves = [
        (run, history)
        for run, history in zip(runs, histories)
        if history and "true_acc" in history[0]
    ]
    if not curves:
        return
    print(
        f"\n{'held-out pairs (truth)':<28} {'best':>8} {'epoch':>6} {'stopped':>8} {'epoch':>6} {'final':>8}"
    )
    axes = (figure := Figure(figsize=(5.2, 3.6), layout="constrained")).add_subplot()
    for run, history in curves:
        best = max(history, key=lambda line: line["true_acc"])
        stopped = max(history, key=lambda line: (line["weak_acc"], line["step"]))
        told = f"{best['true_acc']:8.3f} {best['epoch']:6.2f} {stopped['true_acc']:8.3f} {stopped['epoch']:6.2f}"
        print(f"{run:<28} {told} {history[-1]['true_acc']:8.3f}")
        axes.plot(
            *zip(*((line["epoch"], line["true_acc"]) for line in history)), marker=".", label=run
        )
        axes.plot(stopped["epoch"], stopped["true_acc"], "k*")
    axes.set_xlabel("epoch (star: best agreement with the labels trained on)")
    axes.set_ylabel("accuracy on held-out pairs")
    axes.legend(fontsize=7)
    stages.write_figure(figure, path)


if __name__ == "__main__":
    cli.run(main)
