"""What to do with weak labels: pure functions of logits and labels.

Every loss has the same face: logits [N, 2] (float32 or float64), weak [N] = the supervisor's P(label = 1), progress from
0 (start of training) to 1 (its end) -> losses [N], whose mean over the batch is minimised. Adding one is a function and a
line in LOSSES; whole_batch=True says that a row's loss depends on the other rows of the batch, so that the loop
shows the loss the whole batch at once however it is cut into micro-batches.
"""

import torch
from torch.nn.functional import log_softmax

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
    confidence = (logits[:, 1] - logits[:, 0]).detach()  # ranks like P(1), without its rounding near 0 and 1
    hardened = torch.zeros_like(weak)
    hardened[confidence.argsort(descending=True, stable=True)[:ones]] = 1
    return (1 - a) * xent(logits, weak) + a * xent(logits, hardened)


LOSSES = {
    "xent": {"loss": xent, "whole_batch": False},
    "conf": {"loss": conf, "whole_batch": True},
}
