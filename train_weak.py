"""Stage 1: ground truth -> weak supervisor.

Fine-tunes a small pretrained model on the true labels of the weak half of a task (paper,
section 3 and appendix A.1). The task says what is learned: texts, preference pairs or chess moves.

    python train_weak.py                                  # facts, in runs/weak, a few seconds
    python train_weak.py --ds=sst2 --model=openai-community/gpt2 --out=runs/sst2/weak
    python train_weak.py --ds=puzzles                     # chess, in runs/moves/weak
    python train_weak.py --bootstrap --seed=1 --out=runs/bag1/weak     # bagging: one of several

In: a task, or a JSONL file. Out: a run directory: card.json, history.jsonl, model/. Next: label.py.
"""

import random
from pathlib import Path

import tasks
from w2s import cli, files, folders, leaks, parts, protocol, records


@cli.stage
def main(
    args, *, ds: str = "facts", model: str = None, out: str = None, test: str = None, seed: int = 0,
    data_seed: int = 0, n_train: int = None, n_test: int = None, n_val: int = None,
    bootstrap: bool = False, easy: int = None, epochs: int = None,
    batch_size: int = None, stop: bool = None, micro_batch: int = None, lr: float = None,
    max_len: int = None, head: str = None, lora: int = None, checkpointing: bool = False,
    compile: bool = False, device: str = None, dtype: str = None, save_every: float = 300,
    force: bool = False,
):  # fmt: skip
    """Fine-tune a weak supervisor on the ground truth of the weak half."""
    setting = tasks.setting_of(ds)
    model = model or tasks.default_models(ds)[0]
    out = out or ("runs/weak" if setting is tasks.texts else f"runs/{setting.__name__}/weak")
    recipe = cli.recipe(args, setting.RECIPE)
    args |= recipe | {"model": model, "out": out}
    records.check_training(setting, args)
    data = protocol.describe(setting, ds, data_seed, n_train, n_test, test)
    inputs = data["sha256"] | folders.model_input(model)
    if records.is_done(out, args, inputs, force):
        return
    rows = protocol.half(setting, data, "weak")
    rows = rows if easy is None else tasks.moves.easier(rows, easy)

    from w2s import loop, models  # torch and transformers take seconds to import
    from w2s.lora import add as add_lora

    parts.together("join")
    start = {"head": head, "max_len": max_len, "device": device, "outputs": setting.OUTPUTS}
    model, tokenizer = models.load(model, seed=seed, **start)
    rows = setting.encode(rows, tokenizer, model, given=setting.TRUTH)
    if lora:
        add_lora(model, lora, dtype, seed)
    train, held_out = files.hold_out(rows, recipe.pop("n_val"), recipe["batch_size"])
    if bootstrap:
        train = resampled(train, seed)
    loss, whole_batch, _ = setting.rule("xent")
    rates = loop.resolve(model, lr, dtype)
    card = records.new_card("train_weak", setting, args, inputs, data)
    card = records.begin(out, card, model, train, held_out, recipe | rates, force)
    history = loop.fit(
        model, train, loss, whole_batch=whole_batch, held_out=held_out, **recipe, **rates,
        micro_batch=micro_batch, seed=seed, checkpointing=checkpointing, compile=compile,
        outputs=setting.outputs, name=out, resume=f"{out}/state.safetensors", save_every=save_every,
    )  # fmt: skip
    models.save(model, tokenizer, f"{out}/new")
    card |= leaks.learn(out, setting, card, train + held_out)
    records.end(out, card, history, loop.kept(history) if recipe["stop"] else history[-1])
    labels = f"{Path(out).name.replace('weak', 'labels')}.jsonl"  # of every supervisor its own
    cli.tell_next(["label.py", out, f"--out={files.beside(out, labels)}"])


def resampled(rows, seed):
    """As many groups of rows as there are, drawn with replacement: bagging (Breiman 1996)."""
    groups = files.by_group(rows, "bootstrap")
    return [row for group in random.Random(seed).choices(groups, k=len(groups)) for row in group]


if __name__ == "__main__":
    cli.run(main, processes=True)
