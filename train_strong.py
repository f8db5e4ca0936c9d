"""Stage 3: weak labels -> student, or ground truth of the same rows -> ceiling.

Fine-tunes a strong pretrained model on the labels of a weak supervisor (paper, section 3), by one of these rules (--loss):

    xent          cross-entropy on the soft labels, the paper's naive fine-tuning
    conf          auxiliary confidence loss (paper, 4.3.2)                         --alpha=0.5 --conf_prior=half
    logconf       the same as in openai's released code, its warm-up mended        --alpha=0.5 --as_released
    product       cross-entropy on the product of both predictions (openai's code)
    window        cross-entropy where the student is unsure (EleutherAI)           --radius (default: the labels' median)
    entropy       cross-entropy and a low entropy of the student (EleutherAI)      --alpha=0.5
    reverse_xent  cross-entropy with the roles swapped (2505.24313)
    reverse_kl    the same less the student's entropy (2502.11107)
    mix           xent where the supervisor is sure, else reverse_xent             --radius (default: the labels' median)
    adaptive      confidence loss with a weight for each row (2402.03749)

    python train_strong.py                                          # facts, in runs/student, a few seconds
    python train_strong.py runs/labels.jsonl --model=openai-community/gpt2-medium --out=runs/student --loss=conf
    python train_strong.py runs/labels.jsonl --model=openai-community/gpt2-medium --out=runs/ceiling --target=truth
    python train_strong.py --probe --out=runs/probe                 # only the last layer, on cached features (D.2)

In: a labels file (label.py's, or any JSONL with id, text, label and weak). Out: a run directory like train_weak.py's.
Next: eval.py.
"""

import inspect

import tasks
from w2s import cli, files, hub, protocol, stages

RECIPES = {
    False: (2, 32, None),
    True: (200, 128, 1e-3),
}  # --probe: epochs, batch_size, lr (paper, A.1 and D.2)


def main(
    labels: str = "runs/labels.jsonl", *, model: str = None, out: str = None, target: str = "weak", loss: str = "xent",
    alpha: float = None, conf_prior: str = None, radius: float = None, as_released: bool = False, probe: bool = False,
    seed: int = 0, n_val: int = None, epochs: int = None, batch_size: int = None, micro_batch: int = None, lr: float = None,
    max_len: int = None, head: str = None, lora: int = None, checkpointing: bool = False, compile: bool = False,
    device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Fine-tune a strong student on weak labels, or the strong ceiling on ground truth. Other options: cli.COMMON.

    Args:
        labels: the labels file; it is used whole
        model: folder or hub id of a causal model or encoder (default: facts/m for facts, else openai-community/gpt2-medium)
        out: the run directory to make (default: runs/student, or runs/ceiling with --target=truth)
        target: weak trains the student on the weak labels, truth the ceiling on the ground truth, by xent whatever --loss
        loss: the rule, what to do with weak labels (see the table above)
        probe: train the last linear layer alone, from zeros, on features that are computed once and kept in runs/features
        epochs: passes over the rows (default: 2; with --probe 200)
        batch_size: rows in a batch (default: 32; with --probe 128)
        lr: learning rate (default by size: 1e-4 under 10M parameters, 5e-5 up to 400M, 1e-5 above; with --probe 1e-3)
    """
    out = out or ("runs/ceiling" if target == "truth" else "runs/student")
    rows, data, supervisor = stages.read_labels(tasks.KIND, labels)
    model = model or (
        "facts/m" if data and data["ds"] == "facts" else "openai-community/gpt2-medium"
    )
    epochs, batch_size, lr = (
        d if own is None else own for own, d in zip((epochs, batch_size, lr), RECIPES[probe])
    )
    args = {
        name: value
        for name, value in locals().items()
        if name in inspect.signature(main).parameters and name != "force"
    }
    check(args)
    inputs = {"labels": files.sha256(labels)} | hub.model_input(model)
    if files.is_done(out, args, inputs, force):
        return

    from w2s import (
        losses,  # torch takes a second to import, transformers three more, so not before they are needed
        parallel,
    )

    out, given = parallel.join(out), "weak" if target == "weak" else "label"
    rule, whole_batch, _ = losses.rule(
        "xent" if given == "label" else loss,
        alpha=alpha,
        prior=conf_prior,
        radius=radius,
        as_released=as_released or None,
    )

    from w2s import loop, models, probes
    from w2s import lora as low_rank

    net, tokenizer = models.load(
        model, head=head, max_len=max_len, device=device, seed=0 if probe else seed
    )  # a probe's seeds share features
    low_rank.add(net, lora, models.pick_dtype(net, dtype), seed)
    plan = loop.resolve(net, lr, dtype)
    rows = [row | {"given": float(row[given])} for row in rows]
    train, held_out = protocol.hold_out(models.encode(rows, tokenizer, net), n_val, batch_size)
    card = files.begin(
        out,
        "train_strong",
        args,
        inputs,
        data,
        plan | net.w2s,
    )
    history = (probes.fit if probe else loop.fit)(
        net, train, rule, whole_batch=whole_batch, held_out=held_out, epochs=epochs, batch_size=batch_size,
        micro_batch=micro_batch, lr=plan["lr"], head_lr=plan["head_lr"], dtype=plan["dtype"],
        seed=seed, checkpointing=checkpointing, compile=compile, name=out,
    )  # fmt: skip
    models.save(net, tokenizer, f"{out}/model")
    files.end(out, card | {"supervisor": supervisor}, history, loop.kept(history))
    stages.tell_next(f"eval.py {out}" + " --ds=test.jsonl" * (data is None))


def check(args):
    """cli.check, and BadInput for options that a probe has no use for."""
    cli.check(args)
    for name in ("head", "micro_batch", "checkpointing", "lora", "compile"):
        if args["probe"] and args[name]:
            raise files.BadInput(
                f"--{name} does not go with --probe, which trains the last layer alone, from zeros"
            )


if __name__ == "__main__":
    cli.run(main, processes=True)
