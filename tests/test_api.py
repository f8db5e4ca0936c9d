"""api.py: the exported file by the provider's rules, and answers of a server that has faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai_rules
import openai_stub
import pytest
from conftest import CARD

import api
import served
import tasks
from w2s import files, locks, protocol, records
from w2s.files import HERE, BadInput

KEY = "sk-test-4711"
DATA = {"n_train": 60, "n_test": 40}


@pytest.fixture
def labels(tmp_path, monkeypatch):
    """runs/labels.jsonl as label.py leaves it, of 60 rows of facts; its rows are returned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    data = protocol.describe(tasks.texts, "facts", **DATA)
    rows = protocol.half(tasks.texts, data, "strong")
    for i, row in enumerate(rows):
        row["weak"] = [0.1, 0.5, 0.74, 0.9][i % 4]
    card = CARD | {"data": data, "supervisors": ["a weak model"]}
    files.write_jsonl("runs/labels.jsonl", rows, card)
    return rows


@pytest.fixture
def openai():
    return pytest.importorskip("openai")


@pytest.fixture(scope="module")
def truth():
    """{text: label} of the test rows."""
    data = protocol.describe(tasks.texts, "facts", **DATA)
    return {row["text"]: row["label"] for row in protocol.test_rows(tasks.texts, data)}


def read(path):
    return [json.loads(line) for line in open(path)]


def ask(server, out="runs/run", **options):
    given = {"model": "m", "base_url": server.url, "ds": "facts", "n_test": 40, "out": out}
    api.main("answer", **given | options)
    return read(f"{out}/eval/facts-{options.get('split', 'test')}.jsonl")


# ---- export


def test_the_exported_file_is_what_the_provider_takes(labels, capsys):
    api.main("export")
    assert not openai_rules.problems(Path("runs/chat.jsonl"))
    lines, said = read("runs/chat.jsonl"), capsys.readouterr().out
    assert [line["messages"][1]["content"] for line in lines] == [row["text"] for row in labels]
    assert {line["messages"][0]["content"] for line in lines} == {api.SYSTEM}
    answers = [line["messages"][2] for line in lines]
    assert answers == [
        {"role": "assistant", "content": "1" if row["weak"] > 0.5 else "0"} for row in labels
    ]
    # a message's frame is 4 tokens, a line's 3
    texts = [one["content"] for line in lines for one in line["messages"]]
    tokens = sum(4 + -(-len(text) // 4) for text in texts) + 3 * 60
    assert f"60 lines, {sum(row['weak'] > 0.5 for row in labels) / 60:.1%}" in said
    if "characters / 4" in said:
        assert f"{tokens:,} tokens" in said and f"{3 * tokens:,} in 3 epochs" in said
    card = files.read_card("runs/chat.jsonl")
    assert (card["supervisor"], card["labels_from"]) == (["a weak model"], "label")
    assert card["args"]["system"] == api.SYSTEM and card["rows"] == 60
    before = files.sha256("runs/chat.jsonl")
    api.main("export")
    assert "already done" in capsys.readouterr().out and files.sha256("runs/chat.jsonl") == before


@pytest.mark.parametrize("n, epochs", [(10, 10), (33, 3), (50, 3), (8400, 2), (12_600, 1)])
def test_the_epochs_are_the_cookbooks(n, epochs, labels, monkeypatch, capsys):
    rows = [{"id": str(i), "group": str(i), "text": "a ?", "label": 1, "weak": 1} for i in range(n)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    api.main("export", "own.jsonl")
    assert f"in {epochs} epochs" in capsys.readouterr().out


def test_the_ceiling_learns_the_truth_of_the_same_rows(labels):
    api.main("export", target="truth")
    lines = read("runs/chat_truth.jsonl")
    assert [line["messages"][2]["content"] for line in lines] == [f"{r['label']}" for r in labels]


def test_soft_labels_are_copies_in_proportion(labels):
    api.main("export", soft=4)
    lines, copies = read("runs/chat.jsonl"), {}
    assert len(lines) == 240 and not openai_rules.problems(Path("runs/chat.jsonl"))
    for line in lines:
        said = copies.setdefault(line["messages"][1]["content"], [])
        said.append(line["messages"][2]["content"])
    by_weak = {row["weak"]: "".join(copies[row["text"]]) for row in labels}
    assert {weak: said.count("1") for weak, said in by_weak.items()} == {
        0.1: 0, 0.5: 2, 0.74: 3, 0.9: 4
    }  # fmt: skip
    assert by_weak[0.5] == "0101"  # not the ones last: a pass is as mixed as the labels
    texts = [line["messages"][1]["content"] for line in lines]
    assert texts == [row["text"] for row in labels] * 4


def test_the_checker_finds_what_is_wrong(tmp_path):
    """So that its silence means something."""
    good = {"messages": [*served.prompt("s", "t"), {"role": "assistant", "content": "1"}]}
    file = tmp_path / "chat.jsonl"
    user, says = good["messages"][1:]
    for bad, told in [
        ({"messages": good["messages"][:2]}, "the roles"),
        ({"messages": [user, {"role": "assistant", "content": ""}]}, "without content"),
        ({"messages": [user, {"role": "robot", "content": "1"}]}, "the role"),
        ({"messages": [user, says | {"prob": 1}]}, "a message with"),
        ({"messages": [says]}, "the roles"),
        ({"messages": [user | {"content": "x" * 70_000}, says]}, "more tokens"),
        ({"text": "t"}, "no list"),
    ]:
        file.write_text("".join(json.dumps(line) + "\n" for line in [good] * 9 + [bad]))
        assert [one for one in openai_rules.problems(file) if told in one and "line 10" in one]
    file.write_text((json.dumps(good) + "\n") * 9)
    assert openai_rules.problems(file) == ["9 examples, fewer than 10"]
    file.write_text((json.dumps(good) + "\n") * 10)
    assert openai_rules.problems(file) == []


def own_labels(texts):
    rows = [{"id": str(i), "text": t, "label": 1, "weak": 1} for i, t in enumerate(texts)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "own.jsonl"


def test_what_the_provider_would_refuse_is_not_written(labels, monkeypatch):
    with pytest.raises(BadInput, match="9 lines are too few"):
        api.main("export", own_labels(["a ?"] * 9), out="x.jsonl")
    long = own_labels(["a ?"] * 20 + ["b c " * 120_000])
    with pytest.raises(BadInput, match=r"row '20' has 1\d\d,\d\d\d tokens"):
        api.main("export", long, out="x.jsonl", soft=2)
    monkeypatch.setattr(api, "LARGEST", 9_000)
    with pytest.raises(BadInput, match="bytes, the provider takes 9,000"):
        api.main("export", out="x.jsonl")
    with pytest.raises(BadInput, match="--system is blank"):
        api.main("export", out="x.jsonl", system=" ")
    assert not Path("x.jsonl").exists() and not Path("x.card.json").exists()


def test_only_texts_are_exported_and_nothing_else_is_overwritten(labels):
    pair = {"id": "1", "group": "1", "prompt": "p", "a": "x", "b": "y", "label": 1, "weak": 0.5}
    Path("pairs.jsonl").write_text(json.dumps(pair) + "\n")
    with pytest.raises(BadInput, match="pairs.jsonl holds pairs: api.py is for texts"):
        api.main("export", "pairs.jsonl")
    with pytest.raises(BadInput, match="was made by label.py"):
        api.main("export", out="runs/labels.jsonl", force=True)
    api.main("export")
    with pytest.raises(BadInput, match="soft was 1, now 2"):
        api.main("export", soft=2)


def test_options_of_the_other_command_are_refused(labels):
    for command, option in (("export", {"jobs": 2}), ("answer", {"soft": 2})):
        with pytest.raises(BadInput, match=f"--{[*option][0]} goes with api.py"):
            api.main(command, **option)
    with pytest.raises(BadInput, match="--test goes with --ds"):
        api.main("answer", model="gpt", out="runs/run", test="runs/mine.jsonl")
    with pytest.raises(BadInput, match="api.py export or api.py answer, not ask"):
        api.main("ask")
    with pytest.raises(BadInput, match="needs --model=NAME and --out=RUN"):
        api.main("answer", model="m")


# ---- reading an answer


@pytest.mark.parametrize("text, value", [
    ("1", 1), (" 0\n", 0), ('"1"', 1), ("'0'", 0), (' " 1 " ', 1), ("unreasonable", None),
    ("10", None), ("0.5", None), ("1.", None), ("yes", None), ("", None), ('"', None),
    ('""1""', None), ("1 0", None), ("１", None), ("\"1'", None),
])  # fmt: skip
def test_an_answer_is_0_or_1_exactly(text, value):
    assert served.by_word(text) is value


def test_a_row_that_is_neither_is_never_right_by_luck():
    rows = [{"id": f"{label}", "label": label} for label in (0, 1)]
    predictions = api.predicted(rows, [{"answer": "?", "prob": None}] * 2, served.by_word)
    assert [tasks.texts.score(one) for one in predictions] == [0, 0]
    assert [one["prob"] for one in predictions] == pytest.approx([0.5, 0.5], abs=1e-5)


# ---- answers of a server


def test_what_is_asked_is_what_was_trained_on(labels, openai, truth):
    api.main("export", system="Say 1 or 0.")
    with openai_stub.running(lambda text: ("1", 0.9)) as server:
        ask(server, chat="runs/chat.jsonl", ds=None, n_test=None)
    trained = {json.dumps(line["messages"][0]) for line in read("runs/chat.jsonl")}
    assert {json.dumps(body["messages"][0]) for body in server.requests} == trained
    asked = {body["messages"][1]["content"] for body in server.requests}
    assert asked == set(truth) and all(len(body["messages"]) == 2 for body in server.requests)
    assert {body["temperature"] for body in server.requests} == {0} and server.keys == {KEY}


def test_log_probabilities_are_summed_over_spellings_and_normalised(labels, openai, truth):
    odds = {text: (i + 1) / 100 for i, text in enumerate(sorted(truth))}
    with openai_stub.running(lambda text: ('"1"', odds[text])) as server:
        rows = ask(server)
    data = protocol.describe(tasks.texts, "facts", **DATA)
    texts = {row["id"]: row["text"] for row in protocol.test_rows(tasks.texts, data)}
    # .3 p of "1" and .2 p of " 1" against .5 (1 - p) of "0": P(1) = p
    assert [row["prob"] for row in rows] == pytest.approx([odds[texts[r["id"]]] for r in rows])


def test_prose_is_decided_by_log_probabilities_or_counts_as_wrong(labels, openai, truth, capsys):
    with openai_stub.running(lambda text: ("The answer is", truth[text] * 0.2 + 0.4)) as server:
        rows = ask(server, out="a")
    said = capsys.readouterr().out
    assert all((row["prob"] > 0.5) == row["label"] for row in rows)
    assert "40 of 40 answers are neither 0 nor 1, such as 'The answer is'" in said
    assert "40 were read from log-probabilities, 0 count as wrong" in said
    with openai_stub.running(lambda text: ("The answer is 1", None)) as server:
        rows = ask(server, out="b")
    said = capsys.readouterr().out
    assert said.count("gives no log-probabilities") == 1 and "warning: most answers" in said
    assert json.loads(Path("b/eval/facts-test.metrics.json").read_text())["acc"] == 0


def test_a_server_that_tells_fewer_alternatives_or_none_is_asked_for_those(labels, openai):
    for most, prob in ((5, 0.8), (0, 1)):
        with openai_stub.running(lambda text: ("1", 0.8)) as server:
            server.alternatives = most
            rows = ask(server, out=f"runs/{most}")
        assert {round(row["prob"], 9) for row in rows} == {prob}


def test_a_token_without_alternatives_is_no_answer_in_probabilities(labels, openai, monkeypatch):
    """Some servers tell the probability of the token alone: what it says is the answer then."""
    alone = [{"token": "1", "logprob": -0.1}]
    monkeypatch.setattr(openai_stub, "tokens", lambda *_: alone)
    with openai_stub.running(lambda text: ("1", 0.8)) as server:
        assert {row["prob"] for row in ask(server)} == {1}


def test_runs_of_an_api_and_of_models_here_are_compared(labels, openai, truth, capsys, monkeypatch):
    """The whole way; the supervisor's files are those of train_weak.py and eval.py."""
    import pgr

    monkeypatch.setattr(pgr, "draw", lambda *_: None)  # slow
    with openai_stub.running(lambda text: ("1", 0.9)) as server:
        ask(server, "runs/weak")
    weak = {"stage": "train_weak", "model_sha256": "a weak model"}
    weak |= {"args": {"model": "m", "n_val": None}}
    weak |= {"data": files.read_card("runs/labels.jsonl")["data"]}
    files.write_card("runs/weak", files.read_card("runs/weak") | weak)
    predictions = "runs/weak/eval/facts-test.jsonl"
    about = files.read_card(predictions) | {"inputs": {"model": "a weak model"}}
    files.write_card(predictions, about)
    wrong = set(sorted(truth)[:4])
    for who, target in (("student", "weak"), ("ceiling", "truth")):
        chat = f"runs/{who}.jsonl"
        api.main("export", target=target, out=chat)

        def says(text, missed=wrong if who == "student" else ()):
            return str(truth[text] ^ (text in missed)), None

        with openai_stub.running(says, port=0) as server:
            ask(server, f"runs/{who}", chat=chat, model=f"ft:gpt:{who}:1", ds=None, n_test=None)
    cards = [files.read_card(f"runs/{who}") for who in ("student", "ceiling")]
    assert [records.role(card) for card in cards] == ["student", "ceiling"]
    capsys.readouterr()
    pgr.main("runs/weak", "runs/student", "runs/ceiling")
    result = json.loads(Path("runs/pgr.json").read_text())
    assert [result[who]["acc"] for who in ("weak", "student", "ceiling")] == [0.5, 0.9, 1]
    assert result["pgr"]["value"] == pytest.approx(0.8)
    assert result["student"]["model"] == "gpt"
    told = " ".join(result["notes"])
    assert not [
        w for w in ("no student", "no ceiling", "differ in model", "did not learn") if w in told
    ]
    hashes = {files.read_card(f"runs/{w}/eval/facts-test.jsonl")["rows_sha256"] for w in
              ("weak", "student", "ceiling")}  # fmt: skip
    assert len(hashes) == 1


def test_a_model_that_was_not_fine_tuned_has_no_role(labels, openai, truth):
    with openai_stub.running(lambda text: (str(truth[text]), None)) as server:
        ask(server)
        ask(server, ds="facts", n_test=40)  # again: nothing is asked
    assert len(server.requests) == 1 + 1 + 40  # with log-probabilities, without, and the rows
    card = files.read_card("runs/run")
    assert records.role(card) is None and card["finished"] and card["stage"] == "api"
    assert card["asked"] == {"base_url": server.url, "model": "m", "system": api.SYSTEM}


def test_another_model_does_not_take_the_place_of_a_run(labels, openai):
    with openai_stub.running(lambda text: ("1", 0.9)) as server:
        ask(server)
        before = {path: path.read_bytes() for path in Path("runs/run").rglob("*.*")}
        for other in ({"model": "n"}, {"system": "Other."}):
            with pytest.raises(BadInput, match="model is not the same"):
                ask(server, **other)
        with pytest.raises(BadInput, match="answers to other rows"):
            ask(server, n_test=20)
        assert before == {path: path.read_bytes() for path in Path("runs/run").rglob("*.*")}
        ask(server, model="n", force=True)
    assert files.read_card("runs/run")["asked"]["model"] == "n"


# ---- faults


def test_faults_are_asked_again_and_nothing_is_lost(labels, openai, truth):
    """A tenth of the requests each: 429 with Retry-After, 500, a lost connection."""
    faults = {3: 429, 5: 500, 7: "drop"}
    with openai_stub.running(
        lambda t: (str(truth[t]), None), lambda n: faults.get(n % 10)
    ) as server:
        rows = ask(server, jobs=16)
    assert [row["prob"] for row in rows] == [row["label"] for row in rows]
    assert {429, 500, "drop"} <= set(server.faults)
    assert len(server.requests) == 42  # each was answered once


def test_an_interrupted_call_goes_on_where_it_was(labels, openai, truth, monkeypatch, capsys):
    monkeypatch.setattr(served, "RETRIES", 0)
    says = lambda text: (str(truth[text]), 0.5 + 0.4 * (truth[text] or -1))  # noqa: E731
    with openai_stub.running(says, lambda n: 500 if n > 25 else None) as server:
        with pytest.raises(BadInput, match=r"fault 500.* \(2\d of 40 answers are kept: call again"):
            ask(server, jobs=3)
    partial, port = Path("runs/run/eval/facts-test.partial"), server.server_port
    kept = len(read(partial))
    assert kept == 24 and not files.read_card("runs/run")["finished"]  # one was to find out
    with pytest.raises(BadInput, match="is not finished"):
        records.finished_run("runs/run", ("api",))
    with open(partial, "a") as file:
        file.write('["torn", {"answ')
    with openai_stub.running(says, port=port) as server:
        rows = ask(server)
    assert "24 of 40 rows are answered already" in capsys.readouterr().out
    assert len(server.requests) == 1 + 40 - kept
    assert [row["prob"] > 0.5 for row in rows] == [row["label"] == 1 for row in rows]
    assert not partial.exists() and files.read_card("runs/run")["finished"]


def everything_written():
    return b"".join(path.read_bytes() for path in Path(".").rglob("*") if path.is_file())


@pytest.mark.parametrize("fault, told", [
    (401, "the key is refused"), (403, "the key is refused"), (400, "server refuses, row 'facts"),
    (422, "the server refuses, row 'facts"), (404, "has no model 'm'"), ("html", "not as OpenAI's"),
    ("drop", "does not answer"), (500, "fault 500"), (429, "fault 429"),
])  # fmt: skip
def test_what_a_server_refuses_is_one_line_without_the_key(
    fault, told, labels, openai, monkeypatch, command, capsys
):
    monkeypatch.setattr(served, "RETRIES", 0)
    with openai_stub.running(lambda text: ("1", 0.9), lambda n: fault) as server:
        words = "--model=m --ds=facts --n_test=40 --out=runs/run".split()
        with pytest.raises(SystemExit) as stopped:
            command("api.py", "answer", *words, f"--base_url={server.url}")
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and told in captured.err and KEY in server.keys
    error = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and captured.err.strip().endswith(error[0])
    assert KEY not in captured.err + captured.out and KEY.encode() not in everything_written()
    assert not Path("runs/run").exists()


def test_a_key_that_the_server_echoes_is_not_written(labels, openai, capsys):
    with openai_stub.running(lambda text: ("your key is KEY", 0.7)) as server:
        rows = ask(server)
    assert {row["answer"] for row in rows} == {"your key is <key>"}
    assert KEY.encode() not in everything_written() and KEY not in capsys.readouterr().out


def test_a_row_over_the_context_is_named_and_the_others_are_kept(labels, openai, truth):
    data = protocol.describe(tasks.texts, "facts", **DATA)
    row = protocol.test_rows(tasks.texts, data)[20]
    with openai_stub.running(
        lambda text: (400, "the context has 9 tokens") if text == row["text"] else ("1", 0.9)
    ) as server:
        with pytest.raises(
            BadInput, match=f"row '{row['id']}'.*9 tokens.*20 of 40 answers are kept"
        ):
            ask(server, jobs=1)


def test_a_server_that_is_away_is_told(labels, openai, monkeypatch):
    monkeypatch.setattr(served, "RETRIES", 0)
    with pytest.raises(BadInput, match=r"http://127.0.0.1:9/v1/? does not answer.*refused"):
        api.main("answer", model="m", base_url="http://127.0.0.1:9/v1", out="x", n_test=40)
    assert not Path("x").exists()


def test_what_is_wrong_is_told_before_anything_is_asked(labels, openai, monkeypatch):
    def told(what, **options):
        with pytest.raises(BadInput, match=what) as error:
            api.main("answer", **{"model": "m", "out": "x"} | options)
        assert "secret" not in str(error.value) and not Path("x").exists()

    url = "http://127.0.0.1:9/v1"
    told("without password", base_url="http://me:secret@127.0.0.1:9/v1")
    told("without password", base_url="http://127.0.0.1:9/v1?key=secret")
    told("--base_url=http://localhost:80a/v1: ", base_url="http://localhost:80a/v1")
    told("holds pairs: api.py is for texts", ds="facts_pairs", base_url=url)
    own_labels(["a ?"])
    told("has no card of api.py export", chat="own.jsonl", base_url=url)
    told("has no card of api.py export", chat="runs/labels.jsonl", base_url=url)
    Path("folder").mkdir()
    Path("folder/thesis.txt").write_text("mine")
    told("exists and is no run", out="folder", base_url=url)
    told("was made by label.py", out="runs/labels.jsonl", base_url=url)
    api.main("export", own_labels(["a ?"] * 10), out="own_chat.jsonl")
    told("add --ds, its task", chat="own_chat.jsonl", base_url=url)
    told("ask as in training", chat="own_chat.jsonl", ds="facts", base_url=url, system="Other.")
    with open("own_chat.jsonl", "a") as file:
        file.write('{"messages": []}\n')
    told("make it again", chat="own_chat.jsonl", ds="facts", base_url=url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret\u2026")
    told("characters that no key has")
    monkeypatch.delenv("OPENAI_API_KEY")
    told("OPENAI_API_KEY is not set")
    monkeypatch.setitem(sys.modules, "openai", None)
    told("pip install openai")


def test_a_second_call_is_told_of_the_first_and_asks_nothing(labels, openai):
    with openai_stub.running(lambda text: ("1", 0.9)) as server:
        ask(server)
        Path("runs/run/eval/facts-test.metrics.json").unlink()  # else there is nothing to do
        with locks.held("runs/run/eval/facts-test.jsonl"), pytest.raises(BadInput, match="in use"):
            ask(server)


def test_a_test_row_that_was_trained_on_is_refused(labels, openai):
    api.main("export")
    rows = [{field: row[field] for field in ("id", "text", "label")} for row in labels]
    Path("seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with openai_stub.running(lambda text: ("1", 0.9)) as server:
        given = {"model": "m", "base_url": server.url, "chat": "runs/chat.jsonl", "out": "run"}
        with pytest.raises(BadInput, match="learned 60 of these 60 rows"):
            api.main("answer", **given, ds="seen.jsonl")
        api.main("answer", **given, ds="seen.jsonl", allow_leak=True)
        metrics = json.loads(Path("run/eval/seen-test.metrics.json").read_text())
        assert metrics["leaks"] == ["60 test rows learned"]
        api.main("answer", **given)  # another task of the same run
    assert {path.name for path in Path("run/eval").glob("*t.jsonl")} == {
        "seen-test.jsonl", "facts-test.jsonl"
    }  # fmt: skip


def free_port():
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_real_server_answers(labels, openai, truth, tmp_path):
    """transformers serve: facts/m, whose words yes and no are called 1 and 0 in a copy of it."""
    for needed in ("fastapi", "uvicorn", "rich"):
        pytest.importorskip(needed)
    model, port = served_model(tmp_path), free_port()
    words = ["serve", "--device", "cpu", "--port", f"{port}", model]
    program = "from transformers.cli.transformers import main; main()"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", program, *words], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/v1"
        wait_for(url.replace("/v1", "/health"), server)
        api.main("answer", model=model, base_url=url, n_test=40, out="runs/served")
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    rows = read("runs/served/eval/facts-test.jsonl")
    assert sum(row["answer"] in ("0", "1") for row in rows) > 30  # it was pretrained alone
    # as facts/m answers in this process
    from transformers import AutoModelForCausalLM, AutoTokenizer

    here, tokenizer = (
        AutoModelForCausalLM.from_pretrained(model),
        AutoTokenizer.from_pretrained(model),
    )
    asked = {r["id"]: r["text"] for r in protocol.test_rows(
        tasks.texts, protocol.describe(tasks.texts, "facts", **DATA))}  # fmt: skip
    for row in rows:
        ids = tokenizer(asked[row["id"]], return_tensors="pt").input_ids
        assert row["answer"].split()[0] == tokenizer.decode(here(ids).logits[0, -1].argmax())


def served_model(folder):
    """A copy of facts/m that a chat server can serve: a template, and an end after its answer."""
    import shutil

    copy = Path(shutil.copytree(HERE / "facts/m", folder / "m"))
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    ends = [vocabulary.pop("yes"), vocabulary.pop("no")]
    vocabulary |= {"1": ends[0], "0": ends[1]}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config["chat_template"] = "<bos>{{ messages[-1]['content'] }}"
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return str(copy)


def wait_for(url, server, seconds=120):
    """Until the server says that it is there."""
    import urllib.request

    for _ in range(seconds * 2):
        assert server.poll() is None, "the server has ended"
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")
