"""The data of the setting `moves`: chess puzzles, a game so far or a position, and the best move.

    {"id": "puzzles/7/31", "group": "puzzles/7", "prompt": "e4 e5 Nf3", "target": "Nc6",
     "fen": "rnbq...", "difficulty": 100}

Moves are plain (board.py). "fen" is the position after the prompt; with it nobody replays the game
to see whether a move is legal. "difficulty" is the fewest engine nodes that find the move
(make_puzzles.py), or the rating on Lichess. A group is a game's puzzles.
"""

import sys
from pathlib import Path

from w2s import cli, files, protocol, sources

# The package chess may be missing where only texts are used, so functions import board themselves.

FILE = Path(__file__).resolve().parent / "puzzles.jsonl"
# As the tasks of texts; columns: {a field of ours: the source's}; moves: the fewest in a target
# fmt: off
TASKS = {
    "puzzles": dict(splits=dict(all=(FILE.name, 6000, None)), group="game", licence="MIT",
        models=("chess/xs", "chess/m")),
    "lichess": dict(repo="EleutherAI/lichess-puzzles", splits=dict(all=("train", None, None)),
        needs=sources.texts("ctx target"), columns=dict(prompt="ctx", target="target"), moves=1,
        models=("chess/xs", "chess/m")),  # {"ctx": "1. e4 e5 2. Nf3", "target": "Nc6"}
    "lichess_fen": dict(repo="Lichess/chess-puzzles", splits=dict(all=("train", None, None)),
        # {"FEN": "... b - - 1 29", "Moves": "f6e4 f5f8 e8f8", "Rating": 1022}, the opponent first
        needs=sources.texts("FEN Moves") | {"Rating": int}, moves=2, licence="CC0",
        columns=dict(prompt="FEN", target="Moves", difficulty="Rating"),
        revision="479ea9bc9f681385f5adb23fa27a96c2dc8ae599"),
}
# fmt: on
WHAT, KEY, BALANCED = "puzzles", "prompt", False
FIELDS, OPTIONAL = ("prompt", "target"), ("fen", "difficulty", "weak")
CHECKS = files.CHECKS | {"weak": files.TEXT}
PREDICTION = ("id", "target", "move", "correct", "legal")


def same(prompt):
    """A game without its move numbers, marks and result; a position as it is."""
    import board

    return prompt if is_fen(prompt) else " ".join(board.plain_moves(prompt))


def is_fen(prompt):
    """Whether a prompt is a position, not the moves of a game, which may end in 1/2-1/2."""
    return "/" in prompt.strip().split(" ")[0]


def read(ds, split):
    """The rows of a task or of a JSONL file, for finish() to make puzzles of.

    "replayed" marks those that make_puzzles.py has played on a board (its card has their sha256).
    """
    if "repo" in TASKS.get(ds, ()):
        where, count, rows = sources.source_rows(ds, TASKS[ds], split)
        made, columns = [], TASKS[ds]["columns"].items()
        for number, row in rows:
            row = row and {name: row[column] for name, column in columns}
            if row and len(row["target"].split()) >= TASKS[ds]["moves"]:
                made.append(dict.fromkeys(("id", "group"), f"{ds}/{number}") | row)
        if len(made) < count:
            why = "with an empty field or without an answer"
            print(f"{where}: {count - len(made)} {why} are left out", file=sys.stderr)
    else:
        path = FILE if ds in TASKS else ds
        made = protocol.read_own(sys.modules[__name__], path)
        if (files.read_card(path) or {}).get("stage") == "make_puzzles":
            return [row | {"replayed": True} for row in made]
    return [row | {"prompt": same(row["prompt"])} for row in made]


def finish(rows, seed=0):
    """The rows as the stages see them; what cannot be played is left out, counted and told.

    A prompt is the moves of a game, with or without numbers, or a position (FEN). A target is a
    move in any notation; of two or more ("f6e4 f5f8", UCI) the first is the opponent's. A "fen" has
    to be the position after the prompt.
    """
    from tqdm import tqdm

    made, wrong = [], []
    for row in tqdm(rows, "puzzles", unit="puzzle", leave=False, **cli.paced()):
        try:
            made.append(puzzle(row))
        except ValueError as error:
            wrong.append(f"cannot be played and are left out, e.g. {row['id']}: {error}")
    if wrong:
        print(f"{len(wrong)} of {len(rows)} puzzles {wrong[0]}", file=sys.stderr)
    if not made:
        raise files.BadInput(f"none of {len(rows)} puzzles can be played")
    return made


def puzzle(row):
    """A row in plain moves, with the position that the target is for; ValueError if illegal."""
    import board

    prompt, target, fen = row["prompt"], row["target"].strip(), row.get("fen")
    if " " in target:  # the opponent's move comes first
        position, (move, target) = board.position(prompt), target.split()[:2]
        position.push_uci(move)
        prompt = position.fen()
    if is_fen(prompt) or row.get("replayed"):
        after_prompt = prompt if is_fen(prompt) else fen
        position = board.position(after_prompt)
    else:
        position, moves = board.replay(board.plain_moves(prompt))
        prompt, after_prompt = " ".join(moves), position.fen()
    # how many moves it took does not matter, so epd()
    if fen not in (None, after_prompt) and board.position(fen).epd() != position.epd():
        raise ValueError(f"the fen {fen!r} is not the position after the prompt")
    move = board.standard(position, target)
    if not move:
        raise ValueError(f"the target {target!r} cannot be played")
    made = {"id": row["id"], "group": row["group"], "prompt": prompt, "target": move}
    made["fen"] = fen or after_prompt
    if weak := row.get("weak"):
        made["weak"] = board.standard(position, weak) or board.plain(weak) or weak
    return made | {name: row[name] for name in row.keys() & {"difficulty"}}


def easier(rows, easy):
    """The rows of a difficulty of at most `easy` (paper, Fig. 20); BadInput if there are none."""
    kept = [row for row in rows if row.get("difficulty", easy + 1) <= easy]
    if not kept:
        known = [row["difficulty"] for row in rows if "difficulty" in row]
        told = f"the easiest has {min(known)}" if known else "none has a difficulty"
        raise files.BadInput(f"--easy={easy} leaves none of these {len(rows)} rows: {told}")
    print(f"--easy={easy} leaves {len(kept)} of {len(rows)} puzzles")
    return kept
