"""From a source's row to a prompt with a yes or no: statements and questions, as table.py has them.

One style of prompt: the source's own words, the candidate answer last, then a short question that
it answers with yes or no. A task's "make" gets one row (every string stripped, none empty); of it

    {"text", "label", "group"}            is a row that is true or false
    {"right", "wrong": [...], "group"}    a k-way question with finished answers, for two rows
    None                                  no row of this task

"group" is the text that related rows share (passage, premise, ...), None for a row of its own.
"""

import operator
import string

from w2s import sources
from w2s.files import hashed

ASKED = "Question: {question}\nAnswer: {answer}\nIs this answer right?"


def statement(template, group=None, column="label", /, is_one=int, first=None, **needs):
    """The "make", "needs" and "group" of a task whose rows are true or false.

    template: the prompt, columns in braces; group: the column that related rows share; column: the
    label's; is_one: which of its values are a 1; first: what is done to a row before (None: it is
    not of this task); needs: what columns that are no text hold (None: not the source's).
    """

    def make(row):
        row = first(row) if first else row
        if row is not None:
            text, about = template.format_map(row), row[group] if group else None
            return {"text": text, "label": int(is_one(row[column])), "group": about}

    return finished(make, template, group or "row", {column: (0, 1)} | needs)


def question(template, group, answers, right, /, first=None, **needs):
    """The same of a task of k-way questions; {answer} in the template is the candidate answer.

    answers: the columns of the answers, one column that lists them, or a function of the row;
    right: the column of the right one's number, or a function. Its doubles are no wrong answers.
    """
    needs = {"answer": None} | needs
    if isinstance(answers, str):
        needs = sources.texts(answers) | needs
        answers = operator.itemgetter(*answers.split())
    right = operator.itemgetter(right) if isinstance(right, str) else right

    def make(row):
        row = first(row) if first else row
        texts = [template.format_map(row | {"answer": answer}) for answer in answers(row)]
        true = texts[right(row)]
        return {"right": true, "wrong": [t for t in texts if t != true], "group": row[group]}

    return finished(make, template, group, needs)


def finished(make, template, group, needs):
    """The entries; what is in the template and not in needs is a column of text. What stands after
    the last column is what the task asks.
    """
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name]
    needs = dict.fromkeys(names, str) | needs
    needs = {column: wanted for column, wanted in needs.items() if wanted is not None}
    return {"make": make, "needs": needs, "group": group, "asks": template.rpartition("}")[2]}


def as_rows(name, made, group):
    """The row of what "make" made, or two, the right and a wrong answer that a hash draws."""
    if "label" in made:
        return [{"id": name, "group": group, "text": made["text"], "label": made["label"]}]
    wrong = made["wrong"][int.from_bytes(hashed(f"wrong/{name}")[:8]) % len(made["wrong"])]
    return [
        {"id": f"{name}/right", "group": group, "text": made["right"], "label": 1},
        {"id": f"{name}/wrong", "group": group, "text": wrong, "label": 0},
    ]


def with_trait(row):
    """ETHICS virtue: the trait stands behind the scenario."""
    scenario, trait = row["scenario"].rsplit(" [SEP] ", 1)
    return row | {"scenario": scenario, "trait": trait}


def with_orders(row):
    """ETHICS utilitarianism: two situations in both orders; pairs that begin alike are related."""
    more, less = row["baseline"], row["less_pleasant"]
    words = " ".join(more.lower().split()[:5])
    return {"orders": [f"{less}\n{more}", f"{more}\n{less}"], "first words": words}


def of_length(is_short):
    """ETHICS commonsense: rows of one or two sentences, or those of up to some paragraphs."""
    return lambda row: row if str(row["is_short"]) == str(is_short) else None


def first_words(scenarios, same=3, kept=10):
    """ETHICS justice: consecutive scenarios that begin with the same 3 words have one key.

    Chosen on the data: of the known groups of 4 in test sets this keeps 1,163 of 1,189 whole. 10
    words are the key, so that most groups of train are known again in test.
    """
    keys, before = [], None
    for words in (scenario.lower().split() for scenario in scenarios):
        if words[:same] != before:
            before, key = words[:same], " ".join(words[:kept])
        keys.append(key)
    return keys
