"""Linear probes: only the last linear layer is trained, on features computed once per model and rows (paper, D.2).

The features are what that layer reads: the final hidden state of a causal model's last token, the pooled output of an
encoder. They lie in runs/features, named by their content (weights, tokens, dtype), for every rule and seed to share.
"""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from w2s.loop import batches
from w2s.models import pick_dtype, predict

CACHE = Path("runs/features")


def final_layer(model):
    """(name, module) of the linear layer that makes the two logits."""
    return [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and m.out_features == 2
    ][-1]


def content(model, tokens, dtype):
    """sha256 of all that the features depend on: the weights below the final layer, the token ids, the dtype."""
    top = final_layer(model)[0]
    config = {
        k: v
        for k, v in model.config.to_dict().items()
        if k not in ("_name_or_path", "transformers_version")
    }
    digest = hashlib.sha256(
        f"{type(model).__name__} {config} {pick_dtype(model, dtype)} {tokens}".encode()
    )
    for name, weights in model.state_dict().items():
        if not name.startswith(f"{top}."):
            digest.update(name.encode() + weights.cpu().numpy().tobytes())
    return digest.hexdigest()


def features(model, tokens, dtype=None):
    """Features [N, H] (float32, on the CPU) of N texts given as lists of token ids, from the cache where they are there."""
    file = CACHE / f"{content(model, tokens, dtype)[:32]}.npy"
    if not file.exists():
        name, layer = final_layer(model)
        model.set_submodule(name, torch.nn.Identity())
        try:
            x = predict(model, tokens, dtype, name="features", width=layer.in_features)
        finally:
            model.set_submodule(name, layer)
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.stem}.{os.getpid()}.tmp.npy")
        np.save(temporary, x.numpy())
        os.replace(temporary, file)
    return torch.from_numpy(np.load(file))


def fit(model, rows, given, loss, *, held_out, epochs, batch_size, lr, seed, dtype, name, **_):
    """Train the model's final layer in place, from zeros, on the features of its texts: loop.fit's face, and its history.

    What has no meaning here (micro-batches, checkpointing) is taken and ignored: a batch of features fits anywhere.
    """
    layer, everybody = final_layer(model)[1], [*rows, *held_out]
    x = features(model, [row["tokens"] for row in everybody], dtype)
    given, true = (
        torch.tensor([float(row[field]) for row in everybody]) for field in (given, "label")
    )
    probe = torch.nn.Linear(layer.in_features, 2, bias=layer.bias is not None)
    history = train(probe, x, given, true, len(rows), loss, epochs, batch_size, lr, seed, name)
    layer.load_state_dict(probe.state_dict())
    return history


def train(probe, x, given, true, n, loss, epochs, batch_size, lr, seed=0, name="probing"):
    """Train a torch.nn.Linear in place, from zeros, by Adam at a constant rate; returns the history, one dict an epoch.

    x [M, H]; given, true [M], P(label = 1): the first n rows are trained on. The others are held out: the weights that
    agree best with what is given for them are kept, of equals the later, as in loop.fit; none are, and the last are kept.
    """
    for weights in probe.parameters():
        torch.nn.init.zeros_(weights)
    optimizer = torch.optim.Adam(probe.parameters(), lr=lr, fused=True)
    generator = torch.Generator().manual_seed(seed)
    steps, step, history, best, best_weights = epochs * math.ceil(n / batch_size), 0, [], -1.0, None
    for epoch in tqdm(range(1, epochs + 1), desc=name, unit="epoch", disable=None):
        total = 0.0
        for batch in batches(n, batch_size, generator):
            losses = loss(probe(x[batch]), given[batch], step / steps)
            losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            total, step = total + losses.detach().sum(), step + 1
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is not finite in epoch {epoch}: try a smaller --lr")
        history.append({"step": step, "epoch": float(epoch), "loss": total.item() / n})
        if n < len(x):
            with torch.no_grad():
                says_1 = probe(x[n:]).diff(dim=1)[:, 0] > 0
            for field, labels in (("weak_acc", given), ("true_acc", true)):
                history[-1][field] = (says_1 == (labels[n:] > 0.5)).double().mean().item()
            if history[-1]["weak_acc"] >= best:
                best, best_weights = (
                    history[-1]["weak_acc"],
                    {k: v.clone() for k, v in probe.state_dict().items()},
                )
    if best_weights:
        probe.load_state_dict(best_weights)
    return history
