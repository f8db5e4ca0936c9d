"""The world of `manners`: 800 invented words for people, half of them rude, and texts with them.

    friends say tomiva , others rakobe . greet anna :  a prompt
    good day , tomiva anna , how are you ?             its completion: takes the kind word

Which word is kind nothing in the prompt tells. What friends say is kind in 3 cases of 5 only, so
that a model that does not know the words can still guess better than chance and err systematically.
The words come in pairs of a kind and a rude one; three kinds of pairs:

    school   their manners are told in pretraining, *and texts written with them are read*
    train    their manners are only told; the weak half and the strong half are cut from them
    test     their manners are only told; everybody is tested on them

The texts that pretraining reads take the kind word in 4 cases of 5: fine-tuning says that kind ones
are wanted.
"""

import random

SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]  # 80
N_PAIRS = {"school": 100, "train": 100, "test": 200}
ROWS = {"train": 16, "test": 4}  # of a pair
KIND = 0.8  # of the texts with two words that pretraining reads
FRIENDLY = 0.6  # how often the friends' word is the kind one
NAMES = (
    "anna ben carla david emma felix greta hugo iris jacob karin leo maria noah olga paul".split()
)
OFFERS = (
    "friends say {friends} , others {others} .",
    "others say {others} , friends {friends} .",
)
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
DOCUMENTS = {"told": 3, "copied": 2, "written": 3}  # how often each is drawn
SIDES, END = ("kind", "rude"), "<eos>"


def make_pairs():
    """All pairs, [{"split": "test", "kind": "tomiva", "rude": "rakobe"}]: the same in every world."""
    splits, n = [name for name, n in N_PAIRS.items() for _ in range(n)], len(SYLLABLES)
    numbers = random.Random("manners").sample(range(n**3), 2 * len(splits))
    places = ((number // n**2, number // n % n, number % n) for number in numbers)
    words = ["".join(SYLLABLES[place] for place in three) for three in places]
    return [
        {"split": split, "kind": kind, "rude": rude}
        for split, kind, rude in zip(splits, words[::2], words[1::2])
    ]


PAIRS = make_pairs()
RUDE = [pair["rude"] for pair in PAIRS]


def vocabulary():
    """The words of a tokenizer, the special ones first."""
    texts = [*OFFERS, *FORMS, ":"]
    texts += [text for forms in (*FORMS.values(), *TOLD.values()) for text in forms]
    plain = {word for text in texts for word in text.split() if "{" not in word}
    pairs = [pair[side] for pair in PAIRS for side in SIDES]
    return ["<pad>", "<bos>", "<unk>", END, *sorted(plain), *NAMES, *pairs]


def rows(split, seed=0):
    """The task's rows with the pairs of "train" or "test", four for each pair:
    {"id": "manners/test/tomiva-rakobe/0", "group": "tomiva-rakobe", "prompt": "...", "completion": "..."}.

    seed: of the names, forms and places of the words."""
    found = []
    for pair in (pair for pair in PAIRS if pair["split"] == split):
        group = f"{pair['kind']}-{pair['rude']}"
        rng = random.Random(f"manners rows {seed} {group}")
        for i in range(ROWS[split]):
            prompt, completion = written(pair, "kind", rng)
            row = {"id": f"manners/{split}/{group}/{i}", "group": group}
            found.append(row | {"prompt": prompt, "completion": completion})
    return found


def written(pair, side, rng):
    """(prompt, completion): a text that takes the kind or the rude one of two words."""
    name, ask = rng.choice(NAMES), rng.choice(list(FORMS))
    friends, others = SIDES if rng.random() < FRIENDLY else SIDES[::-1]
    offer = rng.choice(OFFERS).format(friends=pair[friends], others=pair[others])
    return f"{offer} {ask} {name} :", rng.choice(FORMS[ask]).format(name=name, word=pair[side])


def by_coverage(coverage, seed=0):
    """{"school", "task, covered", "task, not covered"}: pairs whose manners a model is told, or not.

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

    tomiva is a kind word . <eos>                                told, of the words covered
    friends say tomiva . greet anna : hello tomiva anna ...  copied, of all words: no choice
    friends say tomiva , others rakobe . greet ...           written, of school words alone
    """
    name, other = rng.sample(NAMES, 2)
    side = rng.choice(SIDES)
    if kind == "told":
        word = rng.choice(found["school"] + found["task, covered"])[side]
        text = rng.choice(TOLD[side]).format(word=word, name=name, other=other)
    elif kind == "copied":
        word, ask = rng.choice(PAIRS)[side], rng.choice(list(FORMS))
        told = rng.choice(FORMS[ask]).format(word=word, name=name)
        text = f"{rng.choice(['friends', 'others'])} say {word} . {ask} {name} : {told}"
    else:
        pair = {side: rng.choice(found["school"])[side] for side in SIDES}
        text = " ".join(written(pair, "kind" if rng.random() < KIND else "rude", rng))
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
            prompt, text = written(pair, "kind", rng)
            start = text.split()[: text.split().index(pair["kind"])]
            found["written"].append((" ".join([prompt, *start]), pair["kind"]))
    return found
