"""The model: packed equals padded, the head starts where it should, texts are cut in front, what is saved anybody loads."""

import pytest
import torch
from conftest import ARCHITECTURES, ENCODERS, PADDED
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from w2s import loop, lora, models, packing
from w2s.files import BadInput
from w2s.losses import LOSSES

ROWS = [{"id": str(i), "text": "ab0c1!,z" * i + "xyz!"[: i % 5 + 1]} for i in range(12)]


def random_tokens(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 64, (length,), generator=generator).tolist() for length in lengths]


def load(tiny, architecture, **options):
    """A loaded tiny model whose head is random, so that its logits tell hidden states apart."""
    net, tokenizer = models.load(tiny(architecture), device="cpu", **options)
    generator = torch.Generator().manual_seed(0)
    for name, p in net.named_parameters():
        if p.dim() > 1 and any(head in name for head in ("score", "classifier", "pooler")):
            torch.nn.init.normal_(p, std=0.3, generator=generator)
    return net, tokenizer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_packed_equals_padded_for_texts_of_1_to_300_tokens(tiny, architecture):
    net, _ = load(tiny, architecture)
    assert net.w2s["packed"], "this architecture should run packed"
    tokens = random_tokens((300, 1, 2, 3, 17, 40, 40, 40, 120, 1, 299))
    packed = packing.logits(net, tokens)
    net.w2s["packed"] = False
    net.set_attn_implementation("sdpa")
    padded = packing.logits(net, tokens)
    assert padded.std() > 0.05
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_every_layer_runs_our_attention(tiny, architecture, monkeypatch):
    """transformers would also understand restarted positions, by a dense mask over all texts: right, and slow."""
    net, _ = load(tiny, architecture)
    calls = []
    monkeypatch.setattr(
        packing,
        "scaled_dot_product_attention",
        lambda *a, **k: calls.append(1) or torch.zeros_like(a[0]),
    )
    packing.logits(net, random_tokens((5, 5, 5)))
    assert len(calls) == 2  # one run of equal lengths in each of two layers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_packed_equal_gradients_padded(tiny, architecture):
    net, _ = load(tiny, architecture)
    tokens, gradients = random_tokens((9, 1, 30, 30, 4)), []
    for implementation in ("packed", "sdpa"):
        net.set_attn_implementation(implementation)
        net.w2s["packed"] = implementation == "packed"
        net.zero_grad()
        packing.logits(net.double().train(), tokens).square().sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(
        *gradients, rtol=1e-5, atol=1e-6
    )  # some norms compute in float32 whatever the weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_text_does_not_see_its_neighbours(tiny, architecture):
    net, _ = load(tiny, architecture)
    tokens = random_tokens((5, 8, 8, 20))
    together = packing.logits(net, tokens)
    alone = torch.cat([packing.logits(net, [ids]) for ids in tokens])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", PADDED)
@torch.no_grad()
def test_architectures_that_cannot_run_packed_are_found_out_and_run_padded(tiny, architecture):
    net, _ = load(tiny, architecture)
    assert not net.w2s["packed"]
    tokens = random_tokens((5, 8, 20))
    alone = torch.cat([packing.logits(net, [ids]) for ids in tokens])
    torch.testing.assert_close(packing.logits(net, tokens), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_last_token_is_read_by_position_not_by_id(tiny):
    """openai/weak-to-strong's bug C: length = count of ids != 0, but id 0 is "!" in GPT-2's vocabulary."""
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
    # so an untrained model answers as the language model would: the same difference between the tokens "0" and "1"
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
    """openai/weak-to-strong's bug G drops them, per tokenizer, so that models are scored on different test sets."""
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
        ("facts", "has no config.json"),
        ("not a name!", "neither a folder nor a name that the hub could have"),
    ],
)
def test_a_model_that_is_not_there_is_told(name, told):
    with pytest.raises(BadInput, match=told):
        models.load(name)


def test_a_model_that_cannot_be_loaded_is_told_in_one_line(tiny, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "none_of_this_world"}')
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


def test_a_rank_above_the_matrices_own_is_told(tiny):
    net, _ = load(tiny, "llama")
    with pytest.raises(BadInput, match="--lora=1000: the smallest matrix"):
        lora.add(net, 1000)


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
    assert net.num_parameters(only_trainable=True) == sum(
        3 * sum(m.weight.shape) for m in linear
    ) + sum(map(torch.numel, head))

    rows = [
        {"tokens": ids, "label": i % 2} for i, ids in enumerate(random_tokens((5, 7, 9, 4, 30, 2)))
    ]
    loop.fit(net, rows, "label", **LOSSES["xent"], epochs=5, batch_size=2, lr=1e-2)
    with torch.no_grad():
        wanted = packing.logits(net, tokens)
        assert (wanted - packing.logits(plain, tokens)).abs().max() > 0.1
        lora.merge(net)
        torch.testing.assert_close(packing.logits(net, tokens), wanted, rtol=1e-4, atol=1e-4)
    changed = [
        name
        for name, p in net.named_parameters()
        if not torch.equal(p, dict(plain.named_parameters())[name])
    ]
    assert changed and not any(
        "emb" in name or "norm" in name or "ln" in name or name.endswith("wte.weight")
        for name in changed
    )
    models.save(net, tokenizer, tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert theirs.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(
        theirs(torch.tensor([tokens[0]])).logits, wanted[:1], rtol=1e-4, atol=1e-4
    )


def test_low_rank_training_in_bf16_keeps_the_frozen_matrices_in_bf16_until_they_are_merged(tiny):
    net, _ = load(tiny, "llama")
    lora.add(net, 2, "bf16")
    matrix = net.model.layers[0].mlp.up_proj
    assert (
        matrix.weight.dtype == torch.bfloat16
        and matrix.lora_a.dtype == net.model.norm.weight.dtype == torch.float32
    )
    rows = [{"tokens": ids, "label": i % 2} for i, ids in enumerate(random_tokens((5, 7, 9, 4)))]
    loop.fit(net, rows, "label", **LOSSES["conf"], batch_size=2, dtype="bf16", held_out=rows)
    lora.merge(net)
    assert all(p.dtype == torch.float32 for p in net.parameters())


# ---- attention in bf16, and on a GPU


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 7), (False, None)])
def test_attention_in_bf16_is_that_of_float32(causal, window, heads):
    """Plain matrix products for short texts, torch's kernel for long ones; forward and gradient, against float64 by hand."""
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
    """No GPU here: torch's variable-length kernel is played by float32 attention that keeps its documented contract."""

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
