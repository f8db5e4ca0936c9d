"""Texts asked of a model behind an OpenAI-compatible server: retries, going on, exact reading."""

import contextlib
import json
import math
import os
from multiprocessing.pool import ThreadPool

from tqdm import tqdm

from w2s import cli, files, strict
from w2s.files import BadInput

RETRIES = 8  # by openai's client: after .5 s, 1 s, ... 8 s, less a random part, or Retry-After
TOKENS = 8  # of an answer: enough to see that it is prose
OPENAI = "https://api.openai.com/v1"


class Refused(BadInput):
    """The server takes exception to the question itself."""


def prompt(system, text):
    """The messages that ask about a text, the same in training and in evaluation."""
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def connect(base_url):
    """A client, which asks again by itself on 408, 409, 429, 5xx, time-outs, lost connections."""
    try:
        import openai
    except ImportError:
        raise BadInput("this needs the package openai: pip install openai") from None
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and not base_url:
        raise BadInput("OPENAI_API_KEY is not set: set it, or give your own server's --base_url")
    if not (key.isascii() and key.isprintable()):
        raise BadInput("OPENAI_API_KEY holds characters that no key has: copy it again")
    how = {"base_url": base_url or OPENAI, "max_retries": RETRIES, "timeout": 60}
    try:
        return openai.OpenAI(api_key=key or "no-key-is-needed", **how)
    except Exception as error:  # httpx's InvalidURL is no error of openai's
        raise BadInput(f"--base_url={base_url}: {files.first_line(error)}") from None


def ask_all(base_url, rows, partial, begin, again, *, model, system, jobs):
    """[{"answer": the text, "prob": P(1), or None where it is neither 0 nor 1}] of the rows.

    `jobs` at once; each is written into the file `partial` as it comes and, unless `again`, not
    asked for again. begin() is called when the server has answered. BadInput where it does not.
    """
    question, failed = (connect(base_url), model, system), []
    # what an answer goes by, so that it is taken for no other question's
    every = ([base_url, model, system, row["id"], row["text"]] for row in rows)
    names = [files.hashed(json.dumps(one)).hex() for one in every]
    got = {} if again else answered(partial)
    todo = [(name, row) for name, row in zip(names, rows) if name not in got]
    if len(todo) < len(rows):
        print(f"{len(rows) - len(todo)} of {len(rows)} rows are answered already")
    top = alternatives(question, todo[0][1]) if todo else 0
    begin()

    def attempt(one):
        try:
            return None if failed else [one[0], read(ask(*question, one[1], top))]
        except BadInput as error:
            failed.append(error)

    partial.parent.mkdir(parents=True, exist_ok=True)
    bar = {"total": len(todo), "desc": model, "unit": "row"} | cli.paced()
    with ThreadPool(jobs) as pool, open(partial, "a", encoding="utf-8") as file:
        for line in filter(None, tqdm(pool.imap_unordered(attempt, todo), **bar)):
            got[line[0]] = line[1]
            file.write(json.dumps(line) + "\n")
            file.flush()
    if left := sum(name not in got for name in names):
        told = f"{len(rows) - left} of {len(rows)} answers are kept: call again, without --force"
        raise BadInput(f"{failed[0]} ({told})")
    return [got[name] for name in names]


def answered(partial):
    """{a row's name: its answer} of an interrupted call; a torn last line is cut off."""
    data = partial.read_bytes() if partial.exists() else b""
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(partial, end)
    lines = [strict.parse(line, f"{partial}: a line") for line in data[:end].splitlines()]
    answer = {"answer": str, "prob": (float, None)}
    if wrong := next(filter(None, (strict.misfit(line, [(str, answer)]) for line in lines)), None):
        raise BadInput(f"{partial}: a line {wrong}: delete the file, or call with --force")
    return dict(lines)


def alternatives(question, row):
    """How many alternatives to a token the server tells the log-probabilities of, 0 for none."""
    for top in (20, 5):  # OpenAI's limit, and that of others
        with contextlib.suppress(Refused):
            if ask(*question, row, top).logprobs:
                return top
            break
    ask(*question, row, 0)
    print("the server gives no log-probabilities: P(1) is 1 or 0, as the answer says")
    return 0


def ask(client, model, system, row, top):
    """The server's choice for a row; BadInput, in one line without the key, where it has none."""
    import openai

    how = {"logprobs": True, "top_logprobs": top} if top else {}
    # OpenAI's newer models know one name, other servers the other
    how["max_completion_tokens" if OPENAI in str(client.base_url) else "max_tokens"] = TOKENS
    how |= {"model": model, "messages": prompt(system, row["text"]), "temperature": 0}
    try:
        choice = client.chat.completions.create(**how).choices[0]
        choice.message.content = (choice.message.content or "").replace(client.api_key, "<key>")
        return choice
    except openai.OpenAIError as error:
        status = getattr(error, "status_code", None)
        told = {None: f"{client.base_url} does not answer", 401: "the key is refused"}
        told |= {403: told[401], 404: f"{client.base_url} has no model {model!r}, or no such path"}
        said = files.first_line(str(error.__cause__ or error).replace(client.api_key, "<key>"))
        kind = Refused if status in (400, 422) else BadInput
        raise kind(f"{told.get(status, 'the server refuses')}, row {row['id']!r}: {said}") from None
    except (AttributeError, IndexError, TypeError, ValueError):
        raise BadInput(f"{client.base_url} answers, but not as OpenAI's API does") from None


def read(choice):
    """{"answer", "prob"} of a choice: P(1) among 0 and 1 as its first token that is not blank;
    where no log-probabilities tell that, by its word."""
    tokens = (choice.logprobs and choice.logprobs.content) or []
    first = next((token for token in tokens if bare(token.token)), None)
    mass = {"0": 0.0, "1": 0.0}
    for other in (first and first.top_logprobs) or []:
        if bare(other.token) in mass:
            mass[bare(other.token)] += math.exp(other.logprob)
    answer, total = choice.message.content, sum(mass.values())
    return {"answer": answer, "prob": mass["1"] / total if total else by_word(answer)}


def bare(text):
    """A token without white space and quotation marks around it."""
    return text.strip().strip("\"'").strip()


def by_word(text):
    """0 or 1 where the text is exactly that, white space and one pair of quotes aside; or None."""
    word = text.strip()
    if len(word) > 2 and word[0] == word[-1] and word[0] in "\"'":
        word = word[1:-1].strip()
    return {"0": 0, "1": 1}.get(word)
