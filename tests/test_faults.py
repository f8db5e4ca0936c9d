"""What a machine does to a stage: one line, an exit code, nothing half written, the old kept."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import kills
import pytest

import label
import train_weak
from w2s import files
from w2s.files import HERE, BadInput

SMALL = {"n_train": 64, "n_test": 40, "epochs": 1}
FORCED = [
    "train_weak.py --n_train=72 --n_test=40 --epochs=1 --seed=1 --out=weak --force",
    "label.py weak --vote=hard --force",
    "controls.py labels.jsonl --kind=coin --force",
    "eval.py weak --n_test=20 --force",
    "train_strong.py labels.jsonl --model=facts/xs --out=new",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    home = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        train_weak.main(out="weak", **SMALL)
        label.main("weak")
        for words in ("controls.py labels.jsonl --kind=coin", "eval.py weak"):
            kills.workers.in_words(words.split())
    return home


@pytest.fixture
def disk(finished, tmp_path, monkeypatch):
    """A disk of one megabyte with finished stages, as the current folder."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a disk needs root")
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def told(command, capsys, words):
    """(exit code, lines on stderr) of a command in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        command(*words.split())
    return done.value.code, capsys.readouterr().err.splitlines()


def fill(folder, left):
    """Fill the disk, but for so many bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filled").write_bytes(b"x" * (free - left))


@pytest.mark.parametrize("left", [0, 8192, 150_000])
def test_on_a_full_disk_a_forced_stage_fails_in_one_line_and_the_old_one_stays(
    disk, command, capsys, left
):
    fill(disk, left)
    before = kills.contents(disk)
    for words in FORCED:
        if left == 150_000 and "train" not in words:
            continue  # there is room
        code, lines = told(command, capsys, words)
        assert code == 2 and re.match("error: .* cannot be written: .*No space left", lines[-1]), (
            words
        )
        shutil.rmtree("new", ignore_errors=True)  # begun, and not finished
        assert len(lines) == 1 and kills.contents(disk) == before
    (disk / "filled").unlink()
    for words in FORCED:
        command(*words.split())
    assert not [name for name in kills.contents(disk) if ".tmp" in name or ".lock" in name]
    assert files.read_card("weak")["args"]["seed"] == 1 and files.read_card("new")["finished"]


def test_a_read_only_disk_is_told_before_any_work(disk, command, capsys, monkeypatch):
    before = kills.contents(disk)
    monkeypatch.setattr("tasks.answers", None)  # no work
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for words in FORCED:
        code, lines = told(command, capsys, words)
        assert code == 2 and len(lines) == 1 and "ead-only" in lines[0], words
    command("eval.py", "weak")  # what is done can be read
    assert kills.contents(disk) == before


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("file/weak", "/file is a file"),
        ("x" * 300, "has a name of over 200 bytes"),
        ("new/" + "é" * 101, "has a name of over 200 bytes"),
        ("\udcff", "is not UTF-8: give it another name"),
        ("/proc/weak", "cannot be written: No such file"),
    ],
)
def test_a_name_that_cannot_be_is_told_before_anything_is_written(
    tmp_path, monkeypatch, command, capsys, out, why
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    code, lines = told(command, capsys, f"train_weak.py --n_train=64 --out={out}")
    assert code == 2 and len(lines) == 1 and why in lines[0]
    assert os.listdir(tmp_path) == ["file"]


RUN = ("card.json", "history.jsonl", "learned.npy", "model")


def test_a_model_that_is_a_link_is_replaced_and_what_it_points_to_stays(
    finished, tmp_path, monkeypatch
):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    os.rename("weak/model", "elsewhere")
    os.symlink("../elsewhere", "weak/model")
    before = files.sha256("elsewhere")
    train_weak.main(out="weak", seed=1, force=True, **SMALL)
    assert not os.path.islink("weak/model") and files.sha256("elsewhere") == before
    assert files.sha256("weak/model") == files.read_card("weak")["model_sha256"] != before
    assert sorted(os.listdir("weak")) == sorted(RUN)


def test_a_run_whose_first_card_was_being_written_is_no_stranger(tmp_path):
    (tmp_path / "weak").mkdir()
    (tmp_path / "weak/.card.json.123.tmp").write_text('{"stage": "tr')
    train_weak.main(out=str(tmp_path / "weak"), **SMALL)
    assert sorted(os.listdir(tmp_path / "weak")) == sorted(RUN)


# ---- the terminal


def shell(words, cwd, **how):
    """What a command in a shell does."""
    env = os.environ | how.pop("env", {})
    how = {"capture_output": True} | how
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, **how)


def test_a_full_standard_output_is_told_in_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        words = [HERE / "tasks.py", "facts"]
        done = shell(words, tmp_path, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_terminal_that_knows_ascii_alone_gets_rows_and_names_all_the_same(tmp_path, env):
    rows = [{"id": str(i), "text": f"caf\u00e9 {i}", "label": i % 2} for i in range(40)]
    (tmp_path / "na\u00efve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = shell([HERE / "tasks.py", "na\u00efve.jsonl"], tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    texts = {json.loads(line)["text"] for line in done.stdout.decode().splitlines()}
    assert texts and texts < {row["text"] for row in rows}
    done = shell([HERE / "tasks.py", "caf\u00e9"], tmp_path, env=env)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    done = shell([HERE / "train_weak.py", b"--out=caf\xe9"], tmp_path, env=env)
    assert done.returncode == 2 and done.stderr.startswith(b"error: ")
    assert b"is not UTF-8" in done.stderr and done.stderr.count(b"\n") == 1


SLEEPER = """import sys, time; sys.argv = ["x"]
from w2s import cli, files, locks
@cli.stage
def main(args):
    locks.hold("out.jsonl")
    with files.whole("out.jsonl") as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
cli.run(main)
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "stopped; call again to go on\n"),
        (signal.SIGINT, -signal.SIGINT, "interrupted\n"),  # which a shell calls 130
    ],
)
def test_stopped_by_a_signal_it_leaves_nothing_behind(tmp_path, number, code, line):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = os.environ | {"PYTHONPATH": str(HERE)}
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=tmp_path, env=env, **pipes)
    assert process.stdout.readline() == "ready\n"
    names = sorted(os.listdir(tmp_path))
    assert names == [f".out.jsonl.{process.pid}.tmp", ".out.jsonl.lock"]
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", line) and process.returncode == code
    assert os.listdir(tmp_path) == []


def test_labels_that_all_say_the_same_are_told(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for said in ([0.4] * 64, [0.4, 0.6] * 32):
        monkeypatch.setattr("tasks.answers", lambda *_, said=said, **__: said)
        label.main("weak", force=True)
        warned = "warning: all labels say the same" in capsys.readouterr().out
        assert warned == (len({*said}) == 1)


def test_a_library_that_cannot_write_is_told_like_the_system(tmp_path):
    with pytest.raises(BadInput, match="x cannot be written: Error .* I/O error .os error 28."):
        with files.whole(tmp_path / "x"):
            raise RuntimeError("Error while serializing: I/O error (os error 28)")
    with pytest.raises(RuntimeError, match="a fault of our own"), files.whole(tmp_path / "x"):
        raise RuntimeError("a fault of our own")
