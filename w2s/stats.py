"""Metrics and their intervals (numpy): nothing here is printed without one.

Every metric is a mean over test rows of one value a row and seed: of right answers themselves, of
F1 and the like of the metric plus what the row adds to it to first order (its influence). So one
method, effects.py, serves all: rows in groups (rows about the same passage rise and fall together)
crossed with seeds. All models answered the same questions: their differences are far better known
than each accuracy.
"""

import math

import numpy as np

from w2s import effects

UNDEFINED = np.errstate(invalid="ignore", divide="ignore")  # 0 / 0 is NaN, and told as None
FALLS = {"nll", "ece", "score"}  # metrics of which less is better
BOUNDS = {"nll": (0, math.inf)}  # of the others 0 and 1
WHO = ("weak", "student", "ceiling")
UP, GAP = np.array([-1, 1, 0]), np.array([-1, 0, 1])  # PGR is their ratio


def estimate(found, name="value", bounds=(0, 1)):
    """{name, "low", "high"} of (value, low, high); None for what cannot be computed or is infinite.

    bounds: those of the quantity; no interval reaches beyond them.
    """
    value, low, high = (float(number) for number in found)
    if not math.isfinite(value):
        return {name: None, "low": None, "high": None}
    ends = max(low, bounds[0]), min(high, bounds[1])
    low, high = (end if math.isfinite(end) else None for end in ends)
    return {name: value, "low": low, "high": high}


def in_words(one, key="value"):
    """An estimate and its interval as text."""
    if one[key] is None:
        return "none"
    low, high = ("?" if one[end] is None else f"{one[end]:.3f}" for end in ("low", "high"))
    return f"{one[key]:6.3f}   {low:>6} to {high}"


# ---- metrics: P(label = 1) [N] and whether the label is 1 [N] -> a value a row [N]


@UNDEFINED
def ratio(top, bottom):
    """sum(top) / sum(bottom), plus each row's influence on it."""
    value = top.sum() / bottom.sum()
    return value + (top - value * bottom) / bottom.mean()


def recalls(prob, true):
    """Of class 1 and of class 0; above 1/2 says 1."""
    says = prob > 0.5
    return ratio(says & true, true), ratio(~says & ~true, ~true)


@UNDEFINED
def auroc(prob, true):
    """P(a random 1 gets a higher prob than a random 0, ties half); influences by DeLong (1988)."""
    beats = np.empty(len(prob))
    for mine, sign in ((true, 1), (~true, -1)):
        others = np.sort(sign * prob[~mine])
        found = sum(np.searchsorted(others, sign * prob[mine], side) for side in ("left", "right"))
        beats[mine] = found / (2 * len(others))
    value = beats[true].mean()
    share = np.where(true, true.mean(), (~true).mean())
    return value + (beats - value) / share


def nll(prob, true):
    """The negative log-likelihood in nats, of probabilities of at least 1e-12."""
    return -np.log(np.maximum(np.where(true, prob, 1 - prob), 1e-12))


def ece(prob, true):
    """Values [..., N] whose mean is the expected calibration error (Guo et al. 2017), to which
    noise adds: a gap with the sign of the sum of its bin, of ten from 1/2; edges are in the upper.
    """
    confidence = np.maximum(prob, 1 - prob)
    gaps = confidence - ((prob > 0.5) == true)
    which = np.searchsorted(np.arange(11, 20) / 20, confidence, side="right")
    return gaps * np.sign(np.bincount(which.ravel(), gaps.ravel(), 10))[which]


METRICS = {  # P(label = 1) [N] and whether the label is 1 [N] -> a value a row [N]
    "acc": lambda prob, true: (prob > 0.5) == true,
    "precision": lambda prob, true: ratio((prob > 0.5) & true, prob > 0.5),
    "recall": lambda prob, true: recalls(prob, true)[0],
    "f1": lambda prob, true: ratio(2 * ((prob > 0.5) & true), 1 * (prob > 0.5) + true),
    "balanced_acc": lambda prob, true: sum(recalls(prob, true)) / 2,
    "auroc": auroc,
    "nll": nll,
    "ece": ece,
}


def deciding(name, prob, true):
    """Which rows [N] count where a metric is 0 or 1; where both classes do, those of the rarer."""
    says, rarer = prob > 0.5, true if 2 * true.sum() <= len(true) else ~true
    some = {"precision": says, "recall": true, "f1": says | true}
    return (some | {"balanced_acc": rarer, "auroc": rarer}).get(name, np.ones_like(true))


def mean_of(values, rows, name, bounds=(0, 1), among=True):
    """The estimate of the mean of values [S, N], under a name; rows: effects.number() of them.

    among: the answers [S, N] that count where the mean is 0 or 1 (deciding()).
    """
    found = effects.interval(effects.crossed(values[None], *rows), [1])
    if bounds == (0, 1) and np.isin(values, bounds).all():
        found = effects.of_share(*found, rows, np.broadcast_to(among, values.shape))
    return estimate(found, name, BOUNDS.get(name, bounds))


def accuracy(prob, label, groups):
    """{"acc", "low", "high"} of P(label = 1) [N] against labels [N]; above 1/2 says 1."""
    prob, true = np.asarray(prob, dtype=float), np.asarray(label) == 1
    return mean_of(METRICS["acc"](prob, true)[None], effects.number(groups), "acc")


def metrics(prob, label, groups):
    """Everything eval.py reports of P(label = 1) [N] against labels [N]; groups: N names.

    The accuracy, n and groups and, as estimates: precision, recall, f1 of class 1; balanced_acc,
    the mean of both classes' recalls; auroc; nll; ece.
    """
    prob, true = np.asarray(prob, dtype=float), np.asarray(label) == 1
    rows = effects.number(groups)
    result = {"n": len(prob), "groups": rows[1]}
    for name, metric in METRICS.items():
        one = mean_of(metric(prob, true)[None], rows, name, among=deciding(name, prob, true))
        result |= one if name == "acc" else {name: {"value": one.pop(name)} | one}
    return result


# ---- supervisor, student and ceiling


def compare(score, said, groups, prob=None, label=None, metric="acc", want=None):
    """The numbers of pgr.json, of supervisor, student and ceiling, from S seeds on N test rows.

    score: [3, S, N], 1 where they are right, or another number, whose mean is the `metric` unless
    that is one of METRICS; said: [3, S, N], what they say, or None: no agreement; groups: N names;
    prob: [3, S, N], P(label = 1), and label [N], for METRICS and the diagnostics, {} without them.
    Agreement: of student and supervisor, on all rows and where that one is right or wrong (5.1.3).
    want: half a width, for "needed", {seeds: how many groups the PGR's interval needs for it},
    {} where the ceiling is no better than the supervisor.
    """
    score, rows = np.asarray(score), effects.number(groups)
    values, true = score, None if label is None else np.asarray(label) == 1
    prob, among = None if prob is None else np.asarray(prob, dtype=float), [True] * 3
    if metric != "acc" and metric in METRICS:
        values = np.array([[METRICS[metric](one, true) for one in seeds] for seeds in prob])
        among = np.array([[deciding(metric, one, true) for one in seeds] for seeds in prob])
    three = effects.crossed(values, *rows)
    result = {"metric": metric, "pgr": recovered(three, metric)}
    for who, own, of in zip(WHO, values, among):  # alone: one that is NaN spoils no other
        result[who] = mean_of(own, rows, metric, among=of)
    right, result["agreement"] = score[0] == 1, {}
    among = {"all": np.ones_like(right), "weak_right": right, "weak_wrong": ~right}
    for name, of in among.items() if said is not None else ():
        result["agreement"][name] = share(np.equal(said[1], said[0]), of, rows)
    result |= {"n": score.shape[2], "groups": rows[1], "seeds": score.shape[1]}
    given = [values] if prob is None else [values, prob]
    result["seeds_covered"] = any((one != one[:, :1]).any() for one in given)
    if want:
        gap = GAP @ three.means * (-1 if metric in FALLS else 1)
        result["needed"] = effects.needed(three, UP, GAP, want) if gap > 0 else {}
    return result | {"diagnostics": {} if prob is None else diagnostics(prob, true, rows)}


def share(of, among, rows):
    """The estimate of the share of `of` [S, N] among the answers `among` [S, N]."""
    found = effects.crossed(np.stack([of & among, among]), *rows)
    return estimate(effects.of_share(*effects.fieller(found, [1, 0], [0, 1]), rows, among))


def recovered(three, metric="acc"):
    """The PGR of three means (paper, section 3); None, with a reason, if the gap may be 0."""
    (value, *ends), (gap, low, high) = effects.fieller(three, UP, GAP), effects.interval(three, GAP)
    if (high < 0) if metric in FALLS else (low > 0):
        if ends[1] - ends[0] < 1e-6:  # every answer is that of the supervisor, or of the ceiling
            most = effects.unseen(three.n_groups) / abs(gap)
            ends = value - most, value + most
        return estimate((value, *ends), bounds=(-math.inf, math.inf)) | {"reason": None}
    side = "holds" if low <= 0 <= high else "lies above" if low > 0 else "lies below"
    where = f"{low:+.3f} to {high:+.3f}, {side} 0{' (low is good)' if metric in FALLS else ''}"
    told = "there is no gap to recover; take more rows or seeds, or a stronger student"
    reason = f"the interval of (ceiling - weak), {where}: {told}"
    return {"value": None, "low": None, "high": None, "reason": reason}


def over_tasks(tasks, metric="acc"):
    """The PGR over tasks: {"mean", "median", "pooled", "tasks", "undefined"}.

    tasks: {name: Effects of supervisor, student and ceiling}. The tasks count as drawn: the
    intervals are for others like them. Mean and median leave the undefined out and name them;
    pooled, the sum of what was recovered over the sum of the gaps, has all tasks, and is None,
    with a "reason", where that gap may be 0.
    """
    pgrs = {name: recovered(three, metric)["value"] for name, three in tasks.items()}
    known = [value for value in pgrs.values() if value is not None]
    none, free = (math.nan,) * 3, (-math.inf, math.inf)
    mean, median = effects.of_tasks(known) if known else (none, none)
    means = np.array([[three.means] for three in tasks.values()]).T  # of who, of one "seed", a task
    told = {"pooled": recovered(effects.crossed(means, np.arange(len(tasks)), len(tasks)), metric)}
    told |= {"mean": estimate(mean, bounds=free), "median": estimate(median, bounds=free)}
    undefined = [name for name, value in pgrs.items() if value is None]
    return told | {"tasks": len(tasks), "undefined": undefined}


def against(tasks):
    """One student less another: {"metric": difference of the means, "pgr": of the PGRs}.

    tasks: [Effects of supervisor, one student, the other, ceiling], the same rows and seeds of a
    task; leave out tasks without a gap. Each difference is {"value", "low", "high", "sign",
    "drawn"}: for these tasks (of PGRs to first order), with the probability that its sign is
    right; drawn: low, high and sign for other tasks like them, None of one task.
    """
    top, gap, told = np.array([0, 1, -1, 0]), np.array([-1, 0, 0, 1]), {}
    for name in ("metric", "pgr"):
        values, parts = [], []
        for one in tasks:
            scale = gap @ one.means if name == "pgr" else 1
            values.append(top @ one.means / scale)
            weights = (top - values[-1] * gap) / scale if name == "pgr" else top
            parts.append(effects.parts(one, weights))
        value, these, n = np.mean(values), effects.these_tasks(parts), len(tasks)
        equal = effects.unseen(sum(one.n_groups for one in tasks))
        equal /= abs(np.mean([gap @ one.means for one in tasks])) if name == "pgr" else 1
        told[name] = signed(value, these, equal) | {"drawn": None}
        if n > 1:
            told[name]["drawn"] = signed(value, [(np.var(values, ddof=1) / n, n - 1)], equal)
    return told


def signed(value, parts, equal=0):
    """A difference with its interval and the probability that its sign is right.

    equal: half the width of the interval where all answers are equal.
    """
    half = effects.half_width(parts)
    half = half if half > 1e-6 else equal  # by the processor, a 0 may come out as 1e-17
    told = estimate((value, value - half, value + half), bounds=(-math.inf, math.inf))
    return told | {"sign": effects.sure_of_sign(value, parts)}


def diagnostics(prob, true, rows):
    """How supervisor and student err and how all three are calibrated; prob [3, S, N].

    inherited: the share of the student's errors that its supervisor makes too; similarity:
    chance-adjusted agreement (CAPA, 2502.04313), 0 by chance, 1 always the same and certain of it
    (a run that is unsure has little even beside itself); misfit: mean (student - weak)^2 of
    P(label = 1); gain: how far the student's mean squared error is below the supervisor's (theory
    has gain >= misfit for students of a convex class, 2405.15116); ece: of all seeds together.
    """
    weak, student = prob[:2]
    wrong = (prob[:2] > 0.5) != true
    squares = (weak - true) ** 2 - (student - true) ** 2
    told = {"inherited": share(wrong[0], wrong[1], rows)}
    told["similarity"] = similarity(np.where(true, prob[:2], 1 - prob[:2]), rows)
    told["misfit"] = mean_of((student - weak) ** 2, rows, "value")
    told["gain"] = mean_of(squares, rows, "value", (-1, 1))
    for who, one in zip(WHO, prob):
        told[f"ece of {who}"] = mean_of(ece(one, true), rows, "value")
    return told


@UNDEFINED
def similarity(right, rows):
    """(agreement - chance) / (1 - chance) of the probabilities [2, S, N] of the right answer."""
    one, other = right
    agree = one * other + (1 - one) * (1 - other)
    found = effects.crossed(np.stack([agree, one, other]), *rows)
    observed, a, b = found.means
    chance = a * b + (1 - a) * (1 - b)
    of_chance = (observed - 1) / (1 - chance) ** 2  # and to first order:
    slopes = np.array([1 / (1 - chance), of_chance * (2 * b - 1), of_chance * (2 * a - 1)])
    value = (observed - chance) / (1 - chance)
    half = effects.half_width(effects.parts(found, slopes))
    return estimate((value, value - half, value + half), bounds=(-math.inf, 1))
