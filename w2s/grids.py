"""A grid of experiments as plain data: its stages, which are done, and what came out of them.

A stage is a dict {"name", "words" (of its command, without python), "options" (the same words, as
values), "needs" (names of stages), "out" (a run directory or JSONL file), "model" (what it runs)}.
Students and ceilings have "code", a hash of their rule's.
"""

import functools
import itertools
import json
import re
from pathlib import Path

from w2s import files, leaks, protocol, strict
from w2s.files import HERE, BadInput

STAGES = ("train_weak", "label", "train_strong", "eval")  # nobody needs a later one
UNKNOWN = 124_000_000  # parameters of a model that is no folder


# ---- the stages


def form(name):
    """A model, rule or number as part of a file name."""
    return re.sub(r"[^\w.]+", "-", str(name)).strip("-.")


def places(task, weak, strong, rule, seed):
    """Where the runs and labels of a line of the results are, below the grid's folder."""
    here = f"{protocol.name_of(task)}/s{seed}"
    return {
        "weak": f"{here}/weak-{form(weak)}",
        "labels": f"{here}/labels-{form(weak)}.jsonl",
        "student": f"{here}/{form(weak)}-{form(strong)}-{form(rule)}",
        "ceiling": f"{here}/ceiling-{form(strong)}",
    }


def cells(grid):
    """(task, weak, strong, rule, seed) of every line that the results of a grid will have."""
    every = itertools.product(grid["pairs"], grid["rules"], range(grid["seeds"]))
    return [(*pair, rule, seed) for pair, rule, seed in every]


def build(folder, grid, handed):
    """{name: stage} of all stages of a grid, each once, none before one that it needs.

    grid: {"pairs": [(task, weak, strong)], "rules": {name: its options}, "seeds": how many};
    handed: {script: further options}. BadInput where two would have one place.
    """
    nodes = {}

    def add(place, script, source, needs, model, options):
        given = options | handed[script]
        words = [f"{script}.py", *source, *words_of(given)]
        out, name = f"{folder}/{place}", place.removesuffix(".jsonl")
        if script == "eval":
            name = f"{place.split('/eval/')[0]}.eval"
        else:
            words.append(f"--out={out}")
        node = {"name": name, "words": words, "options": given, "out": out, "model": model}
        node["needs"] = [need.removesuffix(".jsonl") for need in needs]
        if nodes.setdefault(name, node) != node:
            raise BadInput(f"two stages would write {out}: give their models or files other names")

    def add_eval(place, task, model):
        file = f"{protocol.name_of(task)}-{handed['eval'].get('split', 'test')}.jsonl"
        add(f"{place}/eval/{file}", "eval", [f"{folder}/{place}"], [place], model, {})

    for task, weak, strong, rule, seed in cells(grid):
        at, learned = places(task, weak, strong, rule, seed), {"model": strong, "seed": seed}
        labels = at["labels"]
        add(at["weak"], "train_weak", [], [], weak, {"ds": task, "model": weak, "seed": seed})
        add(labels, "label", [f"{folder}/{at['weak']}"], [at["weak"]], weak, {})
        source = [f"{folder}/{labels}"]
        add(at["student"], "train_strong", source, [labels], strong, learned | grid["rules"][rule])
        if at["ceiling"] not in nodes:
            labels = learned_from(folder, at["ceiling"]) or labels
            source, learned = [f"{folder}/{labels}"], learned | {"target": "truth"}
            add(at["ceiling"], "train_strong", source, [labels], strong, learned)
        for who, model in (("weak", weak), ("student", strong), ("ceiling", strong)):
            add_eval(at[who], task, model)
    for node in nodes.values():  # the labels of an earlier ceiling may be of no supervisor of now
        node["needs"] = [need for need in node["needs"] if need in nodes]
    order = sorted(nodes.values(), key=lambda node: STAGES.index(script_of(node)))
    return {node["name"]: node for node in order}


def learned_from(folder, ceiling):
    """The labels file whose truth a finished ceiling learned; None if there is none any more."""
    card = files.read_card(f"{folder}/{ceiling}")
    if card and card.get("finished"):
        labels = files.beside(ceiling, Path(card["args"]["labels"]).name)
        return str(labels) if (Path(folder) / labels).exists() else None
    return None


def words_of(options):
    """Options as words of a command line."""
    switch = {True: "--{}", False: "--no{}"}
    return [
        switch[value].format(name) if isinstance(value, bool) else f"--{name}={value}"
        for name, value in options.items()
    ]


def script_of(node):
    """The script of a stage, without .py."""
    return node["words"][0].removesuffix(".py")


# ---- what is done


def undone(nodes):
    """The stages that are still to run: by their cards, without starting any."""
    todo = {}
    for name, node in nodes.items():
        if any(need in todo for need in node["needs"]) or not is_done(node):
            todo[name] = node
    return todo


def is_done(node):
    """Whether a stage's card is that of its options and of its present input.

    A base model that has changed under its name is not noticed: the stages look at that.
    """
    card, source = files.read_card(node["out"]), node["words"][1]
    if not card or not card.get("finished") or not Path(node["out"]).exists():
        return False
    own = {n: value for n, value in node["options"].items() if n not in ("judge", "bad")}
    if any(card["args"].get(name) != value for name, value in own.items()):  # a judge: settle()
        return False
    if "code" in node and card["inputs"].get("rule") != node["code"]:
        return False
    if source.startswith("--"):
        return True
    inputs, made = card["inputs"], files.read_card(source) or {}
    stamp = made.get("sha256" if source.endswith(".jsonl") else "model_sha256")
    return stamp in (inputs.get("labels"), inputs.get("model"), *inputs.get("runs", ()))


def settle(folder, grid, options, write):
    """Make `folder` that of this grid and all that it holds; returns what grid.json then says.

    options: what was handed to the stages. BadInput for a folder of other options or other files,
    or one that is none of a grid. Nothing is written unless `write`.
    """
    file, folder = Path(folder) / "grid.json", Path(folder)
    tasks = list(dict.fromkeys(task for task, *_ in grid["pairs"]))
    given = [*tasks, *(options.get(name) or "" for name in ("test", "judge"))]
    sums = {path: files.sha256(path) for path in given if Path(path).is_file()}
    if judge := files.read_card(options.get("judge") or "", run=True):
        sums[options["judge"]] = judge["model_sha256"]
    now = {"tasks": tasks, "pairs": [list(pair) for pair in grid["pairs"]]}
    now |= {"rules": list(grid["rules"]), "seeds": grid["seeds"], "options": options, "files": sums}
    if file.exists():
        before = strict.read(file, GRID)
        same = [(before["options"], options, name) for name in {**before["options"], **options}]
        same += [(before["files"], sums, name) for name in before["files"].keys() & sums]
        told = [
            f"{name} was {old.get(name)}, now {new.get(name)}"
            for old, new, name in same
            if old.get(name) != new.get(name)
        ]
        if told:
            raise BadInput(f"{folder} is another grid ({'; '.join(told)}): choose another --out")
        for name in ("tasks", "pairs", "rules"):
            now[name] = before[name] + [one for one in now[name] if one not in before[name]]
        now["seeds"] = max(now["seeds"], before["seeds"])
        now["files"] = before["files"] | sums
    elif folder.exists() and not folder.is_dir():
        raise BadInput(f"--out={folder} is a file: a grid is a folder")
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise BadInput(f"--out={folder} holds something else (no grid.json): choose another")
    if write and not (file.exists() and now == before):
        files.write_text(file, json.dumps(now, indent=2, ensure_ascii=False) + "\n")
    return now


# ---- how much work


def work(node):
    """About how much work a stage is, in parameters that go through."""
    folders = [path for path in (Path(node["model"]), HERE / node["model"]) if path.is_dir()]
    weights = [file for folder in folders[:1] for file in folder.glob("*.safetensors")]
    share = 4 if script_of(node).startswith("train") else 1  # of the work, roughly
    size = sum(file.stat().st_size for file in weights) // 4 or UNKNOWN
    return size * share + 1_000_000  # to load and to save


def pace(nodes):
    """(seconds a unit of work, of how many runs): of the trainings that are finished."""
    trained = [node for node in nodes if script_of(node).startswith("train")]
    seconds = sum(files.read_card(node["out"])["seconds"] for node in trained)
    return seconds / (sum(map(work, trained)) or 1), len(trained)


# ---- what came out

KEY = ("task", "weak", "strong", "rule", "seed")
GRID = {"tasks": [str], "pairs": [[str]], "rules": [str], "seeds": int}
GRID |= {"options": dict, "files": dict}


def results(folder, grid, setting_of, split, left=()):
    """Write and return results.jsonl: result() of every cell whose runs are finished and scored.

    setting_of: task -> setting; left: stages still to run: what they made before is no result.
    Cells of earlier calls stay while their runs do, a line newer than its predictions as it is.
    """
    file, read = Path(folder) / "results.jsonl", functools.cache(answers)
    before = files.read_jsonl(file, KEY, {}) if file.exists() and file.stat().st_size else []
    known = {tuple(line[name] for name in KEY): line for line in before}
    written, lines = file.stat().st_mtime if before else 0, []
    for cell in dict.fromkeys([*known, *cells(grid)]):
        at = places(*cell)
        name = f"eval/{protocol.name_of(cell[0])}-{split}.jsonl"
        scored = {who: f"{at[who]}/{name}" for who in ("weak", "student", "ceiling")}
        made = [files.card_path(f"{folder}/{one}") for one in (*scored.values(), at["labels"])]
        if not all(path.exists() for path in made) or any(f"{at[w]}.eval" in left for w in scored):
            continue
        if cell in known and max(path.stat().st_mtime for path in made) < written:
            lines.append(known[cell])
        elif line := result(folder, cell, at, scored, setting_of(cell[0]), read):
            lines.append(line | {"split": split})
    lines.sort(key=lambda line: [line[name] for name in KEY])
    if lines != before:
        told = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        files.write_text(file, told)
    return lines


def result(folder, cell, at, scored, setting, read):
    """A line of results.jsonl; None where predictions are of an earlier model of their run.

    Paths are below the grid's folder. "values" are the means of the metric on "n" test rows,
    "label_acc" the share of the weak labels that are right, "parameters" those of the models.
    """
    cards = {who: files.read_card(f"{folder}/{at[who]}") or {} for who in scored}
    abouts = [files.read_card(f"{folder}/{file}") for file in scored.values()]
    for about, card in zip(abouts, cards.values()):
        if card.get("model_sha256") != about["inputs"]["model"]:
            return None
    scores = {who: read(setting, f"{folder}/{file}") for who, file in scored.items()}
    sizes = {who: card["resolved"]["parameters"] for who, card in cards.items()}
    return dict(zip(KEY, cell)) | {
        "setting": setting.__name__,
        "metric": setting.METRIC,
        "n": len(scores["weak"]),
        "runs": {who: at[who] for who in scored},
        "labels": at["labels"],
        "leaks": leaks.inherited(*abouts).get("leaks", []),
        "predictions": scored,
        "values": {who: sum(own) / len(own) for who, own in scores.items()},
        "label_acc": sum(right := read(setting, f"{folder}/{at['labels']}")) / len(right),
        "parameters": {"weak": sizes["weak"], "strong": sizes["student"]},
        "seconds": {who: card["seconds"] for who, card in cards.items()},
    }


def answers(setting, file):
    """The scores of predictions; of a labels file, whether each label is right."""
    if Path(file).parent.name != "eval":
        rows = files.read_jsonl(file, ["weak"], setting.CHECKS)
        return [setting.is_right(row, row["weak"]) for row in rows]
    return list(map(setting.score, files.read_jsonl(file, setting.PREDICTION)))
