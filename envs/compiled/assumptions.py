"""What a compiled function takes for granted.

Code that computes takes shortcuts: where all updates are finite, none is replaced. A compiled function cannot branch on its data. It takes
the shortcut, and tells whether it was right to. Where it was not, its answer is thrown away, and another form of it goes the long way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

import torch
from torch import Tensor


class _Tracing(local):
    assumed: list[Tensor] | None = None
    cautious: bool = False


_tracing = _Tracing()


def usually(condition: Tensor) -> bool:
    """Whether a condition holds throughout, where it usually does and a shortcut follows from it.

    Args:
        condition: bool, of any shape.

    Returns:
        Whether all entries are true. In a function that is being traced the answer does not depend on them: false in the cautious form
        of the function, and true in the other, which then tells whether they were.
    """
    if _tracing.assumed is None:
        return bool(condition.all())
    if _tracing.cautious:
        return False
    _tracing.assumed.append(condition.all())
    return True


def traced() -> bool:
    """Whether a function is being traced, so that its course must not depend on the data."""
    return _tracing.assumed is not None


def cautious() -> bool:
    """Whether it is the cautious form of a function that is being traced."""
    return traced() and _tracing.cautious


@contextmanager
def assuming(nothing: bool = False) -> Iterator[list[Tensor]]:
    """Trace a function: yields the list of what :func:`usually` took for granted, bool ``()`` each.

    Args:
        nothing: Whether it is the cautious form, which takes nothing for granted.
    """
    before = _tracing.assumed, _tracing.cautious
    _tracing.assumed, _tracing.cautious = [], nothing
    try:
        yield _tracing.assumed
    finally:
        _tracing.assumed, _tracing.cautious = before


def all_of(assumed: list[Tensor], device: torch.device) -> Tensor:
    """Whether everything held that was taken for granted, bool ``()``."""
    return torch.stack(assumed).all() if assumed else torch.ones((), dtype=torch.bool, device=device)
