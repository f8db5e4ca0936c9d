"""Linear probes: only the last linear layer is trained, on features computed once (paper, D.2).

Features are what that layer reads. In runs/features, named by what they depend on, all rules and
seeds share them.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from w2s import cli
from w2s.files import whole
from w2s.loop import batches, kept
from w2s.models import pick_dtype, predict
from w2s.parts import forget
from w2s.resume import State, state_of

CACHE = Path("runs/features")


def final_layer(model):
    """(name, module) of the linear layer that makes the two logits."""
    linear = (one for one in model.named_modules() if isinstance(one[1], torch.nn.Linear))
    return [one for one in linear if one[1].out_features == 2][-1]


def content(model, tokens, dtype):
    """sha256 of what the features depend on: the weights below the final layer, tokens, dtype."""
    top, config = final_layer(model)[0], model.config.to_dict()
    config |= {"_name_or_path": None, "transformers_version": None}
    about = f"{type(model).__name__} {config} {pick_dtype(model, dtype)} {tokens}"
    digest = hashlib.sha256(about.encode())
    for name, weights in model.state_dict().items():
        if not name.startswith(f"{top}."):
            digest.update(name.encode() + weights.cpu().numpy().tobytes())
    return digest.hexdigest()


def features(model, tokens, dtype=None):
    """Features [N, H] (float32, on the CPU) of N lists of token ids, kept in the cache."""
    file = CACHE / f"{content(model, tokens, dtype)[:32]}.npy"
    if not file.exists():
        name, layer = final_layer(model)
        model.set_submodule(name, torch.nn.Identity())
        x = predict(model, tokens, dtype, name="features")
        model.set_submodule(name, layer)
        with whole(file) as temporary, open(temporary, "wb") as out:
            np.save(out, x.numpy())
        forget()
    return torch.from_numpy(np.load(file, allow_pickle=False))


@torch.no_grad()
def answer(model, tokens, dtype=None, name=None):
    """models.predict() of a probe: from features, which the first probe that is asked caches."""
    return final_layer(model)[1](features(model, tokens, dtype).to(model.device)).cpu()


def resolve(model, lr=None, dtype=None):
    """{"lr", "head_lr", "dtype"}: the head alone is trained, at 1e-3 by default (D.2)."""
    return {"lr": lr or 1e-3, "head_lr": lr or 1e-3, "dtype": pick_dtype(model, dtype)}


def fit(
    model, rows, loss, *, lr, epochs, batch_size, held_out=(), seed=0, dtype=None, name,
    stop=True, resume=None, save_every=300, **_,
):  # fmt: skip
    """loop.fit() for the final layer alone; options that it has no use for are ignored."""
    layer, both = final_layer(model)[1], [*rows, *held_out]
    x = features(model, [row["tokens"] for row in both], dtype)
    given, true = (torch.tensor([float(row.get(k, 0)) for row in both]) for k in ("given", "label"))
    probe = torch.nn.Linear(layer.in_features, 2, bias=layer.bias is not None)
    with state_of(resume, save_every, both, epochs, batch_size, lr, seed, stop) as state:
        plan = epochs, batch_size, lr, seed, name, state, stop
        history = train(probe, x, given, true, len(rows), loss, *plan)
    layer.load_state_dict(probe.state_dict())
    return history


def train(
    probe, x, given, true, n, loss, epochs, batch_size, lr, seed=0, name="probing", state=None,
    stop=True,
):  # fmt: skip
    """Train a torch.nn.Linear in place, from zeros, by Adam at a constant rate.

    x [M, H]; given, true [M], P(label = 1). The first n rows are trained on, the others held out as
    in loop.fit, and stop keeps the weights that fit them best. state: a State of resume.py, to go
    on from. Returns the history, one dict an epoch.
    """
    for weights in probe.parameters():
        torch.nn.init.zeros_(weights)
    optimizer = torch.optim.Adam(probe.parameters(), lr=lr, fused=True)
    generator = torch.Generator().manual_seed(seed)
    steps, state = epochs * math.ceil(n / batch_size), state or State()
    trained = dict(probe.named_parameters())
    step, history, _, best = state.begin(steps, trained, optimizer)
    for epoch in tqdm(range(1, epochs + 1), desc=name, unit="epoch", **cli.paced()):
        if epoch <= len(history):
            batches(n, batch_size, generator)  # drawn as before
            continue
        total = 0.0
        for batch in batches(n, batch_size, generator):
            losses = loss(probe(x[batch]), given[batch], step / steps)
            losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            total, step = total + losses.detach().sum(), step + 1
        if not torch.isfinite(total):
            told = f"the loss is not finite in epoch {epoch}{state.told()}"
            raise FloatingPointError(f"{told}: try a smaller --lr")
        history.append({"step": step, "epoch": float(epoch), "loss": total.item() / n})
        if n < len(x):
            with torch.no_grad():
                says_1 = probe(x[n:]).diff(dim=1)[:, 0] > 0
            for field, labels in (("agreement", given), ("true_acc", true)):
                history[-1][field] = (says_1 == (labels[n:] > 0.5)).double().mean().item()
            if stop and kept(history) is history[-1]:
                best = {key: weights.detach().clone() for key, weights in trained.items()}
        state.after(step, history, [], best)
    if best:
        probe.load_state_dict(best)
    return history
