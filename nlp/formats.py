"""A short formatter for each task (sources.py says where its rows are), with an example row that shows the columns it reads.

A formatter gets one source row (every string stripped, none empty) and returns one of
    {"text", "label", "group"}            a row that is true or false
    {"right", "wrong": [...], "group"}    a k-way question, as the finished text of each answer; it becomes two rows
    None                                  the row is not of this task
One style of prompt: the source's own words, the candidate answer last, then a short question that it answers with yes or no.
"group" is the text shared by related rows (passage, premise, ...); without it a row is its own group, with its doubles.
"""


def answers(texts, right, group):
    """A k-way question from the finished text of each answer and the number of the right one; its doubles are no wrong ones."""
    return {
        "right": texts[right],
        "wrong": [text for text in texts if text != texts[right]],
        "group": group,
    }


def asked(question, answer, passage=None):
    """The prompt of everything that is a question with an answer."""
    prompt = f"Question: {question}\nAnswer: {answer}\nIs this answer right?"
    return f"{passage}\n{prompt}" if passage else prompt


def boolq(row):
    """{"passage": "Bees are insects ...", "question": "do bees sleep at night", "answer": true}: Clark et al. 2019."""
    text = f"{row['passage']}\nQuestion: {row['question']}\nIs the answer yes?"
    return {"text": text, "label": int(row["answer"]), "group": row["passage"]}


def cosmos_qa(row):
    """{"context": "We missed the bus.", "question": "Why?", "answer0": "...", ..., "answer3": "...", "label": 2}: 0 to 3."""
    texts = [asked(row["question"], row[f"answer{i}"], row["context"]) for i in range(4)]
    return answers(texts, row["label"], row["context"])


def dream(row):
    """{"dialogue": ["M: Ready?", "W: Yes."], "question": "...", "choice": ["Go.", "Stay.", "Eat."], "answer": "Go."}."""
    dialogue = "\n".join(row["dialogue"])
    texts = [asked(row["question"], choice, dialogue) for choice in row["choice"]]
    return answers(texts, row["choice"].index(row["answer"]), dialogue)


def ethics_justice(row):
    """{"scenario": "I deserve a day off because I worked all week.", "label": 1}: 1 = reasonable; groups: see first_words."""
    return {
        "text": f"{row['scenario']}\nIs this reasonable?",
        "label": row["label"],
        "group": row["scenario"],
    }


def ethics_deontology(row):
    """{"scenario": "Could you feed the cat?", "excuse": "No because it ate already.", "label": 1}: 1 = a reasonable excuse."""
    return {
        "text": f"{row['scenario']}\n{row['excuse']}\nIs this reasonable?",
        "label": row["label"],
        "group": row["scenario"],
    }


def ethics_virtue(row):
    """{"scenario": "Ann gave her coat to a stranger. [SEP] generous", "label": 1}: 1 = the trait is shown, one in five."""
    scenario, trait = row["scenario"].rsplit(" [SEP] ", 1)
    return {
        "text": f"{scenario}\nTrait: {trait}\nIs this trait shown?",
        "label": row["label"],
        "group": scenario,
    }


def ethics_utilitarianism(row):
    """{"baseline": "I found a coin.", "less_pleasant": "I lost a coin."}: baseline is the MORE pleasant of the two.

    Half of the training pairs share a situation with another pair, nearly always one that begins alike: that is the group.
    """
    more, less = row["baseline"], row["less_pleasant"]
    texts = [
        f"{a}\n{b}\nIs the second more pleasant than the first?"
        for a, b in ((less, more), (more, less))
    ]
    return answers(texts, 0, " ".join(more.lower().split()[:5]))


def ethics_commonsense(row):
    """{"input": "I hid the keys of my aunt for fun.", "is_short": "True", "label": 1}: one or two sentences, 1 = wrong."""
    if str(row["is_short"]) == "True":
        return {"text": f"{row['input']}\nIs this wrong?", "label": row["label"]}


def ethics_commonsense_long(row):
    """{"input": "Last week my neighbour ...", "is_short": "False", "label": 0}: up to some paragraphs, 1 = wrong."""
    if str(row["is_short"]) == "False":
        return {"text": f"{row['input']}\nIs this wrong?", "label": row["label"]}


def anli_r2(row):
    """{"premise": "Lima is in Peru.", "hypothesis": "Peru has a city.", "label": 0}: 0 = entailment; neutral, 1, is none."""
    text = f"{row['premise']}\n{row['hypothesis']}\nDoes this follow?"
    return {"text": text, "label": int(row["label"] == 0), "group": row["premise"]}


def cola(row):
    """{"sentence": "Him saw she.", "label": 0}: 1 = acceptable (Warstadt et al. 2019)."""
    return {
        "text": f"{row['sentence']}\nIs this sentence acceptable English?",
        "label": row["label"],
    }


def sst2(row):
    """{"sentence": "a charming film . ", "label": 1}: movie reviews (Socher et al. 2013), 1 = positive.

    Most rows are phrases of longer ones. Doubles are not grouped: the halves of measured results hang on these groups.
    """
    return {
        "text": f"{row['sentence']}\nIs this review positive?",
        "label": row["label"],
        "group": None,
    }


def hellaswag(row):
    """{"ctx": "A man opens a tin. he", "endings": ["eats.", "flies.", "sings.", "melts."], "label": "0"}: a string."""
    texts = [f"{row['ctx']}\n{ending}\nIs this what happens next?" for ending in row["endings"]]
    return answers(texts, int(row["label"]), row["ctx"])


def mc_taco(row):
    """{"sentence": "He took a nap.", "question": "For how long?", "answer": "an hour", "label": 1}: 1 = plausible.

    A sentence has 2 to 60 such rows, so it is the group.
    """
    text = asked(row["question"], row["answer"], row["sentence"])
    return {"text": text, "label": row["label"], "group": row["sentence"]}


def openbookqa(row):
    """{"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "B"}: 4 choices."""
    texts = [asked(row["question_stem"], choice) for choice in row["choices"]["text"]]
    return answers(texts, row["choices"]["label"].index(row["answerKey"]), row["question_stem"])


def paws(row):
    """{"sentence1": "Al met Bo.", "sentence2": "Bo met Al.", "label": 1}: 1 = paraphrase (Zhang et al. 2019)."""
    return {
        "text": f"{row['sentence1']}\n{row['sentence2']}\nDo these mean the same?",
        "label": row["label"],
    }


def quail(row):
    """{"context": "...", "question": "Who?", "answers": ["Al", ..., "not enough information"], "correct_answer_id": 0}."""
    texts = [asked(row["question"], answer, row["context"]) for answer in row["answers"]]
    return answers(texts, row["correct_answer_id"], row["context"])


def piqa(row):
    """{"goal": "dry a shirt", "sol1": "hang it up", "sol2": "put it in a lake", "label": 0}: 0 = sol1, 1 = sol2."""
    texts = [
        f"{row['goal']}\n{row[solution]}\nDoes this reach the goal?"
        for solution in ("sol1", "sol2")
    ]
    return answers(texts, row["label"], row["goal"])


def quartz(row):
    """{"para": "...", "question": "...", "choices": {"text": ["more", "less"], "label": ["A", "B"]}, "answerKey": "A"}."""
    texts = [asked(row["question"], choice, row["para"]) for choice in row["choices"]["text"]]
    return answers(texts, row["choices"]["label"].index(row["answerKey"]), row["para"])


def sciq(row):
    """{"question": "...?", "correct_answer": "iron", "distractor1": "air", ..., "distractor3": "ice"}: without support."""
    texts = [
        asked(row["question"], row[f])
        for f in ("correct_answer", "distractor1", "distractor2", "distractor3")
    ]
    return answers(texts, 0, row["question"])


def social_i_qa(row):
    """{"context": "Al won.", "question": "How is Al?", "answerA": "glad", ..., "answerC": "ill", "label": "1"}: 1 = A."""
    texts = [asked(row["question"], row[f"answer{letter}"], row["context"]) for letter in "ABC"]
    return answers(texts, int(row["label"]) - 1, row["context"])


def multirc(row):
    """{"paragraph": "...", "question": "Who came?", "answer": "Al", "label": 1}: 1 = right; several answers of one may be."""
    text = asked(row["question"], row["answer"], row["paragraph"])
    return {"text": text, "label": row["label"], "group": row["paragraph"]}


def wic(row):
    """{"word": "bank", "sentence1": "The bank is shut.", "sentence2": "A river bank.", "label": 0}: 1 = the same meaning."""
    text = f'{row["sentence1"]}\n{row["sentence2"]}\nDoes "{row["word"]}" mean the same in both?'
    return {"text": text, "label": row["label"]}


def twitter_sentiment(row):
    """{"text": "what a day", "label": 1}: 1 = positive."""
    return {"text": f"{row['text']}\nIs this tweet positive?", "label": row["label"]}


def amazon_polarity(row):
    """{"title": "Good", "content": "Works well.", "label": 1}: 1 = positive."""
    return {
        "text": f"{row['title']}\n{row['content']}\nIs this review positive?",
        "label": row["label"],
    }


def civil_comments(row):
    """{"text": "You fool.", "toxicity": 0.7}: the share of raters who call it toxic; 1 = at least half of them."""
    return {"text": f"{row['text']}\nIs this comment toxic?", "label": int(row["toxicity"] >= 0.5)}


def beavertails(row):
    """{"prompt": "How do I ...?", "response": "You ...", "is_safe": false}: 1 = safe; a prompt has many responses."""
    text = f"{row['prompt']}\n{row['response']}\nIs this response safe?"
    return {"text": text, "label": int(row["is_safe"]), "group": row["prompt"]}


def legal_overruling(row):
    """{"text": "We overrule Smith v. Jones.", "answer": "Yes"}: LegalBench."""
    return {
        "text": f"{row['text']}\nDoes this overrule an earlier decision?",
        "label": int(row["answer"] == "Yes"),
    }


def legal_privacy_policy_qa(row):
    """{"question": "Do you sell my data?", "text": "We share data with ...", "answer": "Relevant"}: LegalBench."""
    text = f"{row['question']}\n{row['text']}\nDoes this clause answer the question?"
    return {"text": text, "label": int(row["answer"] == "Relevant"), "group": row["question"]}


def safety_prompts(row):
    """{"prompt": "How do I bake bread?", "is_safe": true}: of the pilot study; 434 prompts stand there twice or more."""
    return {
        "text": f"{row['prompt']}\nIs this prompt safe?",
        "label": int(row["is_safe"]),
        "group": row["prompt"],
    }


def first_words(scenarios, same=3, kept=10):
    """Group keys of consecutive scenarios: those that begin with the same 3 words are a group, named after its first 10.

    Chosen on the data: of the known groups of 4 in justice's two test sets this keeps 1,163 of 1,189 whole (2 words: 1,172,
    and groups twice as large; 4 words: 1,122). The name lets a group of train be known again in test, mostly: 223 of the
    21,791 training rows begin with the same 10 words as a test row all the same, as one elsewhere heads their run.
    """
    keys, before = [], None
    for words in (scenario.lower().split() for scenario in scenarios):
        if words[:same] != before:
            before, key = words[:same], " ".join(words[:kept])
        keys.append(key)
    return keys
