"""The whole experiment on `facts`: three seeds, naive fine-tuning and the confidence loss. Half a minute on two cores.

    python demo.py

Every line after a $ is a command that you could type. They run here in two processes, seeds side by side, because
importing torch and transformers sixteen times would take longer than everything else.
"""

import multiprocessing
import os
import shlex

import eval
import label
import pgr
import train_strong
import train_weak
from w2s import cli

OUT = "runs/demo"


def step(stage, *words):
    """Run one command of the experiment, just as its script would."""
    print(f"$ python {stage.__name__}.py", shlex.join(words), flush=True)
    args, options = cli.parse(stage.main, list(words))
    stage.main(*args, **options)


def one_seed(seed):
    """Supervisor, weak labels, two students and the ceiling of one seed."""
    here = f"{OUT}/s{seed}"
    step(train_weak, f"--seed={seed}", f"--out={here}/weak")
    step(label, f"{here}/weak", f"--out={here}/labels.jsonl")
    step(train_strong, f"{here}/labels.jsonl", f"--seed={seed}", f"--out={here}/naive")
    step(
        train_strong, f"{here}/labels.jsonl", f"--seed={seed}", f"--out={here}/conf", "--loss=conf"
    )
    step(
        train_strong,
        f"{here}/labels.jsonl",
        f"--seed={seed}",
        f"--out={here}/ceiling",
        "--target=truth",
    )


def main(*, seeds: int = 3):
    """Run the demo.

    Args:
        seeds: how many seeds
    """
    cli.check({"seeds": seeds})
    from w2s import models as model  # noqa: F401  the workers below inherit torch and transformers

    methods = multiprocessing.get_all_start_methods()
    with multiprocessing.get_context("fork" if "fork" in methods else None).Pool(min(seeds, max(2, os.cpu_count()))) as pool:
        pool.map(one_seed, range(seeds), chunksize=1)
    step(
        eval,
        *(
            f"{OUT}/s{seed}/{run}"
            for seed in range(seeds)
            for run in ("weak", "naive", "conf", "ceiling")
        ),
    )
    for student in ("naive", "conf"):
        print(f"\n==== weak -> {student} student -> ceiling")
        runs = [f"{OUT}/s*/{run}" for run in ("weak", student, "ceiling")]
        step(pgr, *runs, f"--out={OUT}/{student}.json", f"--plot={OUT}/{student}.png")


if __name__ == "__main__":
    cli.run(main)
