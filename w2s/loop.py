"""fit(): the one training loop. Weak supervisor, student and ceiling all go through it, so that PGR compares labels alone.

A step in float32 or bf16 autocast: the batch is packed without padding (packing.py), AdamW is fused, the rate falls along
a cosine to 0, the gradient's norm is clipped. Nothing in a step waits for a GPU. Three things are unusual:

The batch is the batch. A loss may look at the whole batch (the confidence loss ranks it), and memory may force the batch
through in micro-batches. Then a first pass without graph gives the logits of all rows, the loss gives their gradients,
and a second pass, one micro-batch at a time, sends these back through the network: exactly the whole batch's gradient.
Under torchrun every process takes its share of each batch, and the loss sees all of it all the same.

Only the rows of the token embedding that occur are trained (shrink_embedding): the same result at a fraction of the cost.

Early stopping looks at the given labels only. Some rows are held out and the weights that agree best with *their weak
labels* are kept (paper, A.1); their ground truth is written to the history as a diagnostic and decides nothing.
"""

import math
import time

import torch
import torch.distributed as dist
from tqdm import tqdm

from w2s.models import pick_dtype, predict, rank, world
from w2s.packing import logits, row_logits, texts, to_device
from w2s.parallel import local, shard

EVALUATIONS_PER_EPOCH = 8


def default_lr(model):
    """(learning rate, that of the head) by size: 5e-5 up to 400M parameters, then 1e-5, as in openai's code.

    Models under 10M parameters, which the paper does not have, want more: 1e-4, and their head ten times that. Low-rank
    terms (add_lora) want 2e-4.
    """
    size = model.num_parameters()
    if model.num_parameters(only_trainable=True) < size:
        return 2e-4, 2e-4
    return (
        (1e-4, 1e-3) if size < 10_000_000 else (5e-5, 5e-5) if size <= 400_000_000 else (1e-5, 1e-5)
    )


def make_optimizer(model, lr=None):
    """Fused AdamW without weight decay; an lr of one's own keeps the ratio of head to body that default_lr gives."""
    rate, head_rate = default_lr(model)
    if lr is not None:
        rate, head_rate = lr, lr * head_rate / rate
    in_body = set(model.base_model.parameters()) | set(
        (model.get_output_embeddings() or torch.nn.Module()).parameters()
    )
    body = [p for p in model.parameters() if p.requires_grad and p in in_body]
    head = [p for p in model.parameters() if p.requires_grad and p not in in_body]
    groups = [{"params": body, "lr": rate}, {"params": head, "lr": head_rate}]
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


def derived(model, train, held_out, lr, dtype, probe=False):
    """What the defaults came to, for the eye and for the card."""
    groups = [{"lr": None}, {"lr": lr}] if probe else make_optimizer(model, lr).param_groups
    return {
        "rows": len(train),
        "held_out": len(held_out),
        "parameters": model.num_parameters(),
        "trained": "head" if probe else model.num_parameters(only_trainable=True),
        "lr": groups[0]["lr"],
        "head_lr": float(f"{groups[1]['lr']:.6g}"),
        "dtype": str(pick_dtype(model, dtype)).removeprefix("torch."),
        "device": str(model.device),
    } | model.w2s


def shrink_embedding(model, rows):
    """Leave only the rows of the tokens that occur in the token embedding; returns {token: its new number} and the whole.

    The embedding is most of a small model, and a token that never occurs never changes: its gradient is zero and AdamW
    without weight decay leaves it alone. So leaving it out changes nothing of the result. (None, None) where it must stay:
    sharded over processes, where the tokens' own numbers mean something (padded architectures), or in a language model,
    which predicts all of them.
    """
    if world() > 1 or not model.w2s["packed"] or model.get_output_embeddings():
        return None, None
    embedding = model.get_input_embeddings()
    whole = embedding.weight
    number = {
        token: i
        for i, token in enumerate(sorted({token for row in rows for token in row["tokens"]}))
    }
    used = torch.tensor(list(number), device=whole.device)
    before = whole, embedding.padding_idx
    embedding.weight = torch.nn.Parameter(whole.detach()[used], requires_grad=whole.requires_grad)
    embedding.padding_idx = number.get(embedding.padding_idx)
    return number, before


def restore_embedding(model, number, whole):
    """Put the trained rows back where shrink_embedding took them from."""
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        whole[0][torch.tensor(list(number), device=whole[0].device)] = embedding.weight
    embedding.weight, embedding.padding_idx = whole


def batches(n, batch_size, generator):
    """The row numbers of one epoch in a fresh random order, in ceil(n / batch_size) batches whose sizes differ by one at
    most: every row once an epoch, and no last batch of a few rows whose median would mean nothing."""
    return torch.randperm(n, generator=generator).tensor_split(math.ceil(n / batch_size))


def arrange(batch, micro_batch):
    """The rows of a batch in the order in which they are cut into pieces: each piece by length, all equally long in sum.

    Attention runs over near-equal neighbours together (packing.groups), and the largest piece decides about the memory.
    """
    batch, count = (
        sorted(batch, key=lambda row: len(row["tokens"])),
        math.ceil(len(batch) / micro_batch),
    )
    return [row for piece in range(count) for row in batch[piece::count]]


def backward(
    model, tokens, weak, loss, progress, micro_batch, whole_batch, dtype=None, outputs=logits
):
    """Backpropagate the mean loss of one batch in pieces of micro_batch rows; returns that mean, detached.

    The sum of the gradients is the whole batch's, whatever the pieces, also where the loss depends on all its rows.
    Under torchrun the rows are dealt out to the processes, which return their shares of the mean. outputs(model, tokens)
    gives what the loss takes, [N, k]; `tokens` is a list of N of whatever it reads.
    """
    n, dtype = len(tokens), pick_dtype(model, dtype)
    # Every process must take as many pieces as the others: where rows run short, the last one fills in, at weight 0.
    mine = torch.arange(rank(), n + -n % world(), world())
    weight = (
        (mine < n).to(weak).mul(world())[:, None]
    )  # FSDP takes the mean of the processes' gradients, we want the sum
    mine = mine.clamp(max=n - 1)

    def autocast(on=True):
        return torch.autocast(
            model.device.type, dtype=torch.bfloat16, enabled=on and dtype == "bf16"
        )

    def forward(piece):
        return outputs(model, [tokens[i] for i in piece.tolist()])

    count = math.ceil(len(mine) / micro_batch)
    pieces, shares = mine.tensor_split(count), weight.tensor_split(count)
    if not whole_batch:
        total = 0
        with autocast():  # once for all pieces: it keeps the weights that it has cast
            for piece, share in zip(pieces, shares):
                out = forward(piece)
                with autocast(False):
                    part = (loss(out, weak[piece], progress) * share[:, 0]).sum() / n
                    part.backward()
                total = total + part.detach()
        return total / world()
    one_pass = len(pieces) == 1
    with torch.set_grad_enabled(one_pass), autocast():
        outs = [
            forward(piece) for piece in mine.split(4 * micro_batch)
        ]  # without a graph four times the rows take less
    out = gather(torch.cat(outs).detach(), n).requires_grad_()
    mean = loss(out, weak, progress).mean()
    mean.backward()
    with autocast():
        for piece, share in zip(pieces, shares):
            again = outs[0] if one_pass else forward(piece)
            with autocast(False):
                again.backward(out.grad[piece] * share)
    return mean.detach() / world()


def gather(mine, n):
    """The n rows of all processes in the batch's order, from those that each was dealt, [k, 2] -> [n, 2]."""
    if world() == 1:
        return mine
    shares = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(shares, mine)
    return torch.stack(shares, dim=1).flatten(0, 1)[:n]


def evaluate(model, rows, given, dtype):
    """Accuracy on held-out rows against the given labels and, as a diagnostic, against ground truth."""
    said = predict(model, [text for row in rows for text in texts(row)], dtype).view(len(rows), 2)
    says_1 = said.diff(dim=1)[:, 0] > 0
    accuracy = {}
    for name, field in (("weak_acc", given), ("true_acc", "label")):
        accuracy[name] = (
            (says_1 == torch.tensor([row[field] > 0.5 for row in rows])).double().mean().item()
        )
    return accuracy


def fit(
    model, rows, given, loss, *, whole_batch, held_out=(), epochs=2, batch_size=32, micro_batch=None, lr=None, seed=0,
    dtype=None, checkpointing=False, compile=False, clip=1.0, stop=True, outputs=row_logits, name="training",
):  # fmt: skip
    """Train all weights of the model that want a gradient, in place; returns the history, one dict per evaluation.

    rows: dicts with "tokens" (model.encode) and the labels; given: the field trained on, "weak" = P(label = 1) by the
    supervisor, or "label" = ground truth; loss: a function of losses.py, whole_batch as its line there says.
    held_out: rows for early stopping. Eight times an epoch the accuracy on them against the given labels is taken; the
    best weights are kept, of equals the later (stop=False: the last). Their ground truth is reported and decides nothing.
    micro_batch: rows that go through at once (default: the whole batch); the result does not depend on it.
    lr: default by size (default_lr); dtype: "bf16" (autocast) or "float32", default by hardware and size (pick_dtype).
    checkpointing: recompute activations in the backward pass; compile: let torch.compile fuse the backbone.
    outputs(model, rows): what the loss takes, [N, 2] logits by default; held-out rows want these.
    Raises FloatingPointError when the loss is no longer finite.
    """
    prepare(model, checkpointing, compile)
    number, whole = shrink_embedding(model, [*rows, *held_out])
    if number:
        rows, held_out = (
            [r | {"tokens": [number[t] for t in r["tokens"]]} for r in some]
            for some in (rows, held_out)
        )
    optimizer = make_optimizer(model, lr)
    per_epoch = math.ceil(len(rows) / batch_size)
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    stops = {
        round(k * per_epoch / EVALUATIONS_PER_EPOCH)
        for k in range(1, epochs * EVALUATIONS_PER_EPOCH + 1)
    }
    generator = torch.Generator().manual_seed(seed)
    order = [batch for _ in range(epochs) for batch in batches(len(rows), batch_size, generator)]
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    history, losses, n_tokens, began, best, best_weights = [], [], 0, time.monotonic(), -1.0, {}
    bar = tqdm(
        order, desc=name, unit="step", disable=None if rank() == 0 else True
    )  # None: no bar in a log file
    for step, chosen in enumerate(bar, 1):
        batch = arrange([rows[i] for i in chosen.tolist()], micro_batch or len(chosen))
        tokens = [row["tokens"] for row in batch]
        target = to_device(
            torch.tensor([row[given] for row in batch], dtype=model.dtype), model.device
        )
        progress = (step - 1) / steps
        pieces = micro_batch or len(batch)
        losses.append(
            backward(model, batch, target, loss, progress, pieces, whole_batch, dtype, outputs)
        )
        torch.nn.utils.clip_grad_norm_(trained.values(), clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        n_tokens += sum(map(len, tokens))
        if step in stops:
            history.append(
                {"step": step, "epoch": step / per_epoch, "loss": mean_loss(losses, step, steps)}
            )
            losses = []
            if held_out:
                history[-1] |= evaluate(model, held_out, given, dtype)
                if stop and history[-1]["weak_acc"] >= best:
                    best = history[-1]["weak_acc"]
                    best_weights = {
                        key: local(p).detach().to("cpu", copy=True) for key, p in trained.items()
                    }
            rate = n_tokens / (time.monotonic() - began)
            bar.set_postfix({"loss": f"{history[-1]['loss']:.3f}", "tokens/s": f"{rate:.0f}"})
    with torch.no_grad():
        for key, value in best_weights.items():
            local(trained[key]).copy_(value)
    if number:
        restore_embedding(model, number, whole)
    model.eval()
    return history


def prepare(model, checkpointing, compile):
    """Switch on what fit() was asked for, in the order in which these go together."""
    if checkpointing:  # the name that transformers 5.17 and 5.23 share; the newer warns
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if world() > 1:
        shard(model)
    if compile:
        model.base_model.compile(dynamic=True)
    model.train()


def mean_loss(losses, step, steps):
    """The mean of the losses since the last evaluation, over all processes; FloatingPointError if it is not finite."""
    mean = torch.stack(losses).mean()
    if world() > 1:
        dist.all_reduce(mean)
    if not math.isfinite(mean.item()):
        raise FloatingPointError(
            f"the loss is {mean.item()} at step {step} of {steps}: try a smaller --lr"
        )
    return mean.item()


def kept(history):
    """The line of the history whose weights fit() kept: the best agreement with the given labels, of equals the later."""
    return max(history, key=lambda line: (line.get("weak_acc", 0), line["step"]))
