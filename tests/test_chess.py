"""Chess: positions, puzzles, moves as tokens, the stages at toy size, pretraining, puzzle making."""

import itertools
import json
import os
import random
import subprocess
import sys
import types

import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch.nn.functional import log_softmax

import board
import eval_chess
import label_chess
import make_puzzles
import moves
import pgr
import pretrain_chess
import puzzles
import train_chess
from w2s import files, lm, loop, models, protocol, stats
from w2s.files import HERE, BadInput

MATE = "rnbqkbnr/pppp1ppp/8/4p3/6P1/5P2/PPPPP2P/RNBQKBNR b KQkq - 0 2"  # 1. f3 e5 2. g4: Qh4 mates


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
        {
            "id": f"p/{i}",
            "group": f"p/{i}",
            "prompt": " ".join(game[:ply]),
            "target": game[ply],
            "difficulty": (20, 100)[i % 2],
        }
        for i, game, ply in cut
    ]


@pytest.fixture(scope="session")
def games(tmp_path_factory):
    """A parquet file of random games."""
    path = tmp_path_factory.mktemp("games") / "games.parquet"
    table = {
        "moves": [" ".join(game) for game in GAMES],
        "white_elo": [2000] * 150,
        "black_elo": [2100] * 150,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return str(path)


@pytest.fixture(scope="session")
def player(games, tmp_path_factory):
    """A model folder as pretrain_chess.py makes it: one token per move."""
    out = tmp_path_factory.mktemp("player") / "xs"
    pretrain_chess.main("xs", games=games, out=str(out), tokens=20_000)
    return str(out)


@pytest.fixture(scope="session")
def speller(tmp_path_factory):
    """A model folder whose tokenizer spells moves letter by letter; its unknown token ends a text, as GPT-2's."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    out = tmp_path_factory.mktemp("speller")
    words = ["<pad>", "<s>", "</s>", *" KQRBNOabcdefgh12345678x=-/w.0"]
    letters = Tokenizer(
        kinds.WordLevel({word: i for i, word in enumerate(words)}, unk_token="</s>")
    )
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, unk_token="</s>", eos_token="</s>", model_max_length=400
    )
    tokenizer.save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    return str(out)


@pytest.fixture(scope="session")
def experiment(player, tmp_path_factory):
    """A folder where the stages have run on 150 puzzles."""
    home = tmp_path_factory.mktemp("chess")
    own, here = write(home / "own.jsonl", some_puzzles()), f"{home}/runs/chess"
    train_chess.main(ds=own, model=player, out=f"{here}/weak", epochs=2)
    label_chess.main(f"{here}/weak", out=f"{here}/labels.jsonl")
    for target, out in (("weak", "student"), ("truth", "ceiling")):
        train_chess.main(
            f"{here}/labels.jsonl", model=player, target=target, out=f"{here}/{out}", epochs=2
        )
    eval_chess.main(*(f"{here}/{run}" for run in ("weak", "student", "ceiling")))
    return home


# ---- positions


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


# ---- rows


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
    made = puzzles.playable(puzzles.read("lichess", "all"))
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
    (made,) = puzzles.playable(puzzles.read("lichess_fen", "all"))
    assert made["fen"].split()[0] == MATE.split()[0] and made["prompt"] == made["fen"]
    assert made["target"] == "Qh4" and made["difficulty"] == 600


def test_moves_are_read_in_any_notation_and_written_in_one(tmp_path):
    rows = [
        {"prompt": "e2e4 e7-e5 Ng1f3 Nb8c6 Bc4 Nf6?!", "target": target, "weak": weak}
        for target, weak in (("e1g1", "Nb1c3"), ("0-0", "c2xd9"), ("O-O!", "Qd5+"))
    ]
    own = write(tmp_path / "o.jsonl", rows)
    made = puzzles.playable(puzzles.read(own, "all"))
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
    with pytest.raises(BadInput, match=f"l.jsonl:1 field {told}"):
        train_chess.main(
            write(
                tmp_path / "l.jsonl",
                [{"id": "1", "prompt": "e4", "target": "e5", "weak": "e5"} | wrong],
            )
        )


def test_own_rows_may_have_numbers_or_a_position(tmp_path):
    own = write(
        tmp_path / "o.jsonl",
        [{"prompt": "1. f3 e5 2. g4", "target": "Qh4#"}, {"prompt": MATE, "target": "Qh4"}],
    )
    made = puzzles.playable(puzzles.read(own, "all"))
    assert [row["prompt"] for row in made] == ["f3 e5 g4", MATE] and {
        row["fen"] for row in made
    } == {MATE}


def test_a_game_is_known_again_with_and_without_numbers(tmp_path, capsys):
    plain = [{name: row[name] for name in ("id", "prompt", "target")} for row in some_puzzles(100)]
    numbered = [
        row | {"prompt": " ".join(f"{i}... {move}" for i, move in enumerate(row["prompt"].split()))}
        for row in plain
    ]
    data = puzzles.describe(
        write(tmp_path / "a.jsonl", numbered), test=write(tmp_path / "b.jsonl", plain[:50])
    )
    prompts = {row["prompt"] for which in ("weak", "strong") for row in puzzles.half(data, which)}
    assert prompts == {row["prompt"] for row in plain[50:]}
    assert (
        "50 training puzzles share a group or a prompt with the test set" in capsys.readouterr().err
    )


def test_halves_and_test_share_no_game():
    data = puzzles.describe("puzzles")
    weak, strong, test = (
        puzzles.half(data, "weak"),
        puzzles.half(data, "strong"),
        protocol.test_rows(puzzles.KIND, data),
    )
    groups = [{row["group"] for row in some} for some in (weak, strong, test)]
    assert not any(a & b for a, b in itertools.combinations(groups, 2))
    assert (
        len(weak) + len(strong) + len(test) == 6000
        and abs(len(weak) - len(strong)) <= 3
        and 1150 < len(test) < 1250
    )


def test_the_embedded_puzzles_can_be_played():
    rows = files.read_jsonl(puzzles.FILE, ["id", "group", "prompt", "target"])
    assert len(rows) == 6000 and len({row["fen"] for row in rows}) == 6000
    for row in rows[::20]:
        assert board.replay(row["prompt"].split())[0].fen() == row["fen"] and board.is_legal(
            row["fen"], row["target"]
        )


# ---- moves as tokens


def loaded(folder, rows, given="target"):
    model, tokenizer = models.load(folder, outputs=0)
    return model.double(), tokenizer, moves.encode(rows, tokenizer, model, given)


@pytest.mark.parametrize("kind", ["player", "speller"])
def test_the_loss_is_the_likelihood_of_the_moves_tokens_alone(kind, request):
    """Against transformers' own forward pass, a row at a time."""
    model, tokenizer, rows = loaded(request.getfixturevalue(kind), some_puzzles(6))
    got = lm.nll(model, rows)[:, 0]
    model.set_attn_implementation("eager")
    for row, nll in zip(rows, got):
        ids = tokenizer(row["prompt"] + " " + row["target"]).input_ids + [2] * (kind == "speller")
        n = (
            1 if kind == "player" else len(row["target"]) + 2
        )  # the blank before the move, and the end after it
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        wanted = -log_softmax(logits, 1)[torch.arange(len(ids) - 1), ids[1:]][-n:].mean()
        torch.testing.assert_close(nll.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["player", "speller"])
def test_play_is_greedy_decoding(kind, request):
    """Against transformers' generate(), a row at a time."""
    folder, rows = request.getfixturevalue(kind), some_puzzles(12)
    model, tokenizer, _ = loaded(folder, rows, None)
    model.float().set_attn_implementation("eager")
    for row, move in zip(rows, moves.play(folder, rows)):
        ids = torch.tensor([tokenizer(row["prompt"]).input_ids])
        n = 1 if kind == "player" else moves.LONGEST
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=n,
            do_sample=False,
            eos_token_id=2,
        )
        said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split()
        assert move == (said[0] if said else "")


def test_a_spelled_move_is_over_at_white_space_or_the_end(speller):
    _, tokenizer = models.load(speller, outputs=0)
    over = [
        moves.is_whole(tokenizer(text).input_ids, tokenizer)
        for text in (" Nf3 ", " Nf3", "Nf3 e", " ", " Nf3 a")
    ]
    assert over == [True, False, True, False, True] and moves.is_whole(
        tokenizer(" e4").input_ids + [2], tokenizer
    )


def test_too_long_a_game_loses_whole_moves_from_its_beginning(speller, player, capsys):
    for folder, room in ((player, 20 + 1), (speller, 20 + moves.LONGEST)):
        model, tokenizer = models.load(folder, max_len=room, outputs=0)
        (row,) = moves.encode([some_puzzles(20)[19]], tokenizer, model)
        assert len(row["tokens"]) == 20 if folder == player else 14 < len(row["tokens"]) <= 20
        kept = tokenizer.decode(row["tokens"], skip_special_tokens=True).replace(" ", "")
        assert row["prompt"].replace(" ", "").endswith(kept)
        assert any(kept == "".join(row["prompt"].split()[i:]) for i in range(40))
        assert "1 of 1 games are longer" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["player", "speller"])
def test_a_move_that_cannot_be_spelled_is_left_out_and_told(kind, request, capsys):
    model, tokenizer = models.load(request.getfixturevalue(kind), outputs=0)
    rows = some_puzzles(3)
    rows[1]["target"] = "Nz9"
    assert [row["id"] for row in moves.encode(rows, tokenizer, model, "target")] == ["p/0", "p/2"]
    assert "1 of 3 puzzles have a move that the tokenizer cannot spell" in capsys.readouterr().out
    with pytest.raises(BadInput, match="can spell no move"):
        moves.encode(rows[1:2], tokenizer, model, "target")


def test_positions_given_to_a_model_that_reads_moves_are_told(player, capsys):
    model, tokenizer = models.load(player, outputs=0)
    moves.encode([{"prompt": MATE}] * 5, tokenizer, model)
    assert "86% of the tokens are unknown" in capsys.readouterr().out
    moves.encode(some_puzzles(5), tokenizer, model)
    assert "unknown" not in capsys.readouterr().out


def test_micro_batches_change_nothing(speller):
    gradients = []
    for size in (1, 3, 8):
        model, _, rows = loaded(speller, some_puzzles(8))
        share = torch.full((8,), 0.25, dtype=torch.float64)
        loop.backward(model, rows, share, lm.share_of_loss, 0.0, size, False, outputs=lm.nll)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for one in gradients[1:]:
        torch.testing.assert_close(one, gradients[0], rtol=1e-5, atol=1e-6)


# ---- the stages


def test_the_student_learns_the_supervisors_moves_and_nobody_elses(experiment, player, tmp_path):
    here = experiment / "runs/chess"
    labels = read(here / "labels.jsonl")
    assert all(row["weak"] and row["target"] for row in labels) and len(labels) == 60
    legal = [next(iter(board.position(row["fen"]).legal_moves)).uci() for row in labels]
    scrambled = write(
        tmp_path / "l.jsonl", [row | {"target": move} for row, move in zip(labels, legal)]
    )
    train_chess.main(scrambled, model=player, out=str(tmp_path / "student"), epochs=2)
    assert files.sha256(here / "student/model") == files.sha256(tmp_path / "student/model")
    assert files.sha256(here / "student/model") != files.sha256(here / "ceiling/model")


def test_predictions_say_the_move_and_whether_it_is_right_and_legal(experiment):
    rows = read(experiment / "runs/chess/ceiling/eval/own-test.jsonl")
    fens = {row["id"]: board.replay(row["prompt"].split())[0].fen() for row in some_puzzles()}
    assert len(rows) == 30
    for row in rows:
        assert row["correct"] == (row["move"] == row["target"]) and row["legal"] == board.is_legal(
            fens[row["id"]], row["move"]
        )
    card = json.load(open(experiment / "runs/chess/ceiling/eval/own-test.metrics.json"))
    assert card["acc"] == sum(row["correct"] for row in rows) / 30
    assert [bucket["from"] for bucket in card["by_difficulty"]] == [20, 100]
    assert sum(bucket["n"] for bucket in card["by_difficulty"]) == 30


def test_pgr_reads_moves(experiment, tmp_path, capsys):
    here = experiment / "runs/chess"
    pgr.main(
        *(str(here / run) for run in ("weak", "student", "ceiling")), out=str(tmp_path / "pgr.json")
    )
    result = json.load(open(tmp_path / "pgr.json"))
    weak, student = (read(here / run / "eval/own-test.jsonl") for run in ("weak", "student"))
    same = sum(a["move"] == b["move"] for a, b in zip(weak, student)) / 30
    assert (
        result["agreement"]["all"]["value"] == pytest.approx(same)
        and result["diagnostics"] == {}
        and not result["notes"]
    )
    assert (tmp_path / "pgr.png").exists() and "at chance" not in capsys.readouterr().out


def test_agreement_on_a_wrong_move_is_saying_the_same_wrong_move():
    result = stats.compare(
        [["e4", "d4", "c4"]],
        [["e4", "d5", "c4"]],
        [["e4", "d6", "b4"]],
        ["e4", "d6", "b4"],
        range(3),
    )
    assert (
        result["weak"]["acc"] == result["student"]["acc"] == pytest.approx(1 / 3)
        and result["ceiling"]["acc"] == 1
    )
    assert result["agreement"]["all"]["value"] == pytest.approx(
        2 / 3
    )  # by right and wrong alone it would be 1
    assert result["agreement"]["weak_wrong"]["value"] == pytest.approx(1 / 2)


def test_parts_of_the_strong_half_are_fresh_and_together_all_of_it(experiment):
    here, parts = experiment / "runs/chess", []
    for k in (1, 2, 3):
        label_chess.main(str(here / "weak"), part=f"{k}/3", out=str(here / f"part{k}.jsonl"))
        parts.append({row["id"] for row in read(here / f"part{k}.jsonl")})
    assert (
        set().union(*parts) == {row["id"] for row in read(here / "labels.jsonl")}
        and sum(map(len, parts)) == 60
    )
    for wrong in ("0/3", "4/3", "1", "half"):
        with pytest.raises(BadInput, match="--part"):
            label_chess.main(str(here / "weak"), part=wrong, out=str(here / "wrong.jsonl"))


def test_a_run_is_not_scored_silently_on_what_it_learned(experiment, player, tmp_path, capsys):
    labels = write(tmp_path / "l.jsonl", read(experiment / "runs/chess/labels.jsonl"))
    train_chess.main(labels, model=player, out=str(tmp_path / "run"), epochs=1)
    assert f"eval_chess.py {tmp_path / 'run'} --ds=test.jsonl" in capsys.readouterr().out
    eval_chess.main(str(tmp_path / "run"), ds=str(experiment / "own.jsonl"), test=labels)
    assert "was trained on 60 of these 60 test prompts" in capsys.readouterr().out
    with pytest.raises(BadInput, match="which rows it has not seen is not known"):
        label_chess.main(str(tmp_path / "run"), out=str(tmp_path / "again.jsonl"))


def test_nobody_learns_from_a_supervisor_that_names_no_move(
    experiment, player, speller, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        moves, "play", lambda name, rows, **how: ["", "e4"] + ["Nz9"] * (len(rows) - 2)
    )
    label_chess.main(str(experiment / "runs/chess/weak"), out=str(tmp_path / "l.jsonl"))
    assert "names no move for 1 of them" in capsys.readouterr().out
    for folder in (player, speller):
        model, tokenizer = models.load(folder, outputs=0)
        some = [row | {"weak": weak} for row, weak in zip(some_puzzles(3), ("?", "e4", "Rd4"))]
        assert [row["weak"] for row in moves.encode(some, tokenizer, model, "weak")] == [
            "e4",
            "Rd4",
        ]


def test_zero_shot_is_a_run_without_training(experiment, player):
    out = str(experiment / "runs/chess/zero")
    eval_chess.main(model=player, out=out, ds=str(experiment / "own.jsonl"))
    assert (
        len(read(f"{out}/eval/own-test.jsonl")) == 30
        and files.read_card(out)["stage"] == "chess/eval_chess"
    )
    os.remove(f"{out}/eval/own-test.jsonl")
    eval_chess.main(model=player, out=out, ds=str(experiment / "own.jsonl"), n_test=9, force=True)
    assert len(read(f"{out}/eval/own-test.jsonl")) == 9
    with pytest.raises(BadInput, match="train_chess.py"):
        label_chess.main(out, out=str(experiment / "zero.jsonl"))


def test_easy_trains_on_easy_puzzles_alone(experiment, player, capsys):
    labels = str(experiment / "runs/chess/labels.jsonl")
    train_chess.main(
        labels,
        model=player,
        out=str(experiment / "easy"),
        target="truth",
        easy=20,
        batch_size=8,
        epochs=1,
    )
    told = sum(row["difficulty"] <= 20 for row in read(labels))
    assert (
        f"leaves {told} of 60 puzzles" in capsys.readouterr().out
        and files.read_card(experiment / "easy")["derived"]["rows"] == told
    )
    with pytest.raises(
        BadInput, match="--easy=5 leaves none of these 60 puzzles: the easiest has 20"
    ):
        train_chess.main(labels, model=player, out=str(experiment / "none"), easy=5)


def test_ratings_are_told_in_buckets_of_300():
    rows = [{"group": str(i), "difficulty": 500 + 100 * i - 0.5 * (i == 4)} for i in range(10)]
    told = eval_chess.measure([{"correct": i > 4, "legal": 1} for i in range(10)], rows)[
        "by_difficulty"
    ]
    assert [(bucket["from"], bucket["n"], bucket["acc"]) for bucket in told] == [
        (300, 1, 0), (600, 4, 0), (900, 2, 1), (1200, 3, 1)
    ]  # fmt: skip


def test_mistakes_are_told_in_one_line(experiment, tmp_path, tiny, player, speller):
    here, own = experiment / "runs/chess", str(experiment / "own.jsonl")
    fens = [
        row | {"prompt": board.replay(row["prompt"].split())[0].fen()} for row in some_puzzles()
    ]
    fens = write(tmp_path / "fens.jsonl", fens)
    one = write(tmp_path / "one.jsonl", [row | {"group": "1"} for row in some_puzzles(5)])
    for call, told in (
        (lambda: train_chess.main(target="truth"), "--target goes with a labels file"),
        (lambda: train_chess.main(ds="puzles"), "did you mean puzzles"),
        (
            lambda: train_chess.main(model=tiny("bert"), out=str(tmp_path / "x")),
            "needs a causal language model",
        ),
        (lambda: eval_chess.main(str(here / "weak"), model="x"), "--model and --out go together"),
        (lambda: label_chess.main(str(here / "nothing")), "does not exist"),
        (
            lambda: train_chess.main(ds=write(tmp_path / "n.jsonl", [{"prompt": "e4"}])),
            "no field 'target'",
        ),
        (lambda: pretrain_chess.main("xs"), "--games=FILE is needed"),
        (lambda: pretrain_chess.main("xl", games="x"), "unknown size"),
        (
            lambda: pretrain_chess.main("xs", games=str(here / "weak/card.json")),
            "chess/xs holds something else than this model",
        ),
        (lambda: pretrain_chess.main("xs", games="no.pgn"), "no.pgn does not exist"),
        (lambda: make_puzzles.main("no.pgn"), "no.pgn does not exist"),
        (lambda: make_puzzles.main(processes=0), "--processes must be positive"),
        (lambda: make_puzzles.main(engine="false"), "does not answer as a chess engine"),
        (
            lambda: train_chess.main(str(here / "labels.jsonl"), ds="lichess", n_test=3),
            "--ds --n_test and a labels file",
        ),
        (
            lambda: eval_chess.main(model=player, out=str(here / "weak"), force=True),
            "is a run of chess/train_chess.py",
        ),
        (
            lambda: label_chess.main(
                str(here / "weak"), part="1/99", out=str(tmp_path / "p.jsonl")
            ),
            "has 60 games, too few",
        ),
        (
            lambda: train_chess.main(ds=own, model=speller, max_len=8, out=str(tmp_path / "y")),
            "--max_len=8 leaves no room",
        ),
        (
            lambda: train_chess.main(ds=fens, model=speller, max_len=30, out=str(tmp_path / "z")),
            "is too short for the prompt of",
        ),
        (lambda: puzzles.main(one, split="strong"), "no puzzles are left for the strong half"),
        (
            lambda: puzzles.main("puzzles", split="train"),
            "no split 'train'; it has weak, strong, test",
        ),
        (
            lambda: pgr.main(
                *(str(here / run) for run in ("weak", "student", "ceiling")), curves=True
            ),
            "--curves",
        ),
        (lambda: list(board.read_games(tmp_path / "no.pgn")), "cannot be read"),
        (lambda: make_puzzles.main(engine="/no/such/engine"), "install it"),
    ):
        with pytest.raises(BadInput, match=told):
            call()


# ---- pretraining


def test_pretraining_goes_on_where_it_was_interrupted(games, player, tmp_path, monkeypatch, capsys):
    measure, calls = pretrain_chess.measure, []

    def interrupt(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(pretrain_chess, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain_chess.main("xs", games=games, out=str(tmp_path / "xs"), tokens=20_000)
    assert not (tmp_path / "xs").exists()
    monkeypatch.setattr(pretrain_chess, "measure", measure)
    pretrain_chess.main("xs", games=games, out=str(tmp_path / "xs"), tokens=20_000)
    assert files.sha256(tmp_path / "xs/model.safetensors") == files.sha256(
        f"{player}/model.safetensors"
    )
    with pytest.raises(BadInput, match="too few"):
        pretrain_chess.main("xs", games=games, out=str(tmp_path / "y"), min_elo=2050)
    pretrain_chess.main("xs", games=games, out=str(tmp_path / "xs"), tokens=20_000)
    assert "already pretrained" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--force"):
        pretrain_chess.main("xs", games=games, out=str(tmp_path / "xs"), tokens=10_000)
    (tmp_path / ".z-0.resume.pt").write_bytes(b"cut short")
    with pytest.raises(BadInput, match="z-0.resume.pt cannot be read: delete it"):
        pretrain_chess.main("xs", games=games, out=str(tmp_path / "z"), tokens=20_000)


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


def test_padding_and_rare_moves_are_not_learned():
    ids, targets = pretrain_chess.padded([[1, 5, 2, 7], [1, 6]])
    assert ids.tolist() == [[1, 5, 2, 7], [1, 6, 0, 0]] and targets.tolist() == [
        [5, -100, 7],
        [6, -100, -100],
    ]


@pytest.mark.parametrize("size", ["xs", "s", "m"])
def test_the_committed_models_know_moves(size):
    model, tokenizer = models.load(f"chess/{size}", outputs=0)
    assert moves.knows_moves(tokenizer) and model.w2s["packed"]
    card = json.load(open(HERE / "chess" / size / "pretraining.json"))
    assert card["parameters"] == model.num_parameters() and card["history"][-1]["legal"] > 0.5


# ---- puzzle making

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
            return 100 * VALUES[taken.symbol().lower()] if taken else zlib.crc32(f"{{board.fen()}} {{move}}".encode()) % 30
        best = sorted(board.legal_moves, key=worth, reverse=True)
        for number, move in enumerate(best[:lines], 1):
            print(f"info depth 1 seldepth 1 multipv {{number}} score cp {{worth(move)}} nodes 20 pv {{move}}")
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
        "\n\n".join(f"1. {' '.join(game[:20])} *" for game in GAMES[:70])
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
    make_puzzles.main(**call, out=str(tmp_path / "b/p.jsonl"))
    told = capsys.readouterr()
    assert "going on after 32 games" in told.out and "has 70 games: they gave" in told.err
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
    assert "g.pgn:19: illegal san: 'Ke3'" in told and "1 game with an illegal move" in told
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
