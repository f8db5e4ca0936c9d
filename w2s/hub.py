"""The Hugging Face hub and its local cache: is a model or data set there, and at which revision?"""

import os
import sys
from pathlib import Path

from w2s.files import BadInput

TIMEOUT = 8  # seconds for the one question whether the hub is there; its own retries take 24


def ask(name, kind, hint=""):
    """The revision (a commit's sha) of a "model" or "dataset" of the hub.

    Where it is out of reach its cache alone is used. BadInput, with the hint, if it is not found.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return huggingface_hub.HfApi().repo_info(name, repo_type=kind, timeout=TIMEOUT).sha
    except errors.GatedRepoError:
        told = "accept its terms on its hub page, then set HF_TOKEN"
        raise BadInput(f"{name} is gated: {told}") from None
    except errors.RepositoryNotFoundError:
        told = "check the name (owner/name); for a private one set HF_TOKEN"
        raise BadInput(f"the hub has no {kind} {name!r} that you may see{hint}: {told}") from None
    except errors.HFValidationError:
        raise BadInput(f"{name!r} is neither a folder nor a name that the hub could have") from None
    except Exception as error:  # every kind of network trouble, and HF_HUB_OFFLINE=1
        revision = cached(name, kind)
        if not revision:
            raise BadInput(out_of_reach(f"{name}{hint}", kind, error)) from None
        print(f"the hub is out of reach: using the cached copy of {name}", file=sys.stderr)
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries that are imported later
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        return revision


def out_of_reach(name, kind, error):
    """What to say where the hub cannot be asked and its cache has nothing."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses to show {name} ({status}): check HF_TOKEN, or unset it"
    state = f"answers with {status}" if status else "is out of reach"
    instead = "--model=DIR takes a folder" if kind == "model" else "--ds=FILE.jsonl takes a file"
    mirror = "W2S_MIRROR=DIR a mirror of data sets (python tasks.py --mirror=DIR writes one)"
    return f"the hub {state} and {name} is not in its local cache: {instead}, {mirror}"


def cached(name, kind):
    """The revision that the hub's local cache holds of a model or data set, None without one."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"
    if (main := folder / "refs" / "main").is_file():  # what is loaded
        return main.read_text().strip()
    return max((one.name for one in folder.glob("snapshots/*")), default=None)
