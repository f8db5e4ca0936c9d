"""--head=answers: a language model that answers by its own logits, prompted or trained by them.

It gets no new layer. Its `score`, which packing.logits() and with it all rules and predictions
take, are its own logits of the answers' tokens: what is trained is the language model, saved as
such, and it can be asked other questions. models.encode() ends each text in a new line, so that
the text is the zero-shot prompt of nlp/prompting.py and the next token the answer.
"""

import torch
from torch.nn.functional import linear

from w2s import checks, files
from w2s.files import BadInput

ANSWERS = (("0", "1"), ("no", "yes"))  # what may be said for label 0 and 1, the first that is known


def answers(tokenizer):
    """What a model may say for label 0 and 1: ("0", "1"), ("no", "yes"), or None."""
    words = tokenizer.get_vocab()  # bare tokens: SentencePiece would write "0" as " " and "0"
    return next((pair for pair in ANSWERS if words.keys() >= set(pair)), None)


def model_of(run, device=None, outputs=2):
    """models.load() of a finished run, with the head and the context that it was trained with."""
    from w2s import models  # which imports this file

    card = files.read_card(run)
    own = card["args"].get("head") == "answers"  # others were saved with theirs
    start = {"head": "answers" if own else None, "outputs": outputs}
    start["max_len"] = card.get("resolved", {}).get("max_len")
    return models.load(f"{run}/model", device=device, **start)


def add_score(name, model, tokenizer, words=None):
    """Give a causal language model `score`: hidden states [N, H] -> its logits [N, len(words)].

    words: tokens to ask for instead of answers(), of a model that already has those. BadInput where
    the tokenizer lacks them, or where the model changes its logits after its last layer (a cap or
    scale; a bias is taken along).
    """
    checked, known = words is not None, tokenizer.get_vocab()
    words = words or answers(tokenizer)
    if not words or not known.keys() >= set(words):
        lacks = " ".join(words or ANSWERS[0])
        raise BadInput(f"--model={name} has no tokens {lacks}: it cannot answer by them")
    rows = torch.tensor([known[word] for word in words], device=model.device)
    out = model.get_output_embeddings()

    def score(hidden):
        return linear(hidden, out.weight[rows], None if out.bias is None else out.bias[rows])

    score.words = words
    model.score = score  # no module, which would be saved as a layer of its own
    if not checked and not checks.own_logits(model, model, rows):
        told = "changes its logits after its last layer: no --shots, no --head=answers"
        raise BadInput(f"--model={name} {told}")
