"""One writer for every output: a second is told who holds it, whoever dies, however they race."""

import json
import os
import subprocess
from pathlib import Path

import kills
import pytest
from conftest import CARD

import eval
from w2s import files, locks
from w2s.files import HERE, BadInput


def note(out, **changes):
    """Leave the lock of another process at `out`; it holds what one of this process would."""
    with locks.held(out):
        mine = locks.read(locks.lock_of(out))
    locks.lock_of(out).symlink_to(json.dumps(mine | changes))
    return mine


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_lock_is_beside_its_output_and_gone_with_the_folders_made_for_it(tmp_path):
    out = tmp_path / "a/b/run"
    with locks.held(out):
        assert everything(tmp_path) == ["a", "a/b", "a/b/.run.lock"]
        holder = locks.read(tmp_path / "a/b/.run.lock")
        assert holder["pid"] == os.getpid() and holder["host"] == os.uname().nodename
        told = f"in use by process {os.getpid()} on {holder['host']} since 2.*: wait for it, or end"
        for same in (out, f"{tmp_path}/a/../a/b/run/"):
            with pytest.raises(BadInput, match=told), locks.held(same):
                pass
    assert everything(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), locks.held(out):
        raise KeyboardInterrupt
    with locks.held(out):
        out.mkdir()
    assert everything(tmp_path) == ["a", "a/b", "a/b/run"]


def test_a_run_is_one_whatever_it_is_called(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with locks.held(tmp_path / "run"), pytest.raises(BadInput, match="link is in use by"):
        with locks.held(tmp_path / "link"):
            pass


def test_a_dead_process_holds_nothing_on_this_host(tmp_path, capsys):
    gone, out = subprocess.Popen(["true"]), tmp_path / "run"
    gone.wait()
    # dead; or another process that has its number now; or before the machine was started again
    for other in ({"pid": gone.pid}, {"born": "0"}, {"born": f"{locks.born(1)[:-1]}x", "pid": 1}):
        note(out, **other)
        with locks.held(out):
            assert "which is no more: going on in its place" in capsys.readouterr().out
    assert everything(tmp_path) == []


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"where": "another container"}])
def test_another_host_keeps_its_lock_and_the_file_to_delete_is_named(tmp_path, other):
    note(tmp_path / "run", pid=1, **other)
    told = r"process 1 on \S+ since .*: wait for it; if that is no more, delete .*/.run.lock"
    with pytest.raises(BadInput, match=told), locks.held(tmp_path / "run"):
        pass
    assert everything(tmp_path) == [".run.lock"]


def test_without_links_a_file_is_the_lock(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refused)
    lock = tmp_path / ".run.lock"
    with locks.held(tmp_path / "run"):
        assert lock.is_file() and not lock.is_symlink()
        with pytest.raises(BadInput, match=f"process {os.getpid()} on"):
            with locks.held(tmp_path / "run"):
                pass
    lock.write_text("")  # of a process that died as it wrote it, or that is about to
    with pytest.raises(BadInput, match="process unknown on unknown .* delete"):
        with locks.held(tmp_path / "run"):
            pass


def test_a_lock_that_somebody_else_has_made_meanwhile_is_left_to_them(tmp_path):
    lock = tmp_path / ".run.lock"
    with locks.held(tmp_path / "run"):
        lock.unlink()
        lock.symlink_to("{}")
    assert lock.is_symlink()


def test_what_the_dead_left_half_written_is_removed_and_no_more(tmp_path):
    run = tmp_path / "run"
    (run / ".model.1.tmp").mkdir(parents=True)
    theirs = [".other.1.tmp", ".run.lock.tmp", ".labels.2.jsonl.1.tmp"]
    names = [".run.1.tmp", ".labels.jsonl.1.tmp", ".labels.card.json.1.tmp", "run/.card.json.1.tmp"]
    for name in names + theirs:
        (tmp_path / name).write_text("{")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/.notes.1.tmp").write_text("years of work")
    (tmp_path / "mine/chapter").write_text("more")
    with locks.call():
        for out in ("run", "labels.jsonl", "mine"):
            locks.hold(tmp_path / out)
            locks.hold(tmp_path / out)  # twice in one call is once
    kept = ["mine", "mine/.notes.1.tmp", "mine/chapter", "run", *theirs]
    assert everything(tmp_path) == sorted(kept)


def test_under_torchrun_the_first_process_holds_it_for_all(tmp_path, monkeypatch):
    with locks.held(tmp_path / "run"), locks.call():
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        locks.hold(tmp_path / "run")
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(BadInput, match="in use"):
            locks.hold(tmp_path / "run")


def test_a_rank_without_other_processes_is_none_of_torchruns(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    files.write_text(tmp_path / "a", "written")
    assert files.rank() == 0 and (tmp_path / "a").read_text() == "written"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert files.rank() == 3
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(BadInput, match="RANK=x is not a number: unset it, or call torchrun"):
        files.rank()


def test_predictions_cut_off_before_their_last_card_are_made_again(tmp_path, monkeypatch):
    """A kill at that moment once left a card that no stage would read."""
    file, rows = tmp_path / "facts-test.jsonl", [{"id": "a", "label": 1, "prob": 0.5}]
    about = CARD | {"stage": "eval", "test_groups": ["a"], "inputs": {"model": "x"}}
    write, cards = files.write_card, []

    def killed(path, card):
        cards.append(card)
        if len(cards) == 2:
            raise KeyboardInterrupt
        write(path, card)

    monkeypatch.setattr(files, "write_card", killed)
    with pytest.raises(KeyboardInterrupt):
        files.write_jsonl(file, rows, about)
    assert file.exists() and files.read_card(file)["finished"] is False
    files.write_jsonl(file, rows, about)
    assert files.read_card(file)["finished"] and files.read_card(file)["rows"] == 1


def test_every_stage_holds_what_it_writes(tmp_path, command, capsys):
    """The second is told who holds it, with exit code 2, and changes nothing."""
    labels = tmp_path / "labels.jsonl"
    rows = [{"id": str(i), "text": f"a film of {i} hours", "label": i % 2} for i in range(40)]
    files.write_jsonl(labels, [row | {"weak": 0.2} for row in rows], CARD)
    new = {name: f"--out={tmp_path / name}" for name in ("run", "new.jsonl", "pgr.json", "model")}
    calls = [
        (f"train_weak.py --n_train=64 {new['run']}", "run"),
        (f"train_strong.py {labels} --model=facts/xs {new['run']}", "run"),
        (f"controls.py {labels} {new['new.jsonl']}", "new.jsonl"),
        (f"eval.py --model=facts/xs --n_test=20 {new['run']}", "run"),
        (f"eval.py {tmp_path / 'zero'} --force", "zero/eval/facts-test.jsonl"),
        (f"pretrain.py facts {new['model']}", "model"),
        (f"sweep.py {new['run']}", "run"),
        (f"api.py export {labels} --target=truth {new['new.jsonl']}", "new.jsonl"),
    ]
    eval.main(model="facts/xs", out=str(tmp_path / "zero"), n_test=20)
    for words, out in calls:
        with locks.held(tmp_path / out):
            before = everything(tmp_path)
            with pytest.raises(SystemExit) as done:
                command(*words.split())
            said = capsys.readouterr().err.splitlines()
            assert done.value.code == 2 and len(said) == 1, words
            assert f"/{out} is in use by process {os.getpid()} on " in said[0], words
            assert everything(tmp_path) == before


def test_two_at_the_same_moment_one_works_and_one_is_told(tmp_path):
    assert kills.race(tmp_path / "free", 5) == 5
    assert kills.race(tmp_path / "held", 5, dead=True) == 5


def test_two_trainings_at_the_same_moment(tmp_path, apart):
    words = [HERE / "train_weak.py", "--n_train=64", "--epochs=1", "--out=weak"]
    both = [apart(words, tmp_path) for _ in range(2)]
    errors = [one.communicate()[1] for one in both]
    codes = [one.returncode for one in both]
    assert sorted(codes) == [0, 2]
    assert "weak is in use by process" in errors[codes.index(2)]
    assert (
        everything(tmp_path)[0] == "weak" and files.read_card(Path(tmp_path / "weak"))["finished"]
    )
