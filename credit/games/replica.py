"""A copy of a module that is evaluated at other parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from numbers import Real

import torch
from torch import Tensor, nn

from ...registry import unknown_name

Utility = Callable[[nn.Module], "Tensor | float"]
"""From a module to a number or a 0-d tensor, higher is better. A tensor with a gradient makes the utility differentiable."""
Update = Mapping[str, Tensor]
"""What a client's training added to each floating-point entry of the module's state dict, by the entry's name."""


class Layout:
    """Where the entries of a module's state dict lie in one flat vector: parameters in order, then floating-point buffers.

    Args:
        model: The module.

    Raises:
        ValueError: If it has nothing to share, or a parameter that is not floating point.
    """

    def __init__(self, model: nn.Module) -> None:
        state = {name: entry for name, entry in model.state_dict(keep_vars=True).items() if isinstance(entry, Tensor)}
        self.known = sorted(state)
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                raise ValueError(f"model: parameter {name!r} is {parameter.dtype}, must be floating point")
        for name, entry in state.items():
            if entry.is_floating_point():
                first.setdefault(id(entry), name)
        self.names = list(first.values())
        self.shapes = {name: state[name].shape for name in self.names}
        self.alias = {name: first[id(entry)] for name, entry in state.items() if first.get(id(entry), name) != name}
        if not self.names:
            raise ValueError("model has no parameters to share")

    def entries(self, model: nn.Module) -> list[Tensor]:
        """The entries of this module, or of a copy of it, in order: the tensors themselves."""
        state = model.state_dict(keep_vars=True)
        return [state[name] for name in self.names]

    def problem(self, update: object) -> str | None:
        """What is wrong with an update, in words that follow its name, or ``None``. It is not checked whether the update is finite."""
        if not isinstance(update, Mapping):
            return f" is a {type(update).__name__}, must be a state dict of differences"
        for name, change in update.items():
            if name not in self.known:
                return f": {unknown_name('entry', name, self.known)}"
            if not isinstance(change, Tensor):
                return f"[{name!r}] is a {type(change).__name__}, must be a tensor"
            where = self.alias.get(name, name)
            if where in self.shapes and change.shape != self.shapes[where]:
                return f"[{name!r}] has shape {tuple(change.shape)}, must be {tuple(self.shapes[where])}"
            if where != name and where in update and not change.equal(update[where]):
                return f"[{name!r}] differs from {where!r}, though the model has one tensor for both"
        missing = [name for name in self.names if name not in update]
        return f" lacks {', '.join(map(repr, missing))}: an entry is needed for all of {', '.join(self.names)}" if missing else None

    def vector(self, update: Update) -> Tensor:
        """An update as one vector, ``(P,)``; :meth:`problem` must have found nothing."""
        return torch.cat([update[name].detach().flatten() for name in self.names])


class Replica:
    """A deep copy of a module that is evaluated at other parameters.

    Args:
        model: The module; it is not changed.

    Raises:
        ValueError: As :class:`Layout`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layout = Layout(model)
        self.model = copy.deepcopy(model).requires_grad_()
        self._entries = self.layout.entries(self.model)
        self._parameters = list(self.model.parameters())
        shared = {id(entry) for entry in self._entries}
        # counters, and what the state dict leaves out: reset before each answer, so that it does not depend on earlier ones
        self._others = [(buffer, buffer.clone()) for buffer in self.model.buffers() if id(buffer) not in shared]
        self._sizes = [entry.numel() for entry in self._entries]
        dtype = reduce(torch.promote_types, [entry.dtype for entry in self._entries], torch.float32)
        self.theta = torch.cat([entry.detach().flatten().to(self._entries[0].device, dtype) for entry in self._entries])
        """The module's own parameters and floating-point buffers, ``(P,)``, in single precision at least."""

    def parts(self, vector: Tensor) -> list[Tensor]:
        """A flat vector, ``(P,)``, cut into the entries and their shapes."""
        return [part.reshape(entry.shape) for part, entry in zip(vector.split(self._sizes), self._entries, strict=True)]

    @torch.no_grad()
    def load(self, theta: Tensor) -> None:
        """Set the parameters to ``theta`` ``(P,)``. Reset all other buffers, which a module may change while it answers."""
        for entry, part in zip(self._entries, self.parts(theta), strict=True):
            entry.copy_(part)
        for buffer, value in self._others:
            buffer.copy_(value)

    @torch.no_grad()
    def value(self, function: Utility, theta: Tensor, whose: str) -> float:
        """A function of the module, at ``theta``.

        Raises:
            ValueError: If the answer is not a finite number; the message names it by ``whose``.
        """
        self.load(theta)
        return _number(function(self.model), whose)

    def gradient(self, function: Utility, theta: Tensor, whose: str) -> Tensor | None:
        """The gradient of a function of the module at ``theta``, double ``(P,)``; ``None`` if its answer has none."""
        with torch.enable_grad():
            gradients = self._gradients(function, theta, whose, create_graph=False)
        return None if gradients is None else self._flat(gradients)

    def curvature(self, function: Utility, theta: Tensor, direction: Tensor, whose: str) -> Tensor | None:
        """The Hessian of a function of the module at ``theta`` times a direction, double ``(P,)``; ``None`` if its answer has none."""
        found = self.curvatures(function, theta, direction[None], whose)
        return None if found is None else found[0]

    def curvatures(self, function: Utility, theta: Tensor, directions: Tensor, whose: str) -> Tensor | None:
        """The same for several directions, ``(m, P)`` → ``(m, P)``; the function is asked once."""
        with torch.enable_grad():
            gradients = self._gradients(function, theta, whose, create_graph=True)
            if gradients is None:
                return None
            products = []
            for i, direction in enumerate(directions):
                along = [part.to(entry) for part, entry in zip(self.parts(direction), self._entries, strict=True)]
                bent = [(g, d) for g, d in zip(gradients, along, strict=False) if g.requires_grad]  # buffers come last, without gradients
                if not bent:  # the function is linear
                    return torch.zeros(len(directions), len(theta), dtype=torch.float64)
                outputs, onto = zip(*bent, strict=True)
                last = i == len(directions) - 1
                found = torch.autograd.grad(
                    outputs, self._parameters, onto, retain_graph=not last, allow_unused=True, materialize_grads=True
                )
                products.append(self._flat(found))
            return torch.stack(products)

    def _gradients(self, function: Utility, theta: Tensor, whose: str, *, create_graph: bool) -> tuple[Tensor, ...] | None:
        self.load(theta)
        answer = function(self.model)
        _number(answer, whose)
        if not isinstance(answer, Tensor) or not answer.requires_grad:
            return None
        return torch.autograd.grad(answer, self._parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True)

    def _flat(self, of_parameters: Sequence[Tensor]) -> Tensor:
        flat = torch.cat([part.detach().flatten().cpu().double() for part in of_parameters])
        return torch.cat([flat, flat.new_zeros(len(self.theta) - len(flat))])


def _number(answer: object, whose: str) -> float:
    if isinstance(answer, Tensor):
        answer = answer.detach().item() if answer.dim() == 0 and not answer.is_complex() else f"a tensor of shape {tuple(answer.shape)}"
    if not isinstance(answer, Real):
        came = answer if isinstance(answer, str) else type(answer).__name__
        raise ValueError(f"{whose} is {came}: must be a number, or a tensor of no dimensions")
    if not abs(number := float(answer)) < float("inf"):
        raise ValueError(f"{whose} is {number}: must be finite")
    return number
