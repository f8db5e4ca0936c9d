"""What to do with weak labels: pure functions of logits and labels.

Every loss has the same face: logits [N, 2] (float32 or float64), weak [N] = the supervisor's P(label = 1), progress from
0 (start of training) to 1 (its end) -> losses [N], whose mean over the batch is minimised. Adding one is a function and a
line in LOSSES; whole_batch=True says that a row's loss depends on the other rows of the batch, so that the loop
shows the loss the whole batch at once however it is cut into micro-batches. What follows `progress` are a rule's options.

A student's or supervisor's confidence is |P(1) - 1/2|, 0 to 1/2. "Hardened" is 0 or 1; no gradient flows through it.
"""

import functools
import inspect

import torch
from torch.nn.functional import log_softmax

from w2s import cli
from w2s.files import BadInput

WARM_UP = 0.2  # the share of training over which the confidence weight rises (paper, A.4)


def xent(logits, weak, progress=0.0):
    """Cross-entropy on soft labels, -(1 - w) log p0 - w log p1: the paper's naive fine-tuning (A.1). Returns [N]."""
    target = torch.stack([1 - weak, weak], dim=1)
    return -(target * log_softmax(logits, dim=1)).sum(dim=1)


def conf(logits, weak, progress, alpha=0.5, prior="half"):
    """The auxiliary confidence loss (4.3.2 and A.4, eq. 1): (1 - a) CE(f, weak) + a CE(f, hardened f). Returns [N].

    a rises linearly from 0 to alpha over the first fifth of training. The student's own predictions are hardened at a
    threshold set on each batch, by rank so that ties cannot put all rows in one class: the N // 2 rows with the highest
    P(1) become 1, the others 0 (prior="half", exactly half of the batch), or as many as the mean weak label says
    (prior="weak", openai's code; the same on balanced data). No gradient flows through the hardened labels.
    """
    a = alpha * min(1.0, progress / WARM_UP)
    ones = len(logits) // 2 if prior == "half" else round(weak.mean().item() * len(logits))
    confidence = log_odds(logits).detach()  # ranks like P(1), without its rounding near 0 and 1
    hardened = torch.zeros_like(weak)
    hardened[confidence.argsort(descending=True, stable=True)[:ones]] = 1
    return (1 - a) * xent(logits, weak) + a * xent(logits, hardened)


def logconf(logits, weak, progress, alpha=0.5, as_released=False):
    """The confidence loss of openai/weak-to-strong (weak_to_strong/loss.py), its warm-up mended. Returns [N].

    It differs from conf: a reaches alpha after a tenth of training, and the student is hardened at the quantile of its
    P(0) that the mean weak label names (rows at the threshold become 0, so ties can put all rows in one class).
    as_released=True keeps the released warm-up: alpha * progress up to a tenth of training, then a jump to alpha.
    """
    released = 1.0 if progress > 0.1 else progress
    a = alpha * (released if as_released else min(1.0, progress / 0.1))
    p0 = logits.detach().softmax(dim=1)[:, 0]
    hardened = (p0 < torch.quantile(p0, weak.mean())).to(weak.dtype)
    return (1 - a) * xent(logits, weak) + a * xent(logits, hardened)


def product(logits, weak, progress):
    """Cross-entropy on the normalised product of both predictions, p w : (1 - p)(1 - w), detached. Returns [N].

    openai/weak-to-strong's product loss with both exponents 1: supervisor and student as two independent witnesses.
    """
    return xent(logits, torch.sigmoid(log_odds(logits).detach() + torch.logit(weak)))


def window(logits, weak, progress, radius=None):
    """Cross-entropy where the student's confidence is below radius, else 0 (EleutherAI/w2s, 2024). Returns [N].

    radius: from 0 to 1/2; None takes the median confidence of the batch's weak labels (w2s: of the whole data set's).
    """
    radius = confidence(weak).median() if radius is None else radius
    unsure = confidence(torch.sigmoid(log_odds(logits).detach())) < radius
    return unsure * xent(logits, weak)


def entropy(logits, weak, progress, alpha=0.5):
    """(1 - a) CE(f, weak) + a H(f), the student's own entropy (Grandvalet & Bengio 2004), a as in conf. Returns [N].

    EleutherAI/w2s has CE(f, detached f) as second term, whose gradient is zero: there it only shrinks the learning rate.
    """
    a = alpha * min(1.0, progress / WARM_UP)
    return (1 - a) * xent(logits, weak) + a * xent(logits, torch.sigmoid(log_odds(logits)))


def reverse_xent(logits, weak, progress=0.0, smoothing=0.01):
    """Reverse cross-entropy, -(1 - p) log(1 - w) - p log w, of weak labels smoothed so that no log is infinite. Returns [N].

    2505.24313 (and Wang et al. 2019 for noisy labels); smoothing, our choice: w becomes (1 - smoothing) w + smoothing / 2.
    """
    w = (1 - smoothing) * weak + smoothing / 2
    p = torch.sigmoid(log_odds(logits))
    return -(1 - p) * torch.log(1 - w) - p * torch.log(w)


def reverse_kl(logits, weak, progress=0.0, smoothing=0.01):
    """KL(f || weak) = reverse cross-entropy - H(f), which seeks one mode (2502.11107); smoothed alike. Returns [N]."""
    return reverse_xent(logits, weak, smoothing=smoothing) - xent(
        logits, torch.sigmoid(log_odds(logits))
    )


def mix(logits, weak, progress, radius=None):
    """Cross-entropy where the supervisor's confidence is at least radius, reverse cross-entropy elsewhere (2505.24313).

    radius: from 0 to 1/2; None takes the median confidence of the batch's weak labels (our choice). Returns [N].
    """
    sure = confidence(weak) >= (confidence(weak).median() if radius is None else radius)
    return torch.where(sure, xent(logits, weak), reverse_xent(logits, weak))


def adaptive(logits, weak, progress):
    """(1 - b) CE(f, weak) + b CE(f, hardened f) with a weight b for each row (2402.03749, eq. of beta). Returns [N].

    b = exp(CE(f, hardened f)) / (exp(CE(f, hardened f)) + exp(CE(f, hardened weak))), detached, times a warm-up over the
    first quarter of training as in the authors' code. Both are hardened at 1/2: b is 1/2 where they agree, and falls as
    the student contradicts its supervisor with confidence. A weak label of exactly 1/2 hardens to 0.
    """
    own = (log_odds(logits) > 0).to(weak.dtype)
    on_own, on_weak = xent(logits, own), xent(logits, (weak > 0.5).to(weak.dtype))
    b = min(1.0, progress / 0.25) * torch.sigmoid(on_own - on_weak).detach()
    return (1 - b) * xent(logits, weak) + b * on_own


def log_odds(logits):
    """log P(1) / P(0), [N, 2] -> [N]."""
    return logits[:, 1] - logits[:, 0]


def confidence(p):
    """|p - 1/2|, [N]."""
    return (p - 0.5).abs()


LOSSES = {
    "xent": {"loss": xent, "whole_batch": False},
    "conf": {"loss": conf, "whole_batch": True},
    "logconf": {"loss": logconf, "whole_batch": True},
    "product": {"loss": product, "whole_batch": False},
    "window": {"loss": window, "whole_batch": True},
    "entropy": {"loss": entropy, "whole_batch": False},
    "reverse_xent": {"loss": reverse_xent, "whole_batch": False},
    "reverse_kl": {"loss": reverse_kl, "whole_batch": False},
    "mix": {"loss": mix, "whole_batch": True},
    "adaptive": {"loss": adaptive, "whole_batch": False},
}


def rule(name, given="weak", **options):
    """The line of LOSSES for --loss=name, its function with these options set; an option that is None was not given.

    given: the field trained on; ground truth ("label") is learned by xent, which is said.

    Raises BadInput for an unknown name, and for an option that this rule has not: it would change nothing.
    """
    if name not in LOSSES:
        raise BadInput(f"unknown loss --loss={name}{cli.nearest(name, LOSSES)}")
    chosen = {option: value for option, value in options.items() if value is not None}
    takes = {other: inspect.signature(line["loss"]).parameters for other, line in LOSSES.items()}
    for option in chosen.keys() - takes[name].keys():
        fits = ", ".join(other for other in LOSSES if option in takes[other])
        raise BadInput(
            f"{option} is no option of the rule {name}, only of {fits}: leave it out, or take another --loss"
        )
    if given == "label":
        if name != "xent":
            print(f"ground truth is learned by xent, not by --loss={name}")
        return LOSSES["xent"]
    return (
        LOSSES[name] | {"loss": functools.partial(LOSSES[name]["loss"], **chosen)}
        if chosen
        else LOSSES[name]
    )
