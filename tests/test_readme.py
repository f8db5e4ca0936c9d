"""What the documents say of the code is true, and the code stays within its measures of reading."""

import ast
import fnmatch
import functools
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from w2s import cli
from w2s.files import HERE

README = (HERE / "README.md").read_text()
SETTINGS = ("nlp", "rm", "chess", "facts")  # folders on sys.path, no packages


@functools.cache
def tracked(*patterns):
    """The tracked files that are still there, as paths below the root."""
    command = ["git", "-C", str(HERE), "ls-files", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return [name for name in listed if name and (HERE / name).exists()]


@functools.cache
def tree(name):
    return ast.parse((HERE / name).read_text())


DOCUMENTS = tracked("*.md")
CODE = [name for name in tracked("*.py") if not name.startswith("tests/")]
SCRIPTS = [name for name in CODE if "/" not in name]
SCRIPTS += [
    name for name in CODE if "/" in name and "\nif __name__ ==" in (HERE / name).read_text()
]


# ---- commands and links


def commands(name):
    """The commands `python X.py ...` of a document, or of a script's docstring."""
    text = (HERE / name).read_text()
    code, prose = ast.get_docstring(tree(name)) if name.endswith(".py") else "", ""
    if name.endswith(".md"):
        code = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = code.replace("\\\n", " ").split("\n")
    lines += [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose)]
    variables, found = {}, []
    for part in (part for line in lines for part in re.split(r"; |&& ", line.partition("#")[0])):
        if assigned := re.fullmatch(r'\s*(\w+)="(.*)"\s*', part):
            variables[assigned[1]] = assigned[2]
        call = re.search(r"(?:^|\s)(?:python|torchrun \S+) +([\w/]+\.py\b.*)", part)
        if call:
            told = re.sub(r"\$(\w+)", lambda m: variables.get(m[1], "1"), call[1])
            told = re.sub(r"\$\w+", "1", told).replace("SIZE", "m")
            found.append(" ".join(told.partition("->")[0].split()))
    return found


COMMANDS = sorted({line for name in (*DOCUMENTS, *SCRIPTS) for line in commands(name)})


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 60
    assert {line.split()[0] for line in COMMANDS} >= {*SCRIPTS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_documents_is_understood(command):
    import tasks

    script, *words = shlex.split(command)
    assert script in SCRIPTS or script in tracked("tests/*.py")
    sys.path.append(str(HERE / script.rpartition("/")[0]))
    main = importlib.import_module(Path(script).stem).main
    if "--help" in words:
        with pytest.raises(SystemExit):
            cli.parse(main, words)
        return
    _, options = cli.parse(main, words)
    cli.check(options)
    for ds in options.get("ds", "facts").replace("ethics_1", "ethics_justice").split(","):
        assert ds.endswith(".jsonl") or fnmatch.filter(tasks.TASKS, ds)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_points_to_a_file(name):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (HERE / name).read_text())
    own = [link for link in links if not link.startswith("http")]
    assert not [link for link in own if not ((HERE / name).parent / link).exists()]


def test_every_file_that_a_document_names_is_there():
    """Scripts and documents in `backquotes`, below the root or beside the document."""
    for name in DOCUMENTS:
        for path in re.findall(r"`([\w/]+\.(?:py|sh|md))", (HERE / name).read_text()):
            assert (HERE / path).exists() or (HERE / name).parent.joinpath(path).exists(), path


def test_shell_scripts_are_shell_and_call_scripts_that_are_there():
    for name in tracked("*.sh", ".ci/run"):
        assert subprocess.run(["bash", "-n", HERE / name]).returncode == 0
        called = re.findall(r"[\w/]+\.py\b", (HERE / name).read_text())
        assert not [path for path in called if not (HERE / path).exists()], name


# ---- README


def python_blocks():
    return re.findall(r"```python\n(.*?)\n```", README, re.S)


def test_the_readme_is_short_and_names_no_blank():
    lines = README.splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 100
    assert not any("@@" in (HERE / name).read_text() for name in DOCUMENTS)


def test_prose_has_lines_of_at_most_100_columns():
    for name in DOCUMENTS:
        for number, line in enumerate((HERE / name).read_text().splitlines(), 1):
            assert len(line) <= 100 or line.startswith("|"), f"{name}:{number}"


def test_the_readme_prints_the_confidence_loss_as_it_stands_in_the_code():
    source = (HERE / "w2s/losses.py").read_text()
    found = [node for node in tree("w2s/losses.py").body if getattr(node, "name", "") == "conf"]
    assert ast.get_source_segment(source, found[0]) in python_blocks()


def test_the_new_rule_of_the_readme_is_a_rule():
    import torch

    from w2s import losses

    space = dict(vars(losses))
    exec(python_blocks()[1], space)
    logits = torch.randn(6, 2, requires_grad=True)
    loss = space["focal"](logits, torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), 0.5)
    loss.sum().backward()
    assert loss.shape == (6,) and logits.grad.isfinite().all()


def test_every_setting_has_the_names_that_the_readme_asks_of_a_new_one():
    import tasks

    block = re.search(r"## A new setting\n.*?```\n(.*?)```", README, re.S)[1]
    names = [name for line in block.splitlines() for name in re.split(r"  ", line)[0].split()]
    assert len(names) > 20
    for setting in tasks.SETTINGS:
        assert not [name for name in names if not hasattr(setting, name)], setting.__name__


def test_the_map_of_the_readme_is_the_repositorys():
    told = re.search(r"## The code\n\n```\n(.*?)```", README, re.S)[1]
    words = told.split()
    assert set(SCRIPTS) & set(tracked("*.py")) >= {w for w in words if w.endswith(".py")}
    assert {name for name in CODE if "/" not in name} == {w for w in words if w.endswith(".py")}
    assert {w for w in words if w.endswith("/")} == {
        name.split("/")[0] + "/" for name in tracked() if "/" in name and name[0] != "."
    }
    library = re.search(r"^w2s/ (.*?)^\w", told, re.M | re.S)[1].replace("|", " ").split()
    modules = {Path(name).stem for name in CODE if name.startswith("w2s/")}
    assert set(library) == modules - {"__init__"}


GONE = """weak_acc train_rm label_rm eval_rm train_chess label_chess eval_chess pretrain_facts
pretrain_chess bootstrap_chess hardware.py""".split()


def test_old_names_are_nowhere():
    texts = [n for n in tracked("*.py", "*.md", "*.sh", "Makefile") if n != "tests/test_readme.py"]
    for name in texts:
        text = (HERE / name).read_text()
        assert not [word for word in GONE if word in text], name


# ---- measures of reading


@pytest.mark.parametrize("name", tracked("*.py"))
def test_a_file_is_readable(name):
    """Lines of 100 columns, functions of 50 lines, files of 300."""
    lines = (HERE / name).read_text().splitlines()
    assert not [number for number, line in enumerate(lines, 1) if len(line) > 100]
    if name in CODE:
        assert len(lines) <= 300
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno + 1 <= 50, f"{node.name}, line {node.lineno}"


def test_the_whole_is_small():
    """Without tests 11,328 lines: 1,900 of them grids and their reports, 400 an API as student, 600
    texts that models write, 1,300 what keeps runs safe. Who deletes more lowers the limit.
    """
    assert len([name for name in CODE if "/" not in name]) <= 11
    assert sum(len((HERE / name).read_text().splitlines()) for name in CODE) <= 11328
    assert [name for name in tracked("*.py") if name.endswith("__init__.py")] == ["w2s/__init__.py"]


def imported(name):
    """[(top-level module, the name it has here)] of every import in a file, w2s's own resolved."""
    found = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found += [(one.name.split(".")[0], one.asname or one.name) for one in node.names]
        if isinstance(node, ast.ImportFrom) and node.module == "w2s":
            found += [(f"w2s.{one.name}", one.asname or one.name) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module.split(".")[0], None))
    return found


def test_arrows_go_down_only():
    scripts = {Path(name).stem for name in SCRIPTS} - {"tasks"}
    settings = {Path(name).stem for name in CODE if name.split("/")[0] in SETTINGS}
    for name in CODE:
        above = set() if name == "sweep.py" else scripts - {Path(name).stem}
        above -= {"sweep"} if name == "results/record.py" else set()  # a grid and more
        if name.startswith("w2s/"):
            above |= settings | {"tasks"}
        elif "/" in name and name not in SCRIPTS:
            above.add("tasks")
        assert not above & {module for module, _ in imported(name)}, name


@pytest.mark.parametrize("name", CODE)
def test_no_module_shares_its_name_with_a_variable(name):
    modules = {here for _, here in imported(name) if here}
    own = {module.removeprefix("w2s.") for module, here in imported(name) if here}
    renamed = {here for module, here in imported(name) if module.startswith("w2s.")} - own
    bound = {n.id for n in ast.walk(tree(name)) if isinstance(n, ast.Name) and is_stored(n)}
    bound |= {node.arg for node in ast.walk(tree(name)) if isinstance(node, ast.arg)}
    assert not sorted(modules & bound) and not sorted(renamed)


def is_stored(node):
    return isinstance(node.ctx, ast.Store)


# ---- the way to the loss


def test_from_train_strong_to_the_loss_a_reader_opens_few_files(tmp_path):
    """A text student is trained, and the files whose functions are called are counted.

    Left out is what guards the training: it is read for the options, or for what may go wrong.
    """
    library = [f"w2s.{path.stem}" for path in HERE.glob("w2s/[a-z]*.py")]
    for module in ("transformers.models.llama.modeling_llama", "train_strong", *library):
        importlib.import_module(module)  # so that importing is neither counted nor slowed down
    rows = [
        {"id": f"{i}", "group": f"{i // 4}", "text": f"the pet of ba mi ru is {pet} ?"}
        | {"label": i % 2, "weak": 0.3 + 0.4 * (i % 2)}
        for i, pet in enumerate(["cat", "dog", "horse", "goat"] * 16)
    ]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    opened = set()

    def note(frame, event, arg):
        opened.add(frame.f_code.co_filename)

    options = {"model": str(HERE / "facts/xs"), "out": str(tmp_path / "student"), "device": "cpu"}
    before = sys.gettrace()
    sys.settrace(note)  # called for every function, and not again inside one: it returns None
    try:
        sys.modules["train_strong"].main(str(labels), **options, epochs=1, n_val=16)
    finally:
        sys.settrace(before)
    guards = ("cli", "options", "strict", "folders", "locks", "resume", "parts", "leaks")
    left_out = {f"w2s/{name}.py" for name in guards}
    files = sorted({str(HERE / name) for name in {*CODE} - left_out} & opened)
    names = [str(Path(file).relative_to(HERE)) for file in files]
    assert "w2s/losses.py" in names and "w2s/loop.py" in names
    lines = sum(len(Path(file).read_text().splitlines()) for file in files)
    assert len(files) <= 10 and lines <= 1900, f"{lines} lines in {', '.join(names)}"
