"""Random games of chess and what is made of them, for the tests of moves."""

import json
import random

import pyarrow
import pyarrow.parquet

import board

MATE = "rnbqkbnr/pppp1ppp/8/4p3/6P1/5P2/PPPPP2P/RNBQKBNR b KQkq - 0 2"  # f3 e5 g4: Qh4 mates


def random_game(seed, plies=40):
    """Plain moves of a game of random legal moves."""
    rng, position, played = random.Random(seed), board.position(), []
    while len(played) < plies and not position.is_game_over():
        played.append(board.plain(position.san(rng.choice(list(position.legal_moves)))))
        position.push_san(played[-1])
    return played


GAMES = [random_game(seed) for seed in range(150)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path):
    return [json.loads(line) for line in open(path)]


def some_puzzles(n=150):
    """Rows as make_puzzles.py writes them; the "best" move is what was played."""
    cut = [(i, game, 10 + i % 25) for i, game in enumerate(GAMES[:n])]
    return [
        {"id": f"p/{i}", "group": f"p/{i}", "difficulty": (20, 100)[i % 2]}
        | {"prompt": " ".join(game[:ply]), "target": game[ply]}
        for i, game, ply in cut
    ]


def games_file(path):
    """A parquet file of random games."""
    table = {"moves": [" ".join(game) for game in GAMES]}
    table |= {"white_elo": [2000] * 150, "black_elo": [2100] * 150}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return str(path)
