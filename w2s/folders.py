"""Models by name, and their folders, looked at before anything of them is loaded. No torch here.

Weights are safetensors and nothing else: a pickle (pytorch_model.bin) can hold any program. Neither
is code of a folder run, nor is it fetched (auto_map, kernels of the hub).
"""

import json
import math
import shlex
import time
from importlib import util
from pathlib import Path

from w2s import cli, hub, strict
from w2s.files import HERE, rank, sha256, whole
from w2s.strict import BadInput

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
INDEX = "model.safetensors.index.json"
JSON = ("config.json", "tokenizer_config.json", "generation_config.json", INDEX)
# To safetensors without running what a pickle may hold: weights_only refuses everything else.
CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; save_file({k: v.clone("
    "memory_format=torch.contiguous_format) for f in sys.argv[2:] for k, v in torch.load(f, "
    'map_location="cpu", weights_only=True).items()}, sys.argv[1], {"format": "pt"})'
)
# Config files have numbers of their own: 1e30 is "no limit", Mamba's time steps end at Infinity.
RELAXED = json.JSONDecoder(object_pairs_hook=strict.once, parse_constant=lambda word: number(word))
SMALL = 32 * 2**20  # bytes of such a file
MANY = 100_000  # of whatever a configuration counts: heads, experts, labels


def find_model(name):
    """(the folder, None) or, for a model of the hub, (its id, its revision) of --model=name.

    A relative folder is looked up where the command runs, then beside the scripts. Of a .gguf file
    it is the folder that is made of it, and the file's sha256.
    """
    if name.endswith(".gguf"):
        return from_gguf(name)
    for folder in (Path(name), HERE / name):
        if (folder / "config.json").is_file():
            check(name, folder)
            return str(folder), None
        if (folder / "model" / "config.json").is_file():
            raise BadInput(f"--model={name} is a run directory: its model is {folder / 'model'}")
        if folder.exists():
            raise BadInput(f"--model={name} has no config.json: give a model's folder, or a hub id")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise BadInput(f"--model={name}: there is no such folder")
    beside = [str(f.parent.relative_to(HERE)) for f in (HERE / name).parent.glob("*/config.json")]
    return name, hub.ask(name, "model", cli.nearest(name, beside) if beside else "")


def model_input(name):
    """What a card records of --model=name: {"model": sha256 of its folder, or hub revision}."""
    path, revision = find_model(name)
    return {"model": revision or sha256(path)}


def from_gguf(name):
    """(the folder that --model=FILE.gguf becomes, the file's sha256): float32 safetensors, once.

    The file's weights are mostly rounded to a few bits; as what they stand for they can be trained.
    """
    file = Path(name)
    if not file.is_file():
        raise BadInput(f"--model={name}: there is no such file")
    stamp = sha256(file)
    folder = Path("runs/gguf") / f"{file.stem}-{stamp[:12]}"
    while rank() > 0 and not folder.exists():
        time.sleep(1)  # the first process makes it; if that fails, torchrun ends this one
    if folder.exists():
        return folder, stamp
    if lacks := [one for one in ("gguf", "accelerate") if not util.find_spec(one)]:
        raise BadInput(f"to read --model={name}: pip install {' '.join(lacks)}")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from w2s import oddities

    print(f"{name} becomes the model folder {folder}, once; a large one takes minutes")
    how = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**how)
        model = AutoModelForCausalLM.from_pretrained(**how, dtype="float32")
    except Exception as error:
        raise oddities.not_loaded(name, error) from error
    model.hf_quantizer = None  # what was read are plain numbers, but with it none may be saved
    del model.config.quantization_config
    with whole(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        kept = AutoTokenizer.from_pretrained(temporary)("words of every day").input_ids
        if kept != tokenizer("words of every day").input_ids:  # Gemma's by transformers 5.17
            told = "this transformers does not keep its tokenizer as it was"
            raise BadInput(f"--model={name}: {told}: install the version of requirements.txt")
    return folder, stamp


def number(word):
    """Infinity, which some configurations need; Unfit for NaN, which none does."""
    if word == "NaN":
        raise strict.Unfit("has the number NaN: no model computes with it")
    return float(word)


def check(name, folder):
    """BadInput unless the folder of --model=name is one that can be loaded without surprise.

    Read are its small JSON files and the headers of its weights, none of the weights themselves.
    """
    folder, what = Path(folder), f"--model={name}"
    for path in sorted(folder.iterdir()):
        strict.check_names([path.name])
        if not (path.is_file() or path.is_dir()):
            kind = "a link to nothing" if path.is_symlink() else "no file but a pipe or a device"
            raise BadInput(f"{what}: {path.name} is {kind}")
    there = {file: read_json(what, folder / file) for file in JSON if (folder / file).is_file()}
    shapes = [shape for file in shards(what, folder) for shape in tensors(what, file)]
    check_config(what, there["config.json"], len(shapes))


def read_json(what, file):
    """The object of a small JSON file of a model folder."""
    data = strict.read_bytes(file, SMALL)
    return strict.parse_object(data, f"{what}: {file.name}", RELAXED.decode)


def shards(what, folder):
    """The folder's files of weights."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for one in PICKLES for path in folder.glob(one))
        pickles = [one for one in pickles if one != "training_args.bin"]
        if not pickles:
            raise BadInput(f"{what} has no weights: model.safetensors is missing")
        words = [str(folder / one) for one in ("model.safetensors", *pickles)]
        command = shlex.join(["python", "-c", CONVERT, *words])
        told = f"has its weights in {pickles[0]}, a pickle, which could run any program"
        raise BadInput(f"{what} {told}; to convert it without running one: {command}")
    index = read_json(what, folder / INDEX)
    if wrong := strict.misfit(index, {"weight_map": dict}):
        raise BadInput(f"{what}: {INDEX} {wrong}")
    names = sorted(set(map(str, index["weight_map"].values())))
    for one in names:
        if one != Path(one).name or not one.endswith(".safetensors"):
            raise BadInput(f"{what}: {INDEX} names {one!r}, which is no .safetensors beside it")
        if not (folder / one).is_file():
            raise BadInput(f"{what}: {one} is missing, which {INDEX} names: copy the folder anew")
    return [folder / one for one in names]


def tensors(what, file):
    """The shapes of the tensors in a safetensors file, by its header."""
    size = file.stat().st_size
    with strict.opened(file) as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            told = f"is cut short or no safetensors: {size} bytes, its header says {length}"
            raise BadInput(f"{what}: {file.name} {told}")
        header = strict.parse_object(opened.read(length), f"{what}: the header of {file.name}")
    header.pop("__metadata__", None)
    for key, tensor in header.items():
        wrong = strict.misfit(tensor, {"dtype": str, "shape": [int], "data_offsets": [int]}, key)
        if wrong:
            raise BadInput(f"{what}: {file.name} {wrong}")
        if max(tensor["data_offsets"], default=0) > size - 8 - length:
            raise BadInput(f"{what}: {file.name} is cut short: {key} ends beyond the file")
    return [tensor["shape"] for tensor in header.values()]


def check_config(what, config, n_tensors):
    """BadInput for a configuration that asks for code, or for more than the weights can fill."""
    for key, value in nested(config):
        if key == "transformers_weights":
            raise BadInput(f"{what}: its config.json names a file of weights ({key}): remove that")
        if key.endswith("_implementation") and "/" in str(value):
            raise BadInput(f"{what}: its config.json asks for code of the hub ({key}): remove that")
        layers = "layer" in key or key == "attention_types"
        most = n_tensors if layers else MANY  # every layer has a weight of its own
        counts = key.startswith("num_") or key in ("n_layer", "n_head", "attention_types")
        if counts and type(value) is int and not 0 <= value <= most:
            held = f"its weights hold {n_tensors} tensors" if layers else f"at most {most} can be"
            raise BadInput(f"{what}: {key} is {value} in its config.json, {held}")
        if type(value) is float and math.isnan(value):
            raise BadInput(f"{what}: {key} is NaN in its config.json")


def nested(value, key=""):
    """All (key, value) of a configuration, and of the objects and lists in it."""
    for name, part in value.items() if isinstance(value, dict) else ((key, one) for one in value):
        yield name, part
        if isinstance(part, dict | list):
            yield from nested(part, name)


def check_size(name, path, auto_class, config):
    """BadInput where the model of a configuration is far larger than the weights of its folder."""
    if not Path(path).is_dir():
        return
    import torch

    with torch.device("meta"):  # which has shapes, but no numbers
        model = auto_class.from_config(config, trust_remote_code=False)
    what, folder = f"--model={name}", Path(path)
    held = sum(math.prod(s) for file in shards(what, folder) for s in tensors(what, file))
    asked = model.num_parameters() + sum(buffer.numel() for buffer in model.buffers()) // 8
    if asked > 8 * held + 2**27:
        told = f"asks for {asked:,} numbers, its weights hold {held:,}: they do not belong together"
        raise BadInput(f"{what}: its config.json {told}")
