"""Stage 2 on preference pairs: weak reward model(s) -> weak labels.

Writes the strong half of the pairs with "weak" = P(b preferred) = sigmoid(r_b - r_a) by the supervisor, soft as in the paper
(A.3). The ground truth stays in "label": the ceiling trains on the same file.

    python rm/label_rm.py                                            # runs/rm/weak -> runs/rm/labels.jsonl

In: run directories of train_rm.py; of several the mean is taken. Out: a labels file with its card. Next: train_rm.py.
"""

import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import pairs
from w2s import cli, files, stages


def main(
    *runs: str,
    out: str = "runs/rm/labels.jsonl",
    device: str = None,
    dtype: str = None,
    force: bool = False,
):
    """Label the strong half with one supervisor, or with several together. Other options: cli.COMMON.

    Args:
        runs: run directories of weak supervisors (default: runs/rm/weak); several make an ensemble
        out: the labels file to write
    """
    args = dict(locals())
    del args["force"]
    runs = args["runs"] = files.expand(runs or ("runs/rm/weak",))
    cli.check(args)
    cards, taught = stages.supervisors(runs, pairs.STAGES)
    data = cards[0]["data"]
    inputs = {"runs": [card["model_sha256"] for card in cards]} | data["sha256"]
    if files.is_done(out, args, inputs, force, labels=True):
        return
    rows = pairs.half(data, "strong")
    probs = [pairs.probabilities(f"{run}/model", rows, device, dtype, bar=run) for run in runs]
    for row, *each in zip(rows, *probs):
        row["weak"] = sum(each) / len(each)
        if len(each) > 1:
            row["weak_all"] = each
    about = {"supervisors": taught, "models": [card["args"]["model"] for card in cards]}
    files.write_jsonl(out, rows, files.new_card("rm/label_rm", args, inputs, data) | about)
    correct = sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)
    ties = sum(row["weak"] == 0.5 for row in rows)
    print(
        f"{out}: {len(rows)} pairs, {correct:.1%} of the weak labels are right, {ties} are ties (1/2, counted as a)"
    )
    stages.tell_next(*stages.both("rm/train_rm.py", out))


if __name__ == "__main__":
    cli.run(main)
