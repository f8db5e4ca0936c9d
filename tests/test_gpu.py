"""What results/gpu.sh runs on a GPU runs at toy size here: a visit to one is short."""

import gpu
import pytest

from w2s.files import HERE


def test_all_parts_but_the_demo_run_and_leave_their_tables(tmp_path, capfd, monkeypatch, apart):
    monkeypatch.setattr(gpu.bench, "matmul_rate", lambda device: 1e12)
    monkeypatch.setattr(gpu, "script", lambda *words: apart(words, HERE).communicate())
    with pytest.raises(SystemExit) as end:
        gpu.main("check", "bench", "large", "real", out=str(tmp_path), device="cpu", toy=True)
    tables = [(tmp_path / f"{part}.md").read_text() for part in ("check", "bench", "large", "real")]
    assert all(table.count("\n|") > 3 and table.splitlines()[-4] for table in tables)
    assert end.value.code == 0 and "| Trainer, padded, mean 12 |" in capfd.readouterr().out


def test_what_fails_is_told_and_ends_in_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "check", lambda *_: gpu.row("llama", "1.0e+00", False))
    with pytest.raises(SystemExit) as end:
        gpu.main("check", out=str(tmp_path), device="cpu")
    assert end.value.code == 1 and "| llama | 1.0e+00 | FAILED |" in capsys.readouterr().out


def test_when_its_time_is_over_a_part_measures_no_more(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.bench, "matmul_rate", lambda device: 1e12)
    with pytest.raises(SystemExit):
        gpu.main("large", out=str(tmp_path), device="cpu", seconds=-1, toy=True)
    assert capsys.readouterr().out.count("not measured: no time left") == 2
