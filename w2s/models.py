"""A transformers backbone with a head: load, encode texts, predict, save in Hugging Face layout.

Causal models get a linear head on the last token's final hidden state, started from the unembedding
rows of the tokens "0" and "1" (paper, A.1) or from zeros; encoders keep their own head and pooling.
All of it lives in transformers' ForSequenceClassification classes: anybody can load what we save.
"""

import contextlib
import ctypes
import platform
import warnings

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.activations import NewGELUActivation
from transformers.utils import logging

from w2s import answering, checks, files, folders, oddities, parallel
from w2s.checks import check_tokens, set_pad_token
from w2s.files import BadInput, first_line, rank, world
from w2s.packing import logits
from w2s.parts import answers, together

logging.disable_progress_bar()
warnings.filterwarnings("ignore", message=".*gradient_checkpointing_enable")


def load(name, *, head=None, max_len=None, device=None, seed=0, outputs=2):
    """(model, tokenizer) of a folder or hub id: in float32, on its device, in eval mode.

    head: "unembedding" or "zero" for causal models (None: the first where it can be); "answers":
    the language model itself, which answers by its own logits (w2s/answering.py).
    outputs: 2 for a classifier, 1 for a reward model, 0 for the language model itself. A classifier
    with as many outputs keeps its head. BadInput for a model that cannot be used.
    model.w2s = {"max_len" (at most the model's own limit), "head", "packed", "parameters"}.
    """
    path, device = folders.find_model(name)[0], pick_device(device)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        kind = checks.kind(name, config, head, outputs)
        outputs = 0 if head == "answers" else outputs
        tokenizer = checks.tokenizer_of(name, path, config)
        settle(config, outputs)
        torch.manual_seed(seed)
        if outputs and kind == "causal":
            model, head = causal_classifier(name, path, config, tokenizer, head)
        else:
            auto = AutoModelForSequenceClassification if outputs else AutoModelForCausalLM
            model, _ = checks.read_weights(auto, name, path, config, whole=kind != "encoder")
            head = {"own": "its own", "encoder": "new"}.get(kind, head)
            if outputs:
                checks.score(name, model)
        set_pad_token(model, tokenizer)
        fuse_gelu(model.to(device).eval())
        if device.type == "cuda":
            fuse_norms(model)
        checks.finite(name, model)
        if head == "answers":
            answering.add_score(name, model, tokenizer)
        limit = min(max_len or 1024, tokenizer.model_max_length, checks.positions(model))
        checks.context(name, tokenizer, limit, max_len, outputs)
        packed = checks.can_pack(model, limit)
        if not packed:
            oddities.check_mask(name, model)
    except (BadInput, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise oddities.not_loaded(name, error) from error
    tokenizer.truncation_side, tokenizer.padding_side = "left", "right"
    model.w2s = {"max_len": limit, "head": head, "packed": packed}
    model.w2s["parameters"] = model.num_parameters()
    keep_freed_memory()
    return model, tokenizer


def settle(config, outputs):
    """Change what our way of training and reading needs."""
    config.num_labels = outputs or 2
    config.use_cache = False  # it would let packed texts see each other; training needs none
    # two passes over a batch must agree (see loop.py): no dropout
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    text = config.get_text_config()
    pad = getattr(text, "pad_token_id", None)
    if pad is not None and not 0 <= pad < text.vocab_size:  # no embedding has such a row
        config.pad_token_id = text.pad_token_id = None


def causal_classifier(name, path, config, tokenizer, head):
    """(classifier, head) on a causal language model's backbone; `score` starts as `head` says."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    checks.score(name, model)
    causal, has_head = checks.read_weights(AutoModelForCausalLM, name, path, config, whole=False)
    words = tokenizer.get_vocab().keys() >= {"0", "1"} and config.num_labels == 2  # no reward
    if head == "unembedding" and not (words and has_head):
        lacks = 'tokens "0" and "1"' if has_head else "unembedding (lm_head)"
        raise BadInput(f"--model={name} has no {lacks}; use --head=zero, and no --shots")
    if not head and not has_head:
        print(f"{name} has no unembedding (lm_head): the head starts at zero")
    head = head or ("unembedding" if words and has_head else "zero")
    setattr(model, model.base_model_prefix, causal.base_model)
    model.config = causal.config  # one for all layers: one call switches their attention
    model.score = torch.nn.Linear(model.score.in_features, config.num_labels, bias=False)
    if head == "zero":
        torch.nn.init.zeros_(model.score.weight)
        return model, head
    rows = tokenizer.convert_tokens_to_ids(["0", "1"])
    model.score.weight.data = causal.get_output_embeddings().weight.data[rows]
    if not checks.own_logits(model, causal, rows):
        head = "unembedding alone"  # without a bias or a soft cap: a start, but not its answers
    return model, head


def fuse_gelu(model):
    """Let torch's one kernel compute GPT-2's GELU instead of eight operations; same to rounding."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))


@torch.no_grad()
def fuse_norms(model):
    """Let torch's one kernel compute RMS norms where that is the same: launches cost a GPU time."""
    for module in model.modules():
        for name, child in module.named_children():
            eps = getattr(child, "variance_epsilon", None)
            if type(child).__name__.endswith("RMSNorm") and eps is not None:
                fused = torch.nn.RMSNorm(child.weight.shape, eps=eps, device="meta")
                fused.weight = child.weight
                x = torch.randn(8, *child.weight.shape, device=child.weight.device)
                if torch.allclose(fused(x), child(x), atol=1e-4):
                    setattr(module, name, fused)


def save(model, tokenizer, folder):
    """Save in Hugging Face layout, whole or not at all: the Auto class gives the same logits."""
    if any("lora_" in name for name, _ in model.named_parameters()):
        from w2s import lora  # which imports this file

        lora.merge(model)
    weights = parallel.whole_weights(model) if world() > 1 else None
    tokenizer.model_max_length = model.w2s["max_len"]
    if hasattr(tokenizer, "backend_tokenizer"):
        limit = {"max_length": model.w2s["max_len"], "direction": "left"}
        tokenizer.backend_tokenizer.enable_truncation(**limit)  # else it keeps what was asked last
    with files.whole(folder) as temporary:
        model.save_pretrained(temporary, state_dict=weights)
        tokenizer.save_pretrained(temporary)


# ---- texts to tokens


def encode(rows, tokenizer, model):
    """The rows, each with "tokens", the ids of its text; long texts lose their front (told)."""
    end, max_len = "\n" if model.w2s["head"] == "answers" else "", model.w2s["max_len"]
    texts = [row["text"] + end for row in rows]  # with it, a prompt whose next token is the answer
    tokens = tokenizer(texts, verbose=False).input_ids
    long = [i for i, ids in enumerate(tokens) if len(ids) > max_len]
    for i in long:
        tokens[i] = tokenizer(texts[i], truncation=True, max_length=max_len).input_ids
    for row, ids in zip(rows, tokens):
        if not ids:
            raise BadInput(f"the tokenizer makes no tokens of the text of row {row['id']!r}")
    if long:
        told = f"{len(long)} of {len(texts)} texts are longer than {max_len} tokens"
        print(f"{told} and lost their beginning (--max_len)")
    check_tokens(tokens, tokenizer, model)
    return [row | {"tokens": ids} for row, ids in zip(rows, tokens)]


# ---- running


@torch.no_grad()
def predict(model, tokens, dtype=None, name=None, batch_tokens=16384, outputs=logits):
    """Logits [N, 2], or rewards [N, 1] (float32, on the CPU), of N texts given as token ids.

    batch_tokens: of a batch, counted as if padded. name: of the progress bar (None: no bar).
    """
    half, was_training = pick_dtype(model, dtype) == "bf16", model.training
    model.eval()

    def run(batch):
        mine = batch[rank() :: world()]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            # a process that has none keeps the others company
            said = outputs(model, [tokens[i] for i in mine or batch[:1]])
        return said.float()[: len(mine)]

    how = run, (half, batch_tokens, outputs.__name__), name
    # a model compiled for training would be compiled once more
    with threads(model), torch.compiler.set_stance("force_eager"):
        found = answers(model, tokens, lambda n: max(1, batch_tokens // n) * world(), *how)
    places = [i for batch, _ in found for i in batch[rank() :: world()]]
    out = torch.zeros(len(tokens), found[0][1].shape[1])
    out[places] = torch.cat([said for _, said in found]).cpu()
    model.train(was_training)
    return together("total", out)


# ---- the machine


def pick_device(device=None):
    """The torch.device of --device, by default the GPU if there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device={device} cannot be used here: {first_line(error)}") from error


def has_bf16(device):
    """True where the hardware computes in bf16."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def pick_dtype(model, dtype=None):
    """What --dtype says, "bf16" or "float32"; else bf16 where it is fast and the model not tiny."""
    if dtype:
        return dtype
    return "bf16" if size(model) >= 10_000_000 and has_bf16(model.device) else "float32"


def size(model):
    """The parameters of the model as it was loaded, without what --lora adds."""
    return getattr(model, "w2s", {}).get("parameters") or model.num_parameters()


@contextlib.contextmanager
def threads(model):
    """One thread for a tiny model, to which more cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if size(model) < 1_000_000 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory():
    """Let glibc keep freed memory for the next step: fetching it anew takes a fifth of a step."""
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
        ctypes.CDLL(None).mallopt(m_mmap_max, 0)
        ctypes.CDLL(None).mallopt(m_trim_threshold, 2**31 - 1)
