"""Metrics and their intervals (numpy): nothing here is printed without one.

Every number is a ratio of sums over test rows, averaged over seeds. The bootstrap resamples groups of test rows (rows
about the same passage rise and fall together) and seeds, both at once, the same draw for all models: they answered the
same questions, so their differences are far better known than each accuracy. With three seeds the spread between seeds
is itself known only roughly, and resampling three of three understates it a little; more seeds are the remedy.
"""

import numpy as np

N_BOOT = 10_000
LEVEL = 0.95


def group_sums(values, groups):
    """Sum the rows of each group: values [..., N], groups: N names -> [..., G], groups in order of first appearance."""
    numbers = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in groups])
    sums = np.zeros((*np.shape(values)[:-1], len(numbers)))
    np.add.at(sums, (..., index), values)
    return sums


def bootstrap(numerators, denominators, groups, n_boot=N_BOOT, seed=0):
    """Ratios and their bootstrap replicates, paired over all K quantities.

    numerators, denominators: [K, S, N], quantity k of seed s on test row n; groups: N names.
    Returns (values [K], replicates [n_boot, K]): sum(numerator) / sum(denominator) per seed, averaged over seeds; NaN
    where a denominator is 0.
    """
    top, bottom = group_sums(numerators, groups), group_sums(denominators, groups)
    n_seeds, n_groups = top.shape[1:]

    def ratios(group_weights, seed_weights):
        """[B, G], [B, S] -> [B, K]"""
        with np.errstate(invalid="ignore", divide="ignore"):
            per_seed = np.einsum("ksg,bg->bks", top, group_weights, optimize=True) / np.einsum(
                "ksg,bg->bks", bottom, group_weights, optimize=True
            )
        return np.einsum("bks,bs->bk", per_seed, seed_weights) / n_seeds

    replicates = [ratios(*drawn) for drawn in draws(n_groups, n_seeds, n_boot, seed)]
    return ratios(np.ones((1, n_groups)), np.ones((1, n_seeds)))[0], np.concatenate(replicates)


def draws(n_groups, n_seeds, n_boot, seed=0):
    """How often each group [B, G] and each seed [B, S] is drawn, in pieces: 10,000 x 10,000 groups would take 800 MB."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_boot, 500):
        size = min(500, n_boot - start)
        drawn_groups = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=size)
        drawn_seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=size)
        yield drawn_groups.astype(float), drawn_seeds.astype(float)


def interval(replicates):
    """The central 95 % of bootstrap replicates [B] as (low, high); (None, None) where there are none."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def estimate(value, replicates):
    """{"value", "low", "high"} of one quantity; None for what cannot be computed."""
    low, high = interval(replicates)
    return {"value": float(value) if np.isfinite(value) else None, "low": low, "high": high}


def accuracy(prob, label, groups, n_boot=N_BOOT):
    """{"acc", "low", "high"} of P(label = 1) [N] against labels [N]; a probability above 1/2 says 1."""
    correct = ((np.asarray(prob) > 0.5) == (np.asarray(label) == 1)).astype(float)[None, None]
    values, replicates = bootstrap(correct, np.ones_like(correct), groups, n_boot)
    low, high = interval(replicates[:, 0])
    return {"acc": float(values[0]), "low": low, "high": high}


def metrics(prob, label, groups, n_boot=2_000):
    """Everything eval.py reports of P(label = 1) [N] against labels [N]; groups: N names; n_boot: of all but the accuracy.

    {"acc", "low", "high", "n", "groups"} and, as {"value", "low", "high"} each (None where undefined):
    precision, recall, f1 of class 1; balanced_acc, the mean of the two classes' recalls; auroc, ties counting half; nll, the
    mean negative log-likelihood in nats (probabilities at least 1e-12); ece, the expected calibration error in 10 bins of the
    answer's confidence from 1/2 to 1 (Guo et al. 2017). Any noise adds to ece, so its interval lies rather too high.
    """
    prob, true = np.asarray(prob, dtype=float), np.asarray(label) == 1
    says, everywhere = prob > 0.5, np.ones(len(prob))
    confidence, nll = (
        np.maximum(prob, 1 - prob),
        -np.log(np.maximum(np.where(true, prob, 1 - prob), 1e-12)),
    )
    bins = np.minimum((confidence - 0.5) * 20, 9).astype(int) == np.arange(10)[:, None]
    hit = says & true
    top = [hit, hit, 2 * hit, ~says & ~true, nll, *(bins * (confidence - (says == true)))]
    bottom = [says, true, 1 * says + true, ~true, everywhere, *np.ones((10, len(prob)))]
    values, replicates = bootstrap(
        np.array(top, float)[:, None], np.array(bottom, float)[:, None], groups, n_boot
    )
    result = accuracy(prob, label, groups) | {"n": len(prob), "groups": len(set(groups))}
    every = np.vstack([values, replicates])
    result |= {
        name: estimate(every[0, k], every[1:, k])
        for k, name in enumerate(("precision", "recall", "f1"))
    }
    for name, column in (
        ("balanced_acc", (every[:, 1] + every[:, 3]) / 2),
        ("auroc", auroc(prob, true, groups, n_boot)),
        ("nll", every[:, 4]),
        ("ece", np.abs(every[:, 5:]).sum(axis=1)),
    ):
        result[name] = estimate(column[0], column[1:])
    return result


def auroc(prob, true, groups, n_boot=N_BOOT, seed=0):
    """P(a random 1 gets a higher prob [N] than a random 0), ties counting half: the value and, after it, n_boot replicates."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    order = np.argsort(prob, kind="stable")
    index, ones, ordered = (
        np.array([numbers[name] for name in groups])[order],
        np.asarray(true)[order],
        np.asarray(prob)[order],
    )
    first, last = (
        np.searchsorted(ordered, ordered, "left"),
        np.searchsorted(ordered, ordered, "right"),
    )

    def areas(group_weights):
        """[B, G] -> [B]"""
        weights = group_weights[:, index]
        zeros_below = np.pad(np.cumsum(weights * ~ones, axis=1), ((0, 0), (1, 0)))
        wins = (weights * ones * (zeros_below[:, first] + zeros_below[:, last]) / 2).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return wins / ((weights * ones).sum(axis=1) * zeros_below[:, -1])

    pieces = (weights for weights, _ in draws(len(numbers), 1, n_boot, seed))
    return np.concatenate([areas(np.ones((1, len(numbers)))), *map(areas, pieces)])


def pgr(weak, student, ceiling):
    """Performance gap recovered, (student - weak) / (ceiling - weak), of seed-mean accuracies (section 3 of the paper)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.asarray(student) - weak) / (np.asarray(ceiling) - weak)


def compare(weak, student, ceiling, label, groups, n_boot=N_BOOT, seed=0):
    """Everything pgr.py reports, from predictions of S seeds on the same N test rows.

    weak, student, ceiling: P(label = 1) [S, N], or their moves; label [N], or the best moves; groups: N names.
    Returns {"pgr": {value, low, high, reason}, "weak" / "student" / "ceiling": {acc, low, high}, "agreement": {"all",
    "weak_right", "weak_wrong": {value, low, high}}, "n", "groups", "seeds"}. The PGR is None, with the reason, where the
    interval of (ceiling - weak) holds 0.
    Agreement: how often student and supervisor say the same, over all rows and where the supervisor is right or wrong (5.1.3).
    """
    answers = [said(answer) for answer in (weak, student, ceiling)]
    correct = [(answer == said(label)).astype(float) for answer in answers]
    agree, right, everywhere = (
        (answers[1] == answers[0]).astype(float),
        correct[0],
        np.ones_like(correct[0]),
    )
    numerators = np.stack([*correct, agree, agree * right, agree * (1 - right)])
    denominators = np.stack([everywhere, everywhere, everywhere, everywhere, right, 1 - right])
    values, replicates = bootstrap(numerators, denominators, groups, n_boot, seed)
    result = {"pgr": estimate(pgr(*values[:3]), pgr(*replicates[:, :3].T)) | {"reason": None}}
    gap = estimate(values[2] - values[0], replicates[:, 2] - replicates[:, 0])
    if gap["low"] <= 0:
        where = f"{'holds' if gap['high'] >= 0 else 'lies below'} 0: there is no gap to recover"
        reason = (
            f"the interval of (ceiling - weak), {gap['low']:+.3f} to {gap['high']:+.3f}, {where}; "
        )
        reason += "take more rows or seeds, or a stronger student"
        result["pgr"] = {"value": None, "low": None, "high": None, "reason": reason}
    for k, who in enumerate(("weak", "student", "ceiling")):
        one = estimate(values[k], replicates[:, k])
        result[who] = {"acc": one["value"], "low": one["low"], "high": one["high"]}
    result["agreement"] = {
        where: estimate(values[k], replicates[:, k])
        for k, where in enumerate(("all", "weak_right", "weak_wrong"), 3)
    }
    return result | {
        "n": int(np.shape(label)[0]),
        "groups": len(set(groups)),
        "seeds": len(correct[0]),
    }


def said(values):
    """What is said, as an array to compare: of probabilities and labels whether it is 1, of moves the moves."""
    values = np.asarray(values)
    return values if values.dtype.kind == "U" else values > 0.5


def diagnose(weak, student, ceiling, label, groups, n_boot=N_BOOT, seed=0):
    """Why a student is what it is: {name: {value, low, high}}, from the same predictions as compare() takes.

    inherited    share of the student's errors that its supervisor makes too
    similarity   chance-adjusted agreement of both (CAPA, 2502.04313): 0 as two models of their accuracies would by chance,
                 1 always the same; unlike plain agreement it does not rise because both get better
    misfit       mean (student - weak)^2 of P(label = 1), and gain, by how much the student's mean squared error is below
                 the supervisor's: theory has gain >= misfit for students of a convex class (2405.15116)
    calibration  of the three: expected calibration error in ten bins of P(label = 1), seeds pooled; noise makes it positive
    """
    probs, y = np.array([weak, student, ceiling]), np.asarray(label)
    right = np.where(y == 1, probs, 1 - probs)  # the probability of the right answer
    wrong = (probs > 0.5) != (y == 1)
    together = probs[0] * probs[1] + (1 - probs[0]) * (1 - probs[1])
    bins = np.minimum(np.floor(probs * 10), 9)
    gaps = [(probs[k] - y) * (bins[k] == b) for k in range(3) for b in range(10)]
    squared = [(probs[1] - probs[0]) ** 2, (probs[0] - y) ** 2 - (probs[1] - y) ** 2]
    numerators = np.array(
        [wrong[0] & wrong[1], together, right[0], right[1], *squared, *gaps], dtype=float
    )
    denominators = np.ones_like(numerators)
    denominators[0] = wrong[1]

    def derive(means):
        """[..., K] -> [..., 7] in the order of the names below."""
        inherited, observed, a, b, misfit, gain = np.moveaxis(means[..., :6], -1, 0)
        chance = a * b + (1 - a) * (1 - b)
        errors = np.abs(means[..., 6:]).reshape(*means.shape[:-1], 3, 10).sum(axis=-1)
        similarity = (observed - chance) / (1 - chance)
        return np.concatenate(
            [np.stack([inherited, similarity, misfit, gain], axis=-1), errors], axis=-1
        )

    values, replicates = bootstrap(numerators, denominators, groups, n_boot, seed)
    names = [
        "inherited",
        "similarity",
        "misfit",
        "gain",
        *(f"calibration of {who}" for who in ("weak", "student", "ceiling")),
    ]
    return {
        name: estimate(*pair) for name, *pair in zip(names, derive(values), derive(replicates).T)
    }
