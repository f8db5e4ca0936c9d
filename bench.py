"""How fast is the loop? Ours and Hugging Face's Trainer on the same model and rows, on a CPU.

    python bench.py                                         # training; 2 cores: three minutes
    python bench.py generative --mean=100 --repeats=5       # or score, memory, linear
    python bench.py tiny --shape=tiny --mean=12 --steps=50

Models have random weights in the shape of real ones. Each side runs in a process of its own; every
figure is the median of repeats in turns. "share" is 6 (scoring: 2) x non-embedding parameters x
real tokens a second by the bf16 matrix product rate, measured right before. "held" is what autograd
keeps for the backward pass at its peak. results/gpu.py measures a GPU.
"""

import functools
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from w2s import cli
from w2s.files import BadInput

SIZES = ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size")
SIZES += ("num_attention_heads", "num_key_value_heads", "vocab_size")
SHAPES = {
    "tiny": dict(zip(SIZES, ("llama", 3, 64, 256, 4, 4, 400))),
    "qwen-0.5b": dict(zip(SIZES, ("qwen2", 24, 896, 4864, 14, 2, 151936))),
    "qwen-1.5b": dict(zip(SIZES, ("qwen2", 28, 1536, 8960, 12, 2, 151936))),
    "qwen-7b": dict(zip(SIZES, ("qwen2", 28, 3584, 18944, 28, 4, 151936))),
    "gpt2-6x384": dict(model_type="gpt2", n_layer=6, n_embd=384, n_head=6, vocab_size=50257),
}
GROUPED = {"train_sampling_strategy": "group_by_length"}
SIDES = {  # trainer: Hugging Face's, with these arguments
    ("train", "ours"): {},
    ("train", "HF Trainer, padded"): {"trainer": {}},
    ("train", "HF Trainer, accumulate 1 at a time"): {"trainer": {"per_device": 1}},
    ("train", "HF Trainer, group by length"): {"trainer": GROUPED},
    ("generative", "ours"): {"lm": True},
    ("generative", "HF Trainer, group by length"): {"lm": True, "trainer": GROUPED},
    ("score", "ours"): {},
    ("score", "HF Trainer.predict, batch 64"): {"trainer": {"batch_size": 64}},
    ("tiny", "ours"): {"dtype": None},
    ("tiny", "one sequence at a time, bf16"): {"looped": True},
}
CPU = torch.device("cpu")


def main(
    part: str = "train", *, mean: int = 20, shape: str = "gpt2-6x384", repeats: int = 3,
    steps: int = 20,
):  # fmt: skip
    """Print speed, share of the matrix product rate and memory of our loop and of HF Trainer's.

    Args:
        part: train, generative, score, tiny, memory or linear
        mean: length of the texts in tokens
        shape: gpt2-6x384, tiny, qwen-0.5b, qwen-1.5b or qwen-7b
        repeats: interleaved repeats whose median is printed
        steps: batches in a timed run of 20-token rows; longer texts have fewer
    """
    cli.check({"repeats": repeats, "steps": steps})
    if shape not in SHAPES:
        raise BadInput(f"there is no shape {shape}{cli.nearest(shape, SHAPES)}")
    print(f"{shape}, {torch.get_num_threads()} threads, torch {torch.__version__}, {repeats=}")
    if part in ("train", "generative", "score", "tiny"):
        table(part, repeats, shape, 32 * max(1, steps * 20 // max(mean, 20)), mean)
    elif part == "memory":
        micro_batches(shape, mean, repeats)
    elif part == "linear":
        linear()
    else:
        raise BadInput(f"no part {part}: train, generative, score, tiny, memory, linear")


def make_model(shape, device, packed=True, lm=False):
    """A 2-way classifier, or a language model, with random weights, as models.load gives it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from w2s import checks, models

    torch.manual_seed(0)
    config = AutoConfig.for_model(**SHAPES[shape], pad_token_id=0)
    models.settle(config, 2)
    auto = AutoModelForCausalLM if lm else AutoModelForSequenceClassification
    with torch.device(device):
        model = auto.from_config(config, dtype=torch.float32)
    model.w2s = {"max_len": 1024, "packed": False, "parameters": model.num_parameters()}
    if packed:
        models.fuse_gelu(model)
        if device.type == "cuda":
            models.fuse_norms(model)
        models.keep_freed_memory()
        model.w2s["packed"] = checks.can_pack(model)
    return model


def make_rows(n, mean, vocabulary, seed=0):
    """n rows of 3 to 1,000 Zipf-distributed tokens ("input_ids" to the Trainer), sigma 0.6."""
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = 1 / (np.arange(vocabulary) + 2.7)
    lengths = rng.lognormal(np.log(mean) - 0.6**2 / 2, 0.6, n).round().clip(3, 1000).astype(int)
    drawn = rng.choice(vocabulary, lengths.sum(), p=weights / weights.sum())
    tokens = np.random.default_rng(0).permutation(vocabulary)[drawn]
    texts = [text.tolist() for text in np.split(tokens, lengths.cumsum()[:-1])]
    labels = [{"label": int(rng.integers(2)), "given": rng.random()} for _ in texts]
    return [x | {"tokens": text, "input_ids": text} for text, x in zip(texts, labels)]


def train(model, rows, loss="xent", dtype="bf16", batch_size=32, **options):
    """One epoch of our loop."""
    from w2s import loop, losses
    from w2s.lm import nll, share_of_loss, shares

    options |= loop.resolve(model, dtype=dtype) | losses.LOSSES[loss]
    if model.get_output_embeddings():
        rows = shares(rows)
        options |= {"loss": share_of_loss, "outputs": nll, "whole_batch": False}
    loop.fit(model, rows, epochs=1, batch_size=batch_size, name="ours", **options)


def trainer(shape, device, lm, batch_size=32, per_device=None, **how):
    """Hugging Face's for one epoch: bf16 autocast, fused AdamW, padded to a batch's longest."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    def collate(batch):
        ids = [torch.tensor(row["input_ids"]) for row in batch]
        mask = [torch.ones_like(text) for text in ids]
        ids, mask = (torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (ids, mask))
        labels = torch.tensor([row["label"] for row in batch])
        labels = ids.masked_fill(mask == 0, -100) if lm else labels
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    per_device = per_device or batch_size
    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=per_device,
        learning_rate=5e-5, gradient_accumulation_steps=batch_size // per_device, bf16=True,
        per_device_eval_batch_size=batch_size, use_cpu=device.type == "cpu", save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
        optim="adamw_torch_fused", **how,
    )  # fmt: skip
    theirs = Trainer(make_model(shape, device, False, lm), args, data_collator=collate)
    theirs.remove_callback(PrinterCallback)
    return theirs


@functools.cache
def side(part, name, shape):
    """(function of rows that is one run of a side, its model), once in the process of that side."""
    from w2s import models, packing

    options = dict(SIDES[part, name])
    how, lm = options.pop("trainer", None), options.pop("lm", False)
    if how is not None:
        theirs = trainer(shape, CPU, lm, **how)

        def run(rows):
            theirs.train_dataset = rows
            return theirs.predict(rows) if part == "score" else theirs.train()

        return run, theirs.model
    model = make_model(shape, CPU, lm=lm)
    if options.pop("looped", False):  # what groups() is there to avoid
        group = packing.groups
        packing.groups = lambda lengths, *how: [group([length], *how)[0] for length in lengths]
    if part == "score":
        return lambda rows: models.predict(model, [x["tokens"] for x in rows], "bf16"), model
    return lambda rows: train(model, rows, **options), model


def measure(part, name, repeat, shape, n, mean):
    """(seconds, tokens/s, share of the matrix product rate, that rate, bytes held) of one run."""
    run, model = side(part, name, shape)
    # rows of its own for every repeat: as in a real training, most shapes of batches are new
    warm, rows = (make_rows(n, mean, SHAPES[shape]["vocab_size"], i) for i in (0, repeat + 1))
    held = peak(lambda: run(warm)) if repeat == 0 else None
    rate, seconds = matmul_rate(CPU), clock(CPU, lambda: run(rows))
    speed = sum(len(row["tokens"]) for row in rows) / seconds
    # a language model multiplies by its embedding, which is tied to the output
    n_used = model.num_parameters(exclude_embeddings=part != "generative")
    return seconds, speed, (2 if part == "score" else 6) * n_used * speed / rate, rate, held


def table(part, repeats, shape, n, mean):
    """Time every side `repeats` times after a warm-up, and print the medians."""
    spawn = multiprocessing.get_context("spawn")
    names = [name for of, name in SIDES if of == part]
    pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in names}
    runs = {name: [] for name in pools}
    for repeat in range(repeats):
        for name, pool in pools.items():
            runs[name].append(pool.submit(measure, part, name, repeat, shape, n, mean).result())
    heads = "examples/s", "tokens/s", "share", "ours is", "held MB"
    print("\n{:<34} {:>10} {:>9} {:>7} {:>8} {:>8}".format(f"{part}, mean {mean} tokens", *heads))
    for name, times in runs.items():
        seconds, speed, share, _ = (statistics.median(x) for x in [*zip(*times)][:4])
        ratio = statistics.median(x[0] / mine[0] for x, mine in zip(times, runs["ours"]))
        line = f"{n / seconds:10.1f} {speed:9.0f} {share:7.1%} {ratio:7.2f}x"
        print(f"  {name:<32} {line} {times[0][4] / 1e6:8.0f}", flush=True)
        pools[name].shutdown()
    rate = statistics.median(x[3] for times in runs.values() for x in times)
    print(f"  bf16 matrix products: {rate / 1e9:.0f} GFLOP/s", flush=True)


def clock(device, run):
    """Seconds that run() takes, the GPU's work included."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def matmul_rate(device):
    """Floating point operations a second of a large bf16 matrix product, the median of ten."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    times = [clock(device, lambda: torch.nn.functional.linear(a, b)) for _ in range(12)]
    return 2 * n**3 / statistics.median(times[2:])


def peak(run):
    """The most bytes that autograd holds at once in run()."""
    held = [0, 0]  # now, at the peak

    class Saved:
        def __init__(self, tensor):
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            held[0] += self.size
            held[1] = max(held)

        def __del__(self):
            held[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        run()
    return held[1]


def micro_batches(shape, mean, repeats):
    """A batch of 256 rows whole and in 8 pieces: memory and time."""
    model, rows = make_model(shape, CPU), make_rows(512, mean, SHAPES[shape]["vocab_size"])
    print(f"\n256 rows in 8 pieces, mean {mean}:  held, whole    in 8    less    time")
    for loss in ("xent", "conf"):
        how = {"loss": loss, "batch_size": 256}
        runs = [functools.partial(train, model, rows, micro_batch=k, **how) for k in (256, 32)]
        whole, cut = (peak(run) / 1e6 for run in runs)
        times = [[clock(CPU, run) for run in runs] for _ in range(repeats)]
        slower = statistics.median(b / a for a, b in times)
        print(f"  {loss:<31} {whole:9.0f} MB {cut:4.0f} MB {whole / cut:6.1f}x {slower:6.2f}x")


def linear():
    """Time per token of the tiny model over 1,000 to 100,000 rows."""
    model = make_model("tiny", CPU)
    print("\n    rows   us/token")
    for n in (1000, 1000, 10_000, 100_000):  # the first is the warm-up
        rows = make_rows(n, 12, SHAPES["tiny"]["vocab_size"])
        seconds = clock(CPU, functools.partial(train, model, rows, dtype=None))
        print(f"{n:8} {seconds / sum(len(row['tokens']) for row in rows) * 1e6:10.2f}", flush=True)


if __name__ == "__main__":
    cli.run(main)
