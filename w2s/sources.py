"""Where the rows of tasks come from: the Hugging Face hub, or a mirror of it (W2S_MIRROR).

A task is an entry of a setting's TASKS, a dict:

    repo, config  the hub id and its config (its folder in a mirror); revision: where one is pinned
    files         what to load of the repository where load_dataset(repo, config) does not work
    splits        ours -> (the source's, its rows on record, the share of 1s uncut)
    needs         {column: what it must hold}, see fits(); other columns are not read
    or_else       what to try where a source is unconfirmed; by_hand: where the hub has none

mirror = hub id / config or "default" / the source's split.parquet (or .csv)
"""

import heapq
import os
import sys
from pathlib import Path

from w2s import cli, files, hub
from w2s.files import BadInput, hashed

MAX_ROWS = 200_000  # drawn of a larger split: two halves need no more, and memory has an end
IN_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a real number"}


def texts(names):
    """Columns of text, as "needs" has them."""
    return dict.fromkeys(names.split(), str)


def source_rows(ds, task, split):
    """(their name, how many, an iterator of (number, row)); a row with an empty field is None.

    BadInput for a column that is missing or holds something else than documented.
    """
    source, on_record, _ = task["splits"][split]
    table, where = read_table(ds, task, split), f"{ds}: the {source} rows of {task['repo']}"
    for column in task["needs"]:
        if column not in table.column_names:
            there = ", ".join(table.column_names)
            raise BadInput(f"{where} have no column {column!r}; they have {there}{or_else(task)}")
    count, numbers = table.num_rows, range(table.num_rows)
    if on_record not in (None, count):
        print(f"note: {where} are {count}, on record are {on_record}", file=sys.stderr)
    table = table.select(list(task["needs"]))
    if count > MAX_ROWS:
        print(f"{where} are {count}: {MAX_ROWS} are drawn, always the same", file=sys.stderr)
        names = (hashed(f"drawn/{ds}/{source}/{number}") for number in numbers)
        numbers = sorted(number for _, number in heapq.nsmallest(MAX_ROWS, zip(names, numbers)))
        table = table.take(numbers)
    rows = (row for batch in table.to_batches(10_000) for row in batch.to_pylist())
    made = ((number, checked(row, task, where, number)) for number, row in zip(numbers, rows))
    return where, len(numbers), made


def checked(row, task, where, number):
    """The row, its texts stripped, None where a field is empty; BadInput unless as documented."""
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
    """True if a value is of a type, among the values of a tuple, or a list or dict of what fits."""
    if isinstance(wanted, type):
        return type(value) is wanted
    if isinstance(wanted, dict):
        return type(value) is dict and all(fits(value.get(name), wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return type(value) is list and value != [] and all(fits(part, wanted[0]) for part in value)
    return any(type(value) is type(one) and value == one for one in wanted)


def in_words(wanted):
    """What fits() wants."""
    if isinstance(wanted, list):
        return "a list of texts"
    if isinstance(wanted, dict):
        return f"an object with {' and '.join(wanted)}"
    return IN_WORDS.get(wanted) or f"one of {', '.join(map(repr, wanted))}"


def or_else(task):
    """What to try where the source is unconfirmed or has changed, for the end of a message."""
    return f"; {task['or_else']}" if "or_else" in task else ""


def read_table(name, task, split):
    """All rows of one split of a task as an Arrow table; with W2S_MIRROR=DIR from there alone."""
    folder = os.environ.get("W2S_MIRROR")
    if not folder:
        return fetch(task, split)
    file = mirrored(folder, task, split)
    comma = file.with_suffix(".csv")
    if not file.is_file() and not comma.is_file():
        told = f"W2S_MIRROR={folder} holds no {task['splits'][split][0]} rows of {task['repo']}"
        write = f"python tasks.py --mirror=DIR {name} writes it on a machine with the hub"
        raise BadInput(f"{told}: {file} does not exist; {task.get('by_hand', write)}")
    import pyarrow.csv  # comes with datasets
    import pyarrow.parquet

    try:
        if file.is_file():
            return pyarrow.parquet.read_table(file)
        file, lines = comma, pyarrow.csv.ParseOptions(newlines_in_values=True)
        return pyarrow.csv.read_csv(file, parse_options=lines)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{file} cannot be read: {files.first_line(error)}") from error


def mirrored(folder, task, split):
    """Where a mirror keeps one split of a task."""
    folder = Path(folder) / task["repo"] / task.get("config", "default")
    return folder / f"{task['splits'][split][0]}.parquet"


def fetch(task, split):
    """All rows of one split of a task from the hub, as an Arrow table on disk."""
    repo, source, options = task["repo"], task["splits"][split][0], {}
    if "by_hand" in task:
        raise BadInput(f"{repo}: {task['by_hand']}")
    hub.ask(repo, "dataset")
    import datasets

    where = {"path": repo, "name": task.get("config"), "revision": task.get("revision")}
    if "files" in task:  # the repository itself has a script, which datasets no longer runs
        path = task["files"]
        path = path[split] if isinstance(path, dict) else path.format(source)
        at = f"@{task['revision']}" if "revision" in task else ""
        kind = "csv" if path.endswith(".csv") else "json" if ".jsonl" in path else "parquet"
        where = {"path": kind, "data_files": {source: f"hf://datasets/{repo}{at}/{path}"}}
        if kind == "csv":
            options = {"keep_default_na": False}  # or the answer "None" would be a missing one
    try:
        return datasets.load_dataset(split=source, **where, **options).with_format("arrow")[:]
    except Exception as error:
        told = (
            f"{repo} ({task.get('config', 'default')}, {source}) could not be loaded from the hub"
        )
        instead = "or give a folder of parquet files with W2S_MIRROR=DIR"
        raise BadInput(f"{told}: {files.first_line(error)}{or_else(task)}; {instead}") from error


def write_mirror(folder, task):
    """Copy all splits of a task from the hub into a mirror; a file that is there is kept.

    BadInput where a split has not the number of rows on record.
    """
    import pyarrow.parquet

    for split, (source, on_record, _) in task["splits"].items():
        file = mirrored(folder, task, split)
        if file.is_file():
            print(f"{file}: already there")
            continue
        rows = fetch(task, split)
        if on_record not in (None, rows.num_rows):
            about = f"{source} of {task['repo']} has {rows.num_rows} rows"
            raise BadInput(f"{about}, on record are {on_record}")
        with files.whole(file) as temporary:
            pyarrow.parquet.write_table(rows, temporary)
        print(f"{file}: {rows.num_rows} rows")


# ---- what tasks.py prints


def show_table(settings):
    """Print the table of tasks, a line for each split of the source, before any cutting."""
    print("rows, 1s: in the source (.500: a right and a wrong answer); ?: not on record\n")
    line = "{:<7} {:<23} {:<17} {:>7} {:>5}  {:<13} {:<7} {:<43} {}".format
    head = "setting task split rows 1s group licence".split()
    print(line(*head, "hub id, config", "revision"))
    for setting in settings:
        for name, task in setting.TASKS.items():
            where = f"{task.get('repo', 'made here')} {task.get('config', '')}".strip()
            about = task.get("group", "row"), task.get("licence", "?"), where
            for split, (source, count, ones) in task["splits"].items():
                told = split if split == source else f"{split} = {source}"
                counts = count or "?", "?" if ones is None else f"{ones:.3f}"[1:]
                revision = task.get("revision", "main")[:20]
                print(line(setting.__name__, name, told, *counts, *about, revision))


def make_mirror(tasks, folder, names):
    """Write the data of tasks (default: all) to a mirror; one that fails stops no other."""
    on_hub = [name for name, task in tasks.items() if "repo" in task and "by_hand" not in task]
    for name in names:
        if name not in on_hub:
            raise BadInput(f"{name} is no task of the hub{cli.nearest(name, on_hub)}")
    names, failed = names or on_hub, []
    for name in names:
        try:
            write_mirror(folder, tasks[name])
        except BadInput as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    if failed:
        raise BadInput(f"{folder} lacks {' '.join(failed)} (see above): call this again")
    print(f"next, on the other machine: W2S_MIRROR={folder} python tasks.py {names[0]} --n=5")
