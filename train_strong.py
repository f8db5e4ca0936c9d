"""Stage 3: weak labels -> student, or ground truth of the same rows -> ceiling.

Fine-tunes a strong pretrained model on the labels of a weak supervisor (paper, section 3). How it
learns from them is its rule, --loss, a function of w2s/losses.py.

    xent          cross-entropy on the soft labels, the paper's naive fine-tuning
    conf          auxiliary confidence loss (paper, 4.3.2)                 --alpha --conf_prior
    logconf       the same as in openai's released code, warm-up mended    --alpha --as_released
    product       cross-entropy on the product of both predictions (openai's code)
    window        cross-entropy where the student is unsure (EleutherAI)   --radius
    entropy       cross-entropy plus the entropy of the student            --alpha
    reverse_xent  cross-entropy with the roles of label and prediction swapped (2505.24313)
    reverse_kl    reverse_xent minus the entropy of the student (2502.11107)
    mix           xent where the supervisor is sure, else reverse_xent     --radius
    adaptive      confidence loss with a weight for each row (2402.03749)

    python train_strong.py                                          # facts, in runs/student
    python train_strong.py --target=truth                           # the ceiling, in runs/ceiling
    python train_strong.py runs/sst2/labels.jsonl --model=openai-community/gpt2-medium --loss=conf
    python train_strong.py --probe --out=runs/probe    # only the last layer, on cached features

In: a labels file of label.py, or your own: JSONL with id, weak, and the fields of a row.
Out: a run directory like train_weak.py's, beside the labels. Next: eval.py.
"""

import inspect
import re

import tasks
from w2s import cli, files, folders, leaks, parts, records

PROBE = {"epochs": 200, "batch_size": 128, "stop": True}  # paper, D.2


@cli.stage
def main(
    args, labels: str = "runs/labels.jsonl", *, model: str = None, out: str = None,
    target: str = "weak", loss: str = "xent", alpha: float = None, conf_prior: str = None,
    radius: float = None, as_released: bool = False, probe: bool = False, easy: int = None,
    seed: int = 0, n_val: int = None, epochs: int = None, batch_size: int = None,
    stop: bool = None, micro_batch: int = None, lr: float = None, max_len: int = None,
    head: str = None, lora: int = None, checkpointing: bool = False, compile: bool = False,
    device: str = None, dtype: str = None, save_every: float = 300, force: bool = False,
    allow_leak: bool = False,
):  # fmt: skip
    """Fine-tune a student on weak labels, or the strong ceiling on ground truth."""
    setting = tasks.setting_of_labels(labels)
    rows, labels_card = records.read_labels(setting, labels)
    data = labels_card.get("data")
    model = model or tasks.default_models(data["ds"] if data else None)[1]
    out = out or str(files.beside(labels, "ceiling" if target == "truth" else "student"))
    recipe = cli.recipe(args, setting.RECIPE | (PROBE if probe else {}))
    rule, whole_batch, options = chosen_rule(setting, args, recipe["batch_size"])
    records.check_training(setting, args := args | recipe | {"model": model, "out": out} | options)
    inputs = folders.model_input(model) | {"labels": files.sha256(labels), "rule": code_of(rule)}
    if records.is_done(out, args, inputs, force):
        return
    leak = leaks.of_labels(setting, rows, labels, labels_card, args, allow_leak)

    from w2s import loop, models, probes  # torch and transformers take seconds to import
    from w2s.lora import add as add_lora

    parts.together("join")
    start = {"head": head, "max_len": max_len, "device": device, "outputs": setting.OUTPUTS}
    model, tokenizer = models.load(model, seed=0 if probe else seed, **start)  # probes share one
    rows = rows if easy is None else tasks.moves.easier(rows, easy)
    given = "weak" if target == "weak" else setting.TRUTH
    rows = setting.encode(rows, tokenizer, model, given=given)
    if lora:
        add_lora(model, lora, dtype, seed)
    train, held_out = files.hold_out(rows, recipe.pop("n_val"), recipe["batch_size"])
    trainer = probes if probe else loop
    rates = trainer.resolve(model, lr, dtype)
    card = records.new_card("train_strong", setting, args, inputs, data)
    card |= {"supervisor": labels_card.get("supervisors"), "labels_from": labels_card.get("stage")}
    card = records.begin(out, card, model, train, held_out, recipe | rates, force)
    history = trainer.fit(
        model, train, rule, whole_batch=whole_batch, held_out=held_out, **recipe, **rates,
        micro_batch=micro_batch, seed=seed, checkpointing=checkpointing, compile=compile,
        outputs=setting.outputs, name=out, resume=f"{out}/state.safetensors", save_every=save_every,
    )  # fmt: skip
    models.save(model, tokenizer, f"{out}/new")
    card |= leaks.learn(out, setting, card, train + held_out, labels_card, leak)
    records.end(out, card, history, loop.kept(history) if recipe["stop"] else history[-1])
    cli.tell_next(["eval.py", out, *([] if data else ["--ds=test.jsonl"])])


def chosen_rule(setting, args, batch_size):
    """(loss, whether it needs the whole batch, its options as a card has them) of --loss.

    The ceiling learns the truth by cross-entropy, whatever the rule of the student.
    """
    options = {"alpha": args["alpha"], "prior": args["conf_prior"], "radius": args["radius"]}
    options |= {"as_released": args["as_released"] or None, "batch_size": batch_size}
    rule, whole_batch, resolved = setting.rule(args["loss"], **options)
    if args["target"] == "truth":
        if args["loss"] != "xent":
            print(f"ground truth is learned by xent, not by --loss={args['loss']}")
        rule, whole_batch, resolved = setting.rule("xent")
        resolved = {"loss": "xent", "alpha": None, "radius": None, "as_released": False}
    return rule, whole_batch, resolved | {"conf_prior": resolved.pop("prior", None)}


def code_of(rule):
    """A hash of a rule's code, but for comments: of its function, of those of its module that it
    calls, and they call, and of the numbers and words that they name. Who edits it trains anew.
    """
    functions, constants = [getattr(rule, "func", rule)], {}
    for one in functions:  # which grows
        codes = [one.__code__, *filter(inspect.iscode, one.__code__.co_consts)]  # lambdas have one
        named = {name: one.__globals__.get(name) for code in codes for name in code.co_names}
        constants |= {n: it for n, it in named.items() if isinstance(it, int | float | str | tuple)}
        called = [it for it in named.values() if inspect.isfunction(it) and it not in functions]
        functions += [it for it in called if it.__module__ == one.__module__]
    code = [re.sub(r"\s*#.*", "", inspect.getsource(one)) for one in functions]
    return files.hashed(str([code, sorted(constants.items())])).hex()


if __name__ == "__main__":
    cli.run(main, processes=True)
