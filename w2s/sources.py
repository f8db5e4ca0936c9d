"""Where the rows of tasks come from: the Hugging Face hub, or a mirror of it (W2S_MIRROR); checked as they are read.

A task is an entry of a setting's TASKS, a dict:

    repo, config  the hub id and its config, which also names the folder in a mirror; revision: where one is pinned
    files         what to load from the repository where load_dataset(repo, config) does not work today
    splits        ours -> (the source's, its rows on record, the share of 1s uncut)
    needs         {column: what it must hold}, see fits(); other columns are not read
    or_else       what to try where a source is unconfirmed; by_hand: the file to get where the hub has none

mirror = hub id / config or "default" / the source's split.parquet (or .csv)
"""

import heapq
import os
import sys
from pathlib import Path

from w2s import hub
from w2s.files import BadInput, hashed

MAX_ROWS = (
    200_000  # drawn of a larger split: two halves of 10,000 need no more, and memory has an end
)
TYPES = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a fraction",
}


def texts(names):
    """Columns of text, as "needs" has them."""
    return dict.fromkeys(names.split(), str)


def source_rows(ds, task, split):
    """(what to call them, how many, an iterator of (number, row)) of a source's rows; None for one with an empty field.

    BadInput for a column that is missing or holds something else than documented.
    """
    source, known, _ = task["splits"][split]
    table, where = read_table(ds, task, split), f"{ds}: the {source} rows of {task['repo']}"
    for column in task["needs"]:
        if column not in table.column_names:
            there = ", ".join(table.column_names)
            raise BadInput(f"{where} have no column {column!r}; they have {there}{or_else(task)}")
    if known not in (None, table.num_rows):
        print(f"note: {where} are {table.num_rows}, on record are {known}", file=sys.stderr)
    table, numbers = table.select(list(task["needs"])), range(table.num_rows)
    if len(numbers) > MAX_ROWS:
        drawn = heapq.nsmallest(MAX_ROWS, numbers, key=lambda i: hashed(f"drawn/{ds}/{source}/{i}"))
        told = f"{where} are {len(numbers)}: {MAX_ROWS} are drawn, always the same"
        print(told, file=sys.stderr)
        numbers = sorted(drawn)
        table = table.take(numbers)
    rows = (row for batch in table.to_batches(10_000) for row in batch.to_pylist())
    return where, len(numbers), ((i, checked(row, task, where, i)) for i, row in zip(numbers, rows))


def checked(row, task, where, number):
    """The row, its texts stripped; None where a field is empty; BadInput where one is not as documented."""
    row = {column: stripped(value) for column, value in row.items()}
    if any(map(is_empty, row.values())):
        return None
    for column, wanted in task["needs"].items():
        if not fits(row[column], wanted):
            found = f"{str(row[column])[:60]!r} ({type(row[column]).__name__})"
            told = f"column {column!r} is {found}; documented is {in_words(wanted)}"
            raise BadInput(f"{where}, row {number}: {told}{or_else(task)}")
    return row


def stripped(value):
    """The value, all strings in it without white space at both ends."""
    if isinstance(value, dict):
        return {name: stripped(part) for name, part in value.items()}
    if isinstance(value, list):
        return [stripped(part) for part in value]
    return value.strip() if isinstance(value, str) else value


def is_empty(value):
    """True for a null, an empty text, a number that is none, and whatever holds one."""
    if isinstance(value, (dict, list)):
        return any(map(is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == "" or value != value


def fits(value, wanted):
    """True if a value is of the wanted type, among the wanted values, or a list or an object of what is wanted."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(fits(value.get(k), wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and value != [] and all(fits(v, wanted[0]) for v in value)
    if isinstance(wanted, type):
        return type(value) is wanted
    return any(type(value) is type(one) and value == one for one in wanted)


def in_words(wanted):
    """What fits() wants."""
    if isinstance(wanted, list):
        return "a list of texts"
    if isinstance(wanted, dict):
        return f"an object with {' and '.join(wanted)}"
    return TYPES[wanted] if isinstance(wanted, type) else f"one of {', '.join(map(repr, wanted))}"


def or_else(task):
    """What to try where the source is unconfirmed or has changed, for the end of a message."""
    return f"; {task['or_else']}" if "or_else" in task else ""


# ---- the hub and its mirror


def read_table(name, task, split):
    """All rows of one split of a task as an Arrow table; BadInput where mirror or hub do not have them.

    With W2S_MIRROR=DIR the hub is never asked.
    """
    folder = os.environ.get("W2S_MIRROR")
    if not folder:
        return fetch(task, split)
    file = mirrored(folder, task, split)
    comma = file.with_suffix(".csv")
    if not file.is_file() and not comma.is_file():
        told = f"W2S_MIRROR={folder} holds no {task['splits'][split][0]} rows of {task['repo']}"
        write = f"python tasks.py --mirror=DIR {name} writes it on a machine with the hub"
        raise BadInput(f"{told}: {file} does not exist; {by_hand(task) or write}")
    import pyarrow.csv  # comes with datasets
    import pyarrow.parquet

    try:
        if file.is_file():
            return pyarrow.parquet.read_table(file)
        file, lines = comma, pyarrow.csv.ParseOptions(newlines_in_values=True)
        return pyarrow.csv.read_csv(file, parse_options=lines)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{file} cannot be read: {hub.first_line(error)}") from error


def mirrored(folder, task, split):
    """Where a mirror keeps one split of a task."""
    folder = Path(folder) / task["repo"] / task.get("config", "default")
    return folder / f"{task['splits'][split][0]}.parquet"


def by_hand(task):
    """What to do for a data set that the hub does not have, None for the others."""
    if "by_hand" in task:
        file = mirrored("DIR", task, "all").with_suffix(".csv")
        return f"it is not on the hub: put {task['by_hand']}, at {file} and set W2S_MIRROR=DIR"


def fetch(task, split):
    """All rows of one split of a task from the hub, as an Arrow table on disk."""
    repo, revision, source = task["repo"], task.get("revision"), task["splits"][split][0]
    if "by_hand" in task:
        raise BadInput(f"{repo}: {by_hand(task)}")
    hub.ask(repo, "dataset")
    import datasets

    try:
        if "files" in task:  # the repository itself has a script, which datasets no longer runs
            path = task["files"]
            path = path[split] if isinstance(path, dict) else path.format(source)
            kind = "csv" if path.endswith(".csv") else "json" if ".jsonl" in path else "parquet"
            # csv would take the answer "None" for a missing one
            options = {"keep_default_na": False} if kind == "csv" else {}
            url = f"hf://datasets/{repo}{'@' + revision if revision else ''}/{path}"
            rows = datasets.load_dataset(kind, data_files={split: url}, split=split, **options)
        else:
            rows = datasets.load_dataset(repo, task.get("config"), split=source, revision=revision)
        return rows.with_format("arrow")[:]
    except Exception as error:
        told = (
            f"{repo} ({task.get('config', 'default')}, {source}) could not be loaded from the hub"
        )
        instead = "or give a folder of parquet files with W2S_MIRROR=DIR"
        raise BadInput(f"{told}: {hub.first_line(error)}{or_else(task)}; {instead}") from error


def write_mirror(folder, name, task):
    """Copy all splits of a task from the hub into a mirror, one parquet file each, whole or not at all.

    A file that is there is kept. BadInput where a split has not the number of rows on record.
    """
    import pyarrow.parquet

    for split, (source, known, _) in task["splits"].items():
        file = mirrored(folder, task, split)
        temporary, there = file.with_name(f".{file.name}.{os.getpid()}.tmp"), file.is_file()
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
            told = "read: delete it" if there else "written"
            raise BadInput(f"{file} cannot be {told} ({hub.first_line(error)})") from None
        finally:
            if temporary.exists():
                temporary.unlink()
        print(f"{file}: {rows.num_rows} rows{', already there' if there else ''}")
