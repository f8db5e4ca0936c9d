"""Stages 1 and 3 on preference pairs: ground truth -> weak reward model; its labels -> student, or the ceiling.

A reward model gives every text prompt + completion one number r. P(b preferred) = sigmoid(r_b - r_a), and the loss is the
cross-entropy with the (soft) label (paper, A.3): the softmax of [r_a, r_b], so that every rule of losses.py works as it is.

    python rm/train_rm.py                                            # facts_pairs, in runs/rm/weak, some seconds
    python rm/train_rm.py runs/rm/labels.jsonl                       # the student, in runs/rm/student
    python rm/train_rm.py runs/rm/labels.jsonl --target=truth        # the ceiling, in runs/rm/ceiling
    python rm/train_rm.py --ds=hh_helpful --model=openai-community/gpt2 --out=runs/hh/weak

In: a task (python rm/pairs.py lists them) or a JSONL file of pairs, or label_rm.py's labels. Out: a run directory like
train_weak.py's, its model a sequence classifier with one output. Next: label_rm.py, or eval_rm.py.
"""

import inspect
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import pairs
from w2s import cli, files, hub, protocol, stages


def main(
    labels: str = None, *, ds: str = None, model: str = None, out: str = None, test: str = None, target: str = "weak",
    loss: str = "xent", alpha: float = None, conf_prior: str = None, radius: float = None, as_released: bool = False,
    seed: int = 0, data_seed: int = 0, n_train: int = None, n_test: int = None, n_val: int = None, stop: bool = False,
    epochs: int = 1, batch_size: int = 220, micro_batch: int = None, lr: float = None, max_len: int = None, lora: int = None,
    checkpointing: bool = False, compile: bool = False, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Train a reward model: without labels the weak supervisor, with labels student or ceiling. Other options: cli.COMMON.

    Args:
        labels: the labels file of label_rm.py, used whole; without it the ground truth of the weak half of --ds
        ds: without labels: a task (see python rm/pairs.py), or a JSONL file with prompt, a, b and label (default: facts_pairs)
        model: folder or hub id (default: facts/xs and facts/m for facts_pairs, else openai-community/gpt2 and gpt2-medium)
        out: the run directory to make (default: runs/rm/weak, with labels runs/rm/student, or runs/rm/ceiling)
        target: with labels: weak trains the student on the weak labels, truth the ceiling on the ground truth
        loss: what to do with weak labels: a rule of losses.py (xent: "naive")
        n_val: pairs held out for the curves of Fig. 7 (default: a tenth of the groups, of 200 or more at least 100; 0: none)
        stop: keep the weights that agree best with the held-out given labels (default: the last ones, as in the paper)
        max_len: tokens of prompt and completion; longer prompts lose their beginning (default: 1024 or the model's limit)
    """
    example = "rm/train_rm.py runs/rm/labels.jsonl"
    stages.check_labels(
        labels,
        target,
        example,
        ds=ds,
        test=test,
        data_seed=data_seed,
        n_train=n_train,
        n_test=n_test,
    )
    rows, data, supervisor = (
        stages.read_labels(pairs.KIND, labels) if labels else (None, None, None)
    )
    ds = (data["ds"] if data else None) if labels else ds or "facts_pairs"
    model = model or default_model(ds, labels)
    out = (
        out or f"runs/rm/{'weak' if not labels else 'ceiling' if target == 'truth' else 'student'}"
    )
    args = {
        name: value
        for name, value in locals().items()
        if name in inspect.signature(main).parameters and name != "force"
    }
    cli.check(args)
    if stop and n_val == 0:
        raise files.BadInput("--stop looks at held-out pairs, and --n_val=0 holds none out")
    data = data if labels else pairs.describe(ds, data_seed, n_train, n_test, test)
    inputs = ({"labels": files.sha256(labels)} if labels else data["sha256"]) | hub.model_input(
        model
    )
    if files.is_done(out, args, inputs, force):
        return
    rows = rows or pairs.half(data, "weak")

    from w2s import (
        losses,  # torch takes a second to import, transformers three more, so not before they are needed
        parallel,
    )

    out, given = parallel.join(out), "weak" if labels and target == "weak" else "label"
    rule = losses.rule(
        loss, given, alpha=alpha, prior=conf_prior, radius=radius, as_released=as_released or None
    )

    from w2s import loop, models

    net, tokenizer = models.load(model, None, max_len, device, seed, outputs=1)
    models.add_lora(net, lora, dtype)
    train, held_out = protocol.hold_out(pairs.encode(rows, tokenizer, net), n_val, batch_size)
    card = files.begin(
        out, "rm/train_rm", args, inputs, data, loop.derived(net, train, held_out, lr, dtype)
    )
    history = loop.fit(
        net, train, given, **rule, held_out=held_out, epochs=epochs, batch_size=batch_size, micro_batch=micro_batch,
        lr=lr, seed=seed, dtype=dtype, checkpointing=checkpointing, compile=compile, stop=stop, name=out,
    )  # fmt: skip
    models.save(net, tokenizer, f"{out}/model")
    files.end(
        out, card | {"supervisor": supervisor}, history, loop.kept(history) if stop else history[-1]
    )
    evaluate = f"rm/eval_rm.py {out}" + " --ds=test.jsonl" * (data is None)
    stages.tell_next(
        evaluate if labels else f"rm/label_rm.py {out} --out={stages.beside(out, 'labels.jsonl')}"
    )


def default_model(ds, labels):
    """The supervisor's or the student's default model for a task."""
    if ds == "facts_pairs":
        return "facts/m" if labels else "facts/xs"
    return "openai-community/gpt2-medium" if labels else "openai-community/gpt2"


if __name__ == "__main__":
    cli.run(main, processes=True)
