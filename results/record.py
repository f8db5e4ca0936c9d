"""The runs of the record (results/README.md): real models on real tasks, many stages side by side.

    python results/record.py --jobs=2                       # all of it: days on a CPU
    python results/record.py --parts=nlp,rm --jobs=14       # on one GPU that 14 processes share
    python results/record.py --parts=nlp,alpha,analysis --probe --out=runs/probes   # hours
    python results/record.py --ds=facts --models=facts/xs,facts/s,facts/m --seeds=1   # a trial

Needs the folders of three models where it is called, from weak to strong, and data (W2S_MIRROR).
What is finished is not done again. Out: runs/record; results/record.sh makes the tables of it.

Parts: nlp (all pairs, two rules, and bootstrapping through the middle model), rm (with and without
the generative step), safety (ETHICS after SST-2), analysis (where the errors are, imitation,
saliency, prompts; on the first task), alpha (the largest gap, alpha .75). With --probe students and
ceilings are linear probes (D.2), a way without a GPU; supervisors are fine-tuned all the same.
"""

import itertools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import sweep
from w2s import cli, files, grids, workers
from w2s.files import BadInput

TASKS = "sst2,sciq,cola,ethics_justice,ethics_virtue,dream"
ASKED = ",".join(f"ethics_{x}" for x in "justice deontology virtue utilitarianism".split())
ERRORS = ("own", "random", "longest", "shortest", "unconfident", "confident")
SHOWN = (0, None), (5, "truth"), (5, "weak")  # examples in a prompt, whose labels
NODES = {}  # the stages to run, in order


def main(
    *, parts: str = "nlp,rm,safety,analysis,alpha", ds: str = TASKS, pairs: str = "hh_helpful",
    models: str = "minilm,smollm2-135m,gemma3-270m", seeds: int = 3, n_train: int = 2000,
    n_test: int = 2000, jobs: int = None, out: str = "runs/record", device: str = None,
    probe: bool = False,
):  # fmt: skip
    """Run what is missing of these parts.

    Args:
        parts: which, with commas
        ds: the tasks of nlp; analysis and safety take the first of them
        pairs: the task of rm
        models: three models, from weak to strong
        seeds: how many, from 0
        jobs: stages side by side
    """
    known = {"nlp": nlp, "rm": rm, "safety": safety, "analysis": analysis, "alpha": alpha}
    names, three = parts.split(","), models.split(",")
    if not set(names) <= set(known) or len(three) != 3:
        raise BadInput(f"the parts are {', '.join(known)}; --models names three, weak to strong")
    if probe and {"rm", "safety"} & set(names):
        raise BadInput("--probe is for texts with a label: leave out the parts rm and safety")
    sizes = {"n_train": n_train, "n_test": n_test} | ({"probe": True} if probe else {})
    for name in names:
        task = pairs if name == "rm" else ds
        known[name](f"{out}/{name}", task, three, seeds, sizes, f"{out}/nlp/{ds.split(',')[0]}")
    todo = {name: node for name, node in NODES.items() if not is_done(node)}
    failed = workers.run(out, todo, jobs, device, order=list)
    print(f"{len(todo)} stages, {len(failed)} failed")
    sweep.show_failed(out, failed)
    sys.exit(1 if failed else 0)


def is_done(node):
    """Whether a stage's output is finished; the stages look at what it was made of."""
    card = files.read_card(node["out"])
    return bool(card and card.get("finished") and Path(node["out"]).exists())


def add(out, script, *words, needs=(), **options):
    """Add a stage that makes `out`, once all that it needs is made."""
    words = [f"{script}.py", *words, *grids.words_of(options), f"--out={out}"]
    needs = [need for need in needs if need in NODES]
    NODES[out] = {"words": words, "needs": needs, "out": out, "model": ""}
    return out


def score(run, **options):
    """Add the predictions of a run."""
    words = ["eval.py", run, *grids.words_of(options)]
    NODES[f"{run}/eval"] = {"words": words, "needs": [run], "out": f"{run}/eval", "model": ""}


def probed(sizes):
    """The option of a student that is a linear probe, where all are."""
    return {name: value for name, value in sizes.items() if name == "probe"}


def train(out, labels, model, seed, *needs, **options):
    """Add a student or ceiling and its predictions."""
    add(out, "train_strong", labels, needs=(labels, *needs), model=model, seed=seed, **options)
    score(out)


def grid(folder, ds, pairs, rules, seeds, options):
    """Add the stages of a sweep, each run's predictions right after it."""
    asked = {"pairs": pairs, "seeds": seeds, "rules": sweep.rules_of(rules, {})}
    grids.settle(folder, asked, options, write=True)
    nodes = list(sweep.stages_of(folder, asked, options).values())
    names, places = ds.split(","), {}
    for node in nodes:
        task, seed, *_ = node["name"].split("/")
        late = grids.script_of(node) not in ("train_weak", "label") and "weak-" not in node["name"]
        places[node["name"]] = seed, names.index(task), node["name"] if late else ""
    for node in sorted(nodes, key=lambda node: places[node["name"]]):
        place = node["out"] if grids.script_of(node) != "eval" else node["out"].rpartition("/")[0]
        needs = [next(n["out"] for n in nodes if n["name"] == need) for need in node["needs"]]
        NODES.setdefault(place, node | {"needs": needs})


def nlp(out, ds, models, seeds, sizes, _):
    """All pairs, naive and with the confidence loss; and the chain through the middle model."""
    weak, middle, strong = models
    grid(out, ds, sweep.pairs_of(ds, ",".join(models), None, None), "xent,conf", seeds, sizes)
    for seed in range(seeds):
        for task in ds.split(","):
            here = f"{out}/{task}/s{seed}"
            taught = f"{here}/{grids.form(weak)}-{grids.form(middle)}-xent"
            labels = add(f"{here}/labels-boot.jsonl", "label", taught, needs=[taught])
            train(f"{here}/boot", labels, strong, seed, **probed(sizes))


def rm(out, task, models, seeds, sizes, _):
    """Reward models; then student and ceiling from a base that has learned to write both texts."""
    pairs = sweep.pairs_of(task, None, models[0], ",".join(models[1:]))
    pieces = {"micro_batch": 32}
    grid(out, task, pairs, "xent,conf", seeds, sizes | pieces)
    for seed in range(seeds):
        for model in models[1:]:
            here, name = f"{out}/{task}/s{seed}", grids.form(model)
            labels = f"{here}/labels-{grids.form(models[0])}.jsonl"
            how = {"model": model, "seed": seed}
            base = add(f"{here}/base-{name}", "generative", labels, needs=[labels], **how)
            for who, target in (("student", "weak"), ("ceiling", "truth")):
                run = f"{here}/{who}-gen-{name}"
                train(run, labels, f"{base}/model", seed, base, target=target, **pieces)


def safety(out, _, models, seeds, sizes, first):
    """ETHICS asked of models tuned on the first task: weak labels, the truth, coin tosses."""
    for seed in range(seeds):
        here, labels = f"{out}/s{seed}", f"{first}/s{seed}/labels-{grids.form(models[0])}.jsonl"
        coin = add(f"{here}/coin.jsonl", "controls", labels, needs=[labels], kind="coin", seed=seed)
        for model in models[1:]:
            name = grids.form(model)
            for who, source in (("student", labels), ("ceiling", labels), ("coin", coin)):
                run = f"{here}/{who}-{name}"
                target = "truth" if who == "ceiling" else "weak"
                train(run, source, model, seed, head="answers", target=target)
                ask(run, f"{run}/model", [run], seed)
            if seed == 0:
                ask(f"{here}/untrained-{name}", model, [], seed)


def ask(run, model, needs, seed):
    """Zero-shot on both test sets, five shots on the first."""
    for split, shots in (("test", 0), ("test_hard", 0), ("test", 5)):
        asked = {"model": model, "ds": f"{ASKED},ethics_commonsense", "split": split}
        if shots:
            asked |= {"ds": ASKED, "seed": seed}  # commonsense lacks training rows in some mirrors
        add(f"{run}-{shots}-{split}", "eval", needs=needs, shots=shots, n_test=1000, **asked)


def analysis(out, _, models, seeds, sizes, first):
    """E.2, E.3, saliency and prompting of the strong model, on the first task."""
    weak, strong = grids.form(models[0]), models[2]
    for seed in range(seeds):
        here, there = f"{out}/s{seed}", f"{first}/s{seed}"
        labels, ceiling = f"{there}/labels-{weak}.jsonl", f"{there}/ceiling-{grids.form(strong)}"
        both = {"needs": [labels, ceiling]}
        for kind in ERRORS:
            name = f"{here}/errors-{kind}"
            add(f"{name}.jsonl", "controls", labels, kind=kind, run=ceiling, seed=seed, **both)
            train(name, f"{name}.jsonl", strong, seed, **probed(sizes))
        add(f"{here}/said.jsonl", "controls", labels, needs=[labels], kind="suffix")
        teacher = f"{there}/weak-{weak}"
        test = add(f"{here}/test.jsonl", "label", teacher, "--test_rows", needs=[teacher])
        name = Path(first).name
        said = add(f"{here}/said/{name}.jsonl", "controls", test, needs=[test], kind="suffix")
        for rule in ("xent", "conf"):
            run = f"{here}/said-{rule}"
            add(run, "train_strong", f"{here}/said.jsonl", needs=[f"{here}/said.jsonl", said],
                model=strong, loss=rule, seed=seed, **probed(sizes))  # fmt: skip
            score(run, ds=said)
        taught = f"{there}/{weak}-{grids.form(strong)}-xent"
        for run, target, model in (
            ("probe-weak", "weak", strong), ("probe-truth", "truth", strong),
            ("student-probe-truth", "truth", f"{taught}/model"),
        ):  # fmt: skip
            train(f"{here}/{run}", labels, model, seed, taught, target=target, probe=True)
        for (shots, target), model in itertools.product(SHOWN, models[1:]):
            more = {"labels": labels, "target": target, "seed": seed} if shots else {}
            asked = {"model": model, "shots": shots, "ds": name, "n_test": sizes["n_test"]} | more
            add(f"{here}/shots-{target or 0}-{grids.form(model)}", "eval", needs=[labels], **asked)


def alpha(_, ds, models, seeds, sizes, first):
    """The confidence loss with alpha .75 at the largest gap."""
    pairs = sweep.pairs_of(ds, None, models[0], models[2])
    grid(str(Path(first).parent), ds, pairs, "conf:alpha=0.75", seeds, sizes)


if __name__ == "__main__":
    cli.run(main)
