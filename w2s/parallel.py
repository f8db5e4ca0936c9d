"""Several processes, one result: torchrun --nproc_per_node=8 train_strong.py ... trains on eight
GPUs what one trains alone, by torch's own FSDP2. loop.py deals out each batch. label.py and eval.py
have the whole model in each, and a share of the rows."""

import os

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from w2s.files import rank, world


def join():
    """Meet the other processes of torchrun, until leave(); the first alone prints and writes."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # numbers on the CPU, such as who was told to stop, are agreed on without waiting for a GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def leave():
    """The first process goes on alone; the others end here."""
    first = rank() == 0
    dist.barrier()
    dist.destroy_process_group()
    if not first:
        os._exit(0)  # an ordinary exit now and then aborts in gloo's threads


def shard(model):
    """Split weights, gradients and optimizer state over the processes (FSDP2), layer by layer.

    The parts of the head are called beside the backbone, so they are split by themselves.
    """
    backbone = model.base_model
    mesh = init_device_mesh(model.device.type, (world(),))
    heads = [*model.children(), getattr(backbone, "pooler", None)]
    heads = [module for module in heads if module not in (backbone, None)]
    for module in (*layers(model), *heads, backbone):
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)


def layers(model):
    """The layers of the network: its longest list of modules."""
    lists = (m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList))
    return max(lists, key=len)


def gather(mine, n):
    """The n rows of a batch in its order, [n, k], from those that each process was dealt."""
    shares = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(shares, mine)
    return torch.stack(shares, dim=1).flatten(0, 1)[:n]


def dealt(mine):
    """All items in their order, of which process k of n has every n-th from the k-th on."""
    shares = [None] * world()
    dist.all_gather_object(shares, mine)
    return [shares[i % world()][i // world()] for i in range(sum(map(len, shares)))]


def told(first_one):
    """What the first process has, JSON, to all."""
    box = [first_one]
    dist.broadcast_object_list(box)
    return box[0]


def most(numbers):
    """The largest of each of some whole numbers over the processes, a list."""
    numbers = torch.tensor([int(n) for n in numbers])
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()


def total(x):
    """The sum of a tensor over the processes."""
    x = x.clone()
    dist.all_reduce(x)
    return x


def in_one_piece(x):
    """The values of a sharded tensor in one piece; all processes take part."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def as_shard(mine, like):
    """This process's part of a tensor, which is sharded as `like` is, as one with all others'."""
    if not isinstance(like, DTensor):
        return mine
    how = {"shape": like.shape, "stride": like.stride(), "run_check": False}
    return DTensor.from_local(mine.to(like.device), like.device_mesh, like.placements, **how)


def part(values, like):
    """This process's part of the first one's values (the others' are not read), cut as `like`."""
    if values is None:
        values = torch.empty(like.shape, dtype=like.dtype)
    values = values.to(like.device)
    if not isinstance(like, DTensor):
        dist.broadcast(values, 0)
        return values
    return distribute_tensor(values, like.device_mesh, like.placements).to_local()


def whole_weights(model):
    """The weights of a sharded model in one piece, for the first process; the others end here."""
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=whole)
    leave()
    return weights
