"""Chess puzzles from games and an engine: the positions that have one clearly best move.

    python chess/make_puzzles.py --n=6000 --seed=1                       # games that the engine plays against itself
    python chess/make_puzzles.py games.pgn --n=1000                      # PGN, or parquet with moves, white_elo, black_elo

Each move of a game is looked at with a short search, each that may be a puzzle with a long one (--nodes): its best move must
lead to an expected score at least MARGIN above the second best. Searches have a fixed number of nodes and one thread, so the
same seed gives the same puzzles. Out: rows as train_chess.py takes them, each with the moves so far, the position, and its
difficulty: the fewest engine nodes from which on the move is found. Called again after an interruption it goes on.
"""

import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
from tqdm import tqdm

import board
from w2s import cli, files

MARGIN, SHORT_MARGIN = (
    0.3,
    0.1,
)  # expected score above the second best move, by the long and by the short search
SHORT = 200  # nodes of a short search
BUDGETS = (20, 100, 500, 2000)  # nodes of the searches for the difficulty, and --nodes
FIRST, LAST, APART, PER_GAME = (
    12,
    120,
    4,
    3,
)  # plies between which puzzles are, and between two of them; puzzles of a game


def play(engine, seed):
    """A game of the engine against itself, move after plain move: short searches, good moves more often than bad ones.

    Of its four best moves each is drawn with weight exp(expected score / temperature): a loss of 5 points of a hundred
    costs a factor e, in the first eight plies of 15 points.
    """
    rng, position = random.Random(seed), board.position()
    while not position.is_game_over():
        found = board.search(engine, position, SHORT, lines=4)
        temperature = 0.15 if position.ply() < 8 else 0.05
        weights = [math.exp((score - found[0][1]) / temperature) for _, score in found]
        move = rng.choices([move for move, _ in found], weights)[0]
        position.push_san(move)
        yield move


def puzzles_of(engine, moves, nodes):
    """[{"prompt", "target", "fen", "difficulty"}] of a game's plain moves; ValueError where one of them is illegal."""
    position, played, found, last = board.position(), [], [], 0
    for move in itertools.islice(moves, LAST):
        if len(played) >= FIRST and len(played) >= last + APART:
            puzzle = puzzle_at(engine, position, nodes)
            if puzzle:
                found.append({"prompt": " ".join(played), **puzzle})
                last = len(played)
            if len(found) == PER_GAME:
                break
        position.push_san(move)
        played.append(move)
    return found


def puzzle_at(engine, position, nodes):
    """{"target", "fen", "difficulty"} of a position with one clearly best move that is no mere recapture; None for others."""
    for budget, margin in ((SHORT, SHORT_MARGIN), (nodes, MARGIN)):
        lines = board.search(engine, position, budget, lines=2)
        if (
            len(lines) < 2
            or lines[0][1] - lines[1][1] < margin
            or board.recaptures(position, lines[0][0])
        ):
            return None
    target, difficulty = lines[0][0], None
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


def work(job):
    """(puzzles, None) of one game, the seed of one to be played or a dict of board.read_games; (none, why) if it is illegal."""
    engine, nodes = ENGINE
    if isinstance(job, str):
        return puzzles_of(engine, play(engine, job), nodes), None
    try:
        return puzzles_of(engine, job["moves"], nodes), job.get("illegal")
    except ValueError as error:
        return [], str(error)


def confirm(job):
    """True if a search with 20 times the nodes finds the same move."""
    engine, nodes = ENGINE
    return board.search(engine, board.position(job["fen"]), 20 * nodes)[0][0] == job["target"]


def main(
    games: str = None, *, out: str = "runs/chess/puzzles.jsonl", n: int = 6000, seed: int = 0, nodes: int = 10_000,
    min_elo: int = 0, sample: int = 200, engine: str = None, processes: int = None, force: bool = False,
):  # fmt: skip
    """Make puzzles and write them as rows.

    Args:
        games: a PGN file, or a parquet file with columns moves, white_elo and black_elo (default: the engine plays)
        out: the JSONL file to write
        n: how many puzzles (fewer where the games run out)
        seed: moves the games that the engine plays
        nodes: of the long search
        min_elo: both players of a game must be rated this high
        sample: so many of the puzzles are searched again with 20 times the nodes, and the share confirmed is told
        engine: the engine's program (default: stockfish, on the path or in /usr/games)
        processes: how many engines at once (default: one per core); the puzzles do not depend on it
    """
    args = {
        name: value for name, value in locals().items() if name not in ("out", "force", "processes")
    }
    cli.check(locals())
    board.open_engine(engine).quit()
    inputs = {"games": files.sha256(games)} if games else {}
    if files.is_done(out, args, inputs, force, labels=True):
        return
    if games:
        jobs = (game for game in board.read_games(games) if (game["elo"] or 0) >= min_elo)
    else:
        jobs = (f"{seed}/{number}" for number in itertools.count())
    state, began = (
        {"args": args, "inputs": inputs, "games": 0, "skipped": 0, "rows": []},
        Path(f"{out}.begun"),
    )
    if began.exists() and not force:
        state = going_on(began, state)
    files.write_text(
        began, json.dumps(state)
    )  # now rather than after an hour it should be known whether this can be written
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with spawn.Pool(processes or os.cpu_count(), open_engine, (engine, nodes)) as pool:
        try:
            rows = collect(pool, jobs, state, began, Path(out).stem, n)
        except files.BadInput:  # about the games, so there is nothing to go on from
            began.unlink()
            raise
        chosen = random.Random(seed).sample(rows, min(sample, len(rows)))
        confirmed = sum(
            tqdm(pool.imap(confirm, chosen), "confirming", len(chosen), unit="puzzle", disable=None)
        )
    began.unlink()
    told = f"{state['games']} games" + f" rated {min_elo} or more" * (min_elo > 0)
    if not rows:
        raise files.BadInput(
            f"{games or 'the engine'}: no position of {told} has one clearly best move"
        )
    if len(rows) < n:
        print(f"{games} has {told}: they gave {len(rows)} puzzles, not {n}", file=sys.stderr)
    card = files.new_card("make_puzzles", args, inputs, None) | {
        "confirmed": [confirmed, len(chosen)]
    }
    files.write_jsonl(out, rows, card)
    print(
        f"{out}: {len(rows)} puzzles of {told}; {confirmed} of {len(chosen)} confirmed by a search with {20 * nodes} nodes"
    )
    print(f"next: python chess/train_chess.py --ds={out} --out={out.removesuffix('.jsonl')}/weak")


def going_on(began, state):
    """What an interrupted call with the same arguments left (see collect); BadInput where it had others."""
    try:
        before = json.loads(files.read_bytes(began))
    except ValueError:
        raise files.BadInput(f"{began} is not JSON: delete it to start again") from None
    if any(before[name] != state[name] for name in ("args", "inputs")):
        raise files.BadInput(
            f"{began} is of an interrupted call with other arguments: repeat these, or add --force"
        )
    print(f"{began}: going on after {before['games']} games and {len(before['rows'])} puzzles")
    return before


def collect(pool, jobs, state, began, name, n):
    """The rows of n puzzles (or as many as there are), in the order of the games; positions that came before are left out.

    state: {"games", "skipped", "rows"}, how far it is; kept in the file `began` as games are done.
    """
    rows, seen = state["rows"], {row["fen"] for row in state["rows"]}
    jobs = itertools.islice(jobs, state["games"], None)
    with tqdm(total=n, desc="puzzles", unit="puzzle", initial=len(rows), disable=None) as bar:
        while chunk := list(itertools.islice(jobs, min(16, n - len(rows)))):
            for job, (puzzles, illegal) in zip(chunk, pool.imap(work, chunk)):
                if len(rows) == n:
                    break
                state["games"] += 1
                if illegal:
                    print(f"{job['where']}: {illegal}", file=sys.stderr)
                    state["skipped"] += 1
                    continue
                game = f"{name}/{state['games']}"
                for puzzle in puzzles:
                    if puzzle["fen"] not in seen and len(rows) < n:
                        seen.add(puzzle["fen"])
                        rows.append(
                            {
                                "id": f"{game}/{puzzle['prompt'].count(' ') + 1}",
                                "group": game,
                                **puzzle,
                            }
                        )
                        bar.update()
            files.write_text(began, json.dumps(state))
    if state["skipped"]:
        print(
            f"{state['skipped']} game{'s' * (state['skipped'] > 1)} with an illegal move, skipped",
            file=sys.stderr,
        )
    return rows


if __name__ == "__main__":
    cli.run(main)
