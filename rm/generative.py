"""Generative fine-tuning: language-model all prompts and completions, preferences ignored, before a reward model is trained.

The paper's lift of its hardest setting (5.2.2): the strong base first learns to write such completions, both of every pair;
student and ceiling then start from what comes out.

    python rm/generative.py                                          # runs/rm/labels.jsonl, facts/m -> runs/rm/base
    python rm/train_rm.py runs/rm/labels.jsonl --model=runs/rm/base/model --out=runs/rm/student_gen

In: a labels file of label_rm.py (its labels are not read). Out: a run directory whose model is an ordinary causal language
model. The logits of a chunk of tokens at a time are made, and made again in the backward pass, so that with a vocabulary
of 150k they are never whole in memory.
"""

import inspect
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import pairs
from w2s import cli, files, hub, stages


def main(
    labels: str = "runs/rm/labels.jsonl", *, model: str = None, out: str = "runs/rm/base", weak_too: bool = False,
    seed: int = 0, epochs: int = 1, batch_size: int = 32, micro_batch: int = None, lr: float = None, max_len: int = None,
    checkpointing: bool = False, device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Fine-tune a causal language model on the texts of all pairs of a labels file. Other options: cli.COMMON.

    Args:
        labels: the labels file; its prompts and both completions are used, its labels are not
        model: folder or hub id of a causal model (default: facts/m for facts_pairs, else openai-community/gpt2-medium)
        out: the run directory to make; train_rm.py's --model is then OUT/model
        weak_too: Fig. 18: fine-tune the supervisor's base model alike, into OUT_weak, to train the supervisor from anew
        seed: moves the order
    """
    rows, data, _ = stages.read_labels(pairs.KIND, labels)
    model = model or (
        "facts/m" if data and data["ds"] == "facts_pairs" else "openai-community/gpt2-medium"
    )
    args = {
        name: value
        for name, value in locals().items()
        if name in inspect.signature(main).parameters and name != "force"
    }
    del args["weak_too"]
    cli.check(args)
    todo = [(args, labels, "student")]
    if weak_too:
        one = args | {"model": supervisors_base(labels), "out": f"{out.rstrip('/')}_weak"}
        todo.append((one, f"--ds={data['ds']}", "weak"))
    for one, start, run in todo:
        inputs = {"labels": files.sha256(labels)} | hub.model_input(one["model"])
        if not files.is_done(one["out"], one, inputs, force):
            finetune(rows, data, one, inputs)
        print(
            f"next: python rm/train_rm.py {start} --model={one['out']}/model --out={Path(out).parent / run}_gen"
        )


def supervisors_base(labels):
    """The model that the supervisor of a labels file was trained from; BadInput where the file's card does not say."""
    models = set((files.read_card(labels) or {}).get("models", ()))
    if len(models) != 1:
        raise files.BadInput(
            f"--weak_too: {labels} does not say which one model its supervisor was trained from"
        )
    return models.pop()


def finetune(rows, data, args, inputs):
    """One generative fine-tuning with the arguments of main(), from args["model"] to args["out"]."""
    from w2s import (
        lm,  # torch and transformers take seconds to import, so not before they are needed
        loop,
        models,
    )

    out, dtype, lr = args["out"], args["dtype"], args["lr"]
    net, tokenizer = models.load(
        args["model"], None, args["max_len"], args["device"], args["seed"], outputs=0
    )
    lm.check_head(net, args["model"])
    texts = [{"id": row["id"], "text": row["prompt"] + row[side]} for row in rows for side in "ab"]
    texts = models.encode(texts, tokenizer, net)
    card = files.begin(
        out, "rm/generative", args, inputs, data, loop.derived(net, texts, (), lr, dtype)
    )
    same = ("epochs", "batch_size", "micro_batch", "lr", "seed", "dtype", "checkpointing")
    history = lm.fit(net, texts, name=out, **{name: args[name] for name in same})
    models.save(net, tokenizer, f"{out}/model")
    files.end(out, card, history, history[-1])
    print(
        f"{out}: {history[0]['loss']:.3f} nats a token at first, {history[-1]['loss']:.3f} at the end"
    )


if __name__ == "__main__":
    cli.run(
        main
    )  # in one process: the embedding that a language model shares with its head cannot be split yet
