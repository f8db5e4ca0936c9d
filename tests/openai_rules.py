"""The provider's rules for a file of chat lines, written from its documents and not from api.py.

developers.openai.com/docs/guides/supervised-fine-tuning and cookbook.openai.com's
chat_finetuning_data_prep: JSON lines, UTF-8 without a byte-order mark, up to 512 MB, 10 examples or
more; an example is an object with a list of messages; a message has a role (system, user or
assistant, of those used here), a text as content and nothing unknown; the last one is the
assistant's. A training example of gpt-4o-mini, gpt-4o or gpt-4.1 may hold 65,536 tokens.
"""

import json

KNOWN = {"role", "content", "name", "weight", "function_call", "tool_calls", "refusal"}


def problems(path, tokens=None):
    """What is wrong with a file, as sentences; tokens: counts those of a text (default: bytes,
    which no byte-level BPE exceeds, so that what passes has room)."""
    tokens = tokens or (lambda text: len(text.encode()))
    data, found = path.read_bytes(), []
    if len(data) > 512 * 10**6:
        found.append("the file is over 512 MB")
    if data.startswith(b"\xef\xbb\xbf") or b"\r\n" in data:
        found.append("a byte-order mark, or lines that end as on Windows")
    lines = data.decode("utf-8").removesuffix("\n").split("\n")
    if len(lines) < 10:
        found.append(f"{len(lines)} examples, fewer than 10")
    for number, line in enumerate(lines, 1):
        found += [f"line {number}: {what}" for what in of_line(line, tokens)]
    return found


def of_line(line, tokens):
    try:
        example = json.loads(line)
    except ValueError:
        return ["no JSON"]
    messages = example.get("messages") if isinstance(example, dict) else None
    if not isinstance(messages, list) or not messages or set(example) - {"messages", "tools"}:
        return ["no list of messages, or something beside it"]
    found = []
    for message in messages:
        if set(message) - KNOWN or {"role", "content"} - set(message):
            found.append(f"a message with {sorted(message)}")
        elif message["role"] not in ("system", "user", "assistant"):
            found.append(f"the role {message['role']!r}")
        elif not isinstance(message["content"], str) or not message["content"].strip():
            found.append("a message without content")
    roles = [message.get("role") for message in messages]
    if "user" not in roles or roles[-1] != "assistant" or "system" in roles[1:]:
        found.append(f"the roles {roles}")
    if not found and sum(4 + tokens(one["content"]) for one in messages) + 3 > 65_536:
        found.append("more tokens than a training example may have")
    return found
