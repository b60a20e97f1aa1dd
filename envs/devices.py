"""Devices for a cooperative's tensors, and torch as a process starts with it, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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


@contextmanager
def plain_torch(*, grad: bool = False) -> Iterator[None]:
    """torch with its own defaults; also a decorator.

    A caller may have set another default dtype or device, or be in autocast or inference mode: for a policy, say. The numbers of a
    cooperative do not depend on any of that.

    Args:
        grad: Whether operations are recorded for gradients.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if (dtype := torch.get_default_dtype()) != torch.float32:  # it is the process's: it is set only where that is needed
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
