"""How fast is the loop? Side by side, in one run: ours and Hugging Face's Trainer on the same model, rows, batch and precision.

    python bench.py                                     # 2 cores: about ten minutes
    python bench.py --parts=train,generative --means=20 --repeats=5
    python bench.py --device=cuda --shape=qwen-1.5b --means=200
    python bench.py --device=cuda --shape=qwen-7b --means=200 --parts=train --lora=16    # or --checkpointing

Models have random weights in the shape of real ones, texts have lognormal lengths and Zipf-distributed tokens. Each side runs
in a process of its own, so that none gains from what another set up; every figure is the median of repeats, in turns on a
CPU, one side after the other on a GPU, which holds one model at a time. "share" is the model FLOP utilisation: 6 x
non-embedding parameters x real tokens a second (attention left out), by the bf16 matrix product rate measured right before.
"held" is what autograd keeps for the backward pass at its peak, on a GPU the peak of all memory.
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
SHAPES = {  # the first is the one that the figures of results/bench.md are about
    "gpt2-6x384": dict(model_type="gpt2", n_layer=6, n_embd=384, n_head=6, vocab_size=50257),
    "tiny": dict(model_type="llama", num_hidden_layers=3, hidden_size=64, intermediate_size=256, num_attention_heads=4,
        vocab_size=400),
    "qwen-0.5b": QWEN | dict(num_hidden_layers=24, hidden_size=896, intermediate_size=4864, num_attention_heads=14),
    "qwen-1.5b": QWEN | dict(num_hidden_layers=28, hidden_size=1536, intermediate_size=8960, num_attention_heads=12),
    "qwen-7b": QWEN | dict(num_hidden_layers=28, hidden_size=3584, intermediate_size=18944, num_attention_heads=28,
        num_key_value_heads=4),
}
# fmt: on
PARTS = ("train", "score", "memory", "tiny", "generative", "linear")


def main(
    *, parts: str = ",".join(PARTS[:4]), means: str = "20,100", shape: str = None, device: str = None, repeats: int = 3,
    steps: int = 20, batch_size: int = 32, lora: int = None, checkpointing: bool = False,
):  # fmt: skip
    """Print examples/s, tokens/s, the share of the matrix product rate and memory of our loop and of HF Trainer's.

    Args:
        parts: any of train, score, memory, tiny, generative, linear (the last two only when asked for)
        means: mean text lengths in tokens
        shape: gpt2-6x384, tiny, qwen-0.5b, qwen-1.5b or qwen-7b (default: gpt2-6x384 on a CPU, qwen-1.5b on a GPU)
        repeats: interleaved repeats whose median is printed
        steps: batches in a timed run of the 20-token rows; longer texts have fewer
        lora: train low-rank terms of this rank, in our loop
        checkpointing: recompute activations, in our loop and Trainer's
    """
    cli.check(
        {"repeats": repeats, "steps": steps, "batch_size": batch_size, "lora": lora, "shape": shape}
    )
    if not set(parts.split(",")) <= set(PARTS) or not all(
        mean.isdigit() and int(mean) > 2 for mean in means.split(",")
    ):
        raise BadInput(
            f"--parts={parts} --means={means}: parts are {', '.join(PARTS)}; means whole numbers over 2"
        )
    from w2s import models

    device = models.pick_device(device)
    shape = shape or ("qwen-1.5b" if device.type == "cuda" else "gpt2-6x384")
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads"
    )
    options = {"batch_size": batch_size, "checkpointing": checkpointing}
    print(
        f"{shape} on {where}, torch {torch.__version__}, {repeats} interleaved repeats, batch {batch_size}"
    )
    for mean in map(int, means.split(",")):
        n = batch_size * max(4, round(steps * 20 / max(mean, 20) ** 0.8 / 20**0.2))
        setting = shape, str(device), n, mean
        if "train" in parts:
            sides = {"ours": {"lora": lora} | options}
            sides |= {
                f"HF Trainer, {name}": {"trainer": how} | options for name, how in TRAINERS.items()
            }
            table(f"training, mean {mean} tokens", setting, sides, repeats)
        if "generative" in parts:
            sides = {
                "ours": {"lm": True},
                "HF Trainer, group by length": {"lm": True, "trainer": GROUPED},
            }
            table(f"language modelling, mean {mean}", setting, sides, repeats)
        if "score" in parts:
            sides = {
                "ours": {"score": True},
                "HF Trainer.predict, batch 64": {"score": True, "trainer": {}, "batch_size": 64},
            }
            table(f"scoring, mean {mean} tokens", setting, sides, repeats, flops=2)
        if "memory" in parts:
            micro_batches(make_model(shape, device), SHAPES[shape]["vocab_size"], mean, repeats)
    if "tiny" in parts:
        sides = {"ours": {"dtype": None}, "one sequence at a time, bf16": {"looped": True}}
        table("training a tiny model, mean 12", ("tiny", str(device), 1600, 12), sides, repeats)
    if "linear" in parts:
        linear(device)


# ---- models and rows


def make_model(shape, device, packed=True, lm=False):
    """A 2-way classifier, or a language model, with random weights in one of SHAPES, as model.load would hand it out."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from w2s import checks, models

    torch.manual_seed(0)
    no_dropout = (
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        if shape.startswith("gpt2")
        else {}
    )
    config = AutoConfig.for_model(
        **SHAPES[shape], **no_dropout, num_labels=2, use_cache=False, pad_token_id=0
    )
    with torch.device(device):
        net = (AutoModelForCausalLM if lm else AutoModelForSequenceClassification).from_config(
            config, dtype=torch.float32
        )
    net.w2s = {"max_len": 1024, "head": "new", "packed": False}
    if packed:
        models.fuse_gelu(net)
        models.keep_freed_memory()
        net.w2s["packed"] = checks.can_pack(net)
    return net


def make_rows(n, mean, vocabulary, seed=0):
    """n rows of Zipf-distributed tokens, lognormal lengths (sigma 0.6) from 3 to 1,000 tokens ("input_ids" to the Trainer)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = 1 / (np.arange(vocabulary) + 2.7)
    lengths = rng.lognormal(np.log(mean) - 0.6**2 / 2, 0.6, n).round().clip(3, 1000).astype(int)
    tokens = np.random.default_rng(0).permutation(vocabulary)[
        rng.choice(vocabulary, lengths.sum(), p=weights / weights.sum())
    ]
    texts = [text.tolist() for text in np.split(tokens, lengths.cumsum()[:-1])]
    return [
        {"tokens": text, "input_ids": text, "label": int(rng.integers(2)), "weak": rng.random()}
        for text in texts
    ]


# ---- what is compared


@functools.cache
def side(shape, device, words):
    """The function of rows that is one run of a side, and its model; made once in the process of that side."""
    from w2s import models, packing

    device, options = torch.device(device), dict(words)
    how, score, lm = (
        options.pop("trainer", None),
        options.pop("score", False),
        options.pop("lm", False),
    )
    if how is not None:
        theirs = trainer(shape, device, lm, **options, **dict(how))

        def run(rows):
            theirs.train_dataset = rows
            return theirs.predict(rows) if score else theirs.train()

        return run, theirs.model
    net, lora = make_model(shape, device, lm=lm), options.pop("lora", None)
    models.add_lora(net, lora, "bf16")
    if options.pop("looped", False):  # what groups() is there to avoid
        grouped = packing.groups
        packing.groups = lambda lengths, *how: [grouped([length], *how)[0] for length in lengths]
    if score:
        return lambda rows: models.predict(net, [row["tokens"] for row in rows], "bf16"), net
    return lambda rows: train(net, rows, **options), net


def measure(shape, device, n, mean, words, flops, repeat, warm_up):
    """In the process of a side: (seconds, tokens/s, share of the matrix product rate, that rate, bytes held) of one run.

    Every repeat has rows of its own: as in a real training, most batches have a shape that was not seen before.
    """
    run, net = side(shape, device, words)
    warm, rows = (make_rows(n, mean, SHAPES[shape]["vocab_size"], seed) for seed in (0, repeat + 1))
    held = peak(net.device, lambda: run(warm)) if warm_up else None
    rate, seconds = matmul_rate(net.device), clock(net.device, lambda: run(rows))
    tokens = sum(len(row["tokens"]) for row in rows)
    tied = getattr(
        net.get_output_embeddings(), "weight", None
    )  # a language model's is multiplied by
    embedding = sum(
        m.weight.numel()
        for m in net.modules()
        if type(m).__name__ == "Embedding" and m.weight is not tied
    )
    return (
        seconds,
        tokens / seconds,
        flops * (net.num_parameters() - embedding) * tokens / seconds / rate,
        rate,
        held,
    )


def train(net, rows, loss="xent", **options):
    """One epoch of our loop; of a language model as rm/generative.py trains it."""
    from w2s import lm, loop, losses

    options = {"epochs": 1, "dtype": "bf16", "name": "ours"} | options
    classifier = not net.get_output_embeddings()
    loop.fit(net, rows, "weak", **losses.LOSSES[loss], **options) if classifier else lm.fit(
        net, rows, **options
    )


GROUPED = {"train_sampling_strategy": "group_by_length"}
TRAINERS = {"padded": {}, "accumulate 1 at a time": {"per_device": 1}, "group by length": GROUPED}


def trainer(shape, device, lm, batch_size=32, per_device=None, checkpointing=False, **how):
    """Hugging Face's Trainer for one epoch: bf16 autocast, fused AdamW, padded to the longest of a batch."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    def collate(batch):
        lengths = torch.tensor([len(row["input_ids"]) for row in batch])
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row["input_ids"]) for row in batch], batch_first=True
        )
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        labels = (
            ids.masked_fill(mask == 0, -100)
            if lm
            else torch.tensor([row["label"] for row in batch])
        )
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    per_device = per_device or batch_size
    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=per_device, learning_rate=5e-5,
        gradient_accumulation_steps=batch_size // per_device, per_device_eval_batch_size=batch_size, bf16=True,
        use_cpu=device.type == "cpu", gradient_checkpointing=checkpointing, save_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, remove_unused_columns=False, optim="adamw_torch_fused", **how,
    )  # fmt: skip
    theirs = Trainer(make_model(shape, device, False, lm), args, data_collator=collate)
    theirs.remove_callback(PrinterCallback)
    return theirs


# ---- measuring


def table(title, setting, sides, repeats, flops=6):
    """Time every side `repeats` times after a warm-up, and print the medians."""
    (shape, device, n, mean), spawn = setting, multiprocessing.get_context("spawn")
    once = device != "cpu"  # a GPU holds one model at a time: a new process for every run
    pools = {
        name: ProcessPoolExecutor(1, spawn, max_tasks_per_child=1 if once else None)
        for name in sides
    }
    runs = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, options in sides.items():
            words = tuple(
                (key, tuple(value.items()) if isinstance(value, dict) else value)
                for key, value in options.items()
            )
            run = pools[name].submit(
                measure, shape, device, n, mean, words, flops, repeat, once or repeat == 0
            )
            runs[name].append(run.result())
    print(
        f"\n{title:<34} {'examples/s':>10} {'tokens/s':>9} {'share':>7} {'ours is':>8} {'held MB':>8}"
    )
    for name, times in runs.items():
        seconds, rate, share, _, _ = (
            statistics.median(x for x in column if x is not None) for column in zip(*times)
        )
        ours = statistics.median(time / mine for (time, *_), (mine, *_) in zip(times, runs["ours"]))
        line = f"{n / seconds:10.1f} {rate:9.0f} {share:7.1%} {'' if name == 'ours' else f'{ours:.2f}x':>8}"
        print(f"  {name:<32} {line} {times[0][4] / 1e6:8.0f}", flush=True)
    products = statistics.median(rate for times in runs.values() for _, _, _, rate, _ in times)
    print(f"  bf16 matrix products: {products / 1e9:.0f} GFLOP/s", flush=True)
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
    """Bytes at the peak of run(): of all memory on a GPU, of what autograd holds for the backward pass on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    held = {"now": 0, "peak": 0}

    class Saved:
        def __init__(self, tensor):
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            held["now"] += self.size
            held["peak"] = max(held["peak"], held["now"])

        def __del__(self):
            held["now"] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        run()
    return held["peak"]


def micro_batches(net, vocabulary, mean, repeats):
    """A batch of 256 rows whole and in 8 pieces: memory and time."""
    rows = make_rows(1024 if mean < 50 else 512, mean, vocabulary)
    print(
        f"\n{f'256 rows in 8 pieces, mean {mean}':<34} {'held, whole':>12} {'in 8':>8} {'less':>6} {'time':>7}"
    )
    for loss in ("xent", "conf"):
        runs = [
            lambda size=size, loss=loss: train(net, rows, loss, batch_size=256, micro_batch=size)
            for size in (256, 32)
        ]
        whole, cut = (peak(net.device, run) for run in runs)
        slower = statistics.median(
            b / a for a, b in ([clock(net.device, run) for run in runs] for _ in range(repeats))
        )
        print(
            f"  {loss:<32} {whole / 1e6:9.0f} MB {cut / 1e6:5.0f} MB {whole / cut:5.1f}x {slower:6.2f}x",
            flush=True,
        )


def linear(device):
    """Time per token of the tiny model over 1,000 to 100,000 rows, and of tokenizing as many (facts' tokenizer)."""
    from transformers import AutoTokenizer

    from w2s import models

    net, tokenizer = (
        make_model("tiny", device),
        AutoTokenizer.from_pretrained(HERE / "facts" / "xs"),
    )
    print(f"\n{'rows':>8} {'us/token, training':>20} {'rows/s tokenized':>18}")
    for n in (1000, 1000, 10_000, 100_000):  # the first is the warm-up
        rows = make_rows(n, 12, SHAPES["tiny"]["vocab_size"])
        words = [{"id": i, "text": "the pet of ba mi ru is cat ?"} for i in range(n)]
        tokenized = clock(device, lambda words=words: models.encode(words, tokenizer, net))
        took = clock(device, lambda rows=rows: train(net, rows, dtype=None))
        print(
            f"{n:8} {took / sum(len(row['tokens']) for row in rows) * 1e6:20.2f} {n / tokenized:18.0f}",
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main)
