"""A grid of experiments: tasks x supervisors x students x rules x seeds, in one line.

    python sweep.py                  # the demo: facts, two rules, three seeds; half a minute
    python sweep.py --ds=sst2,boolq --models=facts/xs,facts/s,facts/m --loss=xent,conf --seeds=3
    python sweep.py --ds='ethics_*' --weak=facts/xs --strong=facts/s,facts/m --n_train=500 --dry_run
    python sweep.py --loss=conf,conf:alpha=0.75 --jobs=4 --out=runs/alphas
    python sweep.py --models=facts/xs,facts/m --slurm="--gres=gpu:1 --time=4:00:00"

Every stage runs once, though many lines of the results need it: one supervisor labels for all
students, and one ceiling, learned from the first supervisor's file, serves all supervisors, for
their files hold the same rows and truth. (Supervisor and ceiling of one size are two runs: they
learn from different halves.) Options of the stages, such as --n_train=500, go on to them.

Called again it does what is missing: after a failure, a kill, or with more tasks, models, rules
or seeds. Out, in --out: <task>/s<seed>/..., logs/, grid.json, results.jsonl, and the report of
what is finished: report.html, report.md, pictures, and pgr.json with all estimates.

--slurm submits the same as a few dozen jobs at most, for a folder that all nodes see, and returns;
called again it submits what is neither finished nor in the queue.
"""

import functools
import importlib
import inspect
import itertools
import shlex
import sys
from pathlib import Path

import pgr
import tasks
import train_strong
from w2s import cli, files, folders, grids, locks, protocol, report, workers
from w2s.files import BadInput
from w2s.slurm import no_jobs, noted, ready, runnable, stopped, submit

# options that a grid sets itself, or that change no result
OWN = {"ds", "model", "seed", "out", "target", "loss", "force", "allow_leak", "save_every"}
ONLY = {
    "label": ("vote", "part", "device", "dtype"),
    "eval": ("split", "device", "dtype", "judge", "bad", "samples", "temperature", "top_p"),
}
UNSET = dict.fromkeys((*pgr.RULE, "target"))  # options that a rule may have


def handed_on():
    """{script: {name: parameter}}: the options of the stages that a grid hands on."""
    found = {}
    for script in grids.STAGES:
        known = inspect.signature(importlib.import_module(script).main).parameters
        options = {n: p for n, p in known.items() if p.kind is p.KEYWORD_ONLY and n not in OWN}
        found[script] = {n: p for n, p in options.items() if n in ONLY.get(script, options)}
    return found


def with_options_of_stages(main):
    """main(), with the options that are handed on in its signature."""
    signature = inspect.signature(main)
    own = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    handed = {name: p for options in handed_on().values() for name, p in options.items()}
    main.__signature__ = signature.replace(parameters=[*own, *handed.values()])
    return main


@with_options_of_stages
def main(
    *, ds: str = "facts", models: str = None, weak: str = None, strong: str = None,
    loss: str = None, seeds: int = 3, out: str = None, jobs: int = None, force: bool = False,
    dry_run: bool = False, slurm: str = None, only: str = None, **handed,
):  # fmt: skip
    """Run a grid, or what is missing of it.

    Args:
        ds: tasks, or JSONL files, with commas; globs in quotes: 'ethics_*'
        models: models, from weak to strong; each supervises every later one (default: by task)
        weak: supervisors, together with --strong, instead of --models
        strong: students of every supervisor
        loss: rules, each with its own options: xent,conf:alpha=0.75 (default: xent, and conf)
        out: the folder of the grid (default: runs/demo, or runs/grid with --ds or models)
        jobs: stages side by side (default: one a GPU; for tiny models, or without one, the cores)
        force: redo the finished stages whose rule or input has changed since, and no others
        dry_run: print the commands that are missing, what sharing saves, and the time
        slurm: submit all as jobs, with these options of sbatch: "--gres=gpu:1 --time=4:00:00"
        only: a note of --slurm: be its job (Slurm's jobs alone need it)
    """
    asked = {"ds": ds, "models": models, "weak": weak, "strong": strong, "loss": loss}
    asked |= {"seeds": seeds, "out": out, "jobs": jobs, "force": force} | handed
    cli.check(asked)
    out = out or ("runs/grid" if ds != "facts" or models or weak or strong else "runs/demo")
    defaults = inspect.signature(main).parameters
    asked = {n: value for n, value in asked.items() if value != defaults[n].default}
    handed = {n: value for n, value in asked.items() if n in handed}
    shared = {name: handed.pop(name) for name in pgr.RULE if name in handed}
    pairs = pairs_of(ds, models, weak, strong)
    loss = loss or "xent" + ",conf" * all(tasks.setting_of(task).SOFT for task, *_ in pairs)
    grid = {"pairs": pairs, "seeds": seeds, "rules": rules_of(loss, shared)}
    nodes = stages_of(out, grid, handed, force)
    whole = all_of(out, grid, handed)
    if todo := grids.undone(nodes):
        check(whole, handed)
    if slurm:
        ready(slurm, dry_run)
    send = functools.partial(submit, out, nodes, words=grids.words_of(asked), options=slurm)
    if dry_run:
        return send(todo, dry_run=True) if slurm else show_plan(grid, nodes, todo)
    if only:
        return be_job(only, out, whole, nodes, handed, jobs)
    with locks.held(out):
        if not slurm:
            no_jobs(out)
        grids.settle(out, grid, handed, write=True)
        todo = grids.undone(nodes)  # another sweep may have ended just now
        if slurm and todo:
            return send(todo)
        finish(out, whole, nodes, todo, handed, workers.run(out, todo, jobs, handed.get("device")))


def all_of(out, grid, handed):
    """A grid and all that its folder holds, as one grid."""
    whole = grids.settle(out, grid, handed, write=False)
    return whole | {"rules": rules_of(",".join(whole["rules"]), {})}


def stages_of(out, grid, handed, force=False):
    """{name: stage} of a grid, with the options that its script takes. force: stages that are
    finished, but of a rule or input that has changed since, get --force."""
    by_stage = {}
    for script, known in handed_on().items():
        by_stage[script] = {n: value for n, value in handed.items() if n in known}
    nodes = grids.build(out, grid, by_stage)
    for task, weak, strong, rule, seed in grids.cells(grid):
        at, setting = grids.places(task, weak, strong, rule, seed), tasks.setting_of(task)
        nodes[at["student"]]["code"] = code_of(setting, tuple(grid["rules"][rule].items()))
        nodes[at["ceiling"]]["code"] = code_of(setting, (("loss", "xent"),))
    for node in grids.undone(nodes).values() if force else ():
        if (files.read_card(node["out"]) or {}).get("finished"):
            node["words"].append("--force")
    return nodes


@functools.cache
def code_of(setting, options):
    """A hash of the code of a rule, given as its options for train_strong.py."""
    return train_strong.code_of(train_strong.chosen_rule(setting, UNSET | dict(options), None)[0])


def be_job(note, out, grid, nodes, handed, jobs):
    """Be a job of Slurm: run the stages of its note; the last job has none, but ends the grid."""
    stages = noted(note)
    if stages:
        todo = runnable(stages, nodes)
        failed = workers.run(out, todo, jobs, handed.get("device"))
        print(f"{len(todo)} of {len(stages)} stages could run: {len(failed)} failed")
        show_failed(out, failed)
    Path(note).unlink()
    if not stages:
        finish(out, grid, nodes, grids.undone(nodes), handed, stopped(nodes))


def finish(out, grid, nodes, todo, handed, failed):
    """Write and show the results, and tell at last what failed, {name: why}, with exit code 1.
    grid: all that the folder holds; nodes: the stages of this call."""
    left = grids.undone(stages_of(out, grid, handed))
    lines = grids.results(out, grid, tasks.setting_of, handed.get("split", "test"), left)
    told = f"{len(nodes)} stages, {len(todo)} of them to do: {len(failed)} failed"
    print(f"{out}: {told}; {len(lines)} lines in {out}/results.jsonl")
    if lines:
        report.show(out, report.current(out, tasks.setting_of_card))
    show_failed(out, failed)
    if failed:
        if (waiting := len(nodes.keys() & left) - len(failed)) > 0:
            print(f"{waiting} stages that need them were not run", file=sys.stderr)
        sys.exit(1)


def show_failed(out, failed):
    """Tell which stages failed, {name: why}, and where their logs are."""
    for name, why in failed.items():
        print(f"failed: {name}: {why} (see {out}/logs/{name}.log)", file=sys.stderr)


def names(option, words):
    """The words of a list, none of them empty or twice."""
    found = words.split(",")
    for name in found:
        if not name or found.count(name) > 1:
            told = f"names {name} twice" if name else "has an empty name"
            raise BadInput(f"--{option}={words} {told}: write a,b,c")
    return found


def pairs_of(ds, models, weak, strong):
    """[(task, supervisor, student)] of a grid."""
    asked = names("ds", ",".join(tasks.named(names("ds", ds))))
    for task in asked:
        tasks.setting_of(task)
    if bool(weak) != bool(strong) or (models and weak):
        raise BadInput("give --models=a,b,c, or --weak=a,b and --strong=c,d together")
    if weak:
        pairs = list(itertools.product(names("weak", weak), names("strong", strong)))
    elif models:
        pairs = list(itertools.combinations(names("models", models), 2))
        if not pairs:
            raise BadInput(f"--models={models} is one model: name two or more, weak to strong")
    else:
        return [(task, *tasks.default_models(task)) for task in asked]
    return [(task, *pair) for task in asked for pair in pairs]


def takes(rule, option):
    """Whether a rule has an option, {name: value}."""
    try:
        return train_strong.chosen_rule(tasks.texts, UNSET | {"loss": rule} | option, None)
    except BadInput:
        return False


def rules_of(loss, shared):
    """{name of a rule: its options for train_strong.py}; conf:alpha=.75 is conf:alpha=0.75.

    shared: options for all rules that have them and say nothing else.
    """
    found = {}
    for word in names("loss", loss):
        rule, *more = word.split(":")
        for one in more:
            if one.split("=")[0] not in pgr.RULE:
                told = f"a rule has the options {', '.join(pgr.RULE)}"
                raise BadInput(f"--loss={word}: {told}: conf:alpha=0.75")
        options = cli.parse(train_strong.main, [f"--{one}" for one in more])[1]
        cli.check(options)
        options = {n: v for n, v in shared.items() if takes(rule, {n: v})} | options
        told = (f"{n}={value}" if value is not True else n for n, value in options.items())
        name = ":".join([rule, *told])
        if name in found:
            raise BadInput(f"--loss={loss} names {name} twice")
        found[name] = {"loss": rule} | options
    for option in shared:
        if not any(option in options for options in found.values()):
            raise BadInput(f"--{option} is no option of any of --loss={loss}")
    return found


def check(grid, handed):
    """BadInput for a rule or split that a task does not know, or a model that is not there."""
    split = handed.get("split", "test")
    for task in dict.fromkeys(task for task, *_ in grid["pairs"]):
        setting = tasks.setting_of(task)
        protocol.describe(setting, task, test=handed.get("test"))
        if setting is tasks.writing:
            setting.judge_of(task, handed.get("judge"), handed.get("bad"))
        if split not in protocol.test_splits(setting, task):
            raise BadInput(f"--split={split}: {task} has no such test split")
        for options in grid["rules"].values():
            try:
                train_strong.chosen_rule(setting, UNSET | options, None)
            except BadInput as error:
                raise BadInput(f"{task}: {error}, or choose another --out") from None
    for model in dict.fromkeys(model for _, *pair in grid["pairs"] for model in pair):
        folders.find_model(model)


def show_plan(grid, nodes, todo):
    """The commands, how many runs sharing saves, and an estimate of the time."""
    for node in todo.values():
        print("python", shlex.join(node["words"]))
    trainings = sum(grids.script_of(node).startswith("train") for node in nodes.values())
    alone = len(grids.cells(grid))
    told = f"{len(nodes)} stages, {trainings} of them trainings; triples one by one: {7 * alone}"
    saved = f"{1 - len(nodes) / 7 / alone:.0%} and {1 - trainings / 3 / alone:.0%}"
    print(f"\n{told} and {3 * alone}, so sharing saves {saved}; {len(todo)} stages are to do")
    pace, runs = grids.pace([node for name, node in nodes.items() if name not in todo])
    left = sum(map(grids.work, todo.values())) * pace / 60
    if runs and todo:
        print(f"about {left:.1f} minutes of one worker, by the models' sizes and the pace of the")
        print(f"{runs} trainings here that are finished; loading is not counted")
    elif todo:
        print("how long it takes is unknown until a training of this grid is finished")


if __name__ == "__main__":
    cli.run(main)
