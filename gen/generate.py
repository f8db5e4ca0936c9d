"""Completions that a language model writes, greedily or drawn, with transformers' own generate().

It keeps keys and values between tokens, which our packed attention does not: for as long as it
writes, a model has torch's attention, and prompts are padded on the left.
"""

import contextlib

import torch
from transformers import GenerationConfig

from w2s import models, packing
from w2s.files import rank, world
from w2s.parts import answers, together

BATCH_TOKENS = 16384  # of a batch, prompts and completions counted as if padded


def write(
    model, prompts, max_new, *, end=None, samples=1, temperature=None, top_p=None, seed=0,
    dtype=None, name=None,
):  # fmt: skip
    """`samples` completions of each prompt: [N][samples] lists of token ids.

    prompts: N lists of token ids. A completion has at most max_new tokens and is over with the
    token `end`, which it then holds. temperature: None takes the likeliest token each time;
    otherwise tokens are drawn, among the likeliest that together have probability top_p (Holtzman
    et al. 2020). The same seed gives the same completions on the same machine.
    """
    drawn = {"temperature": temperature, "top_p": 1.0 if top_p is None else top_p, "top_k": 0}
    config = GenerationConfig(
        max_new_tokens=max_new, do_sample=temperature is not None, num_return_sequences=samples,
        pad_token_id=model.config.pad_token_id, eos_token_id=end, use_cache=True,
        **(drawn if temperature is not None else {}),
    )  # fmt: skip
    prompts = prompts[rank() :: world()]
    half = models.pick_dtype(model, dtype) == "bf16"
    devices = [model.device] if model.device.type == "cuda" else []

    def run(batch):
        ids, mask = pad_left([prompts[i] for i in batch], model)
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            out = model.generate(ids, attention_mask=mask, generation_config=config)
        return out[:, ids.shape[1] :]

    def size(longest):
        return BATCH_TOKENS // ((longest + max_new) * samples)

    how = half, max_new, end, samples, temperature, top_p, seed, BATCH_TOKENS
    with writing(model, config), torch.random.fork_rng(devices), models.threads(model):
        torch.manual_seed(seed)
        parts = answers(model, prompts, size, run, how, name, draws=True)
    said = [None] * len(prompts)
    for batch, out in parts:
        new = [ids[: ids.index(end) + 1] if end in ids else ids for ids in out.tolist()]
        for place, i in enumerate(batch):
            said[i] = new[place * samples : (place + 1) * samples]
    return together("dealt", said)


@contextlib.contextmanager
def writing(model, config):
    """The model with an attention that keeps keys and values, and no habits but config's."""
    usual, habits = model.config._attn_implementation, model.generation_config
    if model.w2s["packed"]:
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = habits
        model.set_attn_implementation(usual)


def pad_left(prompts, model):
    """(ids [N, longest], attention mask [N, longest]) on the model's device."""
    ids, mask, _ = packing.pad(model, [one[::-1] for one in prompts])  # which pads on the right
    return ids.flip(1), mask.flip(1)
