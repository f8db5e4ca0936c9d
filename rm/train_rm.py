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

sys.path.append(str(Path(__file__).resolve().parent.parent))
import cli
import hub
import pairs
import protocol
import rows as files
import stages


def main(
    labels: str = None, *, ds: str = "facts_pairs", model: str = None, out: str = None, test: str = None, target: str = "weak",
    loss: str = "xent", alpha: float = None, conf_prior: str = None, seed: int = 0, data_seed: int = 0, n_train: int = None,
    n_test: int = None, n_val: int = None, stop: bool = False, epochs: int = 1, batch_size: int = 220,
    micro_batch: int = None, lr: float = None, max_len: int = None, lora: int = None, checkpointing: bool = False,
    compile: bool = False, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Train a reward model: without labels the weak supervisor, with labels a student or the ceiling.

    Args:
        labels: the labels file of label_rm.py, used whole; without it the ground truth of the weak half of --ds
        ds: without labels: a task (python rm/pairs.py lists them), or a JSONL file with prompt, a, b and label
        model: folder or hub id (default: facts/xs and facts/m for facts_pairs, else openai-community/gpt2 and gpt2-medium)
        out: the run directory to make (default: runs/rm/weak, with labels runs/rm/student, or runs/rm/ceiling)
        test: a JSONL file of test pairs, when --ds is your own file (default: a fifth of its groups)
        target: with labels: weak trains the student on the weak labels, truth the ceiling on the ground truth
        loss: what to do with weak labels: a rule of losses.py (xent: "naive")
        alpha: conf, logconf, entropy: the largest weight of the second term (default: 0.5)
        conf_prior: conf: how many of a batch are hardened to 1: half of it (default), or as many as the weak labels say
        seed: moves initialisation and order
        data_seed: moves the two halves and the sides, never the test set
        n_train: pairs in each half (default: all there are, at most 10,000)
        n_test: pairs of the test set (default: all)
        n_val: pairs held out for the curves of Fig. 7 (default: a tenth of the groups, of 200 or more at least 100; 0: none)
        stop: keep the weights that agree best with the held-out given labels (default: the last ones, as in the paper)
        epochs: passes over the pairs
        batch_size: pairs in a batch
        micro_batch: pairs that go through at once, to save memory; the result does not depend on it (default: the batch)
        lr: learning rate (default by size: 1e-4 under 10M parameters, 5e-5 up to 400M, 1e-5 above)
        max_len: tokens of prompt and completion; longer prompts lose their beginning (default: 1024 or the model's limit)
        lora: train low-rank terms of this rank beside the frozen matrices, merged on saving (lr then 2e-4 by default)
        checkpointing: recompute activations in the backward pass, to save memory
        compile: let torch.compile fuse the model: half a minute first, for long runs on a GPU
        device: cpu, cuda, cuda:1, ... (default: the GPU where there is one)
        dtype: bf16 (autocast) or float32 (default: bf16 where the hardware has it and the model has 10M parameters)
        force: replace a finished run
    """
    if labels is None and target != "weak":
        raise files.BadInput("--target goes with a labels file: python rm/train_rm.py runs/rm/labels.jsonl --target=truth")
    rows, data, supervisor = stages.read_labels(pairs.KIND, labels) if labels else (None, None, None)
    ds = (data["ds"] if data else None) if labels else ds
    model = model or default_model(ds, labels)
    out = out or f"runs/rm/{'weak' if not labels else 'ceiling' if target == 'truth' else 'student'}"
    args = {name: value for name, value in locals().items() if name in inspect.signature(main).parameters and name != "force"}
    cli.check(args)
    data = data if labels else pairs.describe(ds, data_seed, n_train, n_test, test)
    inputs = {"labels": files.sha256(labels)} if labels else data["sha256"]
    inputs = inputs | hub.model_input(model)
    if files.is_done(out, args, inputs, force):
        return
    train(rows or pairs.half(data, "weak"), data, supervisor, args, inputs)


def train(rows, data, supervisor, args, inputs):
    """One run with the arguments of main(); supervisor: sha256 of the models that made the labels, None without labels."""
    import loop
    import losses
    import model as models  # torch and transformers take seconds to import, so not before they are needed
    import parallel

    labels, loss, dtype, lr = (args[name] for name in ("labels", "loss", "dtype", "lr"))
    out = parallel.join(args["out"])
    given = "weak" if labels and args["target"] == "weak" else "label"
    rule = losses.rule(loss, alpha=args["alpha"], prior=args["conf_prior"])
    rule = rule if given == "weak" else losses.LOSSES["xent"]
    net, tokenizer = models.load(args["model"], None, args["max_len"], args["device"], args["seed"], outputs=1)
    models.add_lora(net, args["lora"], dtype)
    train, held_out = protocol.hold_out(pairs.encode(rows, tokenizer, net), args["n_val"], args["batch_size"])
    card = files.begin(out, "rm/train_rm", args, inputs, data, loop.derived(net, train, held_out, lr, dtype))
    same = ("stop", "epochs", "batch_size", "micro_batch", "lr", "seed", "dtype", "checkpointing", "compile")
    history = loop.fit(net, train, given, **rule, held_out=held_out, name=out, **{name: args[name] for name in same})
    models.save(net, tokenizer, f"{out}/model")
    files.end(out, card | {"supervisor": supervisor}, history, loop.kept(history) if args["stop"] else history[-1])
    print(f"next: python rm/eval_rm.py {out}" if labels else f"next: python rm/label_rm.py {out}")


def default_model(ds, labels):
    """The supervisor's or the student's default model for a task."""
    if ds == "facts_pairs":
        return "facts/m" if labels else "facts/xs"
    return "openai-community/gpt2-medium" if labels else "openai-community/gpt2"


if __name__ == "__main__":
    cli.run(main, processes=True)
