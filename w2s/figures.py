"""All pictures, in one style: of pgr.py, and of a grid the paper's Figures 2, 3, 5, 8 and 12.

Colours are told apart by the colour-blind, and in grey print by their lightness, by markers and,
from the third rule on, by hatches. Bars and points have the 95 % intervals of what they show.
"""

import itertools
from pathlib import Path

from w2s import files, leaks, stats
from w2s.outcomes import in_short
from w2s.stats import WHO

COLOURS = ("#c9c9c9", "#6a51a3", "#3d3d3d")  # supervisor, student, ceiling
# rules, or supervisors: colour, hatch of bars, marker and style of lines
STYLES = (
    ("#9e9ac8", "", "o", "-"),
    ("#6a51a3", "", "s", "--"),
    ("#e69f00", "//", "^", "-."),
    ("#009e73", "..", "D", ":"),
    ("#56b4e9", "xx", "v", "-"),
    ("#d55e00", "\\\\", "P", "--"),
)
NAMES = {"xent": "naive student", "conf": "confidence loss"}
SIZES = {"font.size": 10, "axes.titlesize": 10, "svg.hashsalt": "w2s"}


def new_figure(n, width=3.6, height=3.2, share=True):
    """(figure, n panels) in rows of two, of more than six panels in rows of three."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    across = min(n, 3 if n > 6 else 2)
    down, width = -(-n // across), max(width, 5.2 if n == 1 else 0)
    with rc_context(SIZES):
        figure = Figure(figsize=(width * across, height * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False, sharey=share).ravel()
    figure.get_layout_engine().set(h_pad=0.12)
    for empty in panels[n:]:
        empty.remove()
    for panel in panels[:n]:
        panel.tick_params(labelleft=True)
    return figure, panels[:n]


def write_figure(figure, path):
    """Save a matplotlib figure as PNG (or SVG, by the path's ending) and print its path."""
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    kind = Path(path).suffix[1:]
    same = {"Date": None} if kind == "svg" else {}  # the same bytes every time
    with files.whole(path) as temporary, rc_context(SIZES):
        figure.savefig(temporary, dpi=150, format=kind, metadata=same)
    print(path)


def style(names, name):
    """The style of one of several rules or supervisors, and its number."""
    number = list(names).index(name)
    return *STYLES[number % len(STYLES)], number


def once(cells, name):
    """The values of a field, each once, in order."""
    return list(dict.fromkeys(cell[name] for cell in cells))


def brief(cells):
    """{model: what it is called in pictures}: long names without the folder, if that is enough."""
    names = {cell[who] for cell in cells for who in ("supervisor", "strong")}
    ends = {name: name.split("/")[-1] for name in names}
    enough = len({*ends.values()}) == len(names)
    return {name: ends[name] if enough and len(name) > 12 else name for name in names}


def axis(metric):
    """What an axis of a metric is called."""
    known = {"acc": "test accuracy", "score": "badness by the judge", "nll": "nats a test row"}
    named = known.get(metric, f"{metric} on the test rows")
    return named + ", low is good" * (metric in stats.FALLS)


def limits(shown, metric):
    """The axis of bars: from 1/2 where none is below, else from 0, up to above the highest."""
    ends = [one[end] for one in shown for end in ("low", "high", metric) if one[end] is not None]
    low, high = min(ends), max(ends)
    bottom = 0.5 if low >= 0.5 and high <= 1 else min(0, low)
    return bottom, high + max(0.12 * (high - bottom), 0.01)


def bars(axes, shown, key="acc"):
    """Estimates with their intervals; shown: {label: ({key, "low", "high"}, colour[, hatch])}."""
    above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 9}
    for x, (one, colour, *hatch) in enumerate(shown.values()):
        look = {"color": colour, "hatch": "".join(hatch), "edgecolor": "white", "linewidth": 0}
        axes.bar(x, one[key], yerr=whiskers(one, key), capsize=4, width=0.7, **look)
        top = one[key] if one["high"] is None else one["high"]
        axes.annotate(f"{one[key]:.3f}", (x, top), **above)
    axes.set_xticks(range(len(shown)), list(shown))


def whiskers(one, key="value"):
    """The interval of an estimate as matplotlib wants it: distances below and above, or None."""
    if one.get("low") is None or one.get("high") is None:
        return None
    return [[max(0, one[key] - one["low"])], [max(0, one["high"] - one[key])]]


def draw(result, path):
    """pgr.py's picture: bars as in the paper, and where the student agrees with its supervisor."""
    both, metric = bool(result["agreement"]), result["metric"]
    figure, (axes, *agreement) = new_figure(1 + both, 4, 3.6, share=False)
    models = " -> ".join(str(result[who]["model"]) for who in WHO[:2])
    rule = result["student"]["rule"] or "not trained"
    figure.suptitle(f"{result['task']}: {models}, {rule}{leaks.mark(result)}", fontsize=10)
    three, names = [result[who] for who in WHO], ("weak\nsupervisor", "student", "strong\nceiling")
    bars(axes, dict(zip(names, zip(three, COLOURS))), metric)
    pgr, told = result["pgr"], "PGR undefined"
    if pgr["value"] is not None:
        told = f"PGR {pgr['value']:.2f} [{pgr['low']:.2f}, {pgr['high']:.2f}]"
    axes.set(title=told, ylabel=axis(metric), ylim=limits(three, metric))
    for panel in agreement:
        shown = {
            f"where it\nis {name}": (one, colour)
            for name, colour in (("right", COLOURS[0]), ("wrong", COLOURS[1]))
            if (one := result["agreement"][f"weak_{name}"])["value"] is not None
        }
        bars(panel, shown, "value")
        panel.set(title="student agrees with supervisor", ylim=(0, 1.1))
    write_figure(figure, path)


def bars_of_rules(cells, metric, title):
    """Figure 2: supervisor, students of all rules and ceiling; a panel for each title."""
    panels = files.by(cells, title)
    rules, alone = once(cells, "rule"), len(panels) == 1
    wide = max(6 if alone else 3.6, 1.1 * (2 + len(rules)))
    figure, axes = new_figure(len(panels), wide, 3.4)
    shown = [cell[who] for cell in cells for who in WHO]
    for panel, (name, own) in zip(axes, panels.items()):
        named = {"weak\nsupervisor" if alone else "weak": (own[0]["weak"], COLOURS[0])}
        for cell in own:
            pgr, (colour, hatch, *_) = cell["pgr"]["value"], style(rules, cell["rule"])
            rule = NAMES.get(cell["rule"], cell["rule"]) if alone else cell["rule"]
            told = "no PGR" if pgr is None else f"PGR {pgr:.2f}"
            named[rule.replace(":", "\n") + f"\n{told}"] = cell["student"], colour, hatch
        named["strong\nceiling" if alone else "ceiling"] = own[0]["ceiling"], COLOURS[2]
        bars(panel, named, metric)
        panel.tick_params("x", labelsize=10 if alone else 8)
        told = axis(metric) + ", 95 % intervals" * alone
        panel.set(title=name, ylabel=told, ylim=limits(shown, metric))
    return figure


def line(axes, cells, look, what, **more):
    """A line of estimates what(cell) against the student's size, with whiskers where known, a
    little beside the other lines, so that their whiskers do not hide one another."""
    known = [cell for cell in cells if what(cell)["value"] is not None]
    known.sort(key=lambda cell: cell["parameters"]["strong"])
    colour, _, marker, dashes, number = look
    left, right = axes.get_xlim()
    kind = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 6} | more
    found, shift = list(map(what, known)), (right / left) ** (0.02 * number)
    sizes = [cell["parameters"]["strong"] * shift for cell in known]
    axes.plot(sizes, [one["value"] for one in found], **kind if known else {})
    for size, one in zip(sizes, found):
        if ends := whiskers(one):
            axes.errorbar(size, one["value"], yerr=ends, color=colour, capsize=3, elinewidth=0.8)


def against_size(axes, cells):
    """Make x the student's size, with the names of the models where they fit."""
    names = brief(cells)
    models = {cell["parameters"]["strong"]: names[cell["strong"]] for cell in cells}
    sizes = sorted(models)
    short = sum(map(len, models.values())) <= 30
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    axes.set_xticks(sizes, [f"{models[size]}\n" * short + in_short(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("student: model, parameters" if short else "parameters of the student")


def value_of(who, metric):
    """cell -> the estimate of one of the three, under "value"."""
    return lambda cell: {"value": cell[who][metric]} | {e: cell[who][e] for e in ("low", "high")}


def legend(figure, axes, **more):
    """One legend below all panels."""
    found = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels()):
            found.setdefault(name, handle)
    columns = min(len(found), 2 if max(map(len, found)) > 20 else 3)
    look = {"loc": "outside lower center", "frameon": False, "ncols": columns} | more
    figure.set_figheight(figure.get_figheight() + 0.25 * len(found) / look["ncols"])
    figure.legend(found.values(), found.keys(), **look)


def pgr_by_size(means, _):
    """Figure 3: the PGR against the student's size, a line for a supervisor, a panel for a rule."""
    rules, weak, names = once(means, "rule"), once(means, "supervisor"), brief(means)
    known = [c["pgr"]["value"] for c in means if c["pgr"]["value"] is not None]
    bottom, top = min([-0.2, *known]) - 0.1, max([1.2, *known]) + 0.1
    figure, axes = new_figure(len(rules))
    for panel, rule in zip(axes, rules):
        against_size(panel, means)
        for name in weak:
            own = [c for c in means if (c["rule"], c["supervisor"]) == (rule, name)]
            look, label = style(weak, name), f"by {names[name]}"
            line(panel, own, look, lambda cell: cell["pgr"], label=label)
            none = [cell for cell in own if cell["pgr"]["value"] is None]
            cross = {"marker": "x", "linestyle": "", "clip_on": False, "label": label}
            line(panel, none, look, lambda _: {"value": bottom}, **cross)
        panel.hlines((0, 1), *panel.get_xlim(), color="#b0b0b0", linewidth=0.8, zorder=0)
        panel.set(title=NAMES.get(rule, rule), ylabel="PGR (x: undefined)", ylim=(bottom, top))
    legend(figure, axes)
    return figure


def by_size(cells, metric, panels="supervisor", lines="rule"):
    """Figure 5: the metric against the student's size: students, ceiling, supervisors as levels.

    panels, lines: "supervisor" and "rule", or "task" and "supervisor" (Figure 12).
    """
    names, looks, known = once(cells, panels), once(cells, lines), brief(cells)
    figure, axes = new_figure(len(names))
    for panel, name in zip(axes, names):
        against_size(panel, cells)
        shown = [cell for cell in cells if cell[panels] == name]
        for one in looks:
            own = [cell for cell in shown if cell[lines] == one]
            told = NAMES.get(one, one) if lines == "rule" else f"student of {known[one]}"
            look = style(looks, one)
            line(panel, own, look, value_of("student", metric), label=told)
            if own and lines == "supervisor":
                level = {"color": look[0], "linestyle": look[3], "linewidth": 0.8, "zorder": 0}
                panel.axhline(own[0]["weak"][metric], **level)
        if lines == "rule":
            level = {"color": "#8c8c8c", "linewidth": 1.5, "zorder": 0, "label": "supervisor"}
            panel.axhline(shown[0]["weak"][metric], **level)
        ceilings, grey = {cell["strong"]: cell for cell in shown}, (COLOURS[2], "", "*", "-", -1)
        line(panel, ceilings.values(), grey, value_of("ceiling", metric), label="ceiling")
        title = name if panels == "task" else f"by {known[name]}"
        panel.set(title=title, ylabel=axis(metric))
    legend(figure, axes)
    return figure


def agreement_by_size(means, _):
    """Figure 8: how often students agree with a supervisor that is right, and one that is wrong."""
    rules, weak, names = once(means, "rule"), once(means, "supervisor"), brief(means)
    figure, axes = new_figure(len(rules))
    for panel, rule in zip(axes, rules):
        against_size(panel, means)
        for name, kind in itertools.product(weak, ("right", "wrong")):
            own = [c for c in means if (c["rule"], c["supervisor"]) == (rule, name)]
            own = [c | {"at": c["agreement"].get(f"weak_{kind}", {"value": None})} for c in own]
            told = {"label": f"{names[name]} is {kind}"}
            told["fillstyle"] = "full" if kind == "right" else "none"
            line(panel, own, style(weak, name), lambda cell: cell["at"], **told)
        panel.set(title=NAMES.get(rule, rule), ylabel="agrees with supervisor", ylim=(0, 1.02))
    legend(figure, axes, ncols=2)
    return figure


def tasks(cells, metric):
    """{name: figure} of Figure 12, a panel for each task: against size for each rule, or bars."""
    told = {}
    for rule in once(cells, "rule") if several_sizes(cells) else ():
        own = [cell for cell in cells if cell["rule"] == rule]
        told[rule] = by_size(own, metric, "task", "supervisor")
    pairs = dict.fromkeys((cell["supervisor"], cell["strong"]) for cell in cells)
    for pair in () if told else pairs:
        own = [cell for cell in cells if (cell["supervisor"], cell["strong"]) == pair]
        told["-".join(pair)] = bars_of_rules(own, metric, lambda cell: cell["task"])
    return told


def several_sizes(cells):
    """Whether a supervisor has students of several sizes."""
    sizes = {(c["supervisor"], c["parameters"]["strong"]) for c in cells}
    return len(sizes) > len({weak for weak, _ in sizes})
