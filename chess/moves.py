"""Language models of chess: from puzzles to tokens, the likelihood of a move, and the move that a model would play.

A tokenizer that knows whole moves (chess/xs, s, m) says a move in one token. With any other a move is as many tokens as it
takes, and the end-of-text token after it, so that "Nf3" is not continued.
"""

from puzzles import (  # noqa: F401  the data of the setting
    BALANCED,
    CHECKS,
    FIELDS,
    KEY,
    OPTIONAL,
    PREDICTION,
    TASKS,
    WHAT,
    finish,
    read,
    same,
)
from w2s.files import BadInput

LONGEST = 10  # tokens of a move that is spelled
NO_MOVE = "?"  # the weak label where a supervisor names no move


def knows_moves(tokenizer):
    """True if a tokenizer has a token for every move."""
    ids = tokenizer("O-O Nf3 exd5", add_special_tokens=False).input_ids
    return len(ids) == 3 and tokenizer.unk_token_id not in ids


def encode(rows, tokenizer, model, given=None):
    """The rows, each with "tokens", the prompt's and, where `given` names a field with a move, the move's.

    "asked" says how many of these are the move's, the only ones that are learned (lm.nll). Too long a prompt loses whole
    moves from its beginning; BadInput where nothing of it is left, or it is a position. Rows with no move, or one that the
    tokenizer cannot spell, are left out, counted and told; BadInput if none is left.
    """
    from w2s import models

    spelled = 1 if knows_moves(tokenizer) else LONGEST
    room, n_cut, out = model.w2s["max_len"] - spelled, 0, []
    end = [] if knows_moves(tokenizer) else [tokenizer.eos_token_id]
    if end == [None]:
        raise BadInput(
            "the tokenizer has neither a token for each move nor one that ends a text: give another --model"
        )
    if room < 1:
        raise BadInput(
            f"--max_len={model.w2s['max_len']} leaves no room for a game beside a move of {spelled} tokens"
        )
    for row in rows:
        words = row["prompt"].split()
        tokens = tokenizer(row["prompt"], verbose=False).input_ids
        while len(tokens) > room and words:
            words = words[-(-len(words) * (len(tokens) - room) // len(tokens)) :]
            tokens = tokenizer(" ".join(words)).input_ids
        if not words or "/" in row["prompt"] and len(words) < len(row["prompt"].split()):
            raise BadInput(
                f"--max_len={room + spelled} is too short for the prompt of {row['id']} and a move beside it"
            )
        n_cut += len(words) < len(row["prompt"].split())
        both = (
            tokenizer(" ".join([*words, row[given]]), verbose=False).input_ids if given else tokens
        )
        move = both[len(tokens) :]
        if both[: len(tokens)] != tokens:
            raise BadInput(
                "the tokenizer joins a move with the one before it: give another --model"
            )
        if not given:
            out.append(row | {"tokens": tokens})
        # in move alone: GPT-2's unknown token is the one that ends a text
        elif row[given] != NO_MOVE and move and tokenizer.unk_token_id not in move:
            out.append(row | {"tokens": tokens + move + end, "asked": len(move + end)})
    models.check_tokens([row["tokens"] for row in out], tokenizer, model)
    if n_cut:
        print(
            f"{n_cut} of {len(rows)} games are longer than {room} tokens and lost their first moves (--max_len)"
        )
    if len(out) < len(rows):
        print(
            f"{len(rows) - len(out)} of {len(rows)} puzzles have a move that the tokenizer cannot spell and are left out"
        )
    if not out:
        raise BadInput("the tokenizer can spell no move of these puzzles: give another --model")
    return out


def next_token(model, tokens):
    """The likeliest next token [N, 1] of N texts, as a float (exact: no vocabulary has 2^24)."""
    from w2s import packing

    hidden = packing.hidden_states(model, tokens)
    return model.get_output_embeddings()(hidden).argmax(dim=1, keepdim=True).float()


def play(name, rows, max_len=None, device=None, dtype=None, bar=None):
    """The moves that the language model in a folder or on the hub plays, greedily, in the positions of the rows: strings.

    A model that spells its moves is asked for token after token, of all rows at once that are not yet done.
    """
    from w2s import models

    model, tokenizer = models.load(name, None, max_len, device, outputs=0)
    tokens = [row["tokens"] for row in encode(rows, tokenizer, model)]
    said, going = [[] for _ in rows], range(len(rows))
    for _ in range(1 if knows_moves(tokenizer) else LONGEST):
        texts = [tokens[i] + said[i] for i in going]
        for i, token in zip(
            going,
            models.predict(model, texts, dtype, bar, width=1, outputs=next_token)[:, 0]
            .long()
            .tolist(),
        ):
            said[i].append(token)
        going = [i for i in going if not is_whole(said[i], tokenizer)]
        if not going:
            break
    words = [tokenizer.decode(ids, skip_special_tokens=True).split() for ids in said]
    return [word[0] if word else "" for word in words]


def is_whole(ids, tokenizer):
    """True if a spelled move is over: the end of the text, or white space after a word."""
    text = tokenizer.decode(ids)
    return (
        ids[-1] == tokenizer.eos_token_id or text.lstrip()[-1:].isspace() or len(text.split()) > 1
    )
