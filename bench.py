"""How fast is the loop? Ours and Hugging Face's Trainer on the same model and rows, on a CPU.

    python bench.py                                      # training; 2 cores: three minutes
    python bench.py generative --mean=100 --repeats=5    # or score

Models have random weights. Each side runs in a process of its own, whose threads wait as its users'
do (ours: see w2s/cli.py); figures are medians of repeats in turns. Both sides compute in bf16 where
the processor does, else in float32. "share" is 6 (scoring: 2) x non-embedding parameters x real
tokens a second by the rate of matrix products in that type, measured right before. results/gpu.sh
measures a GPU, and memory.
"""

import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec

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
GROUPED, FLAT = {"train_sampling_strategy": "group_by_length"}, {"padded": False}
TRL = {"trl": True}
SIDES = {  # beside our loop: the arguments of Hugging Face's Trainer
    "train": {"HF Trainer, padded": {}, "HF Trainer, group by length": GROUPED},
    "generative": {"HF Trainer, group by length": GROUPED, "HF Trainer, without padding": FLAT}
    | ({"TRL's SFTTrainer, without padding": TRL} if find_spec("trl") else {}),
    "score": {"HF Trainer.predict, batch 64": {"batch_size": 64}},
}


def main(
    part: str = "train", *, mean: int = 20, shape: str = "gpt2-6x384", repeats: int = 3,
    steps: int = 20,
):  # fmt: skip
    """Print the speed of our loop and of HF Trainer's, and their shares of the matrix product rate.

    Args:
        part: train, generative or score
        mean: length of the texts in tokens
        shape: gpt2-6x384, tiny, qwen-0.5b, qwen-1.5b or qwen-7b
    """
    cli.check({"repeats": repeats, "steps": steps})
    if not 3 <= mean <= 500:
        raise BadInput(f"--mean={mean} must be from 3 to 500: texts have 3 to 1,000 tokens")
    for kind, word, known in (("part", part, SIDES), ("shape", shape, SHAPES)):
        if word not in known:
            raise BadInput(f"there is no {kind} {word}{cli.nearest(word, known)}")
    import torch  # takes a second, so not for --help

    print(f"{shape}, {torch.get_num_threads()} threads, torch {torch.__version__}, {repeats=}")
    table(part, repeats, shape, 32 * max(1, steps * 20 // max(mean, 20)), mean)


def make_model(shape, device, packed=True, lm=False):
    """A 2-way classifier, or a language model, with random weights, as models.load gives it."""
    import torch
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
    """n rows of 3 to 1,000 Zipf-distributed tokens, by three names for all trainers; sigma 0.6."""
    import numpy as np

    rng = np.random.default_rng(seed)
    weights = 1 / (np.arange(vocabulary) + 2.7)
    lengths = rng.lognormal(np.log(mean) - 0.6**2 / 2, 0.6, n).round().clip(3, 1000).astype(int)
    drawn = rng.choice(vocabulary, lengths.sum(), p=weights / weights.sum())
    tokens = np.random.default_rng(0).permutation(vocabulary)[drawn]
    texts = [text.tolist() for text in np.split(tokens, lengths.cumsum()[:-1])]
    labels = ({"label": int(rng.integers(2)), "given": rng.random()} for _ in texts)
    names = "tokens", "input_ids", "labels"
    return [dict.fromkeys(names, text) | x for text, x in zip(texts, labels)]


def train(model, rows, loss="xent", dtype="bf16", batch_size=32, **options):
    """One epoch of our loop."""
    from w2s import loop, losses
    from w2s.lm import nll, share_of_loss, shares

    options |= loop.resolve(model, dtype=dtype) | losses.LOSSES[loss]
    if model.get_output_embeddings():
        rows = shares(rows)
        options |= {"loss": share_of_loss, "outputs": nll, "whole_batch": False}
    loop.fit(model, rows, epochs=1, batch_size=batch_size, name="ours", **options)


def trainer(
    shape, device, lm, batch_size=32, per_device=None, dtype="bf16", padded=True, trl=False, **how
):  # fmt: skip
    """Hugging Face's for one epoch: bf16 autocast or float32, fused AdamW, padded batches. Its own
    way without padding is for language models: a classifier would read one token of a batch."""
    import torch
    from transformers import DataCollatorWithFlattening, PrinterCallback, Trainer, TrainingArguments

    def collate(batch):
        texts = [torch.tensor(row["input_ids"]) for row in batch]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-100)
        labels = ids if lm else torch.tensor([row["label"] for row in batch])
        return {"input_ids": ids.clamp(0), "attention_mask": (ids >= 0).long(), "labels": labels}

    per_device = per_device or batch_size
    how = dict(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, per_device_train_batch_size=per_device,
        learning_rate=5e-5, gradient_accumulation_steps=batch_size // per_device,
        per_device_eval_batch_size=batch_size, use_cpu=device.type == "cpu", save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
        optim="adamw_torch_fused", bf16=dtype == "bf16", **how,
    )  # fmt: skip
    model = make_model(shape, device, False, lm)
    if trl:
        theirs = of_trl(model, how)
    else:
        collate = collate if padded else DataCollatorWithFlattening()
        theirs = Trainer(model, TrainingArguments(**how), data_collator=collate)
    theirs.remove_callback(PrinterCallback)
    return theirs


def of_trl(model, how):
    """TRL's trainer of language models, by its own way without padding and its fused loss."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    # it asks for rows and a tokenizer, and would cut texts and compute them twice
    rows = Dataset.from_list([{"input_ids": [0], "labels": [0]}])
    words = Tokenizer(models.WordLevel({"": 0}, ""))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="", eos_token="")
    how |= {"padding_free": True, "max_length": None, "gradient_checkpointing": False}
    how |= {"dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTTrainer(model, SFTConfig(**how), train_dataset=rows, processing_class=tokenizer)


def native():
    """ "bf16" where the processor computes in it, else "float32"."""
    from w2s import models

    return "bf16" if models.has_bf16(models.pick_device("cpu")) else "float32"


@functools.cache
def side(part, name, shape):
    """(function of rows that is one run of a side, its model), once in the process of that side."""
    from w2s import models

    cpu, dtype, lm = models.pick_device("cpu"), native(), part == "generative"
    if name == "ours":
        model = make_model(shape, cpu, lm=lm)
        if part == "score":
            return lambda rows: models.predict(model, [x["tokens"] for x in rows], dtype), model
        return functools.partial(train, model, dtype=dtype), model
    theirs = trainer(shape, cpu, lm, dtype=dtype, **SIDES[part][name])

    def run(rows):
        theirs.train_dataset = rows
        return theirs.predict(rows) if part == "score" else theirs.train()

    return run, theirs.model


def measure(part, name, repeat, shape, n, mean):
    """(seconds, tokens/s, share of the matrix product rate, that rate) of one run."""
    run, model = side(part, name, shape)
    # rows of its own for every repeat: as in a real training, most shapes of batches are new
    warm, rows = (make_rows(n, mean, SHAPES[shape]["vocab_size"], i) for i in (0, repeat + 1))
    if repeat == 0:
        run(warm)
    rate = matmul_rate(model.device, native())
    seconds = clock(model.device, lambda: run(rows))
    speed = sum(len(row["tokens"]) for row in rows) / seconds
    # a language model multiplies by its embedding, which is tied to the output
    n_used = model.num_parameters(exclude_embeddings=part != "generative")
    return seconds, speed, (2 if part == "score" else 6) * n_used * speed / rate, rate


def table(part, repeats, shape, n, mean):
    """Time every side `repeats` times after a warm-up, and print the medians."""
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in ("ours", *SIDES[part])}
    runs = {name: [] for name in pools}
    for repeat in range(repeats):
        for name, pool in pools.items():  # ours starts first; then threads wait as libgomp's do
            os.environ |= {} if name == "ours" else {"GOMP_SPINCOUNT": "300000"}
            runs[name].append(pool.submit(measure, part, name, repeat, shape, n, mean).result())
    heads = "examples/s", "tokens/s", "share", "ours is"
    print("\n{:<34} {:>10} {:>9} {:>7} {:>8}".format(f"{part}, mean {mean} tokens", *heads))
    for name, times in runs.items():
        seconds, speed, share, rate = map(statistics.median, zip(*times))
        ratio = statistics.median(x[0] / mine[0] for x, mine in zip(times, runs["ours"]))
        print(f"  {name:<32} {n / seconds:10.1f} {speed:9.0f} {share:7.1%} {ratio:7.2f}x")
        pools[name].shutdown()
    print(f"  {native()} matrix products: {rate / 1e9:.0f} GFLOP/s")


def clock(device, run):
    """Seconds that run() takes, the GPU's work included."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - began


def matmul_rate(device, dtype="bf16"):
    """Floating point operations a second of a large matrix product, the median of ten."""
    import torch

    n = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    times = [clock(device, lambda: torch.nn.functional.linear(a, b)) for _ in range(12)]
    return 2 * n**3 / statistics.median(times[2:])


if __name__ == "__main__":
    cli.run(main)
