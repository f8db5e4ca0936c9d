"""Every option's check and meaning; its type and default stand in the signature of main()."""

import os
import re

POSITIVE = (lambda value: value > 0, "must be positive")
NATURAL = (lambda value: 0 <= value < 2**63, "must not be negative, nor larger than 2^63")
NAME = (
    lambda value: all(len(os.fsencode(part)) <= 200 for part in value.split("/")),
    "has a name of over 200 bytes",
)


def count(most=2**31 - 1):
    """The check of a number of things that are made, or gone through, one by one."""
    return lambda value: 0 < value <= most, f"must be positive, and at most {most:,}"


def share(most):
    """The check of a number from 0 to `most`."""
    return lambda value: 0 <= value <= most, f"must be from 0 to {most:,}"


def of(*names):
    """The check of one of these words."""
    return names.__contains__, f"is not one of {', '.join(names)}"


def matching(pattern, wanted):
    """The check of a text that fits a regular expression."""
    return re.compile(pattern).fullmatch, f"is not {wanted}"


METRICS = "acc balanced_acc f1 precision recall auroc nll ece score".split()
ERRORS = ("own", "random", "longest", "shortest", "unconfident", "confident")
OPTIONS = {
    "ds": (None, "a task (python tasks.py lists them), or the path of your own JSONL file"),
    "test": (None, "test rows of your own, when --ds is a file (default: a fifth of its rows)"),
    "split": (None, "test, or another test split of the task (ETHICS has test_hard)"),
    "model": (None, "folder, .gguf or hub id (default: by task, mostly gpt2 and gpt2-medium)"),
    "out": (NAME, "the run directory, or the file, to make"),
    "labels": (None, "the labels file; it is used whole"),
    "runs": (None, "run directories; globs in quotes"),
    "target": (of("weak", "truth"), "weak: the weak labels; truth: ground truth, for the ceiling"),
    "loss": (None, "the rule, what to do with weak labels (see above)"),
    "alpha": (share(1), "conf, logconf, entropy: largest weight of the second term (default: 0.5)"),
    "conf_prior": (of("half", "weak"), "conf: share of a batch hardened to 1 (default: half)"),
    "radius": (share(0.5), "window, mix: threshold on |P(1) - 1/2| (default: batch median)"),
    "as_released": (None, "logconf: with the warm-up of the released code, a jump after a tenth"),
    "probe": (None, "train the last layer alone, on features computed once (runs/features)"),
    "easy": (NATURAL, "moves: train only on puzzles of this difficulty or less (Fig. 20)"),
    "seed": (NATURAL, "random seed of initialisation and order"),
    "data_seed": (NATURAL, "moves the two halves, never the test set"),
    "n_train": (count(), "rows in each half (default: all there are, at most 10,000)"),
    "n_test": (count(), "rows of the test set (default: all; eval.py: as in training)"),
    "n_val": (NATURAL, "rows held out (default: a tenth; of 200 or more at least 100; moves 0)"),
    "epochs": (count(10**6), "passes (default: texts 2, probes 200, pairs 1, moves 5, writing 3)"),
    "batch_size": (count(), "rows in a batch (default: 32, pairs 220, writing 16; probes 128)"),
    "stop": (None, "keep the weights that fit held-out labels best (default: texts do)"),
    "micro_batch": (count(), "rows that go through at once, to save memory; the result is equal"),
    "lr": (POSITIVE, "learning rate (default by size, 1e-4, 5e-5 or 1e-5; LoRA 2e-4, probes 1e-3)"),
    "max_len": (count(), "tokens of a text; longer ones lose their front (default: 1024 or less)"),
    "head": (
        of("unembedding", "zero", "answers"),
        "unembedding (of the tokens 0 and 1; default), zero, or answers: no new head, the language "
        "model itself, which can then be asked other questions (texts)",
    ),
    "lora": (count(65_536), "train low-rank terms of this rank, not the matrices; merged at last"),
    "checkpointing": (None, "recompute activations in the backward pass, to save memory"),
    "compile": (None, "let torch.compile fuse the model: half a minute first; on a GPU"),
    "device": (matching(r"cpu|mps|cuda(:\d+)?", "cpu, mps, cuda, cuda:1"), "default: a GPU if any"),
    "dtype": (of("bf16", "float32"), "bf16 or float32 (default: as hardware and size suit)"),
    "save_every": (NATURAL, "seconds between two checkpoints, to go on from (0: none at all)"),
    "force": (None, "run again and replace a finished result"),
    "allow_leak": (None, "go on though a model has learned these rows; all that follows says so"),
    "bootstrap": (None, "draw groups of rows with replacement, by --seed: bagging over seeds"),
    "vote": (of("soft", "hard", "judge"), "soft: most probable; hard: plurality; judge: least bad"),
    "judge": (None, "finished run of texts, or file with a word a line, that says what is bad"),
    "bad": ((lambda value: value in (0, 1), "is not 0 or 1"), "the judge's bad label (default: 1)"),
    "samples": (count(10_000), "texts drawn for each prompt, with --temperature (default: 1)"),
    "temperature": (
        (lambda value: value >= 0.001, "must be 0.001 or more"),
        "draw tokens, the flatter the higher (default: the likeliest)",
    ),
    "top_p": (share(1), "draw among the likeliest tokens that have this probability together"),
    "max_new": (count(), "tokens written after a prompt (default: 100, or as the longest truth)"),
    "weights": (None, "weigh the supervisors by what they say of the rows that they held out"),
    "select": (of("all", "agreement"), "agreement: drop rows on which the supervisors differ"),
    "keep": (share(1), "the share of the rows to keep, those with the most confident labels"),
    "part": (matching(r"\d\d?/\d\d?", "k/n, such as 1/2"), "k/n: the k-th of n parts of the half"),
    "test_rows": (None, "label the test rows, for eval.py --answers and controls.py --kind=suffix"),
    "shots": (share(1_000), "prompt --model with this many examples before each row (0: none)"),
    "ratings": (None, "ethics_utilitarianism: rate each situation alone, the higher is better"),
    "soft": (count(10_000), "export: copies of each row, round(soft x P(1)) of them labelled 1"),
    "system": (None, "the sentence that says how to answer (default: 1 for yes, 0 for no)"),
    "chat": (None, "answer: the exported file that the model was fine-tuned on, if it was"),
    "base_url": (None, "answer: another OpenAI-compatible server, http://host:8000/v1"),
    "jobs": (count(1_000), "answer: how many questions at once"),
    "kind": (of(*ERRORS, "coin", "features", "suffix"), "which simulated supervisor (see above)"),
    "rate": (share(1), "the share of the labels to get wrong (default: as many as now)"),
    "dims": (count(), "features: how many of them the simulated supervisor sees"),
    "plot": (matching(r".*\.png", "a name that ends in .png"), "PNG file (default: like --out)"),
    "curves": (None, "plot the course of training too, and tell the PGR at three stops (5.1.1)"),
    "metric": (of(*METRICS), "what is compared (default: acc; of texts that models write score)"),
    "grid": (None, "the folder of a grid (sweep.py), to report on it as a whole; takes --metric"),
    "want": (POSITIVE, "tell how many rows and seeds make half the PGR's interval this wide"),
    "n": (count(), "how many rows (default: all, in the halves at most 10,000)"),
    "mirror": (None, "folder to write the named tasks' data to (default: all), for W2S_MIRROR"),
    "seeds": (count(10_000), "how many seeds, from 0"),
    "weak_too": (None, "fine-tune the supervisor's base model alike, into OUT_weak (Fig. 18)"),
    "games": (None, "PGN file, or parquet with columns moves, white_elo, black_elo"),
    "min_elo": (NATURAL, "both players of a game must be rated this high"),
    "nodes": (count(), "engine nodes of the long search"),
    "sample": (NATURAL, "so many puzzles are searched again with 20 times the nodes"),
    "engine": (None, "the engine's program (default: stockfish)"),
    "processes": (count(1_000), "how many engines at once (default: one per core)"),
    "size": (None, "which size of model: xs, s or m"),
    "steps": (count(), "batches in a timed run of 20-token rows; longer texts have fewer"),
    "tokens": (
        (lambda value: value >= 10_000, "must be 10,000 or more"),
        "to train on; texts are read again if there are fewer (default: by size)",
    ),
    "repeats": (POSITIVE, "interleaved repeats whose median is printed"),
}
