"""What came out of a grid: every cell of its results.jsonl, means over tasks, rule against rule.

A cell is a task, supervisor, student and rule, with all its seeds: what pgr.py tells of three runs
(stats.compare) and {"task", "split", "setting", "supervisor", "strong", "rule", "of_seeds",
"parameters", "gap", "like"}; plain data, as pgr.json holds it.
"""

import hashlib
import itertools
import json
import math
from operator import itemgetter
from pathlib import Path

import numpy as np

from w2s import effects, files, grids, leaks, stats, strict
from w2s.files import BadInput
from w2s.stats import WHO


def measure(folder, lines, setting_of, metric=None):
    """{"asked", "sections": {setting: {"metric", "cells", "means", "against"}}, "left_out"}.

    lines: of results.jsonl; setting_of: line -> setting; metric: another than the settings' own,
    of settings whose models tell probabilities: the others are left out.
    """
    told = {"asked": metric, "sections": {}, "left_out": []}
    for name, own in files.by(lines, itemgetter("setting")).items():
        setting = setting_of(own[0])
        if has_metric(setting, metric or setting.METRIC):
            told["sections"][name] = section(folder, own, setting, metric or setting.METRIC)
        else:
            told["left_out"].append(setting.WHAT)
    if not told["sections"]:
        raise BadInput(f"--metric={metric}: {' and '.join(told['left_out'])} have no such metric")
    return told


def has_metric(setting, metric):
    """Whether predictions of a setting have a metric: its own, or any of probabilities."""
    return metric == setting.METRIC or ("prob" in setting.PREDICTION and metric != "score")


def section(folder, lines, setting, metric):
    """Cells, means over tasks, and rules against each other, of the lines of one setting."""
    cells, threes, pairs = [], {}, {}
    for own in files.by(lines, itemgetter("task", "split")).values():
        told, effects_of, fours = of_task(folder, own, setting, metric)
        cells += told
        threes |= effects_of
        for key, four in fours:
            pairs.setdefault(key, []).append(four)
    for cell in cells:
        cell["like"] = performs_like(cell, cells)
    against = []
    for key, fours in pairs.items():
        of = [cell for cell in cells if cell["rule"] in key[2:]]
        if key[:2] != (None, None):  # else: all pairs of models, averaged
            of = [cell for cell in of if (cell["supervisor"], cell["strong"]) == key[:2]]
        against.append(duel(key, fours, metric) | leaks.inherited(*of))
    means = over_tasks(cells, threes, metric)
    return {"metric": metric, "cells": cells, "means": means, "against": against}


def columns(setting, rows):
    """{"score", "said", "truth", "prob"} of predictions that have them, as arrays [N]."""
    if "prob" in setting.PREDICTION:  # all rows at once, which is faster than setting.score()
        prob, label = (np.array([row[name] for row in rows]) for name in ("prob", "label"))
        told = {"prob": prob, "said": prob > 0.5, "truth": label == 1}
        return told | {"score": told["said"] == told["truth"]}
    known = {name: getattr(setting, name) for name in ("score", "said", "truth")}
    return {name: np.array(list(map(of, rows))) for name, of in known.items() if of}


def read_task(folder, lines, setting, metric):
    """{path: columns(), "ids", "groups" and "values" of the metric [N]} of a task's predictions."""
    data, first = {}, None
    for path in dict.fromkeys(path for line in lines for path in line["predictions"].values()):
        if not Path(file := f"{folder}/{path}").exists():
            told = "of which results.jsonl tells, is gone: call sweep.py again, which makes it anew"
            raise BadInput(f"{file}, {told}")
        text, card = files.read_bytes(file), files.read_card(file) or {}
        if card.get("sha256") != hashlib.sha256(text).hexdigest():
            raise BadInput(f"{file} differs from {files.card_path(file)}: score again with eval.py")
        rows = json.loads(b"[" + text.strip().replace(b"\n", b",") + b"]")  # faster than one by one
        told = dict.fromkeys(("said", "truth", "prob")) | columns(setting, rows) | {"file": file}
        told |= {"ids": [row["id"] for row in rows], "sha": card.get("rows_sha256")}
        told["groups"] = card.get("test_groups") or told["ids"]
        data[path], first = told, first or told
        same = told["ids"] == first["ids"] and told["sha"] == first["sha"]
        if not same or not np.array_equal(told["truth"], first["truth"]):
            both = f"{first['file']} and {told['file']}"
            raise BadInput(f"{both} are of other test rows: score both again with eval.py")
        told |= {name: first[name] for name in ("ids", "truth", "groups")}  # once in memory
        told["values"] = told["score"]
        if metric != "acc" and metric in stats.METRICS:
            told["values"] = stats.METRICS[metric](told["prob"], told["truth"])
    return data


def column(data, lines, name, who=WHO):
    """One column of the runs of several seeds, [len(who), S, N]; None where they lack it."""
    found = [[data[line["predictions"][one]][name] for line in lines] for one in who]
    return None if found[0][0] is None else np.array(found)


def of_task(folder, lines, setting, metric):
    """The cells of one task, their Effects {(task, split, models, rule): of three}, and rivals."""
    data, runs, cells, threes = read_task(folder, lines, setting, metric), {}, [], {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        runs.setdefault((line["weak"], line["strong"], line["rule"]), {})[line["seed"]] = line
    first = data[lines[0]["predictions"]["weak"]]
    rows = effects.number(first["groups"])
    for key, seeds in runs.items():
        own = list(seeds.values())
        given = {name: column(data, own, name) for name in ("score", "said", "prob")}
        given["label"] = None if given["prob"] is None else first["truth"]
        cell = {name: own[0][name] for name in ("task", "split", "setting", "parameters")}
        cell |= dict(zip(("supervisor", "strong", "rule"), key)) | {"of_seeds": list(seeds)}
        cell |= leaks.inherited(*own)
        cell |= stats.compare(**given, groups=first["groups"], metric=metric)
        if None in (cell[who][metric] for who in WHO):
            told = "a model never says 1, or the test rows have one label"
            raise BadInput(f"--metric={metric} cannot be computed of {cell['task']}: {told}")
        three = effects.crossed(column(data, own, "values"), *rows)
        gap = effects.interval(three, stats.GAP)
        cell["gap"] = stats.estimate(gap, bounds=(-math.inf, math.inf))
        threes[cell["task"], cell["split"], *key] = three
        cells.append(cell)
    return cells, threes, list(rivals(data, runs, rows))


def rivals(data, runs, rows):
    """((supervisor, student, rule, other rule), Effects of supervisor, both students, ceiling).

    With None for the models: all pairs of models, whose values are averaged row by row first, of
    the seeds that all of them have. runs: {(supervisor, student, rule): {seed: line of results}}.
    """
    models, rules = dict.fromkeys(key[:2] for key in runs), dict.fromkeys(key[2] for key in runs)
    for other, one in itertools.combinations(rules, 2):
        values = []
        for pair in models:
            mine, others = (runs.get((*pair, rule), {}) for rule in (one, other))
            if seeds := sorted(mine.keys() & others):
                weak, student, ceiling = column(data, [mine[s] for s in seeds], "values")
                rival = column(data, [others[s] for s in seeds], "values", ["student"])[0]
                four = np.array([weak, student, rival, ceiling], dtype=float)
                values.append(dict(zip(seeds, four.swapaxes(0, 1))))
                yield (*pair, one, other), effects.crossed(four, *rows)
        seeds = sorted(set.intersection(*map(set, values))) if len(values) > 1 else ()
        if seeds:
            four = np.mean([[of[s] for s in seeds] for of in values], axis=0).swapaxes(0, 1)
            yield (None, None, one, other), effects.crossed(four, *rows)


def duel(key, fours, metric):
    """Rule against rule over tasks, as stats.against() tells it; PGRs where there is a gap."""
    known = []
    for four in fours:
        three = effects.weighted(four, np.eye(4)[[0, 1, 3]])
        known += [four] if stats.recovered(three, metric)["value"] is not None else []
    told = dict(zip(("supervisor", "strong", "rule", "other"), key))
    told |= {"tasks": len(fours), "pgr_tasks": len(known)}
    told |= {"seeds": sorted({four.n_seeds for four in fours})}
    pgr = stats.against(known)["pgr"] if known else None
    return told | {"metric": stats.against(fours)["metric"], "pgr": pgr}


def over_tasks(cells, threes, metric):
    """A cell for each supervisor, student and rule, with its means over tasks.

    Of several tasks the three metrics are for these tasks, "over" is stats.over_tasks() and "pgr"
    its median; agreement has no interval. Of one task it is the cell itself.
    """
    told = []
    for key, own in files.by(cells, itemgetter("supervisor", "strong", "rule")).items():
        if len(own) == 1:
            told.append(own[0] | {"over": None})
            continue
        names = [(cell["task"], cell["split"], *key) for cell in own]
        over = stats.over_tasks({name[0]: threes[name] for name in names}, metric)
        mean = {"task": None, "over": over, "pgr": over["median"] | {"reason": "of no task"}}
        mean |= {name: own[0][name] for name in ("supervisor", "strong", "rule", "parameters")}
        mean |= {name: max(cell[name] for cell in own) for name in ("n", "groups", "seeds")}
        for who, weights in zip(WHO, np.eye(3)):
            value = np.mean([cell[who][metric] for cell in own])
            parts = [effects.parts(threes[name], weights) for name in names]
            half = effects.half_width(effects.these_tasks(parts))
            found = (value, value - half, value + half)
            mean[who] = stats.estimate(found, metric, stats.BOUNDS.get(metric, (0, 1)))
        mean["agreement"] = {
            name: {"value": float(np.mean(values)), "low": None, "high": None}
            for name in own[0]["agreement"]
            if None not in (values := [cell["agreement"][name]["value"] for cell in own])
        }
        told.append(mean | leaks.inherited(*own))
    return told


def performs_like(cell, cells):
    """The size of a model that, trained on the truth, scores as the student: {"size", "told"}.

    Read off the ceilings of the same task, and supervisors of sizes that have no ceiling, by
    interpolation in the logarithm of the number of parameters. size: None outside their range.
    """
    models, ceilings, metric = {}, {}, cell["metric"]
    sign = -1 if metric in stats.FALLS else 1
    alike = files.by(cells, itemgetter("task", "split"))[cell["task"], cell["split"]]
    for one in (*alike, cell):  # its own last, as others may have other seeds
        sizes = one["parameters"]
        models[one["supervisor"]] = sizes["weak"], sign * one["weak"][metric]
        ceilings[one["strong"]] = sizes["strong"], sign * one["ceiling"][metric]
    models |= ceilings
    curve = sorted((size, value, name) for name, (size, value) in models.items())
    mine = sign * cell["student"][metric]
    for (small, low, _), (large, high, _) in itertools.pairwise(curve):
        if low <= mine <= high and low < high:
            share = (mine - low) / (high - low)
            size = small * (large / small) ** share
            return {"size": size, "told": in_short(size)}
    if mine > max(value for _, value, _ in curve):
        return {"size": None, "told": f"> {curve[-1][2]}"}
    below = mine < min(value for _, value, _ in curve)
    return {"size": None, "told": f"< {curve[0][2]}" if below else "-"}


def in_short(size):
    """A number of parameters in a few characters."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{float(f'{size / unit:.3g}'):g} {letter}"
    return f"{size:.0f}"


def read_lines(folder):
    """(grid.json, the lines of results.jsonl) of a grid; BadInput where there is none."""
    grid, results = Path(folder) / "grid.json", Path(folder) / "results.jsonl"
    if not grid.exists():
        raise BadInput(f"--grid={folder} is not the folder of a grid (no grid.json): see sweep.py")
    if not results.exists() or not results.stat().st_size:
        told = "has no supervisor, student and ceiling that are finished and scored"
        raise BadInput(f"{folder} {told}: call sweep.py again")
    about = strict.read(grid, grids.GRID)
    lines = files.read_jsonl(results, (*grids.KEY, "setting", "split", "predictions"), {})
    order = grids.cells(about)
    return about, sorted(lines, key=lambda line: order.index(tuple(line[x] for x in grids.KEY)))
