"""The table of text tasks: where each has its rows (w2s/sources.py), and the prompt made of them.

A comment shows a source's row before its prompt. Beside what sources.py reads a task may have
"make", "needs", "group" (formats.statement, question); "regroup": groups' keys -> better ones;
"load": what makes the rows here; "models": default supervisor and student; "licence".
"""

import sys

import formats
import world
from formats import ASKED, question, statement
from w2s import protocol, sources
from w2s.files import BadInput

PARQUET = "refs/convert/parquet"  # the branch of the hub's own copies
LENGTH = ("True", "False", True, False)
CHOICES = {"choices": {"text": [str], "label": [str]}, "answerKey": ("A", "B", "C", "D")}


def source(repo, train, test, **more):
    """A task of the hub; train, test: (the source's split, its rows on record, the share of 1s)."""
    return {"repo": repo, "splits": {"train": train, "test": test}} | more


def ethics(config, train, test, test_hard, **more):
    """A task of ETHICS (Hendrycks et al. 2021); of each split its rows, the share of 1s."""
    splits = {"train": train, "test": test, "test_hard": test_hard}
    task = {"repo": "hendrycks/ethics", "config": config, "files": f"data/{config}/{{}}.csv"}
    return task | {"splits": {split: (split, *known) for split, known in splits.items()}} | more


def of_choices(template, group):
    """A task of questions as openbookqa has them: choices, and the letter of the right one."""
    return question(
        template, group, lambda row: row["choices"]["text"],
        lambda row: row["choices"]["label"].index(row["answerKey"]), **CHOICES,
    )  # fmt: skip


# fmt: off
TASKS = {
    "facts": dict(load=world.questions, group="person", licence="MIT",
        models=("facts/xs", "facts/m"),
        splits=dict(train=("train", 1600, 0.5), test=("test", 1600, 0.5))),
    "boolq": source("google/boolq", ("train", 9427, None), ("validation", 3270, None),
        # {"passage": "Bees are insects ...", "question": "do bees sleep at night", "answer": true}
        **statement("{passage}\nQuestion: {question}\nIs the answer yes?", "passage", "answer",
            answer=bool)),
    "cosmos_qa": source("allenai/cosmos_qa", ("train", 25262, 0.5), ("validation", 2985, 0.5),
        revision="ed50fe83db62b355759053b1cd5eef344ee371e0", files="default/{}/*.parquet",
        # {"context": "We missed the bus.", "question": "Why?", "answer0": "...", ..., "label": 2}
        **question("{context}\n" + ASKED, "context", "answer0 answer1 answer2 answer3", "label",
            label=range(4))),
    "dream": source("dataset-org/dream", ("train", 6116, 0.5), ("test", 2041, 0.5),
        config="plain_text", files="plain_text/{}/*.parquet",
        revision="ca4c45feaf089ecfc37579eb2c594375f70dbfd5",
        # {"dialogue": ["M: Hi.", "W: Yes."], "question": "...", "choice": ["Go."], "answer": "Go."}
        **question("{dialogue}\n" + ASKED, "dialogue", "choice",
            lambda row: row["choice"].index(row["answer"]),
            first=lambda row: row | {"dialogue": "\n".join(row["dialogue"])},
            dialogue=[str], choice=[str], answer=str)),
    "ethics_justice": ethics("justice", (21791, 0.543), (2704, 0.501), (2052, 0.512),
        # {"scenario": "I deserve a day off because I worked all week.", "label": 1}: reasonable
        **statement("{scenario}\nIs this reasonable?", "scenario"), regroup=formats.first_words),
    "ethics_deontology": ethics("deontology", (18164, 0.539), (3596, 0.497), (3536, 0.499),
        # {"scenario": "Could you feed the cat?", "excuse": "No because it ate.", "label": 1}
        **statement("{scenario}\n{excuse}\nIs this reasonable?", "scenario")),
    # on this branch "validation" is the test set and "test" the hard one
    "ethics_virtue": ethics("virtue", (28245, 0.086), (4975, 0.2), (4780, 0.2), revision=PARQUET,
        files=dict(train="virtue/train/*.parquet", test="virtue/validation/*.parquet",
            test_hard="virtue/test/*.parquet"),
        or_else="try lighteval/hendrycks_ethics, whose trait is a column of its own",
        # {"scenario": "Ann gave her coat to a stranger. [SEP] generous", "label": 1}: shown
        **statement("{scenario}\nTrait: {trait}\nIs this trait shown?", "scenario",
            first=formats.with_trait, trait=None)),
    "ethics_utilitarianism": ethics("utilitarianism", (13738, 0.5), (4808, 0.5), (4272, 0.5),
        # {"baseline": "I found a coin.", "less_pleasant": "I lost a coin."}: baseline is the better
        **question("{answer}\nIs the second more pleasant than the first?", "first words", "orders",
            lambda row: 0, first=formats.with_orders, orders=None, baseline=str,
            less_pleasant=str)),
    "ethics_commonsense": ethics("commonsense", (13910, None), (3885, 0.466), (3964, 0.484),
        # {"input": "I hid the keys of my aunt for fun.", "is_short": "True", "label": 1}: wrong
        **statement("{input}\nIs this wrong?", first=formats.of_length(True), is_short=LENGTH)),
    "ethics_commonsense_long": ethics("commonsense", (13910, None), (3885, 0.469), (3964, 0.561),
        # {"input": "Last week my neighbour ...", "is_short": "False", "label": 0}
        **statement("{input}\nIs this wrong?", first=formats.of_length(False), is_short=LENGTH)),
    "anli_r2": source("facebook/anli", ("train_r2", 45460, None), ("test_r2", 1000, None),
        config="plain_text", revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
        # {"premise": "Lima is in Peru.", "hypothesis": "Peru has a city.", "label": 0}: it follows
        **statement("{premise}\n{hypothesis}\nDoes this follow?", "premise",
            is_one=lambda label: label == 0, label=range(3))),
    "cola": source("nyu-mll/glue", ("train", 8551, 0.704), ("validation", 1043, 0.689),
        # {"sentence": "Him saw she.", "label": 0}
        **statement("{sentence}\nIs this sentence acceptable English?"), config="cola"),
    "sst2": source("nyu-mll/glue", ("train", 67349, 0.558), ("validation", 872, 0.509),
        # {"sentence": "a charming film . ", "label": 1}; most are phrases of longer ones
        **statement("{sentence}\nIs this review positive?"), config="sst2"),
    "hellaswag": source("Rowan/hellaswag", ("train", 39905, 0.5), ("validation", 10042, 0.5),
        # {"ctx": "A man opens a tin. he", "endings": ["eats.", "flies."], "label": "0"}
        **question("{ctx}\n{answer}\nIs this what happens next?", "ctx", "endings",
            lambda row: int(row["label"]), endings=[str], label=("0", "1", "2", "3"))),
    "mc_taco": source("CogComp/mc_taco", ("test", 9442, 0.339), ("validation", 3783, 0.325),
        config="plain_text", revision=PARQUET, files="plain_text/{}/*.parquet",
        # {"sentence": "He slept.", "question": "For how long?", "answer": "an hour", "label": 1}
        **statement("{sentence}\n" + ASKED, "sentence")),
    "openbookqa": source("allenai/openbookqa", ("train", 4957, 0.5), ("test", 500, 0.5),
        # {"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]},
        #  "answerKey": "B"}
        **of_choices(ASKED.replace("{question}", "{question_stem}"), "question_stem"),
        config="main"),
    "paws": source("google-research-datasets/paws", ("train", 49401, None), ("test", 8000, None),
        # {"sentence1": "Al met Bo.", "sentence2": "Bo met Al.", "label": 1}
        **statement("{sentence1}\n{sentence2}\nDo these mean the same?"), config="labeled_final"),
    "quail": source("textmachinelab/quail", ("train", 10246, 0.5), ("validation", 2164, 0.5),
        config="quail", or_else="try its refs/convert/parquet, folder quail",
        # {"context": "...", "question": "Who?", "answers": ["Al", ...], "correct_answer_id": 0}
        **question("{context}\n" + ASKED, "context", "answers", "correct_answer_id",
            answers=[str], correct_answer_id=range(4))),
    "piqa": source("baber/piqa", ("train", 16113, 0.5), ("validation", 1838, 0.5),
        # {"goal": "dry a shirt", "sol1": "hang it up", "sol2": "put it in a lake", "label": 0}
        **question("{goal}\n{answer}\nDoes this reach the goal?", "goal", "sol1 sol2", "label",
            label=range(2))),
    "quartz": source("allenai/quartz", ("train", 2696, 0.5), ("test", 784, 0.5),
        # {"para": "...", "question": "...", "choices": as openbookqa's, "answerKey": "A"}
        **of_choices("{para}\n" + ASKED, "para")),
    "sciq": source("allenai/sciq", ("train", 11679, 0.5), ("test", 1000, 0.5),
        # {"question": "...?", "correct_answer": "iron", "distractor1": "air", ...}: no support
        **question(ASKED, "question", "correct_answer distractor1 distractor2 distractor3",
            lambda row: 0)),
    "social_i_qa": source("lighteval/siqa", ("train", 33410, 0.5), ("validation", 1954, 0.5),
        # {"context": "Al won.", "question": "How is Al?", "answerA": "glad", ..., "label": "1"}: A
        **question("{context}\n" + ASKED, "context", "answerA answerB answerC",
            lambda row: int(row["label"]) - 1, label=("1", "2", "3"))),
    "multirc": source("aps/super_glue", ("train", 27243, 0.441), ("validation", 4848, 0.428),
        # {"paragraph": "...", "question": "Who came?", "answer": "Al", "label": 1}
        **statement("{paragraph}\n" + ASKED, "paragraph"), config="multirc"),
    "wic": source("aps/super_glue", ("train", 5428, None), ("validation", 638, None), config="wic",
        # {"word": "bank", "sentence1": "It is shut.", "sentence2": "A river bank.", "label": 0}
        **statement('{sentence1}\n{sentence2}\nDoes "{word}" mean the same in both?')),
    "twitter_sentiment": source("EleutherAI/twitter-sentiment", ("train", None, None),
        ("test", None, None), or_else="try cardiffnlp/tweet_eval",
        # {"text": "what a day", "label": 1}
        **statement("{text}\nIs this tweet positive?")),
    "amazon_polarity": source("fancyzhx/amazon_polarity", ("train", 3600000, None),
        ("test", 400000, None), revision="9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289",
        # {"title": "Good", "content": "Works well.", "label": 1}
        **statement("{title}\n{content}\nIs this review positive?"), config="amazon_polarity"),
    "civil_comments": source("google/civil_comments", ("train", 1804874, None),
        ("test", 97320, None),
        # {"text": "You fool.", "toxicity": 0.7}: the share of raters who call it toxic
        **statement("{text}\nIs this comment toxic?", None, "toxicity",
            is_one=lambda share: share >= 0.5, toxicity=float)),
    "beavertails": source("PKU-Alignment/BeaverTails", ("30k_train", 27186, None),
        ("30k_test", None, None),
        # {"prompt": "How do I ...?", "response": "You ...", "is_safe": false}
        **statement("{prompt}\n{response}\nIs this response safe?", "prompt", "is_safe",
            is_safe=bool)),
    "legal_overruling": dict(repo="nguha/legalbench", config="overruling",
        splits=dict(all=("test", 2394, 0.495)),
        # {"text": "We overrule Smith v. Jones.", "answer": "Yes"}
        **statement("{text}\nDoes this overrule an earlier decision?", None, "answer",
            is_one=lambda answer: answer == "Yes", answer=("Yes", "No"))),
    "legal_privacy_policy_qa": dict(repo="nguha/legalbench", config="privacy_policy_qa",
        splits=dict(all=("test", None, None)),
        # {"question": "Do you sell my data?", "text": "We share ...", "answer": "Relevant"}
        **statement("{question}\n{text}\nDoes this clause answer the question?", "question",
            "answer", is_one=lambda one: one == "Relevant", answer=("Relevant", "Irrelevant"))),
    "safety_prompts": dict(repo="yeruimeng/WTS", config="safety",
        splits=dict(all=("train", 11468, 0.44)),
        by_hand="it is not on the hub: put safety.csv of github.com/yeruimeng/WTS, commit c9093777,"
            " at DIR/yeruimeng/WTS/safety/train.csv and set W2S_MIRROR=DIR",
        # {"prompt": "How do I bake bread?", "is_safe": true}
        **statement("{prompt}\nIs this prompt safe?", "prompt", "is_safe", is_safe=bool)),
}
# fmt: on


def read_source(ds, split):
    """All rows of one split of a task that comes from the hub or a mirror.

    Ids are the source's row numbers: "dream/train/17/right" and ".../wrong" for the two rows of a
    k-way question. Rows with an empty field are left out, and told.
    """
    task, (name, *_) = TASKS[ds], TASKS[ds]["splits"][split]
    where, count, rows = sources.source_rows(ds, task, split)
    made, skipped, out = [], 0, []
    for number, row in rows:
        try:
            prompt = row and task["make"](row)
        except (ValueError, IndexError) as error:
            told = f"its columns do not fit together ({error}){sources.or_else(task)}"
            raise BadInput(f"{where}, row {number}: {told}") from None
        if row is None or prompt and not prompt.get("wrong", True):
            skipped += 1
        elif prompt:
            made.append((f"{ds}/{name}/{number}", prompt))
    if skipped:
        told = "have an empty field or but one answer and are left out"
        print(f"{where}: {skipped} of {count} {told}", file=sys.stderr)
    keys = task.get("regroup", list)([prompt["group"] for _, prompt in made])
    for (row_id, prompt), key in zip(made, keys):
        group = protocol.group_name(ds, protocol.same_text(key)) if key else row_id
        out += formats.as_rows(row_id, prompt, group)
    return out
