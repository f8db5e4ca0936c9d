"""Language models that answer by their own logits: trained so (--head=answers), or asked so."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_model import changed, random_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

import eval
import label
import prompting
import tasks
import texts
import train_strong
import train_weak
from w2s import files, loop, lora, losses, models, packing, protocol, records
from w2s.files import BadInput

ASK = ["eval.py", "--model=facts/m", "--out=n"]
TRAINED = {"head": "answers", "epochs": 1, "n_val": 16}
DECODERS = ("gpt2", "llama", "opt", "phi", "bloom")  # tied, untied, projected, biased, padded


def read(path):
    return [json.loads(line) for line in open(path)]


def plain(folder, prompts, words=("0", "1")):
    """The logits of words [N, len(words)] after each prompt: transformers and nothing of ours."""
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(list(words))
    asked = [torch.tensor([tokenizer(prompt).input_ids]) for prompt in prompts]
    with torch.no_grad():
        return torch.stack([lm(one).logits[0, -1, ids] for one in asked])


# ---- the head


@pytest.mark.parametrize("architecture", DECODERS)
def test_the_logits_are_the_models_own_for_the_answers_after_a_new_line(tiny, architecture):
    net, tokenizer = models.load(tiny(architecture), head="answers", device="cpu")
    rows = [{"id": text, "text": text, "label": 1} for text in ("ab0c1!,z", "q", "xyz" * 30)]
    encoded = texts.encode(rows, tokenizer, net, given="label")
    wanted = plain(tiny(architecture), [f"{row['text']}\n" for row in rows])
    with torch.no_grad():
        torch.testing.assert_close(texts.outputs(net, encoded), wanted, rtol=1e-5, atol=1e-5)
    probs = texts.answer(net, tokenizer, rows)
    assert probs == pytest.approx(wanted.double().softmax(1)[:, 1].tolist(), abs=1e-6)
    assert net.w2s["head"] == "answers" and [row["text"] for row in encoded] == [
        row["text"] for row in rows
    ]


def test_a_bias_is_taken_along_and_a_cap_refused(tiny, tmp_path):
    def shift(weights):
        weights["lm_head.bias"][4:6] = torch.tensor([0.5, -0.5])

    folder = changed(tiny, "phi", tmp_path / "phi", shift)
    causal, tokens = AutoModelForCausalLM.from_pretrained(folder), random_tokens((7, 3))
    with torch.no_grad():
        own = torch.stack([causal(torch.tensor([ids])).logits[0, -1, [4, 5]] for ids in tokens])
        said = packing.logits(models.load(folder, head="answers")[0], tokens)
    torch.testing.assert_close(said, own, rtol=1e-4, atol=1e-4)
    net, _ = models.load(folder)  # a start for training, but not what the model itself says
    assert net.w2s["head"] == "unembedding alone" and net.score.bias is None
    folder = changed(tiny, "gemma2", tmp_path / "gemma2", final_logit_softcapping=0.5)
    with pytest.raises(BadInput, match="changes its logits after its last layer"):
        models.load(folder, head="answers")


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])  # tied, untied
def test_a_step_moves_the_language_model_as_transformers_gradient_says(tiny, architecture):
    """The gradient of one batch by transformers alone, through its logits; then ours."""
    net, tokenizer = models.load(tiny(architecture), head="answers", device="cpu")
    prompts, weak = ["ab\n", "q1\n", "zz0\n"], torch.tensor([0.9, 0.2, 0.6])
    tokens = tokenizer(prompts).input_ids
    losses.xent(packing.logits(net, tokens), weak).mean().backward()
    lm = AutoModelForCausalLM.from_pretrained(tiny(architecture), dtype=torch.float32).eval()
    logits = torch.stack([lm(torch.tensor([ids])).logits[0, -1, [4, 5]] for ids in tokens])
    p1 = logits.log_softmax(1)
    (-(1 - weak) * p1[:, 0] - weak * p1[:, 1]).mean().backward()
    oracle = dict(lm.named_parameters())
    assert {name for name, _ in net.named_parameters()} == oracle.keys()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, oracle[name].grad, rtol=1e-4, atol=1e-6)
    head = net.get_output_embeddings().weight.grad
    assert head[[4, 5]].abs().min() > 0
    assert (head is net.get_input_embeddings().weight.grad) == (architecture == "gpt2")


@pytest.mark.parametrize("how", [{}, {"micro_batch": 5, "checkpointing": True}, {"lora": 2}])
def test_it_learns_and_its_held_out_rows_are_counted_as_a_classifiers(tiny, tmp_path, how):
    net, tokenizer = models.load(tiny("gpt2"), head="answers", device="cpu")
    if rank := how.pop("lora", None):
        lora.add(net, rank)
    rows = [{"id": f"{i}", "text": "ab"[i % 2] * (i % 5 + 1), "label": i % 2} for i in range(24)]
    rows = texts.encode(rows, tokenizer, net, given="label")
    fixed = {"epochs": 4, "batch_size": 8, "dtype": "float32", "lr": 1e-2, "head_lr": 1e-2}
    rule, whole_batch, _ = losses.rule("conf", batch_size=8)
    history = loop.fit(net, rows, rule, held_out=rows[:10], whole_batch=whole_batch, **fixed, **how)
    assert history[-1].keys() == {"step", "epoch", "loss", "agreement", "true_acc"}
    assert max(line["true_acc"] for line in history) == 1
    models.save(net, tokenizer, tmp_path / "m")
    assert not [name for name in load_file(tmp_path / "m/model.safetensors") if "score" in name]
    wanted = plain(tmp_path / "m", [f"{row['text']}\n" for row in rows])
    again = models.load(str(tmp_path / "m"), head="answers", device="cpu")
    assert texts.answer(*again, rows) == pytest.approx(wanted.softmax(1)[:, 1].tolist(), abs=1e-5)


# ---- runs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder where four stages have run on facts with --head=answers."""
    runs = tmp_path_factory.mktemp("answers") / "runs"
    train_weak.main(out=f"{runs}/weak", n_train=300, n_test=60, **TRAINED)
    label.main(f"{runs}/weak")
    for target in ("weak", "truth"):
        train_strong.main(f"{runs}/labels.jsonl", target=target, **TRAINED)
    eval.main(*(f"{runs}/{name}" for name in ("weak", "student", "ceiling")))
    return runs.parent


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def test_a_run_is_a_language_model_that_says_the_same_to_a_zero_shot_prompt(here):
    card = files.read_card("runs/student")
    assert card["resolved"]["head"] == "answers" and records.role(card) == "student"
    with open("runs/student/model/config.json") as file:
        assert json.load(file)["architectures"] == ["LlamaForCausalLM"]
    eval.main(model="runs/student/model", shots=0, n_test=60, out="runs/zero")
    said, asked = (read(f"runs/{run}/eval/facts-test.jsonl") for run in ("student", "zero"))
    assert [row["id"] for row in said] == [row["id"] for row in asked] and len(said) == 60
    assert [row["prob"] for row in said] == [row["prob"] for row in asked]


def test_label_asks_it_by_its_answers_too(here):
    rows = read("runs/labels.jsonl")[:20]
    wanted = plain("runs/weak/model", [f"{row['text']}\n" for row in rows], ("no", "yes"))
    assert [row["weak"] for row in rows] == pytest.approx(
        wanted.softmax(1)[:, 1].tolist(), abs=1e-5
    )
    assert tasks.answers(texts, "runs/weak", rows) == pytest.approx([row["weak"] for row in rows])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train_weak.py", "--ds=facts_pairs", "--head=answers", "--out=n"], "--head is for texts"),
        (["train_weak.py", "--ds=puzzles", "--head=answers", "--out=n"], "--head is for texts"),
        (
            [*ASK, "--shots=1", "--ratings"],
            "--shots and --ratings do not go together",
        ),
        (["eval.py", "runs/weak", "--ratings"], "--ratings goes with --model and --out; of a run"),
        ([*ASK, "--shots=1", "--target=weak"], "--target=weak goes with --labels"),
        ([*ASK, "--ratings"], "--ratings is for --ds=ethics_utilitarianism"),
        ([*ASK, "--ratings", "--ds=ethics_*"], "--ratings is for --ds=ethics_utilitarianism"),
        (["eval.py", "runs/weak", "--ds=ethic_*"], "--ds=ethic_* matches no task: python tasks.py"),
        (["eval.py", "runs/weak", "--ds=facts,nothing"], "unknown task 'nothing'"),
        (["eval.py", "runs/weak", "--ds=facts*"], "names tasks of several settings: score each"),
        (["eval.py", "runs/weak", "--ds=a.jsonl,b.jsonl"], "a.jsonl does not exist"),
        (
            ["eval.py", "runs/weak", "--ds=facts,sst2", "--split=test_hard"],
            "no test split 'test_ha",
        ),
    ],
)
def test_bad_input_is_one_line(here, command, capsys, words, told):
    with pytest.raises(SystemExit) as stopped:
        command(*words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (here / "n").exists()


def test_an_encoder_and_a_tokenizer_without_answers_are_refused(tiny, monkeypatch):
    with pytest.raises(BadInput, match="has a classification head of its own"):
        models.load(tiny("bert"), head="answers")
    from w2s import answering

    monkeypatch.setattr(answering, "ANSWERS", (("yes", "no"),))
    with pytest.raises(BadInput, match="has no tokens yes no: it cannot answer by them"):
        models.load(tiny("gpt2"), head="answers")


def test_torchrun_does_not_train_it(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="torchrun does not train a language model's own head"):
        asked = {"head": "answers", "stop": None, "n_val": None, "model": "m", "out": "x"}
        records.check_training(texts, asked)


# ---- prompts


def test_prompts_show_examples_with_the_chosen_labels_and_take_the_next_token(
    tiny, tmp_path, monkeypatch
):
    from transformers import AutoModelForCausalLM

    asked, name = [], tiny("gpt2")
    net, tokenizer = models.load(name, head="answers")

    class Spy:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, prompts, **options):
            asked.extend([prompts] if isinstance(prompts, list) else [])
            return tokenizer(prompts, **options)

    monkeypatch.setattr(models, "load", lambda *_, **__: (net, Spy()))
    labels = str(tmp_path / "l.jsonl")
    with open(labels, "w") as file:
        for text, truth, weak in (("ab", 0, 0.9), ("q", 1, 0.8)):
            file.write(json.dumps({"text": text, "label": truth, "weak": weak}) + "\n")
    # the second stands among the examples: not shown
    rows = [{"id": i, "group": i, "text": text} for i, text in (("1", "cd"), ("2", "q"))]
    probs = prompting.probabilities(name, rows, 1, labels, "weak", 0)
    assert asked[-1] == ["ab\n1\n\ncd\n", "ab\n1\n\nq\n"]
    prompting.probabilities(name, rows, 1, labels, "truth", 0)
    assert asked[-1][0] == "ab\n0\n\ncd\n"
    prompting.probabilities(name, rows, 0, None, "weak", 0)
    assert asked[-1] == ["cd\n", "q\n"]
    lm = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    words = tokenizer.convert_tokens_to_ids(["0", "1"])
    for prompt, prob in zip(asked[0], probs):
        with torch.no_grad():
            logits = lm(torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1, words]
        assert prob == pytest.approx(logits.softmax(0)[1].item(), abs=1e-5)
    with pytest.raises(BadInput, match="holds 1 rows that are no test rows, fewer than --shots=2"):
        prompting.probabilities(name, rows, 2, labels, "weak", 0)


def test_examples_that_have_changed_prompt_nobody(here):
    shutil.copy("runs/labels.jsonl", "own.jsonl")
    eval.main(model="facts/m", shots=1, labels="own.jsonl", n_test=20, out="runs/asked")
    with open("own.jsonl", "a") as file:
        file.write(json.dumps(read("own.jsonl")[0] | {"id": "another"}) + "\n")
    with pytest.raises(BadInput, match="own.jsonl has changed since runs/asked was made"):
        eval.main("runs/asked", n_test=30, force=True)


def test_without_a_labels_file_the_examples_are_true_rows_of_the_weak_half(monkeypatch, capsys):
    data = protocol.describe(texts, "facts", n_test=30)
    rows, asked = protocol.test_rows(texts, data), []

    def noted(net, tokenizer, prompts, *how):
        asked.extend(prompts)
        return torch.zeros(len(prompts), 2)

    monkeypatch.setattr(prompting, "said", noted)
    probs = prompting.probabilities("facts/xs", rows, 3, None, "truth", 0, data=data)
    known = {
        f"{row['text']}\n{('no', 'yes')[row['label']]}"
        for row in protocol.half(texts, data, "weak")
    }
    shown = [prompt.split("\n\n") for prompt in asked]
    assert probs == [0.5] * 30 and {len(parts) for parts in shown} == {4}
    assert {example for parts in shown for example in parts[:-1]} <= known
    assert [parts[-1] for parts in shown] == [f"{row['text']}\n" for row in rows]
    prompting.probabilities("facts/xs", rows, 3, None, "truth", 1, data=data)
    assert asked[:30] != asked[30:]


# ---- ratings


def test_a_rating_is_the_expected_digit_and_the_higher_situation_is_the_answer(tiny, monkeypatch):
    asked = []

    def logits(net, tokenizer, prompts, *how):
        """Rates ab 9 (nearly) for certain, cd 3 or 5 by half, ef evenly."""
        asked.extend(prompts)
        out = torch.zeros(len(prompts), 9, dtype=torch.double)
        for row, prompt in zip(out, prompts):
            if prompt.startswith("ab"):
                row[8] = 100
            elif prompt.startswith("cd"):
                row[[2, 4]] = 100
        return out

    monkeypatch.setattr(prompting, "said", logits)
    pairs = [("ab", "cd"), ("cd", "ab"), ("cd", "ef"), ("ef", "ef")]  # 9, 4 and 5
    rows = [{"id": a + b, "text": f"{a}\n{b}\nIs it?"} for a, b in pairs]
    probs = prompting.ratings(tiny("llama"), rows)
    wanted = [1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5)), 1 / (1 + math.exp(-1)), 0.5]
    assert probs == pytest.approx(wanted, abs=1e-9)
    assert asked == [f"{one}\nHow pleasant is this, from 1 to 9?\n" for one in ("ab", "cd", "ef")]


def test_ratings_read_the_models_own_logits_of_the_digits(tiny, monkeypatch):
    rows = [{"id": "1", "text": "ab\ncd!\nIs it?"}]
    prompts = [f"{one}\n{prompting.RATING}\n" for one in ("ab", "cd!")]
    logits = plain(tiny("llama"), prompts, "123456789").double()
    first, second = (logits.softmax(1) @ torch.arange(1, 10).double()).tolist()
    assert abs(first - second) > 0.01
    wanted = 1 / (1 + math.exp(first - second))
    assert prompting.ratings(tiny("llama"), rows) == pytest.approx([wanted], abs=1e-5)
    monkeypatch.setattr(prompting, "DIGITS", ("10", "1"))
    with pytest.raises(BadInput, match="has no tokens 10 1: it cannot answer by them"):
        prompting.ratings(tiny("llama"), rows)


def test_eval_rates_and_remembers_that_it_did(tiny, tmp_path, monkeypatch):
    pairs = [("ab", "cd"), ("ef", "gh"), ("ij", "kl"), ("mn", "op")]
    rows = [
        {"id": f"{a}{label}", "group": a, "label": label}
        | {"text": f"{b if label else a}\n{a if label else b}\nIs it?"}
        for a, b in pairs
        for label in (0, 1)
    ]
    monkeypatch.setattr(protocol, "test_rows", lambda *_: rows)
    monkeypatch.chdir(tmp_path)
    how = {"model": tiny("llama"), "ds": "ethics_utilitarianism", "out": "rated"}
    eval.main(**how, ratings=True)
    said = read("rated/eval/ethics_utilitarianism-test.jsonl")
    assert [row["prob"] for row in said] == pytest.approx(prompting.ratings(tiny("llama"), rows))
    for one, other in zip(said[::2], said[1::2]):  # both orders: one is right
        assert one["prob"] + other["prob"] == pytest.approx(1)
    assert files.read_card("rated")["args"]["ratings"] is True
    with pytest.raises(BadInput, match="ratings was True, now None"):
        eval.main(**how)
    with pytest.raises(BadInput, match="--ratings is for --ds=ethics_utilitarianism"):
        eval.main("rated", ds="sst2")


# ---- several tasks


def test_the_names_of_ds_are_expanded_in_the_order_of_the_table():
    ethics = [
        "justice",
        "deontology",
        "virtue",
        "utilitarianism",
        "commonsense",
        "commonsense_long",
    ]
    ethics = [f"ethics_{name}" for name in ethics]
    assert eval.expanded("ethics_*") == ethics
    assert all("test_hard" in tasks.TASKS[name]["splits"] for name in ethics)
    assert eval.expanded("ethics_virtue,sst2,ethics_v*") == ["ethics_virtue", "sst2"]
    assert eval.expanded(None) == [None] and eval.expanded("sst2") == ["sst2"]


def test_the_average_of_independent_tasks_by_hand():
    ones = [{"acc": 0.6, "low": 0.57, "high": 0.62}, {"acc": 0.8, "low": 0.76, "high": 0.8}]
    got = eval.mean(ones)  # 3-4-5: sqrt(.03^2 + .04^2) / 2
    assert got == pytest.approx({"acc": 0.7, "low": 0.7 - 0.025, "high": 0.7 + 0.01})


def test_several_tasks_make_one_table_and_predictions_of_each(here, capsys):
    with open("other.jsonl", "w") as file:
        for row in read("runs/labels.jsonl")[:40]:
            file.write(json.dumps({"text": row["text"], "label": row["label"]}) + "\n")
    capsys.readouterr()
    eval.main("runs/weak", "runs/student", ds="facts,other.jsonl", n_test=60, allow_leak=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0] == "| run | facts | other | Average |" and len(lines) == 4
    for line, run in zip(lines[2:], ("runs/weak", "runs/student")):
        cells = [cell.split() for cell in line.strip("|").split("|")]
        ones = [
            json.loads((here / run / f"eval/{name}-test.metrics.json").read_text())
            for name in ("facts", "other")
        ]
        assert cells[0][0] == run and ("leak:" in line) == (run == "runs/student")
        assert [float(cell[0]) for cell in cells[1:3]] == [round(one["acc"], 3) for one in ones]
        assert float(cells[3][0]) == pytest.approx(sum(one["acc"] for one in ones) / 2, abs=1e-3)
