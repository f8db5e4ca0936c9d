"""Stage 4: run(s) -> predictions on test rows, and metrics.

    python eval.py                                                  # runs/weak runs/student runs/ceiling
    python eval.py 'runs/*/student' --ds=ethics_justice --split=test_hard          # score runs on another task
    python eval.py --model=openai-community/gpt2 --ds=sst2 --out=runs/zero_shot    # no training: the "0"/"1" head alone
    python eval.py --model=facts/m --shots=5 --labels=runs/labels.jsonl --out=runs/prompted     # prompted with weak labels

In: finished run directories. Out, in each: eval/<task>-<split>.jsonl (predictions), its card, and .metrics.json.
Everybody is scored on the same rows: the test set of the task that the run was trained for. Next: pgr.py.
"""

import json
from pathlib import Path

import cli
import hub
import rows as files
import stats
import tasks


def main(
    *runs: str, ds: str = None, split: str = "test", test: str = None, n_test: int = None, model: str = None, out: str = None,
    head: str = None, max_len: int = None, shots: int = None, labels: str = None, target: str = "weak", seed: int = 0,
    device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Score runs on the test rows of their task, or of another.

    Args:
        runs: run directories (default: runs/weak runs/student runs/ceiling); unfinished ones are refused
        ds: score on this task or JSONL file instead of the one that the run was trained for
        split: test, or another test split of the task (ETHICS has test_hard)
        test: a JSONL file of test rows, when --ds is your own file
        n_test: rows of the test set (default: as in the runs' training, else all)
        model: with --out and no runs: a model to score without training, through its "0"/"1" head
        out: the run directory to make for --model
        head: unembedding or zero, how the head of --model starts
        max_len: tokens of a text for --model; longer texts lose their beginning
        shots: prompt --model with this many examples before each row (0: none), and take its next token as the answer
        labels: the labels file that the examples come from
        target: whose labels the examples show: weak or truth
        seed: moves the examples
        device: cpu, cuda, cuda:1, ... (default: the GPU where there is one)
        dtype: bf16 (autocast) or float32 (default: bf16 where the hardware has it and the model has 10M parameters)
        force: score again
    """
    cli.check(locals())
    if (model is None) != (out is None) or (model and runs):
        raise files.BadInput("--model and --out go together, without runs: they score a model that was not trained")
    if (labels is None) != (not shots) or (shots is not None and (head or not model)):
        raise files.BadInput("--shots=5 --labels=FILE go together, with --model and --out and without --head; --shots=0 alone")
    if model:
        prompt = {"shots": shots, "labels": labels, "target": target, "seed": seed} if shots is not None else {}
        new = zero_shot(model, out, tasks.describe(ds or "facts", n_test=n_test, test=test), head, max_len, prompt)
    runs = [out] if model else files.expand(runs or ("runs/weak", "runs/student", "runs/ceiling"))
    todo = [(run, new if model else files.finished_run(run)) for run in runs]
    todo = [(run, card, scored_on(run, card, ds, test, n_test)) for run, card in todo]

    test_sets, scores = {}, []
    for run, card, data in todo:
        key = json.dumps(data, sort_keys=True)
        if key not in test_sets:
            test_sets[key] = tasks.test_rows(data, split)
        scores.append((run, score(run, card, data, split, test_sets[key], device, dtype, force)))
    print(f"\n{'run':<32} {'accuracy':>8}   95 % interval    rows")
    for run, metrics in scores:
        print(f"{run:<32} {metrics['acc']:8.3f}   {metrics['low']:.3f} to {metrics['high']:.3f}  {metrics['n']:6}")
        if metrics["low"] <= 0.5 <= metrics["high"]:
            print(f"  {run} is at chance: the interval holds 0.5, so the model or --n_train is too small, or --n_test is")


def zero_shot(model, out, data, head, max_len, prompt):
    """The card of `out`, a run that is never trained; score() writes it. prompt: --shots and what goes with it, or {}."""
    args = {"model": model, "head": head, "max_len": max_len, "data": data} | prompt
    inputs = hub.model_input(model) | ({"labels": files.sha256(prompt["labels"])} if prompt.get("labels") else {})
    if files.is_done(out, args, inputs, force=False):
        return files.finished_run(out)
    return files.new_card("eval", args, inputs, data) | {"model_sha256": inputs.get("model", model)}


def scored_on(run, card, ds, test, n_test):
    """The data description of the test rows for a run: its own, unless --ds, --test or --n_test say otherwise."""
    if ds is None and card["data"] is None:
        raise files.BadInput(f"{run} was trained on labels without a card, so its task is not known: add --ds")
    if ds is None and test is not None:
        raise files.BadInput("--test goes with --ds")
    own = card["data"]
    if ds is not None and ds not in tasks.TASKS and test is None and not (own and own["ds"] == str(Path(ds).resolve())):
        test = ds  # a file that the run was not trained for is a test set, all of it
    data = own if ds is None else tasks.describe(ds, n_test=own and own["n_test"], test=test)
    return data | {"n_test": n_test or data["n_test"]}


def tell_leak(run, card, rows):
    """Warn if a run that learned from labels of somebody else's making is scored on texts it was trained on."""
    labels = Path(card["args"].get("labels") or "")
    if card["data"] is None and labels.is_file():
        seen = {row["text"] for row in files.read_jsonl(labels, ["text"])}
        leaked = sum(row["text"] in seen for row in rows)
        if leaked:
            print(f"warning: {run} was trained on {leaked} of these {len(rows)} test texts: its score means little")


def score(run, card, data, split, rows, device, dtype, force):
    """Write the predictions and metrics of one run, unless this very model was scored on these rows; returns the metrics."""
    file = Path(run) / "eval" / f"{tasks.name_of(data['ds'])}-{split}.jsonl"
    metrics_file = file.with_suffix(".metrics.json")
    args = {"data": {k: data[k] for k in ("ds", "test", "sha256", "n_test")}, "split": split, "device": device, "dtype": dtype}
    inputs = {"model": card["model_sha256"]}
    before = files.read_card(file)
    if before and not force and metrics_file.exists() and (before["args"], before["inputs"]) == (args, inputs):
        files.read_jsonl(file, ["id", "label", "prob"])
        print(f"{file} is already done; --force scores again")
        return json.loads(metrics_file.read_text())
    if before and not force and before["inputs"] == inputs and before["args"]["data"] != args["data"]:
        raise files.BadInput(
            f"{file} holds this model's answers to other rows (--ds, --test, --n_test): add --force to replace"
        )

    import model as models  # torch and transformers take seconds to import, so not before they are needed

    trained = (Path(run) / "model").is_dir()
    name = f"{run}/model" if trained else card["args"]["model"]
    head, max_len = (None, None) if trained else (card["args"]["head"], card["args"]["max_len"])
    tell_leak(run, card, rows)
    if "shots" in card["args"]:
        import prompt

        asked = {key: card["args"][key] for key in ("shots", "labels", "target", "seed")}
        probs = prompt.probabilities(name, rows, **asked, max_len=max_len, device=device, dtype=dtype, bar=run)
    else:
        probs = models.probabilities(name, rows, head, max_len, device, dtype, bar=run)
    predictions = [{"id": row["id"], "label": row["label"], "prob": prob} for row, prob in zip(rows, probs)]
    groups = [row["group"] for row in rows]
    metrics = stats.metrics(probs, [row["label"] for row in rows], groups)
    if not trained:
        files.write_card(run, card)
    # The card carries the groups, which predictions do not: pgr.py resamples by them.
    files.write_jsonl(file, predictions, files.new_card("eval", args, inputs, data) | {"test_groups": groups})
    files.write_text(metrics_file, json.dumps(metrics, indent=2) + "\n")
    print(f"{file}")
    return metrics


if __name__ == "__main__":
    cli.run(main)
