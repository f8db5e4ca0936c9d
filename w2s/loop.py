"""fit(): the one training loop of supervisor, student and ceiling. No step waits for a GPU.

A loss may look at all rows of a batch (the confidence loss ranks them), however memory forces them
through. With micro-batches a first pass without a graph gives the logits of all rows, the loss
their gradients, and a second pass sends these back, one micro-batch at a time.

Early stopping looks at the given labels alone (paper, A.1); ground truth decides nothing.
"""

import contextlib
import math

import torch
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR
from tqdm import tqdm

from w2s import cli, parallel
from w2s.files import rank, world
from w2s.models import pick_dtype, predict, size, threads
from w2s.packing import logits, row_logits, texts, to_device
from w2s.parts import answers, own, together, with_less
from w2s.resume import state_of


def resolve(model, lr=None, dtype=None):
    """{"lr", "head_lr", "dtype"} of a training, for fit() and for the card.

    From 10M parameters on as in openai's code. An lr of your own keeps the ratio of head to body.
    """
    rate = head_rate = 5e-5 if size(model) <= 400_000_000 else 1e-5
    if size(model) < 10_000_000:
        rate, head_rate = 1e-4, 1e-3
    if any("lora_" in key for key, _ in model.named_parameters()):
        rate = head_rate = 2e-4
    if lr is not None:
        rate, head_rate = lr, lr * head_rate / rate
    return {"lr": rate, "head_lr": head_rate, "dtype": pick_dtype(model, dtype)}


def fit(
    model, rows, loss, *, lr, head_lr, dtype, epochs, batch_size, whole_batch=False, held_out=(),
    stop=True, micro_batch=None, seed=0, checkpointing=False, compile=False, name="training",
    clip=1.0, weight_decay=0.0, betas=(0.9, 0.999), warm_up=0.0, outputs=row_logits, resume=None,
    save_every=300,
):  # fmt: skip
    """Train the weights that want a gradient, in place; returns the history, a dict per evaluation.

    rows: dicts with "tokens" and "given", the number that the loss takes (P(1), or lm.shares).
    held_out: such rows with "label"; see evaluate(). The weights that do best on them are kept, of
    equals the later (stop=False: the last). outputs(model, rows) is what the loss takes, [N, k].
    warm_up: share of the steps over which the rate rises. resume: the file of its state, written
    every save_every seconds (see resume.py), which stays. FloatingPointError: see mean_loss.
    """
    prepare(model, checkpointing, compile)
    steps, piece = epochs * math.ceil(len(rows) / batch_size), micro_batch or batch_size
    how = steps, lr, head_lr, weight_decay, betas, warm_up
    keeps = state_of(resume, save_every, rows, batch_size, seed, dtype, how)
    cut = used_tokens(model, rows, held_out, weight_decay)
    with threads(model), keeps as state, cut as (rows, held_out):
        trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
        optimizer, schedule = make_optimizer(model, *how)
        done, history, losses, best = state.begin(steps, trained, optimizer, schedule)
        order = orders(len(rows), batch_size, epochs, seed, done, name)
        bar = tqdm(order, name, steps, initial=done, unit="step", disable=rank() > 0, **cli.paced())
        for step, chosen, evaluates in bar:
            how = loss, (step - 1) / steps, piece, whole_batch, dtype, outputs
            out, piece = teach(model, [rows[i] for i in chosen.tolist()], *how, name)
            losses.append(out)
            torch.nn.utils.clip_grad_norm_(trained.values(), clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if evaluates:
                line = {"step": step, "epoch": step * epochs / steps}
                line["loss"], losses = mean_loss(losses, step, steps, name, state.told()), []
                history.append(line | evaluate(model, held_out, dtype, loss, outputs))
                if held_out and stop and kept(history) is history[-1]:
                    best = copied(trained, best)
                bar.set_postfix({"loss": f"{line['loss']:.3f}"}, refresh=False)
            state.after(step, history, losses, best)
        for key, weights in best.items():
            own(trained[key]).copy_(weights)
    model.eval()
    return history


def prepare(model, checkpointing, compile):
    """Switch on what fit() was asked for, in this order."""
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if world() > 1:
        parallel.shard(model)
    if compile:  # layer by layer: they share their code, which is compiled once
        for layer in parallel.layers(model):
            layer.compile(dynamic=True)
    model.train()


@contextlib.contextmanager
def used_tokens(model, rows, held_out, weight_decay=0.0):
    """Cut the token embedding to the tokens that occur; yields both lists, renumbered.

    AdamW without weight decay leaves alone what never occurs. The embedding stays whole where it is
    sharded, where the tokens' own numbers mean something (if padded), and where all are predicted.
    """
    if world() > 1 or weight_decay or not model.w2s["packed"] or model.get_output_embeddings():
        yield rows, held_out
        return
    embedding = model.get_input_embeddings()
    whole, padding = embedding.weight, embedding.padding_idx
    tokens = sorted({token for row in [*rows, *held_out] for token in row["tokens"]})
    number, used = {token: i for i, token in enumerate(tokens)}, torch.tensor(tokens)
    embedding.weight = torch.nn.Parameter(whole.detach()[used], requires_grad=whole.requires_grad)
    embedding.padding_idx = number.get(padding)
    parts = rows, held_out
    try:
        yield [[x | {"tokens": [number[i] for i in x["tokens"]]} for x in part] for part in parts]
    finally:
        whole.data[used] = embedding.weight.data
        embedding.weight, embedding.padding_idx = whole, padding


def make_optimizer(model, steps, lr, head_lr, weight_decay=0.0, betas=(0.9, 0.999), warm_up=0.0):
    """(AdamW with rates for body and head, its schedule: a cosine to 0, times a straight rise over
    the share warm_up of the steps). A language model's unembedding belongs to its body."""
    in_body = set(model.base_model.parameters())
    in_body |= set((model.get_output_embeddings() or torch.nn.Module()).parameters())
    body = [p for p in model.parameters() if p.requires_grad and p in in_body]
    head = [p for p in model.parameters() if p.requires_grad and p not in in_body]
    groups = [{"params": body, "lr": lr}, {"params": head, "lr": head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, betas=betas, fused=True)
    rise, parts = round(warm_up * steps), [CosineAnnealingLR(optimizer, T_max=steps)]
    if rise > 1:
        parts.append(LinearLR(optimizer, start_factor=1 / rise, total_iters=rise - 1))
    return optimizer, ChainedScheduler(parts)


def batches(n, batch_size, generator):
    """The row numbers of an epoch in random order, in batches whose sizes differ by one at most: in
    a last batch of a few rows the median would mean nothing."""
    return torch.randperm(n, generator=generator).tensor_split(math.ceil(n / batch_size))


def orders(n, batch_size, epochs, seed, done, name):
    """Yields (step, row numbers, whether to evaluate then) of the steps after `done`: at every
    eighth of an epoch, rounded to whole steps. An epoch is drawn when it begins."""
    if n <= batch_size:
        print(f"{name}: one batch an epoch: --seed moves only what starts at random in the model")
    step, generator, eighth = 0, torch.Generator().manual_seed(seed), math.ceil(n / batch_size) / 8
    for _ in range(epochs):
        for chosen in batches(n, batch_size, generator):
            step += 1
            if step > done:
                yield step, chosen, round(round(step / eighth) * eighth) == step


def given_of(batch, model):
    """ "given" of the rows of a batch, [N] on the model's device."""
    return to_device(torch.tensor([x["given"] for x in batch], dtype=model.dtype), model.device)


def teach(model, batch, loss, progress, micro_batch, whole_batch, dtype, outputs, name):
    """backward() of rows; returns (loss, rows in its pieces: fewer where memory is short)."""
    ordered = sorted(batch, key=lambda row: len(row["tokens"]))

    def run(piece):
        model.zero_grad()  # a try that failed leaves some
        count = math.ceil(len(batch) / piece)  # of pieces of like lengths: the largest needs most
        rows = [row for first in range(count) for row in ordered[first::count]]
        how = progress, piece, whole_batch, dtype, outputs
        return backward(model, rows, given_of(rows, model), loss, *how)

    return with_less(run, micro_batch, name)


def backward(
    model, rows, given, loss, progress, micro_batch, whole_batch, dtype=None, outputs=logits
):
    """Backpropagate the mean loss of a batch in pieces of micro_batch rows; returns it, detached
    (under torchrun each process its share). outputs(model, rows) gives [N, k]; given [N]."""
    n = len(rows)
    # Every process takes as many pieces. Where rows run short the last one fills in, at weight 0.
    mine = torch.arange(rank(), n + -n % world(), world())
    weight = (mine < n).to(given.dtype).mul(world())[:, None]  # FSDP takes a mean, we want the sum
    mine, count = mine.clamp(max=n - 1), math.ceil(len(mine) / micro_batch)
    pieces = mine.tensor_split(count)
    places, shares = (to_device(x, given.device).tensor_split(count) for x in (mine, weight))

    def forward(piece):
        return outputs(model, [rows[i] for i in piece.tolist()])

    if not whole_batch:
        total = 0
        with autocast(model, dtype):  # once for all pieces: it keeps the weights that it has cast
            for piece, place, share in zip(pieces, places, shares):
                out = forward(piece)
                with autocast(model, None):
                    part = (loss(out, given[place], progress) * share[:, 0]).sum() / n
                    part.backward()
                total = total + part.detach()
        return total / world()
    one_pass = len(pieces) == 1
    with torch.set_grad_enabled(one_pass), autocast(model, dtype):  # four times the rows fit in
        outs = [forward(piece) for piece in mine.split(4 * micro_batch)]
    out = torch.cat(outs).detach()
    out = (parallel.gather(out, n) if world() > 1 else out).requires_grad_()
    mean = loss(out, given, progress).mean()
    mean.backward()
    with autocast(model, dtype):
        for piece, place, share in zip(pieces, places, shares):
            again = outs[0] if one_pass else forward(piece)
            with autocast(model, None):
                again.backward(out.grad[place] * share)
    return mean.detach() / world()


def autocast(model, dtype):
    """bf16 autocast on the model's device where dtype is "bf16", else none."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == "bf16")


def mean_loss(losses, step, steps, name, state=""):
    """The mean loss since the last evaluation; FloatingPointError where it is not finite."""
    every = together("total", torch.stack(losses))
    mean = every.mean().item()
    if not math.isfinite(mean):
        first = step - len(losses) + [*every.isfinite().tolist(), False].index(False) + 1
        told = f"the loss is {mean} at step {min(first, step)} of {steps}"
        raise FloatingPointError(f"{told}{state}: try a smaller --lr")
    if mean == 0 and step == len(losses):
        print(f"warning: {name}: the loss is 0: by this rule (--loss) these labels teach nothing")
    return mean


def evaluate(model, held_out, dtype, loss, outputs):
    """{"agreement", "true_acc"} of held-out rows, a classifier's accuracy against what is given and
    the truth, or {"held_out_loss"} of a language model, by token (lm.shares) but for a constant."""
    if not held_out:
        return {}
    if model.get_output_embeddings() and not hasattr(model, "score"):

        def run(batch):
            part = [held_out[i] for i in batch]
            return loss(outputs(model, part), given_of(part, model), 1.0)

        with torch.no_grad(), autocast(model, dtype):
            losses = answers(model, [row["tokens"] for row in held_out], lambda _: 32, run, ())
        return {"held_out_loss": torch.cat([one for _, one in losses]).mean().item()}
    tokens = [text for row in held_out for text in texts(row)]
    says_1 = predict(model, tokens, dtype).view(len(held_out), 2).diff(dim=1)[:, 0] > 0
    given, label = (torch.tensor([row[x] > 0.5 for row in held_out]) for x in ("given", "label"))
    right = torch.stack([says_1 == given, says_1 == label]).double().mean(dim=1)
    return dict(zip(("agreement", "true_acc"), right.tolist()))


def kept(history):
    """The line of the history whose weights fit() kept with stop=True, of equals the later."""
    return max(history[::-1], key=lambda x: x.get("agreement", -x.get("held_out_loss", 0.0)))


def copied(trained, before):
    """A copy on the CPU, into the memory of the one before; pinned, a GPU fills it in no time."""
    for key, p in trained.items():
        if key not in before:
            before[key] = torch.empty_like(own(p), device="cpu", pin_memory=p.is_cuda)
        before[key].copy_(own(p))
    return before
