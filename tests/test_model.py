"""The model: packed is padded, the head starts where it should, what is saved anybody loads."""

import copy
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ARCHITECTURES, CARD, ENCODERS, PADDED
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from w2s import checks, loop, lora, models, packing, records
from w2s.files import BadInput
from w2s.losses import conf, xent

ROWS = [{"id": str(i), "text": "ab0c1!,z" * i + "xyz!"[: i % 5 + 1]} for i in range(12)]
LOADED = {}


def random_tokens(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 64, (length,), generator=generator).tolist() for length in lengths]


def load(tiny, architecture, **options):
    """A loaded tiny model whose head is random, so that its logits tell hidden states apart."""
    key = (architecture, *options.items())
    if key not in LOADED:
        net, tokenizer = models.load(tiny(architecture), device="cpu", **options)
        generator = torch.Generator().manual_seed(0)
        for name, p in net.named_parameters():
            if p.dim() > 1 and any(head in name for head in ("score", "classifier", "pooler")):
                torch.nn.init.normal_(p, std=0.3, generator=generator)
        LOADED[key] = net, tokenizer
    return copy.deepcopy(LOADED[key])


def changed(tiny, architecture, folder, change=None, **settings):
    """A copy of a tiny model whose configuration and weights, {name: tensor}, were changed."""
    shutil.copytree(tiny(architecture), folder)
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    if change:
        weights = load_file(folder / "model.safetensors")
        save_file(change(weights) or weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def train(net, rule=xent, steps=10, lr=1e-2):
    """A few steps of AdamW on six texts, without the loop; the same in every process."""
    tokens = random_tokens((5, 7, 9, 4, 30, 2))
    weak = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.4, 1.0])
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=lr)
    net.train()
    for step in range(steps):
        rule(packing.logits(net, tokens), weak, step / steps).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    net.eval()


# ---- packed and padded


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_equals_padded_for_texts_of_1_to_300_tokens_gradients_too(tiny, architecture):
    net, _ = load(tiny, architecture)
    assert net.w2s["packed"], "this architecture should run packed"
    tokens = random_tokens((300, 1, 2, 3, 17, 40, 40, 40, 120, 1, 299))
    logits, gradients = [], []
    for implementation in ("packed", "sdpa"):
        net.set_attn_implementation(implementation)
        net.w2s["packed"] = implementation == "packed"
        net.zero_grad()
        logits.append(packing.logits(net.double().train(), tokens))
        logits[-1].square().sum().backward()
        grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        gradients.append(torch.cat(grads))
    assert logits[1].std() > 0.05
    # some norms compute in float32 whatever the weights
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_every_layer_runs_our_attention_and_a_text_does_not_see_its_neighbours(
    tiny, architecture, monkeypatch
):
    """transformers would also understand restarted positions, by a dense mask: right, and slow."""
    net, _ = load(tiny, architecture)
    tokens = random_tokens((5, 8, 8, 20))
    together = packing.logits(net, tokens)
    alone = torch.cat([packing.logits(net, [ids]) for ids in tokens])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    calls = []
    monkeypatch.setattr(
        packing,
        "scaled_dot_product_attention",
        lambda *a, **k: calls.append(1) or torch.zeros_like(a[0]),
    )
    packing.logits(net, random_tokens((5, 5, 5)))
    assert len(calls) == 2  # one run of equal lengths in each of two layers


@pytest.mark.parametrize("architecture", [*PADDED, "gpt_neo", "gptj", "phimoe", "doge"])
@torch.no_grad()
def test_architectures_that_cannot_run_packed_are_found_out_and_run_padded(tiny, architecture):
    """GPT-Neo and GPT-J never call our attention, PhiMoE and Doge keep windows to themselves."""
    net, _ = load(tiny, architecture)
    assert not net.w2s["packed"] and net.config._attn_implementation != "packed"
    if architecture == "doge":  # in transformers 5.17 its logits depend on the batch, which is told
        return
    tokens = random_tokens((5, 8, 20))
    alone = torch.cat([packing.logits(net, [ids]) for ids in tokens])
    torch.testing.assert_close(packing.logits(net, tokens), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ask", ["called", "window", "gradient"])
def test_packing_is_not_believed_where_it_only_gives_the_right_answer(tiny, ask, monkeypatch):
    net, _ = load(tiny, "mistral")
    ours = packing.packed_attention
    if ask == "called":  # a layer that attends by itself, over one dense mask
        net.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    elif ask == "window":  # its 16 tokens are not handed down
        monkeypatch.setattr(
            packing, "packed_attention", lambda *a, sliding_window=None, **k: ours(*a, **k)
        )
    else:
        monkeypatch.setattr(
            packing, "packed_attention", lambda m, q, *a, **k: ours(m, q.detach(), *a, **k)
        )
    net.set_attn_implementation("sdpa")
    assert not checks.can_pack(net)


@pytest.mark.parametrize("architecture", ["convbert", "roberta"])
def test_an_architecture_that_ignores_the_mask_is_told(tiny, architecture, capsys):
    models.load(tiny(architecture))
    told = "ignores the attention mask" in capsys.readouterr().out
    assert told == (architecture == "convbert")


@torch.no_grad()
def test_the_last_token_is_read_by_position_not_by_id(tiny):
    """openai/weak-to-strong counts the ids that are not 0, but 0 is "!" in GPT-2's vocabulary."""
    net, tokenizer = load(tiny, "gpt2")
    ends_in_bang, ends_in_pad = (
        tokenizer("wow!").input_ids,
        tokenizer("wow").input_ids + [tokenizer.pad_token_id],
    )
    assert ends_in_bang[-1] == 0
    for packed in (True, False):
        net.w2s["packed"] = packed
        net.set_attn_implementation("packed" if packed else "sdpa")
        for tokens in (ends_in_bang, ends_in_pad):
            extra = (
                {"texts": {"groups": packing.groups([len(tokens)], 32, net.device)}}
                if packed
                else {}
            )
            hidden = net.base_model(torch.tensor([tokens]), **extra).last_hidden_state
            torch.testing.assert_close(
                packing.logits(net, [tokens, [5]])[0],
                net.score(hidden[0, -1]),
                rtol=1e-5,
                atol=1e-5,
            )


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a not in ENCODERS])
def test_the_head_starts_from_the_unembedding_rows_of_0_and_1(tiny, architecture):
    net, tokenizer = models.load(tiny(architecture))
    causal = AutoModelForCausalLM.from_pretrained(tiny(architecture))
    rows = causal.get_output_embeddings().weight[tokenizer.convert_tokens_to_ids(["0", "1"])]
    assert (
        net.w2s["head"] == "unembedding"
        and torch.equal(net.score.weight, rows)
        and net.score.bias is None
    )
    # so an untrained model answers as the language model would
    tokens = random_tokens((7, 3))
    with torch.no_grad():
        said = torch.stack([causal(torch.tensor([ids])).logits[0, -1, [4, 5]] for ids in tokens])
        torch.testing.assert_close(packing.logits(net, tokens), said, rtol=1e-4, atol=1e-4)
    assert not models.load(tiny(architecture), head="zero")[0].score.weight.any()


def test_without_tokens_0_and_1_the_head_is_zero_and_asking_for_them_is_told(tiny, tmp_path):
    AutoModelForCausalLM.from_pretrained(tiny("llama")).save_pretrained(tmp_path)
    tokenizer = (AutoTokenizer.from_pretrained(tiny("llama"))).backend_tokenizer.to_str()
    (tmp_path / "tokenizer.json").write_text(
        tokenizer.replace('"0":', '"zero":').replace('"1":', '"one":')
    )
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}'
    )
    net, tokenizer = models.load(str(tmp_path))
    assert (
        net.w2s["head"] == "zero" and not net.score.weight.any() and tokenizer.pad_token == "<unk>"
    )
    with pytest.raises(BadInput, match='has no tokens "0" and "1"; use --head=zero'):
        models.load(str(tmp_path), head="unembedding")


def test_encoders_keep_their_own_head_and_refuse_another(tiny):
    net, _ = models.load(tiny("bert"), seed=3)
    again, _ = models.load(tiny("bert"), seed=3)
    other, _ = models.load(tiny("bert"), seed=4)
    assert torch.equal(net.classifier.weight, again.classifier.weight)
    assert not torch.equal(net.classifier.weight, other.classifier.weight)
    with pytest.raises(BadInput, match="has a classification head of its own"):
        models.load(tiny("bert"), head="unembedding")


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "distilbert", "llama", "roberta"])
def test_dropout_is_off_in_training_too(tiny, architecture):
    net, _ = load(tiny, architecture)
    assert all(m.p == 0 for m in net.modules() if isinstance(m, torch.nn.Dropout))
    tokens = random_tokens((5, 9))
    net.train()
    assert torch.equal(packing.logits(net, tokens), packing.logits(net, tokens))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *PADDED])
@torch.no_grad()
def test_what_is_saved_transformers_loads_with_the_same_logits(tiny, architecture, tmp_path):
    net, tokenizer = load(tiny, architecture, max_len=60)
    rows = models.encode(ROWS, tokenizer, net)
    wanted = models.predict(net, [row["tokens"] for row in rows], "float32")
    models.save(net, tokenizer, tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert theirs.config.pad_token_id == their_tokenizer.pad_token_id is not None
    for row, logits in zip(ROWS, wanted):
        batch = their_tokenizer(row["text"], truncation=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
        torch.testing.assert_close(theirs(**batch).logits[0], logits, rtol=1e-5, atol=1e-5)
    ours, _ = models.load(str(tmp_path / "model"))
    assert ours.w2s["head"] == "its own" and ours.w2s["max_len"] == 60
    torch.testing.assert_close(
        models.predict(ours, [row["tokens"] for row in rows]), wanted, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_long_texts_lose_their_beginning_and_no_row_is_dropped(tiny, architecture, capsys):
    """openai/weak-to-strong drops them, by tokenizer: models are scored on different test sets."""
    net, tokenizer = load(tiny, architecture, max_len=10)
    rows = models.encode(
        [{"id": "a", "text": "abcdefghijklmnop"}, {"id": "b", "text": "ab"}], tokenizer, net
    )
    special = 2 if architecture == "bert" else 0
    kept = tokenizer.convert_ids_to_tokens(rows[0]["tokens"])
    assert len(rows) == 2 and len(kept) == 10
    assert kept[special // 2 : 10 - special // 2] == list("abcdefghijklmnop")[-(10 - special) :]
    assert "1 of 2 texts are longer than 10 tokens" in capsys.readouterr().out


def test_the_models_own_limit_bounds_max_len(tiny):
    assert (
        models.load(tiny("gpt2"))[0].w2s["max_len"] == 400
    )  # the tokenizer's; positions would go to 512
    assert models.load(tiny("gpt2"), max_len=7)[0].w2s["max_len"] == 7


def test_mostly_unknown_tokens_are_told(tiny, capsys):
    net, tokenizer = load(tiny, "llama")
    models.encode([{"id": "a", "text": "ÄÖÜ ÄÖÜ a"}], tokenizer, net)
    assert "of the tokens are unknown to this tokenizer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("./nowhere", "there is no such folder"),
        ("a/b/c", "there is no such folder"),
        ("facts", "no config.json"),
        ("not a name!", "neither a folder nor a name that the hub could have"),
    ],
)
def test_a_model_that_is_not_there_is_told(name, told):
    with pytest.raises(BadInput, match=told):
        models.load(name)


def test_a_model_that_cannot_be_loaded_is_told_in_one_line(tiny, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "none_of_this_world"}')
    shutil.copy(f"{tiny('llama')}/model.safetensors", tmp_path)
    with pytest.raises(BadInput, match="cannot be loaded") as error:
        models.load(str(tmp_path))
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    AutoTokenizer.from_pretrained(tiny("llama")).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="is an encoder-decoder"):
        models.load(str(tmp_path))
    with pytest.raises(BadInput, match="--device=tpu cannot be used here"):
        models.load(tiny("llama"), device="tpu")


def test_a_tokenizer_and_a_model_that_do_not_belong_together_are_told(tiny):
    net, tokenizer = load(tiny, "llama")
    net.resize_token_embeddings(5)
    with pytest.raises(
        BadInput, match="makes token .*, the model knows 5: they do not belong together"
    ):
        models.encode([{"id": "1", "text": "abcdefgh"}], tokenizer, net)


# ---- what a checkpoint lacks, and what it has too much of


def without(*words):
    return lambda weights: {k: v for k, v in weights.items() if not any(w in k for w in words)}


def renamed(weights):
    return {f"x.{key}": value for key, value in weights.items()}


def narrow(weights):
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(60, 32)


def broken(weights):
    weights["model.norm.weight"][3] = math.nan


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("layers.1.mlp.up"), "model.layers.1.mlp.up_proj.weight is missing from its weigh"),
        (without("layers.1."), r"model.layers.1.* \(and 8 more\)"),
        (renamed, "is missing from its weights"),
        (narrow, r"has shape \(60, 32\) in its weights, \(64, 32\) by its config.json"),
        (broken, "model.norm.weight is not finite"),
    ],
)
@pytest.mark.parametrize("outputs", [2, 0])
def test_weights_that_do_not_fit_the_configuration_are_told(tiny, tmp_path, change, told, outputs):
    folder = changed(tiny, "llama", tmp_path / "m", change)
    with pytest.raises(BadInput, match=told):
        models.load(folder, outputs=outputs)


def test_a_checkpoint_without_unembedding_gets_a_head_of_zeros(tiny, tmp_path, capsys):
    """A reward model given as --model: its head would be random, and be called unembedding."""
    folder = changed(tiny, "llama", tmp_path / "m", without("lm_head"))
    net, _ = models.load(folder)
    assert net.w2s["head"] == "zero" and not net.score.weight.any()
    assert "has no unembedding (lm_head): the head starts at zero" in capsys.readouterr().out
    with pytest.raises(BadInput, match="has no unembedding"):
        models.load(folder, head="unembedding")
    for lm in ({"outputs": 0}, {"head": "answers"}):
        with pytest.raises(BadInput, match="lm_head.weight is missing"):
            models.load(folder, **lm)
    models.load(changed(tiny, "gpt2", tmp_path / "tied", without("lm_head")), head="unembedding")


def test_a_run_whose_head_is_missing_is_refused_and_a_new_pooler_is_not(tiny, tmp_path):
    net, tokenizer = load(tiny, "llama")
    models.save(net, tokenizer, tmp_path / "run")
    weights = without("score")(load_file(tmp_path / "run" / "model.safetensors"))
    save_file(weights, tmp_path / "run" / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match="score.weight is missing"):
        models.load(str(tmp_path / "run"))
    models.load(tiny("bert"))  # a masked language model, which has none
    with pytest.raises(BadInput, match="bert.encoder.layer.0.*is missing"):
        models.load(changed(tiny, "bert", tmp_path / "m", without("layer.0.attention.self.key")))


# ---- odd models: each in one line


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("xlnet", r"\(xlnet\): transformers' classifier has no linear `score`"),
        ("modernbert-decoder", r"\(modernbert-decoder\): transformers' classifier has no linear"),
        ("mamba", r"\(mamba\): transformers has no sequence classifier for this architecture"),
    ],
)
def test_an_architecture_that_cannot_be_used_is_named(tiny, architecture, told):
    with pytest.raises(BadInput, match=told):
        models.load(tiny(architecture))


def test_a_projection_behind_the_body_is_no_obstacle(tiny, tmp_path):
    """OPT-350m's embedding and output are narrower than its layers."""
    config = AutoModelForCausalLM.from_pretrained(tiny("opt")).config
    config.word_embed_proj_dim, config.do_layer_norm_before = 16, False
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    AutoTokenizer.from_pretrained(tiny("opt")).save_pretrained(tmp_path / "m")
    net, tokenizer = models.load(str(tmp_path / "m"))
    assert net.score.in_features == 16 and net.w2s["packed"]
    models.save(net, tokenizer, tmp_path / "run")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    ids = random_tokens((7,))
    with torch.no_grad():
        torch.testing.assert_close(theirs(torch.tensor(ids)).logits, packing.logits(net, ids))


@pytest.mark.parametrize("architecture", ["camembert", "mpnet"])
def test_positions_behind_the_pad_token_are_not_counted(tiny, architecture, tmp_path):
    """RoBERTa's table of 514 positions holds 512: where the tokenizer sets no limit, ours does."""
    folder = Path(changed(tiny, architecture, tmp_path / "m"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    net, tokenizer = models.load(str(folder))
    assert net.w2s["max_len"] == 66 - net.config.pad_token_id - 1 or architecture == "mpnet"
    rows = models.encode([{"id": "1", "text": "ab" * 99}], tokenizer, net)
    assert len(rows[0]["tokens"]) == net.w2s["max_len"]
    assert models.predict(net, [rows[0]["tokens"], [5, 6]]).isfinite().all()


@pytest.mark.parametrize("pad", [64, -1, 63])
def test_a_pad_token_outside_the_vocabulary_is_replaced(tiny, tmp_path, pad):
    net, tokenizer = models.load(changed(tiny, "llama", tmp_path / "m", pad_token_id=pad))
    assert 0 <= net.config.pad_token_id < len(tokenizer) < 64


def test_checkpointing_where_it_is_not_supported_is_told_before_anything_is_written(tiny, tmp_path):
    net, _ = load(tiny, "mpnet")
    card = CARD | {"args": {"checkpointing": True}}
    with pytest.raises(BadInput, match="--checkpointing: transformers cannot recompute .*mpnet"):
        records.begin(tmp_path / "run", card, net, (), (), {})
    assert not (tmp_path / "run").exists()
    records.begin(tmp_path / "run", card, load(tiny, "llama")[0], (), (), {})


def test_code_in_a_model_folder_is_never_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("a question on the terminal"))
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    folder = changed(tiny, "llama", tmp_path / "m", auto_map=code, model_type="mine")
    (tmp_path / "m" / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(
        BadInput, match=r"m brings code of its own \(auto_map\), which is never run"
    ):
        models.load(folder)


@pytest.mark.parametrize(
    "settings", [{"rms_norm_eps": "x"}, {"num_hidden_layers": "two"}, {"rms_norm_eps": math.nan}]
)
def test_a_configuration_that_makes_no_sense_is_told_in_one_line(tiny, tmp_path, settings):
    with pytest.raises(BadInput) as error:
        models.load(changed(tiny, "llama", tmp_path / "m", **settings))
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_transformers_would_replace_is_refused_or_kept(tiny, tmp_path, capsys):
    """transformers 5 builds a tokenizer of its own for every Qwen2, whatever is in the file."""
    folder = Path(changed(tiny, "qwen2", tmp_path / "m"))
    shutil.copy(Path(tiny("llama")) / "tokenizer.json", folder)
    with pytest.raises(BadInput, match="replaces the tokenizer.json of qwen2 models"):
        models.load(str(folder))
    folder = Path(changed(tiny, "llama", tmp_path / "llama"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    net, tokenizer = models.load(str(folder))
    assert "its tokenizer.json is taken as it is" in capsys.readouterr().out
    models.save(net, tokenizer, tmp_path / "run")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "run")
    wanted = AutoTokenizer.from_pretrained(tiny("llama"))
    text = "ab, 2023!"
    assert tokenizer(text).input_ids == theirs(text).input_ids == wanted(text).input_ids


@pytest.mark.parametrize("appends", [True, False])
@torch.no_grad()
def test_no_text_ends_in_the_pad_token_of_a_saved_model(tiny, appends, tmp_path):
    """transformers' head reads the last token that is not the pad token: here the one before it."""
    net, tokenizer = load(tiny, "llama")
    if appends:  # a tokenizer that appends end-of-text, which is its pad token too
        folder = Path(changed(tiny, "llama", tmp_path / "m", pad_token_id=3))
        rules = json.loads((folder / "tokenizer.json").read_text())
        single = [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}},
        ]
        end = {"id": "</s>", "ids": [3], "tokens": ["</s>"]}
        rules["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": single,
                                   "special_tokens": {"</s>": end}}  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(rules))
        net, tokenizer = models.load(str(folder))
        torch.nn.init.normal_(net.score.weight, std=0.3)
    last = "" if appends else "Ä"  # the pad token is <unk>
    rows = models.encode([{"id": r["id"], "text": r["text"] + last} for r in ROWS], tokenizer, net)
    ends = {row["tokens"][-1] for row in rows}
    assert ends == ({3} if appends else {2})
    models.save(net, tokenizer, tmp_path / "run")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert theirs.config.pad_token_id == their_tokenizer.pad_token_id not in ends
    batch = their_tokenizer([r["text"] + last for r in ROWS], return_tensors="pt", padding=True)
    wanted = models.predict(net, [row["tokens"] for row in rows])
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}
    torch.testing.assert_close(theirs(**batch).logits, wanted, rtol=1e-4, atol=1e-4)


def test_texts_that_end_in_every_special_token_get_a_new_one_or_are_refused(tiny):
    net, tokenizer = load(tiny, "llama")
    models.check_tokens([[5, 2], [7, 3]], tokenizer, net)
    assert net.config.pad_token_id == tokenizer.pad_token_id == len(tokenizer) - 1 < 64
    net, tokenizer = load(tiny, "llama")
    net.resize_token_embeddings(len(tokenizer))
    with pytest.raises(BadInput, match="texts end in .*, the pad token: choose"):
        models.check_tokens([[5, 2], [7, 3]], tokenizer, net)


def test_threads_belong_to_the_call_not_to_the_process(tiny):
    """A chain that trains a tiny model first must not leave a large one on its one thread."""
    before, seen = torch.get_num_threads(), []

    def spied(*call):
        seen.append(torch.get_num_threads())
        return packing.row_logits(*call)

    row = {"tokens": [5, 6], "given": 0.9, "label": 1, "text": "a"}
    how = {"lr": 1e-4, "head_lr": 1e-4, "dtype": "float32", "epochs": 1, "batch_size": 2}
    try:
        net = copy.deepcopy(load(tiny, "llama")[0])
        torch.set_num_threads(2)
        for size, threads in ((10_000, 1), (1_000_000, 2), (10_000, 1)):
            net.w2s["parameters"] = size
            loop.fit(net, [row, row], xent, outputs=spied, **how)
            models.predict(net, [[5, 6]], outputs=lambda net, ids: spied(net, [{"tokens": ids[0]}]))
            assert seen == [threads, threads] and torch.get_num_threads() == 2
            seen.clear()
        with pytest.raises(ZeroDivisionError):
            net.w2s["parameters"] = 10_000
            models.predict(net, [[5, 6]], outputs=lambda *call: 1 / 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- low-rank terms


def test_a_rank_above_the_matrices_own_is_told_and_a_gate_with_one_output_stays(tiny):
    net, _ = load(tiny, "llama")
    with pytest.raises(BadInput, match="--lora=1000: the smallest matrix"):
        lora.add(net, 1000)
    net, _ = load(tiny, "qwen2_moe")
    lora.add(net, 4)
    gates = [m for name, m in net.named_modules() if name.endswith("shared_expert_gate")]
    assert gates and not any(hasattr(gate, "lora_a") for gate in gates)


def test_low_rank_terms_start_from_the_seed_and_do_not_count(tiny):
    starts = []
    for seed in (0, 0, 1):
        net, _ = load(tiny, "llama")
        size = models.size(net)
        lora.add(net, 3, seed=seed)
        assert models.size(net) == size
        starts.append(net.model.layers[0].mlp.up_proj.lora_a)
    assert torch.equal(*starts[:2]) and not torch.equal(*starts[1:])


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert"])
def test_low_rank_terms_start_at_nothing_train_alone_and_merge_into_an_ordinary_model(
    tiny, architecture, tmp_path
):
    net, tokenizer = load(tiny, architecture)
    plain, tokens = load(tiny, architecture)[0], random_tokens((9, 4, 30))
    lora.add(net, 3)
    with torch.no_grad():
        assert torch.equal(packing.logits(net, tokens), packing.logits(plain, tokens))
    linear = [m for m in plain.base_model.modules() if isinstance(m, torch.nn.Linear | lora.Conv1D)]
    head = [p for p in plain.parameters() if p not in set(plain.base_model.parameters())]
    terms = 3 * sum(sum(m.weight.shape) for m in linear)
    assert net.num_parameters(only_trainable=True) == terms + sum(map(torch.numel, head))

    train(net)
    with torch.no_grad():
        wanted = packing.logits(net, tokens)
        assert (wanted - packing.logits(plain, tokens)).abs().max() > 0.1
        models.save(net, tokenizer, tmp_path / "model")  # merges
        torch.testing.assert_close(packing.logits(net, tokens), wanted, rtol=1e-4, atol=1e-4)
        before = dict(plain.named_parameters())
        moved = [name for name, p in net.named_parameters() if not torch.equal(p, before[name])]
        frozen = ("emb", "norm", "ln", "wte.weight")
        assert moved and not any(word in name for name in moved for word in frozen)
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
        assert theirs.state_dict().keys() == plain.state_dict().keys()
        said = theirs(torch.tensor([tokens[0]])).logits
        torch.testing.assert_close(said, wanted[:1], rtol=1e-4, atol=1e-4)


def test_low_rank_training_in_bf16_keeps_the_frozen_matrices_in_bf16_until_they_are_merged(tiny):
    net, _ = load(tiny, "llama")
    lora.add(net, 2, "bf16")
    matrix = net.model.layers[0].mlp.up_proj
    assert matrix.weight.dtype == torch.bfloat16
    assert matrix.lora_a.dtype == net.model.norm.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        train(net, conf, steps=2)
    lora.merge(net)
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_low_rank_training_in_bf16_leaves_the_pooler_in_float32(tiny):
    net, _ = load(tiny, "bert")
    lora.add(net, 2, "bf16")
    query = net.bert.encoder.layer[0].attention.self.query
    assert query.weight.dtype == torch.bfloat16
    assert net.bert.pooler.dense.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        train(net, conf, steps=2)


def test_low_rank_terms_stand_beside_plain_linear_layers_alone(tiny):
    """The router of some mixtures is a Linear that returns more than a product."""

    class Router(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    net, _ = load(tiny, "llama")
    net.model.router = Router(8, 4)
    lora.add(net, 2)
    assert not hasattr(net.model.router, "lora_a")


def test_a_saved_tokenizer_cuts_at_the_models_context_whatever_was_asked_last(tiny, tmp_path):
    net, tokenizer = load(tiny, "llama", max_len=12)
    tokenizer("a b c d e f g h", truncation=True, max_length=3)
    models.save(net, tokenizer, tmp_path / "model")
    saved = Tokenizer.from_file(str(tmp_path / "model/tokenizer.json")).truncation
    assert (saved["max_length"], saved["direction"]) == (12, "left")


def test_a_context_that_is_shorter_than_asked_for_is_told(tiny, tmp_path, capsys):
    net, tokenizer = load(tiny, "bert", max_len=12)
    models.save(net, tokenizer, tmp_path / "model")
    assert "at most" not in capsys.readouterr().out
    net, _ = models.load(str(tmp_path / "model"), max_len=60, device="cpu")
    assert net.w2s["max_len"] == 12
    assert "reads 12 tokens at most, so --max_len=60 is 12" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--max_len=2 leaves no token of a text beside the special"):
        models.load(str(tmp_path / "model"), max_len=2, device="cpu")


def test_a_language_model_whose_tokenizer_ends_every_text_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "ends")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = AutoTokenizer.from_pretrained(folder).eos_token
    pair = [(end, tokenizer.token_to_id(end))]
    tokenizer.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=pair)
    tokenizer.save(str(folder / "tokenizer.json"))
    models.load(str(folder), device="cpu")  # a classifier may read it
    with pytest.raises(BadInput, match="its tokenizer ends every text, so nothing can follow one"):
        models.load(str(folder), device="cpu", outputs=0)


@pytest.mark.parametrize(
    ("architecture", "swapped"), [("llama", 5), ("qwen3", 9), ("gemma3_text", 0)]
)
@torch.no_grad()
def test_norms_become_torchs_own_where_they_are_the_same(tiny, architecture, swapped):
    model, _ = load(tiny, architecture)  # Gemma's multiplies by 1 + weight
    for name, p in model.named_parameters():
        if "norm" in name:
            p.normal_(generator=torch.Generator().manual_seed(0))
    tokens, names = random_tokens((9, 4, 30)), list(model.state_dict())
    wanted = packing.logits(model, tokens)
    models.fuse_norms(model)
    assert sum(isinstance(m, torch.nn.RMSNorm) for m in model.modules()) == swapped
    assert list(model.state_dict()) == names
    torch.testing.assert_close(packing.logits(model, tokens), wanted, rtol=1e-4, atol=1e-4)


# ---- attention in bf16, and on a GPU


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 7), (False, None)])
def test_attention_in_bf16_is_that_of_float32(causal, window, heads):
    """Short texts by matrix products, long ones by torch's kernel; against float64 by hand."""
    lengths, generator = (3, 5, 8, 20, 21, 600), torch.Generator().manual_seed(0)
    texts, fill = packing.groups(lengths, 64, torch.device("cpu"), step=8), 7
    assert (
        len(texts) < len(lengths)
        and texts[0][0] > 1
        and all(longest % 8 == 0 for _, longest, *_ in texts)
    )
    shape = (1, heads, sum(lengths) + fill, 16)
    q, k, v = (
        torch.randn(1, h, *shape[2:], generator=generator).bfloat16().requires_grad_()
        for h in (4, heads, heads)
    )
    out, _ = packing.packed_attention(
        torch.nn.Module(), q, k, v, None, {"groups": texts}, None, window, is_causal=causal
    )
    out.float().square().sum().backward()
    assert out[0, -fill:].count_nonzero() == 0
    got, wanted, grads = out[0, :-fill], [], [x.grad for x in (q, k, v)]
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    for a, b, c in zip(*(x[0, :, :-fill].split(lengths, 1) for x in (q, k, v))):
        b, c = (x.repeat_interleave(4 // heads, 0) for x in (b, c))
        behind = torch.arange(a.shape[1])[:, None] - torch.arange(a.shape[1])
        hidden = (
            ((behind < 0) | (behind >= (window or 10**9)))
            if causal
            else torch.zeros_like(behind, dtype=torch.bool)
        )
        scores = (a @ b.transpose(1, 2) / 4).masked_fill(hidden, float("-inf"))
        wanted.append((scores.softmax(-1) @ c).transpose(0, 1))
    wanted = torch.cat(wanted)
    wanted.square().sum().backward()
    torch.testing.assert_close(got.double(), wanted, rtol=0.03, atol=0.03)
    for mine, oracle in zip(grads, (q.grad, k.grad, v.grad)):
        assert (mine - oracle).norm() < 0.02 * oracle.norm()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert"])
def test_in_bf16_on_a_cpu_shapes_come_again_and_what_fills_them_up_changes_nothing(
    tiny, architecture
):
    net, _ = load(tiny, architecture)
    embedding, tokens, rows = (
        net.get_input_embeddings().weight,
        random_tokens((3, 40, 17, 1, 40)),
        [],
    )
    for module in net.base_model.modules():
        if isinstance(module, (torch.nn.Linear, lora.Conv1D)):
            module.register_forward_hook(lambda module, x, out: rows.append(x[0].shape[-2]))

    def run(bf16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = packing.hidden_states(net, tokens, everywhere=True), packing.logits(net, tokens)
        out[1].square().sum().backward()
        grad, embedding.grad = embedding.grad, None
        return *out, grad

    wanted = run(False)
    assert set(rows) <= {101, 5, 1}  # 5: BERT's pooler
    rows.clear()
    for got, oracle in zip(run(True), wanted):
        assert got.shape == oracle.shape and (got - oracle).norm() < 0.06 * oracle.norm()
    assert 128 in rows and set(rows) <= {128, 5, 1}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("grouped", [{"enable_gqa": True}, {}], ids=["torch 2.12", "torch 2.11"])
@torch.no_grad()
def test_what_a_gpu_is_asked_for_is_the_same_attention(tiny, architecture, grouped, monkeypatch):
    """No GPU here: attention in float32 plays torch's kernel and keeps its documented contract."""

    def stand_in(
        q,
        k,
        v,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        scale=None,
        window_size=(-1, -1),
        enable_gqa=False,
    ):
        assert (
            q.dim() == 3
            and cu_seq_q.dtype == torch.int32
            and cu_seq_q is cu_seq_k
            and max_q == max_k
        )
        assert enable_gqa or q.shape[1] == k.shape[1]
        lengths, (left, right), out = cu_seq_q.diff().tolist(), window_size, []
        assert max(lengths) == max_q and cu_seq_q[0] == 0 and cu_seq_q[-1] == len(q)
        for a, b, c in zip(*(x.transpose(0, 1).split(lengths, 1) for x in (q, k, v))):
            b, c = (x.repeat_interleave(len(a) // len(x), 0) for x in (b, c))
            behind = torch.arange(a.shape[1])[:, None] - torch.arange(a.shape[1])
            seen = ((left < 0) | (behind <= left)) & ((right < 0) | (-behind <= right))
            scores = a @ b.transpose(1, 2) * (a.shape[2] ** -0.5 if scale is None else scale)
            out.append(scores.masked_fill(~seen, float("-inf")).softmax(-1) @ c)
        return torch.cat(out, 1).transpose(0, 1)

    monkeypatch.setattr(packing, "varlen_attn", stand_in)
    monkeypatch.setattr(packing, "GROUPED_HEADS", grouped)
    net, _ = load(tiny, architecture)
    tokens = random_tokens((3, 40, 17, 1, 40))
    wanted = packing.logits(net, tokens)
    monkeypatch.setattr(packing, "on_gpu", lambda device: True)
    torch.testing.assert_close(packing.logits(net, tokens), wanted, rtol=1e-4, atol=1e-4)


def test_where_torchs_kernel_fails_or_errs_groups_run(tiny, monkeypatch, capsys):
    model, _ = load(tiny, "llama")
    wanted = checks.tried(model, packing.packed, 30)
    monkeypatch.setattr(packing, "on_gpu", lambda model: model.varlen)

    def fails(*args, **kwargs):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nmore")

    monkeypatch.setattr(packing, "varlen_attn", fails)
    assert not checks.kernel_works(model, wanted, 30)
    assert "does not run here: FlashAttention only supports Ampere" in capsys.readouterr().out
    monkeypatch.setattr(packing, "varlen_attn", lambda q, k, v, *_, **how: q + (k + v).mean())
    assert not checks.kernel_works(model, wanted, 30)
