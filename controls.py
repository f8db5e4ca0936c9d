"""Controls: a labels file -> another, with the errors of a simulated supervisor instead of the supervisor's own.

    python controls.py runs/labels.jsonl --kind=longest --out=runs/longest.jsonl    # then train_strong.py as usual

Which rows are wrong, at equal weak accuracy: as many as in the file that comes in, all labels hardened to 0 or 1 (E.2):

    own           those that are wrong already, the line to compare with
    random        any
    longest       those with the longest texts; shortest: with the shortest
    unconfident   those on which a strong model (--run) is least confident
    confident     those that it answers most confidently right

And otherwise:

    coin          every label is a coin toss: what is left is what the student brings along
    features      labels of a logistic regression on the first --dims features of --model, trained on the weak half (E.1)
    suffix        every text ends in the supervisor's opinion; labels stay: is the student more than an imitator? (E.3)
"""

import random

import tasks
from w2s import cli, files, hub, stages

SUFFIX = " I think this is {} . What do you think ?"  # E.3's words, spaced for tokenizers that split at spaces


def main(
    labels: str = "runs/labels.jsonl", *, kind: str = "random", out: str = None, seed: int = 0, run: str = "runs/ceiling",
    model: str = "facts/m", dims: int = 16, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Write a labels file as a simulated supervisor would have left it. Other options: cli.COMMON.

    Args:
        labels: the labels file to start from
        kind: own, random, longest, shortest, unconfident, confident, coin, features or suffix (see above)
        out: the labels file to write (default: runs/random.jsonl, and so on)
        seed: moves what is drawn at random
        run: unconfident, confident: the run of the strong model, usually a ceiling
        model: features: the folder or hub id of the model whose features they are
        dims: features: how many of them the simulated supervisor sees
    """
    args = {name: value for name, value in locals().items() if name not in ("out", "force")}
    cli.check(args)
    out = out or f"runs/{kind}.jsonl"
    rows = files.read_jsonl(labels, ["id", "text", "label", "weak"])
    source = files.read_card(labels) or {"data": None}
    strong = (
        stages.finished_run(run)["model_sha256"] if kind in ("unconfident", "confident") else None
    )
    inputs = {"labels": files.sha256(labels), "run": strong} | (
        hub.model_input(model) if kind == "features" else {}
    )
    if files.is_done(out, args, inputs, force, labels=True):
        return
    before, rng = accuracy(rows), random.Random(f"controls {seed}")
    if kind == "coin":
        changed = [row | {"weak": float(rng.random() < 0.5)} for row in rows]
    elif kind == "suffix":
        changed = [
            row | {"text": row["text"] + SUFFIX.format("yes" if row["weak"] > 0.5 else "no")}
            for row in rows
        ]
    elif kind == "features":
        changed = [
            row | {"weak": weak}
            for row, weak in zip(rows, truncated(rows, source["data"], model, dims, device, dtype))
        ]
    else:
        wrong = errors(rows, kind, rng, answers(rows, run, device, dtype) if strong else None)
        changed = [
            row | {"weak": float(row["label"] != (i in wrong))} for i, row in enumerate(rows)
        ]
    changed = [{field: row[field] for field in row if field != "weak_all"} for row in changed]
    kept = {field: source[field] for field in ("supervisors", "test_rows") if field in source}
    files.write_jsonl(out, changed, files.new_card("controls", args, inputs, source["data"]) | kept)
    print(
        f"{out}: {len(rows)} rows, {accuracy(changed):.1%} of the weak labels are right, before {before:.1%}"
    )
    if not source.get("test_rows"):
        stages.tell_next(f"train_strong.py {out} --out={out.removesuffix('.jsonl')}")


def accuracy(rows):
    """The share of the rows whose weak label, hardened, is right."""
    return sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)


def answers(rows, run, device, dtype):
    """P(label = 1) of each row by a run's model."""
    from w2s import (
        models,
    )  # torch and transformers take seconds to import, so not before they are needed

    return models.probabilities(f"{run}/model", rows, device=device, dtype=dtype, bar=run)


def errors(rows, kind, rng, strong=None):
    """The numbers of the rows that a simulated supervisor gets wrong, as many as have a wrong weak label now (E.2).

    strong: a strong model's P(label = 1) for each row, where the kind asks for it. Equals are taken at random.
    """
    own = {i for i, row in enumerate(rows) if (row["weak"] > 0.5) != row["label"]}
    first = {
        "own": lambda i: i not in own,
        "random": lambda i: 0,
        "longest": lambda i: -len(rows[i]["text"]),
        "shortest": lambda i: len(rows[i]["text"]),
        "unconfident": lambda i: abs(strong[i] - 0.5),
        "confident": lambda i: -abs(strong[i] - (1 - rows[i]["label"])),
    }[kind]
    return set(sorted(rng.sample(range(len(rows)), len(rows)), key=first)[: len(own)])


def truncated(rows, data, model, dims, device, dtype):
    """Hard labels [N] by a logistic regression that sees the first dims features, trained on the weak half's truth (E.1)."""
    if data is None:
        raise files.BadInput(
            "--kind=features needs a labels file with a card: its weak half trains the supervisor"
        )
    import torch

    from w2s import losses, models
    from w2s import probes as probe

    net, tokenizer = models.load(model, device=device)
    taught = tasks.half(data, "weak")
    x = probe.features(
        net, [row["tokens"] for row in models.encode([*taught, *rows], tokenizer, net)], dtype
    )
    if dims > x.shape[1]:
        raise files.BadInput(f"--dims={dims}: {model} has {x.shape[1]} features")
    x, layer = x[:, :dims], torch.nn.Linear(dims, 2)
    truth = torch.tensor([float(row["label"]) for row in taught])
    probe.train(
        layer,
        x[: len(taught)],
        truth,
        truth,
        len(taught),
        losses.xent,
        epochs=200,
        batch_size=128,
        lr=1e-3,
    )
    return (layer(x[len(taught) :]).diff(dim=1)[:, 0] > 0).float().tolist()


if __name__ == "__main__":
    cli.run(main)
