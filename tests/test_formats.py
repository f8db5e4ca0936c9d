"""Every prompt on rows of the documented schema: the label tells right from wrong, nothing else."""

import collections
import json
import os
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import slow

import eval
import formats
import tasks
import texts
from w2s import protocol, sources
from w2s.files import BadInput

FROM_HUB = [name for name in texts.TASKS if name != "facts"]
QUESTIONS = "cosmos_qa dream ethics_utilitarianism hellaswag openbookqa quail piqa".split()
QUESTIONS += ["quartz", "sciq", "social_i_qa"]
REAL = Path(__file__).resolve().parent.parent.parent / "shared/hub"
real = pytest.mark.skipif(not REAL.is_dir(), reason="needs real rows in ../shared/hub")


def example(name, split, i, label=None):
    """(source row i as documented, right answer, wrong answers), None where a row has a label.

    Three rows in a row are related. Strings have white space around them; prompts must not.
    """
    one = int(i % 3 == 1) if label is None else label  # a third of the rows are 1s: not balanced
    about, asks = (
        f' {split} passage {i // 3} : \n it is 5 %, {{so}} "they" say. ',
        f"why {split} {i} ?",
    )
    right, wrong = f"yes-{split}-{i}", [f"no-{split}-{i}-{k}" for k in "abc"]
    k = i % 4
    four = [*wrong[:k], right, *wrong[k:]]
    choices = {"choices": {"text": four, "label": list("ABCD")}, "answerKey": "ABCD"[k]}
    half, third = i % 2, i % 3
    made = {
        "boolq": {"passage": about, "question": asks, "answer": bool(one)},
        "cosmos_qa": {
            "context": about,
            "question": asks,
            **{f"answer{j}": a for j, a in enumerate(four)},
            "label": k,
        },
        "dream": {
            "dialogue": [about, "W: no."],
            "question": asks,
            "choice": four[:3] if k < 3 else four[1:],
            "answer": right,
        },
        "ethics_justice": {
            "scenario": f"I walk {split}{i // 3} every single day of my long life because {asks}",
            "label": one,
        },
        "ethics_deontology": {"scenario": about, "excuse": asks, "label": one},
        "ethics_virtue": {"scenario": f"{about.strip()} [SEP] {asks}", "label": one},
        "ethics_utilitarianism": {
            "baseline": f"I {split} {i // 3} eat a pie {right}",
            "less_pleasant": wrong[0],
        },
        "ethics_commonsense": {"input": asks, "is_short": str(i % 2 == 0), "label": one},
        "ethics_commonsense_long": {"input": asks, "is_short": str(i % 2 == 0), "label": one},
        "anli_r2": {"premise": about, "hypothesis": asks, "label": 0 if one else 1 + half},
        "hellaswag": {"ctx": about + asks, "endings": four, "label": str(k)},
        "mc_taco": {"sentence": about, "question": asks, "answer": right, "label": one},
        "openbookqa": {"question_stem": asks, **choices},
        "paws": {"sentence1": about, "sentence2": asks, "label": one},
        "quail": {"context": about, "question": asks, "answers": four, "correct_answer_id": k},
        "piqa": {
            "goal": about + asks,
            "sol1": wrong[0] if half else right,
            "sol2": right if half else wrong[0],
            "label": half,
        },
        "quartz": {"para": about, "question": asks, **choices},
        "sciq": {
            "question": asks,
            "correct_answer": right,
            **{f"distractor{j + 1}": a for j, a in enumerate(wrong)},
        },
        "social_i_qa": {"context": about, "question": asks, "label": str(third + 1)}
        | {f"answer{c}": a for c, a in zip("ABC", [*wrong[:third], right, *wrong[third:]])},
        "multirc": {"paragraph": about, "question": asks, "answer": right, "label": one},
        "wic": {"word": "bank", "sentence1": about, "sentence2": asks, "label": one},
        "amazon_polarity": {"title": about, "content": asks, "label": one},
        "civil_comments": {"text": asks, "toxicity": 0.5 if one else 0.25},
        "beavertails": {"prompt": about, "response": asks, "is_safe": bool(one)},
        "legal_overruling": {"text": asks, "answer": "Yes" if one else "No"},
        "legal_privacy_policy_qa": {
            "question": about,
            "text": asks,
            "answer": "Relevant" if one else "Irrelevant",
        },
        "safety_prompts": {"prompt": asks, "is_safe": bool(one)},
    }
    for plain, column in (
        ("cola", "sentence"),
        ("sst2", "sentence"),
        ("twitter_sentiment", "text"),
    ):
        made[plain] = {column: f" {asks} ", "label": one}
    return (made[name], right, wrong) if name in QUESTIONS else (made[name], None, None)


def put(folder, name, split, rows):
    """Write source rows where a mirror has them."""
    file = sources.mirrored(folder, texts.TASKS[name], split)
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """240 training and 96 test rows of every task; 9 training rows share a group with test rows."""
    folder = tmp_path_factory.mktemp("mirror")
    for name in FROM_HUB:
        for split in texts.TASKS[name]["splits"]:
            rows = [
                example(name, split, i)[0] for i in range(240 if split in ("train", "all") else 96)
            ]
            leak = [example(name, "test", i)[0] for i in range(9)] if split == "train" else []
            put(folder, name, split, rows + leak)
    return folder


@pytest.fixture
def mirrored(mirror, monkeypatch):
    monkeypatch.setenv("W2S_MIRROR", str(mirror))


def test_a_task_in_one_piece_is_read_once_for_a_half(mirrored, monkeypatch):
    data = protocol.describe(texts, "legal_overruling")
    wanted, reads, read = protocol.half(texts, data, "weak"), [], texts.read
    monkeypatch.setattr(texts, "read", lambda *asked: reads.append(asked) or read(*asked))
    assert protocol.half(texts, data, "weak") == wanted and len(reads) == 1
    tested = {row["group"] for row in protocol.test_rows(texts, data)}
    assert tested and not tested & {row["group"] for row in wanted}


def field(rows, name):
    return [row[name] for row in rows]


@pytest.mark.parametrize("name", FROM_HUB)
def test_the_label_says_whether_the_answer_is_right_and_nothing_else_tells(name, mirrored):
    """With X for the answer, or the other label, the prompts of 1s and 0s are the same."""
    rows = protocol.load(texts, name, "test")
    assert len(rows) > 20 and len(set(field(rows, "id"))) == len(rows)
    assert all(
        len(row["text"].rpartition("\n")[2]) <= 100 for row in rows
    )  # our question after the source's words
    if name not in QUESTIONS:
        for i in range(12):
            both = [
                texts.TASKS[name]["make"](sources.stripped(example(name, "test", i, label)[0]))
                for label in (0, 1)
            ]
            if both[0] is None:
                continue  # of the other of the two lengths
            assert both[0]["text"] == both[1]["text"] and [made["label"] for made in both] == [0, 1]
        return
    pairs = collections.defaultdict(dict)
    for row in rows:
        pairs[row["id"].rpartition("/")[0]][row["label"]] = row
    drawn = collections.Counter()
    for question, pair in pairs.items():
        _, right, wrong = example(name, "test", int(question.split("/")[-1]))
        said = [answer for answer in wrong if answer in pair[0]["text"]]
        assert right in pair[1]["text"] and pair[0]["group"] == pair[1]["group"]
        if (
            name == "ethics_utilitarianism"
        ):  # both situations stand in both; the 1 has the more pleasant one last
            assert pair[1]["text"].index(right) > pair[1]["text"].index(said[0])
            assert pair[0]["text"].index(right) < pair[0]["text"].index(said[0])
            continue
        assert (
            len(said) == 1
            and right not in pair[0]["text"]
            and not any(answer in pair[1]["text"] for answer in wrong)
        )
        assert pair[0]["text"].replace(said[0], "X") == pair[1]["text"].replace(right, "X")
        assert len(pair[1]["text"].rpartition(right)[2]) <= 100  # the answer is last
        drawn[said[0][-1]] += 1
    kinds = {"ethics_utilitarianism": 0, "piqa": 1}.get(name, 2 if name == "social_i_qa" else 3)
    assert len(drawn) >= min(kinds, 2)  # not always the first wrong answer


@pytest.mark.parametrize("name", FROM_HUB)
def test_the_protocol_holds_for_every_task(name, mirrored, capsys):
    data = protocol.describe(texts, name)
    weak, strong, test = (
        protocol.half(texts, data, "weak"),
        protocol.half(texts, data, "strong"),
        protocol.test_rows(texts, data),
    )
    sets = [
        {what: set(field(part, what)) for what in ("id", "group", "text")}
        for part in (weak, strong, test)
    ]
    for what in ("id", "group", "text"):
        assert not any(
            a[what] & b[what]
            for a, b in ((sets[0], sets[1]), (sets[0], sets[2]), (sets[1], sets[2]))
        )
    assert len(weak) >= 38 and abs(len(weak) - len(strong)) <= 8
    if "train" in texts.TASKS[name]["splits"]:
        assert (
            "share a group or a text with the test set" in capsys.readouterr().err
        )  # those that the mirror has on purpose
    labels = collections.Counter(field(weak + strong, "label"))
    assert max(labels.values()) <= 0.55 * len(weak + strong)
    lead, largest = 0, max(collections.Counter(field(test, "group")).values())
    for row in test:
        lead += 1 if row["label"] else -1
        assert abs(lead) <= largest
    assert lead == 0 and len(test) >= 10
    assert not any(
        "  " in row["text"][:2] or row["text"] != row["text"].strip()
        for row in weak + strong + test
    )
    fewer = protocol.describe(texts, name, n_train=20, n_test=10)
    assert (
        protocol.half(texts, fewer, "weak") == weak[:20]
        and protocol.half(texts, fewer, "strong") == strong[:20]
    )
    assert protocol.test_rows(texts, fewer) == test[:10]


@pytest.mark.parametrize("name", [name for name in FROM_HUB if texts.TASKS[name]["group"] != "row"])
def test_related_rows_share_a_group_in_train_and_in_test(name, mirrored):
    rows = protocol.load(texts, name, "test" if "test" in texts.TASKS[name]["splits"] else "train")
    groups = collections.defaultdict(set)
    for row in rows:
        number = int(row["id"].removesuffix("/right").removesuffix("/wrong").split("/")[-1])
        groups[row["group"]].add(number // 3)
    # of these the context or goal is in the example the question's own
    related = name not in ("hellaswag", "piqa", "openbookqa", "sciq")
    assert (
        all(len(numbers) == 1 for numbers in groups.values())
        or not related
        or name == "safety_prompts"
    )
    sizes = collections.Counter(field(rows, "group"))
    if related and name != "safety_prompts":
        assert set(sizes.values()) == {6 if name in QUESTIONS else 3}


def test_groups_of_justice_are_runs_that_begin_alike():
    scenarios = [
        "I used to jog daily in the old park but not today because it rains",
        "I used to jog daily in the old park but not today because I ate",
        "I deserve a medal because I won",
        "I deserve a raise because I work",
        "I used to sing",
    ]
    keys = formats.first_words(scenarios)
    assert keys[0] == keys[1] == "i used to jog daily in the old park but" and len(set(keys)) == 3
    assert (
        keys[2] == keys[3] == "i deserve a medal because i won"
        and formats.first_words(scenarios[:1]) == keys[:1]
    )


def test_a_pinned_digest_of_the_drawn_answers_and_the_order(mirrored):
    """Ids, drawn answers, groups and order are the same everywhere; a change moves every task."""
    import hashlib

    data = protocol.describe(texts, "dream", n_train=30, n_test=30)
    parts = [
        protocol.half(texts, data, "weak"),
        protocol.half(texts, data, "strong"),
        protocol.test_rows(texts, data),
    ]
    assert hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] == DIGEST


DIGEST = "feeb689912788716"


def test_building_test_reads_the_test_split_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    put(
        tmp_path,
        "ethics_virtue",
        "test_hard",
        [example("ethics_virtue", "test_hard", i)[0] for i in range(30)],
    )
    assert (
        len(protocol.test_rows(texts, protocol.describe(texts, "ethics_virtue"), "test_hard")) == 20
    )
    with pytest.raises(
        BadInput, match="holds no test rows of hendrycks/ethics.*--mirror=DIR ethics_virtue"
    ):
        protocol.test_rows(texts, protocol.describe(texts, "ethics_virtue"))
    with pytest.raises(BadInput, match="boolq has no test split 'test_hard'; it has test"):
        protocol.test_rows(texts, protocol.describe(texts, "boolq"), "test_hard")


def test_five_rows_about_one_scenario_of_which_one_is_true_make_a_large_test_set(
    tmp_path, monkeypatch
):
    """ETHICS virtue: every group has more 0s than 1s, so groups alone could never be balanced."""
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    rows = [
        {"scenario": f"Ann did thing {i // 5} [SEP] trait{i}", "label": int(i % 5 == 2)}
        for i in range(500)
    ]
    put(tmp_path, "ethics_virtue", "test", rows)
    test = protocol.test_rows(texts, protocol.describe(texts, "ethics_virtue"))
    assert len(test) == 200 and sum(field(test, "label")) == 100


def test_a_run_and_an_untrained_model_are_scored_on_the_hard_test_of_another_task(
    mirrored, tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    eval.main(model=tiny("gpt2"), ds="sst2", out="runs/zero", n_test=20)
    for name in ("ethics_justice", "ethics_commonsense_long"):
        for split in ("test", "test_hard"):
            eval.main("runs/zero", ds=name, split=split, n_test=20)
            predictions = [
                json.loads(line) for line in open(f"runs/zero/eval/{name}-{split}.jsonl")
            ]
            wanted = protocol.test_rows(texts, protocol.describe(texts, name, n_test=20), split)
            assert field(predictions, "id") == field(wanted, "id") and len(predictions) in (16, 20)
    metrics = json.loads(
        (tmp_path / "runs/zero/eval/ethics_justice-test_hard.metrics.json").read_text()
    )
    assert metrics["auroc"]["low"] <= metrics["auroc"]["value"] <= metrics["auroc"]["high"]


# ---- bad input


def spoiled(tmp_path, monkeypatch, name, change, n=30):
    """tasks.load on rows of which the fourth was changed."""
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    rows = [example(name, "test", i)[0] for i in range(n)]
    change(rows)
    put(tmp_path, name, "test", rows)
    return protocol.load(texts, name, "test")


@pytest.mark.parametrize(
    ("name", "column", "value", "told"),
    [
        ("cola", "label", -1, "row 3, is not as documented: it has 'label' as -1, not 0 or 1"),
        (
            "cosmos_qa",
            "label",
            4,
            "row 3, is not as documented: it has 'label' as 4, not 0 or 1 or 2 or 3",
        ),
        (
            "hellaswag",
            "label",
            "4",
            'has .label. as "4", not "0" or "1" or "2" or "3"',
        ),
        (
            "openbookqa",
            "answerKey",
            "E",
            'has .answerKey. as "E", not "A"',
        ),
        ("dream", "answer", "nowhere", "row 3: its columns do not fit together"),
        ("ethics_virtue", "scenario", "no trait", "row 3: its columns do not fit together"),
        ("legal_overruling", "answer", "Perhaps", 'not "Yes" or "No"'),
    ],
)
def test_a_value_that_is_not_documented_is_told(name, column, value, told, tmp_path, monkeypatch):
    split = "all" if name.startswith("legal") else "test"
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    rows = [example(name, split, i)[0] for i in range(30)]
    rows[3][column] = value
    put(tmp_path, name, split, rows)
    with pytest.raises(BadInput, match=told) as error:
        protocol.load(texts, name, "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "column", "values", "told"),
    [
        ("boolq", "answer", [1] * 30, "has 'answer' as 1, not true or false"),
        (
            "hellaswag",
            "label",
            list(range(4)) * 8,
            'has .label. as 0, not "0" or "1"',
        ),
        ("sst2", "label", ["1"] * 30, 'has .label. as "1", not 0 or 1'),
        (
            "dream",
            "choice",
            ["a"] * 30,
            'has .choice. as "a", not a list',
        ),
        ("quartz", "choices", [["a"]] * 30, 'has .choices. as .*"a".*, not an object'),
        ("civil_comments", "toxicity", ["high"] * 30, 'as "high", not a number'),
        ("sciq", "question", [7] * 30, "has 'question' as 7, not a text"),
    ],
)
def test_a_column_of_another_type_is_told(name, column, values, told, tmp_path, monkeypatch):
    def change(rows):
        for row, value in zip(rows, values):
            row[column] = value

    with pytest.raises(BadInput, match=told):
        spoiled(tmp_path, monkeypatch, name, change)


def test_a_missing_column_is_told_with_those_that_are_there(tmp_path, monkeypatch):
    def drop(rows):
        for row in rows:
            row["text"] = row.pop("sentence")

    with pytest.raises(
        BadInput,
        match="validation rows of nyu-mll/glue have no column 'sentence'; they have label, text",
    ):
        spoiled(tmp_path, monkeypatch, "cola", drop)


def test_empty_fields_are_left_out_counted_and_told(tmp_path, monkeypatch, capsys):
    def empty(rows):
        rows[3]["question"], rows[4]["answer"], rows[5]["choice"] = None, " ", ["", "a", "b"]
        rows[6]["choice"] = [rows[6]["answer"]] * 3  # one answer alone

    rows = spoiled(tmp_path, monkeypatch, "dream", empty)
    assert len(rows) == 2 * 26 and not any(
        f"/{i}/" in row["id"] for row in rows for i in (3, 4, 5, 6)
    )
    assert (
        "4 of 30 have an empty field or but one answer and are left out" in capsys.readouterr().err
    )


def test_a_double_of_the_right_answer_is_no_wrong_one(tmp_path, monkeypatch):
    def double(rows):
        for row in rows:
            row["choice"] = [row["answer"], row["answer"] + " ", "something else"]

    rows = spoiled(tmp_path, monkeypatch, "dream", double)
    assert all(("something else" in row["text"]) == (row["label"] == 0) for row in rows)


def test_a_test_set_too_small_to_balance_and_a_broken_file_are_told(tmp_path, monkeypatch):
    def all_ones(rows):
        for row in rows:
            row["label"] = 1

    spoiled(tmp_path, monkeypatch, "cola", all_ones)
    with pytest.raises(BadInput, match="cola: no balanced test set can be made"):
        protocol.test_rows(texts, protocol.describe(texts, "cola"))
    sources.mirrored(tmp_path, texts.TASKS["cola"], "test").write_bytes(b"PAR1 cut short")
    with pytest.raises(BadInput, match="validation.parquet cannot be read"):
        protocol.load(texts, "cola", "test")


def test_safety_prompts_come_from_a_csv_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.delenv("W2S_MIRROR", raising=False)
    with pytest.raises(
        BadInput,
        match="not on the hub: put safety.csv of .*, at DIR/yeruimeng/WTS/safety/train.csv",
    ):
        protocol.load(texts, "safety_prompts", "test")
    monkeypatch.setenv("W2S_MIRROR", str(tmp_path))
    file = tmp_path / "yeruimeng/WTS/safety/train.csv"
    file.parent.mkdir(parents=True)
    file.write_text(
        "prompt,is_safe\n"
        + "".join(f'"how, do ""I""\nbake {i}?",{bool(i % 2)}\n' for i in range(50))
    )
    rows = protocol.load(texts, "safety_prompts", "train")
    assert (
        len(rows) == 40
        and rows[0]["text"].startswith('how, do "I"\nbake')
        and set(field(rows, "label")) == {0, 1}
    )


def test_a_large_split_is_drawn_from_always_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "MAX_ROWS", 25)
    rows = spoiled(tmp_path, monkeypatch, "cola", lambda rows: None, n=300)
    assert len(rows) == 25 and rows == protocol.load(texts, "cola", "test")
    assert rows[-1]["text"].startswith(
        f"why test {rows[-1]['id'].split('/')[-1]} ?"
    )  # ids stay those of the source
    assert "300: 25 are drawn" in capsys.readouterr().err


def test_the_table_has_a_line_for_every_split(capsys):
    tasks.main()
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split()[1:7] == ["mc_taco", "train", "=", "test", "9442", ".339"] for line in lines
    )
    assert any(
        "ca4c45feaf089ecfc375" in line and "dialogue" in line and " ? " in line for line in lines
    )
    assert {line.split()[1] for line in lines[3:]} == set(tasks.TASKS)
    assert {line.split()[0] for line in lines[3:]} == {"texts", "pairs", "moves", "writing"}


# ---- real rows


def counts():
    """(task, split) of everything that ../shared/hub has."""
    return [
        (name, split)
        for name in FROM_HUB
        for split in texts.TASKS[name]["splits"]
        if sources.mirrored(REAL, texts.TASKS[name], split).is_file()
    ]


@slow
@real
@pytest.mark.parametrize(("name", "split"), counts())
def test_real_rows_have_the_counts_and_the_balance_on_record(name, split, monkeypatch, capsys):
    monkeypatch.setenv("W2S_MIRROR", str(REAL))
    rows = texts.read(name, split)
    _, known, ones = texts.TASKS[name]["splits"][split]
    assert (
        "on record" not in capsys.readouterr().err
    )  # read() compares the source's rows with the count on record
    assert known and sum(field(rows, "label")) / len(rows) == pytest.approx(ones, abs=6e-4)


@real
def test_real_groups_of_four_and_five_are_whole_in_the_test_sets(monkeypatch):
    """justice and deontology 4, virtue 5: true of the test sets, not of the training rows."""
    monkeypatch.setenv("W2S_MIRROR", str(REAL))
    for name, size, whole in (
        ("ethics_deontology", 4, 1),
        ("ethics_virtue", 5, 1),
        ("ethics_justice", 4, 0.97),
    ):
        for split in ("test", "test_hard"):
            groups = field(protocol.load(texts, name, split), "group")
            kept = [len(set(groups[i : i + size])) == 1 for i in range(0, len(groups), size)]
            assert sum(kept) / len(kept) >= (whole if split == "test" or whole == 1 else 0.96)


@slow
@real
def test_thirty_thousand_real_rows_take_less_than_a_gigabyte():
    import subprocess

    # VmHWM, not ru_maxrss: that starts at what pytest, the caller, has
    peak = "int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    code = "import re, tasks, texts; from w2s import protocol; "
    code += f"print(len(protocol.load(texts, 'multirc', 'train')), {peak})"
    env = os.environ | {"W2S_MIRROR": str(REAL)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env,
        cwd=Path(tasks.__file__).parent,
    )
    n, kilobytes = map(int, done.stdout.split())
    assert n > 27_000 and kilobytes < 1_000_000
