"""Generative fine-tuning: read all prompts and completions before a reward model is trained.

The strong base first learns to write such completions, both of every pair, preferences ignored;
student and ceiling start from what comes out. This helps the paper's hardest setting (5.2.2).

    python rm/generative.py runs/pairs/labels.jsonl                   # facts/m -> runs/pairs/base
    python train_strong.py runs/pairs/labels.jsonl --model=runs/pairs/base/model \\
        --out=runs/pairs/student_gen

In: a labels file of pairs (its labels are not read). Out: a run directory beside it, whose model
is an ordinary causal language model.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import tasks
from w2s import cli, files, folders, leaks, records
from w2s.files import BadInput

RECIPE = {"epochs": 1, "batch_size": 32}


@cli.stage
def main(
    args, labels: str = "runs/pairs/labels.jsonl", *, model: str = None, out: str = None,
    weak_too: bool = False, seed: int = 0, epochs: int = None, batch_size: int = None,
    micro_batch: int = None, lr: float = None, max_len: int = None, checkpointing: bool = False,
    device: str = None, dtype: str = None, save_every: float = 300, force: bool = False,
):  # fmt: skip
    """Fine-tune a causal language model on the texts of all pairs of a labels file.

    Args:
        out: the run directory to make (default: base, beside the labels)
        epochs: passes (default: 1)
        batch_size: texts, two of a pair, in a batch (default: 32)
        seed: moves the order
    """
    pairs = tasks.pairs
    if tasks.setting_of_labels(labels) is not pairs:
        raise BadInput(f"{labels} holds no pairs: this is the first step of a reward model")
    rows, source = records.read_labels(pairs, labels)
    data = source.get("data")
    out = (out or str(files.beside(labels, "base"))).rstrip("/")
    model = model or tasks.default_models(data["ds"] if data else None)[1]
    args |= cli.recipe(args, RECIPE) | {"model": model, "out": out}
    del args["weak_too"]
    todo = [(args, ["train_strong.py", labels])]
    if weak_too:
        bases = set(source.get("models", ()))
        if len(bases) != 1:
            told = "names no one model that its supervisor started from"
            raise BadInput(f"--weak_too: {labels} {told}")
        base = args | {"model": bases.pop(), "out": f"{out}_weak"}
        same = [name for name in ("ds", "test", "data_seed", "n_train", "n_test") if data[name]]
        todo.append((base, ["train_weak.py", *(f"--{name}={data[name]}" for name in same)]))
    for one, stage in todo:
        inputs = {"labels": files.sha256(labels)} | folders.model_input(one["model"])
        if not records.is_done(one["out"], one, inputs, force):
            finetune(rows, source, one, inputs, save_every, force)
        new = files.beside(out, "weak_gen" if stage[0] == "train_weak.py" else "student_gen")
        cli.tell_next([*stage, f"--model={one['out']}/model", f"--out={new}"])


def finetune(rows, source, args, inputs, save_every, force):
    """One generative fine-tuning with the arguments of main(); source: the labels' card."""
    from w2s import lm, loop, models  # torch and transformers take seconds to import

    out, start = args["out"], {name: args[name] for name in ("max_len", "device", "seed")}
    model, tokenizer = models.load(args["model"], **start, outputs=0)
    lm.check_head(model)
    texts = [{"id": row["id"], "text": row["prompt"] + row[side]} for row in rows for side in "ab"]
    texts = lm.shares(models.encode(texts, tokenizer, model))
    plan = loop.resolve(model, args["lr"], args["dtype"])
    card = records.new_card("generative", tasks.pairs, args, inputs, source.get("data"))
    card = records.begin(out, card, model, texts, (), plan, force)
    how = ("epochs", "batch_size", "micro_batch", "seed", "checkpointing")
    how = plan | {name: args[name] for name in how}
    how |= {"resume": f"{out}/state.safetensors", "save_every": save_every}
    history = loop.fit(model, texts, lm.share_of_loss, **how, outputs=lm.nll, name=out)
    models.save(model, tokenizer, f"{out}/new")
    card |= leaks.learn(out, tasks.pairs, card, rows, source)
    records.end(out, card, history, history[-1])
    first, last = history[0]["loss"], history[-1]["loss"]
    print(f"{out}: {first:.3f} nats a token at first, {last:.3f} at the end")


if __name__ == "__main__":
    # in one process: the embedding that a language model shares with its head cannot be split yet
    cli.run(main)
