"""Chess moves: moves as tokens, and the stages on puzzles at toy size."""

import json
import shlex

import pytest
import torch
from games import MATE, read, some_puzzles, write
from torch.nn.functional import log_softmax

import board
import eval
import label
import moves
import pgr
import train_strong
import train_weak
from w2s import files, lm, loop, models, protocol
from w2s.files import HERE, BadInput

PLAYER = str(HERE / "chess/xs")  # a token for every move
BACK_RANK = "6k1/5ppp/8/8/8/8/8/R2QR1K1 w - - 0 1"  # Ra8, Re8 and Qd8 mate


@pytest.fixture(scope="session")
def speller(tmp_path_factory):
    """A model whose tokenizer spells moves by letters; unknown ones end a text, as GPT-2's do."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    out = tmp_path_factory.mktemp("speller")
    words = ["<pad>", "<s>", "</s>", *" KQRBNOabcdefgh12345678x=-/w.0"]
    numbered = {word: i for i, word in enumerate(words)}
    letters = Tokenizer(kinds.WordLevel(numbered, unk_token="</s>"))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    how = {"unk_token": "</s>", "eos_token": "</s>", "model_max_length": 400}
    PreTrainedTokenizerFast(tokenizer_object=letters, **how).save_pretrained(out)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(words), num_attention_heads=2, eos_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(out)
    return str(out)


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """A folder where the stages have run on 150 puzzles, 60 in each half and 30 to test."""
    home = tmp_path_factory.mktemp("moves")
    own, runs = write(home / "own.jsonl", some_puzzles()), f"{home}/runs"
    train_weak.main(ds=own, model=PLAYER, out=f"{runs}/weak", epochs=1)
    label.main(f"{runs}/weak")
    for target in ("weak", "truth"):
        train_strong.main(f"{runs}/labels.jsonl", model=PLAYER, target=target, epochs=2)
    eval.main(*(f"{runs}/{run}" for run in ("weak", "student", "ceiling")))
    return home


@pytest.fixture
def here(experiment, monkeypatch):
    monkeypatch.chdir(experiment)
    return experiment


# ---- moves as tokens


def loaded(kind, request, rows, given="target"):
    """(model in float64, tokenizer, encoded rows) of "player" or "speller"."""
    folder = PLAYER if kind == "player" else request.getfixturevalue("speller")
    model, tokenizer = models.load(folder, outputs=0)
    return model.double(), tokenizer, moves.encode(rows, tokenizer, model, given)


@pytest.mark.parametrize("kind", ["player", "speller"])
def test_the_loss_is_the_likelihood_of_the_moves_tokens_alone(kind, request):
    """Against transformers' own forward pass, a row at a time."""
    model, tokenizer, rows = loaded(kind, request, some_puzzles(6))
    got = lm.nll(model, rows)[:, 0]
    model.set_attn_implementation("eager")
    for row, nll in zip(rows, got):
        ids = tokenizer(row["prompt"] + " " + row["target"]).input_ids + [2] * (kind == "speller")
        # spelled: the blank before the move, and the end after it
        n = 1 if kind == "player" else len(row["target"]) + 2
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        wanted = -log_softmax(logits, 1)[torch.arange(len(ids) - 1), ids[1:]][-n:].mean()
        torch.testing.assert_close(nll.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["player", "speller"])
def test_an_answer_is_greedy_decoding(kind, request):
    """Against transformers' generate(), a row at a time."""
    rows = some_puzzles(8)
    model, tokenizer, _ = loaded(kind, request, rows, None)
    answers = moves.answer(model.float(), tokenizer, rows)
    model.set_attn_implementation("eager")
    for row, move in zip(rows, answers):
        ids = torch.tensor([tokenizer(row["prompt"]).input_ids])
        n = 1 if kind == "player" else moves.LONGEST
        how = {"max_new_tokens": n, "do_sample": False, "eos_token_id": 2}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **how)
        said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split()
        assert move == (board.plain(said[0]) if said else moves.NO_MOVE)


def test_a_spelled_move_is_over_at_white_space_or_the_end(speller):
    _, tokenizer = models.load(speller, outputs=0)
    texts = (" Nf3 ", " Nf3", "Nf3 e", " ", " Nf3 a")
    over = [moves.is_whole(tokenizer(text).input_ids, tokenizer) for text in texts]
    assert over == [True, False, True, False, True]
    assert moves.is_whole(tokenizer(" e4").input_ids + [2], tokenizer)


def test_too_long_a_game_loses_whole_moves_from_its_beginning(speller, capsys):
    for folder, room in ((PLAYER, 20 + 1), (speller, 20 + moves.LONGEST)):
        model, tokenizer = models.load(folder, max_len=room, outputs=0)
        (row,) = moves.encode([some_puzzles(20)[19]], tokenizer, model)
        assert len(row["tokens"]) == 20 if folder == PLAYER else 14 < len(row["tokens"]) <= 20
        kept = tokenizer.decode(row["tokens"], skip_special_tokens=True).replace(" ", "")
        assert kept in ["".join(row["prompt"].split()[i:]) for i in range(1, 40)]
        assert "1 of 1 puzzles are over 20 tokens and lost their front" in capsys.readouterr().out


def test_a_move_that_cannot_be_spelled_or_is_none_is_left_out_and_told(speller, capsys):
    for folder in (PLAYER, speller):
        model, tokenizer = models.load(folder, outputs=0)
        given = ("e4", "Nz9", moves.NO_MOVE, "Rd4")
        rows = [row | {"weak": weak} for row, weak in zip(some_puzzles(4), given)]
        kept = moves.encode(rows, tokenizer, model, "weak")
        assert [row["weak"] for row in kept] == ["e4", "Rd4"]
        told = "2 of 4 puzzles have a move that the tokenizer cannot spell"
        assert told in capsys.readouterr().out
        with pytest.raises(BadInput, match="can spell no move"):
            moves.encode(rows[1:3], tokenizer, model, "weak")


def test_positions_given_to_a_model_that_reads_moves_are_told(capsys):
    model, tokenizer = models.load(PLAYER, outputs=0)
    moves.encode([{"prompt": MATE}] * 5, tokenizer, model)
    assert "86% of the tokens are unknown" in capsys.readouterr().out
    moves.encode(some_puzzles(5), tokenizer, model)
    assert "unknown" not in capsys.readouterr().out


def test_micro_batches_change_nothing(request):
    gradients = []
    for size in (1, 3, 8):
        model, _, rows = loaded("speller", request, some_puzzles(8))
        share = torch.tensor([row["given"] for row in rows], dtype=torch.float64)
        loop.backward(model, rows, share, lm.share_of_loss, 0.0, size, False, outputs=lm.nll)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for one in gradients[1:]:
        torch.testing.assert_close(one, gradients[0], rtol=1e-5, atol=1e-6)


# ---- answers


def test_a_move_that_mates_where_the_target_mates_is_right():
    row = {"id": "p", "group": "p", "fen": BACK_RANK, "target": "Ra8"}
    said = [moves.prediction(row, move) for move in ("Ra8", "Qd8", "Qd7", "Qz9")]
    assert [(one["correct"], one["legal"]) for one in said] == [(1, 1), (1, 1), (0, 1), (0, 0)]
    measured = moves.measure(said, [row] * 4)
    assert measured["other_mates"] == 1 and measured["acc"] == 0.5
    assert measured["legal"].keys() == {"value", "low", "high"}
    assert measured["legal"]["value"] == 0.75 and measured["by_difficulty"] == []
    said = [moves.prediction(row, move) for move in ("Ra8", "Ra8#", "a1a8")]
    assert moves.measure(said, [row] * 3)["other_mates"] == 0 and said[2]["correct"]
    assert not moves.is_right(row | {"target": "Qd7"}, "Qd8")  # where the target does not mate


def test_a_right_move_is_right_in_any_notation():
    row = {"fen": "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1", "target": "Nf3"}
    for move, right in (("Nf3", 1), ("g1f3", 1), ("Ng1f3", 1), ("Nh3", 0), ("Nf6", 0), ("?", 0)):
        assert moves.is_right(row, move) == right


def test_ratings_are_told_in_buckets_of_300():
    rows = [{"group": str(i), "difficulty": 500 + 100 * i - 0.5 * (i == 4)} for i in range(10)]
    said = [{"correct": i > 4, "legal": 1, "move": "e4", "target": "e4"} for i in range(10)]
    told = moves.measure(said, rows)["by_difficulty"]
    assert [(bucket["from"], bucket["n"], bucket["acc"]) for bucket in told] == [
        (300, 1, 0), (600, 4, 0), (900, 2, 1), (1200, 3, 1)
    ]  # fmt: skip


# ---- the stages


def test_the_student_learns_the_supervisors_moves_and_nobody_elses(here, tmp_path):
    labels = read("runs/labels.jsonl")
    assert all(row["weak"] and row["target"] for row in labels) and len(labels) == 60
    half = protocol.half(moves, files.read_card("runs/labels.jsonl")["data"], "strong")
    in_parts = [row["id"] for group in files.by_group(half, "parts") for row in group]
    assert [row["id"] for row in labels] == in_parts  # as results/chess.md was measured
    legal = [next(iter(board.position(row["fen"]).legal_moves)).uci() for row in labels]
    other = [row | {"target": move} for row, move in zip(labels, legal)]
    scrambled = write(tmp_path / "labels.jsonl", other)
    train_strong.main(scrambled, model=PLAYER, epochs=2)  # the student lies beside the labels
    assert files.sha256("runs/student/model") == files.sha256(tmp_path / "student/model")
    assert files.sha256("runs/student/model") != files.sha256("runs/ceiling/model")


def test_predictions_say_the_move_and_whether_it_is_right_and_legal(here, monkeypatch, capsys):
    rows, fens = read("runs/ceiling/eval/own-test.jsonl"), {}
    for row in some_puzzles():
        fens[row["id"]] = board.replay(row["prompt"].split())[0].fen()
    for row in rows:
        assert list(row) == ["id", "target", "move", "correct", "legal"]
        assert row["correct"] == moves.is_right(row | {"fen": fens[row["id"]]}, row["move"])
        assert row["legal"] == board.is_legal(fens[row["id"]], row["move"])
    metrics = json.load(open("runs/ceiling/eval/own-test.metrics.json"))
    assert len(rows) == 30 and metrics["acc"] == sum(row["correct"] for row in rows) / 30
    assert [bucket["from"] for bucket in metrics["by_difficulty"]] == [20, 100]
    assert sum(bucket["n"] for bucket in metrics["by_difficulty"]) == 30
    monkeypatch.setattr(pgr, "draw", lambda *_: None)  # slow
    pgr.main()
    result = json.load(open("runs/pgr.json"))
    assert result["setting"] == "moves" and result["notes"] == []
    assert "at chance" not in capsys.readouterr().out
    with pytest.raises(BadInput, match="--curves: puzzles hold no rows out"):
        pgr.main(curves=True)


def test_several_supervisors_vote_by_plurality_ties_to_the_first(here, capsys):
    for seed in (0, 1):
        bag = {"bootstrap": True, "seed": seed, "out": f"runs/bag{seed}", "epochs": 1}
        train_weak.main(ds="own.jsonl", model=PLAYER, **bag)
    assert files.sha256("runs/bag0/model") != files.sha256("runs/bag1/model")
    runs = ["runs/bag0", "runs/bag1", "runs/weak"]
    label.main(*runs, out="runs/votes.jsonl")
    assert files.read_card("runs/votes.jsonl")["args"]["vote"] == "hard"
    votes = [row["weak_all"] for row in read("runs/votes.jsonl")]
    assert [one[2] for one in votes] == [row["weak"] for row in read("runs/labels.jsonl")]
    plural = [one[1] if one[1] == one[2] else one[0] for one in votes]
    assert [row["weak"] for row in read("runs/votes.jsonl")] == plural
    for options, told in (
        ({"weights": True}, "did not hold out the same rows|learns on rows that were held out"),
        ({"keep": 0.5}, "--keep is not for puzzles: their labels have no probability"),
        ({"vote": "judge"}, "--vote=judge is for texts that models write, not for puzzles"),
    ):
        with pytest.raises(BadInput, match=told):
            label.main(*runs, out="runs/none.jsonl", **options)


def test_parts_of_the_strong_half_are_fresh_and_together_all_of_it(here):
    parts = []
    for k in (1, 2, 3):
        label.main("runs/weak", part=f"{k}/3", out=f"runs/part{k}.jsonl")
        parts.append({row["id"] for row in read(f"runs/part{k}.jsonl")})
    assert set().union(*parts) == {row["id"] for row in read("runs/labels.jsonl")}
    assert sum(map(len, parts)) == 60
    for wrong in ("0/3", "4/3", "1/0", "1", "half"):
        with pytest.raises(BadInput, match=f"--part={wrong}"):
            label.main("runs/weak", part=wrong, out="runs/wrong.jsonl")
    with pytest.raises(BadInput, match="the strong half has 60 groups, too few to cut"):
        label.main("runs/weak", part="1/99", out="runs/wrong.jsonl")


def test_held_out_moves_have_a_loss_that_can_stop_a_training(here):
    how = {"model": PLAYER, "epochs": 3, "batch_size": 16, "n_val": 20, "stop": True}
    train_strong.main("runs/labels.jsonl", out="runs/held", **how)
    history, card = read("runs/held/history.jsonl"), files.read_card("runs/held")
    assert list(history[0]) == ["step", "epoch", "loss", "held_out_loss"]
    assert card["kept"]["held_out_loss"] == min(line["held_out_loss"] for line in history)
    assert (card["resolved"]["rows"], card["resolved"]["held_out"]) == (40, 20)


def test_a_model_is_scored_without_training(here):
    for options in ({}, {"n_test": 9, "force": True}):
        eval.main(model=PLAYER, out="runs/zero", ds="own.jsonl", **options)
        assert len(read("runs/zero/eval/own-test.jsonl")) == options.get("n_test", 30)
    assert files.read_card("runs/zero")["stage"] == "eval"
    with pytest.raises(BadInput, match="was made by eval.py: give the --out of train_weak.py"):
        label.main("runs/zero")


def test_easy_trains_on_easy_puzzles_alone(here, capsys):
    how = {"model": PLAYER, "target": "truth", "batch_size": 8, "epochs": 1}
    train_strong.main("runs/labels.jsonl", out="runs/easy", easy=20, **how)
    n = sum(row["difficulty"] <= 20 for row in read("runs/labels.jsonl"))
    assert f"leaves {n} of 60 puzzles" in capsys.readouterr().out
    assert files.read_card("runs/easy")["resolved"]["rows"] == n
    with pytest.raises(BadInput, match="--easy=5 leaves none of these 60 rows: the easiest has"):
        train_strong.main("runs/labels.jsonl", out="runs/none", easy=5, **how)


def test_labels_from_elsewhere_are_moves_by_their_fields(here, tmp_path, monkeypatch, capsys):
    labels = write(tmp_path / "labels.jsonl", read("runs/labels.jsonl"))
    train_strong.main(labels, model=PLAYER, epochs=1)
    told = shlex.quote(f"{tmp_path}/student")
    assert f"next: python eval.py {told} --ds=test.jsonl" in capsys.readouterr().out
    with pytest.raises(BadInput, match="learned 60 of these 60 puzzles"):
        eval.main(f"{tmp_path}/student", ds="own.jsonl", test=labels)
    with pytest.raises(BadInput, match="which rows it has not seen is not known"):
        label.main(f"{tmp_path}/student")
    monkeypatch.setattr(moves, "answer", lambda model, tokenizer, rows, *_, **__: ["?"] * len(rows))
    label.main("runs/weak", out=f"{tmp_path}/silent.jsonl")
    assert "warning: 60 name no move; nobody learns from these" in capsys.readouterr().out


def test_the_default_run_of_moves_lies_in_runs_moves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train_weak.main(ds="puzzles", n_train=32, n_test=20, epochs=1)
    assert files.read_card("runs/moves/weak")["args"]["model"] == "chess/xs"
    said = capsys.readouterr().out
    assert "next: python label.py runs/moves/weak --out=runs/moves/labels.jsonl" in said


def fens(tmp_path):
    """The puzzles as positions, which cannot be cut."""
    rows = some_puzzles()
    for row in rows:
        row["prompt"] = board.replay(row["prompt"].split())[0].fen()
    return write(tmp_path / "fens.jsonl", rows)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train_weak.py", "--ds=puzles"], "did you mean puzzles"),
        (["train_weak.py", "--ds=own.jsonl", "--model=BERT"], "needs a causal language model"),
        (["train_weak.py", "--ds=own.jsonl", "--model=SPELLER", "--max_len=8"], "leaves no room"),
        (["train_weak.py", "--ds=FENS", "--model=SPELLER", "--max_len=30"], "is too short for the"),
        (["train_weak.py", "--ds=own.jsonl", "--head=zero"], "--head is for texts"),
        (["label.py", "runs/weak", "--keep=0.5"], "--keep is not for puzzles"),
        (["label.py", "runs/weak", "--samples=2"], "there is no option --samples"),
        (["label.py", "runs/weak", "--temperature=2"], "--temperature is for texts that models"),
        (["eval.py", "runs/weak", "--judge=words.txt"], "--judge is for texts that models write"),
        (["label.py", "runs/nothing"], "runs/nothing does not exist"),
        (["train_strong.py", "LABELS", "--loss=conf"], "learned by --loss=xent"),
        (["train_strong.py", "LABELS", "--alpha=0.5"], "--loss=xent, which has no options"),
        (["train_strong.py", "LABELS", "--probe"], "--probe is for texts, not for puzzles"),
        (["eval.py", "--model=x", "--ds=own.jsonl", "--shots=0"], "--head and --shots are for"),
        (["eval.py", "--model=x", "--ds=own.jsonl", "--head=zero"], "--head and --shots are for"),
        (["eval.py", "runs/weak", "--ds=facts"], "has other rows than runs/weak, which answers"),
    ],
)
def test_what_moves_have_not_is_told_in_one_line(
    here, command, tmp_path, tiny, speller, capsys, words, told
):
    names = {"LABELS": "runs/labels.jsonl", "SPELLER": speller}
    if "--model=BERT" in words:
        names["BERT"] = tiny("bert")
    if "--ds=FENS" in words:
        names["FENS"] = fens(tmp_path)
    for name, path in names.items():
        words = [word.replace(name, path) for word in words]
    if words[1][:2] == "--" or words[0] == "train_strong.py":
        words.append(f"--out={tmp_path}/none")
    with pytest.raises(SystemExit) as done:
        command(*words)
    said = capsys.readouterr().err
    assert done.value.code == 2 and told in said and not (tmp_path / "none").exists()
    assert said.splitlines()[-1].startswith("error: ") and said.count("error") == 1
