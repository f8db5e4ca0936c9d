"""Chess: positions, puzzles, moves as tokens, the stages at toy size, pretraining, puzzle making."""

import json
import os
import random

import eval_chess
import label_chess
import pyarrow
import pyarrow.parquet
import pytest
import torch
import train_chess
from torch.nn.functional import log_softmax

import board
import moves
import pgr
import pretrain
from w2s import files, lm, loop, models, stats
from w2s.files import BadInput

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
    """A model folder as pretrain.py makes it: one token per move."""
    out = tmp_path_factory.mktemp("player") / "xs"
    pretrain.main("chess", games=games, out=str(out), tokens=20_000)
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
        (
            lambda: pgr.main(
                *(str(here / run) for run in ("weak", "student", "ceiling")), curves=True
            ),
            "--curves",
        ),
    ):
        with pytest.raises(BadInput, match=told):
            call()
