"""Moves and positions, through the package `chess`: the one file that imports it.

Moves are plain: standard algebraic notation without + and #, "Nf3", "exd5", "O-O", "e8=Q".
Over-the-board games are hardly ever played out to mate, so a vocabulary of moves never sees "#".
"""

import fileinput
import functools
import itertools
import logging
import os
import re
import shutil
import sys

from w2s.files import BadInput, first_line

try:
    import chess
    import chess.engine
    import chess.pgn
except ModuleNotFoundError:  # a folder of ours has this name too, and no __init__.py to hide it
    raise BadInput("the package chess is missing: pip install -r requirements.txt") from None

NUMBER, MARK = re.compile(r"\d+\.+"), str.maketrans("", "", "+#!?")
RESULTS = {"1-0", "0-1", "1/2-1/2", "*"}


def plain(move):
    """A move without what is said about it: "Qxf7#" -> "Qxf7"."""
    return move.translate(MARK)


def plain_moves(movetext):
    """The plain moves of a game's text: "1. e4 e5 2. Qh5+ 1-0" -> ["e4", "e5", "Qh5"]."""
    words = NUMBER.sub(" ", plain(movetext)).split()
    return [sys.intern(word) for word in words if word not in RESULTS]


def standard(position, move):
    """A move in any notation ("Qxf7#", "e1g1", "Nb1c3") as the plain one; None if illegal."""
    try:
        found = position.parse_san(plain(move))
    except ValueError:
        return None
    return plain(position.san(found)) if found else None  # the null move, "--", is read as well


def replay(moves):
    """(the position after moves from the start, these as plain moves); ValueError if illegal."""
    board, played = chess.Board(), []
    for number, move in enumerate(moves, 1):
        played.append(standard(board, move))
        if not played[-1]:
            raise ValueError(f"move {number}, {move[:20]!r}, is illegal or cannot be read")
        board.push_san(played[-1])
    return board, played


def position(fen=chess.STARTING_FEN):
    """The board of a position (FEN); ValueError where it is none that can be played on."""
    board = chess.Board(fen)
    if not board.is_valid():  # a king is missing, say, or could be taken
        raise ValueError(f"{fen!r} is no position of a game")
    return board


def recaptures(position, move):
    """True if a plain move takes back on the square where the last move has just taken."""
    if not position.move_stack:
        return False
    before = position.copy(stack=1)
    last = before.pop()
    return last.to_square == position.parse_san(move).to_square and before.is_capture(last)


@functools.lru_cache(100_000)
def is_legal(fen, move):
    """True if a plain move can be played in a position (FEN)."""
    return standard(chess.Board(fen), move) is not None


@functools.lru_cache(100_000)
def is_mate(fen, move):
    """True if a plain move is legal in a position (FEN) and mates."""
    board = chess.Board(fen)
    if is_legal(fen, move):
        board.push_san(move)
    return is_legal(fen, move) and board.is_checkmate()


def read_games(path):
    """The games of a PGN file, or of a parquet file with moves, white_elo and black_elo, as dicts.

    {"moves": plain moves, "elo": the lower rating or None, "where": line or row, for messages}.
    A parquet file's moves are not checked. A PGN's game ends before its first illegal move, which
    "illegal" tells; chess variants and games from another position are left out.
    """
    return (parquet_games if str(path).endswith(".parquet") else pgn_games)(path)


def parquet_games(path):
    """read_games() of a parquet file."""
    from pyarrow import int64, large_string, parquet, schema

    columns = schema({"moves": large_string(), "white_elo": int64(), "black_elo": int64()})
    try:
        table = parquet.read_table(path, columns=columns.names).cast(columns)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        what = "parquet with moves (text), white_elo and black_elo (whole numbers)"
        raise BadInput(f"{path} cannot be read as {what}: {first_line(error)}") from None
    rows = (row for batch in table.to_batches(10_000) for row in batch.to_pylist())
    for number, row in enumerate(rows, 1):
        elo, moves = min(row["white_elo"] or 0, row["black_elo"] or 0), row["moves"] or ""
        yield {"moves": plain_moves(moves), "elo": elo or None, "where": f"{path}, row {number}"}


def pgn_games(path):
    """read_games() of a PGN file."""
    logging.getLogger("chess.pgn").setLevel(logging.CRITICAL)  # we tell ourselves what is illegal
    with fileinput.FileInput(path, encoding="utf-8-sig", errors="replace") as file:
        while True:
            where = f"{path}:{file.lineno() + 1}"
            try:
                game = chess.pgn.read_game(file)
            except OSError as error:
                raise BadInput(f"{path} cannot be read: {error.strerror}") from None
            if game is None:
                return
            if game.headers.get("Variant", "Standard") != "Standard" or "FEN" in game.headers:
                continue
            board, moves = game.board(), []
            for move in itertools.takewhile(bool, game.mainline_moves()):  # up to a null move
                moves.append(sys.intern(plain(board.san(move))))
                board.push(move)
            elos = [game.headers.get(name, "") for name in ("WhiteElo", "BlackElo")]
            elo = min(map(int, elos)) if all(word.isdigit() for word in elos) else None
            illegal = str(game.errors[0]) if game.errors else None
            yield {"moves": moves, "elo": elo, "where": where, "illegal": illegal}


def open_engine(path=None):
    """A chess engine (UCI) on one thread; BadInput where there is none. path: default stockfish."""
    places = os.environ.get("PATH", os.defpath) + ":/usr/games"  # where Debian puts stockfish
    program = shutil.which(path or "stockfish", path=places)
    if program is None:
        told = "is no program: install it (apt or brew install stockfish), or give another"
        raise BadInput(f"--engine={path or 'stockfish'} {told}")
    try:  # Ctrl-C is for us, and we close the engine: hence a process group of its own
        engine = chess.engine.SimpleEngine.popen_uci(program, preexec_fn=os.setpgrp)
        engine.configure({"Threads": 1, "Hash": 16})
    except (chess.engine.EngineError, TimeoutError, OSError):
        raise BadInput(f"--engine={program} does not answer as a chess engine (UCI) does") from None
    return engine


def search(engine, position, nodes, lines=1):
    """The best moves by a search of so many nodes: [(plain move, score from 0 to 1)], best first.

    Empty where the game is over. The engine forgets what it knew: position and nodes alone decide.
    """
    found = engine.analyse(position, chess.engine.Limit(nodes=nodes), multipv=lines, game=object())
    found = [line for line in found if "pv" in line]
    scores = [line["score"].pov(position.turn) for line in found]
    odds = [score.wdl(model="sf15.1", ply=position.ply()).expectation() for score in scores]
    return list(zip([plain(position.san(line["pv"][0])) for line in found], odds))
