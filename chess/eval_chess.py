"""Stage 4 on chess puzzles: run(s) -> predictions on the test puzzles, accuracy, legality, and accuracy by difficulty.

    python chess/eval_chess.py                                       # runs/chess/weak runs/chess/student runs/chess/ceiling
    python chess/eval_chess.py --model=chess/m --out=runs/chess/zero_shot                  # no fine-tuning (Fig. 15)

In: finished run directories of train_chess.py. Out, in each: eval/<task>-test.jsonl ({"id", "target", "move", "correct",
"legal"}), its card, and .metrics.json. Next: pgr.py.
"""

import collections
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import board
import puzzles
from w2s import cli, files, stages, stats

EVALUATED = "chess/eval_chess"


def main(
    *runs: str, ds: str = None, test: str = None, n_test: int = None, model: str = None, out: str = None, max_len: int = None,
    device: str = None, dtype: str = None, force: bool = False,
):  # fmt: skip
    """Let runs play the test puzzles of their task, or of another. Other options: cli.COMMON.

    Args:
        runs: run directories (default: runs/chess/weak runs/chess/student runs/chess/ceiling); unfinished ones are refused
        ds: score on this task or JSONL file of puzzles instead of the one that the run was trained for
        model: with --out and no runs: a model to score without training
        out: the run directory to make for --model
        max_len: tokens of a puzzle for --model; longer games lose their first moves
    """
    cli.check(locals())
    if (model is None) != (out is None) or (model and runs):
        raise files.BadInput(
            "--model and --out go together, without runs: they score a model that was not trained"
        )
    if model:
        data = puzzles.describe(ds or "puzzles", n_test=n_test, test=test)
        todo = [
            (out, stages.untrained(puzzles.KIND, model, out, {"max_len": max_len}, data, force))
        ]
    else:
        runs = files.expand(runs or ("runs/chess/weak", "runs/chess/student", "runs/chess/ceiling"))
        todo = [(run, stages.finished_run(run, (*puzzles.STAGES, EVALUATED))) for run in runs]
    how = {"device": device, "dtype": dtype}
    show(
        stages.evaluate(puzzles.KIND, todo, answer, how, ds, test=test, n_test=n_test, force=force)
    )
    stages.tell_pgr(todo)


def answer(run, card, rows, device, dtype):
    """(predictions, metrics) of one run on test puzzles; a move is right if it is the target, letter for letter."""
    import moves

    trained = card["stage"] != EVALUATED
    name, max_len = (
        (f"{run}/model", None) if trained else (card["args"]["model"], card["args"]["max_len"])
    )
    predictions = [
        {
            "id": row["id"],
            "target": row["target"],
            "move": move,
            "correct": int(move == row["target"]),
            "legal": int(board.is_legal(row["fen"], move)),
        }
        for row, move in zip(
            rows, (board.plain(m) for m in moves.play(name, rows, max_len, device, dtype, bar=run))
        )
    ]
    if not trained:
        files.write_card(run, card)
    return predictions, measure(predictions, rows)


def measure(predictions, rows):
    """{"acc", "low", "high", "n", "groups", "legal": {...}, "by_difficulty": [{"from", "to", "n", "acc", "low", "high"}]}."""
    correct, legal = ([row[name] for row in predictions] for name in ("correct", "legal"))
    groups = [row["group"] for row in rows]
    result = rate(correct, groups) | {
        "n": len(rows),
        "groups": len(set(groups)),
        "legal": rate(legal, groups),
    }
    known = {row["difficulty"] for row in rows if "difficulty" in row}
    width = 300 if len(known) > 6 else None  # ratings
    buckets, result["by_difficulty"] = collections.defaultdict(list), []
    for i, row in enumerate(rows):
        if "difficulty" in row:
            buckets[row["difficulty"] // width * width if width else row["difficulty"]].append(i)
    for low, some in sorted(buckets.items()):
        one = rate([correct[i] for i in some], [groups[i] for i in some])
        result["by_difficulty"].append(
            {"from": low, "to": low + width - 1 if width else low, "n": len(some)} | one
        )
    return result


def rate(hits, groups):
    """{"acc", "low", "high"} of hits (0 or 1) [N]; groups: N names."""
    return stats.accuracy(hits, [1] * len(hits), groups)


def show(results):
    """The tables on the terminal; results: see stages.evaluate; agreement, the share of equal moves, is with the first run."""
    first, width = results[0][1], max(len(run) for run, *_ in results)
    print(
        f"\n{'run':<{width}} accuracy   95 % interval   legal moves    agrees with first        puzzles"
    )
    for run, predictions, one, groups in results:
        agreed = "other puzzles"
        if [row["id"] for row in predictions] == [row["id"] for row in first]:
            same = rate(
                [row["move"] == other["move"] for row, other in zip(predictions, first)], groups
            )
            agreed = f"{same['acc']:.3f}  {same['low']:.3f} to {same['high']:.3f}"
        told = f"{one['low']:.3f} to {one['high']:.3f}   {one['legal']['acc']:11.3f}"
        print(f"{run:<{width}} {one['acc']:8.3f}   {told}   {agreed:<22} {one['n']:9}")
    if not results[0][2]["by_difficulty"]:
        return
    print("\naccuracy by difficulty (engine nodes that find the move; on Lichess the rating)")
    for run, _, one, _ in results:
        print(run)
        for bucket in one["by_difficulty"]:
            name = (
                str(bucket["from"])
                if bucket["from"] == bucket["to"]
                else f"{bucket['from']} to {bucket['to']}"
            )
            print(
                f"  {name:<26} {bucket['acc']:8.3f}   {bucket['low']:.3f} to {bucket['high']:.3f}   {bucket['n']:6} puzzles"
            )


if __name__ == "__main__":
    cli.run(main)
