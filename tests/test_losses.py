"""The losses against hand-worked numbers and float64 references."""

import math

import pytest
import torch

from w2s import losses
from w2s.files import BadInput
from w2s.losses import LOSSES, conf, xent


def test_xent_is_the_cross_entropy_on_soft_labels():
    # logits ln 3 apart: p1 = 3/4, p0 = 1/4
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    for weak, wanted in (
        (1.0, -math.log(3 / 4)),
        (0.0, -math.log(1 / 4)),
        (0.4, -0.6 * math.log(1 / 4) - 0.4 * math.log(3 / 4)),
    ):
        assert xent(logits, torch.tensor([weak], dtype=torch.float64)).item() == pytest.approx(
            wanted, abs=1e-15
        )


def test_xent_equals_torchs_own_cross_entropy_in_float64():
    logits, weak = torch.randn(50, 2, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    reference = torch.nn.functional.cross_entropy(
        logits, torch.stack([1 - weak, weak], 1), reduction="none"
    )
    torch.testing.assert_close(xent(logits, weak), reference, rtol=0, atol=1e-14)


def conf_by_hand(p, weak, a, ones):
    """Equation 1 written out with plain floats."""
    ranked = sorted(range(len(p)), key=lambda i: -p[i])
    hard = [1.0 if i in ranked[:ones] else 0.0 for i in range(len(p))]

    def ce(target, q):
        return -target * math.log(q) - (1 - target) * math.log(1 - q)

    return [(1 - a) * ce(w, q) + a * ce(h, q) for q, w, h in zip(p, weak, hard)]


def test_conf_is_equation_1_by_hand():
    p, weak = [0.9, 0.6, 0.7, 0.8], [0.2, 0.9, 0.4, 0.5]
    logits = torch.tensor([[0, math.log(q / (1 - q))] for q in p], dtype=torch.float64)
    weak_t = torch.tensor(weak, dtype=torch.float64)
    for progress, a in ((0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (1.0, 0.5)):
        wanted = conf_by_hand(p, weak, a, ones=2)  # half of four, though every p is above 1/2
        torch.testing.assert_close(
            conf(logits, weak_t, progress).tolist(), wanted, rtol=0, atol=1e-14
        )


def test_the_confidence_weight_rises_linearly_over_the_first_fifth():
    """openai/weak-to-strong's bug A: it creeps to a tenth of alpha and then jumps."""
    logits, weak = (
        torch.tensor([[0.0, 2.0], [0.0, -1.0]]).double(),
        torch.tensor([0.1, 0.8]).double(),
    )
    at = {
        p: conf(logits, weak, p, alpha=0.75).sum().item() for p in (0, 0.05, 0.1, 0.15, 0.2, 0.6, 1)
    }
    steps = [at[0.05] - at[0], at[0.1] - at[0.05], at[0.15] - at[0.1], at[0.2] - at[0.15]]
    assert abs(steps[0]) > 0.05 and steps == pytest.approx([steps[0]] * 4)
    assert at[0.2] == at[0.6] == at[1]


def test_ties_do_not_put_all_rows_in_one_class():
    logits = torch.zeros(6, 2, requires_grad=True)
    conf(logits, torch.full((6,), 0.5), 1.0, alpha=1.0).sum().backward()
    assert (logits.grad[:, 1] < 0).sum() == 3 and (logits.grad[:, 1] > 0).sum() == 3


def test_rows_far_beyond_float32s_probabilities_are_still_ranked():
    logits = torch.tensor([[0.0, 30.0], [0.0, 40.0]], requires_grad=True)  # both P(1) round to 1
    conf(logits, torch.tensor([1.0, 1.0]), 1.0, alpha=1.0).sum().backward()
    assert logits.grad[0, 1] > 0.5  # the lower one is hardened to 0


def test_prior_weak_hardens_as_many_as_the_mean_weak_label_says():
    logits, weak = (
        torch.randn(10, 2).requires_grad_(),
        torch.tensor([0.9] * 3 + [0.0] * 7),
    )  # mean 0.27: three of ten
    conf(logits, weak, 1.0, alpha=1.0, prior="weak").sum().backward()
    assert (logits.grad[:, 1] < 0).sum() == 3


def test_no_gradient_flows_through_the_hardened_labels():
    logits = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    weak = torch.rand(8, dtype=torch.float64)
    conf(logits, weak, 1.0).sum().backward()
    hard = torch.zeros(8, dtype=torch.float64)
    hard[(logits[:, 1] - logits[:, 0]).argsort(descending=True)[:4]] = 1
    p1 = logits.detach().softmax(1)[:, 1]
    torch.testing.assert_close(
        logits.grad[:, 1], p1 - (0.5 * weak + 0.5 * hard), rtol=0, atol=1e-14
    )


# ---- the other rules: four students and their supervisors, worked out with plain floats

P, WEAK = [0.9, 0.6, 0.3, 0.8], [0.2, 0.9, 0.4, 1.0]  # confidences .4 .1 .2 .3 and .3 .4 .1 .5


def ce(target, q):
    return -target * math.log(q) - (1 - target) * math.log(1 - q)


def smooth(w):
    return 0.99 * w + 0.005


def run(loss, progress=1.0, weak=WEAK, **options):
    logits = torch.tensor([[0.3, 0.3 + math.log(p / (1 - p))] for p in P], dtype=torch.float64)
    return loss(logits, torch.tensor(weak, dtype=torch.float64), progress, **options).tolist()


def gradient(loss, progress=1.0, **options):
    """d loss / d log-odds of each row [4]."""
    logits = torch.tensor(
        [[0.0, math.log(p / (1 - p))] for p in P], dtype=torch.float64, requires_grad=True
    )
    loss(logits, torch.tensor(WEAK, dtype=torch.float64), progress, **options).sum().backward()
    return logits.grad[:, 1].tolist()


def same(got, wanted):
    assert got == pytest.approx(wanted, abs=1e-12)


def test_logconf_hardens_at_the_quantile_of_the_mean_weak_label_and_warms_up_over_a_tenth():
    # mean weak label 0.625: P(0) is .1 .4 .7 .2, sorted .1 .2 .4 .7
    # the quantile is at 1.875 of 3: .2 + .875 * .2 = .375
    hard = [1, 0, 0, 1]
    for progress, a in ((0, 0), (0.05, 0.25), (0.1, 0.5), (0.7, 0.5)):
        same(
            run(losses.logconf, progress),
            [(1 - a) * ce(w, p) + a * ce(h, p) for p, w, h in zip(P, WEAK, hard)],
        )
    few = [0.1, 0.2, 0.3, 0.2]  # mean 0.2: quantile at 0.6 of 3, .1 + .6 * .1 = .16
    same(
        run(losses.logconf, weak=few),
        [0.5 * ce(w, p) + 0.5 * ce(h, p) for p, w, h in zip(P, few, [1, 0, 0, 0])],
    )


def test_logconf_as_released_creeps_to_a_twentieth_and_jumps():
    """openai/weak-to-strong's bug A, kept for whoever re-makes a published baseline."""
    for progress, a in ((0, 0), (0.05, 0.025), (0.1, 0.05), (0.1001, 0.5)):
        wanted = [(1 - a) * ce(w, p) + a * ce(h, p) for p, w, h in zip(P, WEAK, [1, 0, 0, 1])]
        same(run(losses.logconf, progress, as_released=True), wanted)


def test_product_takes_supervisor_and_student_as_independent_witnesses():
    targets = [p * w / (p * w + (1 - p) * (1 - w)) for p, w in zip(P, WEAK)]
    assert targets[0] == pytest.approx(0.18 / 0.26) and targets[3] == 1
    same(run(losses.product), [ce(t, p) for p, t in zip(P, targets)])
    same(gradient(losses.product), [p - t for p, t in zip(P, targets)])  # none through the target


def test_window_learns_where_the_student_is_unsure():
    # the median of the weak confidences .1 .3 .4 .5 is .3, of two middle ones the lower;
    # below it are rows 2 and 3
    same(run(losses.window), [0, ce(0.9, 0.6), ce(0.4, 0.3), 0])
    same(run(losses.window, radius=0.35), [0, ce(0.9, 0.6), ce(0.4, 0.3), ce(1.0, 0.8)])
    assert run(losses.window, radius=0.05) == [0, 0, 0, 0]


def test_entropy_is_lowered_not_merely_told():
    for progress, a in ((0, 0), (0.1, 0.25), (1, 0.5)):
        same(
            run(losses.entropy, progress),
            [(1 - a) * ce(w, p) + a * ce(p, p) for p, w in zip(P, WEAK)],
        )
    # dH/dz = -z p (1 - p)
    wanted = [0.5 * (p - w) - 0.5 * math.log(p / (1 - p)) * p * (1 - p) for p, w in zip(P, WEAK)]
    same(gradient(losses.entropy), wanted)


def test_reverse_losses_swap_the_roles_and_survive_hard_labels():
    reverse = [ce(p, smooth(w)) for p, w in zip(P, WEAK)]
    same(run(losses.reverse_xent), reverse)
    own = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in P]
    same(run(losses.reverse_kl), [r - h for r, h in zip(reverse, own)])
    same(
        gradient(losses.reverse_xent),
        [-math.log(smooth(w) / (1 - smooth(w))) * p * (1 - p) for p, w in zip(P, WEAK)],
    )
    assert all(map(math.isfinite, gradient(losses.reverse_kl)))


def test_reverse_kl_is_zero_where_student_and_smoothed_supervisor_agree():
    logits = torch.tensor([[0.0, math.log(smooth(0.7) / (1 - smooth(0.7)))]], dtype=torch.float64)
    assert losses.reverse_kl(
        logits, torch.tensor([0.7], dtype=torch.float64)
    ).item() == pytest.approx(0, abs=1e-15)


def test_mix_is_forward_where_the_supervisor_is_confident_and_reverse_elsewhere():
    forward, reverse = (
        [ce(w, p) for p, w in zip(P, WEAK)],
        [ce(p, smooth(w)) for p, w in zip(P, WEAK)],
    )
    same(
        run(losses.mix), [forward[0], forward[1], reverse[2], forward[3]]
    )  # confidences .3 .4 .1 .5, median .3
    same(run(losses.mix, radius=0.35), [reverse[0], forward[1], reverse[2], forward[3]])


def test_adaptive_weighs_each_row_by_what_contradicting_the_supervisor_would_cost():
    weights = []
    for p, w in zip(P, WEAK):
        own, teacher = math.exp(ce(p > 0.5, p)), math.exp(ce(w > 0.5, p))
        weights.append(own / (own + teacher))
    assert weights[1:] == [0.5] * 3 and weights[0] == pytest.approx((1 / 0.9) / (1 / 0.9 + 1 / 0.1))
    for progress, share in ((0, 0), (0.125, 0.5), (0.25, 1), (1, 1)):
        b = [share * weight for weight in weights]
        same(
            run(losses.adaptive, progress),
            [(1 - k) * ce(w, p) + k * ce(p > 0.5, p) for p, w, k in zip(P, WEAK, b)],
        )
    same(
        gradient(losses.adaptive),
        [p - (1 - k) * w - k * (p > 0.5) for p, w, k in zip(P, WEAK, weights)],
    )


def test_every_rule_takes_labels_of_0_and_1_far_from_the_student():
    logits = torch.tensor([[0.0, 60.0], [0.0, -60.0], [0.0, 0.0], [0.0, 1.0]], requires_grad=True)
    for name in LOSSES:
        out = LOSSES[name]["loss"](logits, torch.tensor([0.0, 1.0, 1.0, 0.5]), 1.0).sum()
        assert torch.isfinite(out) and torch.isfinite(torch.autograd.grad(out, logits)[0]).all(), (
            name
        )


def test_a_rule_comes_with_its_options_filled_in_and_refuses_others():
    assert losses.rule("xent", alpha=None) == (losses.xent, False, {})
    for given in ({}, {"alpha": 0.5}, {"prior": "half", "alpha": None}):  # one and the same run
        loss, whole_batch, options = losses.rule("conf", **given)
        assert whole_batch and options == loss.keywords == {"alpha": 0.5, "prior": "half"}
    assert losses.rule("window")[2] == {"radius": "median"}
    assert losses.rule("reverse_kl")[2] == {"smoothing": 0.01}
    assert losses.rule("logconf")[2] == {"alpha": 0.5, "as_released": False}
    same(run(losses.rule("conf", alpha=0.0)[0]), [ce(w, p) for p, w in zip(P, WEAK)])
    with pytest.raises(
        BadInput, match="alpha is no option of the rule xent, only of conf, logconf, entropy"
    ):
        losses.rule("xent", alpha=0.5)
    with pytest.raises(BadInput, match="unknown loss --loss=cnof .did you mean conf"):
        losses.rule("cnof")


def test_an_option_without_a_default_is_refused(monkeypatch):
    mine = {"loss": lambda logits, weak, progress, alpha: 0, "whole_batch": False}
    monkeypatch.setitem(LOSSES, "mine", mine)
    for given in ({}, {"alpha": 0.5}):
        with pytest.raises(BadInput, match="mine.. in losses.py has an option without a default"):
            losses.rule("mine", **given)


def test_a_rule_that_compares_rows_refuses_batches_of_one():
    """The confidence loss hardened every row to 0 there, without a word."""
    for name, line in LOSSES.items():
        if line["whole_batch"]:
            with pytest.raises(BadInput, match=f"--loss={name} compares .* --batch_size=1 is too"):
                losses.rule(name, batch_size=1)
        else:
            losses.rule(name, batch_size=1)
        losses.rule(name, batch_size=2)
    losses.rule("window", batch_size=1, radius=0.2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("options", [{}, {"prior": "weak"}])
def test_no_loss_waits_for_a_gpu(name, options):
    """Whatever reads a value back, as .item() does, fails on tensors that have none."""
    if options and name != "conf":
        return
    loss = losses.rule(name, **options)[0]
    assert loss(torch.empty(9, 2, device="meta"), torch.empty(9, device="meta"), 0.5).shape == (9,)


def test_logconfs_quantile_is_torchs_own():
    torch.manual_seed(0)
    for n in (1, 2, 7, 32):
        logits, weak = torch.randn(n, 2), torch.rand(n)
        p0 = logits.softmax(1)[:, 0]
        hardened = (p0 < torch.quantile(p0, weak.mean())).float()
        assert torch.equal(losses.logconf(logits, weak, 1.0, alpha=1.0), xent(logits, hardened))


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_prior_weak_counts_as_python_rounds(n):
    for seed in range(20):
        torch.manual_seed(seed)
        logits, weak = torch.randn(n, 2), torch.rand(n)
        hardened = torch.zeros(n)
        ones = round(weak.mean().item() * n)
        hardened[logits.diff(dim=1)[:, 0].argsort(descending=True)[:ones]] = 1
        got = conf(logits, weak, 1.0, alpha=1.0, prior="weak")
        assert torch.equal(got, 0 * xent(logits, weak) + xent(logits, hardened))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_the_same_face_and_is_pure(name):
    logits, weak = torch.randn(7, 2), torch.rand(7)
    before = logits.clone(), weak.clone()
    out = LOSSES[name]["loss"](logits, weak, 0.5)
    assert out.shape == (7,) and out.dtype == torch.float32 and torch.isfinite(out).all()
    assert torch.equal(logits, before[0]) and torch.equal(weak, before[1])


@pytest.mark.parametrize("name", LOSSES)
def test_whole_batch_says_whether_a_rows_loss_depends_on_the_others(name):
    torch.manual_seed(0)
    logits, weak = torch.randn(9, 2), torch.rand(9)
    loss = LOSSES[name]["loss"]
    pieces = torch.cat([loss(logits[i : i + 2], weak[i : i + 2], 1.0) for i in range(0, 9, 2)])
    assert torch.allclose(loss(logits, weak, 1.0), pieces) != LOSSES[name]["whole_batch"]
