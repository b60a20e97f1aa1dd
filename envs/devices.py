"""Where a cooperative's tensors live."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")


def checked_device(device: torch.device | str) -> torch.device:
    """A device as its tensors name it, with its index: ``"cuda"`` → ``cuda:0``.

    Raises:
        ValueError: If there is no such device here, it keeps no numbers, or it has no double precision, without which the lots could not
            be drawn; the message lists the devices there are.
    """
    try:
        found = torch.zeros(1, dtype=torch.float64, device=device).device
        reason = "it keeps no numbers" if found.type == "meta" else ""
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:  # by device and build of torch
        reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    if reason:
        raise ValueError(f"device={str(device)!r} cannot be used ({reason}): the devices here are {', '.join(devices())}")
    return found


def devices() -> list[str]:
    """Names of the devices there are: the CPU, and the accelerators that torch finds."""
    accelerator = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()  # 0 if torch was built for one but there is none
    return [str(CPU), *([] if accelerator is None else [f"{accelerator.type}:{i}" for i in range(count)])]
