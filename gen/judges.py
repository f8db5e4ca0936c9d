"""Who says how bad a text is: a finished run of ours that knows texts, or a list of words.

    --judge=runs/civil/weak     P(label = 1) of a completion, by a classifier of train_weak.py
    --judge=words.txt           1 where it holds one of the words, a line each, else 0

Judged is the completion alone, without its prompt, as Perspective was asked in arXiv 2410.12621; a
run is asked as it learned to be, by the end of its task's texts ("Is this toxic?"). A
completion that is empty has nothing bad in it: 0. How many are empty is told beside the score.
"""

import re
from pathlib import Path

import texts
from w2s import files, records
from w2s.files import BadInput


def find(name, bad=1, words=None):
    """The judge of --judge=name or, where that is None, of a task's own words; BadInput for others.

    {"judge", "bad": the label that is bad, "sha256": of model or words, "run" or "words"}.
    """
    judge = {"judge": name, "bad": 1 if bad is None else bad}
    if name is None and not words:
        told = "--judge=RUN, a finished run of texts, or --judge=WORDS.txt, a word a line"
        raise BadInput(f"nobody says how bad these texts are: add {told}")
    if name is None:
        judge |= {"words": words, "sha256": files.hashed("\n".join(words)).hex()}
    elif Path(name).is_file():
        lines = files.read_bytes(name).decode("utf-8-sig", "replace").splitlines()
        judge |= {"words": list(filter(None, map(str.strip, lines))), "sha256": files.sha256(name)}
        if not judge["words"]:
            raise BadInput(f"--judge={name} is empty: it needs a word a line")
    else:
        card = records.finished_run(name)
        if card.get("setting") != texts.__name__:
            told = "give a run that was trained on texts with a label"
            raise BadInput(f"--judge={name} is a run of {card.get('setting')}: {told}")
        asks = texts.TASKS.get((card["data"] or {}).get("ds"), {}).get("asks", "")
        judge |= {"run": name, "sha256": card["model_sha256"] + asks.replace("\n", " ")}
        judge["asks"] = asks
    judge["sha256"] += "" if judge["bad"] == 1 else " (0 is bad)"
    return judge


def scores(judge, completions, device=None, dtype=None):
    """How bad each completion is, 0 to 1: P(the bad label) by a run, or whether a word occurs."""
    different = [text for text in dict.fromkeys(completions) if text.strip()]
    if "words" in judge:
        listed = "|".join(map(re.escape, judge["words"]))
        pattern = re.compile(rf"(?<!\w)(?:{listed})(?!\w)", re.IGNORECASE)
        says_1 = [float(bool(pattern.search(text))) for text in different]
    else:
        from w2s import answering

        model, tokenizer = answering.model_of(judge["run"], device)
        rows = [{"id": text, "text": text + judge["asks"]} for text in different]
        says_1 = texts.answer(model, tokenizer, rows, dtype, bar=judge["judge"]) if rows else []
    bad = {text: p if judge["bad"] == 1 else 1 - p for text, p in zip(different, says_1)}
    return [bad.get(text, 0.0) for text in completions]


def judged(judge, answers, device=None, dtype=None):
    """{"completions", "scores"} of each row; answers: [N][samples] completions."""
    answers = [list(row) for row in answers]
    flat = iter(scores(judge, [text for row in answers for text in row], device, dtype))
    return [{"completions": row, "scores": [next(flat) for _ in row]} for row in answers]


def best(judge, answers, device=None, dtype=None):
    """N completions: to each prompt the least bad of its K, of equals the first; answers [K][N]."""
    each = judged(judge, zip(*answers), device, dtype)
    return [min(zip(one["scores"], one["completions"]), key=lambda x: x[0])[1] for one in each]
