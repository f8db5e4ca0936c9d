"""A model behind an API as student: a file to fine-tune it on, and its answers to the test rows.

    python api.py export                           # runs/labels.jsonl -> runs/chat.jsonl
    python api.py export --target=truth            # for the ceiling -> runs/chat_truth.jsonl
    python api.py answer --model=ft:NAME --chat=runs/chat.jsonl --out=runs/api/student
    python api.py answer --model=gpt-4o-mini --ds=sst2 --out=runs/api/zero      # not fine-tuned
    python api.py answer --model=m --base_url=http://localhost:8000/v1 --ds=sst2 --out=runs/api/m

export  a labels file of texts -> chat lines whose last message is 1 or 0. Fine-tune on it at the
        provider (or anywhere); the model's name goes to `answer`.
answer  asks for each test row with the very prompt of the export. Out: a run with predictions, for
        pgr.py. Needs `pip install openai`, and OPENAI_API_KEY in the environment unless the server
        of --base_url wants none. Interrupted, the same command goes on where it was.

P(1) is read from the log-probabilities of the tokens 0 and 1 where the server gives them; else the
answer must be 0 or 1 exactly, with or without quotation marks. One that is neither is wrong.
"""

import inspect
import json
import re
from pathlib import Path

import tasks
from tasks import texts
from w2s import cli, files, leaks, locks, protocol, records, scores
from w2s.files import BadInput

SYSTEM = "Answer the question about the text with one digit: 1 for yes, 0 for no."
# developers.openai.com, supervised fine-tuning: lines of a file, its bytes, and tokens of a line
# (gpt-4o-mini, gpt-4o, gpt-4.1; longer ones are cut)
FEWEST, LARGEST, LONGEST = 10, 512 * 10**6, 65_536
OWN = {  # options of one command alone
    "export": ("labels", "target", "soft"),
    "answer": ("model", "chat", "ds", "split", "test", "n_test", "base_url", "jobs"),
}


@cli.stage
def main(
    args, command: str = None, labels: str = "runs/labels.jsonl", *, out: str = None,
    target: str = "weak", soft: int = 1, system: str = None, model: str = None, chat: str = None,
    ds: str = None, split: str = "test", test: str = None, n_test: int = None,
    base_url: str = None, jobs: int = 8, force: bool = False, allow_leak: bool = False,
):  # fmt: skip
    """Write the file to fine-tune an API's model on, or ask the model for its answers.

    Args:
        command: export or answer
        labels: export: the labels file
        target: export: weak, the weak labels; truth, ground truth, for the ceiling
        model: answer: the model's name at the server
        ds: answer: the task, or a JSONL file (default: that of --chat, else facts)
    """
    if command not in OWN:
        raise BadInput(f"api.py export or api.py answer, not {command or 'nothing'}: see --help")
    other = "answer" if command == "export" else "export"
    for name in OWN[other]:
        if args[name] != inspect.signature(main).parameters[name].default:
            raise BadInput(f"--{name} goes with api.py {other}")
    if system is not None and not files.is_text(system):
        raise BadInput("--system is blank: it is the sentence that says how to answer")
    if out and (before := files.read_card(out)) and before["stage"] != "api":
        raise BadInput(f"--out={out} was made by {before['stage']}.py: choose another name")
    (export if command == "export" else answer)(args, force, allow_leak)


def check_texts(name, setting):
    """BadInput for rows that are no texts."""
    if setting is not texts:
        raise BadInput(f"{name} holds {setting.WHAT}: api.py is for texts with a 0/1 label")


def export(args, force, allow_leak):
    """Write a labels file as chat lines, check them by the provider's rules, tell their tokens."""
    labels, target, system = args["labels"], args["target"], args["system"] or SYSTEM
    name = {"weak": "chat.jsonl", "truth": "chat_truth.jsonl"}[target]
    out = args["out"] or str(files.beside(labels, name))
    check_texts(labels, tasks.setting_of_labels(labels))
    rows, labels_card = records.read_labels(texts, labels)
    kept = {name: args[name] for name in OWN["export"]} | {"system": system, "out": out}
    inputs = {"labels": files.sha256(labels)}
    if records.is_done(out, kept, inputs, force, ".jsonl"):
        return
    leak = leaks.of_labels(texts, rows, labels, labels_card, args, allow_leak)
    lines = chat_lines(rows, "weak" if target == "weak" else texts.TRUTH, args["soft"], system)
    n, lengths = len(lines), tokens_of(lines)
    check_rules(rows, lines, lengths)
    card = records.new_card("api", texts, kept, inputs, labels_card.get("data"))
    card |= {"supervisor": labels_card.get("supervisors"), "labels_from": labels_card.get("stage")}
    card |= leaks.learn(out, texts, card, rows, labels_card, leak)
    files.write_jsonl(out, lines, card)
    ones = sum(line["messages"][-1]["content"] == "1" for line in lines) / n
    epochs = max(1, sorted((100 // n, 3, 25_000 // n))[1])  # cookbook.openai.com: the default
    print(f"{out}: {n} lines, {ones:.1%} of the answers are 1")
    if ones in (0, 1):
        print("warning: all answers are the same, so there is nothing to learn")
    print(f"{sum(lengths):,} tokens, {epochs * sum(lengths):,} in {epochs} epochs (characters / 4)")
    run = files.beside(out, {"weak": "api_student", "truth": "api_ceiling"}[target])
    print("fine-tune a model on it; then, with its name,")
    cli.tell_next(["api.py", "answer", "--model=NAME", f"--chat={out}", f"--out={run}"])


def chat_lines(rows, field, soft, system):
    """Each row `soft` times, a pass apart, round(soft x P(1)) of them, evenly spread, with a 1."""
    import served

    lines = []
    for i in range(soft):
        for row in rows:
            ones = round(soft * row[field])  # half to even: alone, a label of .5 says 0
            says = str((i + 1) * ones // soft - i * ones // soft)
            asked = served.prompt(system, row["text"])
            lines.append({"messages": [*asked, {"role": "assistant", "content": says}]})
    return lines


def tokens_of(lines):
    """Tokens of each line, estimated as characters / 4, with the frames of the messages.

    Frames as in cookbook.openai.com/examples/chat_finetuning_data_prep: 4 a message, 3 a line.
    """
    texts = ([one["content"] for one in line["messages"]] for line in lines)
    return [sum(-(-len(text) // 4) + 4 for text in of_line) + 3 for of_line in texts]


def check_rules(rows, lines, lengths):
    """BadInput for what the provider would refuse or cut."""
    longest = max(range(len(lines)), key=lengths.__getitem__)
    size = sum(len(json.dumps(line, ensure_ascii=False).encode()) + 1 for line in lines)
    if len(lines) < FEWEST:
        raise BadInput(f"{len(lines)} lines are too few: the provider wants {FEWEST} or more")
    if lengths[longest] > LONGEST:
        told = f"has {lengths[longest]:,} tokens, the provider's limit is {LONGEST:,}"
        raise BadInput(f"row {rows[longest % len(rows)]['id']!r} {told}: leave it out")
    if size > LARGEST:
        told = f"the provider takes {LARGEST:,}: fewer rows, smaller --soft"
        raise BadInput(f"{size:,} bytes, {told}")


def answer(args, force, allow_leak):
    """Ask for the test rows; leave a run with predictions, and show its score."""
    import served

    out, url = args["out"], args["base_url"]
    if not args["model"] or not out:
        raise BadInput("api.py answer needs --model=NAME and --out=RUN")
    if url and not re.fullmatch(r"https?://[^\s@?#]+", url):  # cards hold it: no secrets in it
        raise BadInput("--base_url is not like http://host:8000/v1, without password and query")
    learned = card_of(args["chat"]) if args["chat"] else {}
    data = data_of(args, learned)
    card = run_card(args, url or served.OPENAI, learned, data, force)
    file, *about = scores.place(out, card, data, args["split"], {})
    rows, partial = protocol.test_rows(texts, data, args["split"]), file.with_suffix(".partial")
    known = {out: leaks.read(args["chat"], learned)} if learned else {}
    leak = leaks.guard(texts, rows, data, known, allow_leak, "test")
    if not (metrics := None if force else scores.known(file, *about)):
        locks.hold(file)

        def begin():
            for old in (partial, file, files.card_path(file)) if force else ():
                old.unlink(missing_ok=True)
            files.write_card(out, card)

        asked = {"model": args["model"], "system": card["args"]["system"], "jobs": args["jobs"]}
        answers = served.ask_all(url, rows, partial, begin, force, **asked)
        predictions = predicted(rows, answers, served.by_word)
        files.write_card(out, card | {"finished": True})
        leak = leaks.inherited(card, leak)
        metrics = scores.write(texts, file, *about, data, rows, predictions, leak)
        partial.unlink()
    scores.show({out: metrics})


def card_of(chat):
    """The card of the file that a model was fine-tuned on."""
    files.read_bytes(chat)  # there is such a file
    card = files.read_card(chat) or {}
    if card.get("stage") != "api":
        raise BadInput(f"--chat={chat} has no card of api.py export: leave --chat out")
    files.read_jsonl(chat, ["messages"])  # and it is as its card says
    return card


def data_of(args, learned):
    """Which test rows: those of the task behind --chat, unless --ds names another."""
    ds, test, own = args["ds"], args["test"], learned.get("data")
    if test and not ds:
        raise BadInput("--test goes with --ds")
    if learned and not own and not ds:
        raise BadInput(f"--chat={args['chat']} is of labels without a card: add --ds, its task")
    if own and (not ds or own["ds"] in (ds, str(Path(ds).resolve()))) and not test:
        return own | {"n_test": args["n_test"] or own["n_test"]}
    check_texts(f"--ds={ds}", tasks.setting_of(ds or "facts"))
    if learned and ds not in texts.TASKS:
        test = test or ds  # a file that the model was not trained for is a test set, all of it
    return protocol.describe(texts, ds or "facts", n_test=args["n_test"], test=test)


def run_card(args, url, learned, data, force):
    """The card of --out: the one that is there, if it is of the same model, prompt and --chat.

    model_sha256 is of the server's address, the model's name and the system prompt; that another
    model took the same name is not noticed.
    """
    out, model, trained = args["out"], args["model"], learned.get("args", {})
    system = trained.get("system") or args["system"] or SYSTEM
    if args["system"] not in (None, system):
        raise BadInput(f"--system differs from that of {args['chat']}: ask as in training")
    asked = {"base_url": url, "model": model, "system": system}
    sha256 = files.hashed(json.dumps(asked)).hex()
    base = re.sub(r"^ft:([^:]+):.*", r"\1", model)  # what student and ceiling share
    kept = {"model": base, "system": system, "loss": "by API" if learned else None}
    kept |= {name: trained.get(name) for name in OWN["export"]}
    inputs = {"model": sha256, "chat": learned.get("sha256")} | learned.get("inputs", {})
    before = files.read_card(out)
    if before and not records.changed(before, kept, inputs):
        return before
    records.is_done(out, kept, inputs, force)
    card = records.new_card("api", texts, kept, inputs, learned.get("data", data))
    card |= {name: learned.get(name) for name in ("supervisor", "labels_from")}
    card |= leaks.inherited(learned)
    return card | {"asked": asked, "finished": False, "model_sha256": sha256}


def predicted(rows, answers, by_word):
    """Predictions with the answer's words; how many words were neither 0 nor 1 is told.

    What log-probabilities do not decide either is wrong whatever the label: P(1) is 1/2, by a hair
    on the wrong side.
    """
    odd = [one["answer"] for one in answers if by_word(one["answer"]) is None]
    lost = sum(one["prob"] is None for one in answers)
    if odd:
        print(f"{len(odd)} of {len(rows)} answers are neither 0 nor 1, such as {odd[0][:60]!r}")
        print(f"{len(odd) - lost} were read from log-probabilities, {lost} count as wrong")
    if len(odd) > len(rows) / 2:
        print("warning: most answers are neither: was the model fine-tuned, does --system fit?")
    predictions = []
    for row, one in zip(rows, answers):
        wrong = 0.5 if row["label"] else 0.5 + 1e-6  # 1/2 says 0
        prob = wrong if one["prob"] is None else one["prob"]
        predictions.append(texts.prediction(row, prob) | {"answer": one["answer"]})
    return predictions


if __name__ == "__main__":
    cli.run(main)
