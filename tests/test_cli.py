"""fire's traps are shut: whatever is wrong with the command line is told before main() runs."""

import io
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
import tqdm

from w2s import cli
from w2s.files import HERE, BadInput


def main(
    labels: str = "in.jsonl",
    *,
    ds: str = "facts",
    n_train: int = None,
    lr: float = None,
    force: bool = False,
):
    """Do something."""


def many(*runs: str, out: str = "x"):
    """Do something with several."""


def call(*words, function=main):
    return cli.parse(function, list(words))


def test_without_git_the_commit_is_not_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.commit() is None


def test_a_sentence_may_have_several_lines_and_a_name_may_not():
    def ask(*, system: str = None, out: str = None):
        """Ask."""

    assert call("--system=One.\nTwo.", function=ask)[1] == {"system": "One.\nTwo."}
    for word in ("--out=a\nb", "--ou\nt=a", "a\nb"):
        with pytest.raises(BadInput):
            call(word, function=ask)


def test_good_words_arrive_with_their_types():
    args, options = call("x.jsonl", "--ds=123", "--n-train", "5", "--lr=1e-4", "--force")
    assert args == ("x.jsonl",) and options == {
        "ds": "123",
        "n_train": 5,
        "lr": 1e-4,
        "force": True,
    }
    assert call("--ds=a,b", "--noforce")[1] == {"ds": "a,b", "force": False}
    assert call("1", "b", "--out=True1", function=many) == (("1", "b"), {"out": "True1"})
    assert call("--ds=[1, 2]")[1] == {"ds": "[1, 2]"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--n_trian=3"], "no option --n_trian (did you mean --n_train?)"),
        (["--n_train=many"], "--n_train=many is not a whole number"),
        (["--n_train=1.5"], "not a whole number"),
        (["--n_train=" + "9" * 400], "not a whole number"),
        (["--lr=fast"], "--lr=fast is not a number"),
        (["--lr=nan"], "not a number"),
        (["--force=false"], "--force takes no value"),
        (["--force", "x.jsonl"], "--force takes no value"),
        (["a.jsonl", "b.jsonl"], "too many words on the command line ('b.jsonl')"),
        (["a.jsonl", "--labels=b.jsonl"], "too many words"),
        (["--n_train=3", "--n_train=4"], "--n_train is given twice"),
        (["--n-train=3", "--n_train=3"], "--n_train is given twice"),
        (["--force", "--noforce"], "--force is given twice"),
        (["--n_train"], "--n_train needs a value"),
        (["--ds"], "--ds needs a value"),
        (["--ds", "--force"], "--ds needs a value"),
        (["--ds="], "--ds needs a value"),
        (["--nods"], "--ds needs a value"),
        (["-n", "3"], "'-n' is not understood"),
        (["--", "--trace"], "'--' is not understood"),
        ([""], "an argument is empty"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(words, told):
    with pytest.raises(BadInput) as error:
        call(*words)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_train", 0),
        ("batch_size", -1),
        ("lr", 0.0),
        ("seed", -1),
        ("n_val", -1),
        ("alpha", 1.1),
        ("alpha", -0.1),
        ("temperature", 1e-50),
        ("tokens", 5),
    ]
    + [("seed", 2**63), ("device", "gpu"), ("device", "cuda:x")]
    + [
        ("head", "none"),
        ("target", "wek"),
        ("vote", "sfot"),
        ("conf_prior", "third"),
        ("dtype", "fp16"),
        ("plot", "x.jpg"),
    ],
)
def test_a_value_out_of_range_is_told(option, value):
    with pytest.raises(BadInput, match=f"--{option}"):
        cli.check({option: value})


def test_a_stage_is_handed_all_its_options_checked_and_without_force():
    @cli.stage
    def of_lr(args, labels="in.jsonl", *, lr: float = None, seed: int = 0, force: bool = False):
        """Do something."""
        return args, lr, force

    assert of_lr(lr=0.5, force=True) == ({"labels": "in.jsonl", "lr": 0.5, "seed": 0}, 0.5, True)
    assert call("--lr=2", function=of_lr) == (("in.jsonl",), {"lr": 2.0})
    with pytest.raises(BadInput, match="--lr=0 must be positive"):
        of_lr(lr=0)
    assert cli.recipe({"epochs": 0, "stop": None}, {"epochs": 2, "stop": True}) == {
        "epochs": 0, "stop": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "script",
    ["train_weak", "label", "train_strong", "eval", "pgr", "controls", "tasks", "sweep", "pretrain"]
    + ["rm/generative", "chess/make_puzzles"],
)
def test_help_reads_well_and_answers_at_once_without_torch_or_a_gpu(script):
    """openai/weak-to-strong's bug I: CUDA at import, --help needs a GPU."""
    code = "import os, sys, runpy; sys.argv = [sys.argv[1], '--help']\n"
    code += "sys.path[0] = os.path.dirname(sys.argv[0])\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "finally: assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()"
    shown = subprocess.run(
        [sys.executable, "-c", code, str(HERE / f"{script}.py")],
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    assert shown.returncode == 0, shown.stderr
    options = re.findall(
        r"(?m)^    --(\w+)=.*\n        Type: .*\n        Default: .*\n(.*)", shown.stdout
    )
    assert options and all(
        meaning.startswith("        ") for _, meaning in options
    )  # each is explained
    assert "FLAGS" in shown.stdout and "--" in shown.stdout and "Traceback" not in shown.stderr


def test_interrupting_a_stage_stops_the_shell_loop_around_it(tmp_path):
    code = "import sys; sys.argv = ['x']; from w2s import cli\n"
    code += "def main():\n    raise KeyboardInterrupt\ncli.run(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == -signal.SIGINT and done.stderr == "interrupted\n"


def test_the_users_mistake_is_one_line_on_stderr_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "train_weak.py", "--ds=fcats"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and done.stderr == (
        "error: unknown task 'fcats' (did you mean facts or facts_pairs?); "
        "or give the path of a .jsonl file\n"
    )
    assert not list(tmp_path.iterdir())


def test_memory_that_is_too_small_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def main():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    monkeypatch.setattr(sys, "argv", ["train_weak.py"])
    with pytest.raises(SystemExit) as done:
        cli.run(main)
    told = capsys.readouterr().err
    assert done.value.code == 1 and told.count("\n") == 1 and "2.00 GiB): take a smaller" in told


def test_a_loss_that_is_not_finite_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def main():
        raise FloatingPointError("the loss is nan at step 3 of 44: try a smaller --lr")

    monkeypatch.setattr(sys, "argv", ["train_weak.py"])
    with pytest.raises(SystemExit) as done:
        cli.run(main)
    assert (
        done.value.code == 1
        and capsys.readouterr().err
        == "error: the loss is nan at step 3 of 44: try a smaller --lr\n"
    )


def test_torchrun_is_refused_where_every_process_would_do_the_same_work():
    for script in ("controls.py", "tasks.py", "pgr.py"):
        words = [sys.executable, HERE / script]
        done = subprocess.run(
            words, capture_output=True, text=True, env=os.environ | {"WORLD_SIZE": "2"}
        )
        assert done.returncode == 2 and done.stderr.startswith(
            "error: torchrun is for what trains or scores"
        )


@pytest.mark.parametrize(
    "asked, waits",
    [
        ({}, "PASSIVE 2000"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
    ],
)
def test_threads_wait_as_we_say_unless_the_user_says_how(asked, waits):
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    env = {name: value for name, value in os.environ.items() if name not in names} | asked
    code = f"import os; from w2s import cli; print(*map(os.environ.get, {names}))"
    told = subprocess.run([sys.executable, "-c", code], env=env, cwd=HERE, capture_output=True)
    assert told.stdout.decode().strip() == waits


@pytest.mark.parametrize("seconds, drawn", [(50, 0), (300, 6)])
def test_a_log_gets_a_progress_bar_once_a_minute_and_of_short_runs_none(
    seconds, drawn, monkeypatch
):
    """At 60, 120, 180, 240 and 300 s, and at the end."""
    clock, log = [0.0], io.StringIO()
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", log)
    for _ in tqdm.tqdm(range(seconds), **cli.paced()):
        clock[0] += 1
    assert log.getvalue().count("\r") == drawn
