"""The rules for learning from weak labels: pure functions of logits and labels.

logits [N, 2] (float32 or float64), weak [N] = the supervisor's P(label = 1), progress from 0
(start of training) to 1 (its end) -> losses [N], whose mean is minimised. Then a rule's options.
To add a rule, write a function and a line in LOSSES: whole_batch=True says that a row's loss
depends on the other rows of the batch, which it then sees at once. Its options have defaults, and
can be alpha, prior (--conf_prior) and radius; another has to be added to main() and chosen_rule()
of train_strong.py, to RULE of pgr.py and to options.py.

Confidence is |P(1) - 1/2|, 0 to 1/2. "Hardened" is made 0 or 1; no gradient flows through it.
"""

import functools
import inspect

import torch
from torch.nn.functional import log_softmax

from w2s import cli
from w2s.files import BadInput

WARM_UP = 0.2  # the share of training over which the confidence weight rises (paper, A.4)


def xent(logits, weak, progress=0.0):
    """Cross-entropy on soft labels, -(1 - w) log p0 - w log p1: naive fine-tuning (paper, A.1)."""
    target = torch.stack([1 - weak, weak], dim=1)
    return -(target * log_softmax(logits, dim=1)).sum(dim=1)


def conf(logits, weak, progress, alpha=0.5, prior="half"):
    """The auxiliary confidence loss (4.3.2; A.4, eq. 1): (1 - a) CE(f, weak) + a CE(f, hardened f).

    a rises linearly from 0 to alpha over the first fifth of training. The student is hardened at a
    threshold set on each batch, by rank, so that ties cannot put all rows in one class: the N // 2
    rows with the highest P(1) become 1, the others 0 (prior="half"), or as many as the mean weak
    label says (prior="weak", openai's code; the same on balanced data).
    """
    a = alpha * min(1.0, progress / WARM_UP)
    n = len(logits)
    ones = n // 2 if prior == "half" else (weak.mean() * n).round()  # a tensor: no wait for a GPU
    confidence = log_odds(logits).detach()  # ranks like P(1), without its rounding near 0 and 1
    ranked = confidence.argsort(descending=True, stable=True)
    hardened = torch.empty_like(weak)
    hardened[ranked] = (torch.arange(n, device=weak.device) < ones).to(weak.dtype)
    return (1 - a) * xent(logits, weak) + a * xent(logits, hardened)


def logconf(logits, weak, progress, alpha=0.5, as_released=False):
    """The confidence loss of openai/weak-to-strong (weak_to_strong/loss.py), its warm-up mended.

    It differs from conf: a reaches alpha after a tenth of training, and the student is hardened at
    the quantile of its P(0) that the mean weak label names (rows at the threshold become 0).
    as_released=True: alpha * progress for a tenth, then a jump.
    """
    released = 1.0 if progress > 0.1 else progress
    a = alpha * (released if as_released else min(1.0, progress / 0.1))
    p0 = logits.detach().softmax(dim=1)[:, 0]
    # torch.quantile, which makes a GPU wait
    rank = weak.mean() * (len(p0) - 1)
    below, above = p0.sort().values.take(torch.stack([rank.floor(), rank.ceil()]).long())
    hardened = (p0 < torch.lerp(below, above, rank - rank.floor())).to(weak.dtype)
    return (1 - a) * xent(logits, weak) + a * xent(logits, hardened)


def product(logits, weak, progress):
    """Cross-entropy on the normalised product of both predictions, p w : (1 - p)(1 - w), detached.

    openai/weak-to-strong's with both exponents 1: supervisor and student as independent witnesses.
    """
    return xent(logits, torch.sigmoid(log_odds(logits).detach() + torch.logit(weak)))


def window(logits, weak, progress, radius="median"):
    """Cross-entropy where the student's confidence is below radius, else 0 (EleutherAI/w2s, 2024).

    radius: 0 to 1/2, or the median confidence of the batch's weak labels (theirs: the data set's).
    """
    radius = confidence(weak).median() if radius == "median" else radius
    unsure = confidence(torch.sigmoid(log_odds(logits).detach())) < radius
    return unsure * xent(logits, weak)


def entropy(logits, weak, progress, alpha=0.5):
    """(1 - a) CE(f, weak) + a H(f), the student's own entropy (Grandvalet & Bengio 2004).

    a is as in conf. The second term of EleutherAI/w2s is CE(f, detached f), whose gradient is zero.
    """
    a = alpha * min(1.0, progress / WARM_UP)
    return (1 - a) * xent(logits, weak) + a * xent(logits, torch.sigmoid(log_odds(logits)))


def reverse_xent(logits, weak, progress=0.0, smoothing=0.01):
    """Reverse cross-entropy, -(1 - p) log(1 - w) - p log w (2505.24313; Wang et al. 2019).

    Our choice, so that no log is infinite: w becomes (1 - smoothing) w + smoothing / 2.
    """
    w = (1 - smoothing) * weak + smoothing / 2
    p = torch.sigmoid(log_odds(logits))
    return -(1 - p) * torch.log(1 - w) - p * torch.log(w)


def reverse_kl(logits, weak, progress=0.0, smoothing=0.01):
    """KL(f || weak), reverse cross-entropy - H(f), which seeks one mode (2502.11107)."""
    crossed = reverse_xent(logits, weak, smoothing=smoothing)
    return crossed - xent(logits, torch.sigmoid(log_odds(logits)))


def mix(logits, weak, progress, radius="median"):
    """xent where the supervisor's confidence is at least radius, else reverse_xent (2505.24313).

    radius: as in window (our choice).
    """
    sure = confidence(weak) >= (confidence(weak).median() if radius == "median" else radius)
    return torch.where(sure, xent(logits, weak), reverse_xent(logits, weak))


def adaptive(logits, weak, progress):
    """(1 - b) CE(f, weak) + b CE(f, hardened f), a weight b for each row (2402.03749, eq. of beta).

    b = exp(CE(f, hardened f)) / (exp(CE(f, hardened f)) + exp(CE(f, hardened weak))), detached,
    times a warm-up over the first quarter of training, as in the authors' code. Both are hardened
    at 1/2 (1/2 becomes 0): b is 1/2 where they agree, less the surer the student contradicts.
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


def rule(name, batch_size=None, **options):
    """(loss, whether it needs the whole batch, its options with defaults filled in) of --loss=name.

    An option that is None was not given. BadInput for an unknown rule, or what it cannot take.
    """
    if name not in LOSSES:
        raise BadInput(f"unknown loss --loss={name}{cli.nearest(name, LOSSES)}")
    signatures = {x: inspect.signature(line["loss"]).parameters for x, line in LOSSES.items()}
    takes = {x: {p.name: p.default for p in [*s.values()][3:]} for x, s in signatures.items()}
    if inspect.Parameter.empty in takes[name].values():
        raise BadInput(f"{name}() in losses.py has an option without a default: give it one")
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - takes[name].keys():
        fits = ", ".join(other for other in LOSSES if option in takes[other])
        flag = "conf_prior" if option == "prior" else option
        raise BadInput(f"--{flag} is no option of the rule {name}, only of {fits}: leave it out")
    loss, whole_batch = LOSSES[name]["loss"], LOSSES[name]["whole_batch"]
    if whole_batch and batch_size == 1 and "radius" not in given:
        raise BadInput(f"--loss={name} compares the rows of a batch: --batch_size=1 is too small")
    resolved = takes[name] | given
    return functools.partial(loss, **resolved) if resolved else loss, whole_batch, resolved
