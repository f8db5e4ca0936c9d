"""An interrupted training goes on where it was last evaluated, and ends in the same bits."""

import os

import torch

from w2s.files import BadInput


def write_state(path, history, best, call, trained, optimizer, schedule):
    """Write what the training needs to go on from here, whole or not at all."""
    state = {"call": call, "history": history, "best": best, "weights": trained}
    state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@torch.no_grad()
def read_state(path, call, trained, optimizer, schedule):
    """(history, best weights) of an interrupted training, all else put back; ([], {}) of none.

    call: what must be the same; BadInput where the state is of another training.
    """
    if not os.path.exists(path):
        return [], {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["call"] != call:
        raise BadInput(f"{path} is of another training: delete it, or make that call again")
    for key, weights in state["weights"].items():
        trained[key].copy_(weights)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["history"], state["best"]
