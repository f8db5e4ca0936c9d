"""Prompting: a causal language model answers by its next token, untrained (paper, 5.2.1)."""

import random

from w2s import files, models


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
        raise files.BadInput(
            f"{labels} holds test rows (label.py --test_rows): their answers may be in no prompt"
        )
    asked = {row["text"] for row in rows}
    examples = (
        [row for row in files.read_jsonl(labels, ["text", field]) if row["text"] not in asked]
        if shots
        else []
    )
    if len(examples) < shots:
        raise files.BadInput(
            f"{labels} holds {len(examples)} rows that are no test rows, fewer than --shots={shots}"
        )
    model, tokenizer = models.load(name, head="answers", max_len=max_len, device=device)
    says = models.answers(tokenizer)
    prompts = []
    for row in rows:
        shown = random.Random(f"{seed} {row['id']}").sample(examples, shots)
        prompts.append(
            "".join(f"{one['text']}\n{says[one[field] > 0.5]}\n\n" for one in shown)
            + f"{row['text']}\n"
        )
    tokens = tokenizer(prompts, verbose=False).input_ids
    models.check_tokens(tokens, tokenizer, model)
    longest, limit = max(map(len, tokens)), model.w2s["max_len"]
    if longest > limit:
        told = f"take fewer --shots than {shots}, or a larger --max_len where the model has room"
        raise files.BadInput(
            f"the longest prompt has {longest} tokens, the context {limit}: {told}"
        )
    return models.predict(model, tokens, dtype, bar).double().softmax(dim=1)[:, 1].tolist()
