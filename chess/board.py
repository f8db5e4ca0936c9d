"""Moves and positions, through the package `chess`: the one file that imports it.

Moves are standard algebraic notation without + and #: "Nf3", "exd5", "O-O", "e8=Q". Over-the-board games are hardly ever
played out to mate, so a vocabulary of moves never sees a "#", and what a move does to the king says nothing about which it is.
"""

import functools
import itertools
import logging
import os
import re
import shutil
import sys
import types

from w2s.files import BadInput

try:
    import chess
    import chess.engine
    import chess.pgn
except (
    ModuleNotFoundError
):  # a folder of our own is called chess too; without an __init__.py it never hides the package
    print(
        "error: the package chess is missing: pip install -r requirements.txt (chess/ needs no __init__.py)",
        file=sys.stderr,
    )
    sys.exit(2)

NUMBER, MARK = re.compile(r"\d+\.+"), str.maketrans("", "", "+#!?")
RESULTS = {"1-0", "0-1", "1/2-1/2", "*"}


def plain(move):
    """A move without what is said about it: "Qxf7#" -> "Qxf7"."""
    return move.translate(MARK)


def plain_moves(movetext):
    """The plain moves of a game's text, its move numbers and its result left out: "1. e4 e5 2. Qh5+" -> ["e4", "e5", "Qh5"]."""
    return [
        sys.intern(plain(word)) for word in NUMBER.sub(" ", movetext).split() if word not in RESULTS
    ]


def standard(position, move):
    """A move in whatever notation ("Qxf7#", "e1g1", "0-0", "Nb1c3") as the plain one; None if it cannot be played."""
    try:
        found = position.parse_san(plain(move))
    except ValueError:
        return None
    return plain(position.san(found)) if found else None  # the null move, "--", is read as well


def replay(moves):
    """(the board after moves from the start, these as plain moves); ValueError, with its number, where one is illegal."""
    board, played = chess.Board(), []
    for number, move in enumerate(moves, 1):
        played.append(standard(board, move))
        if not played[-1]:
            raise ValueError(f"move {number}, {move[:20]!r}, is illegal or cannot be read")
        board.push_san(played[-1])
    return board, played


def position(fen=chess.STARTING_FEN):
    """The board of a position (FEN); ValueError where it is none."""
    return chess.Board(fen)


def after(fen, move, answer):
    """(FEN after a move, the answer to it as a plain move), both given as engines write them; ValueError if illegal."""
    board = chess.Board(fen)
    board.push_uci(move)
    return board.fen(), plain(board.san(board.parse_uci(answer)))


def recaptures(position, move):
    """True if a plain move takes back on the square where the last move has just taken."""
    if not position.move_stack:
        return False
    last, move = position.peek(), position.parse_san(move)
    before = position.copy(stack=1)
    before.pop()
    return last.to_square == move.to_square and before.is_capture(last)


@functools.lru_cache(100_000)
def is_legal(fen, move):
    """True if a plain move can be played in a position (FEN)."""
    return standard(chess.Board(fen), move) is not None


def read_games(path):
    """The games of a PGN file, or of a parquet file with columns moves, white_elo and black_elo, one dict after the other.

    {"moves": plain moves, "elo": the lower of both ratings or None, "where": the line it begins on or the row, for messages}.
    Comments, variations and games from another position or of another kind of chess are left out. Moves of a parquet file are
    not checked; a PGN's game ends before its first illegal move, and "illegal" says which that is.
    """
    if str(path).endswith(".parquet"):
        import pyarrow.parquet

        columns = {
            "moves": pyarrow.large_string(),
            "white_elo": pyarrow.int64(),
            "black_elo": pyarrow.int64(),
        }
        try:
            table = pyarrow.parquet.read_table(path, columns=list(columns)).cast(
                pyarrow.schema(columns)
            )
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            what = "moves (text), white_elo and black_elo (whole numbers)"
            raise BadInput(
                f"{path} cannot be read as parquet with {what}: {str(error).splitlines()[0]}"
            ) from None
        number = 0
        for batch in table.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                number += 1
                elo = min(row["white_elo"] or 0, row["black_elo"] or 0) or None
                yield {
                    "moves": plain_moves(row["moves"] or ""),
                    "elo": elo,
                    "where": f"{path}, row {number}",
                }
        return
    try:
        file = open(path, encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    logging.getLogger("chess.pgn").setLevel(logging.CRITICAL)  # we tell ourselves what is illegal
    line = 0

    def readline():
        nonlocal line
        line += 1
        return file.readline()

    with file:
        while True:
            where = f"{path}:{line + 1}"
            game = chess.pgn.read_game(types.SimpleNamespace(readline=readline))
            if game is None:
                return
            if game.headers.get("Variant", "Standard") != "Standard" or "FEN" in game.headers:
                continue
            position, moves = game.board(), []
            for move in itertools.takewhile(bool, game.mainline_moves()):  # a null move ends a game
                moves.append(sys.intern(plain(position.san(move))))
                position.push(move)
            elos = [game.headers.get(name, "") for name in ("WhiteElo", "BlackElo")]
            elo = min(map(int, elos)) if all(word.isdigit() for word in elos) else None
            yield {
                "moves": moves,
                "elo": elo,
                "where": where,
                "illegal": str(game.errors[0]) if game.errors else None,
            }


def open_engine(path=None):
    """A chess engine under the universal chess interface, on one thread; BadInput where there is none.

    path: its program (default: stockfish, on the path or in /usr/games).
    """
    program = shutil.which(path or "stockfish") or shutil.which("stockfish", path="/usr/games")
    if program is None or (path and not shutil.which(path)):
        wanted = (
            f"--engine={path} is no program"
            if path
            else "there is no stockfish on the path or in /usr/games"
        )
        raise BadInput(
            f"{wanted}: install it (apt install stockfish, brew install stockfish), or give another --engine"
        )
    try:
        engine = chess.engine.SimpleEngine.popen_uci(
            program, preexec_fn=os.setpgrp
        )  # Ctrl-C is for us, and we close it
        engine.configure({"Threads": 1, "Hash": 16})
    except (chess.engine.EngineError, TimeoutError, OSError):
        raise BadInput(f"--engine={program} does not answer as a chess engine (UCI) does") from None
    return engine


def search(engine, position, nodes, lines=1):
    """The best moves of a position by a search of that many nodes: [(plain move, expected score from 0 to 1)], best first.

    Empty where the game is over. The engine forgets what it knew before, so that the answer depends on the position and the
    nodes alone.
    """
    found = engine.analyse(position, chess.engine.Limit(nodes=nodes), multipv=lines, game=object())
    found = [line for line in found if "pv" in line]
    scores = [
        line["score"].pov(position.turn).wdl(model="sf15.1", ply=position.ply()).expectation()
        for line in found
    ]
    return [(plain(position.san(line["pv"][0])), score) for line, score in zip(found, scores)]
