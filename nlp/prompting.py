"""Prompting: a causal language model answers by its next token, untrained (paper, 5.2.1)."""

import random

from w2s import answering, files, models


def probabilities(
    name, rows, shots, labels, target, seed, max_len=None, device=None, dtype=None, bar=None
):
    """P(label = 1) of each row, a list of floats: the softmax over the two answer tokens' logits.

    Each row is asked after `shots` examples of its own, drawn by seed from the labels file: a text,
    a new line, its answer ("weak": the hardened weak label, or "truth") and an empty line. BadInput
    where a prompt is longer than the model's context: unlike a text to be classified it is not cut.
    """
    field = "weak" if target == "weak" else "label"
    if shots and (files.read_card(labels) or {}).get("test_rows"):
        raise files.BadInput(f"{labels} holds test rows: their answers may be in no prompt")
    examples, asked = [], {row["text"] for row in rows}
    if shots:
        known = files.read_jsonl(labels, ["text", field])
        examples = [row for row in known if row["text"] not in asked]
    if len(examples) < shots:
        told = f"{len(examples)} rows that are no test rows, fewer than --shots={shots}"
        raise files.BadInput(f"{labels} holds {told}")
    model, tokenizer = models.load(name, head="answers", max_len=max_len, device=device)
    says = answering.answers(tokenizer)
    prompts = []
    for row in rows:
        shown = random.Random(f"{seed} {row['id']}").sample(examples, shots)
        before = (f"{one['text']}\n{says[one[field] > 0.5]}\n\n" for one in shown)
        prompts.append(f"{''.join(before)}{row['text']}\n")
    tokens = tokenizer(prompts, verbose=False).input_ids
    models.check_tokens(tokens, tokenizer, model)
    longest, limit = max(map(len, tokens)), model.w2s["max_len"]
    if longest > limit:
        told = f"the longest prompt has {longest} tokens, the context {limit}"
        raise files.BadInput(f"{told}: take fewer --shots, or a larger --max_len")
    return models.predict(model, tokens, dtype, bar).double().softmax(dim=1)[:, 1].tolist()
