"""Devices for a cooperative's tensors."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")


def checked_device(device: torch.device | str) -> torch.device:
    """The device with its index, as tensors name it: ``"cuda"`` → ``cuda:0``.

    Raises:
        ValueError: If this machine has no such device, the device stores no data (``meta``), or it has no double precision, which drawing
            the lots needs. The message lists the devices of this machine.
    """
    try:
        found = torch.zeros(1, dtype=torch.float64, device=device).device
        reason = "it stores no data" if found.type == "meta" else ""
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:  # which one depends on the device and torch's build
        reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    if reason:
        raise ValueError(f"device={str(device)!r} cannot be used ({reason}): the devices here are {', '.join(devices())}")
    return found


def devices() -> list[str]:
    """Names of this machine's devices: the CPU, and the accelerators that torch finds."""
    accelerator = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()  # 0 if torch was built for an accelerator that is not there
    return [str(CPU), *([] if accelerator is None else [f"{accelerator.type}:{i}" for i in range(count)])]
