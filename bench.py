"""How fast is the loop? In one run, ours and Hugging Face's Trainer on the same model and rows.

    python bench.py                                     # 2 cores: about ten minutes
    python bench.py --parts=train,generative --means=20 --repeats=5

Models have random weights in the shape of real ones. Each side runs in a process of its own; every
figure is the median of repeats in turns. "share" is 6 (scoring: 2) x non-embedding parameters x
real tokens a second by the bf16 matrix product rate, measured right before. "held" is what autograd
keeps for the backward pass at its peak, on a GPU all memory.
"""

import functools
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from w2s import cli
from w2s.files import HERE, BadInput

# fmt: off
QWEN = dict(model_type="qwen2", vocab_size=151936, num_key_value_heads=2)
NO_DROPOUT = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
SHAPES = {  # the first is the one that the figures of results/bench.md are about
    "gpt2-6x384": NO_DROPOUT | dict(model_type="gpt2", n_layer=6, n_embd=384, n_head=6,
        vocab_size=50257),
    "tiny": dict(model_type="llama", num_hidden_layers=3, hidden_size=64, intermediate_size=256,
        num_attention_heads=4, vocab_size=400),
    "qwen-0.5b": QWEN | dict(num_hidden_layers=24, hidden_size=896, intermediate_size=4864,
        num_attention_heads=14),
    "qwen-1.5b": QWEN | dict(num_hidden_layers=28, hidden_size=1536, intermediate_size=8960,
        num_attention_heads=12),
    "qwen-7b": QWEN | dict(num_hidden_layers=28, hidden_size=3584, intermediate_size=18944,
        num_attention_heads=28, num_key_value_heads=4),
}
GROUPED = {"train_sampling_strategy": "group_by_length"}
SIDES = {  # trainer: Hugging Face's, with these arguments
    "train": {"ours": {}, "HF Trainer, padded": {"trainer": {}},
        "HF Trainer, accumulate 1 at a time": {"trainer": {"per_device": 1}},
        "HF Trainer, group by length": {"trainer": GROUPED}},
    "generative": {"ours": {"lm": True},
        "HF Trainer, group by length": {"lm": True, "trainer": GROUPED}},
    "score": {"ours": {}, "HF Trainer.predict, batch 64": {"trainer": {}, "batch_size": 64}},
    "tiny": {"ours": {"dtype": None}, "one sequence at a time, bf16": {"looped": True}},
}
# fmt: on
PARTS = ("train", "score", "memory", "tiny", "generative", "linear")


def main(
    *, parts: str = ",".join(PARTS[:4]), means: str = "20,100", shape: str = None,
    device: str = None, repeats: int = 3, steps: int = 20, batch_size: int = 32,
):  # fmt: skip
    """Print speed, share of the matrix product rate and memory of our loop and of HF Trainer's.

    Args:
        parts: any of train, score, memory, tiny, generative, linear (the last two only if asked)
        means: mean text lengths in tokens
        shape: gpt2-6x384 (default on a CPU), tiny, qwen-0.5b, qwen-1.5b (on a GPU) or qwen-7b
        repeats: interleaved repeats whose median is printed
        steps: batches in a timed run of the 20-token rows; longer texts have fewer
    """
    cli.check({"repeats": repeats, "steps": steps, "batch_size": batch_size, "shape": shape})
    known, parts = set(parts.split(",")) <= set(PARTS), parts.split(",")
    if not known or not all(mean.isdigit() and int(mean) > 2 for mean in means.split(",")):
        raise BadInput(f"parts are {', '.join(PARTS)}; means whole numbers over 2")
    from w2s import models

    device = models.pick_device(device)
    shape = shape or ("qwen-1.5b" if device.type == "cuda" else "gpt2-6x384")
    where = f"{device} with {torch.get_num_threads()} CPU threads, torch {torch.__version__}"
    print(f"{shape} on {where}, {repeats} repeats, batch {batch_size}")
    for mean in map(int, means.split(",")):
        n = batch_size * max(4, round(steps * 20 / max(mean, 20) ** 0.8 / 20**0.2))
        for part in ("train", "generative", "score"):
            if part in parts:
                table(part, repeats, shape, str(device), n, mean, batch_size)
        if "memory" in parts:
            micro_batches(make_model(shape, device), SHAPES[shape]["vocab_size"], mean, repeats)
    if "tiny" in parts:
        table("tiny", repeats, "tiny", str(device), 1600, 12, 32)
    if "linear" in parts:
        linear(device)


def make_model(shape, device, packed=True, lm=False):
    """A 2-way classifier, or a language model, with random weights, as models.load gives it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from w2s import models

    torch.manual_seed(0)
    config = AutoConfig.for_model(**SHAPES[shape], num_labels=2, use_cache=False, pad_token_id=0)
    auto = AutoModelForCausalLM if lm else AutoModelForSequenceClassification
    with torch.device(device):
        model = auto.from_config(config, dtype=torch.float32)
    model.w2s = {"max_len": 1024, "head": "new", "packed": False}
    model.w2s["parameters"] = model.num_parameters()
    if packed:
        models.fuse_gelu(model)
        if device.type == "cuda":
            models.fuse_norms(model)
        models.keep_freed_memory()
        model.w2s["packed"] = models.can_pack(model)
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
    return [
        {"tokens": text, "input_ids": text, "label": int(rng.integers(2)), "given": rng.random()}
        for text in texts
    ]


def train(model, rows, loss="xent", dtype="bf16", **options):
    """One epoch of our loop."""
    from w2s import lm, loop, losses

    plan, rule = loop.resolve(model, dtype=dtype), losses.LOSSES[loss]
    plan.pop("parameters", None)
    if model.get_output_embeddings():
        rows, rule = lm.shares(rows), {"loss": lm.share_of_loss, "outputs": lm.nll}
    loop.fit(model, rows, epochs=1, name="ours", **rule, **plan, **{"batch_size": 32} | options)


def trainer(shape, device, lm, batch_size=32, per_device=None, checkpointing=False, **how):
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
        gradient_checkpointing=checkpointing, logging_strategy="no", report_to="none",
        disable_tqdm=True, remove_unused_columns=False, optim="adamw_torch_fused", **how,
    )  # fmt: skip
    theirs = Trainer(make_model(shape, device, False, lm), args, data_collator=collate)
    theirs.remove_callback(PrinterCallback)
    return theirs


@functools.cache
def side(part, name, shape, device, batch_size):
    """(function of rows that is one run of a side, its model), once in the process of that side."""
    from w2s import models, packing

    options = {"batch_size": batch_size} | SIDES[part][name]
    how, lm = options.pop("trainer", None), options.pop("lm", False)
    if how is not None:
        theirs = trainer(shape, torch.device(device), lm, **options, **how)

        def run(rows):
            theirs.train_dataset = rows
            return theirs.predict(rows) if part == "score" else theirs.train()

        return run, theirs.model
    model = make_model(shape, torch.device(device), lm=lm)
    if options.pop("looped", False):  # what groups() is there to avoid
        group = packing.groups
        packing.groups = lambda lengths, *how: [group([length], *how)[0] for length in lengths]
    if part == "score":
        return lambda rows: models.predict(model, [x["tokens"] for x in rows], "bf16"), model
    return lambda rows: train(model, rows, **options), model


def measure(part, name, repeat, warm_up, shape, device, n, mean, batch_size):
    """(seconds, tokens/s, share of the matrix product rate, that rate, bytes) of one run."""
    run, model = side(part, name, shape, device, batch_size)
    # rows of its own for every repeat: as in a real training, most shapes of batches are new
    warm, rows = (make_rows(n, mean, SHAPES[shape]["vocab_size"], i) for i in (0, repeat + 1))
    held = peak(model.device, lambda: run(warm)) if warm_up else None
    rate, seconds = matmul_rate(model.device), clock(model.device, lambda: run(rows))
    speed = sum(len(row["tokens"]) for row in rows) / seconds
    # a language model multiplies by its embedding where that is tied to the output
    tied = getattr(model.get_output_embeddings(), "weight", None)
    embeddings = [x.weight for x in model.modules() if isinstance(x, torch.nn.Embedding)]
    n_used = model.num_parameters() - sum(x.numel() for x in embeddings if x is not tied)
    flops = 2 if part == "score" else 6
    return seconds, speed, flops * n_used * speed / rate, rate, held


def table(part, repeats, *where):
    """Time every side `repeats` times after a warm-up, and print the medians."""
    shape, device, n, mean, batch_size = where
    once = device != "cpu"  # a GPU holds one model at a time: a new process for every run
    how = {"mp_context": multiprocessing.get_context("spawn")}
    how |= {"max_tasks_per_child": 1} if once else {}
    pools = {name: ProcessPoolExecutor(1, **how) for name in SIDES[part]}
    runs = {name: [] for name in pools}
    for repeat in range(repeats):
        for name, pool in pools.items():
            run = pool.submit(measure, part, name, repeat, once or repeat == 0, *where)
            runs[name].append(run.result())
    heads = "examples/s", "tokens/s", "share", "ours is", "held MB"
    print("\n{:<34} {:>10} {:>9} {:>7} {:>8} {:>8}".format(f"{part}, mean {mean} tokens", *heads))
    for name, times in runs.items():
        seconds, speed, share, _ = (statistics.median(x) for x in [*zip(*times)][:4])
        ratio = statistics.median(x[0] / mine[0] for x, mine in zip(times, runs["ours"]))
        ratio, held = "" if name == "ours" else f"{ratio:.2f}x", times[0][4] / 1e6
        line = f"{n / seconds:10.1f} {speed:9.0f} {share:7.1%} {ratio:>8} {held:8.0f}"
        print(f"  {name:<32} {line}", flush=True)
    rate = statistics.median(x[3] for times in runs.values() for x in times)
    print(f"  bf16 matrix products: {rate / 1e9:.0f} GFLOP/s", flush=True)
    for pool in pools.values():
        pool.shutdown()


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


def peak(device, run):
    """Bytes at the peak of run(): all memory of a GPU, on a CPU what autograd holds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
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


def micro_batches(model, vocabulary, mean, repeats):
    """A batch of 256 rows whole and in 8 pieces: memory and time."""
    rows, device = make_rows(1024 if mean < 50 else 512, mean, vocabulary), model.device
    print(f"\n256 rows in 8 pieces, mean {mean}:  held, whole    in 8    less    time")
    for loss in ("xent", "conf"):
        how = {"batch_size": 256, "loss": loss}
        runs = [functools.partial(train, model, rows, micro_batch=k, **how) for k in (256, 32)]
        whole, cut = (peak(device, run) / 1e6 for run in runs)
        times = [[clock(device, run) for run in runs] for _ in range(repeats)]
        slower = statistics.median(b / a for a, b in times)
        print(f"  {loss:<31} {whole:9.0f} MB {cut:4.0f} MB {whole / cut:6.1f}x {slower:6.2f}x")


def linear(device):
    """Time per token of the tiny model over 1,000 to 100,000 rows, and of tokenizing as many."""
    from transformers import AutoTokenizer

    from w2s import models

    model, tokenizer = make_model("tiny", device), AutoTokenizer.from_pretrained(HERE / "facts/xs")
    print("\n    rows   us/token, training   rows/s tokenized")
    for n in (1000, 1000, 10_000, 100_000):  # the first is the warm-up
        rows, text = make_rows(n, 12, SHAPES["tiny"]["vocab_size"]), "the pet of ba mi ru is cat ?"
        texts = [{"id": i, "text": text} for i in range(n)]
        tokenized = clock(device, functools.partial(models.encode, texts, tokenizer, model))
        took = clock(device, functools.partial(train, model, rows, dtype=None))
        each = took / sum(len(row["tokens"]) for row in rows) * 1e6
        print(f"{n:8} {each:20.2f} {n / tokenized:18.0f}", flush=True)


if __name__ == "__main__":
    cli.run(main)
