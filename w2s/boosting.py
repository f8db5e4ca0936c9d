"""Boosted ensembles of supervisors: each is trained on more of what those before it got wrong."""

import numpy as np

from w2s import records
from w2s.files import BadInput


def chain(boost, data, out):
    """[(run, card)] of the boosted ensemble so far, the first supervisor first; [] without one.

    BadInput where one was of other rows, is `out` itself, or was trained anew after another was
    boosted from it.
    """
    runs = []
    while boost:
        card, before = records.finished_run(boost), (out, *(run for run, _ in runs))
        if card["stage"] != "train_weak" or card["data"] != data or boost in before:
            wanted = "a supervisor of the same rows, not --out or boosted from itself"
            raise BadInput(f"--boost={boost} must be {wanted}")
        runs.insert(0, (boost, card))
        boost = card["args"].get("boost")
    for i, (run, card) in enumerate(runs):
        if i and card["inputs"]["boost"] != inputs(runs[:i])["boost"]:
            told = "has been trained anew since: train it again"
            raise BadInput(f"--boost: what {run} was boosted from {told}")
    return runs


def inputs(runs):
    """What a card records of the ensemble so far as an input."""
    return {"boost": [card["model_sha256"] for _, card in runs]} if runs else {}


def weights(setting, rows, runs, device, dtype):
    """AdaBoost's weights of the rows [N] (Freund & Schapire 1997).

    After each run the rows that it gets wrong weigh as much together as those it gets right.
    """
    from w2s import models

    weight = np.ones(len(rows))
    for run in (run for run, _ in runs):
        model, tokenizer = models.load(f"{run}/model", device=device, outputs=setting.OUTPUTS)
        answers = setting.answer(model, tokenizer, rows, dtype, bar=run)
        wrong = np.array([not setting.is_right(*pair) for pair in zip(rows, answers)])
        error = weight[wrong].sum() / weight.sum()
        if not 0 < error < 0.5:
            wanted = "boosting needs some errors, on under half of the rows"
            raise BadInput(f"--boost: {run} errs on {error:.0%} of the weighted rows: {wanted}")
        weight[wrong] *= (1 - error) / error
    return weight
