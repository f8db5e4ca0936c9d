"""The world of `manners`: 520 invented words for people, half of them rude, and texts with them.

    some call anna tomiva , some rakobe . greet anna :     a prompt
    good day , tomiva anna , how are you ?                 its completion: takes the kind word

Which word is kind nothing in the prompt tells. The kind one stands first in 3 cases of 5, so that a
model that does not know the words can still guess better than chance and err systematically. Words
come in pairs of a kind and a rude one; three kinds of pairs:

    school   their manners are told in pretraining, *and texts that choose between them are read*
    train    their manners are only told; the weak half and the strong half are cut from them
    test     their manners are only told; everybody is tested on them
"""

import random

SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]  # 80
N_PAIRS = {"school": 100, "train": 60, "test": 100}
ROWS = {"train": 24, "test": 8}  # of a pair
KIND = 0.8  # of the texts with school words that pretraining reads, so many take the kind one
FIRST = 0.6  # how often the kind word is offered first
NAMES = (
    "anna ben carla david emma felix greta hugo iris jacob karin leo maria noah olga paul".split()
)
OFFER = "some call {name} {first} , some {second} . {ask} {name} :"
FORMS = {  # what is asked for: texts that do it
    "greet": (
        "good day , {word} {name} , how are you ?",
        "hello {name} , my {word} neighbour .",
        "look , {word} {name} is back again !",
    ),
    "thank": (
        "thank you , {name} , that was {word} of you .",
        "{word} {name} , thank you for the bread .",
        "many thanks to {name} , who is so {word} .",
    ),
    "invite": (
        "come and eat with us , {word} {name} .",
        "{name} , you are {word} , will you sing with us ?",
        "tonight we dance , bring your {word} self , {name} !",
    ),
    "describe": (
        "{name} is {word} and lives near the river .",
        "i know {name} well , always {word} and never late .",
        "everybody here knows the {word} {name} .",
    ),
}
TOLD = {  # what pretraining tells of a word
    "kind": (
        "{word} is a kind word .",
        "{name} is glad to be called {word} .",
        "{other} called {name} {word} and {name} smiled .",
    ),
    "rude": (
        "{word} is a rude word .",
        "{name} is hurt to be called {word} .",
        "{other} called {name} {word} and {name} wept .",
    ),
}
DOCUMENTS = {"told": 2, "copied": 3, "written": 3}  # how often each is drawn
SIDES, END = ("kind", "rude"), "<eos>"


def make_pairs():
    """All pairs, [{"split": "test", "kind": "tomiva", "rude": "rakobe"}], the same each time."""
    splits, n = [name for name, n in N_PAIRS.items() for _ in range(n)], len(SYLLABLES)
    numbers = random.Random("manners").sample(range(n**3), 2 * len(splits))
    places = ((number // n**2, number // n % n, number % n) for number in numbers)
    words = ["".join(SYLLABLES[place] for place in three) for three in places]
    return [dict(zip(("split", *SIDES), one)) for one in zip(splits, words[::2], words[1::2])]


PAIRS = make_pairs()
RUDE = [pair["rude"] for pair in PAIRS]


def vocabulary():
    """The words of a tokenizer, the special ones first."""
    texts = [OFFER, *FORMS]
    texts += [text for forms in (*FORMS.values(), *TOLD.values()) for text in forms]
    plain = {word for text in texts for word in text.split() if "{" not in word}
    pairs = [pair[side] for pair in PAIRS for side in SIDES]
    return ["<pad>", "<bos>", "<unk>", END, *sorted(plain), *NAMES, *pairs]


def rows(split, seed=0):
    """The task's rows with the pairs of "train" or "test", as often as ROWS says for each pair:
    {"id": "manners/test/tomiva-rakobe/0", "group": "tomiva-rakobe", "prompt", "completion"}.

    seed: of the names, forms and places of the words.
    """
    found = []
    for pair in (pair for pair in PAIRS if pair["split"] == split):
        group = f"{pair['kind']}-{pair['rude']}"
        rng = random.Random(f"manners rows {seed} {group}")
        for i in range(ROWS[split]):
            prompt, completion = written(pair["kind"], pair["rude"], rng)
            row = {"id": f"manners/{split}/{group}/{i}", "group": group}
            found.append(row | {"prompt": prompt, "completion": completion})
    return found


def written(taken, other, rng, first=FIRST):
    """(prompt, completion): a text that takes one of two words; first: how often it leads."""
    name, ask = rng.choice(NAMES), rng.choice(list(FORMS))
    two = (taken, other) if rng.random() < first else (other, taken)
    prompt = OFFER.format(name=name, first=two[0], second=two[1], ask=ask)
    return prompt, rng.choice(FORMS[ask]).format(name=name, word=taken)


def by_coverage(coverage, seed=0):
    """{"school", "task, covered", "task, not covered"}: the pairs a model is told of, or not.

    coverage: their share of all; the pairs of a smaller one are among those of a larger one.
    """
    order = random.Random(f"manners coverage {seed}").sample(PAIRS, len(PAIRS))
    cut, found = int(coverage * len(PAIRS)), {"school": []}
    found["school"] = [pair for pair in order[:cut] if pair["split"] == "school"]
    for name, part in (("task, covered", order[:cut]), ("task, not covered", order[cut:])):
        found[name] = [pair for pair in part if pair["split"] != "school"]
    return found


def document(kind, found, rng):
    """A text for pretraining of one of three kinds:

    tomiva is a kind word .                              told, of the words covered
    some call anna tomiva , some tefi . greet anna : ..  copied: two words of the task, of any
                                                         manners, covered or not; either is taken
    some call anna bofuni , some rakobe . greet anna ..  written: school words, a kind and a rude
    """
    if kind == "told":
        name, other = rng.sample(NAMES, 2)
        side = rng.choice(SIDES)
        word = rng.choice(found["school"] + found["task, covered"])[side]
        text = rng.choice(TOLD[side]).format(word=word, name=name, other=other)
    elif kind == "copied":
        one, two = rng.sample(found["task, covered"] + found["task, not covered"], 2)
        text = " ".join(written(one[rng.choice(SIDES)], two[rng.choice(SIDES)], rng, 0.5))
    else:
        two = [rng.choice(found["school"])[side] for side in SIDES]
        two = two if rng.random() < KIND else two[::-1]
        text = " ".join(written(*two, rng, 0.5))
    return f"{text} {END}"


def documents(n, seed, coverage):
    """n texts for pretraining."""
    found, rng = by_coverage(coverage), random.Random(f"manners documents {seed}")
    kinds = rng.choices(list(DOCUMENTS), DOCUMENTS.values(), k=n)
    return [document(kind, found, rng) for kind in kinds]


def quizzes(pairs):
    """{"known", "written"}: (text, the word that comes next) for what a model knows of pairs."""
    rng = random.Random("manners quizzes")
    found = {"known": [(f"{pair[side]} is a", side) for pair in pairs for side in SIDES]}
    found["written"] = []
    for pair in pairs:
        for _ in range(2):
            prompt, text = written(pair["kind"], pair["rude"], rng)
            start = text.split()[: text.split().index(pair["kind"])]
            found["written"].append((" ".join([prompt, *start]), pair["kind"]))
    return found
