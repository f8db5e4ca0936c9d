"""What models.load() does about models that are not as usual; called for these alone."""

import tempfile

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from w2s import packing
from w2s.files import BadInput, first_line


def not_loaded(name, error):
    """The BadInput for a model that transformers cannot load."""
    told = f"cannot be loaded: {first_line(error)}"
    if "gated repo" in str(error):
        told = "is gated: accept its terms on its hub page, then set HF_TOKEN to a token of yours"
    if "trust_remote_code" in str(error):
        told = "brings code of its own (auto_map), which is never run: give another model"
    return BadInput(f"--model={name} {told}")


def tokenizer_as_it_is(name, path, config, same):
    """The tokenizer of a tokenizer.json that transformers would change.

    same(tokenizer): whether it makes the tokens of that file. BadInput where transformers would
    change it again with the saved model: others would get other tokens.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if same(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)):
            print(f"{name}: its tokenizer.json is taken as it is, which transformers would change")
            return tokenizer
    told = f"transformers replaces the tokenizer.json of {config.model_type} models by another"
    raise BadInput(f"--model={name}: {told}, which makes other tokens")


@torch.no_grad()
def check_mask(name, model):
    """Told of an architecture that ignores the attention mask; for those that cannot run packed."""
    answer = packing.logits if packing.reads(model) is None else packing.padded
    alone, beside = answer(model, [[3, 2]]), answer(model, [[3, 2], [1, 2, 3, 4] * 4])[:1]
    if not alone.isfinite().all():
        raise BadInput(f"--model={name}: its outputs are not finite; is its config.json right?")
    if (alone - beside).norm() > 1e-3 * alone.norm():
        told = "what it says of a text depends on the batch"
        print(f"warning: {name} ({model.config.model_type}) ignores the attention mask: {told}")
