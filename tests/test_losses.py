"""The losses against hand-worked numbers and float64 references."""

import math

import pytest
import torch

from losses import LOSSES, conf, xent


def test_xent_is_the_cross_entropy_on_soft_labels():
    # logits ln 3 apart: p1 = 3/4, p0 = 1/4
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    for weak, wanted in (
        (1.0, -math.log(3 / 4)),
        (0.0, -math.log(1 / 4)),
        (0.4, -0.6 * math.log(1 / 4) - 0.4 * math.log(3 / 4)),
    ):
        assert xent(logits, torch.tensor([weak], dtype=torch.float64)).item() == pytest.approx(wanted, abs=1e-15)


def test_xent_equals_torchs_own_cross_entropy_in_float64():
    logits, weak = torch.randn(50, 2, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    reference = torch.nn.functional.cross_entropy(logits, torch.stack([1 - weak, weak], 1), reduction="none")
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
        torch.testing.assert_close(conf(logits, weak_t, progress).tolist(), wanted, rtol=0, atol=1e-14)


def test_the_confidence_weight_rises_linearly_over_the_first_fifth():
    """openai/weak-to-strong's bug A: it creeps to a tenth of alpha and then jumps."""
    logits, weak = torch.tensor([[0.0, 2.0], [0.0, -1.0]]).double(), torch.tensor([0.1, 0.8]).double()
    at = {p: conf(logits, weak, p, alpha=0.75).sum().item() for p in (0, 0.05, 0.1, 0.15, 0.2, 0.6, 1)}
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
    logits, weak = torch.randn(10, 2).requires_grad_(), torch.tensor([0.9] * 3 + [0.0] * 7)  # mean 0.27: three of ten
    conf(logits, weak, 1.0, alpha=1.0, prior="weak").sum().backward()
    assert (logits.grad[:, 1] < 0).sum() == 3


def test_no_gradient_flows_through_the_hardened_labels():
    logits = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    weak = torch.rand(8, dtype=torch.float64)
    conf(logits, weak, 1.0).sum().backward()
    hard = torch.zeros(8, dtype=torch.float64)
    hard[(logits[:, 1] - logits[:, 0]).argsort(descending=True)[:4]] = 1
    p1 = logits.detach().softmax(1)[:, 1]
    torch.testing.assert_close(logits.grad[:, 1], p1 - (0.5 * weak + 0.5 * hard), rtol=0, atol=1e-14)


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
