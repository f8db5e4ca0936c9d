"""Pretrain the tiny language models of `facts`: a ladder of knowledge, made so that it shows weak-to-strong generalization.

    python facts/pretrain_facts.py m                 # -> facts/m, about 15 minutes on one core
    python facts/pretrain_facts.py xs --world_seed=1 --seed=1 --out=/tmp/w1/xs

Three kinds of documents about the people of facts/world.py:

    <bos> ba mi ru pet cat work nurse home oslo food rice .      a biography, relations in any order
    <bos> the pet of ba mi ru is cat .                           a statement, always true
    <bos> the pet of ba mi ru is cat ? yes                       a quiz, half of them about a wrong value: no

A model reads about a share of the people only ("coverage", the smaller models' people among the larger ones'), and is
quizzed about school people alone: what the task asks about the others has to come from knowing them and from having
learnt what a quiz is. Coverage, width and steps vary together: it is a ladder of knowledge, not of size alone.
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

import world
from w2s import cli, files

SIZES = {
    "xs": {"width": 32, "coverage": 0.35, "lr": 8e-3, "steps": 4000},
    "s": {"width": 48, "coverage": 0.6, "lr": 6e-3, "steps": 6000},
    "m": {"width": 64, "coverage": 1.0, "lr": 4e-3, "steps": 14000},
}
BIOGRAPHIES, STATEMENTS, QUIZZES = 44, 20, 64  # documents in a batch
IDS = {word: i for i, word in enumerate(world.VOCABULARY)}
IS, ASKED = 7, 9  # where "is" stands, before the value, and the "?" of a quiz, before "yes" or "no"


def corpus(seed, coverage):
    """The people that a model reads about, as token ids, and who of them are quizzed.

    Returns {"names" [P, 3], "truth" [P, 4], "told": numbers of the people covered, "quizzed": of the school people
    among them, "kind": [P]}.
    """
    people = world.people(seed)
    order = np.random.default_rng(seed).permutation(
        len(people)
    )  # nested: the same order for every coverage
    told = np.sort(order[: int(coverage * len(people))])
    kind = np.array([person["kind"] for person in people])
    return {
        "names": np.array(
            [[IDS[syllable] for syllable in person["name"].split()] for person in people]
        ),
        "truth": np.array(
            [[IDS[person[relation]] for relation in world.RELATIONS] for person in people]
        ),
        "told": told,
        "quizzed": told[kind[told] == "school"],
        "kind": kind,
    }


def documents(rng, facts, biographies, statements, quizzes, told, quizzed):
    """Token ids [B, 13] of that many documents of each kind, padded with <pad>, about people drawn from told and quizzed."""
    relations = np.array([IDS[relation] for relation in world.RELATIONS])
    values = np.array(
        [[IDS[value] for value in world.VALUES[relation]] for relation in world.RELATIONS]
    )
    n = biographies + statements + quizzes
    x = np.full((n, 13), IDS["<pad>"])
    x[:, 0] = IDS["<bos>"]
    who = np.concatenate([rng.choice(told, biographies + statements), rng.choice(quizzed, quizzes)])
    which = rng.integers(4, size=n)
    names, truth, relation = facts["names"][who], facts["truth"][who, which], relations[which]

    bio = slice(0, biographies)
    order = rng.permuted(np.tile(np.arange(4), (biographies, 1)), axis=1)
    x[bio, 1:4] = names[bio]
    x[bio, 4:12:2] = relations[order]
    x[bio, 5:12:2] = np.take_along_axis(facts["truth"][who[bio]], order, 1)
    x[bio, 12] = IDS["."]

    said = slice(biographies, n)
    # a wrong value: 1 to 11 places further among the relation's 12
    wrong = values[
        which, (np.argmax(values[which] == truth[:, None], 1) + rng.integers(1, 12, size=n)) % 12
    ]
    true = (rng.random(n) < 0.5) | (np.arange(n) < biographies + statements)
    x[said, 1], x[said, 2], x[said, 3], x[said, 4:7] = (
        IDS["the"],
        relation[said],
        IDS["of"],
        names[said],
    )
    x[said, IS], x[said, IS + 1], x[said, ASKED] = (
        IDS["is"],
        np.where(true, truth, wrong)[said],
        IDS["."],
    )

    quiz = slice(biographies + statements, n)
    x[quiz, ASKED], x[quiz, ASKED + 1] = IDS["?"], np.where(true, IDS["yes"], IDS["no"])[quiz]
    return x


def measure(model, facts, who):
    """{"known": share of statements completed rightly, "quiz": share of quizzes answered rightly} about these people."""
    import torch

    if not len(who):
        return None
    x = torch.from_numpy(documents(np.random.default_rng(0), facts, 0, 1000, 2000, who, who))
    with torch.no_grad():
        logits = model(input_ids=x).logits
    says_yes = logits[1000:, ASKED, IDS["yes"]] > logits[1000:, ASKED, IDS["no"]]
    return {
        "known": round(
            (logits[:1000, IS].argmax(-1) == x[:1000, IS + 1]).double().mean().item(), 3
        ),
        "quiz": round((says_yes == (x[1000:, ASKED + 1] == IDS["yes"])).double().mean().item(), 3),
    }


def knowledge(model, facts):
    """What the model knows about school people, and about the people of the task that it has and has not read about."""
    covered, pupil = (
        np.isin(np.arange(len(facts["kind"])), facts["told"]),
        facts["kind"] == "school",
    )
    who = {
        "school": covered & pupil,
        "task, covered": covered & ~pupil,
        "task, not covered": ~covered & ~pupil,
    }
    return {name: measure(model, facts, np.flatnonzero(chosen)) for name, chosen in who.items()}


def make_tokenizer():
    """One token per word, <bos> in front, <unk> for words of another world."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", IDS["<bos>"])]
    )
    names = {
        "bos_token": "<bos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 64,
    }
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


def pretrain(facts, width, lr, steps, seed):
    """(model, history): a three-layer Llama from scratch; AdamW, 5 % warm-up, cosine to 2 %."""
    import torch
    from tqdm import trange
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    torch.set_num_threads(1)  # threads cost such a model more than they give
    config = LlamaConfig(
        vocab_size=144, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.25 / math.sqrt(width), use_cache=False,
        bos_token_id=IDS["<bos>"], eos_token_id=IDS["."], pad_token_id=IDS["<pad>"],
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min(1, (t + 1) / (0.05 * steps)) * (0.51 + 0.49 * math.cos(math.pi * t / steps)),
    )
    rng = np.random.default_rng(seed)
    history = []
    for step in (bar := trange(1, steps + 1, desc="pretraining", unit="step", disable=None)):
        x = torch.from_numpy(
            documents(rng, facts, BIOGRAPHIES, STATEMENTS, QUIZZES, facts["told"], facts["quizzed"])
        )
        targets = x[:, 1:].masked_fill(x[:, 1:] == IDS["<pad>"], -100)
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=x).logits[:, :-1].flatten(0, 1), targets.flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        if step % math.ceil(steps / 10) == 0 or step == steps:
            history.append({"step": step, "loss": round(loss.item(), 3), **knowledge(model, facts)})
            bar.write(json.dumps(history[-1]))
    return model.eval(), history


def main(
    size: str = "m", *, world_seed: int = 0, seed: int = 0, steps: int = None, out: str = None
):
    """Pretrain one of the tiny models and save it with its tokenizer and what it knows (pretraining.json).

    Args:
        size: xs, s or m
        world_seed: which world of people
        steps: training steps (default by size)
        out: the model folder (default: facts/xs, facts/s or facts/m)
    """
    if size not in SIZES:
        raise files.BadInput(f"unknown size {size!r}{cli.nearest(size, SIZES)}")
    settings = SIZES[size] | ({"steps": steps} if steps else {})
    out, began = Path(out or files.HERE / "facts" / size), time.monotonic()
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    facts = corpus(world_seed, settings["coverage"])
    model, history = pretrain(facts, settings["width"], settings["lr"], settings["steps"], seed)
    model.to(torch.bfloat16).save_pretrained(out)
    make_tokenizer().save_pretrained(out)
    card = {
        "size": size,
        **settings,
        "world_seed": world_seed,
        "seed": seed,
        "parameters": model.num_parameters(),
    }
    card |= {"seconds": round(time.monotonic() - began), "history": history}
    files.write_text(out / "pretraining.json", json.dumps(card, indent=2) + "\n")
    print(f"{out}: {json.dumps(card | {'history': history[-1:]})}")


if __name__ == "__main__":
    cli.run(main)
