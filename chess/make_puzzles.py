"""Chess puzzles from games and an engine: the positions that have one clearly best move.

    python chess/make_puzzles.py --n=6000            # games that the engine plays against itself
    python chess/make_puzzles.py games.pgn --n=1000  # PGN, or parquet (board.read_games)

Where a short search finds a candidate, a long one (--nodes) must put the best move MARGIN above the
second best. Out: rows for --ds, the same for a seed. Made again, an interrupted call goes on.
"""

import itertools
import json
import math
import multiprocessing
import random
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tqdm import tqdm

import board
import moves
from w2s import cli, files, records, strict

MARGIN, SHORT_MARGIN = 0.3, 0.1  # expected score above the second best move, by long, short search
SHORT = 200  # nodes of a short search
BUDGETS = (20, 100, 500, 2000)  # nodes of the searches for the difficulty, before --nodes
FIRST, LAST, APART, PER_GAME = 12, 120, 4, 3  # puzzles in a game: plies between, apart; how many


def play(engine, seed):
    """The plain moves of a game of the engine against itself, drawn among its four best."""
    rng, position = random.Random(seed), board.position()
    while not position.is_game_over():
        found = board.search(engine, position, SHORT, lines=4)
        temperature = 0.15 if position.ply() < 8 else 0.05
        weights = [math.exp((score - found[0][1]) / temperature) for _, score in found]
        move = rng.choices([move for move, _ in found], weights)[0]
        position.push_san(move)
        yield move


def puzzles_of(engine, game, nodes):
    """The puzzles of a game's plain moves; ValueError where one of them is illegal."""
    position, played, found, next_at = board.position(), [], [], FIRST
    for move in itertools.islice(game, LAST):
        if len(played) >= next_at and (puzzle := puzzle_at(engine, position, nodes)):
            found.append({"prompt": " ".join(played), **puzzle})
            next_at = len(played) + APART
            if len(found) == PER_GAME:
                break
        position.push_san(move)
        played.append(move)
    return found


def puzzle_at(engine, position, nodes):
    """{"target", "fen", "difficulty"} where one move is best and no mere recapture, else None."""
    for budget, margin in ((SHORT, SHORT_MARGIN), (nodes, MARGIN)):
        lines = board.search(engine, position, budget, lines=2)
        if len(lines) < 2 or lines[0][1] - lines[1][1] < margin:
            return None
        target, difficulty = lines[0][0], None
        if board.recaptures(position, target):
            return None
    for budget in (nodes, *(b for b in reversed(BUDGETS) if b < nodes)):
        if board.search(engine, position, budget)[0][0] != target:
            break
        difficulty = budget
    return difficulty and {"target": target, "fen": position.fen(), "difficulty": difficulty}


def open_engine(path, nodes):
    """Give this process an engine of its own; Ctrl-C is for the process that started it."""
    global ENGINE
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ENGINE = board.open_engine(path), nodes


def work(game):
    """(puzzles, None) of a seed or a game of board.read_games; ([], why) if a move is illegal."""
    engine, nodes = ENGINE
    game = {"moves": play(engine, game)} if isinstance(game, str) else game
    try:
        found, illegal = puzzles_of(engine, game["moves"], nodes), game.get("illegal")
    except ValueError as error:
        illegal = error
    return ([], f"{game['where']}: {illegal}") if illegal else (found, None)


def confirm(row):
    """True if a search with 20 times the nodes finds the same move."""
    engine, nodes = ENGINE
    return board.search(engine, board.position(row["fen"]), 20 * nodes)[0][0] == row["target"]


@cli.stage
def main(
    args, games: str = None, *, out: str = "runs/puzzles.jsonl", n: int = 6000, seed: int = 0,
    nodes: int = 10_000, sample: int = 200, engine: str = None, processes: int = None,
    force: bool = False,
):  # fmt: skip
    """Make puzzles and write them as rows.

    Args:
        out: the JSONL file to write
        n: how many puzzles (fewer where the games run out)
        seed: moves the games that the engine plays
    """
    args = {name: value for name, value in args.items() if name not in ("out", "processes")}
    board.open_engine(engine).quit()
    inputs = {"games": files.sha256(games)} if games else {}
    if records.is_done(out, args, inputs, force, ".jsonl"):
        return
    begun = Path(f"{out}.begun")
    state = {"about": [args, inputs], "games": 0, "rows": []}
    if begun.exists() and not force:
        state = strict.read(begun, {"about": list, "games": int, "rows": [dict]})
        if state["about"] != [args, inputs]:
            raise files.BadInput(f"{begun}: interrupted call with other arguments, see --force")
        print(f"{begun}: going on after {state['games']} games, {len(state['rows'])} puzzles")
    files.write_text(begun, json.dumps(state))  # tells now, and not in an hour, that it cannot be
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with spawn.Pool(processes, open_engine, (engine, nodes)) as pool:
        rows = collect(pool, state, begun, Path(out).stem)
        chosen = random.Random(seed).sample(rows, min(sample, len(rows)))
        confirmed = sum(pool.imap(confirm, chosen)), len(chosen)
    if not rows:
        raise files.BadInput(f"no position of {state['games']} games has one clearly best move")
    card = records.new_card("make_puzzles", moves, args, inputs, None)
    files.write_jsonl(out, rows, card | {"confirmed": confirmed})
    begun.unlink()
    print(f"{out}: {len(rows)} of {n} puzzles; confirmed: {confirmed[0]} of {confirmed[1]}")
    cli.tell_next(["train_weak.py", f"--ds={out}"])


def collect(pool, state, begun, name):
    """The rows of n puzzles or fewer, no position twice; keeps the state in the file `begun`."""
    rows, seen = state["rows"], {row["fen"] for row in state["rows"]}
    file, n, seed = (state["about"][0][name] for name in ("games", "n", "seed"))
    games = board.read_games(file) if file else (f"{seed}/{i}" for i in itertools.count())
    games = itertools.islice(games, state["games"], None)
    with tqdm(total=n, desc="puzzles", initial=len(rows), **cli.paced()) as bar:
        while chunk := list(itertools.islice(games, min(16, n - len(rows)))):
            for puzzles, illegal in pool.imap(work, chunk):
                state["games"] += 1
                if illegal:
                    print(f"left out: {illegal}", file=sys.stderr)
                group = f"{name}/{state['games']}"
                fresh = [puzzle for puzzle in puzzles if puzzle["fen"] not in seen]
                for puzzle in fresh[: n - len(rows)]:
                    seen.add(puzzle["fen"])
                    ply = puzzle["prompt"].count(" ") + 1
                    rows.append({"id": f"{group}/{ply}", "group": group, **puzzle})
            bar.update(len(rows) - bar.n)
            files.write_text(begun, json.dumps(state))
    return rows


if __name__ == "__main__":
    cli.run(main)
