"""Stages 1 and 3 on chess puzzles: ground truth -> weak supervisor; its moves -> student, or the ceiling.

A language model learns the best move: cross-entropy on the move's tokens alone, five epochs, no early stopping, and weak labels
are hard, the supervisor's greedy move (paper, A.2).

    python chess/train_chess.py                                      # the embedded puzzles, in runs/chess/weak
    python chess/train_chess.py runs/chess/labels.jsonl              # the student, in runs/chess/student
    python chess/train_chess.py runs/chess/labels.jsonl --target=truth    # the ceiling, in runs/chess/ceiling
    python chess/train_chess.py --ds=lichess --model=openai-community/gpt2 --out=runs/lichess/weak

In: a task (python chess/puzzles.py lists them) or a JSONL file of puzzles, or label_chess.py's labels. Out: a run directory
like train_weak.py's, its model a causal language model. Next: label_chess.py, or eval_chess.py.
"""

import inspect
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import puzzles
from w2s import cli, files, hub, stages


def main(
    labels: str = None, *, ds: str = None, model: str = None, out: str = None, test: str = None, target: str = "weak",
    easy: int = None, seed: int = 0, data_seed: int = 0, n_train: int = None, n_test: int = None, epochs: int = 5,
    batch_size: int = 32, micro_batch: int = None, lr: float = None, max_len: int = None, checkpointing: bool = False,
    device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Fine-tune a causal language model on best moves, for supervisor, student or ceiling. Other options: cli.COMMON.

    Args:
        labels: the labels file of label_chess.py, used whole; without it the ground truth of the weak half of --ds
        ds: without labels: a task (see python chess/puzzles.py), or a JSONL file with prompt and target (default: puzzles)
        model: folder or hub id of a causal model (default: chess/xs, with labels chess/m; for lichess_fen gpt2, gpt2-medium)
        out: the run directory to make (default: runs/chess/weak, with labels runs/chess/student, or runs/chess/ceiling)
        target: with labels: weak trains the student on the supervisor's moves, truth the ceiling on the best moves
        easy: train only on puzzles of this difficulty or less (engine nodes; on Lichess the rating), as in Fig. 20
        seed: moves the order
        max_len: tokens of a puzzle; longer games lose their first moves (default: 1024 or the model's own limit)
    """
    example = "chess/train_chess.py runs/chess/labels.jsonl"
    stages.check_labels(
        labels,
        target,
        example,
        ds=ds,
        test=test,
        data_seed=data_seed,
        n_train=n_train,
        n_test=n_test,
    )
    rows, data, supervisor = (
        stages.read_labels(puzzles.KIND, labels) if labels else (None, None, None)
    )
    ds = (data["ds"] if data else None) if labels else ds or "puzzles"
    if model is None:
        hub_models, ours = (
            ("openai-community/gpt2", "openai-community/gpt2-medium"),
            ("chess/xs", "chess/m"),
        )
        model = (hub_models if ds == "lichess_fen" else ours)[labels is not None]
    out = (
        out
        or f"runs/chess/{'weak' if not labels else 'ceiling' if target == 'truth' else 'student'}"
    )
    args = {
        name: value
        for name, value in locals().items()
        if name in inspect.signature(main).parameters and name != "force"
    }
    cli.check(args)
    data = data if labels else puzzles.describe(ds, data_seed, n_train, n_test, test)
    inputs = ({"labels": files.sha256(labels)} if labels else data["sha256"]) | hub.model_input(
        model
    )
    if files.is_done(out, args, inputs, force):
        return
    if labels and data is None:
        rows = puzzles.playable(rows)  # somebody else's, perhaps in another notation
    train(rows or puzzles.half(data, "weak"), data, supervisor, args, inputs)


def train(rows, data, supervisor, args, inputs):
    """One run with the arguments of main(); supervisor: sha256 of the models that made the labels, None without labels."""
    import moves
    from w2s import (
        lm,
        loop,
        models,  # torch and transformers take seconds to import, so not before they are needed
    )

    out, lr, dtype = args["out"], args["lr"], args["dtype"]
    given = "weak" if args["labels"] and args["target"] == "weak" else "target"
    rows = easier(rows, args["easy"])
    net, tokenizer = models.load(
        args["model"], None, args["max_len"], args["device"], args["seed"], outputs=0
    )
    lm.check_head(net, args["model"])
    rows = moves.encode(rows, tokenizer, net, given)
    card = files.begin(
        out, "chess/train_chess", args, inputs, data, loop.derived(net, rows, (), lr, dtype)
    )
    same = ("epochs", "batch_size", "micro_batch", "lr", "seed", "dtype", "checkpointing")
    history = lm.fit(net, rows, name=out, **{name: args[name] for name in same})
    models.save(net, tokenizer, f"{out}/model")
    files.end(out, card | {"supervisor": supervisor}, history, history[-1])
    evaluate = f"chess/eval_chess.py {out}" + " --ds=test.jsonl" * (data is None)
    stages.tell_next(
        evaluate
        if args["labels"]
        else f"chess/label_chess.py {out} --out={stages.beside(out, 'labels.jsonl')}"
    )


def easier(rows, easy):
    """The rows of a difficulty of at most `easy`, where that is given; BadInput where none is, or none has a difficulty."""
    if easy is None:
        return rows
    known = [row for row in rows if "difficulty" in row]
    kept = [row for row in known if row["difficulty"] <= easy]
    if not kept:
        told = (
            f"the easiest has {min(row['difficulty'] for row in known)}"
            if known
            else "none has a difficulty"
        )
        raise files.BadInput(f"--easy={easy} leaves none of these {len(rows)} puzzles: {told}")
    print(f"--easy={easy} leaves {len(kept)} of {len(rows)} puzzles")
    return kept


if __name__ == "__main__":
    cli.run(main)
