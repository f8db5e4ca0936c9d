"""The table of text tasks: where each has its rows (w2s/sources.py explains the fields), and the prompt made of them.

Above each prompt stands an example of a source's row. A task may have, beside what sources.py reads: "make", "needs"
and "group" by formats.statement or question; "regroup": the groups' keys in order -> better ones; "load": a function
that makes the rows here; "models": the default supervisor and student; "licence".
"""

import formats
import world
from formats import ASKED, question, statement

PARQUET = "refs/convert/parquet"  # the branch of the hub's own copies
CHOICES = {
    "choices": {"text": [str], "label": [str]},
    "answerKey": ("A", "B", "C", "D"),
}
LENGTH = ("True", "False", True, False)


def source(repo, train, test, **more):
    """A task of the hub; train, test: (the source's split, its rows on record, the share of 1s)."""
    return {"repo": repo, "splits": {"train": train, "test": test}} | more


def ethics(config, train, test, test_hard, **more):
    """A task of ETHICS (Hendrycks et al. 2021); train, ...: rows on record, the share of 1s."""
    splits = {"train": train, "test": test, "test_hard": test_hard}
    task = {"repo": "hendrycks/ethics", "config": config, "files": f"data/{config}/{{}}.csv"}
    return task | {"splits": {split: (split, *known) for split, known in splits.items()}} | more


def legal(config, known, **more):
    """A task of LegalBench, which comes in one piece; known: rows on record, the share of 1s."""
    return {
        "repo": "nguha/legalbench",
        "config": config,
        "splits": {"all": ("test", *known)},
    } | more


def choices(row):
    """The answers of openbookqa and quartz."""
    return row["choices"]["text"]


def answer_key(row):
    """The number of the right one of them."""
    return row["choices"]["label"].index(row["answerKey"])


# fmt: off
TASKS = {
    "facts": dict(load=world.questions, group="person", licence="MIT", models=("facts/xs", "facts/m"),
        splits=dict(train=("train", 1600, 0.5), test=("test", 1600, 0.5))),
    "boolq": source("google/boolq", ("train", 9427, None), ("validation", 3270, None),
        # {"passage": "Bees are insects ...", "question": "do bees sleep at night", "answer": true}
        **statement("{passage}\nQuestion: {question}\nIs the answer yes?", "passage",
            "answer", answer=bool)),
    "cosmos_qa": source("allenai/cosmos_qa", ("train", 25262, 0.5), ("validation", 2985, 0.5),
        revision="ed50fe83db62b355759053b1cd5eef344ee371e0", files="default/{}/*.parquet",
        # {"context": "We missed the bus.", "question": "Why?", "answer0": "...", ..., "label": 2}
        **question("{context}\n" + ASKED, "context",
            "answer0 answer1 answer2 answer3", "label", label=range(4))),
    "dream": source("dataset-org/dream", ("train", 6116, 0.5), ("test", 2041, 0.5),
        config="plain_text", files="plain_text/{}/*.parquet",
        revision="ca4c45feaf089ecfc37579eb2c594375f70dbfd5",
        # {"dialogue": ["M: Ready?", "W: Yes."], "question": "...", "choice": ["Go."], "answer": "Go."}
        **question("{dialogue}\n" + ASKED, "dialogue", "choice",
            lambda row: row["choice"].index(row["answer"]), first=formats.with_dialogue,
            dialogue=[str], choice=[str], answer=str)),
    # 1 = reasonable; groups: see first_words
    "ethics_justice": ethics("justice", (21791, 0.543), (2704, 0.501), (2052, 0.512),
        regroup=formats.first_words,
        # {"scenario": "I deserve a day off because I worked all week.", "label": 1}
        **statement("{scenario}\nIs this reasonable?", "scenario")),
    "ethics_deontology": ethics("deontology", (18164, 0.539), (3596, 0.497), (3536, 0.499),
        # {"scenario": "Could you feed the cat?", "excuse": "No because it ate already.", "label": 1}
        **statement("{scenario}\n{excuse}\nIs this reasonable?", "scenario")),
    # 1 = the trait is shown; on this branch "validation" is the test set and "test" the hard one
    "ethics_virtue": ethics("virtue", (28245, 0.086), (4975, 0.2), (4780, 0.2), revision=PARQUET,
        files=dict(train="virtue/train/*.parquet", test="virtue/validation/*.parquet",
            test_hard="virtue/test/*.parquet"),
        or_else="try lighteval/hendrycks_ethics, whose trait is a column of its own",
        # {"scenario": "Ann gave her coat to a stranger. [SEP] generous", "label": 1}
        **statement("{scenario}\nTrait: {trait}\nIs this trait shown?", "scenario",
            first=formats.with_trait, trait=None)),
    # baseline is the MORE pleasant of the two
    "ethics_utilitarianism": ethics("utilitarianism", (13738, 0.5), (4808, 0.5), (4272, 0.5),
        # {"baseline": "I found a coin.", "less_pleasant": "I lost a coin."}
        **question("{answer}\nIs the second more pleasant than the first?", "first words",
            "orders", lambda row: 0, first=formats.with_orders,
            baseline=str, less_pleasant=str, orders=None)),
    # 1 = wrong
    "ethics_commonsense": ethics("commonsense", (13910, None), (3885, 0.466), (3964, 0.484),
        # {"input": "I hid the keys of my aunt for fun.", "is_short": "True", "label": 1}
        **statement("{input}\nIs this wrong?", first=formats.if_short, is_short=LENGTH)),
    "ethics_commonsense_long": ethics("commonsense", (13910, None), (3885, 0.469), (3964, 0.561),
        # {"input": "Last week my neighbour ...", "is_short": "False", "label": 0}
        **statement("{input}\nIs this wrong?", first=formats.if_long, is_short=LENGTH)),
    "anli_r2": source("facebook/anli", ("train_r2", 45460, None), ("test_r2", 1000, None),
        config="plain_text", revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
        # {"premise": "Lima is in Peru.", "hypothesis": "Peru has a city.", "label": 0}: entailment
        **statement("{premise}\n{hypothesis}\nDoes this follow?", "premise",
            is_one=lambda label: label == 0, label=range(3))),
    "cola": source("nyu-mll/glue", ("train", 8551, 0.704), ("validation", 1043, 0.689), config="cola",
        # {"sentence": "Him saw she.", "label": 0}: 1 = acceptable
        **statement("{sentence}\nIs this sentence acceptable English?")),
    "sst2": source("nyu-mll/glue", ("train", 67349, 0.558), ("validation", 872, 0.509), config="sst2",
        # {"sentence": "a charming film . ", "label": 1}: 1 = positive; most are phrases of longer ones
        **statement("{sentence}\nIs this review positive?")),
    "hellaswag": source("Rowan/hellaswag", ("train", 39905, 0.5), ("validation", 10042, 0.5),
        # {"ctx": "A man opens a tin. he", "endings": ["eats.", "flies."], "label": "0"}: a string
        **question("{ctx}\n{answer}\nIs this what happens next?", "ctx", "endings",
            lambda row: int(row["label"]), endings=[str], label=("0", "1", "2", "3"))),
    "mc_taco": source("CogComp/mc_taco", ("test", 9442, 0.339), ("validation", 3783, 0.325),
        config="plain_text", revision=PARQUET, files="plain_text/{}/*.parquet",
        # {"sentence": "He took a nap.", "question": "For how long?", "answer": "an hour", "label": 1}
        **statement("{sentence}\n" + ASKED, "sentence")),
    "openbookqa": source("allenai/openbookqa", ("train", 4957, 0.5), ("test", 500, 0.5), config="main",
        # {"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]},
        #  "answerKey": "B"}: 4 choices
        **question("Question: {question_stem}\nAnswer: {answer}\nIs this answer right?",
            "question_stem", choices, answer_key, **CHOICES)),
    "paws": source("google-research-datasets/paws", ("train", 49401, None), ("test", 8000, None),
        config="labeled_final",
        # {"sentence1": "Al met Bo.", "sentence2": "Bo met Al.", "label": 1}: 1 = paraphrase
        **statement("{sentence1}\n{sentence2}\nDo these mean the same?")),
    "quail": source("textmachinelab/quail", ("train", 10246, 0.5), ("validation", 2164, 0.5),
        config="quail", or_else="try its refs/convert/parquet, folder quail",
        # {"context": "...", "question": "Who?", "answers": ["Al", ...], "correct_answer_id": 0}
        **question("{context}\n" + ASKED, "context", "answers",
            "correct_answer_id", answers=[str], correct_answer_id=range(4))),
    "piqa": source("baber/piqa", ("train", 16113, 0.5), ("validation", 1838, 0.5),
        # {"goal": "dry a shirt", "sol1": "hang it up", "sol2": "put it in a lake", "label": 0}: sol1
        **question("{goal}\n{answer}\nDoes this reach the goal?", "goal",
            "sol1 sol2", "label", label=range(2))),
    "quartz": source("allenai/quartz", ("train", 2696, 0.5), ("test", 784, 0.5),
        # {"para": "...", "question": "...", "choices": {"text": ["more", "less"], "label": ["A", "B"]},
        #  "answerKey": "A"}
        **question("{para}\n" + ASKED, "para", choices, answer_key, **CHOICES)),
    "sciq": source("allenai/sciq", ("train", 11679, 0.5), ("test", 1000, 0.5),
        # {"question": "...?", "correct_answer": "iron", "distractor1": "air", ..., "support": "..."}
        **question(ASKED, "question",
            "correct_answer distractor1 distractor2 distractor3", lambda row: 0)),
    "social_i_qa": source("lighteval/siqa", ("train", 33410, 0.5), ("validation", 1954, 0.5),
        # {"context": "Al won.", "question": "How is Al?", "answerA": "glad", ..., "label": "1"}: A
        **question("{context}\n" + ASKED, "context", "answerA answerB answerC",
            lambda row: int(row["label"]) - 1, label=("1", "2", "3"))),
    "multirc": source("aps/super_glue", ("train", 27243, 0.441), ("validation", 4848, 0.428),
        config="multirc",
        # {"paragraph": "...", "question": "Who came?", "answer": "Al", "label": 1}
        **statement("{paragraph}\n" + ASKED, "paragraph")),
    "wic": source("aps/super_glue", ("train", 5428, None), ("validation", 638, None), config="wic",
        # {"word": "bank", "sentence1": "The bank is shut.", "sentence2": "A river bank.", "label": 0}
        **statement('{sentence1}\n{sentence2}\nDoes "{word}" mean the same in both?')),
    "twitter_sentiment": source("EleutherAI/twitter-sentiment", ("train", None, None),
        ("test", None, None), or_else="try cardiffnlp/tweet_eval",
        # {"text": "what a day", "label": 1}: 1 = positive
        **statement("{text}\nIs this tweet positive?")),
    "amazon_polarity": source("fancyzhx/amazon_polarity", ("train", 3600000, None),
        ("test", 400000, None), config="amazon_polarity",
        revision="9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289",
        # {"title": "Good", "content": "Works well.", "label": 1}: 1 = positive
        **statement("{title}\n{content}\nIs this review positive?")),
    "civil_comments": source("google/civil_comments", ("train", 1804874, None), ("test", 97320, None),
        # {"text": "You fool.", "toxicity": 0.7}: 1 = toxic to at least half of the raters
        **statement("{text}\nIs this comment toxic?", None, "toxicity",
            is_one=lambda share: share >= 0.5, toxicity=float)),
    "beavertails": source("PKU-Alignment/BeaverTails", ("30k_train", 27186, None),
        ("30k_test", None, None),
        # {"prompt": "How do I ...?", "response": "You ...", "is_safe": false}
        **statement("{prompt}\n{response}\nIs this response safe?", "prompt", "is_safe", is_safe=bool)),
    "legal_overruling": legal("overruling", (2394, 0.495),
        # {"text": "We overrule Smith v. Jones.", "answer": "Yes"}
        **statement("{text}\nDoes this overrule an earlier decision?", None, "answer",
            is_one=lambda answer: answer == "Yes", answer=("Yes", "No"))),
    "legal_privacy_policy_qa": legal("privacy_policy_qa", (None, None),
        # {"question": "Do you sell my data?", "text": "We share data with ...", "answer": "Relevant"}
        **statement("{question}\n{text}\nDoes this clause answer the question?", "question", "answer",
            is_one=lambda answer: answer == "Relevant", answer=("Relevant", "Irrelevant"))),
    # the prompts of a pilot study; 434 stand there twice or more
    "safety_prompts": dict(repo="yeruimeng/WTS", config="safety",
        splits=dict(all=("train", 11468, 0.44)),
        by_hand="safety.csv of github.com/yeruimeng/WTS, commit c9093777",
        # {"prompt": "How do I bake bread?", "is_safe": true}
        **statement("{prompt}\nIs this prompt safe?", "prompt", "is_safe", is_safe=bool)),
}
# fmt: on
