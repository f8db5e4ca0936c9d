"""Stage 2 on chess puzzles: weak supervisor -> weak labels, the moves that it would play.

Writes the strong half of the puzzles with "weak" = the supervisor's greedy move: chess has hard labels (paper, A.2). The best
move stays in "target": the ceiling trains on the same file.

    python chess/label_chess.py                                      # runs/chess/weak -> runs/chess/labels.jsonl
    python chess/label_chess.py runs/chess/weak --part=1/2 --out=runs/chess/first.jsonl   # bootstrapping: fresh for each step

In: a run directory of train_chess.py. Out: a labels file with its card. Next: train_chess.py.
"""

import re
import sys
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import board
import puzzles
from w2s import cli, files, protocol, stages


def main(
    run: str = "runs/chess/weak", *, out: str = "runs/chess/labels.jsonl", part: str = "1/1", device: str = None,
    dtype: str = None, force: bool = False,
):  # fmt: skip
    """Label the strong half, or a part of it, with one supervisor. Other options: cli.COMMON.

    Args:
        run: run directory of the supervisor
        out: the labels file to write
        part: k/n labels the k-th of n parts of the strong half, cut by game, so that every step of a chain has fresh puzzles
    """
    args = {name: value for name, value in locals().items() if name not in ("out", "force")}
    cli.check(args)
    match = re.fullmatch(r"([1-9]\d?)/([1-9]\d?)", part)
    if not match or int(match[1]) > int(match[2]):
        raise files.BadInput(f"--part={part} is not k/n with k from 1 to n, such as 1/2")
    (card,), taught = stages.supervisors([run], puzzles.STAGES)
    data = card["data"]
    inputs = {"runs": [card["model_sha256"]]} | data["sha256"]
    if files.is_done(out, args, inputs, force, labels=True):
        return
    k, n = int(match[1]), int(match[2])
    games = protocol.by_group(puzzles.half(data, "strong"), "parts")
    rows = [row for game in games[(k - 1) * len(games) // n : k * len(games) // n] for row in game]

    import moves

    if not rows:
        raise files.BadInput(
            f"--part={part}: the strong half has {len(games)} games, too few for so many parts"
        )
    for row, move in zip(
        rows, moves.play(f"{run}/model", rows, device=device, dtype=dtype, bar=run)
    ):
        row["weak"] = board.plain(move) or moves.NO_MOVE
    files.write_jsonl(
        out, rows, files.new_card("chess/label_chess", args, inputs, data) | {"supervisors": taught}
    )
    correct = sum(row["weak"] == row["target"] for row in rows) / len(rows)
    legal = sum(board.is_legal(row["fen"], row["weak"]) for row in rows) / len(rows)
    print(
        f"{out}: {len(rows)} puzzles, {correct:.1%} of the weak labels are right, {legal:.1%} are legal moves"
    )
    silent = sum(row["weak"] == moves.NO_MOVE for row in rows)
    if silent:
        print(f"warning: {run} names no move for {silent} of them; nobody learns from these")
    stages.tell_next(*stages.both("chess/train_chess.py", out))


if __name__ == "__main__":
    cli.run(main)
