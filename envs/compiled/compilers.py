"""Whether :func:`torch.compile` has a compiler for a device."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch


def require_compiler(device: torch.device) -> None:
    """Refuse to compile where nothing can.

    Args:
        device: Where the tensors live.

    Raises:
        ValueError: If there is no compiler for the device; the message says what is missing.
    """
    if missing := _missing(device):
        raise ValueError(f"compile=True needs {missing}: install it, or leave compile out")


def _missing(device: torch.device) -> str:
    """What is missing for compiling, in words; empty if nothing is."""
    if not torch.compiler.is_dynamo_supported() if hasattr(torch.compiler, "is_dynamo_supported") else False:
        return f"a Python that this torch can compile for (this is {sys.version_info.major}.{sys.version_info.minor})"
    match device.type:
        case "cpu":
            wanted = os.environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
            if not shutil.which(shlex.split(wanted, posix=sys.platform != "win32")[0]):
                return f"a C++ compiler, and there is no {wanted} on the path (the variable CXX may name another)"
            if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
                return f"Python's headers, and there is no Python.h in {sysconfig.get_path('include')} (Debian: python3-dev)"
            return ""
        case "cuda":
            return "" if find_spec("triton") is not None else "Triton for device cuda, and there is no package triton"
    return f"device cpu or cuda, and device is {str(device)!r}"
