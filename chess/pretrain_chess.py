"""Pretrain the small language models of chess games that are the default supervisor and students here: chess/xs, s and m.

A Llama from scratch with one token per move, on games of players rated 1800 and above (the paper, A.2, has such games in
GPT-4's pretraining).

    python chess/pretrain_chess.py xs --games=games.parquet          # -> chess/xs
    python chess/pretrain_chess.py m --games=games.pgn --out=runs/chess/m

In: games as a parquet file (columns moves, white_elo, black_elo; moves as "e4 e5 Nf3") or as PGN. Out: a Hugging Face model
folder with its tokenizer, and pretraining.json: the data, the settings, and accuracy and legality on held-out games. Called
again after an interruption it goes on from its last evaluation.
"""

import json
import math
import sys
import time
from pathlib import Path

sys.path += [
    str(Path(__file__).resolve().parent.parent / folder) for folder in (".", "nlp", "facts")
]
import numpy as np
from tqdm import tqdm

import board
from w2s import cli, files

# tokens: plies to train on; the smaller models see less, as they would in a family trained for its size
SIZES = {
    "xs": {"width": 32, "layers": 4, "heads": 2, "lr": 8e-3, "tokens": 8_000_000},
    "s": {"width": 80, "layers": 4, "heads": 5, "lr": 4e-3, "tokens": 16_000_000},
    "m": {"width": 160, "layers": 4, "heads": 5, "lr": 2e-3, "tokens": 27_000_000},
}
SPECIALS = ("<pad>", "<bos>", "<unk>")
VOCABULARY, BATCH, EVALUATIONS = 2048, 64, 10  # tokens; games
SHORTEST, LONGEST = 20, 256  # plies of a game; longer ones are cut


def make_tokenizer(words):
    """One token per move, <bos> in front, <unk> for moves too rare to have been learned."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    names = {
        "bos_token": "<bos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": LONGEST,
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def corpus(path, min_elo):
    """(games to train on, 200 held out or fewer, words): games as arrays of token ids, <bos> first; what the ids stand for.

    The words are the specials and the commonest moves of the games to train on. BadInput where there are too few games.
    """
    numbers, games = {}, []  # of the moves, in the order in which they first occur
    for game in tqdm(board.read_games(path), desc="reading", unit="game", disable=None):
        if (game["elo"] or 0) >= min_elo and len(game["moves"]) >= SHORTEST:
            games.append(
                np.array(
                    [numbers.setdefault(move, len(numbers)) for move in game["moves"]],
                    dtype=np.int32,
                )
            )
    if len(games) < 2 * BATCH:
        told = f"{path} has {len(games)} games of {SHORTEST} plies or more rated {min_elo}"
        raise files.BadInput(f"{told}: too few to learn from, {2 * BATCH} is the least")
    train = [game for i, game in enumerate(games) if i % 1000]
    counts = np.bincount(np.concatenate(train), minlength=len(numbers))
    known = np.argsort(-counts, kind="stable")[: VOCABULARY - len(SPECIALS)]
    ids = np.full(len(numbers), SPECIALS.index("<unk>"), dtype=np.int16)
    ids[known] = np.arange(len(SPECIALS), len(SPECIALS) + len(known))
    train, held_out = (
        [np.append(np.int16(1), ids[game[: LONGEST - 1]]) for game in some]
        for some in (train, games[::1000][:200])
    )
    moves = list(numbers)
    return train, held_out, [*SPECIALS, *(moves[i] for i in known)]


def batches(games, tokens, seed):
    """Batches of about that many tokens in all, as lists of game numbers, of near-equal lengths: the same for a seed.

    The games come in a random order, as often as needed; 50 batches at a time are sorted by length.
    """
    rng, lengths, out = np.random.default_rng(seed), np.array([len(game) for game in games]), []
    while tokens > 0:
        order = rng.permutation(len(games))
        for start in range(0, len(order), 50 * BATCH):
            chunk = order[start : start + 50 * BATCH]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            pieces = np.array_split(chunk, max(1, len(chunk) // BATCH))
            for piece in rng.permutation(len(pieces)):
                if tokens > 0:
                    out.append(pieces[piece])
                    tokens -= lengths[pieces[piece]].sum()
    return out


def padded(games):
    """Games (token id arrays) -> (ids [B, T], targets [B, T - 1] with -100 for what is not to be learned: padding, <unk>)."""
    import torch

    ids = np.zeros((len(games), max(map(len, games))), dtype=np.int64)
    for row, game in zip(ids, games):
        row[: len(game)] = game
    ids = torch.from_numpy(ids)
    return ids, ids[:, 1:].masked_fill((ids[:, 1:] == 0) | (ids[:, 1:] == 2), -100)


def measure(model, games, words):
    """{"accuracy", "legal"}: how often the likeliest next move was played, and how often it could be, on games never read."""
    import torch

    right, asked, legal, n = 0, 0, 0, 0
    with torch.no_grad():
        for game in games:
            ids, targets = padded([game])
            said = model(input_ids=ids.to(model.device)).logits[0, :-1].argmax(-1).cpu()
            right, asked = (
                right + (said == targets[0]).sum().item(),
                asked + (targets != -100).sum().item(),
            )
            position = board.position()
            for token, move in zip(said.tolist(), game[1:]):
                if not board.standard(
                    position, words[move]
                ):  # <unk>, or an illegal move: where it leads to is not known
                    break
                legal += board.is_legal(position.fen(), words[token])
                n += 1
                position.push_san(words[move])
    return {"accuracy": round(right / asked, 4), "legal": round(legal / n, 4)}


def pretrain(games, held_out, words, card, device, resume):
    """(model, history): AdamW, 2 % warm-up, cosine to 2 %; the state is kept in the file `resume` at every evaluation."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from w2s import hardware

    torch.manual_seed(card["seed"])
    width = card["width"]
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width * 8 // 3 // 16 * 16, max_position_embeddings=LONGEST,
        num_hidden_layers=card["layers"], num_attention_heads=card["heads"], tie_word_embeddings=True, use_cache=False,
        initializer_range=0.4 / math.sqrt(width), pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(hardware.pick_device(device))
    if model.num_parameters() < 1_000_000:
        torch.set_num_threads(1)  # threads cost such a model more than they give
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=card["lr"], betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    order = batches(games, card["tokens"], card["seed"])
    warm, n = 0.02 * len(order), len(order)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1, (t + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * t / n))
    )
    history = []
    if resume.exists():
        try:
            state = torch.load(resume)
        except Exception:  # torch.load says in many ways that a file is damaged
            raise files.BadInput(f"{resume} cannot be read: delete it to start again") from None
        if state["card"] != card:
            raise files.BadInput(
                f"{resume} is of another pretraining (other games or settings): delete it to start again"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rate.load_state_dict(state["rate"])
        history = state["history"]
        print(f"{resume}: going on after step {history[-1]['step']} of {n}")
    began = history[-1]["step"] if history else 0
    bf16 = hardware.has_bf16(model.device)
    bar = tqdm(
        range(began + 1, n + 1),
        desc="pretraining",
        initial=began,
        total=n,
        unit="step",
        disable=None,
    )
    for step in bar:
        ids, targets = (x.to(model.device) for x in padded([games[i] for i in order[step - 1]]))
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        if step % math.ceil(n / EVALUATIONS) == 0 or step == n:
            history.append(
                {"step": step, "loss": round(loss.item(), 3), **measure(model, held_out, words)}
            )
            bar.write(json.dumps(history[-1]), file=sys.stdout)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rate": rate.state_dict(),
            }
            torch.save(state | {"history": history, "card": card}, resume.with_suffix(".tmp"))
            resume.with_suffix(".tmp").replace(resume)
    return model.eval(), history


def is_pretrained(out, card, force):
    """True (and told) if the folder holds the model of this card; BadInput where it holds anything else, unless force."""
    if force or not out.exists():
        return False
    file = out / "pretraining.json"
    before = json.loads(files.read_bytes(file)) if file.exists() else {}
    if any(before.get(name) != value for name, value in card.items()):
        raise files.BadInput(
            f"{out} holds something else than this model: choose another --out, or add --force to replace it"
        )
    print(f"{out} is already pretrained with these settings and games; --force makes it again")
    return True


def main(
    size: str = "xs", *, games: str = None, out: str = None, min_elo: int = 1800, tokens: int = None, seed: int = 0,
    device: str = None, force: bool = False,
):  # fmt: skip
    """Pretrain one model of the ladder and save it with its tokenizer and what it can do (pretraining.json).

    Args:
        size: xs (0.1M parameters), s (0.5M) or m (1.5M)
        games: a PGN file, or a parquet file with columns moves, white_elo and black_elo
        out: the model folder (default: chess/xs, chess/s or chess/m)
        min_elo: both players must be rated this high
        tokens: plies to train on (default by size)
    """
    cli.check(locals())
    if size not in SIZES:
        raise files.BadInput(f"unknown size {size!r}{cli.nearest(size, SIZES)}")
    if games is None:
        raise files.BadInput(
            "--games=FILE is needed: a PGN file, or a parquet file with moves, white_elo and black_elo"
        )
    settings = SIZES[size] | ({"tokens": tokens} if tokens else {})
    out, began = Path(out or files.HERE / "chess" / size), time.monotonic()
    card = {
        "size": size,
        **settings,
        "seed": seed,
        "data": Path(games).name,
        "sha256": files.sha256(games),
        "min_elo": min_elo,
    }
    if is_pretrained(out, card, force):
        return
    played, held_out, words = corpus(games, min_elo)
    card["games"] = len(played)
    resume = out.with_name(f".{out.name}-{seed}.resume.pt")
    resume.parent.mkdir(parents=True, exist_ok=True)
    model, history = pretrain(played, held_out, words, card, device, resume)
    import torch

    model.to(torch.bfloat16).save_pretrained(out)
    make_tokenizer(words).save_pretrained(out)
    card |= {
        "parameters": model.num_parameters(),
        "seconds": round(time.monotonic() - began),
        "history": history,
    }
    files.write_text(out / "pretraining.json", json.dumps(card, indent=2) + "\n")
    resume.unlink()
    print(f"{out}: {json.dumps(history[-1])}")
    print(f"next: python chess/train_chess.py --model={out} --out=runs/chess/{out.name}")


if __name__ == "__main__":
    cli.run(main)
