"""Stage 1: ground truth -> weak supervisor.

Fine-tunes a small pretrained model on the true labels of the weak half of a task (paper, section 3 and appendix A.1).

    python train_weak.py                                            # facts, in runs/weak, a few seconds
    python train_weak.py --ds=sst2 --model=openai-community/gpt2 --out=runs/weak
    python train_weak.py --bootstrap --seed=1 --out=runs/bag1/weak  # one of a bagged ensemble; then label.py 'runs/bag*/weak'
    python train_weak.py --boost=runs/weak --out=runs/boost1/weak   # on more of the rows that runs/weak gets wrong

In: a task's name, or a JSONL file with text and label. Out: a run directory with card.json, history.jsonl and model/.
Next: label.py.
"""

import inspect
import random

import numpy as np

import tasks
from w2s import cli, files, hub, protocol, stages


def main(
    *, ds: str = "facts", model: str = None, out: str = "runs/weak", test: str = None, seed: int = 0, data_seed: int = 0,
    n_train: int = None, n_test: int = None, n_val: int = None, bootstrap: bool = False, boost: str = None, epochs: int = 2,
    batch_size: int = 32, micro_batch: int = None, lr: float = None, max_len: int = None, head: str = None, lora: int = None,
    checkpointing: bool = False, compile: bool = False, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Fine-tune a weak supervisor on the ground truth of the weak half. Other options: cli.COMMON.

    Args:
        ds: a task's name (python tasks.py lists them), or the path of your own JSONL file with text and label (0 or 1)
        model: folder or hub id of a causal model or encoder (default: facts/xs for facts, else openai-community/gpt2)
        out: the run directory to make
        bootstrap: train on groups of rows drawn with replacement by --seed, so that several seeds make a bagged ensemble
        boost: the run before this one in a boosted ensemble: rows are drawn more often where it, and those before it, err
    """
    model = model or ("facts/xs" if ds == "facts" else "openai-community/gpt2")
    args = {
        name: value
        for name, value in locals().items()
        if name in inspect.signature(main).parameters and name != "force"
    }
    cli.check(args)
    data = tasks.describe(ds, data_seed, n_train, n_test, test)
    before = chain(boost, bootstrap, data, out)
    inputs = data["sha256"] | hub.model_input(model)
    if boost:
        inputs["boost"] = [card["model_sha256"] for _, card in before]
    if files.is_done(out, args, inputs, force):
        return
    rows = tasks.half(data, "weak")

    from w2s import (
        loop,
        losses,
        models,  # torch and transformers take seconds to import, so not before they are needed
        parallel,
    )
    from w2s import (
        lora as low_rank,
    )

    out = parallel.join(out)
    net, tokenizer = models.load(model, head=head, max_len=max_len, device=device, seed=seed)
    low_rank.add(net, lora, models.pick_dtype(net, dtype), seed)
    plan = loop.resolve(net, lr, dtype)
    rows = [row | {"given": float(row["label"])} for row in rows]
    train, held_out = protocol.hold_out(models.encode(rows, tokenizer, net), n_val, batch_size)
    train = drawn(train, seed, bootstrap, [run for run, _ in before], device, dtype)
    card = files.begin(out, "train_weak", args, inputs, data, plan | net.w2s)
    history = loop.fit(
        net, train, losses.xent, held_out=held_out, epochs=epochs, batch_size=batch_size,
        micro_batch=micro_batch, lr=plan["lr"], head_lr=plan["head_lr"], dtype=plan["dtype"],
        seed=seed, checkpointing=checkpointing, compile=compile, name=out,
    )  # fmt: skip
    models.save(net, tokenizer, f"{out}/model")
    files.end(out, card, history, loop.kept(history))
    stages.tell_next(f"label.py {out} --out={stages.beside(out, 'labels.jsonl')}")


def drawn(rows, seed, bootstrap, before, device, dtype):
    """The rows to train on: as many as given, drawn with replacement by group (bagging) or by boosting's weights, or all."""
    rng = random.Random(seed)
    if bootstrap:
        groups = protocol.by_group(rows, "bootstrap")
        return [row for group in rng.choices(groups, k=len(groups)) for row in group]
    return (
        rng.choices(rows, weights=boosted(rows, before, device, dtype), k=len(rows))
        if before
        else rows
    )


def chain(boost, bootstrap, data, out):
    """[(run, card)] of the boosted ensemble so far, the first supervisor first.

    BadInput where one was of other rows, is `out` itself, or was trained anew after another was boosted from it.
    """
    runs = []
    while boost:
        card = stages.finished_run(boost)
        if (
            bootstrap
            or card["stage"] != "train_weak"
            or card["data"] != data
            or boost in (out, *(run for run, _ in runs))
        ):
            told = "must be a supervisor of the same rows, not --out or boosted from itself"
            raise files.BadInput(f"--boost={boost} {told}, and goes without --bootstrap")
        runs.insert(0, (boost, card))
        boost = card["args"].get("boost")
    for i, (run, card) in enumerate(runs):
        if i and card["inputs"]["boost"] != [earlier["model_sha256"] for _, earlier in runs[:i]]:
            raise files.BadInput(
                f"--boost: what {run} was boosted from has been trained anew since: train {run} again"
            )
    return runs


def boosted(rows, runs, device, dtype):
    """AdaBoost's weights of the rows [N] (Freund & Schapire 1997): each run leaves the rows where it errs half the weight."""
    from w2s import models

    weights = np.ones(len(rows))
    for run in runs:
        probs = np.array(models.probabilities(f"{run}/model", rows, device=device, dtype=dtype))
        wrong = (probs > 0.5) != np.array([row["label"] == 1 for row in rows])
        error = weights[wrong].sum() / weights.sum()
        if not 0 < error < 0.5:
            raise files.BadInput(
                f"--boost: {run} errs on {error:.0%} of the (weighted) rows, not on some and under half"
            )
        weights[wrong] *= (1 - error) / error
    return weights


if __name__ == "__main__":
    cli.run(main, processes=True)
