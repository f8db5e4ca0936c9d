"""Run texts without padding: a batch is one row of tokens, attention never crosses between texts.

Our attention, registered with transformers, gets the lengths of the texts as an extra keyword,
which every layer hands down. Each text is read at its own last (encoders: first) token.
"""

import math
from inspect import signature

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface

# torch 2.12 wants to be told of key heads that several query heads share; 2.11 has no word for it
GROUPED_HEADS = {"enable_gqa": True} if "enable_gqa" in signature(varlen_attn).parameters else {}
SHORT = 512  # tokens; up to here the scores of a group may be kept for the backward pass
# tokens; a CPU compiles bf16 products for every shape, so lengths of rows and groups are rounded up
ROW_STEP, GROUP_STEP = 64, 8

# hidden states of the first tokens [N, H] -> logits [N, 2], for the encoders that can run packed
ENCODER_HEADS = {
    "bert": lambda model, first: model.classifier(model.bert.pooler(first[:, None])),
    "distilbert": lambda model, first: model.classifier(model.pre_classifier(first).relu()),
}


def groups(lengths, width, device, step=1):
    """Neighbouring texts whose attention runs together, padded to the longest of them.

    Texts join while padding costs less than a group; width: the hidden size. Returns [(count,
    longest (a multiple of step), slots, own)]. slots [count x longest]: which of the group's tokens
    stands there (padding repeats a text's last); own [tokens]: the slot of each token.
    """
    allowed = (2**31 if device.type == "cuda" else 2**22) // width  # a group costs so many scores
    parts = [[]]
    for length in lengths:
        grown = [*parts[-1], length]
        if len(grown) * max(grown) ** 2 - sum(n * n for n in grown) > allowed:
            parts.append([length])
        else:
            parts[-1] = grown
    out = []
    for part in parts:
        longest = math.ceil(max(part) / step) * step
        sizes, column = torch.tensor(part)[:, None], torch.arange(longest)
        slots = (sizes.cumsum(0) - sizes) + column.minimum(sizes - 1)
        own = (column < sizes).flatten().nonzero()[:, 0]
        slots, own = (to_device(x, device) for x in (slots.flatten(), own))
        out.append((len(part), longest, slots, own))
    return out


def packed_attention(
    module, query, key, value, attention_mask, texts, scaling=None, sliding_window=None, **kwargs
):
    """Attention [1, T, heads, D] for one row of packed texts; `texts`: see packed().

    query [1, heads, T, D], key and value [1, kv heads, T, D].
    """
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise NotImplementedError("this architecture changes the attention scores: it runs padded")
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    # rotary positions make float32 of q and k under autocast; v comes straight from its layer
    q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    if "cu_seq_q" in texts:
        window = (sliding_window - 1 if causal and sliding_window else -1, 0 if causal else -1)
        if q.shape[1] != k.shape[1] and not GROUPED_HEADS:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        how = texts | GROUPED_HEADS
        return varlen_attn(q, k, v, scale=scaling, window_size=window, **how)[None], None
    # One split writes one gradient; slicing would write a zeroed tensor of full size per group.
    pieces, sizes = [], [len(own) for *_, own in texts["groups"]]
    sizes.append(len(q) - sum(sizes))  # what packed() filled up with
    split = zip(texts["groups"], q.split(sizes), k.split(sizes), v.split(sizes))
    for (count, longest, slots, own), *qkv in split:
        if len(slots) > len(own):
            qkv = [x.index_select(0, slots) for x in qkv]
        qkv = [x.unflatten(0, (count, longest)).transpose(1, 2) for x in qkv]
        seen = visible(count, longest, own, causal, sliding_window)
        out = attend(*qkv, causal, seen, scaling).transpose(1, 2).flatten(0, 1)
        pieces.append(out.index_select(0, own) if len(slots) > len(own) else out)
    return torch.cat([*pieces, torch.zeros_like(q[: sizes[-1]])])[None], None


def visible(count, longest, own, causal, window):
    """Which keys a query of a group may see: bool, broadcast to [count, heads, longest, longest].

    None where it is all, in a causal model all before (and padding comes later).
    """
    if causal and window and window < longest:  # a token sees itself and the window - 1 before it
        column = torch.arange(longest, device=own.device)
        distance = column[:, None] - column
        return (distance >= 0) & (distance < window)
    if not causal and len(own) < count * longest:
        mask = torch.zeros(count * longest, dtype=torch.bool, device=own.device)
        return mask.index_fill(0, own, True).view(count, 1, 1, longest)
    return None


def attend(q, k, v, causal, mask, scaling):
    """Attention of a group: q [count, heads, longest, D], k and v with as many heads or fewer.

    Short texts in bf16 go through plain matrix products, on a CPU twice as fast as torch's kernel.
    Long ones take that kernel in float32, as it keeps no scores. Returns q's shape and type.
    """
    if q.shape[1] != k.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    with torch.autocast(q.device.type, enabled=False):
        if q.dtype != torch.bfloat16 or q.shape[2] > SHORT:
            qkv = [x.float() if x.dtype == torch.bfloat16 else x for x in (q, k, v)]
            how = {"attn_mask": mask, "is_causal": causal and mask is None, "scale": scaling}
            return scaled_dot_product_attention(*qkv, **how).to(q.dtype)
        if mask is None:
            mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device)
            mask = mask.tril() if causal else mask
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
        bias = bias.masked_fill(~mask, float("-inf")).expand(*q.shape[:3], -1).flatten(0, 1)
        scale = q.shape[-1] ** -0.5 if scaling is None else scaling
        scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scale)
        return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view(q.shape)


AttentionInterface.register("packed", packed_attention)


def logits(model, tokens):
    """Logits [N, 2], or rewards [N, 1], of N texts given as token ids, in the model's own type."""
    if reads(model) is None:
        ids, mask, _ = pad(model, tokens)
        return model(input_ids=ids, attention_mask=mask).logits.to(model.dtype)
    hidden = hidden_states(model, tokens).to(model.dtype)
    with torch.autocast(model.device.type, enabled=False):  # bf16 would leave three digits
        if hasattr(model, "score"):
            return model.score(hidden)
        return ENCODER_HEADS[model.config.model_type](model, hidden)


def row_logits(model, rows):
    """Logits [N, 2] of N rows with "tokens"; of pairs the rewards [r_a, r_b] of both texts."""
    return logits(model, [text for row in rows for text in texts(row)]).view(len(rows), 2)


def texts(row):
    """The texts of a row as token ids: one, or the two of a preference pair, cut at "cut"."""
    tokens, cut = row["tokens"], row.get("cut")
    return [tokens[:cut], tokens[cut:]] if cut else [tokens]


def reads(model):
    """Which token the head reads: "last" (causal models), "first" (known encoders), else None."""
    if hasattr(model, "score") or model.get_output_embeddings():
        return "last"
    return "first" if model.config.model_type in ENCODER_HEADS else None


def hidden_states(model, tokens, everywhere=False):
    """Hidden states [N, H] of the token that the head reads, or of every token [T, H]."""
    return (packed if model.w2s["packed"] else padded)(model, tokens, everywhere)


def packed(model, tokens, everywhere=False):
    """hidden_states(), all texts in one row of tokens."""
    lengths = [len(ids) for ids in tokens]
    compiles = model.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    fill = -sum(lengths) % ROW_STEP if compiles else 0  # see nothing, and nobody reads them
    ids = torch.tensor([*(token for ids in tokens for token in ids), *tokens[0][:1] * fill])[None]
    positions = torch.cat([*map(torch.arange, lengths), torch.zeros(fill, dtype=torch.long)])[None]
    ends = torch.tensor([0, *lengths]).cumsum(0)
    read = ends[1:] - 1 if reads(model) == "last" else ends[:-1]
    inputs = (ids, positions, read, ends.int())
    ids, positions, read, ends = (to_device(x, model.device) for x in inputs)
    if on_gpu(model):
        longest = max(lengths)
        bounds = {"cu_seq_q": ends, "cu_seq_k": ends, "max_q": longest, "max_k": longest}
    else:
        width, step = model.config.get_text_config().hidden_size, GROUP_STEP if compiles else 1
        bounds = {"groups": groups(lengths, width, model.device, step)}
    # BERT would cut its all-zero segment ids to its longest text, shorter than a packed row
    extra = {"token_type_ids": torch.zeros_like(ids)} if model.config.model_type == "bert" else {}
    out = model.base_model(input_ids=ids, position_ids=positions, texts=bounds, **extra)
    hidden = out.last_hidden_state[0]
    return hidden[: sum(lengths)] if everywhere else hidden[read]


def on_gpu(model):
    """True where torch's kernel for packed texts runs: on a GPU, in bf16, if right at load."""
    return getattr(model, "varlen", False) and torch.is_autocast_enabled("cuda")


def to_device(x, device):
    """The tensor on the device; to a GPU by a copy that the processor does not wait for."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def padded(model, tokens, everywhere=False):
    """hidden_states(), the texts padded on the right to the longest."""
    ids, mask, lengths = pad(model, tokens)
    hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    if everywhere:
        return hidden[mask.bool()]
    if reads(model) == "first":
        return hidden[:, 0]
    # by position, never by token id: the pad token may well be a text's own last token
    return hidden[torch.arange(len(tokens), device=hidden.device), lengths - 1]


def pad(model, tokens):
    """(ids [N, longest], attention mask [N, longest], lengths [N]) on the model's device."""
    lengths = torch.tensor([len(ids) for ids in tokens])
    ids = [torch.tensor(text) for text in tokens]
    ids = pad_sequence(ids, batch_first=True, padding_value=model.config.pad_token_id)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return tuple(to_device(x, model.device) for x in (ids, mask, lengths))
