"""Chess puzzles: the game so far, or a position, and the one best move.

    {"id": "puzzles/7/31", "group": "puzzles/7", "prompt": "e4 e5 Nf3", "target": "Nc6", "fen": "...", "difficulty": 100}

Moves are plain: no numbers, no + and #. Each row has its position (FEN), so that whether a move is legal need not replay the
game; difficulty, where it is known, is the fewest engine nodes that find the move (make_puzzles.py) or the puzzle's rating on
Lichess. A labels file adds "weak", the supervisor's move. Puzzles of one game form a group. The protocol is protocol.py's.

    python chess/puzzles.py                                # the table of tasks
    python chess/puzzles.py puzzles --split=test --n=3     # puzzles as JSONL (--split=weak|strong|test)
    python chess/puzzles.py --mirror=DIR lichess           # copies of the hub's data for a machine without it
"""

import collections
import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import board
import cli
import protocol
import rows as files
import sources

STAGES = ("chess/train_chess",)
FILE = Path(__file__).resolve().parent / "puzzles.jsonl"


def lichess(row, name):
    """{"ctx": "1. e4 e5 2. Nf3", "target": "Nc6"}: the game so far, the move."""
    moves = board.plain_moves(row["ctx"])
    return {"group": name, "prompt": " ".join(moves), "target": board.plain(row["target"]), "fen": board.replay(moves).fen()}


def lichess_fen(row, name):
    """{"PuzzleId": "01XCL", "FEN": "... b - - 1 29", "Moves": "f6e4 f5f8 e8f8", "Rating": 1022}: the first is the opponent's."""
    fen, target = board.after(row["FEN"], *row["Moves"].split()[:2])
    return {"group": name, "prompt": fen, "target": target, "fen": fen, "difficulty": row["Rating"]}


def own(row, name):
    """A row of a JSONL file: prompt (moves, or a FEN) and target, perhaps fen, difficulty, id and group."""
    is_fen = "/" in row["prompt"]
    prompt = row["prompt"] if is_fen else " ".join(board.plain_moves(row["prompt"]))
    fen = row.get("fen") or (prompt if is_fen else board.replay(prompt.split()).fen())
    return row | {"prompt": prompt, "target": board.plain(row["target"]), "fen": fen}


# As sources.TASKS; puzzle: a row and its id -> group, prompt, target, fen; ValueError says why it is no puzzle
PUZZLES = {
    "puzzles": {"splits": {"all": (FILE.name, 6000, None)}, "group": "game", "licence": "MIT"},
    "lichess": {
        "repo": "EleutherAI/lichess-puzzles",
        "splits": {"all": ("train", None, None)},
        "needs": sources.texts("ctx target"),
        "puzzle": lichess,
    },
    "lichess_fen": {
        "repo": "Lichess/chess-puzzles",
        "splits": {"all": ("train", None, None)},
        "needs": sources.texts("FEN Moves") | {"Rating": float},
        "puzzle": lichess_fen,
        "licence": "CC0",
    },
}


def read(ds, split):
    """The puzzles of a task, or of a JSONL file; those with a move that cannot be played are left out, counted and told."""
    if ds not in PUZZLES or "repo" not in PUZZLES[ds]:
        path = FILE if ds in PUZZLES else ds
        made = protocol.read_own(KIND, path)
        numbered = [(number, row["id"], functools.partial(own, row)) for number, row in enumerate(made, 1)]
        where = path
    else:
        where, _, rows = sources.source_rows(ds, PUZZLES[ds], split)
        puzzle = PUZZLES[ds]["puzzle"]
        numbered = ((number, f"{ds}/{number}", row and functools.partial(puzzle, row)) for number, row in rows)
    usable, wrong = [], collections.Counter()
    for number, name, puzzle in numbered:
        try:
            row = {"id": name, **puzzle(name)}
        except ValueError as error:
            wrong[str(error)] += 1
            first = 
    return usable
