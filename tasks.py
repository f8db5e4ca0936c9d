"""Stub for the work on pgr.py and controls.py alone: the real tasks.py replaces it."""

import types

from w2s import files


def agreeing(name, what, **own):
    """A setting of rows with a 0/1 label, as far as pgr.py and controls.py ask for it."""
    return types.SimpleNamespace(
        __name__=name,
        WHAT=what,
        TRUTH="label",
        PREDICTION=("id", "label", "prob"),
        OPTIONAL=(),
        LABEL_CHECKS=files.CHECKS,
        TASKS={},
        said=lambda row: row["prob"] > 0.5,
        truth=lambda row: row["label"] == 1,
        score=lambda row: float((row["prob"] > 0.5) == row["label"]),
        **own,
    )


texts = agreeing("texts", "rows", KEY="text", FIELDS=("text", "label"), OUTPUTS=2)
pairs = agreeing("pairs", "pairs", KEY="prompt", FIELDS=("prompt", "a", "b", "label"), OUTPUTS=1)
moves = types.SimpleNamespace(
    __name__="moves",
    WHAT="puzzles",
    TRUTH="target",
    KEY="prompt",
    OUTPUTS=0,
    TASKS={},
    FIELDS=("prompt", "target"),
    OPTIONAL=(),
    LABEL_CHECKS=files.CHECKS | {"weak": files.TEXT},
    PREDICTION=("id", "target", "move", "correct", "legal"),
    said=lambda row: row["move"],
    truth=lambda row: row["target"],
    score=lambda row: row["correct"],
)


def setting_of_card(card):
    """The setting of a run or a labels file."""
    return {"texts": texts, "pairs": pairs, "moves": moves}[card["setting"]]


def setting_of_labels(labels):
    """The setting of a labels file."""
    return setting_of_card(files.read_card(labels) or {"setting": "texts"})
