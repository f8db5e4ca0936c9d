"""The setting of texts that models write: a prompt, and how it goes on.

    {"id": "...", "group": "...", "prompt": "ba mi ru said to the guard", "completion": "..."}

A language model learns the completion's tokens and, where its tokenizer has one, the token that
ends a text. The weak label of a prompt is what its supervisor writes after it, and no two texts can
be compared as labels can: a judge (judges.py) says how bad each is, from 0 to 1. The mean of that
is the score, and a lower one is better.
"""

import functools
import sys
from operator import itemgetter

import numpy as np

import manners
from judges import best, find, judged  # noqa: F401
from moves import outputs, rule  # noqa: F401
from texts import finish  # noqa: F401
from w2s import effects, files, protocol, sources, stats
from w2s.files import BadInput
from w2s.scores import WRITING

MAX_NEW = 100  # tokens of a completion, as in arXiv 2410.12621
BETTER = 0.5  # toxicity; whoever learns the truth learns continuations below it
# As the texts' TASKS; judge: the words by which a text is bad, where no --judge is given
# fmt: off
TASKS = {
    "manners": dict(load=manners.rows, judge=manners.RUDE, models=("gen/xs", "gen/m"),
        group="pair", licence="MIT",
        splits={name: (name, manners.N_PAIRS[name] * manners.ROWS[name], None)
                for name in ("train", "test")}),
    "real_toxicity_prompts": dict(
        repo="allenai/real-toxicity-prompts", splits=dict(all=("train", None, None)),
        # {"prompt": {"text": "The men", "toxicity": .1, ...}, "continuation": {...}}
        needs={"prompt": {"text": str}, "continuation": {"text": str, "toxicity": float}}),
}
# fmt: on
WHAT, KEY, METRIC, BALANCED = "prompts", "prompt", "score", False
FIELDS, OPTIONAL = ("prompt", "completion"), ()
PREDICTION = ("id", "score", "max", "completions")
# a supervisor may write nothing; such a label is left out in training
CHECKS = files.CHECKS | {"completion": files.TEXT, "weak": (lambda x: isinstance(x, str), "text")}
CHECKS |= dict.fromkeys(("score", "max"), files.PROBABILITY)
TRUTH, SOFT, OUTPUTS = "completion", False, 0
RECIPE = {"epochs": 3, "batch_size": 16, "n_val": None, "stop": True}
OPTIONS = ("judge", "bad", *WRITING)  # of label.py, eval.py
same = protocol.same_text
rule = functools.partial(rule, told="texts that models write are")
said = truth = None  # of two texts nobody can say that they are the same answer
score = itemgetter("score")  # how bad the completions of a prompt are: PGR recovers its mean


def read(ds, split):
    """All rows of one split of a task, or of a JSONL file with prompt and completion."""
    if "load" in TASKS.get(ds, ()):
        return TASKS[ds]["load"](split)
    if ds in TASKS:
        return continuations(ds, split)
    rows = protocol.read_own(sys.modules[__name__], ds)
    return [{field: row[field] for field in ("id", "group", *FIELDS)} for row in rows]


def continuations(ds, split):
    """The rows of RealToxicityPrompts whose continuation people would rather read."""
    where, count, source = sources.source_rows(ds, TASKS[ds], split)
    kept, empty = [], 0
    for number, row in source:
        empty += row is None
        if row and row["continuation"]["toxicity"] < BETTER:
            name = f"{ds}/{number}"
            texts = {"prompt": row["prompt"]["text"], "completion": row["continuation"]["text"]}
            kept.append({"id": name, "group": name} | texts)
    told = f"{count - len(kept) - empty} have a toxicity of {BETTER} or more"
    print(f"{where}: {told}, {empty} a field without a value: left out", file=sys.stderr)
    return kept


def encode(rows, tokenizer, model, given=None, room=None):
    """The rows with "tokens", the prompt's and, where `given` names a field, that completion's.

    "asked" says how many of these are the completion's and its end's, which alone are learned
    (lm.nll), and "given" the row's share of them. A completion may fill half of the context, and
    loses its end; a prompt loses its front to make room for it, or for `room` tokens. Rows whose
    completion is empty are left out. All of it is counted and told.
    """
    from w2s import lm, models

    limit, out, n_front, n_end = model.w2s["max_len"], [], 0, 0
    if given:
        lm.check_head(model)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    kept = [row for row in rows if not given or row[given].strip()]
    for row in kept:
        tokens, learned = tokenizer(row["prompt"], verbose=False).input_ids, []
        if given:
            learned = after(row, row[given], tokens, tokenizer) + end
            n_end += len(learned) > limit // 2
            learned = learned[: limit // 2]
        left = limit - (len(learned) if given else room or limit // 2)
        if len(tokens) > left:
            n_front += 1
            tokens = tokenizer(row["prompt"], truncation=True, max_length=left).input_ids
        if not tokens:
            raise BadInput(f"the tokenizer makes no tokens of the prompt of row {row['id']!r}")
        asked = {"asked": len(learned)} if given else {}
        out.append(row | {"tokens": tokens + learned} | asked)
    models.check_tokens([row["tokens"] for row in out], tokenizer, model)
    for n, told in (
        (n_front, f"prompts are over the context of {limit} tokens and lost their front"),
        (n_end, f"completions are over {limit // 2} tokens and lost their end (--max_len)"),
        (len(rows) - len(out), "completions are empty: left out"),
    ):
        if n:
            print(f"{n} of {len(rows)} {told}")
    if not out:
        raise BadInput("all completions are empty: there is nothing to learn")
    return lm.shares(out) if given else out


def after(row, completion, prompt, tokenizer):
    """The token ids of a completion; prompt: those of the text before it.

    A space goes between the two unless there is white space.
    """
    gap = "" if row["prompt"][-1].isspace() or completion[0].isspace() else " "
    both = tokenizer(row["prompt"] + gap + completion, verbose=False).input_ids
    if both[: len(prompt)] == prompt:
        return both[len(prompt) :]
    # where the tokens of both join, only these are what a model can write after the prompt
    return tokenizer(gap + completion, add_special_tokens=False, verbose=False).input_ids


def answer(model, tokenizer, rows, dtype=None, bar=None, samples=None, max_new=None, **how):
    """What a language model writes after each prompt: a text or, with samples, a list of them.

    max_new: tokens, at most (default: of the longest true completion, 100, or what is left of half
    the context); how: temperature, top_p, seed of generate.write. What does not end is told.
    """
    import generate

    limit, end = model.w2s["max_len"], tokenizer.eos_token_id
    if max_new is None:
        true = (after(row, row[TRUTH], [None], tokenizer) for row in rows)
        longest = max(map(len, true)) + (end is not None)
        max_new = max(1, min(MAX_NEW, limit // 2, longest))
    if max_new >= limit:
        raise BadInput(f"--max_new={max_new} leaves no room for a prompt in {limit} tokens")
    prompts = [row["tokens"] for row in encode(rows, tokenizer, model, room=max_new)]
    how |= {"samples": samples or 1, "dtype": dtype, "name": bar, "end": end}
    written = generate.write(model, prompts, max_new, **how)
    # no token is joined to the next by a rule of the tokenizer, or " ." would become "."
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    texts = [[tokenizer.decode(ids, **plain) for ids in row] for row in written]
    every = [(ids, text) for pair in zip(written, texts) for ids, text in zip(*pair)]
    n_open, n_empty = sum(x[-1] != end for x, _ in every), sum(not t.strip() for _, t in every)
    if end is None:
        print(f"this tokenizer has no token that ends a text: all completions have {max_new}")
    elif n_open:
        warning = "warning: no completion ends: " if n_open == len(every) else ""
        told = f"{n_open} of {len(every)} completions are cut at {max_new} tokens (--max_new)"
        print(warning + told)
    if n_empty:
        print(f"{n_empty} of {len(every)} completions are empty")
    return texts if samples else [row[0] for row in texts]


def judge_of(ds, name, bad=None):
    """The judge of --judge=name or, without, of a task or JSONL file (judges.find)."""
    return find(name, bad, TASKS.get(ds, {}).get("judge"))


def chosen(setting, args):
    """{option: value} of what answer() takes, among a stage's args.

    BadInput for options that mean nothing together, or for another setting.
    """
    given = [name for name in OPTIONS if args.get(name) is not None]
    if setting.__name__ != __name__:
        if given:
            raise BadInput(f"--{given[0]} is for texts that models write, not for {setting.WHAT}")
        return {}
    drawn = args["temperature"] is not None
    for name in ("top_p", "seed"):
        if args[name] is not None and not drawn:
            raise BadInput(f"--{name} goes with --temperature: without it nothing is drawn")
    if drawn and files.world() > 1:
        raise BadInput("--temperature draws in one process: call it without torchrun")
    if (args.get("samples") or 1) > 1 and not drawn:
        raise BadInput(f"--samples={args['samples']} are all the same without --temperature=0.7")
    how = {name: args[name] for name in ("temperature", "top_p", "max_new")}
    how |= {"samples": args["samples"] or 1} if "samples" in args else {}
    return how | {"seed": args["seed"] or 0}


def prediction(row, answer):
    """What eval.py writes down of the completions of a prompt and their scores (judges.judged)."""
    scores = answer["scores"]
    told = {"id": row["id"], "score": sum(scores) / len(scores), "max": max(scores)}
    return told | {"completions": answer["completions"]}


def is_right(row, answer):
    """Whether a completion is the true one, word for word."""
    return answer.split() == row[TRUTH].split()


def remarks(rows):
    """What label.py adds about its weak labels."""
    empty = sum(not row["weak"].strip() for row in rows)
    return [f"warning: {empty} are empty; nobody learns from these"] if empty else []


def measure(predictions, rows):
    """{"score", "low", "high", "n", "groups", "samples"} and, as estimates, of all completions:

    "max", the expected maximum over a prompt's samples; "empty", the share that says nothing; and
    "length" in words.
    """
    texts = [prediction["completions"] for prediction in predictions]
    means = {name: [one[name] for one in predictions] for name in ("score", "max")}
    means["empty"] = [sum(not text.strip() for text in row) / len(row) for row in texts]
    means["length"] = [sum(len(text.split()) for text in row) / len(row) for row in texts]
    groups = effects.number([row["group"] for row in rows])
    told = {"n": len(rows), "groups": groups[1], "samples": len(texts[0])}
    for name, values in means.items():
        bounds = (0, np.inf if name == "length" else 1)
        key = METRIC if name == METRIC else "value"
        one = stats.mean_of(np.array([values]), groups, key, bounds)
        told |= one if name == METRIC else {name: one}
    return told
