"""The language-model loss of packed texts, with a bounded number of logits in memory at once."""

import itertools

import torch
from torch.nn.functional import cross_entropy

from w2s import loop, packing
from w2s.files import BadInput

CHUNK = 2**23  # logits in memory at once: 32 MB in float32, about twice that in the backward pass


class ChunkedLoss(torch.autograd.Function):
    """cross_entropy(hidden @ weight.T, targets) of M tokens [M], `size` tokens' logits at a time, made again going back.

    hidden [M, H], weight [V, H] (multiplied in hidden's type), targets [M]. Every chunk adds to one gradient of the weight:
    left to autograd, each would make a [V, H] of its own.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, size):
        w, losses, normalizers = weight.to(hidden.dtype), [], []
        for h, t in zip(hidden.split(size), targets.split(size)):
            logits = (h @ w.T).to(weight.dtype)
            normalizers.append(logits.logsumexp(1))
            losses.append(normalizers[-1] - logits.gather(1, t[:, None])[:, 0])
        ctx.size = size
        ctx.save_for_backward(hidden, weight, targets, torch.cat(normalizers))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, targets, normalizer = ctx.saved_tensors
        w, grad_hidden, grad_weight = (
            weight.to(hidden.dtype),
            torch.empty_like(hidden),
            torch.zeros_like(weight),
        )
        for h, t, z, g, out in zip(
            *(x.split(ctx.size) for x in (hidden, targets, normalizer, grad, grad_hidden))
        ):
            p = (
                (h @ w.T).to(weight.dtype).sub_(z[:, None]).exp_()
            )  # d loss / d logits = softmax - one-hot
            p[torch.arange(len(t), device=t.device), t] -= 1
            p = p.mul_(g[:, None]).to(hidden.dtype)
            out.copy_(p @ w)
            if hidden.dtype == weight.dtype:
                grad_weight.addmm_(p.T, h)
            else:
                grad_weight += p.T @ h
        return grad_hidden, grad_weight, None, None


def nll(model, rows):
    """Mean negative log-likelihood [N, 1] in nats of each row's last "asked" tokens (default: all after the first).

    rows: dicts with "tokens".
    """
    tokens, device = [row["tokens"] for row in rows], model.device
    hidden = packing.hidden_states(model, tokens, everywhere=True)
    if torch.is_autocast_enabled(device.type):
        hidden = hidden.to(torch.get_autocast_dtype(device.type))
    weight, asked = (
        model.get_output_embeddings().weight,
        [row.get("asked", len(row["tokens"]) - 1) for row in rows],
    )
    ends = itertools.accumulate(
        map(len, tokens)
    )  # the token before each of those asked for predicts it
    predicts = torch.tensor(
        [i for end, k in zip(ends, asked) for i in range(end - k - 1, end - 1)], dtype=torch.long
    )
    targets = torch.tensor(
        [token for ids, k in zip(tokens, asked) for token in ids[len(ids) - k :]], dtype=torch.long
    )
    asked = torch.tensor(asked)
    owner = torch.arange(len(tokens)).repeat_interleave(asked)
    predicts, targets, owner, asked = (
        packing.to_device(x, device) for x in (predicts, targets, owner, asked)
    )
    each = ChunkedLoss.apply(hidden[predicts], weight, targets, max(1, CHUNK // len(weight)))
    return (each.new_zeros(len(tokens)).index_add(0, owner, each) / asked.clamp(min=1).to(each))[
        :, None
    ]


def share_of_loss(mean_nll, share, progress):
    """The loss of a row, [N, 1] -> [N]: its mean over tokens times `share` [N], its predicted tokens over the mean row's.

    So every token of an epoch counts the same.
    """
    return mean_nll[:, 0] * share


def fit(model, rows, **options):
    """loop.fit() for a causal language model, on rows with "tokens"; "asked", see nll()."""
    asked = [row.get("asked", len(row["tokens"]) - 1) for row in rows]
    rows = [row | {"share": n * len(rows) / sum(asked)} for row, n in zip(rows, asked)]
    return loop.fit(model, rows, "share", share_of_loss, whole_batch=False, outputs=nll, **options)


def check_head(model, name):
    """BadInput for a model that does more than one matrix product to get its logits (a bias, a soft cap, a scale)."""
    ids, usual = torch.arange(1, 9, device=model.device), model.config._attn_implementation
    with torch.no_grad():
        ours = nll(model, [{"tokens": ids.tolist()}]).item()
        model.set_attn_implementation("eager")  # a plain call has no packed texts to attend over
        wanted = cross_entropy(model(input_ids=ids[None]).logits[0, :-1].float(), ids[1:]).item()
    model.set_attn_implementation(usual)
    if abs(ours - wanted) > 1e-3 * wanted:
        raise BadInput(
            f"--model={name}: {model.config.model_type} changes its logits after its last layer: not yet"
        )
