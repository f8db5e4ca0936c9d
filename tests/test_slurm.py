"""Grids on Slurm: groups, dependencies, what is missing; refusals; and a real one, where it is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

import sweep
from w2s import cli, files, grids, slurm, workers
from w2s.files import HERE, BadInput

GRID = ["--models=facts/xs,facts/s,facts/m", "--seeds=2", "--n_train=64"]

FAKE = """#!{python} -IS
import json, sys
from pathlib import Path
here, words = Path(__file__).parent, sys.argv[1:]
if words == ["--version"]:
    sys.exit()
if sys.argv[0].endswith("sbatch"):
    made = (here / "made").read_text().splitlines() if (here / "made").exists() else []
    if len(made) == int((here / "most").read_text()):
        sys.exit("sbatch: error: invalid partition: x\\nsbatch: error: Batch job submission failed")
    words = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    print(json.dumps(words), file=open(here / "made", "a"))
    print(f"{{100 + len(made)}};cluster")
else:
    assert words == ["-h", "-o%A %j %r"]
    print((here / "queue").read_text(), end="")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Slurm's programs, but nothing runs: a function that gives the jobs made so far."""
    bin, grid = tmp_path / "bin", tmp_path / "grid"
    bin.mkdir()
    for name in ("sbatch", "squeue"):
        (bin / name).write_text(FAKE.format(python=sys.executable))
        (bin / name).chmod(0o755)
    (bin / "most").write_text("1000")
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")

    def jobs(queued=lambda jobs: jobs):
        """{id: job}; those that `queued` keeps of them are in the queue from now on."""
        made = (bin / "made").read_text().splitlines() if (bin / "made").exists() else []
        made = {str(100 + k): json.loads(line) for k, line in enumerate(made)}
        queue = queued(made).items()
        (bin / "queue").write_text("".join(f"{k} {job['job-name']} None\n" for k, job in queue))
        for job in made.values():
            note = grid / f"slurm/{job['job-name']}.json"
            job["stages"] = json.loads(note.read_text())["stages"]
        return made

    return jobs


def here(folder, *words):
    args, options = cli.parse(sweep.main, [*words, f"--out={folder}"])
    sweep.main(*args, **options)


def nodes_of(**args):
    plan = {"pairs": sweep.pairs_of(**args), "rules": sweep.rules_of("xent,conf", {}), "seeds": 5}
    return grids.build("g", plan, dict.fromkeys(grids.STAGES, {}))


def test_hundreds_of_stages_are_a_few_dozen_jobs_and_each_is_in_one():
    nodes = nodes_of(ds="facts,sst2,boolq,cosmos_qa", models="a,b,c,d", weak=None, strong=None)
    assert len(nodes) == 780  # 39 for each of 20 tasks and seeds
    parts = slurm.groups(nodes, nodes)
    assert len(parts) == 36 and sorted(sum(parts, [])) == sorted(nodes)
    sizes = [len(part) for part in parts]
    assert max(sizes[:12]) == 2 * 9 and max(sizes[12:]) <= 3 * 14
    placed = {name: k for k, part in enumerate(parts) for name in part}
    for name, node in nodes.items():
        assert all(placed[need] <= placed[name] for need in node["needs"])
    small = {name: nodes[name] for name in nodes if name.startswith("sst2/s0/")}
    assert list(map(len, slurm.groups(nodes, small))) == [9, 6, 10, 14]


def test_a_job_waits_for_what_it_needs_and_called_again_only_the_missing_is_submitted(
    fake, tmp_path, capsys
):
    folder = tmp_path / "grid"
    here(folder, *GRID, "--slurm=--gres=gpu:1 --time=4:00:00", "--jobs=2")
    first = fake()
    assert "44 stages in 7 jobs submitted; 0 in 0 jobs wait" in capsys.readouterr().out
    assert len(first) == 7 and sum(len(job["stages"]) for job in first.values()) == 44
    where = {name: k for k, job in first.items() for name in job["stages"]}
    grid = json.loads((folder / "grid.json").read_text()) | {
        "rules": sweep.rules_of("xent,conf", {})
    }
    nodes = grids.build(str(folder), grid, dict.fromkeys(grids.STAGES, {}))
    for number, job in first.items():
        assert (job["gres"], job["time"]) == ("gpu:1", "4:00:00") and "--jobs=2" in job["wrap"]
        needs = {where[need] for name in job["stages"] for need in nodes[name]["needs"]} - {number}
        told = ":".join(["afterok", *sorted(needs)]) if needs else None
        if job["stages"]:
            assert job.get("dependency") == told
    last = first["106"]
    assert last["stages"] == [] and last["dependency"] == "afterany:100:101:102:103:104:105"
    # all are in the queue: nothing to submit, and no local sweep in the same folder
    here(folder, *GRID, "--slurm=--time=1")
    assert "0 stages in 0 jobs submitted; 44 in 7 jobs wait" in capsys.readouterr().out
    with pytest.raises(BadInput, match="in use by the Slurm jobs 100, 101, .* scancel"):
        here(folder, *GRID)
    # a supervisors' job and one that needs it are gone: they come again, after what still waits
    fake(lambda jobs: {k: job for k, job in jobs.items() if k not in ("101", "105")})
    here(folder, *GRID, "--slurm=--time=1")
    again = fake()
    assert again["107"]["stages"] == first["101"]["stages"] and "dependency" not in again["107"]
    assert again["108"]["stages"] == first["105"]["stages"]
    assert again["108"]["dependency"] == "afterok:107"
    assert again["109"]["dependency"] == "afterany:100:102:103:104:106:107:108"
    assert len(again) == 10


def test_a_refusal_is_told_in_slurms_words_and_the_next_call_goes_on(fake, tmp_path, capsys):
    folder, most = tmp_path / "grid", tmp_path / "bin/most"
    most.write_text("0")
    with pytest.raises(BadInput, match="^sbatch refuses: invalid partition: x; Batch .* failed$"):
        here(folder, *GRID, "--slurm=--partition=x")
    most.write_text("3")
    with pytest.raises(BadInput, match="failed; 3 jobs were submitted before: call again"):
        here(folder, *GRID, "--slurm=--partition=x")
    most.write_text("1000")
    fake()
    here(folder, *GRID, "--slurm=--partition=y")
    jobs = fake().values()
    assert [job["partition"] for job in jobs] == 3 * ["x"] + 4 * ["y"]
    assert sum(len(job["stages"]) for job in jobs) == 44
    assert len(list((folder / "slurm").iterdir())) == 7


def test_without_slurm_it_is_told_and_a_dry_run_prints_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "grid"
    here(folder, *GRID, "--slurm=--time=1", "--dry_run")
    *commands, told = capsys.readouterr().out.splitlines()
    assert len(commands) == 7 and all(line.startswith("sbatch --") for line in commands)
    assert "44 stages in 7 jobs to submit" in told and not folder.exists()
    with pytest.raises(BadInput, match="there is no sbatch on the path"):
        here(folder, *GRID, "--slurm=--time=1")
    with pytest.raises(BadInput, match="is not understood: No closing quotation"):
        here(folder, *GRID, "--slurm=--comment='a")
    assert not folder.exists()
    with pytest.raises(BadInput, match="x.json does not exist"):
        here(folder, *GRID, f"--only={folder}/slurm/x.json")
    files.write_text(folder / "slurm/x.json", '{"stages": []}')
    with pytest.raises(BadInput, match="no squeue here .* if they are no more, delete"):
        slurm.no_jobs(folder)


def test_a_job_runs_what_it_can(monkeypatch):
    """Students run of the one supervisor of three that is done; without any, none does."""
    nodes = nodes_of(ds="facts", models="a,b,c,d", weak=None, strong=None)
    missing = {name for name in nodes if name.startswith("facts/s0/")}
    supervisors, *_, students = (
        part for part in slurm.groups(nodes, nodes) if part[0].startswith("facts/s0/")
    )
    monkeypatch.setattr(grids, "undone", lambda nodes: {n: nodes[n] for n in nodes if n in missing})
    assert list(slurm.runnable(supervisors, nodes)) == supervisors
    assert not slurm.runnable(students, nodes)
    missing -= {"facts/s0/weak-b", "facts/s0/labels-b", "facts/s0/weak-b.eval"}
    # the ceiling learns from the labels of a, which are not there
    able = slurm.runnable(students, nodes)
    assert list(able) == [
        f"facts/s0/b-d-{rule}{k}" for k in ("", ".eval") for rule in ("xent", "conf")
    ]
    missing -= {*students}
    failed = {"weak-a", "weak-c", "b-c-xent", "b-c-conf"}
    assert set(slurm.stopped(nodes)) == {f"facts/s0/{name}" for name in failed}


def test_a_job_removes_its_note_whatever_failed_and_the_last_tells_it(
    fake, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "grid"
    here(folder, *GRID, "--slurm=--time=1")
    notes = {k: folder / f"slurm/{job['job-name']}.json" for k, job in fake().items()}
    ran = []
    monkeypatch.setattr(workers, "run", lambda folder, todo, *_: ran.append(todo) or {"x/y": "odd"})
    here(folder, *GRID, f"--only={notes['100']}")
    told = capsys.readouterr()
    assert "6 of 6 stages could run: 1 failed" in told.out and len(ran[0]) == 6
    assert f"failed: x/y: odd (see {folder}/logs/x/y.log)" in told.err
    assert not notes["100"].exists() and notes["101"].exists()
    monkeypatch.setattr(workers, "run", lambda *_: {})
    with pytest.raises(SystemExit, match="1"):
        here(folder, *GRID, f"--only={notes['106']}")
    told = capsys.readouterr()
    assert (
        "44 stages, 44 of them to do: 4 failed; 0 lines" in told.out and not notes["106"].exists()
    )
    assert "failed: facts/s1/weak-facts-s: it failed, or its job was stopped" in told.err
    assert "40 stages that need them were not run" in told.err


# ---- a real one

SBIN = os.environ.get("PATH", "") + ":/usr/sbin"
# asked for by W2S_SLURM=1, as it takes a minute
ABLE = "W2S_SLURM" in os.environ and os.geteuid() == 0
ABLE = ABLE and all(shutil.which(n, path=SBIN) for n in ("slurmctld", "slurmd", "munged", "sbatch"))


@pytest.fixture
def cluster(monkeypatch):
    """A controller and two nodes on this machine, by slurm.sh."""
    folder = tempfile.mkdtemp(prefix="slurm", dir="/tmp")  # sockets want a short path
    script = HERE / "tests/slurm.sh"
    monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        done = subprocess.run([script, "start", folder], text=True, stdout=subprocess.PIPE)
        if done.returncode:
            pytest.skip(f"Slurm does not start here: {done.stdout[-2000:]}")
        yield
    finally:
        subprocess.run([script, "stop", folder], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder)


@pytest.mark.skipif(not ABLE, reason="needs W2S_SLURM=1, Debian's slurm-wlm and munge, and root")
def test_a_real_slurm_makes_the_grid(cluster, tmp_path, capsys):
    grid, folder = ["--models=facts/xs,facts/s", "--loss=xent", "--seeds=1"], tmp_path / "grid"
    grid += ["--n_train=64", "--n_test=40", "--epochs=1"]
    with pytest.raises(BadInput, match="^sbatch refuses: invalid partition .*: nope; .* failed"):
        here(folder, *grid, "--slurm=--partition=nope")
    here(folder, *grid, "--slurm=--begin=now+1hour")
    with pytest.raises(BadInput, match="in use by the Slurm jobs 1, 2, 3: "):
        here(folder, *grid)
    subprocess.run(["scancel", "1", "2", "3"], check=True)
    here(folder, *grid, "--slurm=--time=10")
    assert "7 stages in 3 jobs submitted; 0 in 0 jobs wait" in capsys.readouterr().out
    until = time.monotonic() + 400
    while subprocess.run(["squeue", "-h"], capture_output=True).stdout:
        assert time.monotonic() < until, (folder / "logs/slurm-4.log").read_text()
        time.sleep(0.2)
    log = (folder / "logs/slurm-6.log").read_text()
    assert f"7 stages, 0 of them to do: 0 failed; 1 lines in {folder}/results.jsonl" in log
    assert files.read_jsonl(folder / "results.jsonl", ["values"], {})
    here(folder, *grid)
    assert "7 stages, 0 of them to do: 0 failed" in capsys.readouterr().out
