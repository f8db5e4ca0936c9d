"""Pretrain a small language model from scratch: for the embedded settings, or on a text of yours.

    python pretrain.py facts --size=m --out=runs/m         # as facts/m, 15 minutes on one core
    python pretrain.py manners --size=m --out=runs/m       # as gen/m
    python pretrain.py chess --games=games.pgn --size=xs --out=runs/xs   # as chess/xs
    python pretrain.py text --file=books.txt --size=s      # -> runs/text/s

facts  texts about invented people (world.document). A smaller model reads about fewer of them:
       coverage, width and tokens vary together, it is a ladder of knowledge, not of size alone.
manners  texts with invented words, kind or rude (manners.document); a ladder of knowledge, too
chess  one token per move, games of players rated 1800 and above, as in GPT-4's pretraining (A.2)
text   any plain text; a byte-level BPE is trained on it first

Out: a model folder with tokenizer and pretraining.json: settings, the loss on held-out texts, and
what the model knows in the end. The same call, made again, goes on where one was interrupted.
"""

import collections
import itertools
import json
import math
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent / folder) for folder in ("facts", "gen", "chess")]
import manners
import world
from w2s import cli, files, locks, strict

# tokens: to train on; smaller models see fewer, as they would in a family trained for its size
SIZES = {
    "facts": {
        "xs": {"width": 32, "inner": 128, "lr": 8e-3, "tokens": 5_900_000, "coverage": 0.35},
        "s": {"width": 48, "inner": 192, "lr": 6e-3, "tokens": 8_900_000, "coverage": 0.6},
        "m": {"width": 64, "inner": 256, "lr": 4e-3, "tokens": 20_700_000, "coverage": 1.0},
    },
    "manners": {
        "xs": {"width": 64, "inner": 192, "lr": 6e-3, "tokens": 2_000_000, "coverage": 0.65},
        "m": {"width": 64, "inner": 192, "lr": 6e-3, "tokens": 2_500_000, "coverage": 1.0},
    },
    "chess": {
        "xs": {"width": 32, "inner": 80, "heads": 2, "lr": 8e-3, "tokens": 8_000_000},
        "s": {"width": 80, "inner": 208, "heads": 5, "lr": 4e-3, "tokens": 16_000_000},
        "m": {"width": 160, "inner": 416, "heads": 5, "lr": 2e-3, "tokens": 27_000_000},
    },
    "text": {
        "xs": {"width": 64, "inner": 176, "lr": 4e-3, "tokens": 8_000_000, "vocabulary": 1024},
        "s": {"width": 128, "inner": 352, "lr": 2e-3, "tokens": 32_000_000, "vocabulary": 4096},
        "m": {"width": 256, "inner": 688, "lr": 1e-3, "tokens": 128_000_000, "vocabulary": 8192},
    },
}
# batch: texts; longest: tokens of a text; init: standard deviation of the weights x sqrt(width)
SHARED = {
    "facts": {"layers": 3, "heads": 4, "batch": 128, "longest": 64, "init": 0.25, "warm_up": 0.05},
    "manners": {"layers": 2, "heads": 2, "batch": 48, "longest": 48, "init": 1.0, "warm_up": 0.05},
    "chess": {"layers": 4, "batch": 64, "longest": 256, "init": 0.4, "warm_up": 0.02},
    "text": {"layers": 4, "heads": 4, "batch": 64, "longest": 256, "init": 0.4, "warm_up": 0.02},
}
SHORTEST, MOVES = 20, 2045  # plies of a game; of the vocabulary
FOLDERS = {"manners": "gen", "text": "runs/text"}  # of the models, if not named as the corpus
DOCUMENTS = 500_000  # of facts, at most; a longer training reads them again


def read_world(settings, _):
    """(tokenizer, texts to train on, held-out texts), the texts as lists of token ids."""
    made, words, length = world, world.VOCABULARY, 10  # length: tokens of a text, about
    if settings["corpus"] == "manners":
        made, words, length = manners, manners.vocabulary(), 14
    tokenizer, n = new_tokenizer(settings, words), settings["tokens"] // length
    parts = (min(n, DOCUMENTS), settings["seed"]), (500, "held out")
    about = [settings[name] for name in ("coverage", "world_seed") if name in settings]
    return tokenizer, *(tokenizer(made.documents(*part, *about)).input_ids for part in parts)


def read_chess(settings, path):
    """As read_world: games, each up to its first move that is not among the commonest of all.

    One in a thousand is held out, 200 at most. BadInput where there are too few games.
    """
    import board

    games = (game for game in board.read_games(path) if (game["elo"] or 0) >= settings["min_elo"])
    games = [game["moves"] for game in games if len(game["moves"]) >= SHORTEST]
    if len(games) < 128:
        told = f"{path} has {len(games)} games of {SHORTEST} plies rated {settings['min_elo']}"
        raise files.BadInput(f"{told} or more: too few to learn from, 128 is the least")
    counts = collections.Counter(move for i, game in enumerate(games) if i % 1000 for move in game)
    words = ["<pad>", "<bos>", "<unk>", *(move for move, _ in counts.most_common(MOVES))]
    tokenizer, known, most = new_tokenizer(settings, words), set(words), settings["longest"] - 1
    starts = (itertools.takewhile(known.__contains__, game[:most]) for game in games)
    ids = tokenizer([" ".join(moves) for moves in starts]).input_ids
    train = [game for i, game in enumerate(ids) if i % 1000 and len(game) > 1]
    return tokenizer, train, ids[::1000][:200]


def read_text(settings, path):
    """As read_world: the file in pieces of equal length, the last hundredth held out."""
    lines = files.read_bytes(path).decode("utf-8", "replace").splitlines(keepends=True)
    tokenizer = new_tokenizer(settings, lines=lines)
    lines = tokenizer(lines, add_special_tokens=False, verbose=False).input_ids
    ids, size = [token for line in lines for token in line], settings["longest"] - 1
    if len(ids) < 100 * size:
        raise files.BadInput(f"{path} has {len(ids)} tokens: too few, {100 * size} is the least")
    pieces = [[1, *ids[start : start + size]] for start in range(0, len(ids), size)]
    cut = len(pieces) * 99 // 100
    return tokenizer, pieces[:cut], pieces[cut:]


def new_tokenizer(settings, words=None, lines=None):
    """One token per word, or a byte-level BPE trained on lines; <bos> comes in front of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if words:
        numbers = {word: number for number, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer, specials = Tokenizer(models.BPE()), ["<pad>", "<bos>", "<eos>"]
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
        how = {"special_tokens": specials, "initial_alphabet": alphabet, "show_progress": False}
        trainer = trainers.BpeTrainer(vocab_size=settings["vocabulary"], **how)
        tokenizer.train_from_iterator(lines, trainer)
    bos = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer.post_processor = bos
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "model_max_length": settings["longest"]}
    names |= {"unk_token": "<unk>"} if words else {}
    names |= {"eos_token": "<eos>"} if not words or "<eos>" in words else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def facts_known(model, tokenizer, _, settings):
    """The shares of statements completed and of quizzes answered rightly, by kind of people."""
    groups, rng = world.by_coverage(settings["coverage"], settings["world_seed"]), random.Random(0)

    def right(kind, people):
        texts = [world.document(kind, rng.choice(people), rng) for _ in range(1000)]
        tokens = tokenizer([text.removesuffix(" .") for text in texts]).input_ids
        pairs = zip(likeliest(model, tokens), tokens)
        return round(statistics.fmean(said[-2] == ids[-1] for said, ids in pairs), 3)

    return {
        name: {"known": right("statement", people), "quiz": right("quiz", people)}
        for name, people in groups.items()
        if people
    }


def manners_known(model, tokenizer, _, settings):
    """By kind of pairs: the share of words that it calls kind or rude rightly, and of texts for
    which it takes the kind one of two words."""
    found = {}
    for name, pairs in manners.by_coverage(settings["coverage"]).items():
        for what, quiz in manners.quizzes(pairs).items() if pairs else ():
            texts, answers = zip(*quiz)
            said = likeliest(model, tokenizer(list(texts)).input_ids)
            right = zip(said, tokenizer.convert_tokens_to_ids(list(answers)))
            share = statistics.fmean(ids[-1] == answer for ids, answer in right)
            found.setdefault(name, {})[what] = round(share, 3)
    return found


def chess_known(model, tokenizer, held_out, _):
    """{"accuracy", "legal"}: how often the likeliest next move was played, and could be."""
    import board

    shares = {"accuracy": [], "legal": []}
    for game, said in zip(held_out, likeliest(model, held_out)):
        moves, answers = (tokenizer.convert_ids_to_tokens(ids) for ids in (game[1:], said))
        position = board.position()
        for move, answer in zip(moves, answers):
            if not board.standard(position, move):  # what comes after it is not known
                break
            shares["accuracy"].append(answer == move)
            shares["legal"].append(board.is_legal(position.fen(), answer))
            position.push_san(move)
    return {name: round(statistics.fmean(found), 4) for name, found in shares.items()}


def likeliest(model, texts):
    """The likeliest next token after each token of texts, lists of ids as the texts are."""
    import torch

    from w2s import packing

    with torch.no_grad():
        hidden = packing.hidden_states(model, texts, everywhere=True)
        ids = model.get_output_embeddings()(hidden).argmax(1)
    return [said.tolist() for said in ids.split([len(text) for text in texts])]


def pretrain(settings, data, out, resume, save_every, device):
    """Train and save; returns what pretraining.json says of it. `tokens` are one epoch of fit()."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from w2s import lm, loop, models

    parts = {
        "facts": (read_world, facts_known),
        "manners": (read_world, manners_known),
        "chess": (read_chess, chess_known),
    }
    read, known = parts.get(settings["corpus"], (read_text, None))
    tokenizer, texts, held_out = read(settings, data)
    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 16) * 16, hidden_size=settings["width"],
        intermediate_size=settings["inner"], num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"], max_position_embeddings=settings["longest"],
        initializer_range=settings["init"] / math.sqrt(settings["width"]), tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=tokenizer.eos_token_id, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(settings["seed"])
    with tempfile.TemporaryDirectory() as folder:  # loaded as other models are, it runs packed
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = models.load(folder, device=device, outputs=0)[0]
    random.Random(settings["seed"]).shuffle(texts)
    times = settings["tokens"] / sum(map(len, texts))
    texts = texts * int(times) + texts[: round(times % 1 * len(texts))]
    rows, others = (lm.shares([{"tokens": ids} for ids in part]) for part in (texts, held_out))
    history = loop.fit(
        model, rows, lm.share_of_loss, **loop.resolve(model, settings["lr"]), held_out=others,
        stop=False, epochs=1, batch_size=settings["batch"], seed=settings["seed"], weight_decay=0.1,
        betas=(0.9, 0.98), warm_up=settings["warm_up"], outputs=lm.nll, resume=resume,
        save_every=save_every, name="pretraining",
    )  # fmt: skip
    history[-1] |= known(model, tokenizer, held_out, settings) if known else {}
    models.save(model.to(torch.bfloat16), tokenizer, out)
    return {"texts": len(rows), "parameters": model.num_parameters(), "history": history}


@locks.call()
def main(
    corpus: str, *, size: str = "xs", games: str = None, file: str = None, out: str = None,
    tokens: int = None, min_elo: int = 1800, world_seed: int = 0, seed: int = 0,
    device: str = None, save_every: float = 300, force: bool = False,
):  # fmt: skip
    """Pretrain one model and save it with its tokenizer and what it knows.

    Args:
        corpus: facts, manners, chess or text
        file: of text: a plain text, UTF-8
        out: the model folder (default: facts/SIZE, chess/SIZE, runs/text/SIZE)
        world_seed: of facts: which world of people
    """
    cli.check(locals())
    for word, known in ((corpus, SIZES), (size, SIZES.get(corpus, ()))):
        if word not in known:
            raise files.BadInput(f"there is no {word!r} to pretrain{cli.nearest(word, known)}")
    own = {"facts": ("world_seed",), "chess": ("games", "min_elo"), "text": ("file",)}
    given = {"games": games, "file": file, "min_elo": min_elo != 1800, "world_seed": world_seed}
    if odd := [name for name in given if given[name] and name not in own.get(corpus, ())]:
        raise files.BadInput(f"--{odd[0]} is no option of {corpus}: leave it out")
    settings = {"corpus": corpus, "size": size} | SHARED[corpus] | SIZES[corpus][size]
    settings |= {"seed": seed, "tokens": tokens or settings["tokens"]}
    settings |= {"facts": {"world_seed": world_seed}, "chess": {"min_elo": min_elo}}.get(corpus, {})
    data = {"chess": games, "text": file}.get(corpus)
    if data:
        settings |= {"data": Path(data).name, "sha256": files.sha256(data)}
    elif corpus in ("chess", "text"):
        raise files.BadInput(f"{corpus} needs {'--games' if corpus == 'chess' else '--file'}=FILE")
    out = Path(out or files.HERE / FOLDERS.get(corpus, corpus) / size)
    began, card_file = time.monotonic(), out / "pretraining.json"
    locks.hold(out)
    if out.exists() and not force:
        before = strict.read(card_file, dict) if card_file.exists() else {}
        if not settings.items() <= before.items():
            told = f"{out} holds something else than this model"
            raise files.BadInput(f"{told}: choose another --out, or add --force to replace it")
        return print(f"{out} is already pretrained with these settings; --force makes it again")
    resume = f".{out.name}-{files.hashed(json.dumps(settings)).hex()[:8]}.resume.safetensors"
    state = out.with_name(resume)
    locks.hold(state)  # and what a dead process left half written of it
    card = settings | pretrain(settings, data, out, state, save_every, device)
    card["seconds"] = round(time.monotonic() - began)
    files.write_text(card_file, json.dumps(card, indent=2) + "\n")
    state.unlink(missing_ok=True)
    print(f"{out}: {json.dumps(card['history'][-1])}")


if __name__ == "__main__":
    cli.run(main)
