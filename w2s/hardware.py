"""What this machine has: the device to compute on, bf16, and memory that need not be fetched anew."""

import ctypes
import platform

import torch

from w2s import hub
from w2s.files import BadInput


def pick_device(device=None):
    """The torch.device for --device (default: the GPU where there is one); BadInput where this machine has no such device."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device={device} cannot be used here: {hub.first_line(error)}") from error


def has_bf16(device):
    """True where the hardware computes in bf16."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next step: having the kernel fetch it anew takes a fifth of a short step."""
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
        ctypes.CDLL(None).mallopt(m_mmap_max, 0)
        ctypes.CDLL(None).mallopt(m_trim_threshold, 2**31 - 1)
