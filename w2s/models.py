"""A transformers backbone with a 2-way head, or a reward model's: load, encode texts, predict, save in Hugging Face layout.

Causal models get a bias-free linear head on the last token's final hidden state, started from the unembedding rows of
the tokens "0" and "1" (paper, A.1) or from zeros; encoders keep their own classification head and pooling.
All of it lives in transformers' own ForSequenceClassification classes, so that what we save anybody can load.
"""

import contextlib
import os
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.activations import NewGELUActivation
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from w2s import hub, lora
from w2s.files import BadInput
from w2s.hardware import has_bf16, keep_freed_memory, pick_device
from w2s.packing import can_pack, logits

logging.disable_progress_bar()
warnings.filterwarnings("ignore", message=".*gradient_checkpointing_enable")

# ---- loading


def load(name, head=None, max_len=None, device=None, seed=0, outputs=2):
    """(model, tokenizer) for a folder or hub id; the model is in float32, on its device, in eval mode.

    head: "unembedding" or "zero" for causal models; None takes the unembedding rows where the tokenizer has "0" and "1";
    "answers" those of the words in answers(), for prompting.
    outputs: 2 for a classifier, 1 for a reward model (its head starts at zero), 0 for the language model itself.
    A checkpoint that already is such a classifier (the model of a run) keeps its head. max_len is cut to the model's own
    limit. What was chosen stands in model.w2s: {"max_len", "head", "packed"}. Raises BadInput if it cannot be loaded.
    """
    path = hub.find_model(name)
    try:
        config = AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise not_loaded(name, error) from error
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder:
        raise BadInput(
            f"--model={name} is an encoder-decoder: give a causal language model or an encoder"
        )
    classifier = "ForSequenceClassification" in str(config.architectures)
    trained = classifier and config.num_labels == outputs
    if not outputs and (encoder or classifier):
        what = "an encoder" if encoder else "a classifier or reward model"
        raise BadInput(
            f"--model={name} is {what} ({config.model_type}): generative fine-tuning needs a causal language model"
        )
    if head and (encoder or trained):
        raise BadInput(
            f"--head and --shots are for causal language models: {name} has a classification head of its own"
        )
    config.num_labels = outputs or 2
    config.use_cache = (
        False  # a cache would let packed texts see each other, and training needs none
    )
    # Two passes over a batch must agree (see loop.py); GPT-2 and BERT ship with dropout 0.1.
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    torch.manual_seed(seed)
    try:
        if not outputs:
            model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
        elif encoder or trained:
            model = AutoModelForSequenceClassification.from_pretrained(
                path, config=config, dtype=torch.float32, ignore_mismatched_sizes=not trained
            )
            head = "its own" if trained else "new"
        else:
            model, head = causal_classifier(path, config, tokenizer, head)
    except BadInput:
        raise
    except Exception as error:
        raise not_loaded(name, error) from error
    set_pad_token(model, tokenizer)
    own_limit = min(
        tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or 10**9
    )
    max_len = min(max_len or 1024, own_limit)
    tokenizer.truncation_side, tokenizer.padding_side = "left", "right"
    model.w2s = {"max_len": max_len, "head": head, "packed": False}
    fuse_gelu(model)
    model.to(pick_device(device)).eval()
    keep_freed_memory()
    model.w2s["packed"] = can_pack(model)
    return model, tokenizer


def not_loaded(name, error):
    """The BadInput for a model that transformers cannot load."""
    if "gated repo" in str(error):
        return BadInput(
            f"{name} is gated: accept its terms on its hub page, then set HF_TOKEN to a token that may read it"
        )
    return BadInput(f"--model={name} cannot be loaded: {hub.first_line(error)}")


def causal_classifier(path, config, tokenizer, head):
    """(sequence classifier, head) around the backbone of a causal language model; its score layer starts as `head` says."""
    words, pair = tokenizer.get_vocab(), answers(tokenizer)
    has_digits = pair == ("0", "1") and config.num_labels == 2  # a reward has no use for them
    if head == "unembedding" and not has_digits:
        raise BadInput(
            f'--head=unembedding: the tokenizer of {path} has no tokens "0" and "1"; use --head=zero'
        )
    if head == "answers" and pair is None:
        raise BadInput(
            f'--shots: the tokenizer of {path} has neither "0" and "1" nor "no" and "yes" as tokens'
        )
    head = head or ("unembedding" if has_digits else "zero")
    causal = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, causal.base_model)
    model.config = (
        causal.config
    )  # one object for all layers, so that one call switches their attention
    model.score = torch.nn.Linear(
        config.get_text_config().hidden_size, config.num_labels, bias=False
    )
    with torch.no_grad():
        if head == "zero":
            model.score.weight.zero_()
        else:
            model.score.weight.copy_(
                causal.get_output_embeddings().weight[[words[word] for word in pair]]
            )
    return model, head


def answers(tokenizer):
    """What a prompted model may say for label 0 and label 1: ("0", "1"), else ("no", "yes"); None if they are no tokens."""
    words = (
        tokenizer.get_vocab()
    )  # bare tokens: SentencePiece would write "0" as a space piece and "0"
    return next(
        (pair for pair in (("0", "1"), ("no", "yes")) if pair[0] in words and pair[1] in words),
        None,
    )


def set_pad_token(model, tokenizer):
    """Give config and tokenizer the same pad token, for users of the saved model (we never pad a packed batch).

    The config's own comes first: RoBERTa counts positions from it. Without one it is the tokenizer's, or its end of text.
    """
    own = model.config.get_text_config().pad_token_id
    if own is not None and own >= 0:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(own)
    elif tokenizer.pad_token is None:
        tokenizer.pad_token = (
            tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
        )
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def fuse_gelu(model):
    """Let torch's own kernel compute GPT-2's GELU, the same function to rounding, instead of eight operations one by one."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))


def world():
    """How many processes train together (torchrun --nproc_per_node), else 1."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    """Which of these processes this is."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextlib.contextmanager
def threads(model):
    """One thread for a tiny model, to which more cost more than they give; the count before is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if size(model) < 1_000_000 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def size(model):
    """The number of the model's parameters, without what --lora adds."""
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name)


def pick_dtype(model, dtype=None):
    """ "bf16" or "float32", for --dtype: by default bf16 where the hardware has it, except for models too small to gain."""
    if dtype:
        return dtype
    return "bf16" if size(model) >= 10_000_000 and has_bf16(model.device) else "float32"


def save(model, tokenizer, folder):
    """Save in Hugging Face layout, whole or not at all: AutoModelForSequenceClassification loads it with the same logits."""
    from w2s.parallel import whole_weights

    lora.merge(model)
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    tokenizer.model_max_length = model.w2s["max_len"]
    weights = None
    if world() > 1:
        weights = whole_weights(model)
    model.save_pretrained(temporary, state_dict=weights)
    tokenizer.save_pretrained(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)


# ---- texts to tokens


def encode(rows, tokenizer, model):
    """The rows, each with its "tokens", the token ids of its text; texts over the model's limit lose tokens from the front.

    No row is dropped, special tokens stay. Says how many texts were cut, and warns where most tokens are unknown.
    """
    texts, max_len = [row["text"] for row in rows], model.w2s["max_len"]
    tokens = tokenizer(texts, verbose=False).input_ids
    long = [i for i, ids in enumerate(tokens) if len(ids) > max_len]
    for i in long:
        tokens[i] = tokenizer(texts[i], truncation=True, max_length=max_len).input_ids
    empty = [row["id"] for row, ids in zip(rows, tokens) if not ids]
    if empty:
        raise BadInput(f"the tokenizer makes no tokens of the text of row {empty[0]!r}")
    if long:
        print(
            f"{len(long)} of {len(texts)} texts are longer than {max_len} tokens and lost their beginning (--max_len)"
        )
    check_tokens(tokens, tokenizer, model)
    return [row | {"tokens": ids} for row, ids in zip(rows, tokens)]


def check_tokens(tokens, tokenizer, model):
    """BadInput for a token that the model does not have; told where most tokens of these texts, lists of ids, are unknown."""
    highest, known = (
        max((max(ids) for ids in tokens if ids), default=0),
        model.get_input_embeddings().num_embeddings,
    )
    if highest >= known:
        raise BadInput(
            f"the tokenizer makes token {highest}, the model knows {known}: they do not belong together"
        )
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in tokens) / max(
        1, sum(map(len, tokens))
    )
    if unknown > 0.5:
        print(
            f"warning: {unknown:.0%} of the tokens are unknown to this tokenizer: was the model made for this task?"
        )


# ---- running


@torch.no_grad()
def predict(model, tokens, dtype=None, name=None, batch_tokens=16384, width=None, outputs=logits):
    """Logits [N, 2], or rewards [N, 1] (float32, on the CPU), of N texts given as lists of token ids.

    width: numbers for a text, where it is not the head's (a probe takes the head off, for features); outputs(model, tokens)
    gives them, by default logits.
    The texts are sorted by length into batches of at most batch_tokens tokens (counted as if padded). dtype: see
    pick_dtype; name: what the progress bar is called (default: no bar).
    """
    dtype, device = pick_dtype(model, dtype), model.device.type
    was_training = model.training
    model.eval()
    out = torch.zeros(len(tokens), width or model.config.num_labels)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    with tqdm(total=len(tokens), desc=name, unit="row", disable=None if name else True) as bar:
        while order:
            # the longest first: if memory is short, it is at once
            size = max(1, batch_tokens // len(tokens[order[-1]])) * world()
            batch, order = order[-size:], order[:-size]
            mine = batch[rank() :: world()]
            with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == "bf16"):
                said = outputs(
                    model, [tokens[i] for i in mine or batch[:1]]
                )  # who has none keeps the others company
            out[mine] = said.float().cpu()[: len(mine)]
            bar.update(len(batch))
    if world() > 1:
        out = out.to(model.device)
        dist.all_reduce(out)
    model.train(was_training)
    return out.cpu()


def probabilities(name, rows, head=None, max_len=None, device=None, dtype=None, bar=None):
    """P(label = 1) of each row, a list of floats, by the model in a folder or on the hub."""
    model, tokenizer = load(name, head, max_len, device)
    tokens = [row["tokens"] for row in encode(rows, tokenizer, model)]
    return predict(model, tokens, dtype, bar).double().softmax(dim=1)[:, 1].tolist()
