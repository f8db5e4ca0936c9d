"""Where the tasks' rows are, and how they are read: checked against the documented columns, formatted, grouped.

mirror = hub id / config / split.parquet        the hub's own layout differs from one data set to the next: see TASKS
"""

import heapq
import sys

import formats
import world
from w2s import hub
from w2s.files import BadInput, hashed

MAX_ROWS = 200_000  # of a larger split so many are drawn: two halves of 10,000 need no more, and memory has an end

LABEL, CHOICES = (
    {"label": range(2)},
    {"choices": {"text": [str], "label": [str]}, "answerKey": ("A", "B", "C", "D")},
)
SHORT, BOOL, PARQUET = (
    {"is_short": ("True", "False", True, False)},
    (True, False),
    "refs/convert/parquet",
)


def texts(names):
    """Columns of text, as TASKS wants them in "needs"."""
    return dict.fromkeys(names.split(), str)


# A task's formatter is the function of its name in formats.py.
#   repo, config   the hub id and its config, which also names the folder in a mirror; revision: pinned where a sha is known
#   files          what to load from the repository where load_dataset(repo, config) does not work today
#   splits         ours -> (the source's, its rows on record, the share of 1s uncut); "all" is cut 80/20 into train, test
#   needs          the columns read and what they must hold (see fits); group: what related rows share
#   or_else        what to try where a source is unconfirmed; by_hand: the file to get where the hub has none
# fmt: off
TASKS = {
    "facts": dict(load=world.questions, splits=dict(train=("train", 1600, 0.5), test=("test", 1600, 0.5)), group="person",
        licence="MIT"),
    "boolq": dict(repo="google/boolq", splits=dict(train=("train", 9427, None), test=("validation", 3270, None)),
        needs=texts("question passage") | {"answer": bool}, group="passage"),
    "cosmos_qa": dict(repo="allenai/cosmos_qa", revision="ed50fe83db62b355759053b1cd5eef344ee371e0",
        files="default/{}/*.parquet", splits=dict(train=("train", 25262, 0.5), test=("validation", 2985, 0.5)),
        needs=texts("context question answer0 answer1 answer2 answer3") | {"label": range(4)}, group="context"),
    "dream": dict(repo="dataset-org/dream", config="plain_text", revision="ca4c45feaf089ecfc37579eb2c594375f70dbfd5",
        files="plain_text/{}/*.parquet", splits=dict(train=("train", 6116, 0.5), test=("test", 2041, 0.5)),
        needs=texts("question answer") | {"dialogue": [str], "choice": [str]}, group="dialogue"),
    "ethics_justice": dict(repo="hendrycks/ethics", config="justice", files="data/justice/{}.csv",
        splits=dict(train=("train", 21791, 0.543), test=("test", 2704, 0.501), test_hard=("test_hard", 2052, 0.512)),
        needs=texts("scenario") | LABEL, regroup=formats.first_words, group="first words"),
    "ethics_deontology": dict(repo="hendrycks/ethics", config="deontology", files="data/deontology/{}.csv",
        splits=dict(train=("train", 18164, 0.539), test=("test", 3596, 0.497), test_hard=("test_hard", 3536, 0.499)),
        needs=texts("scenario excuse") | LABEL, group="scenario"),
    "ethics_virtue": dict(repo="hendrycks/ethics", config="virtue", revision=PARQUET, needs=texts("scenario") | LABEL,
        files=dict(train="virtue/train/*.parquet", test="virtue/validation/*.parquet", test_hard="virtue/test/*.parquet"),
        splits=dict(train=("train", 28245, 0.086), test=("test", 4975, 0.2), test_hard=("test_hard", 4780, 0.2)),
        group="scenario", or_else="try lighteval/hendrycks_ethics, whose trait is a column of its own"),
    "ethics_utilitarianism": dict(repo="hendrycks/ethics", config="utilitarianism", files="data/utilitarianism/{}.csv",
        splits=dict(train=("train", 13738, 0.5), test=("test", 4808, 0.5), test_hard=("test_hard", 4272, 0.5)),
        needs=texts("baseline less_pleasant"), group="first words"),
    "ethics_commonsense": dict(repo="hendrycks/ethics", config="commonsense", files="data/commonsense/{}.csv",
        splits=dict(train=("train", 13910, None), test=("test", 3885, 0.466), test_hard=("test_hard", 3964, 0.484)),
        needs=texts("input") | SHORT | LABEL),
    "ethics_commonsense_long": dict(repo="hendrycks/ethics", config="commonsense", files="data/commonsense/{}.csv",
        splits=dict(train=("train", 13910, None), test=("test", 3885, 0.469), test_hard=("test_hard", 3964, 0.561)),
        needs=texts("input") | SHORT | LABEL),
    "anli_r2": dict(repo="facebook/anli", config="plain_text", revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
        splits=dict(train=("train_r2", 45460, None), test=("test_r2", 1000, None)),
        needs=texts("premise hypothesis") | {"label": range(3)}, group="premise"),
    "cola": dict(repo="nyu-mll/glue", config="cola",
        splits=dict(train=("train", 8551, 0.704), test=("validation", 1043, 0.689)), needs=texts("sentence") | LABEL),
    "sst2": dict(repo="nyu-mll/glue", config="sst2",
        splits=dict(train=("train", 67349, 0.558), test=("validation", 872, 0.509)), needs=texts("sentence") | LABEL),
    "hellaswag": dict(repo="Rowan/hellaswag", splits=dict(train=("train", 39905, 0.5), test=("validation", 10042, 0.5)),
        needs=texts("ctx") | {"endings": [str], "label": ("0", "1", "2", "3")}, group="context"),
    "mc_taco": dict(repo="CogComp/mc_taco", config="plain_text", revision=PARQUET, files="plain_text/{}/*.parquet",
        splits=dict(train=("test", 9442, 0.339), test=("validation", 3783, 0.325)),
        needs=texts("question sentence answer") | LABEL, group="sentence"),
    "openbookqa": dict(repo="allenai/openbookqa", config="main",
        splits=dict(train=("train", 4957, 0.5), test=("test", 500, 0.5)), needs=texts("question_stem") | CHOICES),
    "paws": dict(repo="google-research-datasets/paws", config="labeled_final",
        splits=dict(train=("train", 49401, None), test=("test", 8000, None)), needs=texts("sentence1 sentence2") | LABEL),
    "quail": dict(repo="textmachinelab/quail", config="quail", or_else="try its refs/convert/parquet, folder quail",
        splits=dict(train=("train", 10246, 0.5), test=("validation", 2164, 0.5)),
        needs=texts("question context") | {"answers": [str], "correct_answer_id": range(4)}, group="passage"),
    "piqa": dict(repo="baber/piqa", splits=dict(train=("train", 16113, 0.5), test=("validation", 1838, 0.5)),
        needs=texts("goal sol1 sol2") | LABEL, group="goal"),
    "quartz": dict(repo="allenai/quartz", splits=dict(train=("train", 2696, 0.5), test=("test", 784, 0.5)),
        needs=texts("question para") | CHOICES, group="passage"),
    "sciq": dict(repo="allenai/sciq", splits=dict(train=("train", 11679, 0.5), test=("test", 1000, 0.5)),
        needs=texts("question correct_answer distractor1 distractor2 distractor3")),
    "social_i_qa": dict(repo="lighteval/siqa", splits=dict(train=("train", 33410, 0.5), test=("validation", 1954, 0.5)),
        needs=texts("question context answerA answerB answerC") | {"label": ("1", "2", "3")}, group="context"),
    "multirc": dict(repo="aps/super_glue", config="multirc", needs=texts("question paragraph answer") | LABEL,
        splits=dict(train=("train", 27243, 0.441), test=("validation", 4848, 0.428)), group="passage"),
    "wic": dict(repo="aps/super_glue", config="wic", splits=dict(train=("train", 5428, None), test=("validation", 638, None)),
        needs=texts("word sentence1 sentence2") | LABEL),
    "twitter_sentiment": dict(repo="EleutherAI/twitter-sentiment", needs=texts("text") | LABEL,
        splits=dict(train=("train", None, None), test=("test", None, None)), or_else="try cardiffnlp/tweet_eval"),
    "amazon_polarity": dict(repo="fancyzhx/amazon_polarity", config="amazon_polarity",
        revision="9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289",
        splits=dict(train=("train", 3600000, None), test=("test", 400000, None)), needs=texts("title content") | LABEL),
    "civil_comments": dict(repo="google/civil_comments",
        splits=dict(train=("train", 1804874, None), test=("test", 97320, None)), needs=texts("text") | {"toxicity": float}),
    "beavertails": dict(repo="PKU-Alignment/BeaverTails", needs=texts("prompt response") | {"is_safe": BOOL},
        splits=dict(train=("30k_train", 27186, None), test=("30k_test", None, None)), group="prompt"),
    "legal_overruling": dict(repo="nguha/legalbench", config="overruling", splits=dict(all=("test", 2394, 0.495)),
        needs=texts("text") | {"answer": ("Yes", "No")}),
    "legal_privacy_policy_qa": dict(repo="nguha/legalbench", config="privacy_policy_qa", splits=dict(all=("test", None, None)),
        needs=texts("question text") | {"answer": ("Relevant", "Irrelevant")}, group="question"),
    "safety_prompts": dict(repo="yeruimeng/WTS", config="safety", splits=dict(all=("train", 11468, 0.44)), group="prompt",
        by_hand="safety.csv of github.com/yeruimeng/WTS, commit c9093777", needs=texts("prompt") | {"is_safe": BOOL}),
}
# fmt: on


def read(ds, split):
    """All rows of one split of a task that comes from the hub or a mirror, as {"id", "group", "text", "label"}.

    Ids are the source's row numbers: "dream/train/17/right" and ".../wrong" for the two rows of a k-way question, whose
    wrong answer is drawn by a hash of the id. Rows with an empty field are left out, and told. BadInput: see source_rows.
    """
    task, (source, *_) = TASKS[ds], TASKS[ds]["splits"][split]
    where, count, rows = source_rows(ds, task, split)
    made, skipped = [], 0
    for number, row in rows:
        if row is None:
            skipped += 1
            continue
        try:
            text = getattr(formats, ds)(row)
        except (ValueError, IndexError) as error:
            raise BadInput(
                f"{where}, row {number}: its columns do not fit together ({error}){or_else(task)}"
            ) from None
        if text and not text.get("wrong", True):
            skipped += 1  # all answers are the same
        elif text:
            made.append((f"{ds}/{source}/{number}", text))
    if skipped:
        print(
            f"{where}: {skipped} of {count} have an empty field or but one answer and are left out",
            file=sys.stderr,
        )
    keys = task.get("regroup", list)([text.get("group", text.get("text")) for _, text in made])
    groups = [
        f"{ds}/{hashed(key).hex()[:16]}" if key else name for (name, _), key in zip(made, keys)
    ]
    return [row for (name, text), group in zip(made, groups) for row in as_rows(name, text, group)]


def source_rows(ds, task, split):
    """(what to call them, how many, an iterator of (row number, row)) of the source's rows; None for one with an empty field.

    BadInput for a column that is missing or holds something else than documented.
    """
    source, known, _ = task["splits"][split]
    table, where = hub.table(ds, task, split), f"{ds}: the {source} rows of {task['repo']}"
    missing = [column for column in task["needs"] if column not in table.column_names]
    if missing:
        raise BadInput(
            f"{where} have no column {missing[0]!r}; they have {', '.join(table.column_names)}{or_else(task)}"
        )
    if known not in (None, table.num_rows):
        print(f"note: {where} are {table.num_rows}, on record are {known}", file=sys.stderr)
    table, numbers = table.select(list(task["needs"])), range(table.num_rows)
    if len(numbers) > MAX_ROWS:
        numbers = sorted(
            heapq.nsmallest(
                MAX_ROWS, numbers, key=lambda number: hashed(f"drawn/{ds}/{source}/{number}")
            )
        )
        print(
            f"{where} are {table.num_rows}: {MAX_ROWS} are drawn, always the same", file=sys.stderr
        )
        table = table.take(numbers)

    def each():
        for number, row in zip(
            numbers, (row for batch in table.to_batches(10_000) for row in batch.to_pylist())
        ):
            row = {column: stripped(value) for column, value in row.items()}
            if any(map(is_empty, row.values())):
                yield number, None
            else:
                check(row, task, f"{where}, row {number}")
                yield number, row

    return where, len(numbers), each()


def as_rows(name, text, group):
    """The rows of what a formatter made: one that is true or false, or the right and one wrong answer of a question."""
    if "label" in text:
        return [{"id": name, "group": group, "text": text["text"], "label": text["label"]}]
    wrong = text["wrong"][int.from_bytes(hashed(f"wrong/{name}")[:8]) % len(text["wrong"])]
    return [
        {"id": f"{name}/right", "group": group, "text": text["right"], "label": 1},
        {"id": f"{name}/wrong", "group": group, "text": wrong, "label": 0},
    ]


def stripped(value):
    """The value with all strings in it stripped of white space at both ends."""
    if isinstance(value, dict):
        return {name: stripped(part) for name, part in value.items()}
    return (
        [stripped(part) for part in value]
        if isinstance(value, list)
        else value.strip()
        if isinstance(value, str)
        else value
    )


def is_empty(value):
    """True for a null, an empty text, a number that is none, and whatever holds one."""
    if isinstance(value, (dict, list)):
        return any(map(is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or value == "" or value != value


def check(row, task, where):
    """BadInput, with what was found and what is documented, unless every column holds what TASKS says it needs."""
    for column, wanted in task["needs"].items():
        if not fits(row[column], wanted):
            found = f"{str(row[column])[:60]!r} ({type(row[column]).__name__})"
            raise BadInput(
                f"{where}: column {column!r} is {found}; documented is {told(wanted)}{or_else(task)}"
            )


def fits(value, wanted):
    """True if a value is of the wanted type (str, bool, int, float), in a range, one of a tuple, or a list or dict of such."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            name in value and fits(value[name], part) for name, part in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(value, list) and value != [] and all(fits(part, wanted[0]) for part in value)
        )
    if isinstance(wanted, range):
        return type(value) is int and value in wanted
    return value in wanted if isinstance(wanted, tuple) else type(value) is wanted


def told(wanted):
    """What TASKS wants of a column, in words."""
    if isinstance(wanted, (dict, list)):
        return (
            "a list of texts"
            if isinstance(wanted, list)
            else f"an object with {' and '.join(wanted)}"
        )
    if isinstance(wanted, (tuple, range)):
        return f"one of {', '.join(repr(value) for value in wanted)}"
    return {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number with a fraction",
    }[wanted]


def or_else(task):
    """What to try where the source is unconfirmed or has changed, for the end of a message."""
    return f"; {task['or_else']}" if "or_else" in task else ""
