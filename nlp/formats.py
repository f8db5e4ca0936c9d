"""From a source's row to a prompt with a yes or no: statements and questions, as table.py uses them.

One style of prompt: the source's own words, the candidate answer last, then a short question that it answers with yes
or no. A task's "make" gets one source row (every string stripped, none empty) and returns one of

    {"text", "label", "group"}            a row that is true or false
    {"right", "wrong": [...], "group"}    a k-way question, as the finished text of each answer; it becomes two rows
    None                                  the row is not of this task

"group" is the text that related rows share (passage, premise, ...), None for a row of its own.
"""

import operator
import string

from w2s import sources
from w2s.files import hashed

ASKED = "Question: {question}\nAnswer: {answer}\nIs this answer right?"


def columns(template):
    """The names in a template."""
    return " ".join(name for _, name, _, _ in string.Formatter().parse(template) if name)


def statement(template, group=None, column="label", /, is_one=int, first=None, **needs):
    """What a task of statements needs: {"make", "needs", "group"}.

    template: the prompt, with columns in braces; group: the column that related rows share; is_one: whether a value
    of `column` is a 1; first: what is done to a row before (None: the row is not of this task); needs: what
    columns hold that are no text, as sources.fits wants it (None: the column is first's work).
    """

    def make(row):
        row = first(row) if first else row
        if row is not None:
            text, about = template.format_map(row), row[group] if group else None
            return {"text": text, "label": int(is_one(row[column])), "group": about}

    needs = sources.texts(columns(template)) | {column: (0, 1)} | needs
    return {"make": make, "needs": existing(needs), "group": group or "row"}


def question(template, group, answers, right, /, first=None, **needs):
    """What a task of k-way questions needs; as statement(), and {answer} in the template is the candidate answer.

    answers: the columns of the answers, one column that lists them, or a function of the row; right: the column that
    holds the right one's number, or a function. Doubles of the right answer are no wrong ones.
    """
    needs = sources.texts(columns(template)) | {"answer": None} | needs
    if isinstance(answers, str):
        needs = sources.texts(answers) | needs
        answers = operator.itemgetter(*answers.split())
    right = operator.itemgetter(right) if isinstance(right, str) else right

    def make(row):
        row = first(row) if first else row
        texts = [template.format_map(row | {"answer": answer}) for answer in answers(row)]
        true = texts[right(row)]
        return {"right": true, "wrong": [t for t in texts if t != true], "group": row[group]}

    return {"make": make, "needs": existing(needs), "group": group}


def existing(needs):
    """The needs without the columns that a source does not have."""
    return {column: wanted for column, wanted in needs.items() if wanted is not None}


def as_rows(name, made, group):
    """The rows of what "make" made: a true or false one, or the right and one wrong answer, drawn by a hash."""
    if "label" in made:
        return [{"id": name, "group": group, "text": made["text"], "label": made["label"]}]
    wrong = made["wrong"][int.from_bytes(hashed(f"wrong/{name}")[:8]) % len(made["wrong"])]
    return [
        {"id": f"{name}/right", "group": group, "text": made["right"], "label": 1},
        {"id": f"{name}/wrong", "group": group, "text": wrong, "label": 0},
    ]


# ---- for single tasks


def with_trait(row):
    """ETHICS virtue: the trait stands behind the scenario."""
    scenario, trait = row["scenario"].rsplit(" [SEP] ", 1)
    return row | {"scenario": scenario, "trait": trait}


def with_dialogue(row):
    """dream: the turns as one text."""
    return row | {"dialogue": "\n".join(row["dialogue"])}


def with_orders(row):
    """ETHICS utilitarianism: both orders of two situations; the right one has the more pleasant one last.

    Half of the training pairs share a situation with another pair, nearly always one that begins alike: the group.
    """
    more, less = row["baseline"], row["less_pleasant"]
    words = " ".join(more.lower().split()[:5])
    return {"orders": [f"{less}\n{more}", f"{more}\n{less}"], "first words": words}


def if_short(row):
    """ETHICS commonsense: a row of one or two sentences."""
    return row if str(row["is_short"]) == "True" else None


def if_long(row):
    """ETHICS commonsense: a row of up to some paragraphs."""
    return row if str(row["is_short"]) == "False" else None


def first_words(scenarios, same=3, kept=10):
    """ETHICS justice: keys of consecutive scenarios. Those that begin with the same 3 words are a group, named by 10.

    Chosen on the data: of the known groups of 4 in the two test sets this keeps 1,163 of 1,189 whole (2 words: 1,172,
    and groups twice as large; 4 words: 1,122). The name lets a group of train be known again in test, mostly: 223 of
    21,791 training rows begin with the same 10 words as a test row all the same, as one elsewhere heads their run.
    """
    keys, before = [], None
    for words in (scenario.lower().split() for scenario in scenarios):
        if words[:same] != before:
            before, key = words[:same], " ".join(words[:kept])
        keys.append(key)
    return keys
