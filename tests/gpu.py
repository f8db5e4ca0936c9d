"""Does a GPU compute what the CPU computes, and how fast? The parts print results/gpu.md.

    results/gpu.sh check     # and demo, real, bench, small, large; exit code 1: a check failed

Random weights in the shapes of real models, rows made on the spot: nothing comes from outside.
"""

import contextlib
import gc
import io
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
import torch
import transformers
from torch.nn.utils import parameters_to_vector
from transformers import AutoConfig, AutoModelForSequenceClassification

import bench
from w2s import checks, cli, lora, models, packing
from w2s.files import HERE, BadInput

# fmt: off
HEADS = {"num_attention_heads": 4, "num_hidden_layers": 2, "hidden_size": 128}
SIZE = HEADS | {"intermediate_size": 256}
GROUPED = SIZE | {"num_key_value_heads": 2}
WINDOW = GROUPED | {"sliding_window": 16}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 32}
FAMILIES = {
    "llama": GROUPED, "gemma3_text": WINDOW | LAYERS, "mistral": WINDOW, "qwen2": GROUPED,
    "gemma3_text, its own heads": WINDOW | LAYERS | {"head_dim": 256, "num_key_value_heads": 1},
    "qwen3": GROUPED | {"head_dim": 32}, "gpt_neox": SIZE, "phi": SIZE, "bert": SIZE,
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 2048},
    "opt": HEADS | {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "distilbert": {"dim": 128, "hidden_dim": 256, "n_layers": 2, "n_heads": 4},
}
LENGTHS = (1, 2, 3, 17, 64, 65, 300, 300, 300, 1000, 2000)
PIECES, AGAIN, COMPILE = {"micro_batch": 4}, {"checkpointing": True}, {"compile": True}
WAYS = {"again": {}, "micro-batches": PIECES, "checkpointing": AGAIN, "compiled": COMPILE}
WAITING = {"bf16, conf, pieces": PIECES | {"loss": "conf"}, "float32": {"dtype": "float32"}}
REAL, WHO = "minilm,smollm2-135m,gemma3-270m", ("weak", "student", "ceiling")
ON_CPU = {  # task: PGR of its rules on the CPU, the setting, supervisor and student
    "facts": ({"xent": 0.49, "conf": 0.84}, "texts", "facts/xs", "facts/m"),
    "facts_pairs": ({"xent": 0.41, "conf": 0.71}, "pairs", "facts/xs", "facts/m"),
    "puzzles": ({"xent": 0.46}, "moves", "chess/s", "chess/m"),
    "manners": ({"xent": -1.21}, "writing", "gen/xs", "gen/m"),
}
SIDES = {
    "ours, `--compile`": COMPILE, "ours": {}, "Trainer, padded": {"trainer": {}},
    "Trainer, by length": {"trainer": bench.GROUPED}, "scoring: ours": {"score": True},
    "scoring: Trainer": {"score": True, "trainer": {}, "batch_size": 64},
    "language model: ours, `--compile`": {"lm": True} | COMPILE,
    "language model: Trainer, by length": {"lm": True, "trainer": bench.GROUPED},
    "language model: Trainer, without padding": {"lm": True, "trainer": bench.FLAT},
} | (
    {"language model: TRL's, without padding": {"lm": True, "trainer": bench.TRL}}
    if find_spec("trl") else {}
)
LARGE = {
    "rank 16, `--checkpointing`": {"rank": 16} | AGAIN, "all weights, `--checkpointing`": AGAIN,
    "rank 16, `--micro_batch=8`": {"rank": 16, "micro_batch": 8},
}
TOY, WORK = {x: SIDES[x] for x in ("ours", "Trainer, padded")}, {20: 640, 200: 320}
PLANS = {  # [(shape, {mean length: rows}, sides)]
    "bench": [("qwen-1.5b", WORK, SIDES)], "small": [("qwen-0.5b", WORK, SIDES)],
    "large": [("qwen-7b", {200: 256}, LARGE)], "toy": [("tiny", {12: 8}, TOY)],
}
# fmt: on
TABLE = []  # the lines of this part


def main(
    *parts: str, out: str = "runs/gpu", device: str = None, seconds: int = 150, toy: bool = False
):
    """Run parts and print their lines of results/gpu.md; toy: so small that a CPU can try it;
    seconds: of bench, small and large, after which nothing new begins."""
    functions = {"check": check, "demo": demo, "real": real}
    functions |= dict.fromkeys(("bench", "small", "large"), speed)
    if not parts or not set(parts) <= set(functions):
        raise BadInput(f"the parts are {', '.join(functions)}: give one or several")
    device, failed = models.pick_device(device), False
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    Path(out).mkdir(parents=True, exist_ok=True)
    for part in parts:
        TABLE.clear()
        began = time.monotonic()
        tell(f"## {part}\n\n{where}, {versions}")
        functions[part](device, toy, PLANS.get(part), began + seconds)
        tell(f"\n{time.monotonic() - began:.0f} s, imports left out\n")
        Path(out, f"{part}.md").write_text("\n".join(TABLE) + "\n")
        failed |= any("FAILED" in line for line in TABLE)
    sys.exit(int(failed))


def tell(line):
    """Print a line of the tables, and keep it."""
    print(line, flush=True)
    TABLE.append(line)


def head(*columns):
    """Begin a table."""
    tell(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(*cells):
    """A line of a table; a bool is a verdict."""
    cells = (("ok" if c else "FAILED") if isinstance(c, bool) else c for c in cells)
    tell(f"| {' | '.join(cells)} |")


@contextlib.contextmanager
def survived(name):
    """Errors become a line of the table: a visit to a GPU is short, and the rest goes on."""
    try:
        yield
    except torch.OutOfMemoryError:
        row(name, "out of memory")
    except Exception as error:
        row(name, f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:200]}")


def far(a, b):
    """Relative distance of two tensors."""
    return ((a - b).norm() / b.norm()).item()


def check(device, toy, *_):
    """Packed against padded, one training in many ways, and where steps wait."""
    columns = "float32", "gradient", "bf16", "padded", "bf16, gradient", "padded"
    head("relative error", "packed", "kernel", *columns, "")
    for name in list(FAMILIES)[: 2 if toy else None]:
        with survived(name):
            row(name, *packed_or_padded(name, device, LENGTHS[: 6 if toy else None]))
    for dtype in ("float32",) if toy else ("float32", "bf16"):
        ways(device, dtype, 2 if toy else 12)
    if device.type == "cuda":
        waiting(device)


def classifier(name, device):
    """A classifier of FAMILIES with weights so large that a leak between texts would show."""
    torch.manual_seed(0)
    family = name.split(",")[0]
    config = AutoConfig.for_model(family, vocab_size=512, pad_token_id=0, **FAMILIES[name])
    models.settle(config, 2)
    config.max_position_embeddings = 2048
    with torch.device(device):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        for p in model.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=1.5 / p.shape[-1] ** 0.5)
    models.fuse_norms(model)
    model.w2s = {"packed": checks.can_pack(model)}
    return model


def packed_or_padded(name, device, lengths):
    """Cells of a family: relative errors of logits and gradients against padded float64."""
    model = classifier(name, device)
    tokens = [torch.randint(1, 512, (n,)).tolist() for n in lengths]
    packed, kernel = model.w2s["packed"], getattr(model, "varlen", False)

    def run(pack, bf16=False):
        model.set_attn_implementation("packed" if pack else "sdpa")
        model.w2s["packed"] = pack
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = packing.logits(model, tokens)
        out.square().sum().sqrt().backward()
        grads = [p.grad.double().flatten() for p in model.parameters() if p.grad is not None]
        return out.detach().double(), torch.cat(grads)

    runs = run(packed), run(packed, True), run(False, True)
    model.double()
    wanted = run(False)
    (logits, grads), *halves = [[far(a, b) for a, b in zip(got, wanted)] for got in runs]
    good = logits < 1e-4 and grads < 1e-3
    good = good and all(mine < 3 * theirs + 5e-3 for mine, theirs in zip(*halves))
    told = [f"{x:.1e}" for x in (logits, grads, *(x for pair in zip(*halves) for x in pair))]
    return "yes" if packed else "no", "yes" if kernel else "no", *told, good


def ways(device, dtype, steps):
    """One training in many ways: how far the weights end from each other."""
    head(f"{steps} steps in {dtype}", "weights apart, in units of what they moved", "")
    rows = bench.make_rows(steps * 16, 40, 400)

    def end(loss, rank=None, rows=rows, **more):
        model = bench.make_model("tiny", device)
        lora.add(model, rank, dtype)
        before = parameters_to_vector(model.parameters()).detach().double()
        bench.train(model, rows, loss, batch_size=16, dtype=dtype, **more)
        return model, parameters_to_vector(model.parameters()).detach().double() - before

    for loss in ("xent", "conf")[: 1 if steps == 2 else None]:
        plain = end(loss)[1]
        with survived(f"{loss}, stopped halfway"):
            apart = far(gone_on(end, loss, steps // 2), plain)
            row(f"{loss}, stopped halfway and gone on", f"{apart:.1e}", apart == 0)
        if device.type == "cuda":
            with survived(f"{loss}, short memory"):
                apart, short = in_less(end, loss)
                good = short and apart < {"float32": 0.02, "bf16": 0.3}[dtype]
                row(f"{loss}, in 0.7 of the memory", f"{apart:.1e}", good)
        for name, more in WAYS.items():
            if name == "compiled" and (loss, dtype, device.type) != ("xent", "bf16", "cuda"):
                continue  # takes a while; it is for large models
            with survived(f"{loss}, {name}"):
                apart = far(end(loss, **more)[1], plain)
                row(
                    f"{loss}, {name}", f"{apart:.1e}", apart < {"float32": 0.02, "bf16": 0.3}[dtype]
                )
    with survived("low-rank terms"):
        model, tokens = end("xent", rank=4)[0], [x["tokens"] for x in rows]
        unmerged = models.predict(model, tokens, dtype)
        lora.merge(model)
        apart = far(models.predict(model, tokens, dtype), unmerged)
        row("low-rank terms: logits, merged", f"{apart:.1e}", apart < 0.03)


def gone_on(end, loss, step):
    """What a training moves that is stopped at this step and called again."""
    steps = itertools.count()

    def stops(model, rows):
        if next(steps) == step:
            raise KeyboardInterrupt
        return packing.row_logits(model, rows)

    with tempfile.TemporaryDirectory() as folder:
        how = {"resume": f"{folder}/state.safetensors", "save_every": 1e-9}
        with contextlib.suppress(KeyboardInterrupt):
            end(loss, outputs=stops, **how)
        return end(loss, **how)[1]


def in_less(end, loss):
    """How far a training ends off that gets 0.7 of the GPU's memory it takes; was that told?"""
    long = bench.make_rows(64, 900, 400)  # else most of it is cuBLAS's, which never gets less
    torch.cuda.reset_peak_memory_stats()
    plain = end(loss, rows=long)[1]
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties().total_memory
    torch.cuda.set_per_process_memory_fraction(0.7 * torch.cuda.max_memory_allocated() / whole)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            return far(end(loss, rows=long)[1], plain), "memory was short" in said.getvalue()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def waiting(device):
    """Where steps wait for the GPU: all that torch warns of. Eight times the loss is read."""
    head("32 steps", "waits for the GPU", "where")
    rows = bench.make_rows(32 * 16, 40, 400)
    for name, more in WAITING.items():
        model = bench.make_model("tiny", device)
        bench.train(model, rows[:64], batch_size=16, **more)
        with warnings.catch_warnings(record=True) as caught, survived(name):
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            bench.train(model, rows, batch_size=16, **more)
        torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in caught if "synchron" in str(w.message)]
        row(
            name, str(len(waits)), ", ".join({f"{Path(w.filename).name}:{w.lineno}" for w in waits})
        )


def demo(device, *_):
    """A grid of each setting, three seeds, side by side: the CPU's PGR must lie in the interval."""
    jobs = 4 if device.type == "cuda" else 1

    def grid(ds):
        on_cpu, _, weak, strong = ON_CPU[ds]
        words = f"--ds={ds}", f"--weak={weak}", f"--strong={strong}", f"--loss={','.join(on_cpu)}"
        words = *words, "--seeds=3", f"--jobs={jobs}", f"--out=runs/gpu/{ds}"
        script("sweep.py", *words, f"--device={device.type}")  # else so small a model is on the CPU

    with ThreadPoolExecutor() as pool:
        list(pool.map(grid, ON_CPU))
    head("a grid's PGR", "rule", "on the GPU", "on the CPU", "")
    for ds, (on_cpu, setting, *_) in ON_CPU.items():
        for name, wanted in on_cpu.items():
            with survived(f"{ds}, {name}"):
                found = {cell["rule"]: cell["pgr"] for cell in cells_of(f"runs/gpu/{ds}", setting)}
                value, low, high = (found[name][key] for key in ("value", "low", "high"))
                told = f"{value:.2f} [{low:.2f}, {high:.2f}]"
                row(ds, name, told, f"{wanted}", low <= wanted <= high)


def script(*words):
    """Run a script of this repository; its tables go to stderr."""
    subprocess.run([sys.executable, *words], cwd=HERE, stdout=sys.stderr)


def cells_of(folder, setting="texts"):
    """The estimates of a grid of a setting, one of each pair and rule."""
    return json.loads((HERE / folder / "pgr.json").read_text())["sections"][setting]["cells"]


def real(device, toy, *_):
    """A task of the record with the models that lie beside the scripts (see results/real.md)."""
    ds, three = ("facts", "facts/xs,facts/s,facts/m") if toy else ("sst2", REAL)
    folder = Path("runs/gpu/real_toy" if toy else "runs/gpu/real")
    if toy:  # what is there would not be done again
        shutil.rmtree(HERE / folder, ignore_errors=True)
    n = 200 if toy else 2000
    how = f"--ds={ds}", f"--models={three}", f"--seeds={1 if toy else 3}", f"--n_train={n}"
    how = *how, f"--n_test={n}"
    where = f"--device={device.type}", f"--jobs={1 if toy else 12}"
    script("results/record.py", "--parts=nlp", f"--out={folder}", *how, *where)
    script("sweep.py", "--loss=xent,conf", f"--out={folder}/nlp", *how)
    head(f"{ds}, PGR with 95 % intervals", "rule", "weak", "student", "ceiling", "PGR")
    for cell in cells_of(folder / "nlp"):
        ones = *(cell[x] | {"value": cell[x]["acc"]} for x in WHO), cell["pgr"]
        told = "{value:.3f} [{low:.3f}, {high:.3f}]"
        told = [told.format(**x) if x["value"] is not None else "undefined" for x in ones]
        row(f"{cell['supervisor']} -> {cell['strong']}", cell["rule"], *told)


def speed(device, toy, plan, until):
    """A line for every shape, side and mean length; a Trainer out of memory takes 8 at a time."""
    for shape, work, sides in PLANS["toy"] if toy else plan:
        rate, first = bench.matmul_rate(device), {}
        tell(f"\nbf16 matrix products: {rate / 1e12:.3g} TFLOP/s")
        head(shape, "rows/s", "tokens/s", "share of the bf16 rate", "beside the first", "GB")
        for side, mean in itertools.product(sides, work):
            how, n = sides[side], work[mean]
            for name in (f"{side}, mean {mean}", f"{side}, mean {mean}, 8 at a time"):
                if time.monotonic() > until:
                    row(name, "not measured: no time left")
                    break
                with survived(name):
                    cells, ours = measure(shape, device, how, mean, n, rate)
                    beside = ours / first.setdefault((how.get("score"), how.get("lm"), mean), ours)
                    row(name, *cells[:3], f"{beside:.2f}x", cells[3])
                    break
                if "trainer" not in how or how.get("score"):
                    break
                how = how | {"per_device": 8}


def measure(shape, device, how, mean, n, rate):
    """(cells of a line, rows a second) of one run on n rows, after a warm-up on others."""
    gc.collect()  # the model before
    torch.cuda.empty_cache()
    run, model = runner(shape, device, **how)
    vocabulary = bench.SHAPES[shape]["vocab_size"]
    run(bench.make_rows(min(n, 128), mean, vocabulary))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rows = bench.make_rows(n, mean, vocabulary, 1)
    seconds = bench.clock(device, lambda: run(rows))
    tokens = sum(len(x["tokens"]) for x in rows) / seconds
    # a language model multiplies by its embedding where that is its last matrix too
    tied = getattr(model.get_output_embeddings(), "weight", None)
    tables = (m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding))
    matrices = model.num_parameters() - sum(w.numel() for w in tables if w is not tied)
    share = (2 if how.get("score") else 4 if how.get("rank") else 6) * matrices * tokens / rate
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0
    return [f"{n / seconds:.1f}", f"{tokens:.0f}", f"{share:.1%}", f"{peak:.1f}"], n / seconds


def runner(shape, device, trainer=None, per_device=None, score=False, lm=False, rank=None, **how):
    """(function of rows that is one run, its model)."""
    if trainer is not None:
        theirs = bench.trainer(shape, device, lm, per_device=per_device, **how, **trainer)

        def run(rows):
            theirs.train_dataset = rows
            return theirs.predict(rows) if score else theirs.train()

        return run, theirs.model
    model = bench.make_model(shape, device, lm=lm)
    lora.add(model, rank, "bf16")
    if score:
        return lambda rows: models.predict(model, [x["tokens"] for x in rows], "bf16"), model
    return lambda rows: bench.train(model, rows, **how), model


if __name__ == "__main__":
    cli.run(main)
