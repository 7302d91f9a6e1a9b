"""Which device a run is on, whether it computes in bf16, and how much memory was used."""

from __future__ import annotations

from pathlib import Path

import torch

from mgen.core.errors import UsageError


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`.

    Raises
    ------
    UsageError
        If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device '{name}' is unknown; choose auto, cpu or cuda") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("this torch sees no GPU; take --device cpu")
        return torch.device("cuda", local_rank if device.index is None else device.index)
    return device


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether a precision (auto, bf16, f32) means bf16 here: `auto` does where hardware has it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: by torch on a GPU, by the process on a CPU (0 if unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
