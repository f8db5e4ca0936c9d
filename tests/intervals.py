"""How often do the 95 % intervals hold the truth? The parts print tables of results/intervals.md.

    .venv/bin/python tests/intervals.py coverage limit metrics tasks      # one or several

Simulated answers of supervisor, student and ceiling to the same rows: nothing is trained. Needs
scipy, which scikit-learn brings.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent))
from scipy.stats import chi2, norm
from scipy.stats import t as student

from w2s import cli, effects, stats
from w2s.files import BadInput

ACCURACIES = np.array([0.69, 0.75, 0.82])
SHAPES = ((200, 1), (400, 4), (2000, 1))  # groups, rows in each
UP, GAP = stats.UP, stats.GAP


def answers(rng, n_seeds, n_groups, size, spread):
    """Whether three models are right, [3, S, N]; spread: the sd of their accuracies over seeds.

    30 % of the latent variance is a row's, the same for all models, a third of it its group's;
    30 % a row's for one model; 40 % for one row, model and seed. A seed moves the threshold.
    """
    z = norm.ppf(ACCURACIES)
    moved = spread / norm.pdf(z)
    rows = rng.normal(0, 0.2**0.5, (n_groups, size)) + rng.normal(0, 0.1**0.5, (n_groups, 1))
    latent = rows.ravel() + rng.normal(0, 0.3**0.5, (3, 1, n_groups * size))
    latent = latent + rng.normal(0, 0.4**0.5, (3, n_seeds, n_groups * size))
    threshold = z * np.sqrt(1 + moved**2) + moved * rng.normal(size=(n_seeds, 3))
    return latent < threshold.T[..., None]


def satterthwaite(found, weights):
    """Half the width by one quantile with Satterthwaite's degrees of freedom; a component that
    comes out negative is left out."""
    groups, seeds, rest = (weights @ square @ weights for square in found[1:4])
    free = found.n_groups - 1, found.n_seeds - 1
    if seeds <= rest:
        return student.ppf(0.975, free[0]) * np.sqrt(groups)
    if groups <= rest:
        return student.ppf(0.975, free[1]) * np.sqrt(seeds)
    total = groups + seeds - rest
    parts = groups**2 / free[0] + seeds**2 / free[1] + rest**2 / (free[0] * free[1])
    return student.ppf(0.975, total**2 / parts) * np.sqrt(total)


def coverage(n, seed):
    """Accuracy, difference and PGR of n data sets a cell, and what Satterthwaite's would hold."""
    gain, gap = UP @ ACCURACIES, GAP @ ACCURACIES
    print("| seeds | groups x rows | sd | accuracy | difference | PGR | undefined | width", end="")
    print(" | accuracy, S | difference, S | PGR, S |\n" + "|---" * 11 + "|")
    for n_seeds in (2, 3, 5, 10):
        for shape in SHAPES:
            for spread in (0, 0.01, 0.02, 0.04):
                rng = np.random.default_rng([seed, n_seeds, *shape, round(100 * spread)])
                index, told = np.repeat(np.arange(shape[0]), shape[1]), []
                for _ in range(n):
                    found = effects.crossed(answers(rng, n_seeds, *shape, spread), index, shape[0])
                    ratio, low, high = effects.fieller(found, UP, GAP)
                    held = [low <= gain / gap <= high, np.isinf(low), high - low]
                    for weights in (UP - gain / gap * GAP, UP, np.array([0, 1, 0])):
                        off = weights @ (found.means - ACCURACIES)
                        held.insert(
                            0, abs(off) <= effects.half_width(effects.parts(found, weights))
                        )
                        held.append(abs(off) <= satterthwaite(found, weights))
                    told.append(held)
                one = np.array(told, dtype=float)
                acc, difference, _, pgr, undefined = one[:, :5].mean(axis=0)
                width = np.median(one[:, 5])
                old = " | ".join(f"{x:.3f}" for x in one[:, :5:-1].mean(axis=0))
                line = f"| {n_seeds} | {shape[0]} x {shape[1]} | {spread:g} | {acc:.3f} | "
                line += f"{difference:.3f} | {pgr:.3f} | {undefined:.2f} | {width:.2f} | {old} |"
                print(line, flush=True)


def limit(n, seed):
    """Coverage with very many groups, where the groups' part is known and seeds are normal.

    One number decides beside the spread of seeds: `own`, the share of the groups' variance that is
    peculiar to a row and a seed. Least and most over spreads from 0 to 300 times that variance.
    """
    spreads, middles = [0, *np.geomspace(0.03, 300, 30)], (np.arange(1000) + 0.5) / 1000
    z, shares = norm.ppf(0.975), (0.05, 0.1, 0.2, 0.4, 0.7, 1)
    print(
        "| seeds | rule |"
        + "".join(f" own {share} |" for share in shares)
        + "\n"
        + "|---" * 8
        + "|"
    )
    for n_seeds in (2, 3, 5, 10):
        squares, quantile = (
            chi2.ppf(middles, n_seeds - 1) / (n_seeds - 1),
            effects.student(n_seeds - 1),
        )

        def one_quantile(seeds, own, free=n_seeds - 1):
            total = 1 + np.maximum(seeds - own, 0)
            df = np.where(seeds > own, total**2 * free / seeds**2, np.inf)
            return np.sqrt(total) * student.ppf(0.975, df)

        def two_quantiles(seeds, own, quantile=quantile):
            return ((1 - own) * z + seeds * quantile) / np.sqrt(1 - own + seeds)

        for name, half in (("Satterthwaite", one_quantile), ("Cochran-Cox", two_quantiles)):
            cells = []
            for own in shares:
                held = [
                    np.mean(2 * norm.cdf(half((of + own) * squares, own) / np.sqrt(1 + of)) - 1)
                    for of in spreads
                ]
                cells.append(f"{min(held):.3f} to {max(held):.3f}")
            print(f"| {n_seeds} | {name} | {' | '.join(cells)} |")


def metrics(n, seed):
    """Every metric of one model: first order and crossed effects beside a bootstrap."""
    rng = np.random.default_rng(seed)

    def model(n_rows, n_seeds, spread):
        """P(1) [S, N] and labels [N] of a model that is too sure; a seed moves its threshold"""
        label = rng.random(n_rows) < 0.4
        logit = (
            1.2 * (label - 0.5) + rng.normal(0, 0.8, n_rows) + rng.normal(0, 0.8, (n_seeds, n_rows))
        )
        return 1 / (1 + np.exp(-2 * (logit + rng.normal(0, spread, (n_seeds, 1))))), label

    def each(prob, label):
        return np.array(
            [[stats.METRICS[m](one, label).mean() for one in prob] for m in stats.METRICS]
        )

    print("| seeds | rows | sd of the threshold | metric | truth | crossed effects | bootstrap |")
    print("|---" * 7 + "|")
    for n_seeds, n_rows, spread in ((1, 500, 0), (3, 500, 0), (3, 500, 0.2)):
        truth = each(*model(40_000, 300, spread)).mean(axis=1)
        held, of_bootstrap = np.zeros((2, len(truth)))
        for _ in range(n):
            prob, label = model(n_rows, n_seeds, spread)
            drawn = []
            for _ in range(100):
                rows = rng.integers(n_rows, size=n_rows)
                drawn.append(
                    each(prob[rng.integers(n_seeds, size=n_seeds)][:, rows], label[rows]).mean(1)
                )
            low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
            of_bootstrap += (low <= truth) & (truth <= high)
            for k, name in enumerate(stats.METRICS):
                values = np.array([[stats.METRICS[name](one, label) for one in prob]])
                _, low, high = effects.interval(
                    effects.crossed(values, np.arange(n_rows), n_rows), [1]
                )
                held[k] += low <= truth[k] <= high
        for name, *found in zip(stats.METRICS, truth, held / n, of_bootstrap / n):
            told = " | ".join(f"{one:.3f}" for one in found)
            print(f"| {n_seeds} | {n_rows} | {spread} | {name} | {told} |", flush=True)


def tasks(n, seed):
    """Mean, median and pooled PGR over tasks drawn anew, three seeds, 500 rows, sd .01."""
    rng = np.random.default_rng(seed)
    print("| tasks | mean | median | pooled |\n|---|---|---|---|")
    for n_tasks in (3, 6, 12, 22):
        held = np.zeros(3)
        for _ in range(n):
            found = {}
            for name in range(n_tasks):
                weak, gap, pgr = (
                    rng.uniform(0.55, 0.7),
                    rng.uniform(0.15, 0.25),
                    rng.normal(0.5, 0.2),
                )
                means = np.array([weak, weak + pgr * gap, weak + gap])[:, None, None]
                means = means + rng.normal(0, 0.01, (3, 3, 1)) + rng.normal(0, 0.15, 500)
                right = rng.random((3, 3, 500)) < means
                found[name] = effects.crossed(right, np.arange(500), 500)
            told = stats.over_tasks(found)
            for k, name in enumerate(("mean", "median", "pooled")):
                low, high = told[name]["low"], told[name]["high"]
                held[k] += low is None or low <= 0.5 <= high
        print(f"| {n_tasks} | " + " | ".join(f"{x:.3f}" for x in held / n) + " |", flush=True)


PARTS = {"coverage": coverage, "limit": limit, "metrics": metrics, "tasks": tasks}


def main(*parts: str, n: int = 400, seed: int = 1):
    """Print the tables of some parts.

    Args:
        parts: coverage limit metrics tasks
        n: data sets a cell
    """
    if not parts or set(parts) - set(PARTS):
        raise BadInput(f"give one or several of {', '.join(PARTS)}")
    for part in parts:
        print(f"\n{part}, {n} data sets a cell, seed {seed}\n")
        PARTS[part](n, seed)


if __name__ == "__main__":
    cli.run(main)
