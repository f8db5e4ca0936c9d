"""Positions, puzzles as the data of moves, and the making of puzzles from games."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import types

import pyarrow
import pyarrow.parquet
import pytest
from conftest import CARD, slow
from games import GAMES, MATE, read, some_puzzles, write

import board
import make_puzzles
import puzzles
from w2s import files, protocol
from w2s.files import HERE, BadInput


def test_the_package_chess_is_not_hidden_by_our_folder():
    done = subprocess.run(
        [sys.executable, "-c", "import chess; assert hasattr(chess, 'Board')"],
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (HERE / "chess" / "__init__.py").exists()
    importing = [p.name for p in (HERE / "chess").glob("*.py") if "import chess\n" in p.read_text()]
    assert importing == ["board.py"]


def test_moves_are_read_without_numbers_and_marks():
    assert board.plain_moves("1. e4 e5 2.Nf3! Nc6 3... Bb5+ 4. Qxf7# 12. e8=Q+ O-O-O 15.") == [
        "e4", "e5", "Nf3", "Nc6", "Bb5", "Qxf7", "e8=Q", "O-O-O",
    ]  # fmt: skip


def test_a_result_is_no_move_and_a_game_that_is_over_has_no_best_one():
    assert board.plain_moves("1. f3 e5 2. g4 Qh4# 0-1") == ["f3", "e5", "g4", "Qh4"]
    over = types.SimpleNamespace(analyse=lambda *args, **how: [{"score": None}])
    assert board.search(over, board.position(), 1) == []


def test_legality_needs_the_position_alone():
    assert (
        board.is_legal(MATE, "Qh4")
        and not board.is_legal(MATE, "Qxf7")
        and not board.is_legal(MATE, "")
    )
    assert not board.is_legal(MATE, "<unk>") and not board.is_legal(MATE, "e3")
    assert not board.is_legal(MATE, "--")
    two_knights = "4k3/8/8/8/8/8/8/1N1K1N2 w - - 0 1"
    assert board.is_legal(two_knights, "Nbd2") and not board.is_legal(
        two_knights, "Nd2"
    )  # which of them?
    assert board.is_legal("4k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a8=Q") and not board.is_legal(
        "4k3/P7/8/8/8/8/8/4K3 w - - 0 1", "a8"
    )


def test_an_illegal_move_is_told_by_its_number():
    with pytest.raises(ValueError, match="move 3, 'Ke3'"):
        board.replay(["e4", "e5", "Ke3"])


def test_a_recapture_takes_back_where_something_was_just_taken():
    position = board.replay("e4 d5 exd5".split())[0]
    assert board.recaptures(position, "Qxd5") and not board.recaptures(position, "Nf6")
    assert not board.recaptures(
        board.replay("e4 d5".split())[0], "exd5"
    )  # the pawn there had taken nothing


PGN = """[Event "with comments, a variation and marks"]
[WhiteElo "2000"]
[BlackElo "1900"]

1. e4 {best by test} e5 2. Nf3 (2. f4 exf4) 2... Nc6 $1 3. Bb5! a6 1-0

[Event "Fischer's"]
[Variant "Chess960"]
[FEN "bnrqkrnb/pppppppp/8/8/8/8/PPPPPPPP/BNRQKRNB w KQkq - 0 1"]

1. e4 e5 *

[Event "from another position"]
[SetUp "1"]
[FEN "4k3/8/8/8/8/8/4P3/4K3 w - - 0 1"]

1. e4 Kd7 *

[Event "illegal"]

1. e4 e5 2. Ke3 Nc6 *
"""


def test_a_pgn_is_read_without_comments_variations_and_other_kinds_of_chess(tmp_path):
    (tmp_path / "games.pgn").write_text(PGN)
    first, illegal = board.read_games(tmp_path / "games.pgn")
    assert (
        first["moves"] == ["e4", "e5", "Nf3", "Nc6", "Bb5", "a6"]
        and first["elo"] == 1900
        and first["illegal"] is None
    )
    assert (
        illegal["moves"] == ["e4", "e5"]
        and "Ke3" in illegal["illegal"]
        and illegal["where"].endswith(":19")
    )


def hub_mirror(folder, repo, rows):
    path = folder / repo / "default" / "train.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_lichess_puzzles_are_formatted_and_what_cannot_be_played_is_left_out(
    tmp_path, monkeypatch, capsys
):
    rows = [{"ctx": "1. f3 e5 2. g4", "target": " Qh4#"}] * 9 + [
        {"ctx": "1. f3 e5 2. g4", "target": "Qh5"}
    ]
    hub_mirror(tmp_path, "EleutherAI/lichess-puzzles", rows)
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    made = puzzles.finish(puzzles.read("lichess", "all"))
    assert made[0] == {
        "id": "lichess/0",
        "group": "lichess/0",
        "prompt": "f3 e5 g4",
        "target": "Qh4",
        "fen": MATE,
    }
    assert len(made) == 9 and "1 of 10 puzzles cannot be played" in capsys.readouterr().err


def test_a_lichess_position_is_the_one_after_the_opponents_move(tmp_path, monkeypatch):
    before = "rnbqkbnr/pppp1ppp/8/4p3/8/5P2/PPPPP1PP/RNBQKBNR w KQkq - 0 2"
    hub_mirror(
        tmp_path, "Lichess/chess-puzzles", [{"FEN": before, "Moves": "g2g4 d8h4", "Rating": 600}]
    )
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    (made,) = puzzles.finish(puzzles.read("lichess_fen", "all"))
    assert made["fen"].split()[0] == MATE.split()[0] and made["prompt"] == made["fen"]
    assert made["target"] == "Qh4" and made["difficulty"] == 600


def test_a_game_may_end_in_its_result(tmp_path):
    row = {"prompt": "1. e4 e5 2. Nf3 1/2-1/2", "target": "Nc6"}
    (made,) = puzzles.finish(puzzles.read(write(tmp_path / "o.jsonl", [row]), "all"))
    assert made["prompt"] == "e4 e5 Nf3"
    assert puzzles.finish([row | {"id": "1", "group": "1"}])[0]["prompt"] == "e4 e5 Nf3"


def test_moves_are_read_in_any_notation_and_written_in_one(tmp_path):
    rows = [
        {"prompt": "e2e4 e7-e5 Ng1f3 Nb8c6 Bc4 Nf6?!", "target": target, "weak": weak}
        for target, weak in (("e1g1", "Nb1c3"), ("0-0", "c2xd9"), ("O-O!", "Qd5+"))
    ]
    own = write(tmp_path / "o.jsonl", rows)
    made = puzzles.finish(puzzles.read(own, "all"))
    assert {row["prompt"] for row in made} == {"e4 e5 Nf3 Nc6 Bc4 Nf6"} and {
        row["target"] for row in made
    } == {"O-O"}
    assert [row["weak"] for row in made] == [
        "Nc3",
        "c2xd9",
        "Qd5",
    ]  # a supervisor may be wrong, and say what is no move


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"fen": 3}, "'fen' is 3; it must be a string"),
        ({"difficulty": "hard"}, "'difficulty' is \"hard\""),
    ],
)
def test_what_a_puzzle_may_have_is_checked_where_it_is_there(wrong, told, tmp_path):
    own = write(tmp_path / "o.jsonl", [{"prompt": "e4", "target": "e5"} | wrong])
    with pytest.raises(BadInput, match=f"o.jsonl:1 field {told}"):
        puzzles.read(own, "all")


# each passed as a puzzle once: a row, and what is wrong with it
FAULTY = {
    "another position": ({"prompt": "e4 e5", "target": "Qh4", "fen": MATE}, "is not the position"),
    "illegal game": ({"prompt": "f3 e5 Ke4", "target": "Qh4", "fen": MATE}, "move 3, 'Ke4', is"),
    "no king": ({"prompt": "8/8/8/8/8/8/4P3/4K3 w - - 0 1", "target": "e4"}, "no position of a"),
    "king in check": ({"prompt": "4k3/8/8/8/8/8/4R3/4K3 w - - 0 1", "target": "Rxe8"}, "no posi"),
    "no king left": ({"prompt": "8/7p/8/8/8/8/4P3/4K3 w - - 0 1", "target": "e2e4 h7h5"}, "no po"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_what_is_no_puzzle_is_left_out_counted_and_told(kind, tmp_path, capsys):
    row, told = FAULTY[kind]
    good = {"prompt": "f3 e5 g4", "target": "Qh4", "fen": MATE}
    made = puzzles.finish(puzzles.read(write(tmp_path / "o.jsonl", [good, row]), "all"))
    assert [one["target"] for one in made] == ["Qh4"] and made[0]["fen"] == MATE
    err = capsys.readouterr().err
    assert "1 of 2 puzzles cannot be played and are left out" in err and told in err


def test_a_fen_may_count_moves_in_its_own_way():
    row = {"id": "1", "group": "1", "prompt": "f3 e5 g4", "target": "Qh4"}
    for fen in (MATE, MATE.replace("- 0 2", "- 7 40"), MATE.replace("KQkq -", "KQkq g3")):
        assert puzzles.finish([row | {"fen": fen}])[0]["fen"] == fen


def test_only_unchanged_rows_of_make_puzzles_are_not_replayed(tmp_path):
    wrong = [{"id": "1", "group": "1", "prompt": "e4 e5", "target": "Qh4", "fen": MATE}]
    own = str(tmp_path / "own.jsonl")
    files.write_jsonl(own, wrong, CARD | {"stage": "make_puzzles"})
    assert puzzles.finish(puzzles.read(own, "all"))[0].keys() == {*wrong[0]}
    files.write_jsonl(own, wrong, CARD | {"stage": "somebody"})
    with pytest.raises(BadInput, match="none of 1 puzzles can be played"):
        puzzles.finish(puzzles.read(own, "all"))
    files.write_jsonl(own, wrong, CARD | {"stage": "make_puzzles"})
    write(tmp_path / "own.jsonl", [wrong[0] | {"prompt": "e4 e6"}])
    with pytest.raises(BadInput, match="differs from"):
        puzzles.read(own, "all")


def test_the_opponents_move_alone_is_no_puzzle(tmp_path, monkeypatch, capsys):
    before = "rnbqkbnr/pppp1ppp/8/4p3/8/5P2/PPPPP1PP/RNBQKBNR w KQkq - 0 2"
    rows = [{"FEN": before, "Moves": moves, "Rating": 600} for moves in ("g2g4 d8h4", "g2g4")]
    hub_mirror(tmp_path, "Lichess/chess-puzzles", rows)
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    assert [row["target"] for row in puzzles.finish(puzzles.read("lichess_fen", "all"))] == ["Qh4"]
    assert "1 with an empty field or without an answer are left out" in capsys.readouterr().err


def test_any_move_may_mate():
    two = "6k1/5ppp/8/8/8/8/8/RR4K1 w - - 0 1"
    assert board.is_mate(two, "Ra8") and board.is_mate(two, "Rb8") and not board.is_mate(two, "Ra7")
    assert (
        not board.is_mate(two, "Ra9") and not board.is_mate(two, "") and board.is_mate(MATE, "Qh4")
    )


def test_easier_puzzles_are_those_up_to_a_difficulty(capsys):
    rows = [{"difficulty": d} for d in (20, 100, 500)] + [{}]
    assert puzzles.easier(rows, 100) == rows[:2]
    assert "--easy=100 leaves 2 of 4 puzzles" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--easy=5 leaves none of these 4 rows: the easiest has 20"):
        puzzles.easier(rows, 5)
    with pytest.raises(BadInput, match="none has a difficulty"):
        puzzles.easier([{}], 5)


def test_texts_need_no_package_chess():
    code = "import sys; sys.modules['chess'] = None; import puzzles; print(sorted(sys.modules))"
    path = os.pathsep.join(str(HERE / folder) for folder in (".", "chess"))
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "'torch'" not in done.stdout, done.stderr
    code = code.replace("print", "puzzles.same('e4'); print")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "BadInput: the package chess is missing: pip install" in done.stderr


def test_own_rows_may_have_numbers_or_a_position(tmp_path):
    own = write(
        tmp_path / "o.jsonl",
        [{"prompt": "1. f3 e5 2. g4", "target": "Qh4#"}, {"prompt": MATE, "target": "Qh4"}],
    )
    made = puzzles.finish(puzzles.read(own, "all"))
    assert [row["prompt"] for row in made] == ["f3 e5 g4", MATE] and {
        row["fen"] for row in made
    } == {MATE}


def test_a_game_is_known_again_with_and_without_numbers(tmp_path, capsys):
    plain = [{name: row[name] for name in ("id", "prompt", "target")} for row in some_puzzles(100)]
    numbered = [
        row | {"prompt": " ".join(f"{i}... {move}" for i, move in enumerate(row["prompt"].split()))}
        for row in plain
    ]
    train, test = write(tmp_path / "a.jsonl", numbered), write(tmp_path / "b.jsonl", plain[:50])
    data = protocol.describe(puzzles, train, test=test)
    halves = [protocol.half(puzzles, data, which) for which in ("weak", "strong")]
    assert {row["prompt"] for rows in halves for row in rows} == {r["prompt"] for r in plain[50:]}
    assert "50 training puzzles share a group or a prompt" in capsys.readouterr().err


# sha256 of the rows as JSON, from the time before games were replayed
EMBEDDED = {
    "weak": "38db5149600b3914366d035780290b3e2c2547dd452c8e5ce559bce5858c0142",
    "strong": "f12c03c64d2116a9bc386d7f73a638f5f01a3d8e61ed885cdc8626d5c6a32556",
    "test": "3143c9cb57936f60c2d3f2b1d823e2ef65b62c55358b3a837652fc4d75d03533",
}


def test_the_embedded_puzzles_are_the_same_as_ever_and_share_no_game(monkeypatch):
    monkeypatch.setattr(board, "replay", None)  # which would take ten times the time
    data = protocol.describe(puzzles, "puzzles")
    cut = {which: protocol.half(puzzles, data, which) for which in ("weak", "strong")}
    cut["test"] = protocol.test_rows(puzzles, data)
    for name, rows in cut.items():
        assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == EMBEDDED[name]
    groups = [{row["group"] for row in rows} for rows in cut.values()]
    assert not any(a & b for a, b in itertools.combinations(groups, 2))


def test_the_embedded_puzzles_can_be_played():
    rows = files.read_jsonl(puzzles.FILE, ["id", "group", "prompt", "target"])
    assert len(rows) == 6000 and len({row["fen"] for row in rows}) == 6000
    for row in rows[::100]:
        assert board.replay(row["prompt"].split())[0].fen() == row["fen"] and board.is_legal(
            row["fen"], row["target"]
        )


def test_a_parquet_file_without_moves_as_text_or_ratings_is_told(tmp_path):
    for moves_, elo in ((["e4 e5"], ["unrated"]), ([["e4", "e5"]], [2000])):
        pyarrow.parquet.write_table(
            pyarrow.table({"moves": moves_, "white_elo": elo, "black_elo": elo}),
            tmp_path / "g.parquet",
        )
        with pytest.raises(
            BadInput, match="g.parquet cannot be read as parquet with moves .text., white_elo"
        ):
            list(board.read_games(tmp_path / "g.parquet"))


ENGINE = """#!{python}
# A chess engine that looks one move ahead and counts material.
import sys, zlib
import chess
VALUES = dict(zip("pnbrqk", (1, 3, 3, 5, 9, 0)))
board, lines = chess.Board(), 1
for line in sys.stdin:
    words = line.split()
    if words[0] == "uci":
        print("option name Threads type spin default 1 min 1 max 8")
        print("option name Hash type spin default 16 min 1 max 99")
        print("option name MultiPV type spin default 1 min 1 max 500")
        print("uciok")
    elif words[0] == "isready":
        print("readyok")
    elif words[:3] == ["setoption", "name", "MultiPV"]:
        lines = int(words[4])
    elif words[0] == "position":
        board = chess.Board() if words[1] == "startpos" else chess.Board(" ".join(words[2:8]))
        for move in words[words.index("moves") + 1:] if "moves" in words else ():
            board.push_uci(move)
    elif words[0] == "go":
        def worth(move):
            taken = board.piece_at(move.to_square)
            if taken:
                return 100 * VALUES[taken.symbol().lower()]
            return zlib.crc32(f"{{board.fen()}} {{move}}".encode()) % 30
        best = sorted(board.legal_moves, key=worth, reverse=True)
        for number, move in enumerate(best[:lines], 1):
            found = f"multipv {{number}} score cp {{worth(move)}} nodes 20 pv {{move}}"
            print(f"info depth 1 seldepth 1 {{found}}")
        print("bestmove", best[0])
    elif words[0] == "quit":
        break
    sys.stdout.flush()
"""


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "material"
    path.write_text(ENGINE.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


@slow
def test_puzzles_are_the_same_with_one_process_and_two(engine, tmp_path):
    for processes in (1, 2):
        make_puzzles.main(
            engine=engine,
            n=12,
            processes=processes,
            sample=5,
            out=str(tmp_path / f"{processes}.jsonl"),
        )
    one, two = (read(tmp_path / f"{k}.jsonl") for k in (1, 2))
    assert [row["fen"] for row in one] == [row["fen"] for row in two] and len(one) == 12
    for row in one:
        position = board.replay(row["prompt"].split())[0]
        assert (
            position.fen() == row["fen"]
            and "x" in row["target"]
            and not board.recaptures(position, row["target"])
        )
        assert (
            row["difficulty"] == 20
            and make_puzzles.FIRST <= len(row["prompt"].split()) < make_puzzles.LAST
        )
    assert files.read_card(tmp_path / "1.jsonl")["confirmed"] == [5, 5]


def test_puzzle_making_goes_on_where_it_was_interrupted(engine, tmp_path, monkeypatch, capsys):
    (tmp_path / "g.pgn").write_text(
        "\n\n".join(f"1. {' '.join(game[:20])} *" for game in GAMES[:40])
    )
    call = {
        "games": str(tmp_path / "g.pgn"),
        "engine": engine,
        "n": 500,
        "processes": 1,
        "sample": 0,
    }
    make_puzzles.main(**call, out=str(tmp_path / "a/p.jsonl"))
    writing, write_text = [], files.write_text

    def interrupt(path, text):
        write_text(path, text)
        writing.append(path)
        if len(writing) == 3:  # at the start, after 16 games and after 32
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_puzzles.main(**call, out=str(tmp_path / "b/p.jsonl"))
    monkeypatch.undo()
    with pytest.raises(BadInput, match="interrupted call with other arguments"):
        make_puzzles.main(**call | {"n": 400}, out=str(tmp_path / "b/p.jsonl"))
    monkeypatch.setattr(files, "write_jsonl", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_puzzles.main(**call, out=str(tmp_path / "b/p.jsonl"))
    monkeypatch.undo()
    make_puzzles.main(**call, out=str(tmp_path / "b/p.jsonl"))  # not from the start
    told = capsys.readouterr()
    assert "going on after 32 games" in told.out and "of 500 puzzles" in told.out
    assert read(tmp_path / "a/p.jsonl") == read(tmp_path / "b/p.jsonl") and not list(
        (tmp_path / "b").glob("*.begun")
    )


def test_an_illegal_game_is_skipped_and_told_and_no_puzzle_at_all_is_an_error(
    engine, tmp_path, capsys
):
    (tmp_path / "g.pgn").write_text(PGN)
    with pytest.raises(BadInput, match="no position of 2 games has one clearly best move"):
        make_puzzles.main(
            str(tmp_path / "g.pgn"), engine=engine, n=5, processes=1, out=str(tmp_path / "p.jsonl")
        )
    told = capsys.readouterr().err
    assert "left out: " in told and "g.pgn:19: illegal san: 'Ke3'" in told
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.skipif(not os.path.exists("/usr/games/stockfish"), reason="needs stockfish")
def test_a_trapped_queen_is_a_puzzle_for_the_real_engine_and_the_start_is_none():
    engine = board.open_engine()
    try:
        game = "c4 c6 Nf3 Nf6 d4 d5 a3 Bf5 h3 Nbd7 cxd5 cxd5 Bf4 Rc8 Nc3 Qb6 e3 Qxb2"
        found = make_puzzles.puzzle_at(engine, board.replay(game.split())[0], 10_000)
        assert found["target"] == "Na4" and 20 < found["difficulty"] <= 10_000
        assert make_puzzles.puzzle_at(engine, board.position(), 2000) is None
    finally:
        engine.quit()


@pytest.mark.parametrize(
    "options, told",
    [
        ({"games": "no.pgn"}, "no.pgn does not exist"),
        ({"processes": 0}, "--processes must be positive|--processes=0 must be positive"),
        ({"engine": "false"}, "does not answer as a chess engine"),
        ({"engine": "/no/such/engine"}, "install it"),
    ],
)
def test_mistakes_in_making_puzzles_are_told_in_one_line(options, told, engine, tmp_path):
    with pytest.raises(BadInput, match=told):
        make_puzzles.main(**{"engine": engine, "out": str(tmp_path / "p.jsonl")} | options)


def test_too_few_groups_leave_a_half_empty_and_a_file_that_is_not_there_is_told(tmp_path):
    one = write(tmp_path / "one.jsonl", [row | {"group": "1"} for row in some_puzzles(5)])
    with pytest.raises(BadInput, match="no puzzles are left for the strong half"):
        protocol.half(puzzles, protocol.describe(puzzles, one), "strong")
    with pytest.raises(BadInput, match="cannot be read"):
        list(board.read_games(tmp_path / "no.pgn"))
