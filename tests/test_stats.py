"""The statistics against hand-worked numbers, theory and an independent implementation."""

import numpy as np
import pytest

from w2s import effects, options, stats


def answers(rng, shape, accuracy, label):
    """Probabilities that are right with the given accuracy."""
    right = rng.random(shape) < accuracy
    return np.where(right == (label == 1), 0.9, 0.1)


def compare(weak, student, ceiling, label, groups, **options):
    """stats.compare() of P(label = 1), [S, N] each."""
    probs, label = np.array([weak, student, ceiling], dtype=float), np.asarray(label)
    said = probs > 0.5
    return stats.compare(said == (label == 1), said, groups, probs, label, **options)


def test_accuracy_by_hand():
    result = stats.accuracy([0.9, 0.2, 0.5, 0.51], [1, 0, 1, 1], list("abcd"))  # 1/2 says 0
    assert result["acc"] == 0.75 and 0 <= result["low"] < 0.75 < result["high"] <= 1


def test_the_interval_of_an_accuracy_is_the_binomial_one_for_single_rows():
    label = np.arange(1000) % 2
    prob = np.where(np.arange(1000) < 800, label, 1 - label)
    result = stats.accuracy(prob, label, range(1000))
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert (result["low"], result["high"]) == pytest.approx((0.8 - half, 0.8 + half), abs=0.003)


def test_rows_of_a_group_count_as_one_draw():
    label = np.ones(1000)
    prob = np.repeat(np.arange(100) < 80, 10)  # ten rows of a group are all right or all wrong
    wide = stats.accuracy(prob, label, np.repeat(np.arange(100), 10))
    narrow = stats.accuracy(prob, label, range(1000))
    assert (wide["high"] - wide["low"]) / (narrow["high"] - narrow["low"]) == pytest.approx(
        np.sqrt(10), rel=0.1
    )


def test_pgr_by_hand():
    label = np.ones(100)
    weak, student, ceiling = (
        np.where(np.arange(100) < right, 0.9, 0.1)[None] for right in (60, 75, 90)
    )
    result = compare(weak, student, ceiling, label, range(100))
    assert result["pgr"]["value"] == pytest.approx(0.5) and result["pgr"]["reason"] is None
    assert [result[who]["acc"] for who in ("weak", "student", "ceiling")] == pytest.approx(
        [0.6, 0.75, 0.9]
    )
    assert (result["n"], result["groups"], result["seeds"]) == (100, 100, 1)
    # the student says the same on 60 of the weak model's 60 right answers, on 25 of its 40 wrong
    values = {where: one["value"] for where, one in result["agreement"].items()}
    assert values == pytest.approx({"all": 0.85, "weak_right": 1.0, "weak_wrong": 25 / 40})


def test_pgr_is_the_ratio_of_seed_means_not_the_mean_of_ratios():
    label = np.ones(100)
    weak, student, ceiling = (
        np.stack([np.arange(100) < right for right in rights]).astype(float)
        for rights in ((20, 24), (40, 80), (100, 99))
    )
    pgr = compare(weak, student, ceiling, label, range(100))["pgr"]
    assert pgr["value"] == pytest.approx(38 / 77.5)


def by_loops(scores, groups, weights):
    """Mean and half width of a weighted sum of means, written out: [K][S][N] scores, N groups.

    Sums of groups, mean squares of a two-way layout, and Cochran and Cox's mean of quantiles.
    """
    quantile = pytest.importorskip("scipy.stats").t.ppf
    y = sum(weight * np.asarray(score, dtype=float) for weight, score in zip(weights, scores))
    names, n_rows = sorted(set(groups)), y.shape[1]
    g, s = len(names), len(y)
    means = [row.mean() for row in y]
    cells = [[sum(row[i] - mean for i in range(n_rows) if groups[i] == name) * g / n_rows + mean
              for name in names] for row, mean in zip(y, means)]  # fmt: skip
    grand = np.mean(cells)
    of_groups = [np.mean([cells[j][k] for j in range(s)]) for k in range(g)]
    ms_groups = s * sum((one - grand) ** 2 for one in of_groups) / (g - 1)
    if s == 1:
        return grand, quantile(0.975, g - 1) * np.sqrt(ms_groups / g)
    ms_seeds = g * sum((one - grand) ** 2 for one in means) / (s - 1)
    rest = [(cells[j][k] - means[j] - of_groups[k] + grand) ** 2
            for j in range(s) for k in range(g)]  # fmt: skip
    a, b = max(0, ms_groups - sum(rest) / (g - 1) / (s - 1)), ms_seeds
    t_groups, t_seeds = quantile(0.975, [g - 1, s - 1])
    return grand, (a * t_groups + b * t_seeds) / (a + b) * np.sqrt((a + b) / (g * s))


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_intervals_are_those_of_the_formulas_in_loops(n_seeds):
    """Fieller's: all x for which the interval of student - weak - x (ceiling - weak) holds 0."""
    rng = np.random.default_rng(1)
    groups = np.sort(rng.integers(40, size=200)).tolist()
    right = rng.random(200) < rng.normal([[[0.6]], [[0.7]], [[0.85]]], 0.03, (3, n_seeds, 1))
    right[:, 0, :20] = rng.random((3, 20)) < 0.5
    told = stats.compare(right, right, groups)
    value, half = by_loops(right, groups, (0, 1, 0))
    one = told["student"]
    assert (one["acc"], one["low"], one["high"]) == pytest.approx(
        (value, value - half, value + half)
    )
    inside = []
    for x in np.linspace(-1, 3, 101):
        value, half = by_loops(right, groups, (x - 1, 1, -x))
        inside += [x] if abs(value) <= half else []
    ends = told["pgr"]["low"], told["pgr"]["high"]
    assert ends == pytest.approx((inside[0], inside[-1]), abs=0.04)
    assert told["seeds_covered"] == (n_seeds > 1)


def test_groups_of_other_sizes_widen_no_interval_by_their_sizes_alone():
    """All rows of all groups are right with 3/4: a group of 20 rows says no more by being large."""
    groups = [k for k, size in enumerate([4, 20] * 50) for _ in range(size)]
    correct = np.tile([1, 1, 1, 0], 300)
    one = stats.accuracy(correct, np.ones(1200), groups)
    assert one["high"] - one["low"] < 1e-9 and one["acc"] == 0.75


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 99, 101, 1999])
def test_quantiles_of_student_are_scipys(df):
    scipy = pytest.importorskip("scipy.stats")
    for level in (0.5, 0.95, 0.99):
        wanted = scipy.t.ppf((1 + level) / 2, df)
        assert effects.student(df, level) == pytest.approx(wanted, rel=1e-5)
        assert effects.within(wanted, df) == pytest.approx(level)


def test_quantiles_of_student_are_those_of_printed_tables():
    told = [effects.student(df) for df in (1, 2, 4, 10, 120)]
    assert told == pytest.approx([12.706, 4.303, 2.776, 2.228, 1.980], abs=5e-4)


@pytest.mark.parametrize(("n_seeds", "spread"), [(2, 0.0), (3, 0.03), (5, 0.03)])
def test_the_interval_holds_the_true_pgr_about_95_times_in_100(n_seeds, spread):
    """Undefined counts as holding; more in results/intervals.md."""
    rng, hits, n = np.random.default_rng(0), 0, 300
    for _ in range(n):
        # the same questions are hard for all three: that is why pairing pays
        hard = rng.normal(0, 0.2, 400)
        accuracies = np.array([[[0.6]], [[0.7]], [[0.8]]]) + rng.normal(0, spread, (3, n_seeds, 1))
        right = rng.random((3, n_seeds, 400)) < accuracies + hard
        pgr = stats.compare(right, None, range(400))["pgr"]
        hits += pgr["value"] is None or pgr["low"] <= 0.5 <= pgr["high"]
    assert 0.92 <= hits / n <= 0.99


def test_pairing_makes_the_interval_narrower_than_its_parts():
    rng = np.random.default_rng(0)
    label, hard = np.ones(800), rng.random(800)
    weak, student, ceiling = (
        (hard < accuracy).astype(float)[None] for accuracy in (0.6, 0.75, 0.9)
    )
    pgr = compare(weak, student, ceiling, label, range(800))["pgr"]
    unpaired = np.sqrt(sum(a * (1 - a) / 800 for a in (0.6, 0.75))) / 0.3
    assert (pgr["high"] - pgr["low"]) / 3.92 < 0.8 * unpaired


def test_seeds_that_disagree_widen_the_interval():
    label = np.ones(2000)
    same = np.repeat((np.arange(2000) < 1400).astype(float)[None], 3, 0)
    apart = np.stack([np.arange(2000) < right for right in (1100, 1400, 1700)]).astype(float)
    weak, ceiling = (
        np.repeat((np.arange(2000) < right).astype(float)[None], 3, 0) for right in (1000, 1800)
    )
    narrow, wide = (compare(weak, s, ceiling, label, range(2000))["pgr"] for s in (same, apart))
    assert wide["value"] == pytest.approx(narrow["value"]) and wide["high"] - wide["low"] > 3 * (
        narrow["high"] - narrow["low"]
    )


@pytest.mark.parametrize(
    ("weak", "ceiling", "reason"), [(50, 51, "holds 0"), (60, 60, "holds 0"), (80, 40, "below")]
)
def test_without_a_gap_the_pgr_is_undefined_and_says_why(weak, ceiling, reason):
    """Others print a PGR of 1.0 from a 3-point gap on one seed."""
    label = np.ones(100)
    rng = np.random.default_rng(0)
    weak, student, ceiling = (
        rng.permutation(np.arange(100) < n)[None].astype(float) for n in (weak, 55, ceiling)
    )
    result = compare(weak, student, ceiling, label, range(100))
    assert (
        result["pgr"]["value"] is None
        and result["pgr"]["low"] is None
        and reason in result["pgr"]["reason"]
    )


def test_a_metric_that_falls_recovers_a_gap_below_zero_and_none_above():
    """Badness of texts by a judge: 3 for the supervisor, 1 for the ceiling, 1.5 for the student."""
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    badness = np.stack([3 + noise, 1.5 + noise, 1 + 2 * noise])[:, None]
    told = stats.compare(badness, None, range(200), metric="score")
    assert (told["agreement"], told["diagnostics"], told["metric"]) == ({}, {}, "score")
    means = badness.mean(axis=2)[:, 0]
    assert [told[who]["score"] for who in stats.WHO] == pytest.approx(means.tolist())
    wanted = (means[1] - means[0]) / (means[2] - means[0])
    assert told["pgr"]["value"] == pytest.approx(wanted) and told["pgr"]["low"] > 0.7
    for metric, side in (("acc", "lies below 0"), ("score", "lies above 0")):
        scores = badness if metric == "acc" else badness[::-1]
        told = stats.compare(scores, None, range(200), metric=metric)
        assert told["pgr"]["value"] is None and side in told["pgr"]["reason"]


def test_agreement_where_the_supervisor_is_wrong_is_none_if_it_never_is():
    one = np.ones((1, 20))
    assert compare(one, one, one, np.ones(20), range(20))["agreement"]["weak_wrong"] == {
        "value": None, "low": None, "high": None,
    }  # fmt: skip


# ---- the metrics of eval.py


def named(metrics, name=None):
    values = {name: one["value"] for name, one in metrics.items() if isinstance(one, dict)}
    return (values | {"acc": metrics["acc"]})[name] if name else values


def test_metrics_by_hand():
    prob, label = [0.9, 0.8, 0.6, 0.4, 0.3, 0.3], [1, 1, 0, 1, 0, 1]
    got = stats.metrics(prob, label, list("abcdef"))
    # says 1: a, b (right), c (wrong); of four 1s two are found, of two 0s one
    assert named(got) == pytest.approx(
        {
            "precision": 2 / 3, "recall": 1 / 2, "f1": 4 / 7, "balanced_acc": (1 / 2 + 1 / 2) / 2,
            # of 8 pairs (1, 0): a and b beat both, d beats e, f ties with e and loses to c
            "auroc": (2 + 2 + 1 + 0.5) / 8,
            "nll": -np.log([0.9, 0.8, 0.4, 0.4, 0.7, 0.3]).mean(),
            # confidence .6: c and d wrong; .7: e right, f wrong; .8: b right; .9: a right
            "ece": (2 * 0.6 + abs(2 * 0.7 - 1) + 0.2 + 0.1) / 6,
        }
    )  # fmt: skip
    assert (got["n"], got["groups"], got["acc"]) == (6, 6, 0.5)
    assert all(
        one["low"] <= one["value"] <= one["high"]
        for name, one in got.items()
        if isinstance(one, dict) and name != "ece"
    )


def test_metrics_equal_the_definitions_written_out_in_loops():
    rng = np.random.default_rng(3)
    label = rng.integers(2, size=300)
    prob = np.round(np.clip(0.3 * label + rng.random(300) * 0.7, 0, 1), 2)  # rounded: ties
    got = named(stats.metrics(prob, label, range(300)))
    ones, zeros = prob[label == 1], prob[label == 0]
    assert got["auroc"] == pytest.approx(
        np.mean([(a > b) + (a == b) / 2 for a in ones for b in zeros])
    )
    assert got["balanced_acc"] == pytest.approx((np.mean(ones > 0.5) + np.mean(zeros <= 0.5)) / 2)
    confidence, right = np.maximum(prob, 1 - prob), (prob > 0.5) == (label == 1)
    assert got["ece"] == pytest.approx(by_definition(confidence, right))


def by_definition(confidence, right):
    """Expected calibration error in ten bins from 1/2 to 1, in whole hundredths of confidence."""
    hundredths, ece = np.round(100 * confidence).astype(int), 0
    for k in range(10):
        inside = (hundredths >= 50 + 5 * k) & ((hundredths < 55 + 5 * k) | (k == 9))
        if inside.any():
            ece += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return ece


def test_a_confidence_on_the_edge_of_a_bin_is_in_the_bin_above():
    """(0.6 - 0.5) * 20 is 1.9999999999999996."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        prob, label = rng.integers(21, size=60) / 20, rng.integers(2, size=60)
        confidence, right = np.maximum(prob, 1 - prob), (prob > 0.5) == (label == 1)
        got = named(stats.metrics(prob, label, range(60)))
        assert got["ece"] == pytest.approx(by_definition(confidence, right))


def test_bins_are_cut_at_their_edges_and_nowhere_else():
    """A wrong answer and a right one: in one bin both count against its sign, else each counts."""
    for value in np.arange(11, 20) / 20:
        for other, sign in ((np.nextafter(value, 0), 1), (np.nextafter(value, 1), -1)):
            got = stats.ece(np.array([value, other]), np.array([False, True]))
            assert got == pytest.approx([value, sign * (1 - value)])


def test_intervals_of_metrics_are_those_of_a_bootstrap_of_groups():
    """An independent implementation: draw groups, join their rows, compute anew."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 4)
    label = rng.integers(2, size=400)
    prob = np.clip(0.2 * label + np.repeat(rng.random(100), 4) * 0.4 + rng.random(400) * 0.4, 0, 1)
    ours, plain = stats.metrics(prob, label, groups.tolist()), []
    for _ in range(1000):
        rows = (rng.integers(100, size=100)[:, None] * 4 + np.arange(4)).ravel()
        p, y = prob[rows], label[rows]
        one, other = p[y == 1][:, None], p[y == 0]
        hit, said = (y * (p > 0.5)).sum(), (p > 0.5).sum()
        balanced = hit / y.sum() / 2 + ((1 - y) * (p <= 0.5)).sum() / (1 - y).sum() / 2
        wins = (one > other).mean() + (one == other).mean() / 2
        plain.append((wins, 2 * hit / (y.sum() + said), hit / said, hit / y.sum(), balanced))
    for name, column in zip(
        ("auroc", "f1", "precision", "recall", "balanced_acc"), np.array(plain).T
    ):
        ends = np.quantile(column, [0.025, 0.975])
        assert (ours[name]["low"], ours[name]["high"]) == pytest.approx(tuple(ends), abs=0.015)
        assert ours[name]["high"] - ours[name]["low"] == pytest.approx(np.diff(ends)[0], rel=0.15)


@pytest.mark.parametrize("metric", stats.METRICS)
def test_the_pgr_of_a_metric_is_the_ratio_of_its_differences(metric):
    rng = np.random.default_rng(4)
    label = rng.integers(2, size=600)
    noise = rng.normal(0, 1, (3, 3, 600)) * np.array([1.6, 1, 0.6])[:, None, None]
    prob = 1 / (1 + np.exp(-3 * (label - 0.5 + noise)))
    told = stats.compare((prob > 0.5) == label, None, range(600), prob, label, metric=metric)
    means = [np.mean([named(stats.metrics(one, label, range(600)), metric) for one in seeds])
             for seeds in prob]  # fmt: skip
    assert [told[who][metric] for who in stats.WHO] == pytest.approx(means)
    wanted = (means[1] - means[0]) / (means[2] - means[0])
    assert told["pgr"]["value"] == pytest.approx(wanted)
    assert told["pgr"]["low"] < wanted < told["pgr"]["high"]


def test_the_names_of_metrics_on_the_command_line_are_those_of_the_statistics():
    known = {*options.METRICS}
    assert known == {*stats.METRICS, "score"} and stats.FALLS <= known


def test_what_cannot_be_computed_is_none_and_certainty_costs_no_infinity():
    got = stats.metrics([0.1, 0.2, 0.0], [1, 1, 1], list("abc"))
    assert got["precision"] == got["auroc"] == {"value": None, "low": None, "high": None}
    assert got["nll"]["value"] == pytest.approx(-np.log([0.1, 0.2, 1e-12]).mean())


@pytest.mark.parametrize("n, end", [(28, 0.1234), (10, 0.3085), (3, 0.7076)])
def test_none_and_all_of_n_have_the_exact_interval_of_printed_tables(n, end):
    """Clopper and Pearson's 95 % limit of 0 of n; without it they would be known for certain."""
    prob, names = [0.1] * n, list(range(n))
    never, always = (stats.accuracy(prob, [label] * n, names) for label in (1, 0))
    assert never == {"acc": 0, "low": 0, "high": pytest.approx(end, abs=5e-5)}
    assert always == {"acc": 1, "low": pytest.approx(1 - end, abs=5e-5), "high": 1}
    grouped = stats.accuracy(prob * 2, [1] * 2 * n, names * 2)  # rows of a group are one draw
    assert grouped == never


def test_agreement_on_every_row_has_the_exact_interval_of_the_rows_that_it_is_about():
    weak = np.arange(40) < 30
    told = stats.compare([[weak], [weak], [weak]], [[weak], [weak], [~weak]], range(40))
    for name, n in (("all", 40), ("weak_right", 30), ("weak_wrong", 10)):
        low = pytest.approx(0.025 ** (1 / n))
        assert told["agreement"][name] == {"value": 1, "low": low, "high": 1}


def test_one_row_or_group_tells_nothing_of_others_whatever_the_seeds():
    alone = stats.accuracy([0.9], [1], ["a"])
    assert alone == {"acc": 1.0, "low": 0, "high": 1}
    right = np.zeros((3, 3, 40))
    right[0, :, :10] = right[1, :, :20] = right[2, :, :30] = 1
    told = stats.compare(right, None, ["a"] * 40, want=0.1)
    assert told["student"] == {"acc": 0.5, "low": 0, "high": 1}
    assert told["pgr"]["value"] is None


@pytest.mark.parametrize(("right", "low", "high"), [(1, 0.025, 1), (0, 0, 0.975)])
def test_a_precision_of_one_answer_has_the_interval_of_one_answer(right, low, high):
    prob, label = np.where(np.arange(1000) == 0, 0.9, 0.1), np.arange(1000) % 2 == 1 - right
    want = {"low": pytest.approx(low), "high": pytest.approx(high)}
    assert stats.metrics(prob, label, range(1000))["precision"] == {"value": right} | want
    three = compare([prob], [prob], [prob], label, range(1000), metric="precision")
    assert three["student"] == {"precision": right} | want


def test_a_perfect_ranking_is_known_as_well_as_the_rarer_class():
    label = np.arange(40) < 3
    told = stats.metrics(label * 0.8 + 0.1, label, range(40))
    assert told["recall"]["low"] == told["auroc"]["low"] == pytest.approx(0.025 ** (1 / 3))
    assert told["balanced_acc"]["low"] == told["auroc"]["low"] < told["acc"] - 0.5
    assert told["low"] == pytest.approx(0.025 ** (1 / 40))


def test_a_copy_of_the_supervisor_may_still_differ_on_rows_that_were_not_asked():
    weak, ceiling = np.arange(50) < 30, np.arange(50) < 45
    most = (1 - 0.025 ** (1 / 50)) / 0.3  # none of 50 differs, as a share of the gap
    for student, value in ((weak, 0), (ceiling, 1)):
        told = stats.compare([[weak], [student], [ceiling]], None, range(50))["pgr"]
        assert [told[name] for name in ("value", "low", "high")] == pytest.approx(
            [value, value - most, value + most]
        )
    four = effects.crossed([[weak], [weak], [weak], [ceiling]], *effects.number(range(50)))
    told = stats.against([four])
    assert told["metric"]["high"] == pytest.approx(1 - 0.025 ** (1 / 50)) == -told["metric"]["low"]
    assert told["pgr"]["high"] == pytest.approx(most) and told["pgr"]["sign"] == pytest.approx(0.5)
    rounded = stats.signed(0.0, [(9e-36, 49), (0.0, 0)], 0.1)  # as AVX512 leaves of a 0
    assert [rounded[name] for name in ("value", "low", "high")] == [0, -0.1, 0.1]


def test_diagnostics_by_hand():
    weak, student, ceiling = [0.9, 0.2, 0.7, 0.4], [0.8, 0.3, 0.95, 0.6], [1.0, 0.0, 0.0, 0.7]
    label, groups = [1, 1, 0, 1], ["a", "b", "c", "d"]
    got = {
        name: one["value"]
        for name, one in compare([weak], [student], [ceiling], label, groups)["diagnostics"].items()
    }
    # the supervisor errs on rows 1, 2, 3, the student on 1 and 2
    assert got["inherited"] == 1
    agree = [
        0.9 * 0.8 + 0.1 * 0.2,
        0.2 * 0.3 + 0.8 * 0.7,
        0.7 * 0.95 + 0.3 * 0.05,
        0.4 * 0.6 + 0.6 * 0.4,
    ]
    a, b = (0.9 + 0.2 + 0.3 + 0.4) / 4, (0.8 + 0.3 + 0.05 + 0.6) / 4
    chance = a * b + (1 - a) * (1 - b)
    assert got["similarity"] == pytest.approx((sum(agree) / 4 - chance) / (1 - chance))
    assert got["misfit"] == pytest.approx((0.1**2 + 0.1**2 + 0.25**2 + 0.2**2) / 4)
    weak_error, student_error = (
        0.1**2 + 0.8**2 + 0.7**2 + 0.6**2,
        0.2**2 + 0.7**2 + 0.95**2 + 0.4**2,
    )
    assert got["gain"] == pytest.approx((weak_error - student_error) / 4)
    # every answer in a bin of its own, but the ceiling's two zeros: |(0 - 1) + (0 - 0)|
    assert got["ece of weak"] == pytest.approx((0.1 + 0.8 + 0.7 + 0.6) / 4)
    assert got["ece of student"] == pytest.approx((0.2 + 0.7 + 0.95 + 0.4) / 4)
    assert got["ece of ceiling"] == pytest.approx((0 + 1 + 0.3) / 4)


def test_what_is_said_need_not_be_a_label_and_a_score_need_not_be_agreement():
    said = np.array([[["e4", "d4", "c4"]], [["e4", "d5", "c4"]], [["e4", "d6", "b4"]]])
    result = stats.compare(said == ["e4", "d6", "b4"], said, range(3))
    assert [result[who]["acc"] for who in stats.WHO] == pytest.approx([1 / 3, 1 / 3, 1])
    # by right and wrong alone the first two would agree everywhere
    assert result["agreement"]["all"]["value"] == pytest.approx(2 / 3)
    assert result["agreement"]["weak_wrong"]["value"] == pytest.approx(1 / 2)
    assert result["diagnostics"] == {}


def test_a_run_beside_itself_is_as_similar_as_it_is_sure():
    prob = np.array([[0.6, 0.4, 0.7, 0.2]])
    told = compare(prob, prob, prob, [1, 0, 1, 0], range(4))["diagnostics"]
    a = (0.6 + 0.6 + 0.7 + 0.8) / 4
    chance = a**2 + (1 - a) ** 2
    agree = np.mean([p**2 + (1 - p) ** 2 for p in (0.6, 0.6, 0.7, 0.8)])
    assert told["similarity"]["value"] == pytest.approx((agree - chance) / (1 - chance))
    assert told["similarity"]["value"] < 0.1


def test_similarity_is_zero_by_chance_and_one_for_the_same_certain_answers():
    rng = np.random.default_rng(0)
    label, groups = rng.integers(0, 2, 10_000), range(10_000)
    one, two = (
        (rng.random(10_000) < 0.8) == label for _ in range(2)
    )  # right on 80 %, independently

    def similarity(a, b):
        told = compare([a], [b], [b], label, groups)
        return told["diagnostics"]["similarity"]

    by_chance = similarity(one, two)
    assert by_chance["low"] < 0 < by_chance["high"] and abs(by_chance["value"]) < 0.02
    assert similarity(one, one)["value"] == pytest.approx(1)


def test_calibration_is_pooled_over_seeds_and_its_interval_draws_them():
    rng = np.random.default_rng(1)
    prob, seeds = rng.uniform(0.05, 0.95, (3, 4000)), [rng.random((3, 4000))] * 3
    label = (rng.random(4000) < prob[0]).astype(int)  # the first seed alone is calibrated
    groups = [i // 4 for i in range(4000)]
    got = compare(seeds[0], [prob[0]] * 3, prob, label, groups)["diagnostics"]
    assert got["ece of student"]["value"] < 0.03
    # the two others answer at random: off by |p - 1/2|, 0.225 on average, pooled two thirds of it
    assert got["ece of ceiling"]["value"] == pytest.approx(0.15, abs=0.02)
    assert (
        got["ece of ceiling"]["low"] < 0.03 and got["ece of ceiling"]["high"] > 0.2
    )  # seeds are drawn too


# ---- planning, tasks and rules


def new_task(rng, accuracies, n_rows=1000, n_seeds=3, spread=0.0):
    """The Effects of models with these accuracies on one task's rows."""
    means = np.reshape(accuracies, (-1, 1, 1)) + rng.normal(
        0, spread, (len(accuracies), n_seeds, 1)
    )
    right = rng.random((len(accuracies), n_seeds, n_rows)) < means + rng.normal(0, 0.2, n_rows)
    return effects.crossed(right, np.arange(n_rows), n_rows)


def test_as_many_rows_as_are_needed_make_the_interval_as_narrow_as_wanted():
    rng = np.random.default_rng(0)
    pilot = new_task(rng, (0.6, 0.7, 0.8), 20_000, n_seeds=10)
    told = effects.needed(pilot, stats.UP, stats.GAP, 0.1)
    assert told[3] > told[5] > told[10] > 100
    widths = []
    for _ in range(40):
        _, low, high = effects.fieller(
            new_task(rng, (0.6, 0.7, 0.8), told[5], n_seeds=5), stats.UP, stats.GAP
        )
        widths.append((high - low) / 2)
    assert np.mean(widths) == pytest.approx(0.1, rel=0.15)
    spread = effects.needed(new_task(rng, (0.6, 0.7, 0.8), 2000, 5, 0.05), stats.UP, stats.GAP, 0.1)
    assert spread[2] is None  # no number of rows makes up for two seeds that differ
    one_seed = effects.needed(new_task(rng, (0.6, 0.7, 0.8), 2000, 1), stats.UP, stats.GAP, 0.1)
    assert [*one_seed] == [1] and 500 < one_seed[1] < 8000


def test_pgr_over_tasks_by_hand():
    """PGRs of .2, .4 and .9; the fourth task has no gap."""
    label, tasks = np.arange(1000), {}
    for name, (weak, student, ceiling) in {
        "a": (600, 640, 800), "b": (500, 600, 750), "c": (400, 580, 600), "d": (700, 690, 701),
    }.items():  # fmt: skip
        right = np.stack([(label * 7 % 1000 < n) for n in (weak, student, ceiling)])[:, None]
        right[2, 0] = label * 11 % 1000 < ceiling  # else one right row would settle the gap
        tasks[name] = effects.crossed(right, label, 1000)
    told = stats.over_tasks(tasks)
    assert (told["tasks"], told["undefined"]) == (4, ["d"])
    half = 4.3027 * np.std([0.2, 0.4, 0.9], ddof=1) / np.sqrt(3)  # Student's t, two degrees
    assert [*told["mean"].values()] == pytest.approx([0.5, 0.5 - half, 0.5 + half], rel=1e-4)
    assert told["median"] == {"value": pytest.approx(0.4), "low": None, "high": None}
    # with d among four, other tasks may have no gap at all
    assert (
        told["pooled"]["value"] is None and "holds 0: there is no gap" in told["pooled"]["reason"]
    )
    gaps = stats.over_tasks({name: tasks[name] for name in "abc"})["pooled"]
    assert gaps["value"] == pytest.approx((40 + 100 + 180) / (200 + 250 + 200))
    flat = {name: effects.crossed(right[[2, 1, 0]], label, 1000) for name in "ab"}
    assert "lies below 0" in stats.over_tasks(flat)["pooled"]["reason"]  # supervisors are better


def test_rules_that_answer_alike_have_an_interval_whatever_the_order_of_tasks():
    label, tasks = np.arange(400), []
    for ceiling in (320, 220):  # gaps of .4 and .15
        right = np.stack([label < n for n in (160, 200, 200, ceiling)])[:, None]
        tasks.append(effects.crossed(right, label, 400))
    one, other = stats.against(tasks)["pgr"], stats.against(tasks[::-1])["pgr"]
    assert one == other and one["drawn"]["high"] == one["high"] > 0


def test_rows_needed_where_all_answers_are_equal_are_not_two():
    """The interval of a PGR of 0 of n groups: unseen(n) by the gap."""
    label = np.arange(100)
    right = np.stack([label < n for n in (40, 40, 80)])[:, None]
    n = effects.needed(effects.crossed(right, label, 100), stats.UP, stats.GAP, 0.1)[1]
    assert effects.unseen(n) / 0.4 <= 0.1 < effects.unseen(n - 1) / 0.4


def test_the_median_of_tasks_lies_between_order_statistics():
    """Of 22 the sixth and the seventeenth: printed tables have 95 % and no less for them."""
    values = np.random.default_rng(0).permutation(22)
    assert effects.of_tasks(values)[1] == (10.5, 5, 16)
    assert effects.of_tasks(values[:5])[1][1:] == (-np.inf, np.inf)
    assert effects.of_tasks(np.arange(6))[1][1:] == (0, 5)


def test_intervals_over_tasks_hold_the_mean_and_the_median():
    rng, hits = np.random.default_rng(0), np.zeros(2)
    for _ in range(300):
        for k, (_, low, high) in enumerate(effects.of_tasks(rng.normal(0.5, 0.3, 12))):
            hits[k] += low <= 0.5 <= high
    assert 0.92 <= hits[0] / 300 <= 0.98 and 0.92 <= hits[1] / 300


def test_two_rules_are_compared_on_the_same_rows():
    """The first student is better by 3 points on every task; alone neither is known that well."""
    rng = np.random.default_rng(0)
    tasks = [new_task(rng, (0.6, 0.73, 0.7, 0.8), 4000) for _ in range(4)]
    told = stats.against(tasks)
    gain, pgr = told["metric"], told["pgr"]
    assert gain["value"] == pytest.approx(np.mean([one.means[1] - one.means[2] for one in tasks]))
    assert gain["low"] < 0.03 < gain["high"] and gain["sign"] > 0.99
    assert gain["drawn"]["low"] < 0.03 < gain["drawn"]["high"]
    assert gain["drawn"]["high"] - gain["drawn"]["low"] == pytest.approx(
        2 * 3.1824 * np.std([one.means[1] - one.means[2] for one in tasks], ddof=1) / 2, rel=1e-3
    )
    assert pgr["low"] < 0.15 < pgr["high"] and pgr["sign"] > 0.95
    alone = stats.against(tasks[:1])
    assert alone["metric"]["drawn"] is None
    wide = alone["metric"]["high"] - alone["metric"]["low"]
    assert gain["high"] - gain["low"] < 0.7 * wide


def test_a_task_of_one_seed_takes_no_seeds_from_the_others():
    three, one = [(4e-4, 99), (9e-4, 2)], [(1e-4, 49), (0.0, 0)]
    (rows, df), seeds = effects.these_tasks([three, one])
    assert rows == pytest.approx(5e-4 / 4) and seeds == (pytest.approx(9e-4 / 4), 2)
    assert df == int(25e-8 / (16e-8 / 99 + 1e-8 / 49))
    assert effects.these_tasks([one, three])[1] == seeds
    assert effects.half_width(effects.these_tasks([three, [(0.0, 0), (9e-4, 2)]])) == np.inf


def test_the_probability_of_a_sign_is_that_of_the_interval_that_just_reaches_0():
    parts = [(0.01**2, 400), (0.01**2, 2)]
    assert effects.sure_of_sign(effects.half_width(parts), parts) == pytest.approx(0.975)
    assert effects.sure_of_sign(-effects.half_width(parts), parts) == pytest.approx(0.975)
    assert effects.sure_of_sign(0.0, parts) == pytest.approx(0.5)
    assert effects.sure_of_sign(1.0, parts) > 0.999
