"""The setting of chess moves: the game so far, or a position, and the one best move.

A language model of games learns the move: cross-entropy on the move's tokens alone, five epochs,
no early stopping, and weak labels are hard, the supervisor's greedy move (paper, A.2). A tokenizer
that knows whole moves (chess/xs, s, m) says a move in one token. With any other a move is as many
tokens as it takes, and the end-of-text token after it, so that "Nf3" is not continued.
"""

import collections
from operator import itemgetter

from puzzles import *  # noqa: F403, the data
from w2s import stats
from w2s.files import BadInput

LONGEST = 10  # tokens of a move that is spelled
NO_MOVE = "?"  # the weak label where a supervisor names no move
TRUTH, METRIC, SOFT, OUTPUTS = "target", "acc", False, 0
RECIPE = {"epochs": 5, "batch_size": 32, "n_val": 0, "stop": False}


def knows_moves(tokenizer):
    """True if a tokenizer has a token for every move."""
    ids = tokenizer("O-O Nf3 exd5", add_special_tokens=False).input_ids
    return len(ids) == 3 and tokenizer.unk_token_id not in ids


def encode(rows, tokenizer, model, given=None):
    """The rows with "tokens", the prompt's and, where `given` names a field, its move's.

    "asked" says how many of these are the move's, which alone are learned (lm.nll), and "given" the
    row's share of them. Too long a game loses its first moves. Rows whose move is missing or cannot
    be spelled are left out and counted. BadInput where no row or nothing of a prompt is left.
    """
    from w2s import lm, models

    spelled = 1 if knows_moves(tokenizer) else LONGEST
    end = [] if spelled == 1 else [tokenizer.eos_token_id]
    limit, n_cut, out = model.w2s["max_len"], 0, []
    if end == [None]:
        told = "neither a token for each move nor one that ends a text: give another --model"
        raise BadInput(f"the tokenizer has {told}")
    if limit <= spelled:
        raise BadInput(f"--max_len={limit} leaves no room beside a move of {spelled} tokens")
    if given:
        lm.check_head(model)
    for row in rows:
        words, tokens = fitting(row, tokenizer, limit, spelled)
        n_cut += len(words) < len(row["prompt"].split())
        if not given:
            out.append(row | {"tokens": tokens})
            continue
        both, n = tokenizer(" ".join([*words, row[given]]), verbose=False).input_ids, len(tokens)
        if both[:n] != tokens:
            raise BadInput("the tokenizer joins a move with the one before it: another --model")
        # in the move alone: GPT-2's unknown token is the one that ends a text
        if row[given] != NO_MOVE and both[n:] and tokenizer.unk_token_id not in both[n:]:
            out.append(row | {"tokens": both + end, "asked": len(both + end) - n})
    models.check_tokens([row["tokens"] for row in out], tokenizer, model)
    of = f"of {len(rows)} puzzles"
    if n_cut:
        print(f"{n_cut} {of} are over {limit - spelled} tokens and lost their front (--max_len)")
    if len(out) < len(rows):
        print(f"{len(rows) - len(out)} {of} have a move that the tokenizer cannot spell: left out")
    if not out:
        raise BadInput("the tokenizer can spell no move of these puzzles: give another --model")
    return lm.shares(out) if given else out


def fitting(row, tokenizer, limit, spelled):
    """(words, tokens) of a prompt cut from the front so that a move still fits beside it."""
    whole = words = row["prompt"].split()
    room, tokens = limit - spelled, tokenizer(row["prompt"], verbose=False).input_ids
    while len(tokens) > room and words:
        words = words[-(-len(words) * (len(tokens) - room) // len(tokens)) :]
        tokens = tokenizer(" ".join(words)).input_ids
    if not words or ("/" in row["prompt"] and len(words) < len(whole)):
        raise BadInput(f"--max_len={limit} is too short for the prompt of {row['id']} and a move")
    return words, tokens


def outputs(model, rows):
    """Mean negative log-likelihood [N, 1] in nats of each row's move, or completion."""
    from w2s import lm

    return lm.nll(model, rows)


def rule(name, batch_size=None, told="moves are hard labels,", **options):
    """(loss, False, {}): a move or text is learned by cross-entropy alone, its label being hard."""
    from w2s import lm

    if name != "xent" or any(value is not None for value in options.values()):
        raise BadInput(f"{told} learned by --loss=xent, which has no options")
    return lm.share_of_loss, False, {}


def next_token(model, tokens):
    """The likeliest next token [N, 1] of N texts, as a float, exact up to 2^24 tokens."""
    from w2s import packing

    hidden = packing.hidden_states(model, tokens)
    return model.get_output_embeddings()(hidden).argmax(dim=1, keepdim=True).float()


def answer(model, tokenizer, rows, dtype=None, bar=None):
    """The move that a language model plays, greedily, in each row; NO_MOVE where it names none."""
    import board
    from w2s import models

    tokens = [row["tokens"] for row in encode(rows, tokenizer, model)]
    said, going = [[] for _ in rows], range(len(rows))
    for _ in range(1 if knows_moves(tokenizer) else LONGEST):
        texts = [tokens[i] + said[i] for i in going]
        chosen = models.predict(model, texts, dtype, bar, outputs=next_token)
        for i, token in zip(going, chosen[:, 0].long().tolist()):
            said[i].append(token)
        going = [i for i in going if not is_whole(said[i], tokenizer)]
        if not going:
            break
    words = [tokenizer.decode(ids, skip_special_tokens=True).split() for ids in said]
    return [board.plain(word[0]) or NO_MOVE if word else NO_MOVE for word in words]


def is_whole(ids, tokenizer):
    """True if a spelled move is over: the end of the text, or white space after a word."""
    text = tokenizer.decode(ids)
    ended = ids[-1] == tokenizer.eos_token_id or len(text.split()) > 1
    return ended or text.lstrip()[-1:].isspace()


said, truth = itemgetter("move"), itemgetter("target")  # of a prediction
score = itemgetter("correct")  # 1 for a right move, else 0: PGR recovers a gap in the mean of this


def prediction(row, move):
    """What eval.py writes down of a move."""
    import board

    judged = {"correct": is_right(row, move), "legal": board.is_legal(row["fen"], move)}
    told = {"id": row["id"], "target": row["target"], "move": move}
    return told | {name: int(holds) for name, holds in judged.items()}


def is_right(row, move):
    """Whether a move is the target, in any notation, or mates where that mates (as on Lichess)."""
    import board

    if move == (target := row["target"]):
        return True
    fen, mate = row["fen"], board.is_mate
    same = board.standard(board.position(fen), move) == target
    return same or (mate(fen, target) and mate(fen, move))


def remarks(rows):
    """What label.py adds about its weak labels."""
    import board

    legal = sum(board.is_legal(row["fen"], row["weak"]) for row in rows) / len(rows)
    silent = sum(row["weak"] == NO_MOVE for row in rows)
    warning = [f"warning: {silent} name no move; nobody learns from these"] if silent else []
    return [f"{legal:.1%} are legal moves", *warning]


def measure(predictions, rows):
    """Accuracies with their intervals, and "other_mates", right though not the target.

    {"acc", "low", "high", "n", "groups", "legal": {"value", "low", "high"}, "other_mates",
    "by_difficulty": [{"from", "to", "n", "acc", "low", "high"}]}; a bucket is an engine's number
    of nodes, or 300 points of rating.
    """
    import board

    def rate(name, inside):
        """{"acc", "low", "high"} of a field of some predictions."""
        hits = [predictions[i][name] for i in inside]
        return stats.accuracy(hits, [1] * len(hits), [rows[i]["group"] for i in inside])

    everything = range(len(rows))
    result = rate("correct", everything)
    result |= {"n": len(rows), "groups": len({row["group"] for row in rows})}
    legal = rate("legal", everything)
    result["legal"] = {"value": legal.pop("acc")} | legal
    others = [(row, p) for row, p in zip(rows, predictions) if p["correct"] > (said(p) == truth(p))]
    names = [board.standard(board.position(row["fen"]), said(p)) for row, p in others]
    result["other_mates"] = sum(name != truth(p) for name, (_, p) in zip(names, others))
    known = {i: row["difficulty"] for i, row in enumerate(rows) if "difficulty" in row}
    width = 300 if len({*known.values()}) > 6 else None  # ratings
    buckets = collections.defaultdict(list)
    for i, low in known.items():
        buckets[low // width * width if width else low].append(i)
    result["by_difficulty"] = [
        {"from": low, "to": low + width - 1 if width else low, "n": len(inside)}
        | rate("correct", inside)
        for low, inside in sorted(buckets.items())
    ]
    return result
