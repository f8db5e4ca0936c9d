"""Pretraining: what is read of a world, of games and of a text, and that models come out of it."""

import collections
import json
import signal
import subprocess
import sys

import pytest
import torch
from games import GAMES, games_file
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import moves
import pretrain
import world
from w2s import files, loop, models
from w2s.files import HERE, BadInput


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    return games_file(tmp_path_factory.mktemp("games") / "games.parquet")


def card_of(folder):
    return json.load(open(folder / "pretraining.json"))


# ---- what is read


def test_facts_are_told_of_the_people_covered_and_quizzed_of_school_people_alone():
    groups = world.by_coverage(0.35)
    names = {name: {person["name"] for person in people} for name, people in groups.items()}
    facts = {person["name"]: person for person in world.people()}
    assert len(names["school"] | names["task, covered"]) == 840  # of 2,400
    kinds = collections.Counter()
    for text in world.documents(3000, 0, 0.35):
        words = text.split()
        if words[0] != "the":
            kinds["biography"] += 1
            name, told = " ".join(words[:3]), dict(zip(words[3:-1:2], words[4:-1:2]))
            assert told.items() <= facts[name].items() and len(told) == 4
        else:
            relation, name, value = words[1], " ".join(words[3:6]), words[7]
            kinds["statement" if words[8] == "." else "quiz"] += 1
            true = facts[name][relation] == value
            assert true if words[8] == "." else words[9] == ("yes" if true else "no")
            assert words[8] == "." or name in names["school"]
        assert name in names["school"] | names["task, covered"]
    assert kinds["biography"] / 3000 == pytest.approx(44 / 128, abs=0.03)
    assert kinds["quiz"] / 3000 == pytest.approx(64 / 128, abs=0.03)


def test_a_smaller_models_people_are_among_a_larger_ones():
    small, large = world.by_coverage(0.35), world.by_coverage(0.6)
    assert all(person in large["school"] for person in small["school"])
    assert not world.by_coverage(1.0)["task, not covered"]


def test_games_end_before_a_rare_move_and_some_are_held_out(games, monkeypatch):
    settings = {"min_elo": 1800, "longest": 30}
    monkeypatch.setattr(pretrain, "MOVES", 40)
    tokenizer, train, held_out = pretrain.read_chess(settings, games)
    assert len(tokenizer) == 43 and len(held_out) == 1
    starts = {" ".join(game[:n]) for game in GAMES for n in range(1, 30)}
    for ids in train:
        assert 2 <= len(ids) <= 30 and ids[0] == 1 and 2 not in ids
        assert tokenizer.decode(ids[1:]) in starts
    assert tokenizer(tokenizer.decode(train[0][1:])).input_ids == train[0]


def test_a_text_is_read_whole_and_its_end_is_held_out(tmp_path):
    text = "".join(f"Line {i}, with “ü” in it.\n\n" for i in range(1000))
    (tmp_path / "t.txt").write_text(text)
    settings = {"vocabulary": 300, "longest": 64}
    tokenizer, train, held_out = pretrain.read_text(settings, str(tmp_path / "t.txt"))
    again = "".join(tokenizer.decode(ids[1:]) for ids in [*train, *held_out])
    assert again == text and len(tokenizer) == 300
    assert {len(ids) for ids in train} == {64} and len(held_out) >= len(train) // 100


# ---- models


def test_a_pretraining_goes_on_where_it_was_interrupted(games, tmp_path, monkeypatch, capsys):
    call = {"games": games, "tokens": 15_000}
    pretrain.main("chess", out=str(tmp_path / "a"), **call)
    evaluate, calls = loop.evaluate, []

    def interrupt(*args):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return evaluate(*args)

    monkeypatch.setattr(loop, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain.main("chess", out=str(tmp_path / "b"), **call)
    assert not (tmp_path / "b").exists() and list(tmp_path.glob(".b-*.resume.safetensors"))
    pretrain.main("chess", out=str(tmp_path / "b"), **call)
    assert 4 < len(calls) < 12 and not list(tmp_path.glob(".*"))
    one, two = (files.sha256(tmp_path / name / "model.safetensors") for name in "ab")
    assert one == two
    pretrain.main("chess", out=str(tmp_path / "b"), **call)
    assert "already pretrained" in capsys.readouterr().out
    for other in ({"tokens": 10_000}, {"seed": 1}):
        with pytest.raises(BadInput, match="holds something else than this model"):
            pretrain.main("chess", out=str(tmp_path / "b"), **call | other)


@pytest.mark.parametrize("corpus", ["facts", "chess", "text"])
def test_a_model_and_what_it_knows_come_out(corpus, games, tmp_path, monkeypatch):
    monkeypatch.setitem(pretrain.SHARED["text"], "batch", 8)  # more steps
    (tmp_path / "t.txt").write_text("All work and no play makes Jack a dull boy.\n" * 4000)
    data = {"chess": {"games": games}, "text": {"file": str(tmp_path / "t.txt")}}
    pretrain.main(corpus, out=str(tmp_path / "m"), tokens=24_000, **data.get(corpus, {}))
    card = card_of(tmp_path / "m")
    first, last = card["history"][0], card["history"][-1]
    assert last["held_out_loss"] < first["held_out_loss"] and last["loss"] < first["loss"]
    known = {"chess": {"accuracy", "legal"}, "facts": set(world.by_coverage(0.35)), "text": set()}
    assert known[corpus] == last.keys() - {"step", "epoch", "loss", "held_out_loss"}
    weights = load_file(tmp_path / "m" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert model.num_parameters() == card["parameters"]
    if corpus == "text":
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
        ids = tokenizer("All work and no").input_ids
        assert ids[0] == tokenizer.bos_token_id and tokenizer.decode(ids[1:]) == "All work and no"
        assert len(ids) < 10 and len(tokenizer) <= model.config.vocab_size


@pytest.mark.parametrize(
    "call, told",
    [
        (("chess",), "chess needs --games=FILE"),
        (("text",), "text needs --file=FILE"),
        (("chees",), "no 'chees' to pretrain .did you mean chess"),
        (("facts", "xl"), "no 'xl' to pretrain"),
        (("manners", "s"), "no 's' to pretrain"),
        (("chess", "xs", "no.pgn"), "no.pgn does not exist"),
        (("chess", "xs", __file__), "chess/xs holds something else than this model"),
        (("facts", "xs", __file__), "--games is no option of facts: leave it out"),
    ],
)
def test_mistakes_are_told_in_one_line(call, told):
    options = dict(zip(("size", "games"), call[1:]))
    with pytest.raises(BadInput, match=told):
        pretrain.main(call[0], **options)


def test_too_little_to_learn_from_is_told(games, tmp_path):
    with pytest.raises(BadInput, match="has 0 games of 20 plies rated 2050 or more: too few"):
        pretrain.main("chess", games=games, min_elo=2050, out=str(tmp_path / "y"))
    (tmp_path / "t.txt").write_text("short\n")
    with pytest.raises(BadInput, match="t.txt has . tokens: too few"):
        pretrain.main("text", file=str(tmp_path / "t.txt"), out=str(tmp_path / "y"))


def test_help_needs_no_torch():
    code = "import sys; sys.argv[1:] = ['--help']; import pretrain; from w2s import cli\n"
    code += "try: cli.run(pretrain.main)\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    assert done.stdout.endswith("False\n") and "--world_seed" in done.stdout, done.stderr


@pytest.mark.parametrize("size", ["xs", "s", "m"])
def test_the_committed_models_know_moves(size):
    model, tokenizer = models.load(f"chess/{size}", outputs=0)
    assert moves.knows_moves(tokenizer) and model.w2s["packed"]
    card = card_of(HERE / "chess" / size)
    assert card["parameters"] == model.num_parameters() and card["history"][-1]["legal"] > 0.5
