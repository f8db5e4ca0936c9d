"""The report of a grid, on made-up cards and predictions (reporting.py): no model is trained."""

import base64
import itertools
import json
import os
import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import CARD
from reporting import SIZES, make_grid

import pgr
import sweep
import tasks
from w2s import cli, figures, files, grids, outcomes, report
from w2s.files import BadInput

MODELS = ("a/xs", "a/s", "a/m")
PAIRS = list(itertools.combinations(MODELS, 2))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Two tasks, three models, two rules, with its report."""
    folder = make_grid(tmp_path_factory.mktemp("report") / "grid", ("facts", "sst2"), PAIRS)
    report.make(folder, tasks.setting_of_card)
    return folder


@pytest.fixture(scope="module")
def numbers(grid):
    """(lines of results.jsonl, what is made of them) of the grid."""
    lines, sections = measured(grid)
    return lines, sections["texts"]


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda *_: [])


def measured(folder, metric=None):
    about, lines = outcomes.read_lines(folder)
    return lines, outcomes.measure(folder, lines, tasks.setting_of_card, metric)["sections"]


def values(lines, who, *, task=None, strong=None, **wanted):
    """The mean over seeds of a value of results.jsonl."""
    wanted |= {"task": task} if task else {}
    wanted |= {"strong": strong} if strong else {}
    found = [line for line in lines if all(line[name] == one for name, one in wanted.items())]
    return np.mean([line["values"][who] for line in found])


# ---- the numbers


def agreement(folder, line):
    """How often a student says what its supervisor says where that is wrong, row by row."""
    weak, student = (
        files.read_jsonl(folder / line["predictions"][who], ["prob", "label"])
        for who in ("weak", "student")
    )
    pairs = [(a["prob"] > 0.5, b["prob"] > 0.5, a["label"] == 1) for a, b in zip(weak, student)]
    same = [one == other for one, other, true in pairs if one != true]
    return sum(same) / len(same)


def test_cells_hold_what_results_jsonl_says(grid, numbers):
    lines, cells = numbers[0], numbers[1]["cells"]
    assert len(cells) == 12 and [cell["rule"] for cell in cells[:2]] == ["xent", "conf"]
    for cell in cells:
        one = {"task": cell["task"], "strong": cell["strong"], "rule": cell["rule"]}
        weak, student, ceiling = (
            values(lines, who, weak=cell["supervisor"], **one) for who in report.WHO
        )
        assert cell["student"]["acc"] == pytest.approx(student)
        if cell["pgr"]["value"] is not None:
            assert cell["pgr"]["value"] == pytest.approx((student - weak) / (ceiling - weak))
        assert cell["gap"]["value"] == pytest.approx(ceiling - weak)
        assert (cell["n"], cell["groups"], cell["of_seeds"]) == (200, 50, [0, 1])
        agreed = [
            agreement(grid, line)
            for line in lines
            if [line[name] for name in grids.KEY[:-1]]
            == [cell["task"], cell["supervisor"], cell["strong"], cell["rule"]]
        ]
        assert min(agreed) <= cell["agreement"]["weak_wrong"]["value"] <= max(agreed)


def test_means_over_tasks_and_rule_against_rule(numbers):
    lines, section = numbers
    (mean,) = (
        one
        for one in section["means"]
        if (one["supervisor"], one["strong"], one["rule"]) == ("a/xs", "a/m", "conf")
    )
    of_pair = {"weak": "a/xs", "strong": "a/m", "rule": "conf"}
    assert mean["ceiling"]["acc"] == pytest.approx(values(lines, "ceiling", **of_pair))
    assert mean["ceiling"]["low"] < mean["ceiling"]["acc"] < mean["ceiling"]["high"]
    pgrs = [
        cell["pgr"]["value"]
        for cell in section["cells"]
        if (cell["supervisor"], cell["strong"], cell["rule"]) == ("a/xs", "a/m", "conf")
    ]
    assert mean["over"]["median"]["value"] == pytest.approx(np.median(pgrs))
    duels = {one["supervisor"]: one for one in section["against"] if one["strong"] in ("a/m", None)}
    of_pair.pop("rule")
    better = values(lines, "student", rule="conf", **of_pair)
    better -= values(lines, "student", rule="xent", **of_pair)
    assert (duels["a/xs"]["rule"], duels["a/xs"]["other"]) == ("conf", "xent")
    assert duels["a/xs"]["metric"]["value"] == pytest.approx(better)
    every = values(lines, "student", rule="conf") - values(lines, "student", rule="xent")
    assert duels[None]["metric"]["value"] == pytest.approx(every) and duels[None]["tasks"] == 2
    assert duels[None]["metric"]["sign"] > 0.9 and duels[None]["metric"]["drawn"] is not None


def cell_of(weak, strong, values, metric="acc"):
    told = dict(zip(report.WHO, ({metric: value} for value in values)))
    sizes = {"weak": SIZES[weak], "strong": SIZES[strong]}
    told |= {"task": "facts", "split": "test", "metric": metric, "parameters": sizes}
    return told | {"supervisor": weak, "strong": strong}


def test_performs_like_is_read_off_in_log_parameters():
    """50 k has .6 and 120 k .7: .65 is their geometric mean. For nll low is good."""
    cell = cell_of("a/xs", "a/s", (0.6, 0.65, 0.7))
    assert outcomes.performs_like(cell, [cell])["size"] == pytest.approx((50e3 * 120e3) ** 0.5)
    assert outcomes.performs_like(cell, [cell])["told"] == "77.5 k"
    larger = cell_of("a/s", "a/m", (0.5, 0.9, 0.8))  # the supervisor's size has a ceiling: .7
    both = [cell, larger]
    assert outcomes.performs_like(larger, both) == {"size": None, "told": "> a/m"}
    assert outcomes.performs_like(cell_of("a/xs", "a/s", (0.6, 0.5, 0.7)), both)["told"] == "< a/xs"
    middle = cell_of("a/s", "a/m", (0.5, 0.75, 0.8))
    like = outcomes.performs_like(middle, [cell, middle])["size"]
    assert like == pytest.approx((120e3 * 300e3) ** 0.5)
    inside = cell_of("a/xs", "a/s", (0.8, 0.75, 0.7))  # the ceiling is below the supervisor
    assert outcomes.performs_like(inside, [inside]) == {"size": None, "told": "-"}
    best = cell_of("a/xs", "a/m", (0.5, 0.83, 0.8))  # its own ceiling counts, no other's
    other = cell_of("a/s", "a/m", (0.6, 0.7, 0.9))
    assert outcomes.performs_like(best, [best, other])["told"] == "> a/m"
    falls = cell_of("a/xs", "a/s", (0.6, 0.5, 0.4), "nll")
    assert outcomes.performs_like(falls, [falls])["told"] == "77.5 k"


def test_sizes_in_short():
    assert [outcomes.in_short(size) for size in (950, 54_048, 124e6, 1.41e9)] == [
        "950", "54 k", "124 M", "1.41 B",
    ]  # fmt: skip


# ---- the files


@pytest.mark.parametrize(
    "ds, told", [(("facts",), ", 200 test rows, 2"), (("facts", "sst2"), ", 2")]
)
def test_a_picture_of_means_over_tasks_names_no_tasks_rows(ds, told, tmp_path):
    folder = make_grid(tmp_path, ds=ds)
    report.make(folder, tasks.setting_of_card)
    assert f"a/m{told} seeds" in (folder / "bars.svg").read_text().replace("&gt;", ">")


def test_the_page_needs_no_other_file_and_holds_all_pictures(grid):
    page, told = (grid / "report.html").read_text(), (grid / "report.md").read_text()
    assert "<script" not in page and not re.search(r"(src|href)=.(?!data:)", page)
    assert 'name="viewport"' in page and page.count('<div class="wide"><table>') == 3
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", told)
    names = ["bars", "pgr_by_size", "rules", "agreement", "tasks-xent", "tasks-conf"]
    assert pictures == [f"{name}.png" for name in names]
    inside = re.findall(r"data:image/png;base64,([^\"]*)", page)
    assert [base64.b64decode(one) for one in inside] == [(grid / p).read_bytes() for p in pictures]
    assert all((grid / f"{name}.svg").read_bytes().startswith(b"<?xml") for name in names)
    for rows in re.findall(r"(?:^\|.*\n)+", told, re.M):  # every row has the same columns
        assert len({row.count("|") for row in rows.splitlines()}) == 1
    assert "| facts | a/xs -> a/m | conf |" in told and "24 of 24 combinations" in told


def test_a_picture_of_means_shows_no_rule_of_fewer_tasks(tmp_path, monkeypatch):
    folder = make_grid(tmp_path / "grid", ds=("facts", "sst2"))
    file = folder / "results.jsonl"
    told = [line for line in file.open() if '"sst2"' not in line or '"rule": "conf"' not in line]
    file.write_text("".join(told))
    drawn, draw = [], figures.bars_of_rules
    monkeypatch.setattr(figures, "bars_of_rules", lambda *x: (drawn.append(x[0]), draw(*x))[1])
    report.make(folder, tasks.setting_of_card)
    assert [one["rule"] for one in drawn[0]] == ["xent"]
    assert "means over 2 tasks" in (folder / "report.md").read_text()


def test_one_size_of_students_has_bars_alone(tmp_path):
    folder = make_grid(tmp_path / "grid")
    report.make(folder, tasks.setting_of_card)
    assert sorted(path.name for path in folder.glob("*.png")) == ["bars.png"]


def test_the_commands_of_a_report_ask_for_the_same_grid():
    pairs = [["facts", *pair] for pair in PAIRS]
    pairs += [["sst2", "a", "b"], ["sst2", "a", "c"], ["boolq", "b", "a"], ["boolq", "d", "c"]]
    about = {"pairs": pairs, "rules": ["xent", "conf:alpha=0.75"], "seeds": 3}
    about |= {"options": {"n_train": 64, "stop": False}}
    found = []
    told = report.commands("runs/my grid", about)
    assert len(told) == 4
    for line in told:
        _, script, *words = shlex.split(line)
        _, options = cli.parse(sweep.main, words)
        asked = (options.get(name) for name in ("ds", "models", "weak", "strong"))
        found += sweep.pairs_of(*asked)
        assert [*sweep.rules_of(options["loss"], {})] == about["rules"] and script == "sweep.py"
        assert (options["n_train"], options["stop"], options["seeds"]) == (64, False, 3)
        assert options["out"] == "runs/my grid"
    assert [list(pair) for pair in found] == pairs


def test_what_is_undefined_or_missing_is_named(tmp_path, no_pictures, monkeypatch):
    folder = make_grid(tmp_path / "grid", pairs=[("a/xs", "a/xs")])
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(lines[:-1]))
    report.make(folder, tasks.setting_of_card)
    told = (folder / "report.md").read_text()
    assert re.search(r"\| xent \| undefined: gap -0\.\d+ to \+0\.\d+ \|", told)
    assert "- facts, a/xs -> a/xs, xent: the interval of (ceiling - weak)" in told
    assert "- facts, a/xs -> a/xs, xent, seed 1: not finished." in told
    assert "3 of 4 combinations are finished" in told


def test_settings_have_tables_of_their_own_and_a_metric_leaves_some_out(tmp_path, no_pictures):
    folder = make_grid(tmp_path / "grid", ("facts", "puzzles"), rules=("xent",))
    report.make(folder, tasks.setting_of_card)
    told = (folder / "report.md").read_text()
    assert "## Results (texts)" in told and "## Results (moves)" in told
    report.make(folder, tasks.setting_of_card, "nll")
    told = (folder / "report.md").read_text()
    assert "nll (low is good) of supervisor" in told and "no such metric: puzzles" in told
    lines, sections = measured(folder, "f1")
    rows = files.read_jsonl(folder / lines[0]["predictions"]["weak"], ["prob", "label"])
    more = files.read_jsonl(folder / lines[1]["predictions"]["weak"], ["prob", "label"])
    f1 = [np.mean([f1_of(rows), f1_of(more)])]
    assert [cell["weak"]["f1"] for cell in sections["texts"]["cells"]] == pytest.approx(f1)


def f1_of(rows):
    says, true = (np.array([row[name] > 0.5 for row in rows]) for name in ("prob", "label"))
    return 2 * sum(says & true) / (sum(says) + sum(true))


def test_a_report_is_made_anew_for_new_results_alone(tmp_path, no_pictures, monkeypatch, capsys):
    folder = make_grid(tmp_path / "grid")
    told = report.make(folder, tasks.setting_of_card)
    made = (folder / "pgr.json").stat().st_mtime_ns
    assert report.current(folder, tasks.setting_of_card) == json.loads(json.dumps(told))
    assert (folder / "pgr.json").stat().st_mtime_ns == made
    report.show(folder, told)
    assert re.search(r"facts: a/xs -> a/m, conf +0\.\d+ +0\.\d+ +0\.\d+", capsys.readouterr().out)
    pgr.main(grid=str(folder), metric="auroc")  # the sweep shows its own metric again
    assert report.current(folder, tasks.setting_of_card)["asked"] is None
    later = made / 1e9 + 10
    os.utime(folder / "results.jsonl", (later, later))
    report.current(folder, tasks.setting_of_card)
    assert (folder / "pgr.json").stat().st_mtime_ns > made
    for name in ("results.jsonl", "grid.json"):
        os.utime(folder / name, (made / 1e9 - 10,) * 2)
    (folder / "report.html").unlink()
    report.current(folder, tasks.setting_of_card)
    assert (folder / "report.html").exists()
    grid = json.loads((folder / "grid.json").read_text()) | {"seeds": 3}  # and no new results
    (folder / "grid.json").write_text(json.dumps(grid))
    os.utime(folder / "grid.json", (later + 10, later + 10))
    report.current(folder, tasks.setting_of_card)
    assert "4 of 6 combinations are finished" in (folder / "report.md").read_text()


def test_a_seed_that_one_pair_lacks_is_missing_in_no_other_comparison(tmp_path, no_pictures):
    folder = make_grid(tmp_path / "grid", pairs=[("a/xs", "a/m"), ("a/xs", "a/l")], seeds=3)
    whole = {one["strong"]: one for one in measured(folder)[1]["texts"]["against"]}
    lines = files.read_jsonl(folder / "results.jsonl", [])
    gone = [("a/l", "conf", 1), ("a/l", "conf", 2)]
    lines = [x for x in lines if (x["strong"], x["rule"], x["seed"]) not in gone]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    left = {one["strong"]: one for one in measured(folder)[1]["texts"]["against"]}
    assert left["a/m"] == whole["a/m"] and left["a/m"]["seeds"] == [3]
    assert left["a/l"]["seeds"] == left[None]["seeds"] == [1]
    report.make(folder, tasks.setting_of_card)
    assert re.search(
        r"a/xs -> a/l \| conf less xent .*\| 1 \|\n", (folder / "report.md").read_text()
    )


def test_a_grid_whose_test_rows_are_one_group_says_that_nothing_is_known(tmp_path, no_pictures):
    folder = make_grid(tmp_path / "grid", rules=("xent",), seeds=1, rows=4)
    report.make(folder, tasks.setting_of_card)
    assert "| undefined: gap unknown |" in (folder / "report.md").read_text()


def test_logs_of_slurm_are_no_stages(tmp_path, no_pictures):
    folder = make_grid(tmp_path / "grid", rules=("xent",), seeds=1)
    for name in ("facts/s0/weak-a-xs.log", "slurm-1.log", "slurm-2.log"):
        files.write_text(folder / "logs" / name, "")
    report.make(folder, tasks.setting_of_card)
    assert "It called 1 stage;" in (folder / "report.md").read_text()


def test_the_axis_of_the_pgr_holds_every_point():
    cells = []
    for strong, value in (("a/s", 0.5), ("a/m", -1.6), ("a/l", 7.0)):
        cell = cell_of("a/xs", strong, (0.6, 0.65, 0.7)) | {"rule": "xent"}
        cells.append(cell | {"pgr": {"value": value, "low": None, "high": None}})
    panel = figures.pgr_by_size(cells, "acc").axes[0]
    assert [*panel.lines[0].get_ydata()] == [0.5, -1.6, 7.0]
    bottom, top = panel.get_ylim()
    assert bottom < -1.6 and 7 < top


# ---- what is wrong


def test_bad_input_of_a_grid_is_told(tmp_path, grid, no_pictures):
    with pytest.raises(BadInput, match="is not the folder of a grid"):
        pgr.main(grid=str(tmp_path))
    with pytest.raises(BadInput, match="--grid goes with --metric alone: leave want=0.1 out"):
        pgr.main(grid=str(grid), want=0.1)
    with pytest.raises(BadInput, match="leave weak=runs/mine out"):
        pgr.main("runs/mine", grid=str(grid))
    with pytest.raises(BadInput, match="--metric=score: rows have no such metric"):
        pgr.main(grid=str(grid), metric="score")
    folder = tmp_path / "copy"
    shutil.copytree(grid, folder)
    file = folder / "facts/s1/ceiling-a-m/eval/facts-test.jsonl"
    rows = file.read_bytes()
    file.write_bytes(rows.replace(b"0.8", b"0.9", 1))
    with pytest.raises(BadInput, match=f"{file} differs from"):
        pgr.main(grid=str(folder))
    files.write_jsonl(file, files.read_jsonl(grid / file.relative_to(folder), ["id"])[1:], CARD)
    with pytest.raises(BadInput, match=f"{file} are of other test rows"):
        pgr.main(grid=str(folder))
    file.unlink()
    with pytest.raises(BadInput, match=f"{file}, of which results.jsonl tells, is gone"):
        pgr.main(grid=str(folder))
    (folder / "results.jsonl").write_text("")
    with pytest.raises(BadInput, match="has no supervisor, student and ceiling that are finished"):
        pgr.main(grid=str(folder))


def test_long_names_of_models_are_brief_in_pictures_where_that_is_enough():
    cells = [{"supervisor": "openai-community/gpt2", "strong": "facts/m"}]
    assert figures.brief(cells) == {"openai-community/gpt2": "gpt2", "facts/m": "facts/m"}
    cells = [{"supervisor": "/models/small/model", "strong": "/models/large/model"}]
    assert figures.brief(cells) == {cells[0][who]: cells[0][who] for who in cells[0]}
