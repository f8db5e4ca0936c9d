"""What results/gpu.sh runs on a GPU runs at toy size here: a visit to one is short."""

import sys

import pytest

from w2s.files import HERE

sys.path.append(str(HERE / "results"))
import gpu


@pytest.mark.parametrize("part", ["check", "bench", "large"])
def test_a_part_runs_and_leaves_its_table(part, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "TABLE", [])
    monkeypatch.setattr(gpu.bench, "matmul_rate", lambda device: 1e12)
    gpu.main(part, out=str(tmp_path), device="cpu", toy=True)
    table = (tmp_path / f"{part}.md").read_text()
    assert table.splitlines()[-3] in capsys.readouterr().out
    assert "FAILED" not in table and table.count("\n|") > 4


def test_what_fails_is_told_and_ends_in_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "TABLE", [])
    monkeypatch.setattr(gpu, "check", lambda device, toy: gpu.row("llama", "1.0e+00", False))
    with pytest.raises(SystemExit) as end:
        gpu.main("check", out=str(tmp_path), device="cpu")
    assert end.value.code == 1 and "| llama | 1.0e+00 | FAILED |" in capsys.readouterr().out
