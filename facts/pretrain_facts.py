"""facts pretraining experiment"""

import json, sys, time, os

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from facts import world as W


def arrays(seed):
    ids = {w: i for i, w in enumerate(W.VOCABULARY)}
    ppl = W.people(seed)
    names = np.array([[ids[s] for s in p["name"].split()] for p in ppl])
    facts = np.array([[ids[p[r]] for r in W.RELATIONS] for p in ppl])
    kind = np.array([p["kind"] for p in ppl])
    return ids, names, facts, kind


def build(cfg):
    torch.manual_seed(cfg["seed"])
    d = cfg["d"]
    c = LlamaConfig(
        vocab_size=144,
        hidden_size=d,
        intermediate_size=4 * d,
        num_hidden_layers=cfg["layers"],
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.25 / d**0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
        attention_bias=False,
    )
    return LlamaForCausalLM(c)


def batch(rng, ids, names, facts, told, quizzed, nb, ns, nq):
    """tokens [B, 13], padded with -100 targets"""
    T = 1 + 3 + 8 + 1
    B = nb + ns + nq
    x = np.zeros((B, T), dtype=np.int64)
    rel = np.array([ids[r] for r in W.RELATIONS])
    vals = np.array([[ids[v] for v in W.VALUES[r]] for r in W.RELATIONS])
    x[:, 0] = ids["<bos>"]
    who = told[rng.integers(len(told), size=B)]
    x[:nb, 1:4] = names[who[:nb]]
    perm = rng.permuted(np.tile(np.arange(4), (nb, 1)), axis=1)
    x[:nb, 4:12:2] = rel[perm]
    x[:nb, 5:12:2] = np.take_along_axis(facts[who[:nb]], perm, 1)
    x[:nb, 12] = ids["."]
    who[nb + ns :] = quizzed[rng.integers(len(quizzed), size=nq)]
    s = slice(nb, B)
    m = B - nb
    r = rng.integers(4, size=m)
    truth = facts[who[s], r]
    pick = vals[r, rng.integers(12, size=m)]
    for _ in range(6):
        clash = pick == truth
        pick = np.where(clash, vals[r, rng.integers(12, size=m)], pick)
    true = rng.random(m) < 0.5
    true[:ns] = True
    x[s, 1] = ids["the"]
    x[s, 2] = rel[r]
    x[s, 3] = ids["of"]
    x[s, 4:7] = names[who[s]]
    x[s, 7] = ids["is"]
    x[s, 8] = np.where(true, truth, pick)
    x[s, 9] = ids["."]
    x[nb + ns :, 9] = ids["?"]
    x[nb + ns :, 10] = np.where(true[ns:], ids["yes"], ids["no"])
    y = x.copy()
    y[x == 0] = -100
    return torch.from_numpy(x), torch.from_numpy(y)


@torch.no_grad()
def measure(model, ids, names, facts, who, rng):
    """known: argmax at is; quiz: yes-vs-no accuracy"""
    if not len(who):
        return (0, 0)
    model.eval()
    x, y = batch(rng, ids, names, facts, who, who, 0, 500, 1000)
    lg = model(input_ids=x).logits
    known = (lg[:500, 7].argmax(-1) == x[:500, 8]).float().mean().item()
    yes = lg[500:, 9, ids["yes"]] > lg[500:, 9, ids["no"]]
    quiz = (yes == (x[500:, 10] == ids["yes"])).float().mean().item()
    model.train()
    return round(known, 3), round(quiz, 3)


def main(cfg):
    torch.set_num_threads(1)
    ids, names, facts, kind = arrays(cfg["world"])
    rng = np.random.default_rng(cfg["seed"])
    order = np.random.default_rng(1000 + cfg["world"]).permutation(len(names))
    covered = np.zeros(len(names), bool)
    covered[order[: int(cfg["coverage"] * len(names))]] = True
    told = np.flatnonzero(covered)
    if cfg.get("leak"):
        quizzed = told
    else:
        quizzed = np.flatnonzero(covered & (kind == "school"))
    test_c = np.flatnonzero(covered & (kind != "school"))
    test_u = np.flatnonzero(~covered & (kind != "school"))
    model = build(cfg)
    n = sum(p.numel() for p in model.parameters())
    decay = [p for p in model.parameters() if p.dim() > 1]
    nodecay = [p for p in model.parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW(
        [{"params": decay, "weight_decay": cfg.get("wd", 0.01)}, {"params": nodecay, "weight_decay": 0}],
        lr=cfg["lr"],
        betas=(0.9, 0.98),
        fused=True,
    )
    steps = cfg["steps"]
    mix = cfg.get("mix", [44, 20, 64])
    t = time.time()
    for step in range(steps):
        lr = cfg["lr"] * min(1, (step + 1) / (0.05 * steps)) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps)))
        for g in opt.param_groups:
            g["lr"] = lr
        x, y = batch(rng, ids, names, facts, told, quizzed, *mix)
        lg = model(input_ids=x).logits[:, :-1]
        loss = F.cross_entropy(lg.reshape(-1, 144), y[:, 1:].reshape(-1), ignore_index=-100)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            e = np.random.default_rng(5)
            print(
                cfg["name"],
                n,
                step + 1,
                f"loss {loss.item():.3f} quizzed {measure(model, ids, names, facts, quizzed, e)} covered {measure(model, ids, names, facts, test_c, e)} uncovered {measure(model, ids, names, facts, test_u, e)} {time.time() - t:.0f}s",
                flush=True,
            )
            if "out" in cfg:
                model.save_pretrained(cfg["out"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
