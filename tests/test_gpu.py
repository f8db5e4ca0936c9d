"""What results/gpu.sh runs on a GPU runs at toy size here, so that a visit to a GPU is not spent on its own mistakes."""

import sys

import pytest

from w2s.files import HERE

sys.path.append(str(HERE / "results"))
import gpu


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.setattr(gpu, "TABLE", [])


@pytest.mark.parametrize("part", ["check", "bench", "large"])
def test_a_part_runs_and_leaves_its_table(part, tmp_path, capsys):
    gpu.main(part, out=str(tmp_path), device="cpu", toy=True)
    table = (tmp_path / f"{part}.md").read_text()
    assert table in capsys.readouterr().out
    assert "FAILED" not in table and table.count("\n|") > 4
