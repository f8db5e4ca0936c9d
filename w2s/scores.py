"""Predictions of a run with their card and metrics, and the table of them; for who asks models."""

import json
from pathlib import Path

from w2s import files, leaks, parts, protocol, records, strict
from w2s.files import BadInput

WRITING = ("samples", "temperature", "top_p", "max_new")  # how a model writes texts


def place(run, card, data, split, how, judge=None):
    """(file of a run's predictions, what their card has as args, and as inputs).

    how: options that the answers depend on; judge: of texts that models write (judges.find).
    """
    file = Path(run) / "eval" / f"{protocol.name_of(data['ds'])}-{split}.jsonl"
    args = {"data": {k: data[k] for k in ("ds", "test", "sha256", "n_test")}, "split": split} | how
    judged = {"judge": judge["sha256"]} if judge else {}
    return file, args, {"model": card["model_sha256"]} | judged


def known(file, args, inputs):
    """The metrics of predictions of these arguments and this model, None if there are none.

    BadInput for this model's answers to other rows, given in another way or judged by another.
    """
    before, metrics_file = files.read_card(file), file.with_suffix(".metrics.json")
    if not (before or {}).get("finished") or before["inputs"]["model"] != inputs["model"]:
        return None
    for name in ("judge", *WRITING, "seed", "dtype"):
        values = [one.get(name) for one in (before["args"] | before["inputs"], args | inputs)]
        if values[0] != values[1]:
            told = f"answers with another {name} ({values[0]}, now {values[1]})"
            raise BadInput(f"{file} holds this model's {told}: add --force to replace them")
    if before["args"]["data"] != args["data"]:
        told = "answers to other rows (--ds, --test, --n_test): add --force to replace them"
        raise BadInput(f"{file} holds this model's {told}")
    whole = metrics_file.exists() and file.exists() and files.sha256(file) == before["sha256"]
    if before["args"] != args or not whole:
        return None
    print(f"{file} is already done; --force scores again")
    return strict.read(metrics_file, {"n": int, "low": float, "high": float})


def write(setting, file, args, inputs, data, rows, predictions, leak):
    """Write predictions on test rows, their card and metrics; the metrics are returned.

    leak: what the card says of leaks (leaks.inherited); the metrics say it too.
    """
    metrics = setting.measure(predictions, rows) | leak
    about = records.new_card("eval", setting, args, inputs, data) | leak
    # groups, by which pgr.py resamples, and which rows these are: predictions say neither
    of_rows = [[row[name] for name in ("id", setting.KEY, setting.TRUTH)] for row in rows]
    about |= {"test_groups": [row["group"] for row in rows]}
    about |= {"rows_sha256": files.hashed(json.dumps(of_rows)).hex()}
    told = file.with_suffix(".metrics.json"), json.dumps(metrics, indent=2) + "\n"
    files.write_jsonl(file, predictions, about, [told])
    parts.forget()
    print(file)
    return metrics


def show(metrics, metric="acc"):
    """The tables on the terminal; metrics: {run: those of one run}, `metric` the first of them."""
    width, name = max(32, *map(len, metrics)), "accuracy" if metric == "acc" else f"{metric:>8}"
    extra = ("legal", "precision", "recall", "f1", "ece", "max", "empty", "length")
    extra = [name for name in extra if all(name in one for one in metrics.values())]
    print(f"\n{'run':<{width}} {name}   95 % interval    rows", *(f"{x:>9}" for x in extra))
    for run, one in metrics.items():
        values = (one[name]["value"] for name in extra)
        told = "".join(f"{'-':>10}" if value is None else f"{value:10.3f}" for value in values)
        print(f"{run:<{width}} {as_text(one, metric)} {one['n']:6}{told}{leaks.mark(one)}")
    chance = [run for run, m in metrics.items() if "auroc" in m and m["low"] <= 0.5 <= m["high"]]
    if chance:
        what = "is at chance" if len(chance) == 1 else "are at chance"
        print(f"{', '.join(chance)} {what}: the model, --n_train or --n_test is too small")
    for run, one in metrics.items():
        for bucket in one.get("by_difficulty", []):
            name = f"{run}, difficulty {bucket['from']}"
            name += f" to {bucket['to']}" if bucket["to"] != bucket["from"] else ""
            print(f"{name:<{width}} {as_text(bucket)} {bucket['n']:6}")


def as_text(one, metric="acc"):
    """An accuracy, or another metric, and its interval."""
    return f"{one[metric]:8.3f}   {one['low']:.3f} to {one['high']:.3f} "
