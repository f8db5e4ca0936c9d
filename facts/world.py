"""The world of `facts`: 2,400 invented people, four things that are true of each, and their texts.

    the pet of ba mi ru is cat ?        label 1 if the cat is ba mi ru's pet, else 0

Each relation has 12 values; the true one is drawn with p ~ 1/rank, so that a model that does not
know a person can still guess better than chance and err systematically. Three kinds of people, so
that no test question is ever seen in pretraining:

    school   their facts are told *and quizzed* in pretraining, where a model learns what a quiz is
    train    their facts are only told; the weak half and the strong half are cut from them
    test     their facts are only told; everybody is tested on them
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
VOCABULARY = SPECIALS + RELATIONS + sum(VALUES.values(), []) + SYLLABLES  # 142 words
N_SCHOOL, N_TRAIN, N_TEST = 1600, 400, 400
DOCUMENTS = {"biography": 44, "statement": 20, "quiz": 64}  # how often each is drawn


def people(seed=0):
    """All people of a world, [{"name": "ba mi ru", "kind": "school", "food": "rice", ...}]."""
    rng, n = random.Random(f"facts world {seed}"), len(SYLLABLES)
    popularity = [1 / rank for rank in range(1, 13)]
    kinds = ["school"] * N_SCHOOL + ["train"] * N_TRAIN + ["test"] * N_TEST
    world = []
    for kind, number in zip(kinds, rng.sample(range(n**3), len(kinds))):
        name = (SYLLABLES[place] for place in (number // n**2, number // n % n, number % n))
        true = {about: rng.choices(VALUES[about], weights=popularity)[0] for about in RELATIONS}
        world.append({"name": " ".join(name), "kind": kind} | true)
    return world


def questions(kind, seed=0):
    """The task's rows about the people of one kind, two true and two false for each:
    {"id": "facts/test/ba-mi-ru/pet", "group": "ba-mi-ru", "text": "the pet ...", "label": 1}."""
    rows = []
    for person in (one for one in people(seed) if one["kind"] == kind):
        rng = random.Random(f"facts questions {seed} {person['name']}")
        true, group = rng.sample(RELATIONS, 2), person["name"].replace(" ", "-")
        for relation in RELATIONS:
            said = claim(person, relation, relation in true, rng)
            row = {"id": f"facts/{kind}/{group}/{relation}", "group": group, "text": f"{said} ?"}
            rows.append(row | {"label": int(relation in true)})
    return rows


def claim(person, relation, true, rng):
    """ "the pet of ba mi ru is cat", true or with a wrong value."""
    wrong = [value for value in VALUES[relation] if value != person[relation]]
    value = person[relation] if true else rng.choice(wrong)
    return f"the {relation} of {person['name']} is {value}"


def document(kind, person, rng):
    """A text for pretraining of one of three kinds:

    ba mi ru pet cat work nurse home oslo food rice .    biography, relations in any order
    the pet of ba mi ru is cat .                         statement, always true
    the pet of ba mi ru is cat ? yes                     quiz, half of them about a wrong value: no
    """
    if kind == "biography":
        order = rng.sample(RELATIONS, 4)
        return " ".join([person["name"], *(f"{name} {person[name]}" for name in order), "."])
    true = kind == "statement" or rng.random() < 0.5
    said = claim(person, rng.choice(RELATIONS), true, rng)
    return f"{said} ." if kind == "statement" else f"{said} ? {'yes' if true else 'no'}"


def by_coverage(coverage, seed=0):
    """{"school", "task, covered", "task, not covered"}: people that a model reads about, or not.

    coverage: their share of all; the people of a smaller one are among those of a larger one.
    """
    import numpy

    everybody, found = people(seed), {"school": [], "task, covered": [], "task, not covered": []}
    order = numpy.random.default_rng(seed).permutation(len(everybody)).tolist()
    covered = set(order[: int(coverage * len(everybody))])
    for i, person in enumerate(everybody):
        if person["kind"] != "school":
            found["task, covered" if i in covered else "task, not covered"].append(person)
        elif i in covered:
            found["school"].append(person)
    return found


def documents(n, seed, coverage, world_seed=0):
    """n texts for pretraining about the people covered; school people alone are quizzed."""
    found, rng = by_coverage(coverage, world_seed), random.Random(f"facts documents {seed}")
    told = found["school"] + found["task, covered"]
    kinds = rng.choices(list(DOCUMENTS), DOCUMENTS.values(), k=n)
    who = (rng.choice(found["school"] if kind == "quiz" else told) for kind in kinds)
    return [document(kind, person, rng) for kind, person in zip(kinds, who)]
