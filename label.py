"""Stage 2: weak supervisor(s) -> weak labels.

Writes the strong half of the supervisor's task with "weak" = the supervisor's P(label = 1), soft as in the paper (A.1).
The ground truth stays in "label": the ceiling trains on the same file, and nobody else looks at it.

    python label.py                                                 # runs/weak -> runs/labels.jsonl
    python label.py 'runs/s*/weak' --vote=hard --out=runs/ensemble.jsonl

In: run directories of train_weak.py (several make an ensemble). Out: a labels file with its card. Next: train_strong.py.
"""

from pathlib import Path

import cli
import rows as files
import tasks


def main(
    *runs: str, out: str = "runs/labels.jsonl", vote: str = "soft", device: str = None, dtype: str = None, force: bool = False
):
    """Label the strong half with one supervisor, or with several together.

    Args:
        runs: run directories of weak supervisors (default: runs/weak); several make an ensemble
        out: the labels file to write
        vote: soft takes the mean of the supervisors' probabilities, hard the share of them that say 1
        device: cpu, cuda, cuda:1, ... (default: the GPU where there is one)
        dtype: bf16 (autocast) or float32 (default: bf16 where the hardware has it and the model has 10M parameters)
        force: replace a finished labels file
    """
    runs = files.expand(runs or ("runs/weak",))
    args = {"runs": runs, "vote": vote, "device": device, "dtype": dtype}
    cli.check(args)
    if Path(out).suffix != ".jsonl":
        raise files.BadInput(f"--out={out}: a labels file ends in .jsonl")
    cards = [files.finished_run(run) for run in runs]
    for run, card in zip(runs, cards):
        if not (Path(run) / "model").is_dir():
            raise files.BadInput(f"{run} has no model to label with (it was scored without training)")
        if card["data"] is None or card["data"] != cards[0]["data"]:
            raise files.BadInput(f"{run} was not trained on the same task, sizes and data seed as {runs[0]}: {card['data']}")
    data = cards[0]["data"]
    inputs = {"runs": [card["model_sha256"] for card in cards]} | data["sha256"]
    if files.is_done(out, args, inputs, force):
        return
    rows = tasks.half(data, "strong")

    import model as models  # torch and transformers take seconds to import, so not before they are needed

    probs = [models.probabilities(f"{run}/model", rows, device=device, dtype=dtype, bar=run) for run in runs]
    for row, *each in zip(rows, *probs):
        row["weak"] = sum(prob if vote == "soft" else float(prob > 0.5) for prob in each) / len(each)
        if len(each) > 1:
            row["weak_all"] = each
    files.write_jsonl(out, rows, files.new_card("label", args, inputs, data))
    correct = sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)
    print(f"{out}: {len(rows)} rows, {correct:.1%} of the weak labels are right")
    print(f"next: python train_strong.py {out}   and, for the ceiling, with --target=truth")


if __name__ == "__main__":
    cli.run(main)
