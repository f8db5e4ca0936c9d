"""Several processes, one result: torchrun --nproc_per_node=8 train_strong.py ... trains on eight GPUs what one trains alone.

Torch's own FSDP2 splits weights, gradients and optimizer state; loop.py deals each batch out and lets the loss see all of
it. Without torchrun every function here says that there is one process.
"""

import os
import sys
import tempfile

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from w2s.models import rank, world


def join(out):
    """Under torchrun, meet the other processes; returns the folder to write to, `out` for the first process alone.

    The others are silent and write where nobody looks; save() ends them.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return out
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if rank() == 0:
        return out
    sys.stdout = open(os.devnull, "w")
    return tempfile.mkdtemp()


def shard(model):
    """Split weights, gradients and optimizer state over the processes (FSDP2), one layer of the network at a time.

    The parts of the head are called beside the backbone, so they are split by themselves.
    """
    backbone = model.base_model
    mesh = init_device_mesh(model.device.type, (world(),))
    layers = max((m for m in backbone.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    heads = [
        child
        for child in (*model.children(), getattr(backbone, "pooler", None))
        if child not in (backbone, None)
    ]
    for module in (*layers, *heads, backbone):
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)


def local(p):
    """The part of a parameter that this process holds: all of it, unless it is sharded."""
    return p.to_local() if isinstance(p, DTensor) else p


def whole_weights(model):
    """The weights of a sharded model put together again, for the first process to save; the others end here."""
    weights = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    first = rank() == 0
    dist.barrier()
    dist.destroy_process_group()
    if not first:
        os._exit(0)  # an ordinary exit now and then aborts in gloo's threads
    return weights
