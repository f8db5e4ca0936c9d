"""The setting of texts with a 0/1 label: its tasks and rows, and how a model learns and answers.

{"id": "cola/train/17", "group": "cola/train/17", "text": "Him saw she.\\nIs ...?", "label": 0}
"""

import sys

from table import TASKS, read_source
from w2s import files, protocol, stats

WHAT, KEY, METRIC, BALANCED = "rows", "text", "acc", True
FIELDS, OPTIONAL, PREDICTION = ("text", "label"), (), ("id", "label", "prob")
CHECKS = files.CHECKS
TRUTH, SOFT, OUTPUTS = "label", True, 2  # weak labels are probabilities; outputs of the head
RECIPE = {"epochs": 2, "batch_size": 32, "n_val": None, "stop": True}
same = protocol.same_text


def read(ds, split):
    """All rows of one split of a task, or of a JSONL file with text and label."""
    if ds in TASKS:
        return TASKS[ds]["load"](split) if "load" in TASKS[ds] else read_source(ds, split)
    rows = protocol.read_own(sys.modules[__name__], ds)
    return [{field: row[field] for field in ("id", "group", *FIELDS)} for row in rows]


def finish(rows, seed):
    """The rows as the stages see them."""
    return rows


def encode(rows, tokenizer, model, given=None):
    """The rows with "tokens" and, where a field is named, "given" = that field, P(label = 1)."""
    from w2s import models

    encoded = models.encode(rows, tokenizer, model)
    return [row | {"given": row[given]} if given else row for row in encoded]


def outputs(model, rows):
    """Logits [N, 2] of N encoded rows; of pairs the two rewards [r_a, r_b]."""
    from w2s import packing

    return packing.row_logits(model, rows)


def rule(name, **options):
    """(loss, whether it looks at the whole batch, its options as resolved) of a --loss."""
    from w2s import losses

    return losses.rule(name, **options)


def answer(model, tokenizer, rows, dtype=None, bar=None, predict=None):
    """P(label = 1) of each row, a list of floats; predict: other than models.predict()."""
    from w2s import models

    tokens = [row["tokens"] for row in encode(rows, tokenizer, model)]
    logits = (predict or models.predict)(model, tokens, dtype, bar)
    return logits.double().softmax(dim=1)[:, 1].tolist()


def prediction(row, prob):
    """What eval.py writes down of an answer."""
    return {"id": row["id"], "label": row["label"], "prob": prob}


def said(prediction):
    """Whether the answer is 1."""
    return prediction["prob"] > 0.5


def truth(prediction):
    """Whether the label is 1."""
    return prediction["label"] == 1


def score(prediction):
    """1 for a right answer, else 0: PGR recovers a gap in the mean of this."""
    return int(said(prediction) == truth(prediction))


def is_right(row, answer):
    """Whether an answer (or weak label) to a row is right; a probability of 1/2 says 0."""
    return (answer > 0.5) == (row["label"] == 1)


def remarks(rows):
    """What label.py adds about its weak labels: nothing."""
    return []


def measure(predictions, rows):
    """Metrics of predictions on test rows (stats.metrics)."""
    probs, labels = ([row[name] for row in predictions] for name in ("prob", "label"))
    return stats.metrics(probs, labels, [row["group"] for row in rows])
