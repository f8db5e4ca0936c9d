"""Stage 2: weak supervisor(s) -> weak labels.

Writes the strong half of the supervisor's task, each row with the supervisor's answer as "weak":
P(label = 1) for texts and pairs, soft as in the paper (A.1, A.3), a move for chess (A.2), and what
it writes after a prompt. The ground truth stays beside it, for the ceiling; the student does not
look at it.

    python label.py                                    # runs/weak -> runs/labels.jsonl
    python label.py 'runs/bag*/weak' --vote=hard --out=runs/ensemble.jsonl
    python label.py 'runs/bag*/weak' --weights --select=agreement --keep=0.8 --out=runs/sure.jsonl
    python label.py runs/student --out=runs/second.jsonl     # bootstrapping, relabelling
    torchrun --nproc_per_node=2 label.py runs/weak     # each process its share of the rows
    python label.py 'runs/bag*/weak' --vote=judge --judge=words.txt --out=runs/kind.jsonl

In: runs of train_weak.py (several make an ensemble) or train_strong.py.
Out: a labels file with its card, beside the first run. Next: train_strong.py.
"""

from pathlib import Path

import numpy as np

import tasks
from w2s import cli, files, leaks, parts, protocol, records, votes
from w2s.files import BadInput

BATCH = 32  # rows that a filter has to leave


@cli.stage
def main(
    args, *runs: str, out: str = None, vote: str = None, weights: bool = False,
    select: str = "all", keep: float = 1.0, part: str = None, test_rows: bool = False,
    judge: str = None, bad: int = None, temperature: float = None, top_p: float = None,
    max_new: int = None, seed: int = None, device: str = None, dtype: str = None,
    force: bool = False, allow_leak: bool = False,
):  # fmt: skip
    """Label the strong half with one supervisor, or with several together.

    Args:
        seed: moves the texts that are drawn, with --temperature (default: 0)
    """
    runs = cli.expand(runs or ("runs/weak",))
    cards, behind = supervisors(runs, allow_leak)
    setting, data = tasks.setting_of_card(cards[0]), cards[0]["data"]
    vote = vote or ("soft" if setting.SOFT or weights else "hard")
    out = out or str(files.beside(runs[0], "labels.jsonl"))
    args |= {"runs": runs, "out": out, "vote": vote}
    check_options(setting, args, cards)
    how = tasks.writing.chosen(setting, args)
    inputs = {"runs": [card["model_sha256"] for card in cards]} | data["sha256"]
    if vote == "judge":
        scorer = tasks.writing.judge_of(data["ds"], judge, bad)
        inputs["judge"] = scorer["sha256"]
    if records.is_done(out, args, inputs, force, ".jsonl"):
        return
    rows = protocol.test_rows(setting, data) if test_rows else strong_half(setting, data, part)
    taught = {run: leaks.of_truth(run, card) for run, card in zip(runs, cards)}
    leak = leaks.guard(setting, rows, data, taught, allow_leak, "truth")
    where = {"device": device, "dtype": dtype}
    parts.together("join")
    learned = weigh(setting, runs, cards[0], data, where) if weights else None
    answers = [tasks.answers(setting, run, rows, **where, **how) for run in runs]
    if vote == "judge":
        weak = tasks.writing.best(scorer, answers, **where)
    elif vote == "soft" and not setting.SOFT:
        weak = votes.most_probable(setting, runs, rows, answers, learned, **where)
    else:
        weak = [votes.combine(each, vote, learned) for each in zip(*answers)]
    parts.together("leave")
    for row, one, each in zip(rows, weak, zip(*answers)):
        row |= {"weak": one} | ({"weak_all": [*each]} if len(runs) > 1 else {})
    kept = chosen(rows, select, keep)
    card = records.new_card("label", setting, args, inputs, data)
    bases = [one["args"]["model"] for one in cards]
    card |= {"supervisors": behind, "models": bases, "test_rows": test_rows}
    files.write_jsonl(out, kept, card | leaks.behind(out, taught, *cards, leak))
    parts.forget()
    tell(setting, out, rows, kept, card)


def supervisors(runs, allow_leak=False):
    """(the runs' cards, sha256 of all models behind their labels, teachers' teachers too).

    BadInput unless they can label the same rows together.
    """
    cards = [records.finished_run(run) for run in runs]
    for i, (run, card) in enumerate(zip(runs, cards)):
        if Path(run).resolve() in [Path(one).resolve() for one in runs[:i]]:
            raise BadInput(f"{run} is given twice: a supervisor has one vote")
        if records.role(card) == "ceiling" and not (allow_leak and "learned" in card):
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
    judged = args["vote"] == "judge"
    given = {"--weights": args["weights"], "--select": args["select"] != "all"}
    for name, is_given in (given | {"--vote=judge": judged}).items():
        if is_given and len(cards) == 1:
            raise BadInput(f"{name} needs several supervisors, there is one: {args['runs'][0]}")
    if args["keep"] < 1 and not setting.SOFT:
        raise BadInput(f"--keep is not for {setting.WHAT}: their labels have no probability")
    if judged and setting is not tasks.writing:
        raise BadInput(f"--vote=judge is for texts that models write, not for {setting.WHAT}")
    if judged and args["weights"]:
        raise BadInput("--vote=judge takes the best text, whoever wrote it: not with --weights")
    for name in ("judge", "bad"):
        if args[name] is not None and setting is tasks.writing and not judged:
            raise BadInput(f"--{name} goes with --vote=judge")
    if args["seed"] is not None and setting is not tasks.writing:
        raise BadInput(f"--seed draws texts that models write, not {setting.WHAT}: leave it out")
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
    if not part and setting is not tasks.moves:
        return rows
    k, n = map(int, (part or "1/1").split("/"))
    groups = files.by_group(rows, "parts")
    first, end = (k - 1) * len(groups) // n, k * len(groups) // n
    if first == end:
        raise BadInput(f"--part={part}: the strong half has {len(groups)} groups, too few to cut")
    return [row for group in groups[first:end] for row in group]


def weigh(setting, runs, card, data, where):
    """Weights [K] of the supervisors by the truth of the rows that they held out, and told."""
    known = files.hold_out(protocol.half(setting, data, "weak"), card["args"]["n_val"])[1]
    if not known:
        raise BadInput("--weights learns on rows that were held out, and there are none (--n_val)")
    if setting.SOFT:
        probs = np.array([tasks.answers(setting, run, known, **where) for run in runs])
        likelihood = votes.of_labels(probs, np.array([row["label"] for row in known]))
    else:
        logs = votes.likelihoods(setting, runs, known, setting.TRUTH, **where)
        likelihood = votes.of_logs(logs)
    learned = votes.learn(likelihood)
    votes.tell_weights(runs, learned)
    return learned


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


def tell(setting, out, rows, kept, card):
    """Print how good the labels are, and what to call next."""
    if ties := sum(row["weak"] == 0.5 for row in rows):
        print(f"{ties} of {len(rows)} votes are tied: their label is 0.5, which counts as 0")
    right = sum(setting.is_right(row, row["weak"]) for row in kept) / len(kept)
    of = f"of {len(rows)} {setting.WHAT}"
    are = "the true text" if setting is tasks.writing else "right"
    print(f"{out}: {len(kept)} {of}, {right:.1%} of the weak labels are {are}")
    if setting.SOFT:
        print(f"{sum(row['weak'] > 0.5 for row in kept) / len(kept):.1%} of the labels say 1")
    if len({row["weak"] > 0.5 if setting.SOFT else row["weak"] for row in kept}) == 1:
        print("warning: all labels say the same, and that is all that a student could learn")
    if setting.SOFT and right <= 0.5:
        print("warning: that is chance or worse: is the supervisor's model or --n_train too small?")
    for remark in setting.remarks(kept):
        print(remark)
    if card["test_rows"]:
        if setting is tasks.texts:
            cli.tell_next(["controls.py", out, "--kind=suffix"])
        return
    cli.tell_students(out, card, tasks.default_models)


if __name__ == "__main__":
    cli.run(main, processes=True)
