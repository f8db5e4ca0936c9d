"""The protocol: one balanced test set, halves by group, a smaller request a prefix of a larger."""

import collections
import functools
import hashlib
import json
import random
import subprocess
import sys
import time

import pytest
from games import some_puzzles

import moves
import pairs
import tasks
import texts
import world
from w2s import files, folders, hub, protocol
from w2s.files import BadInput


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def own(tmp_path, n=400, per_group=4, seed=0, positive=0.5, name="own"):
    rng = random.Random(seed)
    return write(
        tmp_path / f"{name}.jsonl",
        [
            {
                "id": f"r{i}",
                "group": f"g{i // per_group}",
                "text": f"text {i}",
                "label": int(rng.random() < positive),
            }
            for i in range(n)
        ],
    )


def every_half_and_test(ds, **options):
    data = protocol.describe(texts, ds, **options)
    weak, strong = (protocol.half(texts, data, which) for which in ("weak", "strong"))
    return weak, strong, protocol.test_rows(texts, data)


def names(rows, field="id"):
    return [row[field] for row in rows]


def test_facts_are_the_same_everywhere():
    """Ids, texts and labels must never change, or published numbers could not be compared."""
    rows = [protocol.load(texts, "facts", split) for split in ("train", "test")]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (len(rows[0]), len(rows[1]), digest[:16]) == (
        world.N_TRAIN * 4,
        world.N_TEST * 4,
        DIGEST,
    )


DIGEST = "e67a6221e0788982"


def test_the_answer_is_yes_just_when_the_label_says_so():
    truth = {person["name"]: person for person in world.people()}
    for row in protocol.load(texts, "facts", "test"):
        _, relation, _, *name, _, value, _ = row["text"].split()
        assert row["label"] == (truth[" ".join(name)][relation] == value)
    assert set(" ".join(names(protocol.load(texts, "facts", "test"), "text")).split()) <= set(
        world.VOCABULARY
    )


def test_school_train_and_test_people_are_different_people():
    people = world.people()
    assert len({person["name"] for person in people}) == len(people)
    assert collections.Counter(person["kind"] for person in people) == {
        "school": world.N_SCHOOL, "train": world.N_TRAIN, "test": world.N_TEST,
    }  # fmt: skip


@pytest.mark.parametrize("data_seed", [0, 1])
def test_halves_and_test_share_no_group_and_no_text(tmp_path, data_seed):
    for ds in ("facts", own(tmp_path)):
        parts = every_half_and_test(ds, data_seed=data_seed)
        for field in ("id", "group", "text"):
            weak, strong, test = (set(names(part, field)) for part in parts)
            assert not weak & strong and not weak & test and not strong & test
        assert abs(len(parts[0]) - len(parts[1])) <= 4


def test_own_rows_are_cut_40_40_20(tmp_path):
    weak, strong, test = every_half_and_test(own(tmp_path, 1000, per_group=1))
    assert len(weak) + len(strong) == 800 and abs(len(weak) - 400) <= 1 and 170 <= len(test) <= 200


def test_the_data_seed_moves_the_halves_and_nothing_moves_the_test_set(tmp_path):
    for ds in ("facts", own(tmp_path)):
        first, second = (
            every_half_and_test(ds, data_seed=seed, n_train=n) for seed, n in ((0, None), (1, 50))
        )
        assert names(first[2]) == names(second[2])
        assert set(names(first[0])) != set(names(second[0]))
        again = every_half_and_test(ds, data_seed=0)
        assert [names(part) for part in first] == [names(part) for part in again]


def test_a_smaller_request_is_a_prefix_of_a_larger(tmp_path):
    """openai/weak-to-strong's bug F takes the first n rows of the file before shuffling."""
    for ds in ("facts", own(tmp_path)):
        small, large = (every_half_and_test(ds, n_train=n, n_test=n) for n in (20, 40))
        for a, b in zip(small, large):
            assert (len(a), len(b)) == (20, 40) and names(a) == names(b)[:20]
        in_file_order = names(protocol.load(texts, ds, "train"))[:20]
        assert set(names(small[0])) != set(in_file_order)


def test_the_test_set_is_balanced_and_so_is_every_prefix(tmp_path):
    lopsided = own(tmp_path, 3000, per_group=3, positive=0.7)
    for ds in ("facts", lopsided):
        rows = protocol.test_rows(texts, protocol.describe(texts, ds))
        lead, largest = 0, max(collections.Counter(names(rows, "group")).values())
        for row in rows:
            lead += 1 if row["label"] else -1
            assert abs(lead) <= largest
        assert lead == 0 and len(rows) > 100


def test_a_class_over_55_percent_is_cut_to_balance_and_one_below_is_left():
    def rows(ones, zeros):
        return [{"id": str(i), "label": int(i < ones)} for i in range(ones + zeros)]

    assert collections.Counter(names(protocol.balanced(rows(56, 44)), "label")) == {1: 44, 0: 44}
    assert collections.Counter(names(protocol.balanced(rows(30, 70)), "label")) == {1: 30, 0: 30}
    assert protocol.balanced(rows(55, 45)) == rows(55, 45)
    assert names(protocol.balanced(rows(60, 40))) != names(
        rows(40, 40)
    )  # drawn, not the first ones


def test_training_rows_that_share_a_group_or_a_text_with_test_are_left_out(tmp_path):
    train = [
        {"id": f"r{i}", "group": f"g{i}", "text": f"text {i}", "label": i % 2} for i in range(100)
    ]
    test = [
        {"id": f"t{i}", "group": f"g{i}", "text": f"other {i}", "label": i % 2} for i in range(10)
    ]
    test += [{"id": f"u{i}", "text": f"text {i}", "label": i % 2} for i in range(10, 20)]
    ds, held = write(tmp_path / "train.jsonl", train), write(tmp_path / "test.jsonl", test)
    weak, strong, rows = every_half_and_test(ds, test=held)
    assert len(rows) == 20 and {row["id"] for row in weak + strong} == {
        f"r{i}" for i in range(20, 100)
    }


@pytest.mark.parametrize("joined", ["train", "test"])
def test_a_tested_group_is_in_no_half_whatever_name_it_has_where_groups_are_joined(
    joined, tmp_path
):
    """Groups a and b share a text in one of the files: b is called a there, and only there."""
    files = {"train": [(f"c{i}", f"c {i}") for i in range(90)], "test": [("b", "1"), ("b", "2")]}
    files["train"] += [(group, f"{group} {i}") for group in "ab" for i in range(9)]
    files[joined] += [("a", "the same"), ("b", "the same")]
    paths = {}
    for name, rows in files.items():
        rows = [{"group": g, "text": text, "label": i % 2} for i, (g, text) in enumerate(rows)]
        paths[name] = write(tmp_path / f"{name}.jsonl", rows)
    weak, strong, _ = every_half_and_test(paths["train"], test=paths["test"])
    assert len(weak + strong) > 80 and not [x for x in weak + strong if x["text"].startswith("b ")]


def test_a_file_that_has_all_fields_of_a_setting_is_of_it_whatever_else_it_has(tmp_path):
    rows = [{"prompt": "p", "completion": " c", "label": 1}]
    assert tasks.setting_of(write(tmp_path / "kto.jsonl", rows)) is tasks.writing


def test_equal_ids_in_a_training_file_and_a_test_file_mean_nothing(tmp_path, capsys):
    train = [{"id": i, "text": f"text {i}", "label": i % 2} for i in range(100)]
    test = [{"id": i, "text": f"other {i}", "label": i % 2} for i in range(20)] + [train[50]]
    (tmp_path / "held").mkdir()  # nor do equal names of the files
    parts = every_half_and_test(
        write(tmp_path / "a.jsonl", train), test=write(tmp_path / "held/a.jsonl", test[1:])
    )
    assert (
        len(parts[0] + parts[1]) == 99
        and "1 training rows share a group or a text" in capsys.readouterr().err
    )


def test_own_rows_without_ids_get_their_line_numbers(tmp_path):
    file = write(tmp_path / "mine.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(10)])
    rows = texts.read(file, "train")
    assert names(rows)[:2] == ["mine/1", "mine/2"] and len(set(names(rows, "group"))) == 10


def test_own_rows_of_the_same_text_stay_together(tmp_path):
    rows = [{"text": f"text {i % 50}", "label": i % 2} for i in range(200)]
    weak, strong, test = (
        set(names(part, "text"))
        for part in every_half_and_test(write(tmp_path / "mine.jsonl", rows))
    )
    assert weak and strong and test and not weak & strong and not (weak | strong) & test


def test_a_group_larger_than_the_test_set_is_passed_over():
    rows = [
        {"id": str(i), "group": "large" if i < 450 else str(i), "label": i % 2} for i in range(1000)
    ]
    rest, test = protocol.cut_test(rows)
    assert len(test) == 200 and len(rest) == 800 and "large" not in names(test, "group")


def test_sst2_comes_from_the_mirror_formatted_and_balanced(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "nyu-mll/glue/sst2"
    folder.mkdir(parents=True)
    for split, n in (("train", 200), ("validation", 60)):
        rows = [
            {"sentence": f"{split} words {i} ", "label": int(i % 5 > 1), "idx": i} for i in range(n)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}.parquet")
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    weak, strong, test = every_half_and_test("sst2")
    assert (
        test[0]["text"].endswith("\nIs this review positive?") and test[0]["group"] == test[0]["id"]
    )
    assert len(weak) == len(strong) == 80 and collections.Counter(
        names(weak + strong, "label")
    ) == {0: 80, 1: 80}
    assert len(test) == 48 and test[0]["id"].startswith("sst2/validation/")
    (folder / "train.parquet").unlink()
    assert (
        protocol.test_rows(texts, protocol.describe(texts, "sst2")) == test
    )  # the test split alone is read
    with pytest.raises(BadInput, match="holds no train rows of nyu-mll/glue"):
        protocol.half(texts, protocol.describe(texts, "sst2"), "weak")


def test_a_hub_out_of_reach_is_told_at_once_naming_the_mirror(monkeypatch):
    monkeypatch.delenv("W2S_MIRROR", raising=False)
    monkeypatch.setattr(hub, "cached", lambda *_: False)
    for ask in (
        lambda: protocol.half(texts, protocol.describe(texts, "sst2"), "weak"),
        lambda: folders.find_model("openai-community/gpt2")[0],
    ):
        with pytest.raises(BadInput, match="the hub is out of reach .*W2S_MIRROR=DIR") as error:
            ask()
        assert "\n" not in str(error.value)


def test_a_hub_out_of_reach_is_no_trouble_for_what_is_in_its_cache(monkeypatch, capsys):
    monkeypatch.setattr(hub, "cached", lambda *_: True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert folders.find_model("openai-community/gpt2")[0] == "openai-community/gpt2"
    assert "using the cached copy" in capsys.readouterr().err


def test_a_gated_or_missing_model_is_told(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    for raised, told in (
        (errors.GatedRepoError, "is gated: .*HF_TOKEN"),
        (errors.RepositoryNotFoundError, "has no model"),
    ):

        def refuse(*_, raised=raised, **__):
            raise raised.__new__(raised)  # their __init__ wants a whole HTTP response

        monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", refuse)
        with pytest.raises(BadInput, match=told):
            folders.find_model("meta-llama/Llama-3.1-8B")[0]


def test_unknown_tasks_splits_and_changed_files_are_told(tmp_path):
    with pytest.raises(BadInput, match="unknown task .sst3. .did you mean sst2"):
        tasks.setting_of("sst3")
    for call in (tasks.setting_of, lambda ds: protocol.describe(texts, ds)):
        with pytest.raises(BadInput, match="no.jsonl does not exist"):
            call("no.jsonl")
    with pytest.raises(BadInput, match="has no test split 'test_hard'"):
        protocol.test_rows(texts, protocol.describe(texts, "facts"), "test_hard")
    for split in ("train", "weka"):
        with pytest.raises(BadInput, match=f"has no split '{split}'; it has weak, strong, test"):
            tasks.main("facts", split=split)
    with pytest.raises(BadInput, match="facts: it is no task of the hub"):
        tasks.main("facts", mirror=str(tmp_path))
    with pytest.raises(BadInput, match="--test goes with a JSONL file of your own"):
        protocol.describe(texts, "facts", test=own(tmp_path))
    data = protocol.describe(texts, own(tmp_path))
    own(tmp_path, seed=1)
    with pytest.raises(BadInput, match="is gone or has changed"):
        protocol.half(texts, data, "weak")
    with pytest.raises(BadInput, match="no balanced test set"):
        protocol.test_rows(texts, protocol.describe(texts, own(tmp_path, positive=1.0)))


def test_held_out_rows_are_a_tenth_of_the_groups_and_at_least_100_rows(tmp_path):
    def cut(n, n_val=None, per_group=4):
        rows = [{"id": str(i), "group": str(i // per_group)} for i in range(n)]
        train, held_out = files.hold_out(rows, n_val, batch_size=1)
        assert sorted(names(train + held_out), key=int) == names(rows)
        assert not set(names(train, "group")) & set(names(held_out, "group"))
        return len(held_out)

    assert (cut(4000), cut(400), cut(200), cut(80), cut(400, 0), cut(400, 10)) == (
        400,
        100,
        100,
        8,
        0,
        12,
    )
    with pytest.raises(BadInput, match="are fewer than one batch: .*--batch_size than 32"):
        files.hold_out([{"id": str(i), "group": str(i)} for i in range(34)], None, 32)


def test_rows_are_printed_as_jsonl(capsys):
    tasks.main("facts", n=3)
    assert [
        json.loads(line) for line in capsys.readouterr().out.splitlines()
    ] == protocol.test_rows(texts, protocol.describe(texts, "facts"))[:3]
    tasks.main()
    assert "nyu-mll/glue" in capsys.readouterr().out


# ---- one normalised text


def test_spellings_of_a_text_are_one_text():
    same = [" It 's  GOOD .", "it's good", "It’s good!!", "it\n's - good"]
    assert len({protocol.same_text(text) for text in same}) == 1
    for a, b in (("3 < 4", "3 > 4"), ("?", "!"), ("C", "C++"), ("no", "now"), ("हिन्दी", "हन्द")):
        assert protocol.same_text(a) != protocol.same_text(b)


def test_a_text_spelled_otherwise_is_known_again_in_test_and_in_the_other_half(tmp_path, capsys):
    train = [{"text": f"Text {i // 2} !"[i % 2 :], "label": i // 2 % 2} for i in range(200)]
    train += [{"text": f"{row['text'].upper()}.", "label": row["label"]} for row in train]
    test = [{"text": f"text {i}.", "label": i % 2} for i in range(20)]
    weak, strong, held = every_half_and_test(
        write(tmp_path / "train.jsonl", train), test=write(tmp_path / "test.jsonl", test)
    )
    assert "40 training rows share a group or a text with the test set" in capsys.readouterr().err
    parts = [{protocol.same_text(row["text"]) for row in part} for part in (weak, strong, held)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert len(weak + strong) == 360


def test_groups_that_share_a_text_are_one(tmp_path):
    rows = [
        {"group": f"g{i}", "text": f"text {(i + i % 2) % 60}", "label": i % 2} for i in range(120)
    ]
    weak, strong, test = every_half_and_test(write(tmp_path / "own.jsonl", rows))
    sides = [set(names(part, "text")) for part in (weak, strong, test)]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    chain = [{"group": f"g{i}", "text": f"t{i // 2}"} for i in range(8)]
    chain += [{"group": f"g{i}", "text": f"u{(i + 1) // 2}"} for i in range(8)]
    assert {row["group"] for row in protocol.joined(texts, chain)} == {"g0"}


def test_a_passage_spelled_otherwise_is_the_same_group(tmp_path, monkeypatch):
    """ETHICS virtue: 859 training rows are about a scenario of a test set in another spelling."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "hendrycks/ethics/virtue"
    folder.mkdir(parents=True)
    for split, name in (("train", "Ann"), ("test", "ANN,"), ("test_hard", "Bob")):
        made = [{"scenario": f"{name} ran {i} [SEP] {split}{i}", "label": i % 2} for i in range(40)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), folder / f"{split}.parquet")
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    with pytest.raises(BadInput, match="no training rows are left, .*all of them are tested"):
        protocol.half(texts, protocol.describe(texts, "ethics_virtue"), "weak")


def test_a_text_with_both_labels_is_told(tmp_path, capsys):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(100)]
    rows += [{"text": f"Text {i}!", "label": 1 - i % 2} for i in range(100)]
    every_half_and_test(write(tmp_path / "own.jsonl", rows))
    told = capsys.readouterr().err
    assert "own: 160 training rows, 80 of the texts have both labels" in told
    assert "own: 40 test rows, 20 of the texts have both labels" in told
    every_half_and_test("facts")
    assert "both labels" not in capsys.readouterr().err


# ---- sizes


def test_a_prefix_that_is_uneven_is_told_with_its_share(tmp_path, capsys):
    """multirc --n_test=50 is 74 % ones: passages with many answers stay together."""
    rows = [
        {"id": f"r{i}", "group": f"g{i // 20}", "text": f"text {i}", "label": i // 20 % 2}
        for i in range(4000)
    ]
    ds = own(tmp_path, 20)
    test = write(tmp_path / "test.jsonl", rows)
    data = protocol.describe(texts, ds, n_test=50, test=test)
    ones = sum(names(protocol.test_rows(texts, data), "label"))
    assert ones in (20, 30)
    told = f"own: the first 50 of 4000 test rows are {ones / 50:.0%} ones"
    assert told in capsys.readouterr().err
    for n in (40, 41, None):
        protocol.test_rows(texts, data | {"n_test": n})
        assert "ones" not in capsys.readouterr().err


def test_a_training_set_that_early_stopping_eats_up_is_told(capsys):
    rows = [{"id": str(i), "group": str(i)} for i in range(1000)]
    assert len(files.hold_out(rows[:200], None, 32)[0]) == 100
    told = "100 rows to train on (100 of 200 are held out, see --n_val) are few"
    assert told in capsys.readouterr().err
    files.hold_out(rows, None, 32)
    files.hold_out(rows[:200], 40, 32)
    assert capsys.readouterr().err == ""


def test_a_row_of_an_own_file_costs_the_same_however_many_there_are(tmp_path, monkeypatch):
    """Its path was taken apart for every row, half of the time; texts are hashed once."""
    calls = {"paths": 0, "texts": 0}

    def counted(name, call):
        def count(*words):
            calls[name] += 1
            return call(*words)

        return count

    monkeypatch.setattr(protocol, "Path", counted("paths", protocol.Path))
    monkeypatch.setattr(texts, "same", counted("texts", texts.same))
    seen = []
    for n in (200, 400):
        path = tmp_path / f"{n}.jsonl"
        rows = ({"text": f"{n} rows, {i}", "label": i % 2} for i in range(n))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        protocol.half(texts, protocol.describe(texts, str(path)), "weak")
        seen.append(calls)
        calls = dict.fromkeys(calls, 0)
    assert seen[0]["paths"] == seen[1]["paths"] < 20
    assert [one["texts"] for one in seen] == [200, 400]


def test_cutting_is_linear_in_the_rows():
    """Of 40,000 groups balanced_test took 15 s."""
    rows = [
        {"id": str(i), "group": str(i // 2), "text": str(i), "label": i // 2 % 3 % 2}
        for i in range(40_000)
    ]
    began = time.process_time()
    assert sum(names(protocol.balanced_test(rows), "label")) > 10_000
    protocol.cut_test(rows)
    files.hold_out(rows, 39_000, 32)
    protocol.joined(texts, [row | {"text": "one"} for row in rows])
    assert time.process_time() - began < 2


# ---- settings


PINNED = {  # sha256 of weak half, strong half and test rows: published numbers stand on them
    "facts": "08881a8e7181b533",
    "facts_pairs": "b7022692526a753d",
    "puzzles": "ae3c7f97bb4dfa39",
}


@pytest.mark.parametrize("ds", PINNED)
def test_pinned_rows_of_the_tasks_that_are_made_here(ds, monkeypatch):
    setting = tasks.setting_of(ds)
    monkeypatch.setattr(setting, "read", functools.cache(setting.read))  # once is enough
    data = protocol.describe(setting, ds, n_train=200)
    rows = [protocol.half(setting, data, which) for which in ("weak", "strong")]
    rows.append(protocol.test_rows(setting, data))
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == PINNED[ds]


def test_a_task_or_the_first_row_of_a_file_says_the_setting(tmp_path):
    for ds, setting in (("sst2", texts), ("shp", pairs), ("lichess", moves)):
        assert tasks.setting_of(ds) is setting
    for row, setting in (
        ({"prompt": "e4", "target": "e5", "text": "e4"}, moves),
        ({"prompt": "p", "a": "x", "b": "y", "label": 1, "weak": 0.5}, pairs),
        ({"text": "x", "a": 1, "label": 0}, texts),
    ):
        assert tasks.setting_of(write(tmp_path / "own.jsonl", [row, {}])) is setting
    for row in ({"question": "x"}, {}):
        with pytest.raises(
            BadInput, match="own.jsonl:1 has .*; it must have text label .rows., or"
        ):
            tasks.setting_of(write(tmp_path / "own.jsonl", [row]))
    (tmp_path / "own.jsonl").write_text("[1]\n")
    with pytest.raises(BadInput, match="own.jsonl:1 is not a JSON object"):
        tasks.setting_of(str(tmp_path / "own.jsonl"))


def test_default_models_follow_the_task():
    small = ("facts/xs", "facts/m")
    assert tasks.default_models("facts") == tasks.default_models("facts_pairs") == small
    assert tasks.default_models("puzzles") == tasks.default_models("lichess")
    assert tasks.default_models("puzzles") == ("chess/xs", "chess/m")
    assert tasks.default_models("own.jsonl") == tasks.default_models("sst2") == tasks.MODELS


def test_texts_need_neither_torch_nor_the_package_chess():
    code = "import sys; sys.modules['chess'] = None; import tasks; tasks.main('facts', n=1)"
    code += "; print(*{'torch', 'transformers', 'datasets', 'tqdm'} & sys.modules.keys())"
    folder = tasks.__file__.removesuffix("tasks.py")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    row, loaded = done.stdout.splitlines()
    assert json.loads(row)["label"] in (0, 1) and not loaded


@pytest.mark.parametrize("setting", ["pairs", "moves"])
def test_rows_of_every_setting_are_printed(setting, tmp_path, capsys):
    own = write(tmp_path / "own.jsonl", some_puzzles(30))
    ds = {"pairs": "facts_pairs", "moves": own}[setting]
    tasks.main(ds, split="strong", n=2)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    setting = tasks.setting_of(ds)
    data = protocol.describe(setting, ds, n_train=2)
    assert rows == protocol.half(setting, data, "strong") and len(rows) == 2
