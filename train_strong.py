"""Stage 3: weak labels -> student, or ground truth of the same rows -> ceiling.

Fine-tunes a strong pretrained model on the labels of a weak supervisor (paper, section 3; the confidence loss: 4.3.2).

    python train_strong.py                                          # facts, in runs/student, a few seconds
    python train_strong.py runs/labels.jsonl --model=openai-community/gpt2-medium --out=runs/student --loss=conf
    python train_strong.py runs/labels.jsonl --model=openai-community/gpt2-medium --out=runs/ceiling --target=truth

In: a labels file (label.py's, or any JSONL with id, text, label and weak). Out: a run directory like train_weak.py's.
Next: eval.py.
"""

import functools
import inspect

import cli
import hub
import rows as files
import tasks


def main(
    labels: str = "runs/labels.jsonl", *, model: str = None, out: str = None, target: str = "weak", loss: str = "xent",
    alpha: float = 0.5, conf_prior: str = "half", seed: int = 0, n_val: int = None, epochs: int = 2, batch_size: int = 32,
    micro_batch: int = None, lr: float = None, max_len: int = None, head: str = None, lora: int = None,
    checkpointing: bool = False, compile: bool = False, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Fine-tune a strong student on weak labels, or the strong ceiling on ground truth.

    Args:
        labels: the labels file; it is used whole
        model: folder or hub id of a causal model or encoder (default: facts/m for facts, else openai-community/gpt2-medium)
        out: the run directory to make (default: runs/student, or runs/ceiling with --target=truth)
        target: weak trains the student on the weak labels, truth the ceiling on the ground truth of the same rows
        loss: what to do with weak labels: xent (cross-entropy, "naive") or conf (auxiliary confidence loss)
        alpha: conf: the largest weight of the student's own confident predictions (the paper: 0.75 for its largest students)
        conf_prior: conf: how many of a batch are hardened to 1: half of it, or as many as the weak labels say
        seed: moves initialisation and order
        n_val: rows held out for early stopping (default: a tenth of the groups, of 200 rows or more at least 100; 0: none)
        epochs: passes over the rows
        batch_size: rows in a batch
        micro_batch: rows that go through at once, to save memory; the result does not depend on it (default: the batch)
        lr: learning rate (default by size: 1e-4 under 10M parameters, 5e-5 up to 400M, 1e-5 above)
        max_len: tokens of a text; longer ones lose their beginning (default: 1024 or the model's own limit)
        head: unembedding or zero, how a causal model's head starts (default: unembedding where there are tokens "0" and "1")
        lora: train low-rank terms of this rank beside the frozen matrices, merged on saving (lr then 2e-4 by default)
        checkpointing: recompute activations in the backward pass, to save memory
        compile: let torch.compile fuse the model: half a minute first, for long runs on a GPU
        device: cpu, cuda, cuda:1, ... (default: the GPU where there is one)
        dtype: bf16 (autocast) or float32 (default: bf16 where the hardware has it and the model has 10M parameters)
        force: replace a finished run
    """
    out = out or ("runs/ceiling" if target == "truth" else "runs/student")
    rows, data, supervisor = read_labels(labels)
    model = model or ("facts/m" if data and data["ds"] == "facts" else "openai-community/gpt2-medium")
    args = {name: value for name, value in locals().items() if name in inspect.signature(main).parameters and name != "force"}
    cli.check(args)
    inputs = {"labels": files.sha256(labels)} | hub.model_input(model)
    if files.is_done(out, args, inputs, force):
        return

    import loop
    import losses
    import model as models  # torch and transformers take seconds to import, so not before they are needed
    import parallel

    out = parallel.join(out)
    if loss not in losses.LOSSES:
        raise files.BadInput(f"unknown loss --loss={loss}{cli.nearest(loss, losses.LOSSES)}")
    rule = dict(losses.LOSSES[loss] if target == "weak" else losses.LOSSES["xent"])
    if rule["loss"] is losses.conf:
        rule["loss"] = functools.partial(losses.conf, alpha=alpha, prior=conf_prior)
    net, tokenizer = models.load(model, head, max_len, device, seed)
    models.add_lora(net, lora, dtype)
    train, held_out = tasks.hold_out(models.encode(rows, tokenizer, net), n_val, batch_size)
    card = files.begin(out, "train_strong", args, inputs, data, loop.derived(net, train, held_out, lr, dtype))
    history = loop.fit(
        net, train, "weak" if target == "weak" else "label", **rule, held_out=held_out, epochs=epochs, batch_size=batch_size,
        micro_batch=micro_batch, lr=lr, seed=seed, dtype=dtype, checkpointing=checkpointing, compile=compile, name=out,
    )  # fmt: skip
    models.save(net, tokenizer, f"{out}/model")
    files.end(out, card | {"supervisor": supervisor}, history, loop.kept(history))
    print("next: python eval.py with the supervisor's, the student's and the ceiling's run")


def read_labels(labels):
    """(rows, data description, sha256 of the supervisors' models) of a labels file.

    It may be somebody else's: then it has no card, so that the last two are None, and perhaps no groups.
    """
    rows = files.read_jsonl(labels, ["id", "text", "label", "weak"])
    card = files.read_card(labels)
    if card is None:
        print(f"{labels} has no card of ours: which task it is about is not known, so eval.py will need --ds")
    card = card or {"data": None, "inputs": {}}
    return [{"group": row["id"]} | row for row in rows], card.get("data"), card.get("inputs", {}).get("runs")


if __name__ == "__main__":
    cli.run(main)
