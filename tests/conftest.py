"""Tiny models with random weights in Hugging Face layout, for tests that need no download."""

import gc
import importlib
import os
import signal

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch: see w2s/cli.py
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = (
    "1"  # no test may reach for the hub; those about the hub say so themselves
)

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it


def pytest_collection_finish():
    """What is imported by now stays: a full collection, half a second each, need not look at it."""
    gc.freeze()


VOCABULARY = [
    "!",
    "<s>",
    "<unk>",
    "</s>",
    "0",
    "1",
    *(chr(c) for c in range(ord("a"), ord("z") + 1)),
    *"23456789.,?",
]
SIZE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
ARCHITECTURES = {
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "llama": SIZE | {"num_key_value_heads": 2},
    "qwen2": SIZE | {"num_key_value_heads": 2},
    "qwen3": SIZE | {"num_key_value_heads": 2, "head_dim": 8},
    "gpt_neox": SIZE,
    "gemma3_text": SIZE
    | {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mistral": SIZE | {"num_key_value_heads": 2, "sliding_window": 16},
    "opt": {
        "vocab_size": 64,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
    }
    | {"num_attention_heads": 4},
    "bert": SIZE,
    "distilbert": {"vocab_size": 64, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
}
PADDED = {
    "roberta": SIZE | {"max_position_embeddings": 514},
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gemma2": SIZE | {"num_key_value_heads": 2, "head_dim": 8},
}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
ODD = {  # each has something of its own that load() must find out
    "gpt_neo": {"vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
    | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    "gptj": GPT | {"rotary_dim": 8},
    "phimoe": SIZE | {"num_key_value_heads": 2, "num_local_experts": 2, "sliding_window": 16},
    "doge": SIZE | {"num_key_value_heads": 2, "keep_window_size": 16},
    "phi": SIZE,
    "qwen2_moe": SIZE | {"num_key_value_heads": 2} | EXPERTS,
    "convbert": SIZE | {"embedding_size": 32},
    "camembert": SIZE | {"max_position_embeddings": 66},
    "mpnet": SIZE | {"max_position_embeddings": 66},
    "xlnet": {"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "modernbert-decoder": SIZE,
    "mamba": SIZE,
}
ENCODERS = ("bert", "distilbert", "roberta", "convbert", "camembert", "mpnet")


def make_model(folder, architecture):
    """A model with random weights and a tokenizer of letters, whose id 0 is "!" as in GPT-2's."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        PreTrainedTokenizerFast,
        Qwen2Tokenizer,
    )

    torch.manual_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 2}
    config = AutoConfig.for_model(
        architecture, **(ARCHITECTURES | PADDED | ODD)[architecture], **ids
    )
    model = (
        AutoModelForMaskedLM if architecture in ENCODERS else AutoModelForCausalLM
    ).from_config(config)
    with (
        torch.no_grad()
    ):  # initial weights are so small that a leak between texts would hardly show
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(
                    std=0.5
                    if "embed" in name or name.endswith(("wte.weight", "wpe.weight"))
                    else 0.25
                )
    model.save_pretrained(folder)
    letters = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>")
    )
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if architecture in ENCODERS:
        letters.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 3)]
        )
    how = {"unk_token": "<unk>", "eos_token": "</s>", "model_max_length": 400}
    if architecture == "qwen2":  # transformers lets it have no other
        words = {word: i for i, word in enumerate(VOCABULARY)}
        tokenizer = Qwen2Tokenizer(vocab=words, merges=[], pad_token="<unk>", **how)
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, **how)
    tokenizer.save_pretrained(folder)
    return str(folder)


# the least that a card of ours holds
# what takes long and guards little that faster tests do not
slow = pytest.mark.skipif("W2S_SLOW" not in os.environ, reason="slow: W2S_SLOW=1 make test runs it")
CARD = {"stage": "label", "setting": "texts", "finished": True, "args": {}, "inputs": {}}
CARD |= {"data": None}


@pytest.fixture
def command(monkeypatch):
    """command("train_weak.py", "--out=x") does in this process what the shell would in another."""
    from w2s import cli
    from w2s.files import HERE

    def call(script, *words):
        monkeypatch.setattr("sys.argv", [str(HERE / script), *words])
        cli.run(importlib.import_module(script.removesuffix(".py").rpartition("/")[2]).main)

    return call


@pytest.fixture(scope="session")
def apart():
    """apart(words, cwd, env) runs `python WORDS` in a process that has imported torch."""
    from apart import server

    with server("w2s.loop", "transformers.models.llama.modeling_llama", "fire") as start:
        yield start


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny("gpt2") is the folder of a tiny GPT-2 with random weights."""
    made = {}

    def get(architecture):
        if architecture not in made:
            made[architecture] = make_model(tmp_path_factory.mktemp(architecture), architecture)
        return made[architecture]

    return get
