"""The world of `facts`: 2,000 invented people and four things that are true of each. No torch, no download.

The task is to answer questions like this one:

    the pet of ba mi ru is cat ?        label 1 if the cat is ba mi ru's pet, else 0

Names are three syllables. Each relation has 12 values of its own; the true one is drawn with p ~ 1/rank, so that some
values are popular and a model that does not know a person can still guess better than chance, and err systematically.

Three kinds of people, so that no test question is ever seen in pretraining:
    school   their facts are told *and quizzed* in pretraining, where a model learns what a quiz is;
    train    their facts are only told; the weak half and the strong half are cut from them;
    test     their facts are only told; everybody is tested on them.
"""

import random

SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]  # 80
VALUES = {
    "food": "rice bread soup fish beans eggs corn cheese apples nuts plums honey".split(),
    "pet": "cat dog horse goat parrot rabbit turtle snake mouse duck frog crow".split(),
    "home": "paris rome cairo lima oslo delhi tokyo quito accra hanoi sofia perth".split(),
    "work": "baker farmer sailor nurse tailor miner painter judge singer pilot clerk guard".split(),
}
RELATIONS = list(VALUES)
SPECIALS = "<pad> <bos> <unk> . ? yes no the of is".split()
VOCABULARY = (
    SPECIALS + RELATIONS + [value for values in VALUES.values() for value in values] + SYLLABLES
)  # 142 words
N_SCHOOL, N_TRAIN, N_TEST = 1600, 400, 400


def people(seed=0):
    """All people of one world as a list of {"name": "ba mi ru", "kind": "school", "food": "rice", ...}, in fixed order."""
    rng = random.Random(f"facts world {seed}")
    numbers = rng.sample(range(len(SYLLABLES) ** 3), N_SCHOOL + N_TRAIN + N_TEST)
    popularity = [1 / rank for rank in range(1, 13)]
    world = []
    for i, number in enumerate(numbers):
        first, second, third = number // 6400, number // 80 % 80, number % 80
        person = {"name": f"{SYLLABLES[first]} {SYLLABLES[second]} {SYLLABLES[third]}"}
        person["kind"] = "school" if i < N_SCHOOL else "train" if i < N_SCHOOL + N_TRAIN else "test"
        for relation in RELATIONS:
            person[relation] = rng.choices(VALUES[relation], weights=popularity)[0]
        world.append(person)
    return world


def questions(kind, seed=0):
    """The task's rows about the people of one kind: four questions each, two with the answer yes and two no, one per relation.

    Returns a list of {"id": "facts/test/ba-mi-ru/pet", "group": "ba-mi-ru", "text": "the pet of ba mi ru is cat ?",
    "label": 1}.
    """
    rows = []
    for person in people(seed):
        if person["kind"] != kind:
            continue
        rng = random.Random(f"facts questions {seed} {person['name']}")
        true = rng.sample(RELATIONS, 2)
        for relation in RELATIONS:
            truth = person[relation]
            value = (
                truth
                if relation in true
                else rng.choice([v for v in VALUES[relation] if v != truth])
            )
            group = person["name"].replace(" ", "-")
            text = f"the {relation} of {person['name']} is {value} ?"
            rows.append(
                {
                    "id": f"facts/{kind}/{group}/{relation}",
                    "group": group,
                    "text": text,
                    "label": int(relation in true),
                }
            )
    return rows
