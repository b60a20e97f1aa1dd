"""Records (frozen dataclasses of tensors, and of such records) as lists of tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

_LEAVES = "_leaves"
"""Under this name a record keeps its own list, so that it is made once."""


def leaves(tree: object) -> tuple[Tensor, ...]:
    """The tensors of a record, or of a tuple of records, in the order of their fields. What is neither is left out."""
    if isinstance(tree, Tensor):
        return (tree,)
    if isinstance(tree, tuple):
        return tuple(leaf for part in tree for leaf in leaves(part))
    if not is_dataclass(tree):
        return ()
    known: tuple[Tensor, ...] | None = vars(tree).get(_LEAVES)
    if known is None:
        known = tuple(leaf for field in fields(tree) for leaf in leaves(getattr(tree, field.name)))
        vars(tree)[_LEAVES] = known  # frozen records keep it: they do not change
    return known


def with_leaves(tree: Any, new: Sequence[Tensor]) -> Any:
    """The same tree with other tensors in the order of :func:`leaves`."""
    return _filled(tree, iter(new))


def _filled(tree: Any, new: Any) -> Any:
    if isinstance(tree, Tensor):
        return next(new)
    if isinstance(tree, tuple):
        return tuple(_filled(part, new) for part in tree)
    if not is_dataclass(tree):
        return tree
    made = object.__new__(type(tree))
    vars(made).update({field.name: _filled(getattr(tree, field.name), new) for field in fields(tree)})
    return made


@dataclass(frozen=True)
class Shape:
    """How to make a tree of tensors by their places in a list.

    Attributes:
        kind: Class of the record; ``tuple``; ``Tensor`` for a single tensor; ``None`` for what is no tensor.
        parts: By name (or index) what it consists of. Cached properties of a record are among them.
        place: The tensor's place, or what is no tensor.
        own: Places of the record's :func:`leaves`.
    """

    kind: Any
    parts: tuple[tuple[str, Shape], ...] = ()
    place: Any = None
    own: tuple[int, ...] = ()

    @classmethod
    def of(cls, tree: Any, places: list[Tensor]) -> Shape:
        """The shape of a tree, whose tensors are added to ``places`` unless they are there already."""
        if isinstance(tree, Tensor):
            for place, known in enumerate(places):
                if known is tree:
                    return cls(Tensor, place=place)
            places.append(tree)
            return cls(Tensor, place=len(places) - 1)
        if isinstance(tree, tuple):
            return cls(tuple, tuple((str(i), cls.of(part, places)) for i, part in enumerate(tree)))
        if not is_dataclass(tree):
            return cls(None, place=tree)
        parts = tuple((name, cls.of(part, places)) for name, part in vars(tree).items() if name != _LEAVES)
        return cls(type(tree), parts, own=tuple(place for place in map(_place_in(places), leaves(tree))))

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """The tree with the tensors in their places."""
        if self.kind is Tensor:
            return tensors[self.place]
        if self.kind is None:
            return self.place
        if self.kind is tuple:
            return tuple([part.filled(tensors) for _, part in self.parts])
        made = object.__new__(self.kind)
        known = made.__dict__
        for name, part in self.parts:
            known[name] = tensors[part.place] if part.kind is Tensor else part.filled(tensors)
        known[_LEAVES] = tuple([tensors[place] for place in self.own])
        return made


def _place_in(places: list[Tensor]) -> Any:
    by_id = {id(tensor): place for place, tensor in enumerate(places)}
    return lambda tensor: by_id[id(tensor)]
