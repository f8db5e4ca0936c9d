"""What models.load() refuses or tells: models that would train on something else than they seem."""

import tempfile

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.models.auto import modeling_auto as auto
from transformers.utils import cached_file

from w2s.files import BadInput
from w2s.hub import first_line
from w2s.packing import logits, padded, reads


def not_loaded(name, error):
    """The BadInput for a model that transformers cannot load."""
    if "gated repo" in str(error):
        told = "accept its terms on its hub page, then set HF_TOKEN to a token that may read it"
        return BadInput(f"{name} is gated: {told}")
    if "trust_remote_code" in str(error):
        told = "brings code of its own (auto_map), which is never run"
        return BadInput(f"--model={name} {told}: give a model that transformers itself knows")
    return BadInput(f"--model={name} cannot be loaded: {first_line(error)}")


def kind(name, config, head, outputs):
    """ "own" (a classifier with as many outputs), "encoder" or "causal"; BadInput for the others."""
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
        told = f"{name} has a classification head of its own"
        raise BadInput(f"--head and --shots are for causal language models: {told}")
    if outputs and sort not in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise BadInput(f"{what}: transformers has no sequence classifier for this architecture")
    if not (encoder or own) and sort not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput(f"{what} is neither a causal language model nor an encoder")
    if outputs and not encoder:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        if not isinstance(getattr(model, "score", None), torch.nn.Linear):
            told = "transformers' classifier has no linear layer `score` on the last token"
            raise BadInput(f"{what}: {told}: give another model")
    return "own" if own else "encoder" if encoder else "causal"


def tokenizer_of(name, path, config):
    """The tokenizer that tokenizer.json describes; transformers rebuilds some by rules of its own.

    BadInput where it would do so again with the saved model: others would get other tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if file is None or not hasattr(tokenizer, "backend_tokenizer"):
        return tokenizer
    saved = Tokenizer.from_file(file)
    vocabulary = saved.get_vocab(with_added_tokens=False)
    words = sorted(vocabulary, key=vocabulary.get)[:: len(vocabulary) // 300 + 1]
    text = f"In 2023, it's 0.5% of 1,234!\n\tno  yes Straße {' '.join(words)}"

    def same(one):
        ids = [t.encode(text, add_special_tokens=False).ids for t in (one.backend_tokenizer, saved)]
        return ids[0] == ids[1]

    if same(tokenizer):
        return tokenizer
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if same(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)):
            print(f"{name}: its tokenizer.json is taken as it is, which transformers would change")
            return tokenizer
    told = f"transformers replaces the tokenizer.json of {config.model_type} models by rules of its"
    raise BadInput(f"--model={name}: {told} own, so that texts get other tokens than this one's")


def weights(name, model, info, whole):
    """True if the checkpoint has the head too; BadInput where it lacks a weight of the backbone.

    info: transformers' loading report. whole: the head must be there, and a pooler.
    """
    shapes = {key: (tuple(theirs), tuple(ours)) for key, theirs, ours in info["mismatched_keys"]}
    odd = sorted({*info["missing_keys"], *shapes})
    body = f"{model.base_model_prefix}."
    lacking = [key for key in odd if whole or key.startswith(body) and "pooler" not in key]
    if lacking:
        key = lacking[0]
        how = "is missing from its weights"
        if key in shapes:
            how = "has shape {} in its weights, {} by its config.json".format(*shapes[key])
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise BadInput(f"--model={name}: {key} {how}{more}; it would start at random")
    return not odd


@torch.no_grad()
def own_logits(model, causal, rows):
    """True if the classifier's two logits differ as the language model's for the tokens `rows`."""
    ids = torch.arange(1, 9)[None] % causal.get_input_embeddings().num_embeddings
    ours = model.score(causal.base_model(input_ids=ids).last_hidden_state[0, -1])
    own = causal(input_ids=ids).logits[0, -1, rows]
    return bool(torch.isclose(ours.diff(), own.diff(), rtol=1e-3, atol=1e-4))


def positions(model):
    """How many tokens the model has positions for, 10**9 if it sets no limit.

    RoBERTa and its kin count from the pad token's number on, so their first places are never used.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    for key, module in model.named_modules():
        if key.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = min(limit, module.num_embeddings - module.padding_idx - 1)
    return limit


@torch.no_grad()
def finite(name, model):
    """BadInput where a weight is NaN or infinite."""
    names, sums = zip(*((key, p.sum()) for key, p in model.named_parameters()))
    odd = (~torch.stack(sums).isfinite()).nonzero().flatten().tolist()
    if odd:
        raise BadInput(f"--model={name}: the weights are broken, {names[odd[0]]} is not finite")


@torch.no_grad()
def mask(name, model):
    """Told of an architecture that ignores the attention mask; for those that cannot run packed."""
    answer = logits if reads(model) is None else padded
    short, long = [3, 2], [1, 2, 3, 4] * 4
    alone, beside = answer(model, [short]), answer(model, [short, long])[:1]
    if not alone.isfinite().all():
        raise BadInput(f"--model={name}: its outputs are not finite; is its config.json right?")
    if (alone - beside).norm() > 1e-3 * alone.norm():
        told = "what it says of a text depends on the texts beside it in a batch"
        print(f"warning: {name} ({model.config.model_type}) ignores the attention mask: {told}")
