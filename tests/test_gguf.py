"""--model=FILE.gguf: the model folder that is made of it has the weights that were written."""

import sys
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from w2s import files, folders, models
from w2s.files import BadInput

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "embed_tokens": "token_embd",
    "post_attention_layernorm": "ffn_norm", "model.norm": "output_norm", "lm_head": "output",
    "model.": "", "layers.": "blk.",
}  # fmt: skip
WORDS = ["<|endoftext|>", *map(chr, range(33, 127)), "Ġ", "ab"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(a .gguf file of a tiny Qwen2, the model itself)."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = Qwen2Config(vocab_size=len(WORDS), tie_word_embeddings=False, **sizes, **heads)
    net = Qwen2ForCausalLM(config).eval()
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] + [1] * (len(WORDS) - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    for name, x in net.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, x.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file, net


def test_a_gguf_file_becomes_a_folder_with_its_weights_once(written, tmp_path, monkeypatch, capsys):
    file, net = written
    monkeypatch.chdir(tmp_path)
    folder, stamp = folders.find_model(str(file))
    assert stamp == files.sha256(file) and folders.model_input(str(file)) == {"model": stamp}
    assert {path.name for path in Path(folder).iterdir()} >= {"model.safetensors", "config.json"}
    tokens = torch.tensor([[5, 17, 40, 3, 95]])
    with torch.no_grad():
        read = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        torch.testing.assert_close(read, net(tokens).logits, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(folder)("ab 1").input_ids == [
        WORDS.index(c) for c in ("ab", "Ġ", "1")
    ]
    assert capsys.readouterr().out.count("becomes the model folder") == 1
    loaded, _ = models.load(str(file))
    rows = net.lm_head.weight[[WORDS.index("0"), WORDS.index("1")]]
    torch.testing.assert_close(loaded.score.weight, rows)


def test_of_several_processes_the_first_makes_the_folder(written, tmp_path, monkeypatch):
    file, _ = written
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "rank", lambda: 1)
    folder = Path(f"runs/gguf/tiny-{files.sha256(file)[:12]}")
    monkeypatch.setattr(folders.time, "sleep", lambda _: folder.mkdir(parents=True))
    assert folders.find_model(str(file))[0] == folder and not [*folder.iterdir()]


def test_a_tokenizer_that_is_another_once_saved_is_refused(written, tmp_path, monkeypatch):
    """Gemma's by transformers 5.17: the words fell into letters, and a student hardly learned."""
    monkeypatch.chdir(tmp_path)
    read = AutoTokenizer.from_pretrained

    def letters(*words, **how):
        tokenizer = read(*words, **how)
        return tokenizer if "gguf_file" in how else lambda text: tokenizer(" ".join(text))

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", letters)
    with pytest.raises(BadInput, match="tiny.gguf: this transformers does not keep its tokenizer"):
        folders.find_model(str(written[0]))
    assert not [*tmp_path.glob("runs/gguf/*")]


def test_what_is_no_gguf_file_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="--model=none.gguf: there is no such file"):
        folders.find_model("none.gguf")
    Path("odd.gguf").write_text("hello")
    with pytest.raises(BadInput, match="--model=odd.gguf cannot be loaded: .*not a GGUF file"):
        folders.find_model("odd.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(folders.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="to read --model=odd.gguf: pip install gguf accelerate"):
        folders.find_model("odd.gguf")
    assert [path.name for path in Path(".").rglob("*")] == ["odd.gguf"]
