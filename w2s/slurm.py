"""A grid as jobs of Slurm, which alone decides what runs when and where.

A job is sweep.py with the words of the grid and `--only=NOTE`. Its note, slurm/JOB_NAME.json in the
grid's folder, has {"stages": [names]}; those of the last job, which writes the results, are none.
A note is written before its job is submitted, and removed by the job when it ends. So stages wait
or run if a note has them whose job is in the queue; a job that was killed leaves its note alone.
"""

import contextlib
import json
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from w2s import files, grids, strict
from w2s.files import HERE, BadInput

SUPERVISORS, STUDENTS = 12, 24  # jobs of either kind at most, whatever the grid


# ---- before: who submits


def ready(options, dry_run):
    """BadInput, before anything is written, for options that are no words, or without sbatch."""
    try:
        shlex.split(options)
    except ValueError as error:
        raise BadInput(f"--slurm={options} is not understood: {error}") from None
    if not dry_run:
        told_by("sbatch", "--version")


def submit(folder, nodes, todo, words, options, dry_run=False):
    """Submit what is to do and not in the queue, and a last job for the results.

    nodes, todo: stages, as grids.build() and undone() make them; words: of the grid, for sweep.py;
    options: of sbatch, as one text, after ready(). Where Slurm refuses a job, earlier ones stay:
    they are noted, and the next call goes on. dry_run: print the commands.
    """
    queued, made = waiting(folder), []
    job_of = {name: job for job, stages in queued.items() for name in stages}
    missing = {name: node for name, node in todo.items() if name not in job_of}
    for stages in [*groups(nodes, missing), []] if missing or [] not in queued.values() else ():
        needs = {need for name in stages for need in nodes[name]["needs"]} & todo.keys()
        after = {job_of[need] for need in needs.difference(stages)}
        waits = ("afterok", after) if stages else ("afterany", {*queued, *made})
        try:
            made.append(sbatch(folder, stages, words, options, *waits, dry_run))
        except BadInput as error:
            told = f"; {len(made)} jobs were submitted before: call again for the others"
            raise BadInput(f"{error}{told if made else ''}") from None
        job_of |= dict.fromkeys(stages, made[-1])
    told = f"{len(missing)} stages in {len(made)} jobs {'to submit' if dry_run else 'submitted'}"
    queue = f"{len(todo) - len(missing)} in {len(queued)} jobs wait or run already"
    print(f"{folder}: {told}; {queue}; look with squeue, and in {folder}/logs")


def groups(nodes, missing):
    """Lists of stages, one a job, none before one that it needs.

    A job is the supervisors of a task and seed with their labels, or all that one strong model
    learns there; neighbours are put together where those are too many. Evals go with their runs.
    """
    kinds = {}, {}
    for name, node in missing.items():
        run = nodes[name.removesuffix(".eval")]
        learner = grids.script_of(run) == "train_strong"
        key = name.rpartition("/")[0], node["model"] if learner else ""
        kinds[learner].setdefault(key, []).append(name)
    supervisors, students = ([of[key] for key in sorted(of)] for of in kinds)
    return merged(nodes, supervisors, SUPERVISORS) + merged(nodes, students, STUDENTS)


def merged(nodes, parts, most):
    """The parts; neighbours put together, to about equal work, where there are more than `most`."""
    work, found = [sum(grids.work(nodes[name]) for name in part) for part in parts], {}
    for k, part in enumerate(parts):
        found.setdefault(sum(work[:k]) * most // sum(work), []).extend(part)
    return list(found.values()) if len(parts) > most else parts


def sbatch(folder, stages, words, options, kind, after, dry_run):
    """Submit a job that waits for the jobs `after`; its id, or in a dry run its name.

    afterok: a job that ran to its end is ok whatever failed in it, and the next does what it can:
    a failed stage keeps none from running that does not need it. Of a job that was stopped, Slurm
    removes those that wait for it. What is missing at last, the last job tells, and fails.
    """
    name = f"{grids.form(Path(folder).name)}-{secrets.token_hex(4)}"
    note = Path(folder) / "slurm" / f"{name}.json"
    words = [sys.executable, str(HERE / "sweep.py"), *words, f"--only={note}"]
    asked = ["sbatch", "--requeue", "--open-mode=append", f"--output={folder}/logs/slurm-%j.log"]
    asked += shlex.split(options)
    asked += ["--parsable", f"--job-name={name}", "--kill-on-invalid-dep=yes"]
    asked += [f"--dependency={kind}:{':'.join(sorted(after))}"] if after else []
    asked.append(f"--wrap=exec {shlex.join(words)}")
    if dry_run:
        print(shlex.join(asked))
        return name
    (Path(folder) / "logs").mkdir(exist_ok=True)
    files.write_text(note, json.dumps({"stages": stages}) + "\n")
    try:
        return told_by(*asked).split(";")[0].strip()
    except BadInput:
        note.unlink()
        raise


def waiting(folder):
    """{job id: names of its stages} of the jobs of a grid that wait or run."""
    notes = {}
    for path in (Path(folder) / "slurm").glob("*.json"):
        with contextlib.suppress(BadInput):  # its job has just ended
            notes[path.stem] = noted(path)
    if not notes:
        return {}
    if not shutil.which("squeue"):
        told = f"{folder}/slurm notes jobs, and there is no squeue here to ask for them"
        raise BadInput(f"{told}: if they are no more, delete that folder")
    queue = [line.split(maxsplit=2) for line in told_by("squeue", "-h", "-o%A %j %r").splitlines()]
    never = "DependencyNeverSatisfied"  # Slurm is about to remove it
    return {job: notes[name] for job, name, why in queue if name in notes and why != never}


def told_by(program, *words):
    """What a program of Slurm prints; BadInput, in its own words, where it refuses."""
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True)
    except FileNotFoundError:
        told = "--slurm submits from a machine of a Slurm cluster"
        raise BadInput(f"there is no {program} on the path: {told}") from None
    if done.returncode:
        told = done.stderr.replace(f"{program}: error: ", "").strip().splitlines()
        raise BadInput(f"{program} refuses: {'; '.join(told) or f'exit {done.returncode}'}")
    return done.stdout


def no_jobs(folder):
    """BadInput while jobs of a grid wait or run: a local sweep would do the same work."""
    if jobs := waiting(folder):
        told = "wait for them, end them with scancel, or submit more with --slurm"
        raise BadInput(f"{folder} is in use by the Slurm jobs {', '.join(jobs)}: {told}")


# ---- after: in a job


def noted(note):
    """The names of the stages in a job's note."""
    try:
        return strict.read(note, {"stages": [str]})["stages"]
    except BadInput as error:
        raise BadInput(f"--only={error}: Slurm's jobs alone need it") from None


def runnable(stages, nodes):
    """Those of `stages` that are to do and need nothing that other jobs should have done."""
    todo, found = grids.undone(nodes), {}
    for name, node in todo.items():
        if name in stages and not (todo.keys() & node["needs"]) - found.keys():
            found[name] = node
    return found


def stopped(nodes):
    """{name: why, as far as is known} of the stages that jobs left undone."""
    todo = grids.undone(nodes)
    told = "it failed, or its job was stopped"
    return {name: told for name, node in todo.items() if not todo.keys() & node["needs"]}
