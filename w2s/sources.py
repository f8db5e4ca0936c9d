"""Where the rows of tasks come from: the Hugging Face hub, or a mirror of it (W2S_MIRROR).

A task is an entry of a setting's TASKS, a dict:

    repo, config  the hub id and its config (its folder in a mirror); revision: where one is pinned
    files         what to load of the repository where load_dataset(repo, config) does not work
    splits        ours -> (the source's, its rows on record, the share of 1s uncut)
    needs         {column: what it must hold}, as strict.misfit(); other columns are not read
    or_else       what to try where a source is unconfirmed; by_hand: where the hub has none

mirror = hub id / config or "default" / the source's split.parquet (or .csv)
"""

import heapq
import os
import shlex
import sys
from pathlib import Path

from w2s import cli, files, hub, strict
from w2s.files import BadInput, hashed

MAX_ROWS = 200_000  # drawn of a larger split: two halves need no more, and memory has an end


def texts(names):
    """Columns of text, as "needs" has them."""
    return dict.fromkeys(names.split(), str)


def source_rows(ds, task, split):
    """(their name, how many, an iterator of (number, row)); a row with an empty field is None.

    BadInput for a column that is missing or holds something else than documented.
    """
    source, on_record, _ = task["splits"][split]
    table, where = read_table(ds, task, split), f"{ds}: the {source} rows of {task['repo']}"
    count, numbers, there = table.num_rows, range(table.num_rows), table.column_names
    if missing := [column for column in task["needs"] if column not in there]:
        told = f"{where} have no column {missing[0]!r}; they have {', '.join(there)}"
        raise BadInput(told + or_else(task))
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
    """The row stripped, None where a field is empty; BadInput unless it is as documented."""
    row = stripped(row)
    if told := row and strict.misfit(row, task["needs"]):
        raise BadInput(f"{where}, row {number}, is not as documented: it {told}{or_else(task)}")
    return row


def stripped(value):
    """The value, all strings in it without white space at both ends.

    None for a null, an empty text, a number that is none, and whatever holds one.
    """
    if isinstance(value, dict):
        parts = stripped([*value.values()])
        return None if parts is None else dict(zip(value, parts))
    if isinstance(value, list):
        parts = [stripped(part) for part in value]
        return None if None in parts else parts
    value = value.strip() if isinstance(value, str) else value
    return None if value == "" or value != value else value


def or_else(task):
    """What to try where the source is unconfirmed or has changed, for the end of a message."""
    return f"; {task['or_else']}" if "or_else" in task else ""


def read_table(name, task, split):
    """All rows of one split of a task as an Arrow table; with W2S_MIRROR=DIR from there alone."""
    folder = os.environ.get("W2S_MIRROR")
    if not folder:
        return fetch(task, split)
    file = mirrored(folder, task, split)
    there = [one for one in (file, file.with_suffix(".csv")) if one.is_file()]
    if not there:
        told = f"W2S_MIRROR={folder} holds no {task['splits'][split][0]} rows of {task['repo']}"
        write = f"python tasks.py --mirror=DIR {name} writes it on a machine with the hub"
        raise BadInput(f"{told}: {file} does not exist; {task.get('by_hand', write)}")
    import pyarrow.csv  # comes with datasets
    import pyarrow.parquet

    try:
        if there[0] == file:
            table = pyarrow.parquet.read_table(file)
        else:
            lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
            table = pyarrow.csv.read_csv(there[0], parse_options=lines)
        strict.check_names(table.column_names)
        table.validate(full=True)  # that its texts are UTF-8, too
        return table
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise BadInput(f"{there[0]} cannot be read: {files.first_line(error)}") from error


def mirrored(folder, task, split):
    """Where a mirror keeps one split of a task."""
    folder = Path(folder) / task["repo"] / task.get("config", "default")
    return folder / f"{task['splits'][split][0]}.parquet"


def fetch(task, split):
    """All rows of one split of a task from the hub, as an Arrow table on disk."""
    repo, source = task["repo"], task["splits"][split][0]
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
            where["keep_default_na"] = False  # or the answer "None" would be a missing one
    try:
        return datasets.load_dataset(split=source, **where).with_format("arrow")[:]
    except Exception as error:
        told = f"({task.get('config', 'default')}, {source}) could not be loaded from the hub"
        why = files.first_line(error) + or_else(task)
        instead = "or give a folder of parquet files with W2S_MIRROR=DIR"
        raise BadInput(f"{repo} {told}: {why}; {instead}") from error


def write_mirror(folder, task):
    """Copy a task from the hub; a file that is there stays. BadInput: not the rows on record."""
    import pyarrow.parquet

    for split, (source, on_record, _) in task["splits"].items():
        file = mirrored(folder, task, split)
        if file.is_file():
            print(f"{file}: already there")
            continue
        rows = fetch(task, split)
        if on_record not in (None, rows.num_rows):
            told = f"{source} of {task['repo']} has {rows.num_rows} rows"
            raise BadInput(f"{told}, on record are {on_record}")
        with files.whole(file) as temporary:
            pyarrow.parquet.write_table(rows, temporary)
        print(f"{file}: {rows.num_rows} rows")


def show_table(settings):
    """Print the table of tasks, a line for each split of the source, before any cutting."""
    print("rows, 1s: in the source (.500: a right and a wrong answer); ?: not on record\n")
    line = "{:<7} {:<23} {:<17} {:>7} {:>5}  {:<13} {:<7} {:<43} {}".format
    print(line(*"setting task split rows 1s group licence".split(), "hub id, config", "revision"))
    for setting in settings:
        for name, task in setting.TASKS.items():
            where = f"{task.get('repo', 'made here')} {task.get('config', '')}".strip()
            about = task.get("group", "row"), task.get("licence", "?"), where
            revision = task.get("revision", "main")[:20]
            for split, (source, count, ones) in task["splits"].items():
                told = split if split == source else f"{split} = {source}"
                counts = count or "?", "?" if ones is None else f"{ones:.3f}"[1:]
                print(line(setting.__name__, name, told, *counts, *about, revision))


def make_mirror(tasks, folder, names):
    """Write the data of tasks (default: all) to a mirror; one that fails stops no other."""
    on_hub = [name for name, task in tasks.items() if "repo" in task and "by_hand" not in task]
    if wrong := [name for name in names if name not in on_hub]:
        told = f"it is no task of the hub{cli.nearest(wrong[0], on_hub)}"
        raise BadInput(f"{wrong[0]}: {tasks.get(wrong[0], {}).get('by_hand', told)}")
    names, failed = names or on_hub, []
    for name in names:
        try:
            write_mirror(folder, tasks[name])
        except BadInput as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    if failed:
        raise BadInput(f"{folder} lacks {' '.join(failed)} (see above): call this again")
    there = f"W2S_MIRROR={shlex.quote(folder)} python tasks.py {names[0]} --n=5"
    print(f"next, on the other machine: {there}")
