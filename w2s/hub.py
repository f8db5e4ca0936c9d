"""Where rows and models come from: the Hugging Face hub, a mirror of it (W2S_MIRROR), or a folder of one's own."""

import os
import sys
from pathlib import Path

from w2s.files import HERE, BadInput, sha256

TIMEOUT = 8  # seconds for the one question whether the hub is there; its own retries would take 24


def table(name, task, split):
    """All rows of one split ("train", ...) of a task, given its name and its entry in sources.TASKS, as an Arrow table.

    With W2S_MIRROR=DIR they are read from DIR/<repo>/<config or "default">/<source's split>.parquet (or .csv) and the hub
    is never asked. Raises BadInput where the mirror lacks the file or the hub cannot be reached.
    """
    if not os.environ.get("W2S_MIRROR"):
        return fetch(task, split)
    file = mirrored(os.environ["W2S_MIRROR"], task, split)
    comma = file.with_suffix(".csv")
    if not file.is_file() and not comma.is_file():
        raise BadInput(
            f"W2S_MIRROR={os.environ['W2S_MIRROR']} holds no {task['splits'][split][0]} rows of {task['repo']}: {file} does "
            f"not exist; {by_hand(task) or f'python {script(task)} --mirror=DIR {name} writes it on a machine with the hub'}"
        )
    import pyarrow.csv  # comes with datasets
    import pyarrow.parquet

    try:
        if file.is_file():
            return pyarrow.parquet.read_table(file)
        return pyarrow.csv.read_csv(
            comma, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
        )
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(
            f"{file if file.is_file() else comma} cannot be read: {first_line(error)}"
        ) from error


def script(task):
    """The script that prints a task's rows and writes its mirror."""
    return task.get("script", "tasks.py")


def mirrored(folder, task, split):
    """Where a mirror keeps one split of a task."""
    return (
        Path(folder)
        / task["repo"]
        / task.get("config", "default")
        / f"{task['splits'][split][0]}.parquet"
    )


def by_hand(task):
    """What to do for a data set that the hub does not have, None for the others."""
    if "by_hand" in task:
        file = mirrored("DIR", task, "all").with_suffix(".csv")
        return f"it is not on the hub: put {task['by_hand']}, at {file} and set W2S_MIRROR=DIR"


def fetch(task, split):
    """All rows of one split of a task from the hub, as an Arrow table on disk."""
    repo, revision, source = task["repo"], task.get("revision"), task["splits"][split][0]
    if by_hand(task):
        raise BadInput(f"{repo}: {by_hand(task)}")
    ask(repo, "dataset", script(task))
    import datasets

    try:
        if "files" in task:  # the repository itself has a script, which datasets no longer runs
            path = (
                task["files"][split]
                if isinstance(task["files"], dict)
                else task["files"].format(source)
            )
            # csv would take the answer "None" for a missing one
            kind, options = (
                ("csv", {"keep_default_na": False}) if path.endswith(".csv") else ("parquet", {})
            )
            kind = "json" if path.endswith((".jsonl", ".jsonl.gz")) else kind
            urls = {split: f"hf://datasets/{repo}{'@' + revision if revision else ''}/{path}"}
            rows = datasets.load_dataset(kind, data_files=urls, split=split, **options)
        else:
            rows = datasets.load_dataset(repo, task.get("config"), split=source, revision=revision)
        return rows.with_format("arrow")[:]
    except Exception as error:
        raise BadInput(
            f"{repo} ({task.get('config', 'default')}, {source}) could not be loaded from the hub: {first_line(error)}; "
            f"{task['or_else'] + ', ' if 'or_else' in task else ''}or give a folder of parquet files with W2S_MIRROR=DIR"
        ) from error


def write_mirror(folder, name, task):
    """Copy all splits of a task from the hub into a mirror, one parquet file each, whole or not at all.

    A file that is there is kept. BadInput where a split has not the number of rows on record.
    """
    import pyarrow.parquet

    for split, (source, known, _) in task["splits"].items():
        file = mirrored(folder, task, split)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        there = file.is_file()
        try:
            rows = pyarrow.parquet.read_metadata(file) if there else fetch(task, split)
            if known not in (None, rows.num_rows):
                wrong = f"{file} holds" if there else f"{name}: {source} of {task['repo']} has"
                again = "; delete it and start again" if there else ""
                raise BadInput(f"{wrong} {rows.num_rows} rows, on record are {known}{again}")
            if not there:
                file.parent.mkdir(parents=True, exist_ok=True)
                pyarrow.parquet.write_table(rows, temporary)
                os.replace(temporary, file)
        except (OSError, pyarrow.ArrowException) as error:
            raise BadInput(
                f"{file} cannot be {'read: delete it' if there else 'written'} ({first_line(error)})"
            ) from None
        finally:
            if temporary.exists():
                temporary.unlink()
        print(f"{file}: {rows.num_rows} rows{', already there' if there else ''}")


def find_model(name):
    """The folder, or else the hub id, that transformers' from_pretrained should load for --model=name.

    A relative folder is looked up from where the command runs, then beside the scripts (facts/m works from anywhere).
    Raises BadInput where there is no such folder, and no such model on the hub, or no way to reach it.
    """
    for folder in (Path(name), HERE / name):
        if (folder / "config.json").is_file():
            return str(folder)
        if (folder / "model" / "config.json").is_file():
            raise BadInput(f"--model={name} is a run directory: its model is {folder / 'model'}")
        if folder.is_dir():
            raise BadInput(
                f"--model={name}: the folder {folder} has no config.json, so it is no Hugging Face model"
            )
    if Path(name).exists():
        raise BadInput(
            f"--model={name} is a file: give the folder of a Hugging Face model, or a hub id"
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise BadInput(f"--model={name}: there is no such folder")
    ask(name, "model")
    return name


def model_input(name):
    """{"model": sha256} for a model in a folder, {} for one of the hub: what a card records of --model as an input."""
    path = Path(find_model(name))
    return {"model": sha256(path)} if path.is_dir() else {}


def ask(name, kind, writer="tasks.py"):
    """Make sure that the hub has a "model" or "dataset" of this name; where it is out of reach, go on with its cache alone."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=TIMEOUT)
    except errors.GatedRepoError:
        raise BadInput(
            f"{name} is gated: accept its terms on its hub page, then set HF_TOKEN to a token that may read it"
        ) from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"the hub has no {kind} {name!r} that you may see: check the name (owner/name); for a private one set HF_TOKEN"
        ) from None
    except errors.HFValidationError:
        raise BadInput(
            f"{name!r} is neither a folder nor a name that the hub could have (owner/name)"
        ) from None
    except Exception as error:  # every kind of network trouble, and HF_HUB_OFFLINE=1
        if not cached(name, kind):
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise BadInput(
                    f"the hub refuses to show {name} ({status}): check HF_TOKEN, or unset it"
                ) from None
            state = f"answers with {status}" if status else "is out of reach"
            instead = (
                "--model=DIR takes a folder" if kind == "model" else "--ds=FILE.jsonl takes a file"
            )
            raise BadInput(
                f"the hub {state} and {name} is not in its local cache: {instead}, and W2S_MIRROR=DIR serves data "
                f"sets from a folder of parquet files (python {writer} --mirror=DIR writes it where the hub is)"
            ) from None
        print(f"the hub is out of reach: using the cached copy of {name}", file=sys.stderr)
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are imported later
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def cached(name, kind):
    """True if the hub's local cache holds something of this model or data set."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "snapshots").is_dir()


def first_line(error):
    """The first line of an exception's message, cut to a readable length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
