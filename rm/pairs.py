"""Preference pairs: a prompt, two completions, and which of the two was preferred. A model reads prompt + a and prompt + b.

    {"id": "hh_helpful/train/7", "group": "...", "prompt": "Human: Hi\\n\\nAssistant:", "a": " Hello!", "b": " No.", "label": 0}

label is 1 where b was preferred; which side that is, a hash of --data_seed and the id decides. A labels file adds "weak", the
supervisor's P(b preferred). Pairs of one prompt form a group. The protocol is that of tasks.py: one test set for all, halves
cut by group, no training pair that shares a prompt or group with a test pair.

    python rm/pairs.py                                # the table of tasks
    python rm/pairs.py hh_helpful --split=test --n=3  # pairs as JSONL (--split=weak|strong|test)
    python rm/pairs.py --mirror=DIR hh_helpful shp    # copies of the hub's data for a machine without it
"""

import collections
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import cli
import hub
import rows as files
import sources
import tasks
from facts import world
from rows import BadInput
from sources import hashed


def hh(row):
    """{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: No."}: dialogues."""
    prompts, completions = zip(*(cut_dialogue(row[side]) for side in ("chosen", "rejected")))
    return (prompts[0], *completions) if prompts[0] and prompts[0] == prompts[1] else "have no common prompt"


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
    return f"Human: {row['prompt']}\n\nAssistant: ", *(row[side][-1]["content"] for side in ("chosen", "rejected"))


def safe_rlhf(row):
    """{"prompt": "...", "response_0": "...", "response_1": "...", "safer_response_id": 1}: the safer one is preferred."""
    responses = row["response_0"], row["response_1"]
    safer = row["safer_response_id"]
    return f"Human: {row['prompt']}\n\nAssistant: ", responses[safer], responses[1 - safer]


HH, TURN = sources.texts("chosen rejected"), [sources.texts("content role")]
# As sources.TASKS; pair: a row -> (prompt, preferred, other), or why it is left out
# fmt: off
PAIRS = {
    "facts_pairs": dict(splits=dict(train=("train", 17600, 0.5), test=("test", 1600, 0.5)), licence="MIT"),
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
                yield row | {"prompt": prompt, "preferred": f" {person[relation]} ?", "other": f" {value} ?"}


def load(ds, split):
    """All usable pairs of a task's split, or of a JSONL file: {"id", "group", "prompt", "preferred", "other"}.

    Pairs without a common prompt, with an empty or with equal completions are dropped, counted and told.
    """
    if ds == "facts_pairs":
        return list(facts_pairs(split))
    if ds not in PAIRS:
        made, dropped = own_pairs(ds), collections.Counter()
    else:
        task, made, dropped = PAIRS[ds], [], collections.Counter()
        for number, row in sources.source_rows(ds, task, split)[2]:
            pair = "have an empty field" if row is None else task["pair"](row)
            if isinstance(pair, str):
                dropped[pair] += 1
            else:
                made.append(
                    {"id": f"{ds}/{task['splits'][split][0]}/{number}"} | dict(zip(("prompt", "preferred", "other"), pair))
                )
    for row in made:
        row.setdefault("group", f"{tasks.name_of(ds)}/{hashed(row['prompt']).hex()[:16]}")
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
        print(f"{tasks.name_of(ds)}, {split}: of {len(usable) + dropped.total()} pairs {told}: left out", file=sys.stderr)
    return usable


def own_pairs(path):
    """The pairs of a JSONL file with prompt, a, b and label; without an id the line number makes one."""
    made = []
    for number, row in enumerate(read_pairs(path), 1):
        sides = {"preferred": row["b"], "other": row["a"]} if row["label"] else {"preferred": row["a"], "other": row["b"]}
        own = {field: row[field] for field in ("id", "group") if field in row}
        made.append({"id": f"{tasks.name_of(path)}/{number}"} | own | {"prompt": row["prompt"]} | sides)
    if len({row["id"] for row in made}) < len(made):
        raise BadInput(f"{path} gives some pairs an id that looks like another's line number: give every pair its own id")
    return made


def read_pairs(path, required=()):
    """The objects of a JSONL file of pairs, every field checked; BadInput names file and line."""
    rows = files.read_jsonl(path, ["prompt", "a", "b", "label", *required])
    for number, row in enumerate(rows, 1):
        for field in ("prompt", "a", "b"):
            if not files.is_text(row[field]):
                found = json.dumps(row[field])[:60]
                raise BadInput(f"{path}:{number} field {field!r} is {found}; it must be a string that is not empty")
    return rows


def sided(rows, seed):
    """The pairs with their completions as a and b, the preferred one on the side that a hash of seed and id says."""
    out = []
    for row in rows:
        label = hashed(f"sides {seed}/{row['id']}")[0] % 2
        a, b = (row["other"], row["preferred"]) if label else (row["preferred"], row["other"])
        out.append({"id": row["id"], "group": row["group"], "prompt": row["prompt"], "a": a, "b": b, "label": label})
    return out


def describe(ds, data_seed=0, n_train=None, n_test=None, test=None):
    """Which pairs an experiment is about, for the cards: see tasks.describe."""
    return tasks.describe(ds, data_seed, n_train, n_test, test, PAIRS)


def split_of(data):
    """(training pairs, test pairs) of a data description; own files without --test lose a fifth, by group, to test."""
    tasks.check_unchanged(data)
    if data["ds"] in PAIRS:
        return load(data["ds"], "train"), load(data["ds"], "test")
    rows = load(data["ds"], "train")
    return (rows, load(data["test"], "test")) if data["test"] else tasks.cut_test(rows)


def test_rows(data):
    """The test pairs of a data description: the same for every model, moved by no seed."""
    pairs = load(data["ds"], "test") if data["ds"] in PAIRS else split_of(data)[1]
    if not pairs:
        raise BadInput(f"{data['ds']}: there are no test pairs")
    return sided([row for group in tasks.by_group(pairs, "test") for row in group], 0)[: data["n_test"]]


def half(data, which):
    """The pairs of the "weak" or the "strong" half, at most n_train of them (default tasks.MAX_TRAIN)."""
    pool, test = split_of(data)
    tested = {row["group"] for row in test} | {row["prompt"] for row in test}
    apart = [row for row in pool if row["group"] not in tested and row["prompt"] not in tested]
    if len(apart) < len(pool):
        left_out = f"{len(pool) - len(apart)} training pairs share a group or a prompt with the test set"
        print(f"{tasks.name_of(data['ds'])}: {left_out} and are left out", file=sys.stderr)
    if not apart:
        raise BadInput(f"{data['ds']}: no training pairs are left")
    return sided(tasks.cut_half(apart, data, which), data["data_seed"])


def read_labels(labels):
    """(pairs with "weak", data description, sha256 of the supervisors' models) of a labels file; a foreign one has no card."""
    rows = read_pairs(labels, ["id", "weak"])
    card = files.read_card(labels)
    if card is None:
        print(f"{labels} has no card of ours: which task it is about is not known, so eval_rm.py will need --ds")
    card = card or {"data": None, "inputs": {}}
    return [{"group": row["id"]} | row for row in rows], card["data"], card["inputs"].get("runs")


def finished_run(run):
    """The card of a finished run of train_rm.py, whose data are pairs; BadInput for any other."""
    card = files.finished_run(run)
    if "labels" not in card["args"] or "ds" not in card["args"]:
        raise BadInput(f"{run} is no reward model: give the --out of rm/train_rm.py")
    return card


# ---- models


def encode(rows, tokenizer, model):
    """The pairs, each with "tokens", prompt + a and prompt + b one after the other, and "cut", where the second begins.

    Where one of them is over the model's limit, both lose as many tokens of the prompt, from the front; special tokens
    stay. A completion that alone is too long loses its own front. How many pairs that is, is told.
    """
    limit, n_cut = model.w2s["max_len"], 0
    both = [tokenizer([row["prompt"] + row[side] for row in rows], verbose=False).input_ids for side in "ab"]
    out = []
    for row, *tokens in zip(rows, *both):
        over = max(map(len, tokens)) - limit
        if over > 0:
            n_cut += 1
            over = min(over, len(tokenizer(row["prompt"], add_special_tokens=False, verbose=False).input_ids))
            sizes = [min(limit, len(ids) - over) for ids in tokens]
            tokens = [tokenizer(row["prompt"] + row[s], truncation=True, max_length=n).input_ids for s, n in zip("ab", sizes)]
        if not all(tokens):
            raise BadInput(f"the tokenizer makes no tokens of the texts of pair {row['id']!r}")
        out.append(row | {"tokens": tokens[0] + tokens[1], "cut": len(tokens[0])})
    if n_cut:
        print(f"{n_cut} of {len(rows)} pairs are longer than {limit} tokens: both sides lost the same beginning (--max_len)")
    return out


def probabilities(name, rows, device=None, dtype=None, bar=None):
    """P(b preferred) = sigmoid(r_b - r_a) of each pair, a list of floats, by the reward model in a folder."""
    import model as models
    from packing import texts

    model, tokenizer = models.load(name, device=device, outputs=1)
    tokens = [text for row in encode(rows, tokenizer, model) for text in texts(row)]
    return models.predict(model, tokens, dtype, bar).double().view(-1, 2).diff(dim=1)[:, 0].sigmoid().tolist()


def main(*names: str, split: str = "test", n: int = None, data_seed: int = 0, test: str = None, mirror: str = None):
    """The table of tasks; with a task, its pairs as JSONL; with --mirror, copies of the data for machines without the hub.

    Args:
        names: a task's name, or the path of a JSONL file with prompt, a, b and label; without it the table is shown
        split: weak, strong (the halves) or test
        n: how many pairs
        data_seed: moves the halves and the sides
        test: a JSONL file of test pairs, for a JSONL file of your own
        mirror: a folder to write the named tasks' data to, for W2S_MIRROR; what is there is kept
    """
    cli.check(locals())
    for name in names if mirror else ():
        if name not in PAIRS or "repo" not in PAIRS[name]:
            raise BadInput(f"{name} is not on the hub{cli.nearest(name, PAIRS)}")
        hub.write_mirror(mirror, name, PAIRS[name])
    if mirror:
        return
    for name, task in PAIRS.items() if not names else ():
        print(f"{name:<14} {task.get('repo', 'made here')} {task.get('config', '')}")
    if names:
        data = describe(names[0], data_seed, n, n, test)
        for row in half(data, split) if split in ("weak", "strong") else test_rows(data):
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    cli.run(main)
