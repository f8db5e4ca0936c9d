"""Metrics and their intervals (numpy): nothing here is printed without one.

Every number is a ratio of sums over test rows, averaged over seeds. The bootstrap resamples groups
of test rows (rows about the same passage rise and fall together) and seeds, at once and the same
for all models: as they answered the same questions, their differences are far better known than
each accuracy. Resampling three seeds understates their spread: more are better.
"""

import itertools

import numpy as np

N_BOOT = 10_000
LEVEL = 0.95
FALLS = {"nll", "ece", "score"}  # metrics of which less is better
UNDEFINED = np.errstate(invalid="ignore", divide="ignore")  # 0 / 0 is NaN, and told as None
MOST_GROUPS = 10_000  # more are joined at random: a fixed cost, and widths known to 1 % still


def number(groups):
    """The number of each row's group [N] and how many there are; groups: N names."""
    numbers = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in groups])
    if len(numbers) > MOST_GROUPS:
        index = (np.random.default_rng(0).permutation(len(numbers)) % MOST_GROUPS)[index]
    return index, min(len(numbers), MOST_GROUPS)


def bootstrap(ratios, groups, n_boot=N_BOOT, seed=0):
    """K ratios and their bootstrap replicates, all from the same draws.

    ratios: K pairs (numerator, denominator) of [S, N], S seeds and N test rows (with one seed [N]);
    None is a denominator of ones; groups: N names. Returns (values [K], replicates [n_boot, K]):
    sum(numerator) / sum(denominator), averaged over seeds; NaN where a denominator is 0.
    """
    index, n_groups = number(groups)

    def group_sums(values):
        """[S, N] or [N] -> [S, G]"""
        return np.stack([np.bincount(index, row, n_groups) for row in np.atleast_2d(values)])

    tops, below, bottoms = [], [], [np.bincount(index, minlength=n_groups)]
    for top, bottom in ratios:
        tops.append(group_sums(top))
        below.append(0 if bottom is None else len(bottoms))
        bottoms += [] if bottom is None else [group_sums(bottom)]
    n_ratios, n_seeds = len(tops), len(tops[0])
    bottoms = [np.broadcast_to(one, tops[0].shape) for one in bottoms]
    sums = np.concatenate(tops + bottoms)  # all in one matrix product

    @UNDEFINED
    def means(group_weights, seed_weights):
        """[B, G], [B, S] -> [B, K]"""
        drawn = (group_weights @ sums.T).reshape(len(group_weights), -1, n_seeds)
        per_seed = drawn[:, :n_ratios] / drawn[:, n_ratios:][:, below]
        return np.einsum("bks,bs->bk", per_seed, seed_weights) / n_seeds

    replicates = [means(*drawn) for drawn in draws(n_groups, n_seeds, n_boot, seed)]
    return means(np.ones((1, n_groups)), np.ones((1, n_seeds)))[0], np.concatenate(replicates)


def draws(n_groups, n_seeds, n_boot, seed=0):
    """How often each group [B, G] and each seed [B, S] is drawn, in pieces of 500 draws."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_boot, 500):
        size = min(500, n_boot - start)
        counts = (rng.multinomial(n, np.full(n, 1 / n), size=size) for n in (n_groups, n_seeds))
        yield tuple(count.astype(float) for count in counts)


def estimate(value, replicates, name="value"):
    """{name, "low", "high"}: a quantity and the central 95 % of its replicates [B]; None for what
    cannot be computed."""
    finite, low, high = replicates[np.isfinite(replicates)], None, None
    if len(finite):
        low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {name: float(value) if np.isfinite(value) else None, "low": low, "high": high}


def in_words(one, key="value"):
    """An estimate and its interval as text."""
    if one[key] is None:
        return "none"
    return f"{one[key]:6.3f}   {one['low']:6.3f} to {one['high']:.3f}"


def accuracy(prob, label, groups, n_boot=N_BOOT):
    """{"acc", "low", "high"} of P(label = 1) [N] against labels [N]; above 1/2 says 1."""
    correct = (np.asarray(prob) > 0.5) == (np.asarray(label) == 1)
    values, replicates = bootstrap([(correct, None)], groups, n_boot)
    return estimate(values[0], replicates[:, 0], "acc")


def metrics(prob, label, groups, n_boot=2_000):
    """Everything eval.py reports of P(label = 1) [N] against labels [N]; groups: N names.

    n_boot: of all but the accuracy. The accuracy and, as estimates: precision, recall, f1 of class
    1; balanced_acc, the mean of both classes' recalls; auroc; nll, the mean negative log-likelihood
    in nats (probabilities at least 1e-12); ece, the expected calibration error in 10 bins of the
    answer's confidence from 1/2 to 1 (Guo et al. 2017), to which noise adds.
    """
    prob, true = np.asarray(prob, dtype=float), np.asarray(label) == 1
    says, confidence = prob > 0.5, np.maximum(prob, 1 - prob)
    nll = -np.log(np.maximum(np.where(true, prob, 1 - prob), 1e-12))
    hit, gap = says & true, confidence - (says == true)
    ratios = [(hit, says), (hit, true), (2 * hit, 1 * says + true), (~says & ~true, ~true)]
    of_bins = (inside * gap for inside in bins(confidence, np.arange(11, 20) / 20))
    ratios += [(one, None) for one in (nll, *of_bins, says == true)]
    values, replicates = bootstrap(ratios, groups, max(n_boot, N_BOOT))
    result = estimate(values[-1], replicates[:, -1], "acc")
    result |= {"n": len(prob), "groups": len(set(groups))}
    every = np.vstack([values, replicates[:n_boot]])
    columns = dict(zip(("precision", "recall", "f1"), every[:, :3].T)) | {
        "balanced_acc": (every[:, 1] + every[:, 3]) / 2,
        "auroc": auroc(prob, true, groups, n_boot),
        "nll": every[:, 4],
        "ece": np.abs(every[:, 5:-1]).sum(axis=1),
    }
    return result | {name: estimate(column[0], column[1:]) for name, column in columns.items()}


def bins(values, edges):
    """Which values lie in each of len(edges) + 1 bins, a boolean array a bin; an edge is above."""
    which = np.searchsorted(edges, values, side="right")
    return [which == k for k in range(len(edges) + 1)]


def auroc(prob, true, groups, n_boot=N_BOOT, seed=0):
    """P(a random 1 gets a higher prob [N] than a random 0, ties half) and n_boot replicates."""
    index, n_groups = number(groups)
    ones, zeros = (np.flatnonzero(which) for which in (true, ~true))
    zeros = zeros[np.argsort(prob[zeros])]
    first, last = (np.searchsorted(prob[zeros], prob[ones], side) for side in ("left", "right"))
    of_ones, of_zeros = index[ones], index[zeros]

    @UNDEFINED
    def area(weights):
        """[G] -> a number; sums of whole numbers, which no order of summing rounds."""
        below = np.concatenate([[0], np.cumsum(weights.take(of_zeros))])
        wins = weights.take(of_ones) @ (below.take(first) + below.take(last)) / 2
        return wins / (weights.take(of_ones).sum() * below[-1])

    drawn = (weights for piece, _ in draws(n_groups, 1, n_boot, seed) for weights in piece)
    return np.array([area(weights) for weights in itertools.chain([np.ones(n_groups)], drawn)])


def compare(score, said, groups, prob=None, label=None, n_boot=N_BOOT, seed=0, metric="acc"):
    """The numbers of pgr.json, of supervisor, student and ceiling, from S seeds on N test rows.

    score: [3, S, N], 1 where they are right, or another number, whose mean is the `metric`; said:
    [3, S, N], what they say, or None: no agreement; groups: N names; prob: [3, S, N], P(label = 1),
    and label [N], for the diagnostics, which are {} without.
    Agreement: of student and supervisor, on all rows and where that one is right or wrong (5.1.3).
    """
    score = np.asarray(score, dtype=float)
    ratios = [(one, None) for one in score]
    if said is not None:
        agree, right = np.asarray(said[1]) == np.asarray(said[0]), score[0] == 1
        ratios += [(agree, None), (agree & right, right), (agree & ~right, ~right)]
    more = () if prob is None else diagnostic_ratios(np.asarray(prob), np.asarray(label))
    values, replicates = bootstrap(itertools.chain(ratios, more), groups, n_boot, seed)
    pairs = list(zip(values, replicates.T))
    result = {"metric": metric, "pgr": recovered(values[:3], replicates[:, :3], metric)}
    result |= {who: estimate(*pair, metric) for who, pair in zip(WHO, pairs)}
    names = ("all", "weak_right", "weak_wrong") if said is not None else ()
    result["agreement"] = {name: estimate(*pair) for name, pair in zip(names, pairs[3:])}
    result |= {"n": score.shape[2], "groups": len(set(groups)), "seeds": score.shape[1]}
    derived = [] if prob is None else zip(diagnostics(values[6:]), diagnostics(replicates[:, 6:]).T)
    return result | {"diagnostics": {k: estimate(*pair) for k, pair in zip(DIAGNOSTICS, derived)}}


@UNDEFINED
def recovered(values, replicates, metric="acc"):
    """The PGR of three means (paper, section 3); None, with a reason, if the gap may be 0."""
    weak, student, ceiling = np.vstack([values, replicates]).T
    gap, pgr = ceiling - weak, (student - weak) / (ceiling - weak)
    _, low, high = estimate(gap[0], gap[1:]).values()
    if (high < 0) if metric in FALLS else (low > 0):
        return estimate(pgr[0], pgr[1:]) | {"reason": None}
    side = "holds" if low <= 0 <= high else "lies above" if low > 0 else "lies below"
    where = f"{low:+.3f} to {high:+.3f}, {side} 0{' (low is good)' if metric in FALLS else ''}"
    told = "there is no gap to recover; take more rows or seeds, or a stronger student"
    reason = f"the interval of (ceiling - weak), {where}: {told}"
    return {"value": None, "low": None, "high": None, "reason": reason}


# inherited    share of the student's errors that its supervisor makes too
# similarity   chance-adjusted agreement (CAPA, 2502.04313): 0 by chance, 1 always the same and
#              certain of it; a run that is unsure has little even beside itself
# misfit       mean (student - weak)^2 of P(label = 1)
# gain         how far the student's mean squared error is below the supervisor's; theory has
#              gain >= misfit for students of a convex class (2405.15116)
# calibration  expected error in ten bins of P(label = 1), seeds pooled; noise makes it positive
WHO = ("weak", "student", "ceiling")
DIAGNOSTICS = ("inherited", "similarity", "misfit", "gain", *(f"calibration of {w}" for w in WHO))


def diagnostic_ratios(probs, label):
    """The 36 ratios that diagnostics() takes; probs [3, S, N], label [N]."""
    right = np.where(label == 1, probs, 1 - probs)  # the probability of the right answer
    wrong = (probs > 0.5) != (label == 1)
    yield wrong[0] & wrong[1], wrong[1]
    yield probs[0] * probs[1] + (1 - probs[0]) * (1 - probs[1]), None
    yield from ((one, None) for one in right[:2])
    yield (probs[1] - probs[0]) ** 2, None
    yield (probs[0] - label) ** 2 - (probs[1] - label) ** 2, None
    for one in probs:
        for inside in bins(one, np.arange(1, 10) / 10):
            yield (one - label) * inside, None


@UNDEFINED
def diagnostics(means):
    """[..., 36], the means of diagnostic_ratios, -> [..., 7] in the order of DIAGNOSTICS."""
    inherited, observed, a, b, misfit, gain = np.moveaxis(means[..., :6], -1, 0)
    chance = a * b + (1 - a) * (1 - b)
    errors = np.abs(means[..., 6:]).reshape(*means.shape[:-1], 3, 10).sum(axis=-1)
    first = np.stack([inherited, (observed - chance) / (1 - chance), misfit, gain], axis=-1)
    return np.concatenate([first, errors], axis=-1)
