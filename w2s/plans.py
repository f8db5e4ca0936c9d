"""What is asked of a grid on the command line, and what it would do."""

import importlib
import inspect
import shlex

from w2s import grids
from w2s.files import BadInput

OWN = {"ds", "model", "seed", "out", "target", "loss", "force"}  # options that a grid sets itself
ONLY = {"label": ("vote", "part", "device", "dtype"), "eval": ("split", "device", "dtype")}


def handed_on():
    """{script: {name: parameter}}: the options of the stages that a grid hands on."""
    found = {}
    for script in grids.STAGES:
        known = inspect.signature(importlib.import_module(script).main).parameters
        options = {n: p for n, p in known.items() if p.kind is p.KEYWORD_ONLY and n not in OWN}
        found[script] = {n: p for n, p in options.items() if n in ONLY.get(script, options)}
    return found


def by_stage(handed):
    """{script: {name: value}}: for each stage the options, of those given, that it takes."""
    return {
        script: {name: value for name, value in handed.items() if name in takes}
        for script, takes in handed_on().items()
    }


def with_options_of_stages(main):
    """main(), with the options that are handed on in its signature."""
    signature = inspect.signature(main)
    own = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    handed = {name: p for options in handed_on().values() for name, p in options.items()}
    main.__signature__ = signature.replace(parameters=[*own, *handed.values()])
    return main


def names(option, words):
    """The words of a list, none of them empty or twice."""
    found = words.split(",")
    for name in found:
        if not name or found.count(name) > 1:
            told = f"names {name} twice" if name else "has an empty name"
            raise BadInput(f"--{option}={words} {told}: write a,b,c")
    return found


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
