"""Stage 2: weak supervisor(s) -> weak labels.

Writes the strong half of the supervisor's task with "weak" = the supervisor's P(label = 1), soft as in the paper (A.1).
The ground truth stays in "label": the ceiling trains on the same file, and nobody else looks at it.

    python label.py                                                 # runs/weak -> runs/labels.jsonl
    python label.py 'runs/bag*/weak' --vote=hard --out=runs/ensemble.jsonl
    python label.py 'runs/bag*/weak' --weights --select=agreement --keep=0.8 --out=runs/sure.jsonl
    python label.py runs/student --out=runs/second.jsonl            # a student labels for the next: bootstrapping, relabelling

In: run directories of train_weak.py (several make an ensemble) or train_strong.py. Out: a labels file with its card.
Next: train_strong.py.
"""

import numpy as np

import tasks
from w2s import cli, files, protocol, stages

BATCH = 32  # what a filter has to leave: train_strong.py's default


def main(
    *runs: str, out: str = "runs/labels.jsonl", vote: str = "soft", weights: bool = False, select: str = "all",
    keep: float = 1.0, test_rows: bool = False, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Label the strong half with one supervisor, or with several together. Other options: cli.COMMON.

    Args:
        runs: run directories of weak supervisors (default: runs/weak); several make an ensemble
        out: the labels file to write
        vote: soft takes the mean of the supervisors' probabilities, hard the share of them that say 1 (a tie, 0.5, counts as 0)
        weights: weigh the supervisors by what they say of the rows of the weak half that they were not trained on
        select: agreement drops the rows on which the supervisors do not all say the same; all drops none
        keep: the share of the rows to keep, those with the most confident labels
        test_rows: label the test rows instead, for controls.py --kind=suffix; nobody may train on them
    """
    runs = files.expand(runs or ("runs/weak",))
    args = {name: value for name, value in locals().items() if name not in ("out", "force")}
    cli.check(args)
    cards, taught = check(runs, weights, select)
    data = cards[0]["data"]
    inputs = {"runs": [card["model_sha256"] for card in cards]} | data["sha256"]
    if files.is_done(out, args, inputs, force, labels=True):
        return
    rows = tasks.test_rows(data) if test_rows else tasks.half(data, "strong")
    known = held_out(cards[0], data) if weights else []

    from w2s import (
        models,
    )  # torch and transformers take seconds to import, so not before they are needed

    probs = [
        models.probabilities(f"{run}/model", [*rows, *known], device=device, dtype=dtype, bar=run)
        for run in runs
    ]
    probs, known_probs = np.split(np.array(probs), [len(rows)], axis=1)  # [K, N], [K, held out]
    learned = learn(known_probs, np.array([row["label"] for row in known])) if weights else None
    for row, weak, each in zip(rows, combine(probs, vote, learned).tolist(), probs.T.tolist()):
        row["weak"] = weak
        if len(each) > 1:
            row["weak_all"] = each
    tell(runs, rows, vote, learned)
    kept = chosen(rows, select, keep)
    files.write_jsonl(
        out,
        kept,
        files.new_card("label", args, inputs, data)
        | {"supervisors": taught, "test_rows": test_rows},
    )
    correct = sum((row["weak"] > 0.5) == row["label"] for row in kept) / len(kept)
    print(f"{out}: {len(kept)} of {len(rows)} rows, {correct:.1%} of the weak labels are right")
    if test_rows:
        stages.tell_next(f"controls.py {out} --kind=suffix   # nobody may train on test rows")
    else:
        stages.tell_next(*stages.both("train_strong.py", out))


def check(runs, weights, select):
    """(the cards of the runs, sha256 of the models behind their labels); BadInput unless they can label together."""
    if len(runs) == 1 and (weights or select == "agreement"):
        raise files.BadInput(
            f"{'--weights' if weights else '--select=agreement'} needs several supervisors, there is one: {runs[0]}"
        )
    cards, taught = stages.supervisors(runs)
    for run, card in zip(runs, cards):
        if weights and (
            card["stage"] != "train_weak" or card["args"]["n_val"] != cards[0]["args"]["n_val"]
        ):
            raise files.BadInput(
                f"--weights: {run} did not hold out the same rows of the weak half as {runs[0]} (--n_val)"
            )
    return cards, taught


def held_out(card, data):
    """The rows of the weak half, their truth known, that a supervisor was not trained on (but stopped by)."""
    rows = protocol.hold_out(tasks.half(data, "weak"), card["args"]["n_val"], 1)[1]
    if not rows:
        raise files.BadInput(
            "--weights learns on rows that the supervisors held out, and they held out none (--n_val=0)"
        )
    return rows


def learn(probs, label, steps=1000):
    """Weights [K] on the simplex under which the supervisors' mixture gives the labels [N] the highest likelihood.

    probs [K, N]: P(label = 1). Expectation maximisation, which climbs this concave function to its top (2510.21332 also
    learns simplex weights over supervisors, along with the student).
    """
    likelihood = np.clip(np.where(label == 1, probs, 1 - probs), 1e-9, None)
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(steps):
        weights = (weights[:, None] * likelihood / (weights @ likelihood)).mean(axis=1)
    return weights


def combine(probs, vote, weights=None):
    """One P(label = 1) [N] from the supervisors' [K, N]: the (weighted) mean of what they think, or of how they vote."""
    return np.clip(
        np.average(probs if vote == "soft" else probs > 0.5, axis=0, weights=weights), 0, 1
    )


def tell(runs, rows, vote, weights):
    """Say what weights were learned, and how ties fall where votes can end in one."""
    if weights is not None:
        print("weights: " + ", ".join(f"{run} {weight:.2f}" for run, weight in zip(runs, weights)))
        if max(weights) > 0.99:
            print(f"all weight is on {runs[weights.argmax()]}: these are its labels alone")
    elif vote == "hard" and len(runs) % 2 == 0:
        ties = sum(row["weak"] == 0.5 for row in rows)
        print(
            f"{ties} of {len(rows)} votes are tied ({len(runs)} supervisors): their label is 0.5, which counts as 0"
        )


def chosen(rows, select, keep):
    """The rows that pass both filters, in order; BadInput where fewer than a batch do."""
    left = [
        row for row in rows if select == "all" or len({prob > 0.5 for prob in row["weak_all"]}) == 1
    ]
    by_confidence = sorted(range(len(left)), key=lambda i: -abs(left[i]["weak"] - 0.5))
    kept = [left[i] for i in sorted(by_confidence[: round(keep * len(left))])]
    if len(kept) < min(BATCH, len(rows)):
        raise files.BadInput(
            f"--select={select} --keep={keep} leave {len(kept)} of {len(rows)} rows: a batch needs {BATCH}"
        )
    return kept


if __name__ == "__main__":
    cli.run(main)
