"""Intervals of means and of ratios of means over rows and seeds (numpy); no random numbers.

Rows, in groups, are crossed with seeds: all models and all seeds answer the same rows. In the two-
way layout of group sums y[seed, group], without replication, the variance of the mean has a part of
the groups, (MS_groups - MS_rest) / (G S) with G - 1 degrees of freedom, and a part of the seeds,
MS_seeds / (G S) with S - 1, which holds what is peculiar to a row and a seed. Half the width is, by
Cochran and Cox (1957), the standard error times the mean of both parts' Student quantiles, each
weighted by its part. Satterthwaite's degrees of freedom, the usual answer, are too many where two
or three seeds differ (results/intervals.md). A ratio has Fieller's interval (1954): every x for
which the interval of (numerator - x denominator) holds 0.
"""

import functools
import math
from collections import namedtuple
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
# means [K] of K quantities, and mean squares and products [K, K] over G S: of groups, seeds, rest
Effects = namedtuple("Effects", "means groups seeds rest n_groups n_seeds")


def number(groups):
    """The number of each row's group [N] and how many there are; groups: N names."""
    numbers = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in groups])
    return index, len(numbers)


def crossed(values, index, n_groups):
    """The Effects of K quantities; values: [K, S, N], index: each row's group [N].

    A group counts by its sums, less its size times the seed's mean: sizes may differ.
    """
    values = np.asarray(values, dtype=float)
    n_seeds, n_rows = values.shape[1:]
    sizes, of_seeds = np.bincount(index, minlength=n_groups), values.mean(axis=2)  # [G], [K, S]
    sums = [[np.bincount(index, one, n_groups) for one in seeds] for seeds in values]
    own = (np.array(sums) - of_seeds[..., None] * sizes) * n_groups / n_rows  # [K, S, G]
    means, of_groups = of_seeds.mean(axis=1), own.mean(axis=1)
    of_seeds, rest = of_seeds - means[:, None], own - of_groups[:, None]
    free = n_groups - 1, n_seeds - 1

    def squares(part, times, free):
        part = part.reshape(len(part), -1)
        return times * (part @ part.T) / max(1, free) / (n_groups * n_seeds)

    parts = squares(of_groups, n_seeds, free[0]), squares(of_seeds, n_groups, free[1])
    return Effects(means, *parts, squares(rest, 1, free[0] * free[1]), n_groups, n_seeds)


def weighted(effects, weights):
    """The Effects of weighted sums of the quantities; weights: a row for each sum."""
    weights = np.array(weights, dtype=float)
    squares = [weights @ square @ weights.T for square in effects[1:4]]
    return Effects(weights @ effects.means, *squares, *effects[4:])


def within(t, df):
    """P(|T| <= t) of Student's T with a whole number of degrees of freedom (A&S 26.7.3 and 4)."""
    angle = math.atan(t / math.sqrt(df))
    k = np.arange(1 + df % 2, df - 1, 2)
    terms = np.cumprod(k / (k + 1) * math.cos(angle) ** 2)
    if df % 2 == 0:
        return math.sin(angle) * (1 + terms.sum())
    first = math.sin(angle) * math.cos(angle) * (1 + terms.sum()) if df > 1 else 0
    return (angle + first) * 2 / math.pi


@functools.lru_cache(maxsize=1000)
def student(df, level=LEVEL):
    """The t within which Student's T lies with probability `level`."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    if df > 100:  # Cornish and Fisher: right to four digits and more
        return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    return bisect(lambda t: within(t, df) < level, 0, 1 / (1 - level))


def bisect(is_low, low, high):
    """Where is_low(x) turns false between low and high."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return (low + high) / 2


# ---- intervals


def parts(effects, weights):
    """[(variance, degrees of freedom)] of a weighted sum of the means: of groups, of seeds."""
    weights = np.asarray(weights, dtype=float)
    return split(effects, *(float(weights @ square @ weights) for square in effects[1:4]))


def split(effects, groups, seeds, rest):
    """The parts of three mean squares over G S."""
    return [(max(groups - rest, 0), effects.n_groups - 1), (max(seeds, 0), effects.n_seeds - 1)]


def half_width(found, level=LEVEL):
    """Half the width of the interval of a mean with these parts, the groups' first.

    Of one group infinite; of one seed it says nothing of others.
    """
    if not found[0][1]:
        return math.inf
    found = [(variance, df) for variance, df in found if df]
    total = sum(variance for variance, _ in found)
    return sum(part * student(df, level) for part, df in found) / math.sqrt(total or 1)


def interval(effects, weights):
    """(value, low, high) of a weighted sum of the means."""
    value, half = effects.means @ weights, half_width(parts(effects, weights))
    return value, value - half, value + half


def fieller(effects, top, bottom):
    """(value, low, high) of a ratio of two weighted sums; low and high are infinite where the
    interval of the denominator holds 0: then no x can be ruled out far away."""
    both = weighted(effects, [top, bottom])
    (a, b), ends = both.means.tolist(), []
    squares = [(square[0, 0], square[0, 1], square[1, 1]) for square in both[1:4]]
    squares = np.array(squares).tolist()  # as plain numbers, which are faster one by one
    if abs(b) <= half_width(split(effects, *(bb for _, _, bb in squares))):
        return a / b if b else math.nan, -math.inf, math.inf
    value = a / b

    def holds(x):
        of_x = (aa - 2 * x * ab + x * x * bb for aa, ab, bb in squares)
        return abs(a - x * b) <= half_width(split(effects, *of_x))

    for sign in (-1, 1):
        step = 1e-6
        while holds(value + sign * step):
            step *= 2
        ends.append(value + sign * bisect(lambda x: holds(value + sign * x), 0, step))  # noqa: B023
    return value, *ends


def of_share(value, low, high, rows, among):
    """The interval of a share among answers [S, N]; where it is a point, that of 0 or n of n."""
    n = len(np.unique(rows[0][among.any(axis=0)]))
    never = unseen(n) if high - low < 1e-6 else 0
    return value, min(low, 1 - never), max(high, never)


def unseen(n):
    """How large the share of what was seen in none of n groups may be (Clopper, Pearson 1934)."""
    return 1 - ((1 - LEVEL) / 2) ** (1 / max(n, 1))


def sure_of_sign(value, found):
    """The probability that a difference has the sign of its estimate, from a flat prior."""
    level = bisect(lambda level: half_width(found, level) < abs(value), 0, 1 - 1e-9)
    return (1 + level) / 2


def needed(effects, top, bottom, half, seeds=(2, 3, 5, 10, 20, 50)):
    """{seeds: how many groups make half the width of a ratio's interval `half`}, None: no number.

    From the variance components of these data; of one seed only 1 is told, and covers no other.
    """
    both, n_groups, n_seeds = weighted(effects, [top, bottom]), effects.n_groups, effects.n_seeds
    a, gap = both.means
    of_ratio = weighted(both, [[1 / gap, -a / gap**2]])  # to first order
    groups, of_seeds, rest = (float(square[0, 0]) for square in of_ratio[1:4])
    a_group, a_row = max(groups - rest, 0) * n_groups, rest * n_groups * n_seeds
    a_seed = max(of_seeds - rest, 0) * n_seeds

    equal = groups + of_seeds + rest < 1e-12  # every answer is the supervisor's, or the ceiling's

    def too_wide(n, s):
        if equal:  # as in stats.recovered()
            return unseen(n) / abs(gap) > half
        of_seeds = [((a_seed + a_row / n) / s, s - 1)] if s > 1 else []
        return half_width([(a_group / n, n - 1), *of_seeds]) > half

    told = {}
    for s in seeds if n_seeds > 1 else (1,):
        power = bisect(lambda power: too_wide(math.ceil(2**power), s), 1, 40)  # noqa: B023
        told[s] = None if power > 39 else math.ceil(2**power)
    return told


def of_tasks(values):
    """(mean, low, high) over T tasks, and the same of the median, by its order statistics.

    Tasks are drawn from all that might have been tried; what rows and seeds add to a task's value
    is part of the spread between tasks. No median has an interval below six tasks.
    """
    values, n = np.sort(values), len(values)
    mean = interval(crossed(values[None, None], np.arange(n), n), [1])
    tails = np.cumsum([math.comb(n, k) for k in range(n)]) / 2**n  # P(at most k below the median)
    k = int(np.sum(tails <= (1 - LEVEL) / 2))
    ends = (values[k - 1], values[n - k]) if k else (-math.inf, math.inf)
    return mean, (np.median(values), *ends)


def these_tasks(tasks):
    """The parts of the mean over tasks that are all there is; tasks: [parts of a task's value].

    A task of one seed adds nothing to the seeds' part, one of one group makes all unknown.
    """
    if not all(of_groups[1] for of_groups, _ in tasks):
        return [(0.0, 0)]
    told = []
    for of_one_kind in zip(*tasks):
        variance = sum(variance for variance, _ in of_one_kind)
        free = sum(part**2 / df for part, df in of_one_kind if part)  # Satterthwaite (1946)
        df = int(variance**2 / free) if free else 1
        told.append((variance / len(tasks) ** 2, max(1, df)))
    return told
