"""Preference pairs: a prompt, two completions, and which of the two was preferred. A model reads prompt + a and prompt + b.

    {"id": "hh_helpful/train/7", "group": "...", "prompt": "Human: Hi\\n\\nAssistant:", "a": " Hello!", "b": " No.", "label": 0}

label is 1 where b was preferred; which side that is, a hash of --data_seed and the id decides. A labels file adds "weak", the
supervisor's P(b preferred). Pairs of one prompt form a group. The protocol is that of tasks.py: one test set for all, halves
cut by group, no training pair that shares a prompt or group with a test pair.
"""

import collections
import sys

import world
from w2s import files, protocol, sources
from w2s.files import BadInput, hashed

STAGES = ("rm/train_rm",)


def hh(row):
    """{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: No."}: dialogues."""
    prompts, completions = zip(*(cut_dialogue(row[side]) for side in ("chosen", "rejected")))
    return (
        (prompts[0], *completions)
        if prompts[0] and prompts[0] == prompts[1]
        else "have no common prompt"
    )


def cut_dialogue(text):
    """(everything up to the last "Assistant:", what it says then)."""
    before, turn, said = text.rpartition("\n\nAssistant:")
    return before + turn, said


def summarize(row):
    """{"prompt": "SUBREDDIT: r/...\\nPOST: ...", "chosen": "TL;DR: short", "rejected": "TL;DR: long"}: Stiennon et al. 2020."""
    return row["prompt"] + "\n", row["chosen"], row["rejected"]


def shp(row):
    """{"history": "How ...?", "human_ref_A": "...", "human_ref_B": "...", "labels": 1, "score_ratio": 2.5}: 1 = A preferred."""
    if row["score_ratio"] < 2:
        return "have a score ratio below 2"
    a, b = row["human_ref_A"], row["human_ref_B"]
    return row["history"] + "\n\n", *((a, b) if row["labels"] else (b, a))


def ultrafeedback(row):
    """{"prompt": "...", "chosen": [{"content": "...", "role": "user"}, ...], "score_chosen": 8.5, ...}: the last turns."""
    if row["score_chosen"] == row["score_rejected"]:
        return "have equal scores"
    return f"Human: {row['prompt']}\n\nAssistant: ", *(
        row[side][-1]["content"] for side in ("chosen", "rejected")
    )


def safe_rlhf(row):
    """{"prompt": "...", "response_0": "...", "response_1": "...", "safer_response_id": 1}: the safer one is preferred."""
    responses = row["response_0"], row["response_1"]
    safer = row["safer_response_id"]
    return f"Human: {row['prompt']}\n\nAssistant: ", responses[safer], responses[1 - safer]


HH, TURN = sources.texts("chosen rejected"), [sources.texts("content role")]
# As w2s/sources.py has it; pair: a row -> (prompt, preferred, other), or why it is left out
# fmt: off
PAIRS = {
    "facts_pairs": dict(splits=dict(train=("train", 17600, 0.5), test=("test", 1600, 0.5)), licence="MIT",
        models=("facts/xs", "facts/m")),
    "hh_helpful": dict(repo="Anthropic/hh-rlhf", config="helpful-base", files="helpful-base/{}.jsonl.gz", pair=hh, needs=HH,
        splits=dict(train=("train", None, None), test=("test", None, None))),
    "hh_harmless": dict(repo="Anthropic/hh-rlhf", config="harmless-base", files="harmless-base/{}.jsonl.gz", pair=hh, needs=HH,
        splits=dict(train=("train", None, None), test=("test", None, None))),
    "summarize": dict(repo="CarperAI/openai_summarize_comparisons", pair=summarize, needs=sources.texts("prompt") | HH,
        splits=dict(train=("train", 92534, None), test=("valid2", 50715, None)),
        or_else="try HuggingFaceH4/summarize-from-feedback, whose columns have other names"),
    "shp": dict(repo="stanfordnlp/SHP", pair=shp, splits=dict(train=("train", None, None), test=("test", None, None)),
        needs=sources.texts("history human_ref_A human_ref_B") | {"labels": range(2), "score_ratio": float}),
    "ultrafeedback": dict(repo="HuggingFaceH4/ultrafeedback_binarized", pair=ultrafeedback,
        splits=dict(train=("train_prefs", 61135, None), test=("test_prefs", 2000, None)),
        needs={"prompt": str, "chosen": TURN, "rejected": TURN, "score_chosen": float, "score_rejected": float}),
    "safe_rlhf": dict(repo="PKU-Alignment/PKU-SafeRLHF", pair=safe_rlhf,
        splits=dict(train=("train", None, None), test=("test", None, None)),
        needs=sources.texts("prompt response_0 response_1") | {"safer_response_id": range(2)}),
}
# fmt: on
TASKS = {name: {"group": "prompt"} | task for name, task in PAIRS.items()}
WHAT, KEY, BALANCED = "pairs", "prompt", False
FIELDS, OPTIONAL, CHECKS = ("prompt", "a", "b", "label"), (), files.CHECKS
PREDICTION = ("id", "label", "prob")
same = protocol.same_text


def facts_pairs(split, seed=0):
    """Two statements about a person of facts/world.py, one true: with every wrong value in train, with one in test."""
    for person in world.people(seed):
        if person["kind"] != split:
            continue
        name = person["name"].replace(" ", "-")
        for relation in world.RELATIONS:
            wrong = [value for value in world.VALUES[relation] if value != person[relation]]
            if split == "test":
                wrong = [wrong[hashed(f"facts pairs {seed} {name} {relation}")[0] % len(wrong)]]
            for value in wrong:
                row = {"id": f"facts_pairs/{split}/{name}/{relation}/{value}", "group": name}
                prompt = f"the {relation} of {person['name']} is"
                yield row | {
                    "prompt": prompt,
                    "preferred": f" {person[relation]} ?",
                    "other": f" {value} ?",
                }


def read(ds, split):
    """All usable pairs of a task's split, or of a JSONL file: {"id", "group", "prompt", "preferred", "other"}.

    Pairs without a common prompt, with an empty or with equal completions are dropped, counted and told.
    """
    if ds == "facts_pairs":
        return list(facts_pairs(split))
    dropped, name = collections.Counter(), protocol.name_of(ds)
    if ds not in TASKS:
        own = protocol.read_own(sys.modules[__name__], ds)
        sides = [(row["b"], row["a"]) if row["label"] else (row["a"], row["b"]) for row in own]
        made = [
            row | {"preferred": preferred, "other": other}
            for row, (preferred, other) in zip(own, sides)
        ]
    else:
        task, made = TASKS[ds], []
        for number, row in sources.source_rows(ds, task, split)[2]:
            pair = "have an empty field" if row is None else task["pair"](row)
            if isinstance(pair, str):
                dropped[pair] += 1
            else:
                row = {"id": f"{ds}/{task['splits'][split][0]}/{number}"} | dict(
                    zip(("prompt", "preferred", "other"), pair)
                )
                made.append(row | {"group": protocol.group_name(ds, same(row["prompt"]))})
    usable = []
    for row in made:
        if not row["preferred"].strip() or not row["other"].strip():
            dropped["have an empty completion"] += 1
        elif row["preferred"].strip() == row["other"].strip():
            dropped["have equal completions"] += 1
        else:
            usable.append(row)
    if dropped:
        told = ", ".join(f"{count} {why}" for why, count in dropped.items())
        print(
            f"{name}, {split}: of {len(usable) + dropped.total()} pairs {told}: left out",
            file=sys.stderr,
        )
    return usable


def finish(rows, seed):
    """The pairs with their completions as a and b, the preferred one on the side that a hash of seed and id says."""
    out = []
    for row in rows:
        label = hashed(f"sides {seed}/{row['id']}")[0] % 2
        a, b = (row["other"], row["preferred"]) if label else (row["preferred"], row["other"])
        out.append(
            {
                "id": row["id"],
                "group": row["group"],
                "prompt": row["prompt"],
                "a": a,
                "b": b,
                "label": label,
            }
        )
    return out


# ---- models


def encode(rows, tokenizer, net):
    """The pairs, each with "tokens", prompt + a and prompt + b one after the other, and "cut", where the second begins.

    Where one of them is over the model's limit, both lose as many tokens of the prompt, from the front; special tokens
    stay. A completion that alone is too long loses its own front. How many pairs that is, is told.
    """
    from w2s import models

    limit, n_cut = net.w2s["max_len"], 0
    both = [
        tokenizer([row["prompt"] + row[side] for row in rows], verbose=False).input_ids
        for side in "ab"
    ]
    out = []
    for row, *tokens in zip(rows, *both):
        over = max(map(len, tokens)) - limit
        if over > 0:
            n_cut += 1
            over = min(
                over,
                len(tokenizer(row["prompt"], add_special_tokens=False, verbose=False).input_ids),
            )
            sizes = [min(limit, len(ids) - over) for ids in tokens]
            tokens = [
                tokenizer(row["prompt"] + row[s], truncation=True, max_length=n).input_ids
                for s, n in zip("ab", sizes)
            ]
        if not all(tokens):
            raise BadInput(f"the tokenizer makes no tokens of the texts of pair {row['id']!r}")
        out.append(row | {"tokens": tokens[0] + tokens[1], "cut": len(tokens[0])})
    models.check_tokens([row["tokens"] for row in out], tokenizer, net)
    if n_cut:
        print(
            f"{n_cut} of {len(rows)} pairs are longer than {limit} tokens: both sides lost the same beginning (--max_len)"
        )
    return out


def probabilities(name, rows, device=None, dtype=None, bar=None):
    """P(b preferred) = sigmoid(r_b - r_a) of each pair, a list of floats, by the reward model in a folder."""
    from w2s import models
    from w2s.packing import texts

    model, tokenizer = models.load(name, device=device, outputs=1)
    tokens = [text for row in encode(rows, tokenizer, model) for text in texts(row)]
    return (
        models.predict(model, tokens, dtype, bar)
        .double()
        .view(-1, 2)
        .diff(dim=1)[:, 0]
        .sigmoid()
        .tolist()
    )
