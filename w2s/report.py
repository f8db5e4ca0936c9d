"""The report of a grid: report.md, a self-contained report.html, pictures, and pgr.json."""

import itertools
import json
import os
import platform
import shlex
from operator import itemgetter
from pathlib import Path

from w2s import figures, files, grids, leaks, outcomes, pages, strict
from w2s.stats import FALLS, WHO

MADE = ("pgr.json", "report.html", "grid.json", "results.jsonl")  # the last two are the source
BY_SIZE = {
    "pgr_by_size": (figures.pgr_by_size, "PGR against the student's size (Fig. 3)"),
    "rules": (figures.by_size, "Students and ceiling against their size (Fig. 5)"),
    "agreement": (figures.agreement_by_size, "Agreement with a right or wrong supervisor (Fig. 8)"),
}


def make(folder, setting_of, metric=None):
    """Write the report of a grid and all that belongs to it; returns what outcomes.measure() does.

    setting_of: line of results.jsonl -> setting.
    """
    about, lines = outcomes.read_lines(folder)
    told = outcomes.measure(folder, lines, setting_of, metric)
    blocks, several = opening(folder, about, lines, told), len(told["sections"]) > 1
    for number, (name, section) in enumerate(told["sections"].items()):
        blocks += tables(section, f" ({name})" * several, explain=number == 0)
    for name, section in told["sections"].items():
        blocks += pictures(folder, section, f"{name}-" * several)
    blocks += undefined(told, about, lines) + provenance(folder, about, lines)
    files.write_text(Path(folder) / "report.md", pages.to_md(blocks))
    files.write_text(Path(folder) / "report.html", pages.to_html(folder, blocks))
    files.write_text(Path(folder) / "pgr.json", json.dumps(told, indent=1) + "\n")
    return told


def current(folder, setting_of):
    """make(), or what it made before, if that is of these results and of the settings' metrics."""
    made, page, *source = (Path(folder) / name for name in MADE)
    when = [path.stat().st_mtime for path in source]
    if made.exists() and page.exists() and made.stat().st_mtime > max(when):
        told = strict.read(made, {"asked": (str, None), "sections": dict})
        if told["asked"] is None:
            return told
    return make(folder, setting_of)


def show(folder, told):
    """The tables on the terminal."""
    for section in told["sections"].values():
        metric = section["metric"]
        rows = [("task: supervisor -> student, rule", "weak", "student", "ceiling", "PGR", "seeds")]
        for cell in section["cells"]:
            name = f"{cell['task']}: {pair(cell)}, {cell['rule']}"
            values = (f"{cell[who][metric]:.3f}" for who in WHO)
            rows.append((name, *values, pgr_of(cell), str(cell["seeds"])))
        widths = [max(map(len, column)) for column in zip(*rows)]
        print(f"{metric}, PGR with its 95 % interval")
        for row in rows:
            print("  ".join(f"{word:<{width}}" for word, width in zip(row, widths)).rstrip())
    print(f"{folder}/report.html")


# ---- words


def pair(one):
    """The models of a cell; of a duel perhaps all."""
    return f"{one['supervisor']} -> {one['strong']}" if one["strong"] else "all, averaged"


def with_interval(one, key="value", digits=3, sign=""):
    """An estimate as text."""
    if one is None or one[key] is None:
        return "-"
    if one["low"] is None and one["high"] is None:
        return f"{one[key]:{sign}.{digits}f}"
    ends = ("?" if one[e] is None else f"{one[e]:{sign}.{digits}f}" for e in ("low", "high"))
    return f"{one[key]:{sign}.{digits}f} [{', '.join(ends)}]"


def pgr_of(cell):
    """The PGR of a cell, or in a few words why there is none."""
    if cell["pgr"]["value"] is None:
        low, high = (cell["gap"][end] for end in ("low", "high"))
        gap = "unknown" if None in (low, high) else f"{low:+.3f} to {high:+.3f}"
        return f"undefined: gap {gap}{leaks.mark(cell)}"
    return with_interval(cell["pgr"], digits=2) + leaks.mark(cell)


def counted(n, what):
    """A number of things in words."""
    return f"{n} {what}{'' if n == 1 else 's'}"


# ---- what the report says


def opening(folder, about, lines, told):
    """Title, and what the grid is."""
    pairs = dict.fromkeys((weak, strong) for _, weak, strong in about["pairs"])
    parts = [counted(len(about["tasks"]), "task"), counted(len(pairs), "pair") + " of models"]
    parts += [counted(len(about["rules"]), "rule"), counted(about["seeds"], "seed")]
    done = f"{len(lines)} of {len(grids.cells(about))} combinations are finished"
    texts = [f"{', '.join(parts)}; {done}. Brackets are 95 % intervals."]
    if about["seeds"] == 1:
        texts.append("One seed: they are for these runs, and say nothing of other seeds.")
    if told["left_out"]:
        texts.append(f"Left out, as they have no such metric: {' and '.join(told['left_out'])}.")
    head = ("head", f"Weak to strong: {Path(folder).resolve().name}")
    return [head, *(("text", one) for one in texts)]


def tables(section, title, explain):
    """The results, means over tasks, and rules against each other."""
    metric, cells = section["metric"], section["cells"]
    named = f"{metric}{' (low is good)' * (metric in FALLS)} of supervisor"
    rows = [("task", "supervisor -> student", "rule", "PGR", named, "student", "ceiling")]
    rows[0] += ("performs like", "n", "groups", "seeds")
    for cell in cells:
        values = (with_interval(cell[who], metric) for who in WHO)
        start, like = (cell["task"], pair(cell), cell["rule"], pgr_of(cell)), cell["like"]["told"]
        rows.append((*start, *values, like, cell["n"], cell["groups"], cell["seeds"]))
    told = (
        "PGR, the performance gap recovered, is (student - weak) / (ceiling - weak): 0 is no "
        "better than the supervisor, 1 as good as with ground truth. Intervals are over groups of "
        "test rows and seeds. Performs like: the size of a model that scores as the student does "
        "when it learns from ground truth, between the ceilings (of sizes without one, the "
        "supervisors), by interpolation in log parameters; < and > name the end it lies beyond."
    )
    blocks = [("head", f"Results{title}"), ("table", rows)] + [("text", told)] * explain
    if over := [one for one in section["means"] if one["over"]]:
        kinds = ("median", "mean", "pooled")
        rows = [("supervisor -> student", "rule", "tasks", *(f"{kind} PGR" for kind in kinds))]
        rows[0] += ("without a PGR",)
        for one in over:
            told = [with_interval(one["over"][kind], digits=2) for kind in kinds]
            none = ", ".join(one["over"]["undefined"]) or "none"
            models = pair(one) + leaks.mark(one)
            rows.append((models, one["rule"], one["over"]["tasks"], *told, none))
        blocks += [("head", f"Across tasks{title}"), ("table", rows)]
        told = "Tasks count as drawn: the intervals are for other tasks like these. Mean and median"
        told += " are over tasks with a PGR; pooled, what was recovered over all gaps together, has"
        told += " all, and no value where their sum may be 0. A median has no interval below six"
        told += " tasks, a mean none of one."
        blocks.append(("text", told))
    if section["against"]:
        blocks += [("head", f"Rule against rule{title}"), ("table", duel_rows(section, metric))]
        told = "The first rule less the other, on the same rows and seeds, for these tasks; sign:"
        blocks.append(("text", f"{told} the probability that the difference has this sign."))
    return blocks


def duel_rows(section, metric):
    """The table of rules against each other."""
    several = max(one["tasks"] for one in section["against"]) > 1
    rows = [("supervisor -> student", "rules", f"difference of {metric}", "sign")]
    rows[0] += ("for other tasks",) * several + ("difference of PGR", "sign", "tasks", "seeds")
    for one in section["against"]:
        own, pgr = one["metric"], one["pgr"]
        row = [pair(one) + leaks.mark(one), f"{one['rule']} less {one['other']}"]
        row += [with_interval(own, sign="+"), f"{own['sign']:.3f}"]
        row += [with_interval(own["drawn"], sign="+")] * several
        row += [with_interval(pgr, digits=2, sign="+"), f"{pgr['sign']:.3f}" if pgr else "-"]
        known = f"{one['tasks']}, {one['pgr_tasks']} with a PGR"
        row.append(known if one["pgr_tasks"] < one["tasks"] else one["tasks"])
        rows.append((*row, " or ".join(map(str, one["seeds"]))))
    return rows


def pictures(folder, section, prefix):
    """Draw what there is to see, as PNG and SVG, and say what it is."""
    metric, cells, means = section["metric"], section["cells"], section["means"]
    tasks, rules = figures.once(cells, "task"), figures.once(cells, "rule")
    over_of = [one["over"]["tasks"] if one["over"] else 1 for one in means]
    means = [one for one, n in zip(means, over_of) if n == max(over_of)]  # others are of other rows
    over = f", means over {max(over_of)} tasks" if len(tasks) > 1 else ""
    of_pgr, names = over.replace("means", "medians"), figures.brief(cells)

    def title(one):
        models = f"{names[one['supervisor']]} -> {names[one['strong']]}"
        of = f"{tasks[0]}: " if len(tasks) == 1 else ""
        rows = f"{one['n']} test rows, " if len(tasks) == 1 else ""
        long = f"{of}{models}, {rows}{counted(one['seeds'], 'seed')}"
        return models if len(means) > len(rules) else long

    told = f"Supervisor, students and ceiling (paper, Fig. 2){over}; below the PGR{of_pgr}"
    drawn = {"bars": (figures.bars_of_rules(means, metric, title), told)}
    for name, (figure_of, caption) in BY_SIZE.items() if figures.several_sizes(means) else ():
        if name != "agreement" or any(one["agreement"] for one in means):
            told = caption + (of_pgr if name == "pgr_by_size" else over)
            drawn[name] = figure_of(means, metric), told
    if len(tasks) > 1:
        thin = "; thin lines: the supervisors" * figures.several_sizes(cells)
        for name, figure in figures.tasks(cells, metric).items():
            drawn[f"tasks-{grids.form(name)}"] = figure, f"Task by task: {name} (Fig. 12){thin}"
    blocks = [("head", "Pictures")] if prefix == "" else [("head", f"Pictures ({prefix[:-1]})")]
    for name, (figure, caption) in drawn.items():
        for kind in ("svg", "png"):
            figures.write_figure(figure, f"{folder}/{prefix}{name}.{kind}")
            figure.set_layout_engine("none")  # it stays as it is, and that is much faster
        blocks.append(("picture", f"{prefix}{name}.png", caption))
    return blocks


def undefined(told, about, lines):
    """Every PGR that is undefined, and every combination that is not finished."""
    cells = [cell for section in told["sections"].values() for cell in section["cells"]]
    cells = [cell for cell in cells if cell["pgr"]["value"] is None]
    texts = [f"{c['task']}, {pair(c)}, {c['rule']}: {c['pgr']['reason']}." for c in cells]
    known = {tuple(line[name] for name in grids.KEY) for line in lines}
    for task, weak, strong, rule, seed in grids.cells(about):
        if (task, weak, strong, rule, seed) not in known:
            texts.append(f"{task}, {weak} -> {strong}, {rule}, seed {seed}: not finished.")
    found = ("list", texts) if texts else ("text", "Nothing: every PGR is defined.")
    return [("head", "What is undefined or missing"), found]


# ---- where it comes from


def commands(folder, about):
    """The lines of sweep.py that make such a grid: one, or one for tasks that share their pairs."""
    alike, told = {}, []
    for task, pairs in files.by(about["pairs"], itemgetter(0)).items():
        alike.setdefault(tuple(tuple(models) for _, *models in pairs), []).append(task)
    shared = [f"--loss={','.join(about['rules'])}", f"--seeds={about['seeds']}", f"--out={folder}"]
    shared += grids.words_of(about["options"])
    for pairs, names in alike.items():
        models = list(dict.fromkeys(itertools.chain(*pairs)))
        weak, strong = (list(dict.fromkeys(of)) for of in zip(*pairs))
        if {*pairs} == {*itertools.combinations(models, 2)}:
            asked = [[f"--models={','.join(models)}"]]
        elif {*pairs} == {*itertools.product(weak, strong)}:
            asked = [[f"--weak={','.join(weak)}", f"--strong={','.join(strong)}"]]
        else:
            asked = [[f"--weak={one}", f"--strong={other}"] for one, other in pairs]
        start = ["python", "sweep.py", f"--ds={','.join(names)}"]
        told += [shlex.join([*start, *one, *shared]) for one in asked]
    return told


def provenance(folder, about, lines):
    """Commands, hardware, hours, versions and commits, by the cards of the runs."""
    logs = len([*Path(folder).glob("logs/*/**/*.log")])
    runs = dict.fromkeys(run for line in lines for run in line["runs"].values())
    cards = [files.read_card(f"{folder}/{run}") or {} for run in runs]
    resolved = [card.get("resolved", {}) for card in cards]
    ran = {f"{one.get('device')} in {one.get('dtype')}" for one in resolved}
    seconds = sum(card.get("seconds", 0) for card in cards)
    commits = sorted({str(card.get("commit")) for card in cards})
    versions = {f"{n} {v}" for card in cards for n, v in card.get("versions", {}).items()}
    times = sorted(card["time"] for card in cards if "time" in card)
    here = f"{platform.machine()}, {platform.system()}, {os.cpu_count()} CPU cores"
    hours = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    texts = [
        f"Ran on: {', '.join(sorted(ran))}. This report was made on {here}.",
        f"Time: {hours} in {len(runs)} trainings, the sum over runs that may have run side by "
        "side. Labelling and scoring are not in it, and the time on the clock is not known.",
        f"Begun between {times[0]} and {times[-1]}." if times else "When is not known.",
        f"Versions: {', '.join(sorted(versions))}.",
        f"Commit: {', '.join(commits)}{' (+: with changes)' * ('+' in str(commits))}.",
        "Every run's card.json has its options, the checksums of what it read, and versions.",
    ]
    where = f"It called {counted(logs, 'stage')}; the exact command of each is the first line of "
    return [
        ("head", "Commands"),
        ("code", commands(folder, about)),
        ("text", f"{where}its log in {folder}/logs."),
        ("head", "Hardware, time, versions"),
        ("list", texts),
    ]
