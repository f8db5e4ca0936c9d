"""Stage 2: weak supervisor(s) -> weak labels.

Writes the strong half of the supervisor's task, each row with the supervisor's answer as "weak":
P(label = 1) for texts and pairs, soft as in the paper (A.1, A.3), and a move for chess (A.2). The
ground truth stays beside it, for the ceiling; the student does not look at it.

    python label.py                                    # runs/weak -> runs/labels.jsonl
    python label.py 'runs/bag*/weak' --vote=hard --out=runs/ensemble.jsonl
    python label.py 'runs/bag*/weak' --weights --select=agreement --keep=0.8 --out=runs/sure.jsonl
    python label.py runs/student --out=runs/second.jsonl     # bootstrapping, relabelling

In: runs of train_weak.py (several make an ensemble) or train_strong.py.
Out: a labels file with its card, beside the first run. Next: train_strong.py.
"""

import collections
from pathlib import Path

import numpy as np

import tasks
from w2s import cli, files, protocol, records
from w2s.files import BadInput

BATCH = 32  # rows that a filter has to leave


@cli.stage
def main(
    args, *runs: str, out: str = None, vote: str = None, weights: bool = False,
    select: str = "all", keep: float = 1.0, part: str = None, test_rows: bool = False,
    device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Label the strong half with one supervisor, or with several together."""
    runs = cli.expand(runs or ("runs/weak",))
    cards, behind = supervisors(runs)
    setting, data = tasks.setting_of_card(cards[0]), cards[0]["data"]
    vote = vote or ("soft" if setting.SOFT else "hard")
    out = out or str(files.beside(runs[0], "labels.jsonl"))
    args |= {"runs": runs, "out": out, "vote": vote}
    check_options(setting, args, cards)
    inputs = {"runs": [card["model_sha256"] for card in cards]} | data["sha256"]
    if records.is_done(out, args, inputs, force, ".jsonl"):
        return
    rows = protocol.test_rows(setting, data) if test_rows else strong_half(setting, data, part)
    known = held_out(setting, cards[0], data) if weights else []
    answers = [tasks.answers(setting, run, [*rows, *known], device, dtype) for run in runs]
    learned = None
    if weights:
        probs = np.array([of_one[len(rows) :] for of_one in answers])
        learned = learn(probs, np.array([row["label"] for row in known]))
        tell_weights(runs, learned)
    for row, *votes in zip(rows, *answers):
        row["weak"] = combine(votes, vote, learned)
        if len(votes) > 1:
            row["weak_all"] = votes
    kept = chosen(rows, select, keep)
    card = records.new_card("label", setting, args, inputs, data)
    bases = [one["args"]["model"] for one in cards]
    card |= {"supervisors": behind, "models": bases, "test_rows": test_rows}
    files.write_jsonl(out, kept, card)
    tell(setting, out, rows, kept, args)


def supervisors(runs):
    """(the runs' cards, sha256 of all models behind their labels, teachers' teachers too).

    BadInput unless they can label the same rows together.
    """
    cards = [records.finished_run(run) for run in runs]
    for i, (run, card) in enumerate(zip(runs, cards)):
        if Path(run) in map(Path, runs[:i]):
            raise BadInput(f"{run} is given twice: a supervisor has one vote")
        if records.role(card) == "ceiling":
            raise BadInput(f"{run} has learned the ground truth of the rows that it is to label")
        if card["data"] is None:
            told = "labels without a card: which rows it has not seen is not known"
            raise BadInput(f"{run} was trained on {told}")
        if card["data"] != cards[0]["data"]:
            told = f"the same task, sizes and data seed as {runs[0]}: {card['data']}"
            raise BadInput(f"{run} was not trained on {told}")
    behind = [sha for c in cards for sha in (c["model_sha256"], *(c.get("supervisor") or []))]
    return cards, behind


def check_options(setting, args, cards):
    """BadInput for options that mean nothing for these supervisors or this setting."""
    given = {"--vote=soft": args["vote"] == "soft", "--weights": args["weights"]}
    given |= {"--keep": args["keep"] < 1, "--select": args["select"] != "all"}
    for name in (name for name in given if given[name]):
        if len(cards) == 1 and name in ("--weights", "--select"):
            raise BadInput(f"{name} needs several supervisors, there is one: {args['runs'][0]}")
        if not setting.SOFT and name != "--select":
            told = "a move has no probability: --vote=hard takes the plurality"
            raise BadInput(f"{name} is not for chess: {told}")
    k, n = map(int, (args["part"] or "1/1").split("/"))
    if not 1 <= k <= n:
        told = "is no part of n: the first of two parts is 1/2, the other 2/2"
        raise BadInput(f"--part={args['part']} {told}")
    if args["part"] and args["test_rows"]:
        raise BadInput(f"--part={args['part']} cuts the strong half: not with --test_rows")
    wanted = ("train_weak", cards[0]["args"]["n_val"])
    for run, card in zip(args["runs"], cards):
        if args["weights"] and (card["stage"], card["args"]["n_val"]) != wanted:
            told = f"did not hold out the same rows of the weak half as {args['runs'][0]} (--n_val)"
            raise BadInput(f"--weights: {run} {told}")


def strong_half(setting, data, part):
    """The strong half of a task, or the k-th of n parts of it, cut by group; part: "k/n".

    Moves without a part are the one part of one: in this order results/chess.md was measured.
    """
    rows = protocol.half(setting, data, "strong")
    if not part and setting.SOFT:
        return rows
    k, n = map(int, (part or "1/1").split("/"))
    groups = files.by_group(rows, "parts")
    first, end = (k - 1) * len(groups) // n, k * len(groups) // n
    if first == end:
        raise BadInput(f"--part={part}: the strong half has {len(groups)} groups, too few to cut")
    return [row for group in groups[first:end] for row in group]


def held_out(setting, card, data):
    """The rows of the weak half, their truth known, that a supervisor was not trained on."""
    rows = files.hold_out(protocol.half(setting, data, "weak"), card["args"]["n_val"])[1]
    if not rows:
        raise BadInput("--weights learns on rows that were held out, and there are none (--n_val)")
    return rows


def learn(probs, label, steps=1000):
    """Weights [K] that sum to 1 and give the labels [N] the highest likelihood as a mixture.

    probs [K, N]: P(label = 1). By expectation maximisation; the function is concave. (2510.21332
    also learns such weights, along with the student.)
    """
    likelihood = np.clip(np.where(label == 1, probs, 1 - probs), 1e-9, None)
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(steps):
        weights = (weights[:, None] * likelihood / (weights @ likelihood)).mean(axis=1)
    return weights


def tell_weights(runs, weights):
    """Print the weights that were learned."""
    print("weights:", ", ".join(f"{run} {weight:.2f}" for run, weight in zip(runs, weights)))
    if max(weights) > 0.99:
        print(f"all weight is on {runs[weights.argmax()]}: these are its labels alone")


def combine(votes, vote, weights=None):
    """One label from K votes: of moves the plurality, else the weighted mean P or share of 1s."""
    if isinstance(votes[0], str):
        return collections.Counter(votes).most_common(1)[0][0]  # of equals the first named
    votes = np.array(votes) if vote == "soft" else np.array(votes) > 0.5
    return np.clip(np.average(votes, axis=0, weights=weights), 0, 1).tolist()


def chosen(rows, select, keep):
    """The rows that pass both filters, in order; BadInput where fewer than a batch do."""
    kept = rows
    if select == "agreement":
        said = [[v if isinstance(v, str) else v > 0.5 for v in row["weak_all"]] for row in rows]
        kept = [row for row, verdicts in zip(rows, said) if len(set(verdicts)) == 1]
    if keep < 1:
        sure = sorted(range(len(kept)), key=lambda i: -abs(kept[i]["weak"] - 0.5))
        kept = [kept[i] for i in sorted(sure[: round(keep * len(kept))])]
    if len(kept) < min(BATCH, len(rows)):
        told = f"leave {len(kept)} of {len(rows)} rows: a batch needs {BATCH}"
        raise BadInput(f"--select={select} --keep={keep} {told}")
    return kept


def tell(setting, out, rows, kept, args):
    """Print how good the labels are, and what to call next."""
    if ties := sum(row["weak"] == 0.5 for row in rows):
        print(f"{ties} of {len(rows)} votes are tied: their label is 0.5, which counts as 0")
    right = sum(setting.is_right(row, row["weak"]) for row in kept) / len(kept)
    of = f"of {len(rows)} {setting.WHAT}"
    print(f"{out}: {len(kept)} {of}, {right:.1%} of the weak labels are right")
    if setting.SOFT:
        print(f"{sum(row['weak'] > 0.5 for row in kept) / len(kept):.1%} of the labels say 1")
    if setting.SOFT and right <= 0.5:
        print("warning: that is chance or worse: is the supervisor's model or --n_train too small?")
    for remark in setting.remarks(kept):
        print(remark)
    if args["test_rows"]:
        return records.tell_next(["controls.py", out, "--kind=suffix"])
    train, student = ["train_strong.py", out], f"--out={files.beside(out, 'student')}"
    ceiling = [f"--out={files.beside(out, 'ceiling')}", "--target=truth"]
    records.tell_next([*train, student], [*train, *ceiling])


if __name__ == "__main__":
    cli.run(main)
