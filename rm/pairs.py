"""The setting of preference pairs: a prompt, two completions, and which of them was preferred.

    {"id": "hh_helpful/train/7", "group": "...", "prompt": "Human: Hi\\n\\nAssistant:",
     "a": " Hello!", "b": " No.", "label": 0}

label is 1 where b was preferred; a hash of --data_seed and the id puts it on one of the sides.
A reward model gives each text prompt + completion a number r, and P(b preferred) =
sigmoid(r_b - r_a), the softmax of [r_a, r_b] (paper, A.3). So every rule of losses.py works as it
is, and answers are judged as texts' are.
"""

import collections
import sys

import world
from table import source
from texts import is_right, measure, outputs, prediction, remarks, rule, said, score, truth  # noqa
from w2s import files, protocol, sources
from w2s.files import BadInput, hashed


def hh(row):
    """{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!", "rejected": "..."}: two dialogues."""
    sides = [row[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected")]
    prompts = [before + turn for before, turn, _ in sides]
    if not prompts[0] or prompts[0] != prompts[1]:
        return "have no common prompt"
    return prompts[0], sides[0][2], sides[1][2]


def summarize(row):
    """{"prompt": "SUBREDDIT: ...\\nPOST: ...", "chosen": "TL;DR: short", "rejected": "..."}."""
    return row["prompt"] + "\n", row["chosen"], row["rejected"]


def shp(row):
    """{"history": "How?", "human_ref_A": "..", "human_ref_B": "..", "labels": 1, "score_ratio": 2}.

    labels is 1 where A was preferred.
    """
    if row["score_ratio"] < 2:
        return "have a score ratio below 2"
    a, b = row["human_ref_A"], row["human_ref_B"]
    return row["history"] + "\n\n", *((a, b) if row["labels"] else (b, a))


def ultrafeedback(row):
    """{"prompt": "..", "chosen": [{"content": "..", "role": "user"}, ..], "score_chosen": 8.5}."""
    if row["score_chosen"] == row["score_rejected"]:
        return "have equal scores"
    last = [row[side][-1]["content"] for side in ("chosen", "rejected")]
    return f"Human: {row['prompt']}\n\nAssistant: ", *last


def safe_rlhf(row):
    """{"prompt": "...", "response_0": "...", "response_1": "...", "safer_response_id": 1}."""
    responses, safer = (row["response_0"], row["response_1"]), row["safer_response_id"]
    return f"Human: {row['prompt']}\n\nAssistant: ", responses[safer], responses[1 - safer]


BOTH, TURN = sources.texts("chosen rejected"), [sources.texts("content role")]
UNKNOWN = ("train", None, None), ("test", None, None)
# As the texts' TASKS; pair: a source row -> (prompt, preferred, other), or why it is left out.
# fmt: off
TASKS = {
    "facts_pairs": dict(
        splits=dict(train=("train", 17600, 0.5), test=("test", 1600, 0.5)), group="person",
        licence="MIT", models=("facts/xs", "facts/m")),
    "hh_helpful": source("Anthropic/hh-rlhf", *UNKNOWN, config="helpful-base", pair=hh,
        files="helpful-base/{}.jsonl.gz", needs=BOTH),
    "hh_harmless": source("Anthropic/hh-rlhf", *UNKNOWN, config="harmless-base", pair=hh,
        files="harmless-base/{}.jsonl.gz", needs=BOTH),
    "summarize": source("CarperAI/openai_summarize_comparisons", ("train", 92534, None),
        ("valid2", 50715, None), pair=summarize, needs=sources.texts("prompt") | BOTH,
        or_else="try HuggingFaceH4/summarize-from-feedback, whose columns have other names"),
    "shp": source("stanfordnlp/SHP", *UNKNOWN, pair=shp,
        needs=sources.texts("history human_ref_A human_ref_B")
        | {"labels": range(2), "score_ratio": float}),
    "ultrafeedback": source("HuggingFaceH4/ultrafeedback_binarized", ("train_prefs", 61135, None),
        ("test_prefs", 2000, None), pair=ultrafeedback, needs={"prompt": str, "chosen": TURN,
        "rejected": TURN, "score_chosen": float, "score_rejected": float}),
    "safe_rlhf": source("PKU-Alignment/PKU-SafeRLHF", *UNKNOWN, pair=safe_rlhf,
        needs=sources.texts("prompt response_0 response_1") | {"safer_response_id": range(2)}),
}
# fmt: on
TASKS = {name: {"group": "prompt"} | task for name, task in TASKS.items()}
WHAT, KEY, TRUTH, SOFT, BALANCED = "pairs", "prompt", "label", True, False
FIELDS, OPTIONAL, PREDICTION = ("prompt", "a", "b", "label"), (), ("id", "label", "prob")
CHECKS, METRIC, same = files.CHECKS, "acc", protocol.same_text
OUTPUTS, RECIPE = 1, {"epochs": 1, "batch_size": 220, "n_val": None, "stop": False}


def facts_pairs(split, seed=0):
    """Two statements about a person of facts/world.py, one true: train has every wrong value."""
    for person in (one for one in world.people(seed) if one["kind"] == split):
        name = person["name"].replace(" ", "-")
        for relation in world.RELATIONS:
            wrong = [value for value in world.VALUES[relation] if value != person[relation]]
            if split == "test":
                drawn = hashed(f"facts pairs {seed} {name} {relation}")[0]
                wrong = [wrong[drawn % len(wrong)]]
            for value in wrong:
                yield {
                    "id": f"facts_pairs/{split}/{name}/{relation}/{value}",
                    "group": name,
                    "prompt": f"the {relation} of {person['name']} is",
                    "preferred": f" {person[relation]} ?",
                    "other": f" {value} ?",
                }


def candidates(ds, split):
    """The pairs of a split; for one that cannot be used a string says why."""
    if ds not in TASKS:
        for row in protocol.read_own(sys.modules[__name__], ds):
            better, worse = ("b", "a") if row["label"] else ("a", "b")
            yield row | {"preferred": row[better], "other": row[worse]}
        return
    start = f"{ds}/{TASKS[ds]['splits'][split][0]}"
    for number, row in sources.source_rows(ds, TASKS[ds], split)[2]:
        pair = "have an empty field" if row is None else TASKS[ds]["pair"](row)
        if not isinstance(pair, str):
            pair = dict(zip(("prompt", "preferred", "other"), pair)) | {"id": f"{start}/{number}"}
            pair["group"] = protocol.group_name(ds, same(pair["prompt"]))
        yield pair


def read(ds, split):
    """The usable pairs, {"id", "group", "prompt", "preferred", "other"}; others are told."""
    usable, dropped = [], collections.Counter()
    for row in facts_pairs(split) if ds == "facts_pairs" else candidates(ds, split):
        if isinstance(row, str):
            dropped[row] += 1
        elif not row["preferred"].strip() or not row["other"].strip():
            dropped["have an empty completion"] += 1
        elif row["preferred"].strip() == row["other"].strip():
            dropped["have equal completions"] += 1
        else:
            usable.append(row)
    if dropped:
        told = ", ".join(f"{count} {why}" for why, count in dropped.items())
        of = f"of {len(usable) + dropped.total()} pairs"
        print(f"{protocol.name_of(ds)}, {split}: {of} {told}: left out", file=sys.stderr)
    return usable


def finish(rows, seed):
    """The pairs with their completions as a and b, the preferred one on a side drawn by a hash."""
    out = []
    for row in rows:
        label = hashed(f"sides {seed}/{row['id']}")[0] % 2
        a, b = (row[side] for side in (("other", "preferred") if label else ("preferred", "other")))
        kept = {name: row[name] for name in ("id", "group", "prompt")}
        out.append(kept | {"a": a, "b": b, "label": label})
    return out


def encode(rows, tokenizer, model, given=None):
    """The pairs with "tokens", prompt + a and prompt + b in one list, and "cut", where b's begin.

    Where one side is over the model's limit, both lose as many tokens of the prompt, from the
    front; a completion that alone is too long loses its own. With `given`, the field to learn,
    pairs that then look the same are left out: no gradient could tell them apart. Both are counted.
    """
    from w2s import models, packing

    limit, n_cut, out = model.w2s["max_len"], 0, []
    texts = [[row["prompt"] + row[side] for row in rows] for side in "ab"]
    both = [tokenizer(of_side, verbose=False).input_ids for of_side in texts]
    for row, *tokens in zip(rows, *both):
        over = max(map(len, tokens)) - limit
        if over > 0:
            n_cut += 1
            prompt = tokenizer(row["prompt"], add_special_tokens=False, verbose=False).input_ids
            over = min(over, len(prompt))
            sizes = [min(limit, len(ids) - over) for ids in tokens]
            tokens = [
                tokenizer(row["prompt"] + row[side], truncation=True, max_length=size).input_ids
                for side, size in zip("ab", sizes)
            ]
        if not all(tokens):
            raise BadInput(f"the tokenizer makes no tokens of the texts of pair {row['id']!r}")
        if tokens[0] != tokens[1] or given is None:
            row = row | {"tokens": tokens[0] + tokens[1], "cut": len(tokens[0])}
            out.append(row | {"given": row[given]} if given else row)
    models.check_tokens([text for row in out for text in packing.texts(row)], tokenizer, model)
    of = f"of {len(rows)} pairs"
    if n_cut:
        print(f"{n_cut} {of} are over {limit} tokens: both sides lost the same front (--max_len)")
    if len(out) < len(rows):
        print(f"{len(rows) - len(out)} {of} have equal tokens on both sides and are left out")
    if not out:
        raise BadInput(f"no pair is left: both sides are equal within --max_len={limit} tokens")
    return out


def answer(model, tokenizer, rows, dtype=None, bar=None):
    """P(b preferred) = sigmoid(r_b - r_a) of each pair, a list of floats."""
    from w2s import models, packing

    tokens = [text for row in encode(rows, tokenizer, model) for text in packing.texts(row)]
    rewards = models.predict(model, tokens, dtype, bar).double().view(-1, 2)
    return rewards.diff(dim=1)[:, 0].sigmoid().tolist()
