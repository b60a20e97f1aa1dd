r"""A model in two parts: blocks below a cut, which nodes compute, and blocks above it, which the orchestrator computes again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from threading import RLock

import torch
from torch import Tensor, nn
from torch.func import functional_call

_CALLING = RLock()
"""While a module is called, torch.func lends it parameters. Nodes may share a module, and be in different threads."""


class SplitModel:
    r"""A module that is a chain of blocks :math:`f = f_n \circ \dots \circ f_1`, cut after block c.

    Both sides hold the same module. Its trained parameters θ are one vector ``(P,)`` in the order of ``named_parameters()``. Frozen
    parameters (``requires_grad=False``) are known to both sides and are never sent; if all are frozen, all are trained. This is the order
    and the rule of :class:`~proxycoop.envs.model.models.ModuleModel`, so that θ is the engine's.

    The module is copied and set to evaluation mode: dropout is off, because the orchestrator could not draw the node's zeros again.

    Args:
        module: An ``nn.Sequential``, or a module whose children ``blocks`` names.
        cut: Number of blocks below the cut, c. Some parameters must be below the cut, because otherwise a node would send its rows as they
            are, and some must be above it. :attr:`cuts` lists what is allowed.
        blocks: Names of children that, applied one after another, are the module's forward pass. By default the children of an
            ``nn.Sequential``.
        example: Rows ``(n, …)`` on which the blocks are compared with the module's own answer. Needed with ``blocks``.

    Attributes:
        cut: The cut c.
        cuts: All cuts that the module allows.
        n_parameters: P.
        n_below: How many of the trained parameters are below the cut. They come first in a chain, but not always in θ: see :attr:`below`.
        below: Which of the P parameters are below the cut, bool ``(P,)``.
        theta: The module's parameters, ``(P,)``.

    Raises:
        ValueError: If the module is no chain of blocks, the cut is not allowed, a parameter is on both sides of the cut, parameters have
            different types, or a layer depends on other rows (batch normalisation) or has buffers.
    """

    def __init__(self, module: nn.Module, cut: int, blocks: Sequence[str] | None = None, example: Tensor | None = None) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"module: got a {type(module).__name__}, must be an nn.Module")
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
            raise ValueError("module has batch normalisation, by which rows depend on each other: use layer or group normalisation")
        if list(module.buffers()):
            raise ValueError("module has buffers: use layers whose only state is their parameters")
        if any(isinstance(one, nn.parameter.UninitializedParameter) for one in module.parameters()):
            raise ValueError("module has lazy layers, whose shapes are not known yet: give them their numbers of inputs")
        self.module = copy.deepcopy(module).eval()
        self.names = self._names(blocks)
        trained = [name for name, one in self.module.named_parameters() if one.requires_grad]
        parameters = dict(self.module.named_parameters())
        self.shapes = {name: one.shape for name, one in parameters.items() if name in trained or not trained}
        if not self.shapes:
            raise ValueError("module has no parameters to learn: give it a layer that has some")
        types = {parameters[name].dtype for name in self.shapes}
        if len(types) > 1:
            raise ValueError(f"module has trained parameters of {len(types)} types ({', '.join(sorted(map(str, types)))}): must be one")
        self.dtype = types.pop()
        self.module.requires_grad_(False)
        self.theta = torch.cat([parameters[name].detach().flatten() for name in self.shapes])
        self.n_parameters = self.theta.numel()
        self._known = self._known_by()
        if blocks is not None:
            self._compare(example)
        self.cuts = self._cuts()
        if isinstance(cut, bool) or not isinstance(cut, int) or cut not in self.cuts:
            allowed = ", ".join(map(str, self.cuts)) or "none: parameters must be on both sides of it, and none on both at once"
            raise ValueError(f"cut={cut!r}: must be a number of blocks below the cut out of {allowed} (blocks: {', '.join(self.names)})")
        self.cut = cut
        lower = {name for known in self._known[:cut] for name in known.values()}
        self.below = torch.cat([torch.full((shape.numel(),), name in lower) for name, shape in self.shapes.items()])
        self.n_below = int(self.below.sum())

    # what is where

    def _names(self, blocks: Sequence[str] | None) -> list[str]:
        children = [name for name, _ in self.module.named_children()]
        if blocks is None:
            if not isinstance(self.module, nn.Sequential):
                raise ValueError(
                    f"module is a {type(self.module).__name__}: must be an nn.Sequential, or pass blocks, the names of its children in the "
                    f"order of its forward pass, out of {', '.join(children) or 'none'}"
                )
            return children
        if isinstance(blocks, str) or not blocks:
            raise ValueError(f"blocks={blocks!r}: must be a list of names out of {', '.join(children)}")
        if unknown := [name for name in blocks if name not in children]:
            raise ValueError(f"blocks has {unknown[0]!r}: the module's children are {', '.join(children)}")
        return list(blocks)

    def _compare(self, example: Tensor | None) -> None:
        if example is None:
            raise ValueError("blocks needs example: rows on which the blocks are compared with the module's own answer")
        with torch.no_grad():
            answer, chained = self.module(example), example
            for name in self.names:
                chained = getattr(self.module, name)(chained)
        if chained.shape != answer.shape or not torch.allclose(chained, answer, rtol=1e-4, atol=1e-5):
            raise ValueError(f"blocks={self.names}: one after another they do not give the module's own answer on the example")

    def _known_by(self) -> list[dict[str, str]]:
        """For each block, the module's name of each parameter by the block's own name for it. A tied parameter has one name."""
        known = {id(one): name for name, one in self.module.named_parameters()}
        blocks = (getattr(self.module, name) for name in self.names)
        return [{own: known[id(one)] for own, one in block.named_parameters(remove_duplicate=False)} for block in blocks]

    def _cuts(self) -> list[int]:
        """Cuts that have parameters on both sides, and no trained one on both."""
        users: dict[str, set[int]] = {}
        for place, known in enumerate(self._known):
            for name in known.values():
                users.setdefault(name, set()).add(place)
        if idle := [name for name in self.shapes if name not in users]:
            raise ValueError(f"parameter {idle[0]!r} is in none of the blocks {', '.join(self.names)}: every trained one must be")
        first = {name: min(places) for name, places in users.items()}
        last = {name: max(places) for name, places in users.items()}
        between = range(min(last.values()) + 1, max(first.values()) + 1)
        return [cut for cut in between if all(last[name] < cut or first[name] >= cut for name in self.shapes)]

    # forward passes

    def _parameters(self, theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def _run(self, parameters: dict[str, Tensor], x: Tensor, first: int, last: int) -> Tensor:
        for name, known in zip(self.names[first:last], self._known[first:last], strict=True):
            own = {local: parameters[full] for local, full in known.items() if full in parameters}
            with _CALLING:
                x = functional_call(getattr(self.module, name), own, (x,))
        return x

    def activations(self, theta: Tensor, x: Tensor) -> Tensor:
        """What is below the cut: rows ``(b, …)`` to activations ``(b, …)``, for parameters ``(P,)``."""
        return self._run(self._parameters(theta), x, 0, self.cut)

    def head(self, theta: Tensor, activations: Tensor) -> Tensor:
        """What is above the cut: activations ``(b, …)`` to logits ``(b, C)``."""
        return self._run(self._parameters(theta), activations, self.cut, len(self.names))

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """All of it: rows ``(b, …)`` to logits ``(b, C)``."""
        return self._run(self._parameters(theta), x, 0, len(self.names))

    # gradients, which are vectors ``(P,)`` that are 0 on the other side of the cut

    def pull_below(self, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
        """Gradient of ``(activations · cotangent).sum()`` by the parameters below the cut, ``(n_below,)``.

        Raises:
            ValueError: If the cotangent has another shape than the activations.
        """
        if not self.n_below:
            return theta.new_zeros(0)
        leaf = theta.detach().requires_grad_()
        activations = self.activations(leaf, x)
        if cotangent.shape != activations.shape:
            raise ValueError(f"error at the cut has shape {tuple(cotangent.shape)}: the activations have {tuple(activations.shape)}")
        (gradient,) = torch.autograd.grad(activations, leaf, cotangent)
        return gradient[self.below]

    def pull_above(self, theta: Tensor, activations: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of ``(logits · cotangent).sum()`` by the parameters above the cut, ``(P − n_below,)``, and by the activations."""
        leaf, inner = theta.detach().requires_grad_(), activations.detach().requires_grad_()
        gradient, error = torch.autograd.grad(self.head(leaf, inner), (leaf, inner), cotangent, allow_unused=True)
        gradient = torch.zeros_like(theta) if gradient is None else gradient
        return gradient[~self.below], torch.zeros_like(activations) if error is None else error

    def joined(self, below: Tensor, above: Tensor) -> Tensor:
        """Both parts of vectors in the order of θ: ``(…, n_below)`` and ``(…, P − n_below)`` to ``(…, P)``."""
        whole = below.new_zeros(*below.shape[:-1], self.n_parameters)
        whole[..., self.below] = below
        whole[..., ~self.below] = above
        return whole
