"""What models.load() refuses or tells: models that would train on something else than they seem."""

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer
from transformers.models.auto import modeling_auto as auto
from transformers.utils import cached_file

from w2s import folders, oddities, packing
from w2s.files import BadInput, first_line

LARGE = 2**22  # numbers; larger matrices are left out when gradients are compared


def kind(name, config, head, outputs):
    """Of "own" (a classifier with as many outputs), "encoder", "causal"; BadInput for others."""
    sort, what = config.model_type, f"--model={name} ({config.model_type})"
    encoder = sort in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    classifier = "ForSequenceClassification" in str(config.architectures)
    own = classifier and config.num_labels == outputs
    if config.is_encoder_decoder:
        raise BadInput(f"{what} is an encoder-decoder: give a causal language model or an encoder")
    if not outputs and (encoder or classifier):
        is_a = "an encoder" if encoder else "a classifier or reward model"
        raise BadInput(f"{what} is {is_a}: generative fine-tuning needs a causal language model")
    if head and (encoder or own):
        raise BadInput(f"no --head or --shots: {what} has a classification head of its own")
    if outputs and sort not in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise BadInput(f"{what}: transformers has no sequence classifier for this architecture")
    return "own" if own else "encoder" if encoder else "causal"


def score(name, model):
    """BadInput for a causal model's classifier that is no linear `score` on the last token."""
    sort, linear = model.config.model_type, isinstance(getattr(model, "score", None), nn.Linear)
    if not linear and sort not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise BadInput(f"--model={name} ({sort}): transformers' classifier has no linear `score`")


def tokenizer_of(name, path, config):
    """The tokenizer of tokenizer.json as it is; transformers rebuilds some by rules of its own."""
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if file is None or not hasattr(tokenizer, "backend_tokenizer"):
        return tokenizer
    saved = Tokenizer.from_file(file)
    saved.no_truncation()
    vocabulary = saved.get_vocab(with_added_tokens=False)
    words = sorted(vocabulary, key=vocabulary.get)[:: len(vocabulary) // 300 + 1]
    text = f"In 2023, it's 0.5% of 1,234!\n\tno  yes Straße {' '.join(words)}"

    def same(one):
        one.backend_tokenizer.no_truncation()  # else the end alone is compared
        ids = [t.encode(text, add_special_tokens=False).ids for t in (one.backend_tokenizer, saved)]
        return ids[0] == ids[1]

    if same(tokenizer):
        return tokenizer
    return oddities.tokenizer_as_it_is(name, path, config, same)


def context(name, tokenizer, limit, asked, outputs):
    """BadInput where a context of `limit` tokens holds no text, or where prompts end (outputs=0).

    Told where it is shorter than what was asked for.
    """
    if limit <= tokenizer.num_special_tokens_to_add():
        raise BadInput(f"--max_len={asked} leaves no token of a text beside the special ones")
    if asked and limit < asked:
        print(f"{name} reads {limit} tokens at most, so --max_len={asked} is {limit}")
    if not outputs and tokenizer("a").input_ids[-1:] == [tokenizer.eos_token_id]:
        raise BadInput(f"--model={name}: its tokenizer ends every text, so nothing can follow one")


def read_weights(auto_class, name, path, config, whole):
    """(the model of an Auto class, whether the checkpoint has its head too); BadInput where it
    lacks a weight of the backbone, or (whole) of the head or pooler."""
    folders.check_size(name, path, auto_class, config)
    how = {"dtype": torch.float32, "trust_remote_code": False, "ignore_mismatched_sizes": True}
    how |= {"use_safetensors": True}  # no pickle is ever loaded
    model, info = auto_class.from_pretrained(path, config=config, output_loading_info=True, **how)
    odd = dict.fromkeys(info["missing_keys"], "is missing from its weights")
    for key, theirs, ours in info["mismatched_keys"]:
        odd[key] = f"has shape {tuple(theirs)} in its weights, {tuple(ours)} by its config.json"
    body = f"{model.base_model_prefix}."
    lacking = sorted(key for key in odd if whole or key.startswith(body) and "pooler" not in key)
    if lacking:
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise BadInput(f"--model={name}: {lacking[0]} {odd[lacking[0]]}{more}")
    return model, not odd


def set_pad_token(model, tokenizer, ends=()):
    """Give config and tokenizer the same pad token, none of `ends`, the last tokens of the texts:
    transformers' classifier reads the last token that is no pad token (RoBERTa counts from it)."""
    text, size = model.config.get_text_config(), model.get_input_embeddings().num_embeddings
    if hasattr(model, "score"):  # what the tokenizer itself appends ends every text
        ends = {*ends, *tokenizer("").input_ids[-1:]}
    usual = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    usual = [text.pad_token_id, *usual, *tokenizer.all_special_ids, *([] if ends else [0])]
    fits = [i for i in usual if i is not None and 0 <= i < size and i not in ends]
    fits = [i for i in fits if tokenizer.convert_ids_to_tokens(i) is not None]
    if fits:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(fits[0])
    elif len(tokenizer) < size:  # a row of the embedding that no token has
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    else:
        raise BadInput(f"texts end in {tokenizer.pad_token!r}, the pad token: choose another")
    model.config.pad_token_id = text.pad_token_id = tokenizer.pad_token_id


def check_tokens(tokens, tokenizer, model):
    """BadInput for a token that the model does not have; told where most tokens are unknown.
    A pad token that ends a text is changed."""
    known = model.get_input_embeddings().num_embeddings
    highest = max((max(ids) for ids in tokens if ids), default=0)
    if highest >= known:
        told = f"token {highest}, the model knows {known}: they do not belong together"
        raise BadInput(f"the tokenizer makes {told}")
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in tokens)
    share = unknown / max(1, sum(map(len, tokens)))
    if share > 0.5:
        print(f"warning: {share:.0%} of the tokens are unknown to this tokenizer")
    ends = {ids[-1] for ids in tokens if ids}
    if hasattr(model, "score") and model.config.pad_token_id in ends:
        set_pad_token(model, tokenizer, ends)


@torch.no_grad()
def own_logits(model, causal, rows):
    """True if the classifier's two logits differ as the language model's for the tokens `rows`."""
    size = causal.get_input_embeddings().num_embeddings
    ids = torch.arange(1, 9, device=causal.device)[None] % size
    ours = model.score(causal.base_model(input_ids=ids).last_hidden_state[0, -1])
    own = causal(input_ids=ids).logits[0, -1, rows]
    return bool(torch.isclose(ours.diff(), own.diff(), rtol=1e-3, atol=1e-4))


def positions(model):
    """How many tokens the model has positions for, 10**9 if it sets no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    for key, module in model.named_modules():  # RoBERTa and its kin count from the pad token on
        if key.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = min(limit, module.num_embeddings - module.padding_idx - 1)
    return limit


@torch.no_grad()
def finite(name, model):
    """BadInput where a weight is NaN or infinite."""
    odd = [key for key, p in model.named_parameters() if not p.sum().isfinite()]
    if odd:
        raise BadInput(f"--model={name}: the weights are broken, {odd[0]} is not finite")


def can_pack(model, max_len=1024):
    """True, with packed attention switched on, if this architecture computes the same packed.

    Tried out: our attention must be called in every layer, and hidden states and gradients must be
    those of padded texts. One is longer than any window in the configuration (below max_len).
    """
    if packing.reads(model) is None:
        return False
    text, usual, called = model.config.get_text_config(), model.config._attn_implementation, set()
    windows = [n for key, n in text.to_dict().items() if "window" in key or "chunk" in key]
    window = max((n for n in windows if type(n) is int and 0 < n < max_len), default=0)
    long = max(9, min(window + 9, max_len))
    wanted = tried(model, packing.padded, long)

    def counted(module, *args, **kwargs):
        called.add(module)
        return packing.packed_attention(module, *args, **kwargs)

    try:
        packing.AttentionInterface.register("packed", counted)
        model.set_attn_implementation("packed")
        same = close(tried(model, packing.packed, long), wanted)
        taken = model.config._attn_implementation == "packed"
        if same and taken and len(called) == text.num_hidden_layers:
            model.varlen = model.device.type == "cuda" and kernel_works(model, wanted, long)
            return True
    except Exception:  # an architecture that does not hand unknown keywords down to its attention
        pass
    finally:
        packing.AttentionInterface.register("packed", packing.packed_attention)
    model.set_attn_implementation(usual)
    return False


def kernel_works(model, wanted, long):
    """True if torch's kernel, in bf16, gives what is wanted, tried() of padded texts in float32."""
    model.varlen = True
    try:
        with torch.autocast("cuda", torch.bfloat16):
            answers = tried(model, packing.packed, long), wanted
    except RuntimeError as error:  # a card, or a size of heads, that it was not written for
        print(f"torch's kernel for packed texts does not run here: {first_line(error)}")
        return False
    got, oracle = (torch.cat([hidden.flatten(), *map(torch.flatten, g)]) for hidden, g in answers)
    return bool((got - oracle).norm() <= 0.1 * oracle.norm())


def tried(model, run, long):
    """(hidden states [6, H], the parameters' gradients) of six texts run packed or padded."""
    generator, size = torch.Generator().manual_seed(0), model.get_input_embeddings().num_embeddings
    lengths = (5, 3, 9, 9, long, 4)
    tokens = [torch.randint(size, (n,), generator=generator).tolist() for n in lengths]
    weights = [p for p in model.parameters() if p.requires_grad and p.numel() <= LARGE]
    with torch.enable_grad():
        hidden = run(model, tokens[:4])
        toward = torch.randn(hidden.shape, generator=generator).to(hidden)
        gradients = torch.autograd.grad((hidden * toward).sum(), weights, allow_unused=True)
    with torch.no_grad():
        hidden = torch.cat([hidden.detach(), run(model, tokens[4:])])
    return hidden, [torch.zeros(()).to(p) if g is None else g for p, g in zip(weights, gradients)]


def close(got, wanted):
    """True if two answers of tried() are the same to rounding."""
    (hidden, gradients), (oracle, oracles) = got, wanted
    noise = 1e-5 * max(g.norm() for g in oracles)  # all that a key's bias has for a gradient
    return bool(((hidden - oracle).norm(dim=1) <= 1e-3 * oracle.norm(dim=1)).all()) and all(
        (g - o).norm() <= 1e-2 * o.norm() + noise for g, o in zip(gradients, oracles)
    )
