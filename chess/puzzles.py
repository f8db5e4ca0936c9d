"""Chess puzzles: the game so far, or a position, and the one best move.

    {"id": "puzzles/7/31", "group": "puzzles/7", "prompt": "e4 e5 Nf3", "target": "Nc6", "fen": "rnbq...", "difficulty": 100}

Moves are plain: no numbers, no + and #. Each row has its position (FEN), so that whether a move is legal need not replay the
game. difficulty, where it is known, is the fewest engine nodes that find the move (make_puzzles.py), or the puzzle's rating on
Lichess. A labels file adds "weak", the supervisor's move. Puzzles of one game form a group; the protocol is protocol.py's.
"""

import sys
from pathlib import Path

from w2s import files, protocol, sources

STAGES = ("chess/train_chess",)
FILE = Path(__file__).resolve().parent / "puzzles.jsonl"


def lichess(row):
    """{"ctx": "1. e4 e5 2. Nf3", "target": "Nc6"}: the game so far, and the move."""
    return {"prompt": row["ctx"], "target": row["target"]}


def lichess_fen(row):
    """{"FEN": "... b - - 1 29", "Moves": "f6e4 f5f8 e8f8", "Rating": 1022}: the first move is still the opponent's."""
    return {"prompt": row["FEN"], "target": row["Moves"], "difficulty": row["Rating"]}


# As w2s/sources.py has it; puzzle: a row of the source -> prompt and target (see finish), perhaps difficulty
# fmt: off
TASKS = {
    "puzzles": dict(splits=dict(all=(FILE.name, 6000, None)), group="game", licence="MIT",
        models=("chess/xs", "chess/m")),
    "lichess": dict(repo="EleutherAI/lichess-puzzles", splits=dict(all=("train", None, None)), puzzle=lichess,
        needs=sources.texts("ctx target"), models=("chess/xs", "chess/m")),
    "lichess_fen": dict(repo="Lichess/chess-puzzles", splits=dict(all=("train", None, None)), puzzle=lichess_fen,
        needs=sources.texts("FEN Moves") | {"Rating": int}, revision="479ea9bc9f681385f5adb23fa27a96c2dc8ae599",
        licence="CC0"),
}
# fmt: on
WHAT, KEY, BALANCED = "puzzles", "prompt", False
FIELDS, OPTIONAL = ("prompt", "target"), ("fen", "difficulty")
CHECKS = files.CHECKS | {"weak": files.TEXT}
PREDICTION = ("id", "target", "move", "correct", "legal")


def same(prompt):
    """A prompt without what is no part of it, so that equal ones are: a game loses its move numbers, a position nothing."""
    import board  # which needs the package chess; texts and pairs do not

    return prompt if "/" in prompt else " ".join(board.plain_moves(prompt))


def read(ds, split):
    """The rows of a task, or of a JSONL file with prompt and target, the prompts bare; finish() makes puzzles of them."""
    if "repo" not in TASKS.get(ds, ()):
        rows = protocol.read_own(sys.modules[__name__], FILE if ds in TASKS else ds)
        return [row | {"prompt": same(row["prompt"])} for row in rows]
    where, count, rows = sources.source_rows(ds, TASKS[ds], split)
    made = [(f"{ds}/{number}", row) for number, row in rows if row is not None]
    if len(made) < count:
        print(f"{where}: {count - len(made)} with an empty field are left out", file=sys.stderr)
    made = [{"id": name, "group": name} | TASKS[ds]["puzzle"](row) for name, row in made]
    return [row | {"prompt": same(row["prompt"])} for row in made]


def finish(rows, seed=0):
    """The rows as the stages see them; those with a move that cannot be played are left out, counted and told.

    A prompt may be the moves of a game, with or without numbers, or a position (FEN). A target may be the move, in any
    notation, or, for a position before the opponent's move, both as engines write them ("f6e4 f5f8", more may follow).
    """
    from tqdm import tqdm

    import board

    usable, wrong = [], []
    for row in tqdm(rows, "puzzles", unit="puzzle", disable=None, leave=False):
        prompt, target, fen = row["prompt"], row["target"].strip(), row.get("fen")
        try:
            if " " in target:
                prompt, target = board.after(prompt, *target.split()[:2])
            elif "/" not in prompt:
                moves = board.plain_moves(prompt)
                if fen is None:
                    position, moves = board.replay(moves)
                    fen = position.fen()
                prompt = " ".join(moves)
            position = board.position(fen or prompt)
            move = board.standard(position, target)
            if not move:
                raise ValueError(f"the target {target!r} cannot be played")
        except ValueError as error:
            wrong.append(f"{row['id']}: {error}")
            continue
        usable.append(
            {
                "id": row["id"],
                "group": row["group"],
                "prompt": prompt,
                "target": move,
                "fen": fen or prompt,
            }
        )
        if "weak" in row:
            usable[-1]["weak"] = (
                board.standard(position, row["weak"]) or board.plain(row["weak"]) or row["weak"]
            )
        if "difficulty" in row:
            usable[-1]["difficulty"] = row["difficulty"]
    if wrong:
        print(
            f"{len(wrong)} of {len(rows)} puzzles cannot be played and are left out, e.g. {wrong[0]}",
            file=sys.stderr,
        )
    if not usable:
        raise files.BadInput(f"none of {len(rows)} puzzles can be played")
    return usable
