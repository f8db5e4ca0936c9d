"""Low-rank terms (Hu et al. 2021): few weights to train beside a frozen backbone."""

import torch
import torch.distributed as dist
from transformers.pytorch_utils import Conv1D

from w2s.files import BadInput


def add(model, r, dtype, seed=0):
    """--lora: freeze the backbone and give each of its linear layers x W the trainable term 2 x A B, A [in, r], B [r, out].

    Low-rank adaptation (Hu et al. 2021) with alpha = 2 r; B starts at 0, so the model starts as it was. The head trains
    in full. With bf16 the frozen matrices are kept in bf16, to which autocast would round them at every use.
    """
    if r is None:
        return
    model.base_model.requires_grad_(False)
    half = dtype == "bf16" and not dist.is_initialized()
    generator, linear = torch.Generator().manual_seed(seed), (torch.nn.Linear, Conv1D)
    most = min(min(m.weight.shape) for m in model.base_model.modules() if isinstance(m, linear))
    if r > most:
        raise BadInput(f"--lora={r}: the smallest matrix of the model has rank {most}")
    for module in list(model.base_model.modules()):
        if isinstance(module, linear):
            sizes = module.weight.shape if isinstance(module, Conv1D) else module.weight.T.shape
            a = torch.randn(sizes[0], r, generator=generator) / sizes[0] ** 0.5
            module.lora_a = torch.nn.Parameter(a.to(module.weight))
            module.lora_b = torch.nn.Parameter(module.weight.new_zeros(r, sizes[1]))
            module.hook = module.register_forward_hook(
                lambda m, x, out: out + 2 * (x[0] @ m.lora_a @ m.lora_b)
            )
            if half:
                module.weight.data = module.weight.to(torch.bfloat16)


@torch.no_grad()
def merge(model):
    """Add what add_lora's terms have learned to the matrices themselves: an ordinary model again."""
    for module in model.modules():
        if hasattr(module, "lora_a"):
            learned = 2 * (module.lora_a @ module.lora_b)
            if module.weight.dtype != learned.dtype:
                module.weight.data = module.weight.to(learned.dtype)
            module.weight.add_(learned if isinstance(module, Conv1D) else learned.T)
            module.hook.remove()
            del module.lora_a, module.lora_b, module.hook
