"""The language-model loss of packed texts, with a bounded number of logits in memory at once."""

import itertools

import torch
from torch.nn.functional import cross_entropy

from w2s import packing
from w2s.files import BadInput, rank, world
from w2s.models import pick_dtype
from w2s.parts import answers, together

CHUNK = 2**23  # logits in memory at once: 32 MB in float32, about twice that in the backward pass
ON_GPU = 2**27  # half a GB: every chunk reads all output weights, and writes as many gradients


class ChunkedLoss(torch.autograd.Function):
    """cross_entropy(hidden @ weight.T, targets), `size` tokens' logits at a time; returns [M].

    hidden [M, H], weight [V, H] (multiplied in hidden's type), targets [M]. The backward pass
    computes the logits again; left to autograd, each chunk would make a [V, H] of its own.
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
        w = weight.to(hidden.dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        whole = (x.split(ctx.size) for x in (hidden, targets, normalizer, grad, grad_hidden))
        for h, t, z, g, out in zip(*whole):
            # d loss / d logits = softmax - one-hot
            p = (h @ w.T).to(weight.dtype).sub_(z[:, None]).exp_()
            p[torch.arange(len(t), device=t.device), t] -= 1
            p = p.mul_(g[:, None]).to(hidden.dtype)
            out.copy_(p @ w)
            if hidden.dtype == weight.dtype:
                grad_weight.addmm_(p.T, h)
            else:
                grad_weight += p.T @ h
        return grad_hidden, grad_weight, None, None


def shares(rows):
    """The rows with "given": a row's share of the predicted tokens times the number of rows, so
    that by share_of_loss() every token of an epoch counts the same."""
    n_asked = sum(asked(row) for row in rows)
    return [row | {"given": asked(row) * len(rows) / n_asked} for row in rows]


def asked(row):
    """How many of its last tokens a row asks for: "asked", or all after the first."""
    return row.get("asked", len(row["tokens"]) - 1)


def share_of_loss(mean_nll, share, progress):
    """The loss of each row [N]: its mean over tokens [N, 1] times its share [N]."""
    return mean_nll[:, 0] * share


def nll(model, rows):
    """Mean negative log-likelihood [N, 1] in nats of the tokens that each row asks for."""
    tokens, counts = [row["tokens"] for row in rows], [asked(row) for row in rows]
    hidden = packing.hidden_states(model, tokens, everywhere=True)
    if torch.is_autocast_enabled(model.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(model.device.type))
    weight = model.get_output_embeddings().weight
    # the token before each of those asked for predicts it
    ends = itertools.accumulate(map(len, tokens))
    predicts = [i for end, k in zip(ends, counts) for i in range(end - k - 1, end - 1)]
    targets = [token for ids, k in zip(tokens, counts) for token in ids[len(ids) - k :]]
    owner = [i for i, k in enumerate(counts) for _ in range(k)]
    numbers = (torch.tensor(x, dtype=torch.long) for x in (predicts, targets, owner, counts))
    predicts, targets, owner, counts = (packing.to_device(x, model.device) for x in numbers)
    size = max(1, (ON_GPU if weight.is_cuda else CHUNK) // len(weight))
    losses = ChunkedLoss.apply(hidden[predicts], weight, targets, size)
    total = losses.new_zeros(len(tokens)).index_add(0, owner, losses)
    return (total / counts.clamp(min=1).to(losses))[:, None]


@torch.no_grad()
def log_likelihoods(model, rows, dtype=None, size=32):
    """Log-probability in nats of all that each row asks for, a list; `size` rows at a time."""
    rows = rows[rank() :: world()]
    half, out = pick_dtype(model, dtype) == "bf16", [0.0] * len(rows)
    tokens, how = [row["tokens"] for row in rows], [half, size, *map(asked, rows)]

    def run(batch):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            return nll(model, [rows[i] for i in batch])[:, 0]

    for batch, means in answers(model, tokens, lambda longest: size, run, how, "likelihoods"):
        for i, mean in zip(batch, means.double().tolist()):
            out[i] = -mean * asked(rows[i])
    return together("dealt", out)


def check_head(model):
    """BadInput for a model whose logits are more than one matrix product (a bias, cap or scale)."""
    ids, usual = torch.arange(1, 9, device=model.device), model.config._attn_implementation
    with torch.no_grad():
        ours = nll(model, [{"tokens": ids.tolist()}]).item()
        model.set_attn_implementation("eager")  # a plain call has no packed texts to attend over
        wanted = cross_entropy(model(input_ids=ids[None]).logits[0, :-1].float(), ids[1:]).item()
    model.set_attn_implementation(usual)
    if abs(ours - wanted) > 1e-3 * wanted:
        told = f"{model.config.model_type} changes its logits after its last layer: not yet"
        raise BadInput(f"--model: {told}")
