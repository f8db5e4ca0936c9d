"""Stage 4: run(s) -> predictions on test rows, and metrics.

    python eval.py                                                  # runs/weak runs/student runs/ceiling
    python eval.py 'runs/*/student' --ds=ethics_justice --split=test_hard          # score runs on another task
    python eval.py --model=openai-community/gpt2 --ds=sst2 --out=runs/zero_shot    # no training: the "0"/"1" head alone
    python eval.py --model=facts/m --shots=5 --labels=runs/labels.jsonl --out=runs/prompted     # prompted with weak labels

In: finished run directories. Out, in each: eval/<task>-<split>.jsonl (predictions), its card, and .metrics.json.
Everybody is scored on the same rows: the test set of the task that the run was trained for. Next: pgr.py.
"""

from pathlib import Path

import tasks
from w2s import cli, files, stages, stats


def main(
    *runs: str, ds: str = None, split: str = "test", test: str = None, n_test: int = None, model: str = None, out: str = None,
    head: str = None, max_len: int = None, shots: int = None, labels: str = None, target: str = "weak", seed: int = 0,
    device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Score runs on the test rows of their task, or of another. Other options: cli.COMMON.

    Args:
        runs: run directories (default: runs/weak runs/student runs/ceiling); unfinished ones are refused
        ds: score on this task or JSONL file instead of the one that the run was trained for
        split: test, or another test split of the task (ETHICS has test_hard)
        model: with --out and no runs: a model to score without training, through its "0"/"1" head
        out: the run directory to make for --model
        head: unembedding or zero, how the head of --model starts
        max_len: tokens of a text for --model; longer texts lose their beginning
        shots: prompt --model with this many examples before each row (0: none), and take its next token as the answer
        labels: the labels file that the examples come from
        target: whose labels the examples show: weak or truth
        seed: moves the examples
    """
    cli.check(locals())
    if (model is None) != (out is None) or (model and runs):
        raise files.BadInput(
            "--model and --out go together, without runs: they score a model that was not trained"
        )
    if (labels is None) != (not shots) or (shots is not None and (head or not model)):
        raise files.BadInput(
            "--shots=5 --labels=FILE go together, with --model and --out and without --head; --shots=0 alone"
        )
    if not model and (head or max_len):
        raise files.BadInput("--head and --max_len go with --model: a trained run has its own")
    if model:
        args = {"head": head, "max_len": max_len}
        if shots is not None:
            args |= {"shots": shots, "labels": labels, "target": target, "seed": seed}
        new = stages.untrained(
            tasks.KIND,
            model,
            out,
            args,
            tasks.describe(ds or "facts", n_test=n_test, test=test),
            force,
        )
        todo = [(out, new)]
    else:
        runs = files.expand(runs or ("runs/weak", "runs/student", "runs/ceiling"))
        todo = [(run, stages.finished_run(run, (*stages.TRAINERS, "eval"))) for run in runs]
    how = {"device": device, "dtype": dtype}
    scores = stages.evaluate(tasks.KIND, todo, answer, how, ds, split, test, n_test, force)
    print(f"\n{'run':<32} {'accuracy':>8}   95 % interval    rows")
    for run, _, metrics, _ in scores:
        print(
            f"{run:<32} {metrics['acc']:8.3f}   {metrics['low']:.3f} to {metrics['high']:.3f}  {metrics['n']:6}"
        )
        if metrics["low"] <= 0.5 <= metrics["high"]:
            print(
                f"  {run} is at chance: the interval holds 0.5, so the model or --n_train is too small, or --n_test is"
            )
    stages.tell_pgr(todo)


def answer(run, card, rows, device, dtype):
    """(predictions, metrics) of one run on test rows; a run that was not trained gets its card."""
    from w2s import (
        models,
    )  # torch and transformers take seconds to import, so not before they are needed

    trained, args = (Path(run) / "model").is_dir(), card["args"]
    how = {"device": device, "dtype": dtype, "bar": run}
    if trained:
        probs = models.probabilities(f"{run}/model", rows, **how)
    elif "shots" in args:
        import prompting as prompt

        if args["labels"] and files.sha256(args["labels"]) != card["inputs"]["labels"]:
            raise files.BadInput(
                f"{args['labels']} has changed since {run} was made: choose another --out"
            )
        asked = {key: args[key] for key in ("shots", "labels", "target", "seed", "max_len")}
        probs = prompt.probabilities(args["model"], rows, **asked, **how)
    else:
        probs = models.probabilities(args["model"], rows, args["head"], args["max_len"], **how)
    if not trained:
        files.write_card(run, card)
    predictions = [
        {"id": row["id"], "label": row["label"], "prob": prob} for row, prob in zip(rows, probs)
    ]
    return predictions, stats.metrics(
        probs, [row["label"] for row in rows], [row["group"] for row in rows]
    )


if __name__ == "__main__":
    cli.run(main)
