"""The README's commands parse, its file tree is the repository's, and the charter of the code's size is kept."""

import ast
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from w2s import cli
from w2s.files import HERE

README = (HERE / "README.md").read_text()
COMMANDS = sorted(
    {
        line.split("#")[0].split("->")[0].strip()
        for line in re.findall(r"^ *python ([\w/]+\.py.*)$", README, re.M)
    }
)


def sources():
    listed = subprocess.run(
        ["git", "-C", HERE, "ls-files", "*.py"], capture_output=True, text=True
    ).stdout.split()
    return [
        HERE / name for name in listed if not name.startswith("tests/") and (HERE / name).exists()
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_is_understood(command):
    script, *words = shlex.split(command.replace("$s", "0"))
    cli.parse(importlib.import_module(Path(script).stem).main, words)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 12


def test_the_file_tree_of_the_readme_is_the_repositorys():
    tree = re.search(r"## The code\n\n```\n(.*?)```", README, re.S)[1]
    told = {line.split()[0] for line in tree.splitlines()}
    assert {str(path.relative_to(HERE)) for path in sources() if path.parent == HERE} == {
        t for t in told if t.endswith(".py")
    }
    assert all((HERE / name).exists() for name in told)


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README


def test_the_size_charter_is_kept():
    """6,200 lines without tests, 300 a file, 60 a function; w2s/ alone is a package."""
    total = 0
    for path in sources():
        text = path.read_text()
        total += text.count("\n")
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno + 1 <= 60, f"{path}:{node.lineno} {node.name}"
    assert total <= 6200 and list(HERE.glob("[a-z]*/__init__.py")) == [HERE / "w2s/__init__.py"]
