"""Does a GPU compute what the CPU computes, and how fast? results/gpu.sh runs the parts; results/gpu.md is what they print.

    python results/gpu.py check            # or bench, large; --toy: tiny shapes, for a test on the CPU

Random weights in the shapes of real models, rows made on the spot: nothing comes from outside. Exit code 1: a check failed.
"""

import contextlib
import gc
import json
import math
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path += [str(HERE / folder) for folder in (".", "nlp", "facts", "rm", "chess")]

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

import bench
from w2s import cli, lm, loop, losses, models, packing

HEADS = {"num_attention_heads": 4, "num_hidden_layers": 2, "hidden_size": 128}
SIZE = HEADS | {"intermediate_size": 256}
GROUPED = SIZE | {"num_key_value_heads": 2}
FAMILIES = {
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 2048},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 32},
    "gemma3_text": GROUPED
    | {"head_dim": 32, "sliding_window": 16}
    | {"layer_types": ["sliding_attention", "full_attention"]},
    "mistral": GROUPED | {"sliding_window": 16},
    "gpt_neox": SIZE,
    "opt": HEADS | {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "phi": SIZE,
    "bert": SIZE,
    "distilbert": {"dim": 128, "hidden_dim": 256, "n_layers": 2, "n_heads": 4},
}
LENGTHS = (1, 2, 3, 17, 64, 65, 300, 300, 300, 1000, 2000)
# PGR of the naive and the confident student of `python demo.py` on the CPU; of pairs and moves, naive (rm.md, chess.md)
ON_CPU = {"naive": 0.49, "conf": 0.84, "facts_pairs": 0.41, "puzzles": 0.25}
TABLE = []  # the lines of this part


def main(part: str, *, out: str = "runs/gpu", device: str = None, toy: bool = False):
    """Run one part and print its lines of results/gpu.md.

    Args:
        part: check, demo, bench or large
        out: the folder for the tables
        toy: tiny shapes and few steps, so that a CPU can try it
    """
    parts = {"check": check, "demo": end_to_end, "bench": speed, "large": large}
    if part not in parts:
        raise cli.BadInput(f"{part} is no part: {', '.join(parts)}")
    device, began = models.pick_device(device), time.monotonic()
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    tell(f"## {part}\n\n{where}, {versions}, `results/gpu.sh {part}{' --toy' if toy else ''}`")
    parts[part](device, toy)
    tell(f"\n{time.monotonic() - began:.0f} s for this part, imports left out")
    Path(out).mkdir(parents=True, exist_ok=True)
    Path(out, f"{part}.md").write_text("\n".join(TABLE) + "\n")
    if any("FAILED" in line for line in TABLE):
        sys.exit(1)


def tell(line):
    """Print a line of the tables, and keep it."""
    print(line, flush=True)
    TABLE.append(line)


def head(*columns):
    """Begin a table."""
    tell(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(*cells):
    """A line of a table; a bool is a verdict."""
    tell(
        f"| {' | '.join(('ok' if c else 'FAILED') if isinstance(c, bool) else c for c in cells)} |"
    )


@contextlib.contextmanager
def survived(*cells):
    """Errors become a line of the table, so that one of them does not cost the rest of a short visit to a GPU."""
    try:
        yield
    except torch.OutOfMemoryError:
        row(*cells, "out of memory")
    except Exception as error:
        traceback.print_exc()
        row(*cells, f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
    free()


def free():
    """Give back the memory of models that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- check


def check(device, toy):
    """Packed against padded, one training cut in many ways, waiting, the settings end to end."""
    head(
        "family",
        "packed",
        "kernel",
        "float32",
        "its gradient",
        "bf16",
        "padded",
        "gradient",
        "padded",
        "",
    )
    for name in FAMILIES:
        with survived(name):
            row(name, *packed_or_padded(name, device, LENGTHS[: 6 if toy else None]))
    for dtype in ("float32", "bf16"):
        ways(device, dtype, 8 if toy else 24)
    if device.type == "cuda":
        waiting(device)


def classifier(name, device):
    """A classifier of FAMILIES with weights so large that a leak between texts would show."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "num_labels": 2, "pad_token_id": 0, "use_cache": False}
    if name not in ("gpt2", "distilbert"):
        sizes["max_position_embeddings"] = 2048
    config = AutoConfig.for_model(name, **sizes, **FAMILIES[name])
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    if name == "distilbert":
        config.max_position_embeddings = 2048
    with torch.device(device):
        net = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        for p in net.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=1.5 / p.shape[-1] ** 0.5)
    net.w2s = {"max_len": 2048, "head": "new", "packed": False}
    net.w2s["packed"] = models.can_pack(net)
    return net


def packed_or_padded(name, device, lengths):
    """Cells of a family: relative errors of logits and gradients against padded float64."""
    net, packed = classifier(name, device), None
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(1, 512, (n,), generator=generator).tolist() for n in lengths]

    def run(pack, bf16=False):
        net.set_attn_implementation("packed" if pack else "sdpa")
        net.w2s["packed"] = pack
        net.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = packing.logits(net, tokens)
        out.square().sum().sqrt().backward()
        grads = [p.grad.double().flatten() for p in net.parameters() if p.grad is not None]
        return out.detach().double(), torch.cat(grads)

    packed, kernel = net.w2s["packed"], net.w2s.get("varlen", False)
    exact, half, padded_half = run(packed), run(packed, True), run(False, True)
    net.double()
    wanted = run(False)
    error = [[far(a, b) for a, b in zip(got, wanted)] for got in (exact, half, padded_half)]
    good = (
        error[0][0] < 1e-4
        and error[0][1] < 1e-3
        and all(mine < 3 * theirs + 5e-3 for mine, theirs in zip(error[1], error[2]))
    )
    told = [f"{x:.1e}" for x in (*error[0], error[1][0], error[2][0], error[1][1], error[2][1])]
    return "yes" if packed else "no", "yes" if kernel else "no", *told, good


def far(a, b):
    """Relative distance of two tensors."""
    return ((a - b).norm() / b.norm()).item()


def weights(net):
    """All weights in one vector of float64 on the CPU."""
    return torch.cat([p.detach().double().cpu().flatten() for p in net.parameters()])


def train(net, rows, loss="xent", **options):
    """Our loop on rows with "tokens" and "weak", or, of a language model, "tokens" alone."""
    options = {"epochs": 1, "batch_size": 32, "name": "ours"} | options
    if net.get_output_embeddings():
        return lm.fit(net, rows, **options)
    return loop.fit(net, rows, "weak", **losses.LOSSES[loss], **options)


def ways(device, dtype, steps):
    """One training whole, again, in micro-batches, with checkpointing and compiled: how far the weights end from each other."""
    head(f"{steps} steps in {dtype}", "weights apart, in units of what they moved", "")
    rows = bench.make_rows(steps * 16, 40, 400)
    options = {"batch_size": 16, "dtype": dtype, "lr": 1e-4}
    kinds = {
        "again": {},
        "micro-batches of 4": {"micro_batch": 4},
        "checkpointing": {"checkpointing": True},
        "compiled": {"compile": True},
    }

    def end(loss, **more):
        net = bench.make_model("tiny", device)
        before = weights(net)
        train(net, rows, loss, **options, **more)
        return before, weights(net)

    for loss in ("xent", "conf"):
        before, plain = end(loss)
        for name, more in kinds.items():
            if name == "compiled" and (dtype == "float32" or device.type == "cpu"):
                continue
            with survived(f"{loss}, {name}"):
                apart = ((end(loss, **more)[1] - plain).norm() / (plain - before).norm()).item()
                row(
                    f"{loss}, {name}", f"{apart:.1e}", apart < (0.02 if dtype == "float32" else 0.3)
                )
    with survived("low-rank terms, merged"):
        row(
            "low-rank terms, merged against unmerged logits",
            *low_rank(device, dtype, rows, options),
        )


def low_rank(device, dtype, rows, options):
    """Cells of LoRA: logits before and after merging."""
    net, tokens = bench.make_model("tiny", device), [r["tokens"] for r in rows[:64]]
    models.add_lora(net, 4, dtype)
    train(net, rows, **options | {"lr": 1e-2})
    before = models.predict(net, tokens, dtype)
    models.merge_lora(net)
    apart = far(models.predict(net, tokens, dtype), before)
    return f"{apart:.1e}", apart < (1e-4 if dtype == "float32" else 0.03)


def waiting(device):
    """Where a step waits for the GPU: everything that torch warns of, eight means of the loss an epoch are expected."""
    head("32 steps in", "waits for the GPU", "where")
    rows = bench.make_rows(32 * 16, 40, 400)
    for name, more in {
        "bf16, xent": {},
        "bf16, conf": {"loss": "conf"},
        "bf16, conf, micro-batches": {"loss": "conf", "micro_batch": 4},
        "float32, xent": {"dtype": "float32"},
        "bf16, xent, checkpointing": {"checkpointing": True},
    }.items():
        net = bench.make_model("tiny", device)
        train(net, rows[:64], **{"batch_size": 16, "dtype": "bf16"} | more)
        with warnings.catch_warnings(record=True) as caught, survived(name):
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            train(net, rows, **{"batch_size": 16, "dtype": "bf16"} | more)
        torch.cuda.set_sync_debug_mode("default")
        places = Counter(
            f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchron" in str(w.message)
        )
        told = ", ".join(f"{place} {count}x" for place, count in places.most_common(6))
        row(name, str(places.total()), told or "nowhere")


def end_to_end(device, toy):
    """python demo.py, and one seed of pairs and of moves: the CPU's PGR must lie in the interval."""
    began, out = time.monotonic(), Path("runs/demo")
    done = subprocess.run([sys.executable, "demo.py"], cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:])
    head("end to end", "weak", "student", "ceiling", "PGR", "PGR on the CPU", "")
    for student in ("naive", "conf"):
        with survived(f"facts, {student}"):
            row(f"facts, {student}", *recovered(HERE / out / f"{student}.json", ON_CPU[student]))
    tell(f"\n`python demo.py`: {time.monotonic() - began:.1f} s\n")


def recovered(file, wanted):
    """Cells of a PGR file."""
    told = json.loads(Path(file).read_text())
    low, high = told["pgr"]["low"], told["pgr"]["high"]
    accuracies = [f"{told[run]['acc']:.3f}" for run in ("weak", "student", "ceiling")]
    pgr = f"{told['pgr']['value']:.2f} [{low:.2f}, {high:.2f}]"
    return *accuracies, pgr, f"{wanted}", low <= wanted <= high


# ---- bench


def speed(device, toy):
    """Ours beside the Trainer: training, scoring and language modelling."""
    shapes = ["tiny"] if toy else ["qwen-0.5b", "qwen-1.5b"]
    means = [12] if toy else [20, 200]
    steps = {12: 4, 20: 40, 200: 16}
    rate = bench.matmul_rate(device)
    tell(f"\nbf16 matrix products: {rate / 1e12:.3g} TFLOP/s")
    for shape in shapes:
        head(shape, "rows/s", "tokens/s", "share of the bf16 rate", "against ours", "GB")
        ours = {}
        for side, how in SIDES.items():
            if device.type == "cpu" and how.get("compile"):
                continue
            with survived(side):
                one_side(shape, device, side, how, means, steps, rate, ours)


GROUP = {"train_sampling_strategy": "group_by_length"}
SIDES = {
    "ours": {},
    "ours, compiled": {"compile": True},
    "Trainer, padded": {"trainer": {}},
    "Trainer, padded, 8 at a time": {"trainer": {"per_device": 8}},
    "Trainer, by length": {"trainer": GROUP},
    "Trainer, by length, 8 at a time": {"trainer": GROUP | {"per_device": 8}},
    "scoring: ours": {"score": True},
    "scoring: Trainer": {"score": True, "trainer": {}, "batch_size": 64},
    "language model: ours": {"lm": True},
    "language model: Trainer, by length, 8 at a time": {
        "lm": True,
        "trainer": GROUP | {"per_device": 8},
    },
}


def one_side(shape, device, side, how, means, steps, rate, ours):
    """The lines of one side, a line for each mean length; `ours` keeps the rows a second of our own."""
    run, net = runner(shape, device, **how)
    kind = (how.get("score", False), how.get("lm", False))
    for mean in means:
        with survived(f"{side}, mean {mean}"):
            n, vocabulary = 32 * steps[mean], bench.SHAPES[shape]["vocab_size"]
            run(bench.make_rows(128 if not how.get("score") else n, mean, vocabulary))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times, tokens = [], 0
            for repeat in (1, 2):
                rows = bench.make_rows(n, mean, vocabulary, repeat)
                times.append(bench.clock(device, lambda rows=rows: run(rows)))
                tokens += sum(len(r["tokens"]) for r in rows)
            speed = 2 * n / sum(times)
            ours.setdefault((*kind, mean), speed)
            share = (2 if how.get("score") else 6) * matrices(net) * tokens / sum(times) / rate
            memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else math.nan
            told = f"{speed:.1f}", f"{tokens / sum(times):.0f}", f"{share:.1%}"
            row(f"{side}, mean {mean}", *told, f"{speed / ours[*kind, mean]:.2f}x", f"{memory:.1f}")


def matrices(net):
    """Parameters that are multiplied by: all but the token embedding, which a language model uses as its last matrix."""
    tied = getattr(net.get_output_embeddings(), "weight", None)
    tables = (m.weight for m in net.modules() if isinstance(m, torch.nn.Embedding))
    return net.num_parameters() - sum(w.numel() for w in tables if w is not tied)


def runner(shape, device, trainer=None, score=False, **how):
    """(function of rows that is one run, its model)."""
    if trainer is not None:
        theirs = bench.trainer(shape, device, how.pop("lm", False), **how, **trainer)

        def run(rows):
            theirs.train_dataset = rows
            return theirs.predict(rows) if score else theirs.train()

        return run, theirs.model
    net = bench.make_model(shape, device, lm=how.pop("lm", False))
    if score:
        return lambda rows: models.predict(net, [r["tokens"] for r in rows], "bf16"), net
    return lambda rows: train(net, rows, dtype="bf16", **how), net


# ---- large


def large(device, toy):
    """A 7B shape: low-rank terms, with and without recomputed activations; full fine-tuning where 130 GB are there."""
    shape, mean, n = ("tiny", 12, 64) if toy else ("qwen-7b", 200, 32 * 6)
    rate = bench.matmul_rate(device)
    room = torch.cuda.mem_get_info()[1] / 1e9 if device.type == "cuda" else 0
    head(shape, "rows/s", "tokens/s", "share of the bf16 rate", "GB")
    for name, lora, more in (
        ("rank 16, checkpointing", 16, {"checkpointing": True}),
        ("rank 16, micro-batches of 8", 16, {"micro_batch": 8}),
        ("all weights, checkpointing", None, {"checkpointing": True}),
    ):
        if lora is None and room < 130 and not toy:
            row(name, "needs 130 GB", "", "", "")
            continue
        with survived(name):
            net = bench.make_model(shape, device)
            size = matrices(net)
            models.add_lora(net, lora, "bf16")
            rows = bench.make_rows(n, mean, bench.SHAPES[shape]["vocab_size"])
            train(net, rows[:32], dtype="bf16", **more)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = bench.clock(
                device, lambda net=net, rows=rows, more=more: train(net, rows, dtype="bf16", **more)
            )
            rate_of_tokens = sum(len(r["tokens"]) for r in rows) / seconds
            share = (4 if lora else 6) * size * rate_of_tokens / rate
            memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else math.nan
            row(
                name, f"{n / seconds:.1f}", f"{rate_of_tokens:.0f}", f"{share:.1%}", f"{memory:.1f}"
            )
            net = None


if __name__ == "__main__":
    cli.run(main)
