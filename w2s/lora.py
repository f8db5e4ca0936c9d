"""Low-rank terms beside frozen matrices (Hu et al. 2021), merged into them at the end."""

import torch
from transformers.pytorch_utils import Conv1D

from w2s.files import BadInput, world
from w2s.models import pick_dtype

LINEAR = (torch.nn.Linear, Conv1D)


def add(model, r, dtype=None, seed=0):
    """--lora: freeze the backbone and give its linear layers x W the trainable term 2 x A B.

    A [in, r] is drawn by seed, B [r, out] starts at 0, so the model starts as it was (alpha = 2 r).
    A head of its own trains in full. In bf16 the frozen matrices are kept in bf16, to which
    autocast would round them at every use. r=None: nothing. BadInput where a matrix has rank < r.
    """
    if r is None:
        return
    half = pick_dtype(model, dtype) == "bf16" and world() == 1
    model.base_model.requires_grad_(False)
    # neither what adds to a linear layer (a router), nor a gate of one output, of mixtures
    linear = {name: m for name, m in model.base_model.named_modules() if type(m) in LINEAR}
    linear = {name: m for name, m in linear.items() if min(m.weight.shape) > 1}
    most = min((min(module.weight.shape) for module in linear.values()), default=0)
    if not 0 < r <= most:
        raise BadInput(f"--lora={r}: the smallest matrix of the model has rank {most}")
    generator = torch.Generator().manual_seed(seed)
    for name, module in linear.items():
        weight = module.weight if isinstance(module, Conv1D) else module.weight.T
        a = torch.randn(len(weight), r, generator=generator) / len(weight) ** 0.5
        module.lora_a = torch.nn.Parameter(a.to(weight))
        module.lora_b = torch.nn.Parameter(weight.new_zeros(r, weight.shape[1]))
        module.lora_hook = module.register_forward_hook(
            lambda m, x, out: out + 2 * (x[0] @ m.lora_a @ m.lora_b)
        )
        if half and not name.startswith("pooler"):  # which works on float32, see packing.logits
            module.weight.data = module.weight.to(torch.bfloat16)


@torch.no_grad()
def merge(model):
    """Add what the terms of add() have learned to the matrices, in place, which reaches shards."""
    for module in model.modules():
        if hasattr(module, "reshard"):  # what the last forward pass has left gathered
            module.reshard()
    for module in model.modules():
        if hasattr(module, "lora_a"):
            learned = 2 * (module.lora_a @ module.lora_b)
            if module.weight.dtype != learned.dtype:
                module.weight.data = module.weight.to(learned.dtype)
            module.weight.add_(learned if isinstance(module, Conv1D) else learned.T)
            module.lora_hook.remove()
            del module.lora_a, module.lora_b, module.lora_hook
