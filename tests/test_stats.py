"""The statistics against hand-worked numbers, theory and an independent implementation."""

import numpy as np
import pytest

from w2s import stats


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
    result = stats.accuracy(prob, label, range(1000), n_boot=4000)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert (result["low"], result["high"]) == pytest.approx((0.8 - half, 0.8 + half), abs=0.003)


def test_rows_of_a_group_count_as_one_draw():
    label = np.ones(1000)
    prob = np.repeat(np.arange(100) < 80, 10)  # ten rows of a group are all right or all wrong
    wide = stats.accuracy(prob, label, np.repeat(np.arange(100), 10), n_boot=2000)
    narrow = stats.accuracy(prob, label, range(1000), n_boot=2000)
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
    label = np.ones(10)
    weak, student, ceiling = (
        np.stack([np.arange(10) < right for right in rights]).astype(float)
        for rights in ((2, 4), (4, 8), (10, 9))
    )
    assert compare(weak, student, ceiling, label, range(10))["pgr"]["value"] == pytest.approx(
        3 / 6.5
    )


def test_the_bootstrap_equals_a_plain_loop_over_rows_and_seeds():
    """An independent implementation: draw seeds and groups, join their rows, take plain means."""
    rng = np.random.default_rng(1)
    groups = np.sort(rng.integers(40, size=200))
    label = rng.integers(2, size=200)
    three = [answers(rng, (3, 200), accuracy, label) for accuracy in (0.6, 0.7, 0.85)]
    ours = compare(*three, label, groups.tolist(), n_boot=4000)["pgr"]
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    correct = [(prob > 0.5) == (label == 1) for prob in three]
    plain = []
    for _ in range(4000):
        chosen = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        seeds = rng.integers(3, size=3)
        weak, student, ceiling = (np.mean([c[s, chosen].mean() for s in seeds]) for c in correct)
        plain.append((student - weak) / (ceiling - weak))
    assert (ours["low"], ours["high"]) == pytest.approx(
        tuple(np.quantile(plain, [0.025, 0.975])), abs=0.04
    )


def test_the_interval_holds_the_true_pgr_about_95_times_in_100():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        # the same questions are hard for all three: that is why pairing pays
        right = rng.random(400) < np.array([0.6, 0.7, 0.8])[:, None, None]
        pgr = stats.compare(right, right, range(400), n_boot=300)["pgr"]
        hits += pgr["low"] <= 0.5 <= pgr["high"]
    assert 0.89 <= hits / 100 <= 0.99


def test_pairing_makes_the_interval_narrower_than_its_parts():
    rng = np.random.default_rng(0)
    label, hard = np.ones(800), rng.random(800)
    weak, student, ceiling = (
        (hard < accuracy).astype(float)[None] for accuracy in (0.6, 0.75, 0.9)
    )
    pgr = compare(weak, student, ceiling, label, range(800), n_boot=2000)["pgr"]
    unpaired = np.sqrt(sum(a * (1 - a) / 800 for a in (0.6, 0.75))) / 0.3
    assert (pgr["high"] - pgr["low"]) / 3.92 < 0.8 * unpaired


def test_seeds_that_disagree_widen_the_interval():
    label = np.ones(2000)
    same = np.repeat((np.arange(2000) < 1400).astype(float)[None], 3, 0)
    apart = np.stack([np.arange(2000) < right for right in (1100, 1400, 1700)]).astype(float)
    weak, ceiling = (
        np.repeat((np.arange(2000) < right).astype(float)[None], 3, 0) for right in (1000, 1800)
    )
    narrow, wide = (
        compare(weak, s, ceiling, label, range(2000), n_boot=500)["pgr"] for s in (same, apart)
    )
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
    told = stats.compare(badness, None, range(200), n_boot=200, metric="score")
    assert (told["agreement"], told["diagnostics"], told["metric"]) == ({}, {}, "score")
    means = badness.mean(axis=2)[:, 0]
    assert [told[who]["score"] for who in stats.WHO] == pytest.approx(means.tolist())
    wanted = (means[1] - means[0]) / (means[2] - means[0])
    assert told["pgr"]["value"] == pytest.approx(wanted) and told["pgr"]["low"] > 0.7
    for metric, side in (("acc", "lies below 0"), ("score", "lies above 0")):
        scores = badness if metric == "acc" else badness[::-1]
        told = stats.compare(scores, None, range(200), n_boot=200, metric=metric)
        assert told["pgr"]["value"] is None and side in told["pgr"]["reason"]


def test_agreement_where_the_supervisor_is_wrong_is_none_if_it_never_is():
    one = np.ones((1, 20))
    assert compare(one, one, one, np.ones(20), range(20))["agreement"]["weak_wrong"] == {
        "value": None, "low": None, "high": None,
    }  # fmt: skip


def test_the_same_call_gives_the_same_interval():
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=100)
    three = [answers(rng, (2, 100), accuracy, label) for accuracy in (0.6, 0.7, 0.9)]
    assert compare(*three, label, range(100)) == compare(*three, label, range(100))


def test_intervals_are_those_of_the_results_on_record():
    """Numbers of the version that drew anew for every metric: same seed, same draws, same bits."""
    row = np.arange(40)
    label, groups = row * 7 % 3 % 2, (row // 2).tolist()
    probs = [[row * step % 41 / 41, (row * step + 5) % 41 / 41] for step in (3, 5, 11)]
    told = compare(*probs, label, groups)
    one = stats.metrics(probs[0][0], label, groups)
    got = [told["student"], told["agreement"]["weak_wrong"], told["diagnostics"]["gain"]]
    got += [{"acc": one["acc"], "low": one["low"], "high": one["high"]}, one["auroc"], one["ece"]]
    assert [list(estimate.values()) for estimate in got] == [
        pytest.approx(pinned, abs=1e-12) for pinned in PINNED
    ]


PINNED = (
    [0.5125, 0.375, 0.6499999999999999],
    [0.5118421052631579, 0.28328125000000043, 0.7307738095238094],
    [0.0013087447947650376, -0.10868530636525875, 0.10303651100535392],
    [0.5, 0.35, 0.625],
    [0.4843304843304843, 0.3361633577150819, 0.6439236111111108],
    [0.24573170731707322, 0.1798780487804878, 0.43477134146341456],
)


def test_many_groups_are_joined_and_the_interval_stays(monkeypatch):
    """At 200,000 rows five minutes and 6 GB went into drawing them one by one."""
    monkeypatch.setattr(stats, "MOST_GROUPS", 500)
    drawn, draws = [], stats.draws

    def counting(n_groups, *rest):
        drawn.append(n_groups)
        return draws(n_groups, *rest)

    monkeypatch.setattr(stats, "draws", counting)
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=20_000)
    prob = answers(rng, 20_000, 0.8, label)
    got = stats.metrics(prob, label, range(20_000), n_boot=100)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 20_000)
    assert got["high"] - got["low"] == pytest.approx(2 * half, rel=0.1)
    assert got["groups"] == 20_000 and drawn == [500, 500]  # all ratios at once, and auroc


# ---- the metrics of eval.py


def named(metrics):
    return {name: one["value"] for name, one in metrics.items() if isinstance(one, dict)}


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
    got = named(stats.metrics(prob, label, range(300), n_boot=50))
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
        got = named(stats.metrics(prob, label, range(60), n_boot=2))
        assert got["ece"] == pytest.approx(by_definition(confidence, right))


def test_bins_are_cut_at_their_edges_and_nowhere_else():
    edges = np.arange(1, 10) / 10
    for values, wanted in ((edges, range(1, 10)), (np.nextafter(edges, 0), range(9))):
        inside = stats.bins(values, edges)
        assert [inside[k][i] for i, k in enumerate(wanted)] == [True] * 9


def test_intervals_of_metrics_resample_groups():
    """An independent implementation: draw groups, join their rows, compute anew."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 5)
    label = rng.integers(2, size=200)
    prob = np.clip(0.2 * label + np.repeat(rng.random(40), 5) * 0.4 + rng.random(200) * 0.4, 0, 1)
    ours, plain = stats.metrics(prob, label, groups.tolist(), n_boot=2000), []
    for _ in range(2000):
        rows = (rng.integers(40, size=40)[:, None] * 5 + np.arange(5)).ravel()
        p, y = prob[rows], label[rows]
        wins = (p[y == 1][:, None] > p[y == 0]).mean() + (
            p[y == 1][:, None] == p[y == 0]
        ).mean() / 2
        plain.append((wins, 2 * (y * (p > 0.5)).sum() / (y.sum() + (p > 0.5).sum())))
    for name, column in zip(("auroc", "f1"), np.array(plain).T):
        assert (ours[name]["low"], ours[name]["high"]) == pytest.approx(
            tuple(np.quantile(column, [0.025, 0.975])), abs=0.02
        )


def test_what_cannot_be_computed_is_none_and_certainty_costs_no_infinity():
    got = stats.metrics([0.1, 0.2, 0.0], [1, 1, 1], list("abc"))
    assert got["precision"] == got["auroc"] == {"value": None, "low": None, "high": None}
    assert got["nll"]["value"] == pytest.approx(-np.log([0.1, 0.2, 1e-12]).mean())


def test_diagnostics_by_hand():
    weak, student, ceiling = [0.9, 0.2, 0.7, 0.4], [0.8, 0.3, 0.95, 0.6], [1.0, 0.0, 0.0, 0.7]
    label, groups = [1, 1, 0, 1], ["a", "b", "c", "d"]
    got = {
        name: one["value"]
        for name, one in compare([weak], [student], [ceiling], label, groups, n_boot=100)[
            "diagnostics"
        ].items()
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
    assert got["calibration of weak"] == pytest.approx((0.1 + 0.8 + 0.7 + 0.6) / 4)
    assert got["calibration of student"] == pytest.approx((0.2 + 0.7 + 0.95 + 0.4) / 4)
    assert got["calibration of ceiling"] == pytest.approx((0 + 1 + 0.3) / 4)


def test_what_is_said_need_not_be_a_label_and_a_score_need_not_be_agreement():
    said = np.array([[["e4", "d4", "c4"]], [["e4", "d5", "c4"]], [["e4", "d6", "b4"]]])
    result = stats.compare(said == ["e4", "d6", "b4"], said, range(3), n_boot=100)
    assert [result[who]["acc"] for who in stats.WHO] == pytest.approx([1 / 3, 1 / 3, 1])
    # by right and wrong alone the first two would agree everywhere
    assert result["agreement"]["all"]["value"] == pytest.approx(2 / 3)
    assert result["agreement"]["weak_wrong"]["value"] == pytest.approx(1 / 2)
    assert result["diagnostics"] == {}


def test_a_run_beside_itself_is_as_similar_as_it_is_sure():
    prob = np.array([[0.6, 0.4, 0.7, 0.2]])
    told = compare(prob, prob, prob, [1, 0, 1, 0], range(4), n_boot=100)["diagnostics"]
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
        told = compare([a], [b], [b], label, groups, n_boot=50)
        return told["diagnostics"]["similarity"]

    by_chance = similarity(one, two)
    assert by_chance["low"] < 0 < by_chance["high"] and abs(by_chance["value"]) < 0.02
    assert similarity(one, one)["value"] == pytest.approx(1)


def test_calibration_is_pooled_over_seeds_and_its_interval_draws_them():
    rng = np.random.default_rng(1)
    prob, seeds = rng.uniform(0.05, 0.95, (3, 4000)), [rng.random((3, 4000))] * 3
    label = (rng.random(4000) < prob[0]).astype(int)  # the first seed alone is calibrated
    groups = [i // 4 for i in range(4000)]
    got = compare(seeds[0], [prob[0]] * 3, prob, label, groups, n_boot=200)["diagnostics"]
    assert got["calibration of student"]["value"] < 0.03
    # the two others answer at random: off by |p - 1/2|, 0.225 on average, pooled two thirds of it
    assert got["calibration of ceiling"]["value"] == pytest.approx(0.15, abs=0.02)
    assert (
        got["calibration of ceiling"]["low"] < 0.03 and got["calibration of ceiling"]["high"] > 0.2
    )  # seeds are drawn too
