"""Controls: a labels file -> another, with the errors of a simulated supervisor instead.

    python controls.py runs/labels.jsonl --kind=longest     # runs/longest.jsonl, for stage 3
    python controls.py runs/labels.jsonl --rate=.1          # a tenth wrong: runs/random-0.1.jsonl

Six kinds are wrong as often as the labels before (or --rate of them), all hardened to 0 or 1, but
elsewhere (E.2):

    own           those that are wrong already, the line to compare with
    random        any
    longest       those of the longest texts; shortest: of the shortest (texts alone)
    unconfident   those on which a strong model (--run) is least confident
    confident     those that it is most confident about, and right
    coin          every label is a coin toss: what a student gets right, it knew before
    features      a logistic regression on the first --dims features of --model (E.1; texts alone)
    suffix        every text ends in the supervisor's opinion, is the student an imitator? (E.3)
"""

import random

import tasks
from w2s import cli, files, folders, leaks, protocol, records

SUFFIX = " I think this is {} . What do you think ?"  # spaced for tokenizers that split at spaces
OF_TEXTS = ("longest", "shortest", "features", "suffix")
RATED = ("random", "longest", "shortest", "unconfident", "confident")  # whose errors can be counted


@cli.stage
def main(
    args, labels: str = "runs/labels.jsonl", *, kind: str = "random", rate: float = None,
    out: str = None, seed: int = 0, run: str = "runs/ceiling", model: str = "facts/m",
    dims: int = 16, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Write a labels file as a simulated supervisor would have left it.

    Args:
        out: the labels file to write (default: random.jsonl and so on, beside the labels)
        seed: moves the errors, and the coin
        run: unconfident, confident: the run of the strong model
        model: features: the folder or hub id of the model whose features they are
    """
    setting = tasks.setting_of_labels(labels)
    if not setting.SOFT or (kind in OF_TEXTS and setting.KEY != "text"):
        raise files.BadInput(f"--kind={kind} is not for {setting.WHAT}: see --help")
    if rate is not None and kind not in RATED:
        raise files.BadInput(f"--rate is not for --kind={kind}, but for {', '.join(RATED)}")
    name = kind if rate is None else f"{kind}-{rate:g}"
    args["out"] = out = out or str(files.beside(labels, f"{name}.jsonl"))
    rows = files.read_jsonl(labels, ["id", *setting.FIELDS, "weak"])
    source, inputs = files.read_card(labels) or {"data": None}, {"labels": files.sha256(labels)}
    if kind in ("unconfident", "confident"):
        inputs["run"] = records.finished_run(run)["model_sha256"]
    inputs |= folders.model_input(model) if kind == "features" else {}
    if records.is_done(out, args, inputs, force, ".jsonl"):
        return
    rng, how = random.Random(f"controls {seed}"), (device, dtype)
    if kind == "coin":
        weak = [float(rng.random() < 0.5) for _ in rows]
    elif kind == "suffix":
        weak = [row["weak"] for row in rows]
        for row in rows:
            row["text"] += SUFFIX.format("yes" if row["weak"] > 0.5 else "no")
    elif kind == "features":
        weak = truncated(setting, rows, source["data"], model, dims, *how)
    else:
        strong = tasks.answers(setting, run, rows, *how) if "run" in inputs else ()
        wrong = errors(rows, kind, rng, strong, rate)
        weak = [float(row["label"] != (i in wrong)) for i, row in enumerate(rows)]
    single = ({name: row[name] for name in row if name != "weak_all"} for row in rows)
    changed = [row | {"weak": one} for row, one in zip(single, weak)]
    card = records.new_card("controls", setting, args, inputs, source["data"])
    leaks.copy(labels, source, out)
    files.write_jsonl(out, changed, source | card)  # who supervised, test rows, leaks: stays
    print(f"{out}: {accuracy(changed):.1%} of the labels are right, before {accuracy(rows):.1%}")
    if not source.get("test_rows"):
        cli.tell_students(out, source, tasks.default_models)


def accuracy(rows):
    """The share of the rows whose weak label, hardened, is right."""
    return sum((row["weak"] > 0.5) == row["label"] for row in rows) / len(rows)


def errors(rows, kind, rng, strong=(), rate=None):
    """The numbers of the rows to get wrong: a share of them, or as many as are wrong already.

    strong: a strong model's P(label = 1) of each row, of which the kind makes use.
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
    count = len(own) if rate is None else round(rate * len(rows))
    return set(sorted(rng.sample(range(len(rows)), len(rows)), key=first)[:count])


def truncated(setting, rows, data, name, dims, device, dtype):
    """Hard labels [N] by a logistic regression on the first features of the weak half (E.1)."""
    if data is None:
        raise files.BadInput("--kind=features needs a labels file with a card: it names the task")
    import torch

    from w2s import losses, models, probes

    model, tokenizer = models.load(name, device=device)
    taught = protocol.half(setting, data, "weak")
    tokens = [row["tokens"] for row in setting.encode(taught + rows, tokenizer, model)]
    x, n = probes.features(model, tokens, dtype), len(taught)
    if dims > x.shape[1]:
        raise files.BadInput(f"--dims={dims}: {name} has {x.shape[1]} features")
    x, layer = x[:, :dims], torch.nn.Linear(dims, 2)
    truth = torch.tensor([float(row["label"]) for row in taught])
    probes.train(layer, x[:n], truth, truth, n, losses.xent, epochs=200, batch_size=128, lr=1e-3)
    return (layer(x[n:]).diff(dim=1)[:, 0] > 0).float().tolist()


if __name__ == "__main__":
    cli.run(main)
