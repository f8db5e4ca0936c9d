"""Run texts without padding: all of a batch in one row of tokens, attention never crossing from one into another.

A function registered with transformers' attention interface gets the lengths of the texts as an extra keyword, which
every layer hands down. Each text is read at its own last (encoders: first) token, by position, never by token id.
"""

import functools
import itertools

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# hidden states of the first tokens [N, H] -> logits [N, 2], for the encoders that can run packed
ENCODER_HEADS = {
    "bert": lambda model, first: model.classifier(model.bert.pooler(first[:, None])),
    "distilbert": lambda model, first: model.classifier(model.pre_classifier(first).relu()),
}


def packed_attention(module, query, key, value, attention_mask, lengths, scaling=None, sliding_window=None, **kwargs):
    """Attention for one row of packed texts; registered with transformers, which hands `lengths` down to every layer.

    query [1, heads, T, D], key and value [1, kv heads, T, D]; lengths: token counts, in order, summing to T.
    Neighbours of equal length run as one batch (sort by length and there are few batches). Returns [1, T, heads, D].
    """
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise NotImplementedError("this architecture changes the attention scores: it runs padded")
    causal = kwargs["is_causal"] if kwargs.get("is_causal") is not None else getattr(module, "is_causal", True)
    pieces = []
    runs = [(length, sum(1 for _ in same)) for length, same in itertools.groupby(lengths)]
    sizes = [length * count for length, count in runs]
    # One split writes one gradient; slicing would write a zeroed tensor of the full size for every run.
    for (length, count), q, k, v in zip(runs, query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2)):
        q, k, v = (x.unflatten(2, (count, length)).squeeze(0).transpose(0, 1) for x in (q, k, v))  # [count, heads, length, D]
        mask = None
        if causal and sliding_window and sliding_window < length:  # a token sees itself and the window - 1 before it
            distance = torch.arange(length, device=q.device)[:, None] - torch.arange(length, device=q.device)
            mask = (distance >= 0) & (distance < sliding_window)
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        pieces.append(out.transpose(1, 2).reshape(count * length, q.shape[1], q.shape[3]))
    return torch.cat(pieces)[None], None


AttentionInterface.register("packed", packed_attention)


def logits(model, tokens):
    """Logits [N, 2] in float32 (float64 for a float64 model) of N texts, given as lists of token ids."""
    if reads(model) is None:
        ids, mask = pad(model, tokens)[:2]
        return model(input_ids=ids, attention_mask=mask).logits.to(model.dtype)
    hidden = (packed if model.w2s["packed"] else padded)(model, tokens)
    with torch.autocast(model.device.type, enabled=False):  # bf16 would leave the logits three digits
        return head_of(model)(hidden.to(model.dtype))


def head_of(model):
    """The function from the hidden states that the head reads [N, H] to logits [N, 2]."""
    if hasattr(model, "score"):
        return model.score
    return functools.partial(ENCODER_HEADS[model.config.model_type], model)


def reads(model):
    """Which token of a text the head reads: "last" (causal models), "first" (known encoders), None where only they know."""
    if hasattr(model, "score"):
        return "last"
    return "first" if model.config.model_type in ENCODER_HEADS else None


def packed(model, tokens):
    """Hidden states [N, H] of the token that the head reads, all texts in one row of tokens."""
    lengths = [len(ids) for ids in tokens]
    ids = torch.tensor([token for ids in tokens for token in ids])[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    ends = torch.tensor(lengths).cumsum(0)
    read = ends - 1 if reads(model) == "last" else ends - torch.tensor(lengths)
    ids, positions, read = (x.to(model.device, non_blocking=True) for x in (ids, positions, read))
    # BERT would cut its all-zero segment ids to its longest text, shorter than a packed row
    extra = {"token_type_ids": torch.zeros_like(ids)} if model.config.model_type == "bert" else {}
    return model.base_model(input_ids=ids, position_ids=positions, lengths=lengths, **extra).last_hidden_state[0, read]


def padded(model, tokens):
    """The same with the texts padded on the right to the longest; for architectures that cannot run packed."""
    ids, mask, lengths = pad(model, tokens)
    hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    # by position, never by token id: the pad token may well be a text's own last token
    return hidden[torch.arange(len(tokens), device=hidden.device), lengths - 1] if reads(model) == "last" else hidden[:, 0]


def pad(model, tokens):
    """(ids [N, longest], attention mask [N, longest], lengths [N]) on the model's device."""
    lengths = torch.tensor([len(ids) for ids in tokens])
    ids = torch.full((len(tokens), int(lengths.max())), model.config.pad_token_id)
    for row, text in zip(ids, tokens):
        row[: len(text)] = torch.tensor(text)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(model.device), mask.to(model.device), lengths.to(model.device)


@torch.no_grad()
def can_pack(model):
    """True, with packed attention switched on, if this architecture computes the same packed as padded.

    Tried out at load on a few tokens rather than looked up in a list: state-space layers, position schemes of their own
    and whatever comes next are found out here, and run padded.
    """
    if reads(model) is None:
        return False
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings
    tokens = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in (5, 3, 9, 9)]
    usual, wanted = model.config._attn_implementation, padded(model, tokens)
    try:
        model.set_attn_implementation("packed")
        got = packed(model, tokens)
        if ((got - wanted).norm(dim=1) <= 1e-3 * wanted.norm(dim=1)).all():
            return True
    except Exception:  # an architecture that does not hand unknown keywords down to its attention
        pass
    model.set_attn_implementation(usual)
    return False
