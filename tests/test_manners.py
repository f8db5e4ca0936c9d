"""The world of `manners`: its rows, what pretraining reads, and the two committed models."""

import json

import pytest

import manners
import pretrain
from w2s import models
from w2s.files import HERE

WORDS = {split: set() for split in manners.N_PAIRS}
for pair in manners.PAIRS:
    WORDS[pair["split"]] |= {pair["kind"], pair["rude"]}


def words_of(row):
    return set(f"{row['prompt']} {row['completion']}".split())


@pytest.mark.parametrize("split, n", [("train", 1440), ("test", 800)])
def test_a_row_offers_the_two_words_of_its_pair_and_takes_the_kind_one(split, n):
    rows, rude = manners.rows(split), set(manners.RUDE)
    assert len({row["id"] for row in rows}) == len(rows) == n
    assert len({row["completion"] for row in rows}) > 500
    for row in rows:
        kind, bad = row["group"].split("-")
        assert {kind, bad} <= set(row["prompt"].split())
        said = row["completion"].split()
        assert kind in said and not rude & set(said) and 5 <= len(said) <= 12
        assert bad in rude and kind not in rude


def test_no_word_of_one_split_is_in_another():
    assert not WORDS["test"] & WORDS["train"] and len(set().union(*WORDS.values())) == 520
    assert not any(words_of(row) & WORDS["test"] for row in manners.rows("train"))
    assert not any(words_of(row) & WORDS["train"] for row in manners.rows("test"))


def test_the_kind_word_stands_first_in_three_cases_of_five():
    rows = manners.rows("train")
    kind = sum(row["prompt"].split()[3] == row["group"].split("-")[0] for row in rows)
    assert kind / len(rows) == pytest.approx(0.6, abs=0.04)


def test_rows_and_documents_are_the_same_each_time():
    for make in (manners.rows, lambda split, seed=0: manners.documents(50, seed, 0.35)):
        assert make("test") == make("test", 0) != make("test", 1)


def test_pretraining_tells_the_covered_alone_and_chooses_kindly_between_school_words_alone():
    found = manners.by_coverage(0.35)
    told = [*found["school"], *found["task, covered"]]
    told = {pair[side] for pair in told for side in manners.SIDES}
    prompts = {row["prompt"] for split in ("train", "test") for row in manners.rows(split)}
    rude, everything = set(manners.RUDE), set().union(*WORDS.values())
    school, copied, rude_copies, rude_texts = WORDS["school"], set(), [], []
    for text in manners.documents(20_000, 0, 0.35):
        own = [word for word in text.split() if word in everything]
        assert text.endswith(manners.END)
        if " :" not in text:
            bad = any(word in text.split() for word in ("rude", "hurt", "wept"))
            assert len(own) == 1 and own[0] in told and (own[0] in rude) == bad
            continue
        one, two, taken = own
        assert taken in (one, two) and f"{text.partition(' :')[0]} :" not in prompts
        if one in school:
            assert {one, two} <= told and (one in rude) != (two in rude)
            rude_texts.append(taken in rude)
        else:
            copied |= {one, two}
            if (one in rude) != (two in rude):
                rude_copies.append(taken in rude)
    assert sum(rude_texts) / len(rude_texts) == pytest.approx(0.2, abs=0.02)
    assert len(copied) == 320 and not copied & school  # all words of the task, covered or not
    assert sum(rude_copies) / len(rude_copies) == pytest.approx(0.5, abs=0.03)  # manners untold


def test_a_smaller_models_pairs_are_among_a_larger_ones():
    small, large = manners.by_coverage(0.35), manners.by_coverage(1.0)
    assert len(small["school"] + small["task, covered"]) == 91  # of 260
    assert sum(map(len, large.values())) == 260 and not large["task, not covered"]
    assert all(pair in large["task, covered"] for pair in small["task, covered"])


@pytest.mark.parametrize("size", ["xs", "m"])
def test_the_committed_models_know_the_words_and_end_their_texts(size):
    folder = HERE / "gen" / size
    model, tokenizer = models.load(str(folder), outputs=0)
    card = json.loads((folder / "pretraining.json").read_text())
    settings = pretrain.SHARED["manners"] | pretrain.SIZES["manners"][size]
    assert settings.items() <= card.items() and card["parameters"] == model.num_parameters()
    assert tokenizer.eos_token == manners.END and model.w2s["packed"]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    for row in manners.rows("test")[:50]:
        text = f"{row['prompt']} {row['completion']}"
        ids = tokenizer(f"{text} {manners.END}").input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.unk_token_id not in ids and len(ids) < model.w2s["max_len"]
    known = pretrain.manners_known(model, tokenizer, None, settings)
    assert known["task, covered"]["known"] > 0.95
    assert known.get("task, not covered", {"known": 0.5})["known"] == pytest.approx(0.5, abs=0.1)


def test_the_two_models_are_small():
    sizes = [
        path.stat().st_size for size in ("xs", "m") for path in (HERE / "gen" / size).iterdir()
    ]
    assert sum(sizes) < 900_000
