"""fit(): the one training loop. Weak supervisor, student and ceiling all go through it, so that PGR compares labels alone.

A step in float32 or bf16 autocast: the batch is packed without padding (model.py), AdamW is fused, the rate falls along
a cosine to 0, the gradient's norm is clipped. Two things are unusual:

The batch is the batch. A loss may look at the whole batch (the confidence loss ranks it), and memory may force the batch
through in micro-batches. Then a first pass without graph gives the logits of all rows, the loss gives their gradients,
and a second pass, one micro-batch at a time, sends these back through the network: exactly the whole batch's gradient.

Early stopping looks at the given labels only. Some rows are held out and the weights that agree best with *their weak
labels* are kept (paper, A.1); their ground truth is written to the history as a diagnostic and decides nothing.
"""

import math
import time

import torch
from tqdm import tqdm

from model import pick_dtype, predict
from packing import logits

EVALUATIONS_PER_EPOCH = 8


def default_lr(model):
    """(learning rate, that of the head) by size: 5e-5 up to 400M parameters, then 1e-5, as in openai's code.

    Models under 10M parameters, which the paper does not have, want more: 1e-4, and their head ten times that.
    """
    size = model.num_parameters()
    return (1e-4, 1e-3) if size < 10_000_000 else (5e-5, 5e-5) if size <= 400_000_000 else (1e-5, 1e-5)


def make_optimizer(model, lr=None):
    """Fused AdamW without weight decay; an lr of one's own keeps the ratio of head to body that default_lr gives."""
    rate, head_rate = default_lr(model)
    if lr is not None:
        rate, head_rate = lr, lr * head_rate / rate
    body = list(model.base_model.parameters())
    in_body = set(body)
    head = [p for p in model.parameters() if p not in in_body]
    groups = [{"params": body, "lr": rate}, {"params": head, "lr": head_rate}]
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


def derived(model, train, held_out, lr, dtype, probe=False):
    """What the defaults came to, for the eye and for the card."""
    groups = [{"lr": 0.0}, {"lr": lr}] if probe else make_optimizer(model, lr).param_groups
    return {
        "rows": len(train),
        "held_out": len(held_out),
        "parameters": model.num_parameters(),
        "lr": groups[0]["lr"],
        "head_lr": groups[1]["lr"],
        "dtype": str(pick_dtype(model, dtype)).removeprefix("torch."),
        "device": str(model.device),
    } | model.w2s


def batches(n, batch_size, generator):
    """The row numbers of one epoch in a fresh random order, in ceil(n / batch_size) batches whose sizes differ by one at
    most: every row once an epoch, and no last batch of a few rows whose median would mean nothing."""
    return torch.randperm(n, generator=generator).tensor_split(math.ceil(n / batch_size))


def backward(model, tokens, weak, loss, progress, micro_batch, whole_batch, dtype=None):
    """Backpropagate the mean loss of one batch in pieces of micro_batch rows; returns that mean, detached.

    The sum of the gradients is the whole batch's, whatever the pieces, also where the loss depends on all its rows.
    """
    n, dtype = len(tokens), pick_dtype(model, dtype)

    def forward(piece):
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype == torch.bfloat16):
            return logits(model, tokens[piece])

    pieces = [slice(start, start + micro_batch) for start in range(0, n, micro_batch)]
    if whole_batch and len(pieces) > 1:
        with torch.no_grad():
            out = torch.cat([forward(piece) for piece in pieces])
        out.requires_grad_()
        mean = loss(out, weak, progress).mean()
        mean.backward()
        for piece in pieces:
            forward(piece).backward(out.grad[piece])
        return mean.detach()
    total = 0
    for piece in pieces:
        share = loss(forward(piece), weak[piece], progress).sum() / n
        share.backward()
        total = total + share.detach()
    return total


def evaluate(model, rows, given, dtype):
    """Accuracy on held-out rows against the given labels and, as a diagnostic, against ground truth."""
    says_1 = predict(model, [row["tokens"] for row in rows], dtype).diff(dim=1)[:, 0] > 0
    accuracy = {}
    for name, field in (("weak_acc", given), ("true_acc", "label")):
        accuracy[name] = (says_1 == torch.tensor([row[field] > 0.5 for row in rows])).double().mean().item()
    return accuracy


def fit(
    model, rows, given, loss, *, whole_batch, held_out=(), epochs=2, batch_size=32, micro_batch=None, lr=None, seed=0,
    dtype=None, checkpointing=False, clip=1.0, name="training",
):  # fmt: skip
    """Train all weights of the model in place; returns the history, a list of one dict per evaluation.

    rows: dicts with "tokens" (model.encode) and the labels; given: the field trained on, "weak" = P(label = 1) by the
    supervisor, or "label" = ground truth; loss: a function of losses.py, whole_batch as its line there says.
    held_out: rows for early stopping. Eight times an epoch the accuracy on them against the given labels is taken; the
    best weights are kept, of equals the later. Their ground truth is reported and decides nothing.
    micro_batch: rows that go through at once (default: the whole batch); the result does not depend on it.
    lr: default by size (default_lr); dtype: "bf16" (autocast) or "float32", default by hardware and size (pick_dtype).
    Raises FloatingPointError when the loss is no longer finite.
    """
    optimizer = make_optimizer(model, lr)
    per_epoch = math.ceil(len(rows) / batch_size)
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    stops = {round(k * per_epoch / EVALUATIONS_PER_EPOCH) for k in range(1, epochs * EVALUATIONS_PER_EPOCH + 1)}
    if checkpointing:  # the name that transformers 5.17 and 5.23 share; the newer warns
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    generator = torch.Generator().manual_seed(seed)
    order = [batch for _ in range(epochs) for batch in batches(len(rows), batch_size, generator)]
    history, losses, n_tokens, began, best, best_weights = [], [], 0, time.monotonic(), -1.0, None
    bar = tqdm(order, desc=name, unit="step", disable=None)  # None: no bar in a log file
    for step, chosen in enumerate(bar, 1):
        # Near-equal lengths side by side: attention runs over them as one (packing.packed_attention).
        batch = sorted((rows[i] for i in chosen.tolist()), key=lambda row: len(row["tokens"]))
        tokens = [row["tokens"] for row in batch]
        target = torch.tensor([row[given] for row in batch], dtype=model.dtype, device=model.device)
        progress = (step - 1) / steps
        losses.append(backward(model, tokens, target, loss, progress, micro_batch or len(batch), whole_batch, dtype))
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        n_tokens += sum(map(len, tokens))
        if step in stops:
            mean = torch.stack(losses).mean().item()
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {step} of {steps}: try a smaller --lr")
            history.append({"step": step, "epoch": step / per_epoch, "loss": mean})
            losses = []
            if held_out:
                history[-1] |= evaluate(model, held_out, given, dtype)
                if history[-1]["weak_acc"] >= best:
                    best = history[-1]["weak_acc"]
                    best_weights = {key: value.to("cpu", copy=True) for key, value in model.state_dict().items()}
            bar.set_postfix({"loss": f"{mean:.3f}", "tokens/s": f"{n_tokens / (time.monotonic() - began):.0f}"})
    if best_weights:
        model.load_state_dict(best_weights)
    model.eval()
    return history


def kept(history):
    """The line of the history whose weights fit() kept: the best agreement with the given labels, of equals the later."""
    return max(history, key=lambda line: (line.get("weak_acc", 0), line["step"]))
