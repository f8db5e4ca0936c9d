"""Asking: a causal language model answers by its next token (paper, 5.2.1), trained or not."""

import random

import texts
from w2s import answering, files, models, protocol

RATING = "How pleasant is this, from 1 to 9?"  # a token is one digit: 10 would be two
DIGITS = tuple("123456789")


def probabilities(
    name, rows, shots, labels, target, seed, max_len=None, device=None, dtype=None, bar=None,
    data=None,
):  # fmt: skip
    """P(label = 1) of each row, a list of floats: the softmax over the two answer tokens' logits.

    Each row is asked after `shots` examples of its own, drawn by seed: a text, a new line, its
    answer and an empty line. They come from the labels file, with its hardened weak labels
    (target="weak") or the truth; without one they are true rows of the weak half of `data`
    (protocol.describe), as many of a class as the draw gives.
    """
    field = "weak" if target == "weak" else "label"
    examples = known(rows, labels, field, data) if shots else []
    if len(examples) < shots:
        told = f"{len(examples)} rows that are no test rows, fewer than --shots={shots}"
        raise files.BadInput(f"{labels or data['ds']} holds {told}")
    model, tokenizer = models.load(name, head="answers", max_len=max_len, device=device)
    says = answering.answers(tokenizer)
    prompts = []
    for row in rows:
        shown = random.Random(f"{seed} {row['id']}").sample(examples, shots)
        before = (f"{one['text']}\n{says[one[field] > 0.5]}\n\n" for one in shown)
        prompts.append(f"{''.join(before)}{row['text']}\n")
    return said(model, tokenizer, prompts, dtype, bar).softmax(dim=1)[:, 1].tolist()


def known(rows, labels, field, data):
    """The rows that may stand as examples in the prompts of test rows."""
    if labels and (files.read_card(labels) or {}).get("test_rows"):
        raise files.BadInput(f"{labels} holds test rows: their answers may be in no prompt")
    groups = {row["group"] for row in rows}
    asked = groups | {protocol.text_hash(texts, row["text"]) for row in rows}
    if labels:
        examples = files.read_jsonl(labels, ["text", field])
    else:
        examples = protocol.half(texts, data, "weak")
    own = ({row.get("group"), protocol.text_hash(texts, row["text"])} for row in examples)
    return [row for row, sides in zip(examples, own) if not sides & asked]


def ratings(name, rows, max_len=None, device=None, dtype=None, bar=None):
    """P(label = 1) of rows of ETHICS utilitarianism, a list of floats: both situations are rated.

    Each is asked for alone: the situation, a new line, RATING and a new line. Its rating is the
    expected value of the next token among the digits 1 to 9; P(1) = sigmoid(second - first).
    """
    model, tokenizer = models.load(name, head="answers", max_len=max_len, device=device)
    answering.add_score(name, model, tokenizer, DIGITS)
    pairs = [row["text"].split("\n")[:2] for row in rows]
    asked = list(dict.fromkeys(one for pair in pairs for one in pair))  # most stand in two rows
    prompts = [f"{one}\n{RATING}\n" for one in asked]
    probs = said(model, tokenizer, prompts, dtype, bar).softmax(dim=1)
    rated = dict(zip(asked, probs @ probs.new_tensor(list(map(int, DIGITS)))))
    return [(rated[second] - rated[first]).sigmoid().item() for first, second in pairs]


def said(model, tokenizer, prompts, dtype, bar):
    """The logits [N, k] (float64) of the k answers after N prompts.

    BadInput where a prompt is longer than the context: unlike a text to be classified it is whole.
    """
    tokens = tokenizer(prompts, verbose=False).input_ids
    models.check_tokens(tokens, tokenizer, model)
    longest, limit = max(map(len, tokens)), model.w2s["max_len"]
    if longest > limit:
        told = f"the longest prompt has {longest} tokens, the context {limit}"
        raise files.BadInput(f"{told}: take fewer --shots, or a larger --max_len")
    return models.predict(model, tokens, dtype, bar).double()
