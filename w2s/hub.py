"""Where models come from: a folder, or the Hugging Face hub and its local cache."""

import os
import sys
from pathlib import Path

from w2s.files import HERE, BadInput, sha256

TIMEOUT = 8  # seconds for the one question whether the hub is there; its own retries would take 24


def find_model(name):
    """The folder, or else the hub id, that transformers' from_pretrained should load for --model=name.

    A relative folder is looked up from where the command runs, then beside the scripts (facts/m works from anywhere).
    Raises BadInput where there is no such folder, and no such model on the hub, or no way to reach it.
    """
    for folder in (Path(name), HERE / name):
        if (folder / "config.json").is_file():
            return str(folder)
        if (folder / "model" / "config.json").is_file():
            raise BadInput(f"--model={name} is a run directory: its model is {folder / 'model'}")
        if folder.is_dir():
            raise BadInput(
                f"--model={name}: the folder {folder} has no config.json, so it is no Hugging Face model"
            )
    if Path(name).exists():
        raise BadInput(
            f"--model={name} is a file: give the folder of a Hugging Face model, or a hub id"
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise BadInput(f"--model={name}: there is no such folder")
    ask(name, "model")
    return name


def model_input(name):
    """{"model": sha256} for a model in a folder, {} for one of the hub: what a card records of --model as an input."""
    path = Path(find_model(name))
    return {"model": sha256(path)} if path.is_dir() else {}


def ask(name, kind):
    """Make sure that the hub has a "model" or "dataset" of this name; where it is out of reach, go on with its cache alone."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=TIMEOUT)
    except errors.GatedRepoError:
        raise BadInput(
            f"{name} is gated: accept its terms on its hub page, then set HF_TOKEN to a token that may read it"
        ) from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"the hub has no {kind} {name!r} that you may see: check the name (owner/name); for a private one set HF_TOKEN"
        ) from None
    except errors.HFValidationError:
        raise BadInput(
            f"{name!r} is neither a folder nor a name that the hub could have (owner/name)"
        ) from None
    except Exception as error:  # every kind of network trouble, and HF_HUB_OFFLINE=1
        if not cached(name, kind):
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise BadInput(
                    f"the hub refuses to show {name} ({status}): check HF_TOKEN, or unset it"
                ) from None
            state = f"answers with {status}" if status else "is out of reach"
            instead = (
                "--model=DIR takes a folder" if kind == "model" else "--ds=FILE.jsonl takes a file"
            )
            raise BadInput(
                f"the hub {state} and {name} is not in its local cache: {instead}, and W2S_MIRROR=DIR serves data "
                f"sets from a folder of parquet files (python tasks.py --mirror=DIR writes it where the hub is)"
            ) from None
        print(f"the hub is out of reach: using the cached copy of {name}", file=sys.stderr)
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are imported later
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def cached(name, kind):
    """True if the hub's local cache holds something of this model or data set."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "snapshots").is_dir()


def first_line(error):
    """The first line of an exception's message, cut to a readable length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
