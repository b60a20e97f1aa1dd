"""Shared models of rows: softmax regression, perceptrons, and any ``nn.Module``; images have :mod:`~proxycoop.envs.model.networks`.

Softmax regression has its logits and its pullback in closed form (:class:`~proxycoop.envs.model.interface.Model` says what they are). Any
other ``nn.Module`` gets them from :mod:`torch.func`.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from ...credit.games.head import class_head
from ...settings import Settings, default_kind
from .interface import Model as Model
from .likelihood import cross_entropy, log_softmax, residual
from .lora import Vit
from .networks import Cnn

_LARGE = 10_000
"""Parameters from which on a network is asked for some models at a time; below, calls take longer than what they save."""
_ROWS = 1024
"""Rows that it is asked for at once."""
_CALLING = RLock()
"""While a module is called, torch.func lends it parameters. Engines of one scenario share the module, and may be in different threads."""


class SoftmaxRegression(Model):
    r"""Multinomial logistic regression, :math:`\text{logits} = [x, 1]\,W` with W of shape (D + 1, C), flattened; starts at zero."""

    linear = True

    def __init__(self, n_features: int, n_classes: int) -> None:
        self.n_features = n_features
        self.n_classes = n_classes
        self.n_parameters = (n_features + 1) * n_classes
        self.class_head = torch.arange(n_classes).repeat(n_features + 1)

    def start(self) -> Tensor:
        """Zeros, ``(P,)``. The problem is convex, so the start need not be random."""
        return torch.zeros(self.n_parameters)

    def prepare(self, x: Tensor) -> Tensor:
        """[x, 1], ``(..., D + 1)``. With it, logits and pullback are one matrix product each."""
        if x.shape[-1] == self.n_features + 1:
            return x
        return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """[x, 1] W, ``(B, R, C)``."""
        if x.dim() == 3:
            return torch.bmm(self.prepare(x), theta.reshape(-1, self.n_features + 1, self.n_classes))
        if theta.shape[0] == 1:  # nothing to put in another order
            return (self.prepare(x) @ theta.reshape(-1, self.n_classes))[None]
        return self.logits_by_row(theta, x).transpose(0, 1)

    def logits_by_row(self, theta: Tensor, x: Tensor) -> Tensor:
        """One product for all models: (R, D + 1) × (D + 1, B·C)."""
        x, w = self.prepare(x), theta.reshape(-1, self.n_features + 1, self.n_classes)  # (B, D + 1, C)
        return (x @ w.transpose(0, 1).reshape(self.n_features + 1, -1)).reshape(x.shape[0], -1, self.n_classes)

    def pullback(self, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
        """[x, 1]ᵀ times the cotangent, ``(B, P)``; it does not depend on θ."""
        del theta
        x = self.prepare(x)
        if x.dim() == 3:
            return torch.bmm(x.transpose(1, 2), cotangent).flatten(start_dim=1)  # (B, D + 1, C) → (B, P)
        if cotangent.shape[0] == 1:  # nothing to put in another order
            return (x.T @ cotangent[0]).reshape(1, -1)
        gradient = x.T @ cotangent.transpose(0, 1).reshape(x.shape[0], -1)  # (D + 1, B·C): one product for all models
        return gradient.reshape(gradient.shape[0], -1, self.n_classes).transpose(0, 1).flatten(start_dim=1)

    def curvature(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """In closed form: the pullback of (diag(p) − p pᵀ) times the direction's logits. It does not depend on the labels."""
        del y
        x = self.prepare(x)
        p = log_softmax(self.logits(theta, x)).exp()  # (B, R, C)
        moved = self.logits(direction, x)
        cotangent = p * (moved - (p * moved).sum(dim=-1, keepdim=True))
        return self.pullback(theta, x, cotangent / len(x))


class ModuleModel(Model):
    """Any ``nn.Module`` from rows ``(R, D)`` to logits ``(R, C)`` through :func:`torch.func.functional_call`.

    Parameters that are frozen (``requires_grad=False``) are shared once and stay as they are: only the others are federated, screened and
    credited, and only they count in P. What frozen layers make of rows before any trained layer is computed once for all models of a
    batch. If all are frozen, as in a module that was prepared for inference, all are taken.

    Args:
        module: The module. Its present parameters are the start.
        n_features: Number of features D.
        n_classes: Number of classes C.

    Raises:
        ValueError: If the module has no parameters, lazy ones or ones that are not finite, has buffers (the batch statistics of which
            principal should they be?), normalises over the batch, does not map two rows ``(2, D)`` to logits ``(2, C)``, or does not work
            under ``vmap``.
    """

    def __init__(self, module: nn.Module, n_features: int, n_classes: int) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"model: got a {type(module).__name__}, must be an nn.Module")
        if list(module.buffers()):
            raise ValueError("model: the module has buffers (batch normalisation?): use layers whose only state is their parameters")
        if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
            raise ValueError(
                "model: the module has batch normalisation without statistics of its own (track_running_stats=False): its answer to a row "
                "depends on the other rows; use layer or group normalisation"
            )
        if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in module.parameters()):
            raise ValueError("model: the module has lazy layers, whose shapes are not known yet: give them their numbers of inputs")
        module = copy.deepcopy(module)  # a factory may give the same one again, and which are frozen must still be seen then
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters() if name in trained or not trained}
        self._frozen = len(self.shapes) < len(list(module.parameters()))  # its frozen layers are asked once for all models
        self.module = module.eval().requires_grad_(False)
        self.n_parameters = sum(shape.numel() for shape in self.shapes.values())
        self.n_classes = n_classes
        if self.n_parameters == 0:
            raise ValueError("model: the module has no parameters to learn: give it a layer that has some")
        try:
            answer = module(torch.zeros(2, n_features, dtype=next(module.parameters()).dtype))
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"model: the module does not take rows of {n_features} features: {error}") from error
        if answer.shape != (2, n_classes):
            raise ValueError(f"model: the module maps (2, {n_features}) to {tuple(answer.shape)}, must be (2, {n_classes})")
        if not self.start().isfinite().all():
            raise ValueError("model: the module starts with parameters that are not finite")
        self.module = copy.deepcopy(module)  # functional_call does not give tied parameters back
        try:
            self.logits(torch.stack([self.start()] * 2), torch.zeros(2, 2, n_features, dtype=answer.dtype))
        except RuntimeError as error:
            raise ValueError(
                f"model: the module does not work under torch.func.vmap ({error}): no randomness, nothing in place on the input, and "
                "no control flow that depends on the data"
            ) from error
        self.module = module
        self.class_head = self._head()

    def start(self) -> Tensor:
        """The module's own parameters, without the frozen ones, ``(P,)``."""
        parameters = dict(self.module.named_parameters())
        return torch.cat([parameters[name].detach().flatten() for name in self.shapes])

    def _head(self) -> Tensor | None:
        """The class of each trained parameter; ``None`` if the last layer is not linear, or a part of it is frozen."""
        head = class_head(self.module, self.n_classes)
        if head is None:
            return None
        named = list(self.module.named_parameters())
        parts = dict(zip((name for name, _ in named), head.split([one.numel() for _, one in named]), strict=True))
        if any(name not in self.shapes and (part >= 0).any() for name, part in parts.items()):
            return None
        return torch.cat([parts[name] for name in self.shapes])

    def to(self, device: torch.device) -> Model:
        """The same model for parameters and rows on a device, with its own copy of the module."""
        moved = cast(ModuleModel, super().to(device))
        moved.module = copy.deepcopy(self.module).to(device)
        return moved

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """The module's answers, ``(B, R, C)``; of a large one for some models at a time, so that it all stays in the cache."""
        in_dims = (0, 0 if x.dim() == 3 else None)
        if self.n_parameters >= _LARGE and len(theta) > (some := max(1, _ROWS // x.shape[-2])) and not self._frozen:
            rows = x.split(some) if x.dim() == 3 else [x] * -(-len(theta) // some)
            return torch.cat([vmap(self._one, in_dims=in_dims)(*part) for part in zip(theta.split(some), rows, strict=True)])
        answers: Tensor = vmap(self._one, in_dims=in_dims)(theta, x)
        return answers

    def pullback(self, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
        """By reverse-mode differentiation, ``(B, P)``."""

        def one(theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
            back: Callable[[Tensor], tuple[Tensor]] = vjp(lambda parameters: self._one(parameters, x), theta)[1]
            (gradient,) = back(cotangent)
            return gradient

        in_dims = (0, 0 if x.dim() == 3 else None, 0)
        gradients: Tensor = vmap(one, in_dims=in_dims)(theta, x, cotangent)
        return gradients

    def loss_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """With one forward pass for both."""

        def one(theta: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            answered: Any = vjp(lambda parameters: self._one(parameters, x), theta)
            logits, back = answered
            (gradient,) = back(residual(logits, y) * weight[:, None])
            return logits, gradient

        found: tuple[Tensor, Tensor] = vmap(one)(theta, x, y, weight)
        return found

    def curvature(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """By differentiating twice, ``(B, P)``. With ReLU units the second derivative exists almost everywhere."""
        return self.expansion(theta, x, y, direction)[1]

    def expansion(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """With one forward and one backward pass for both, and a pass back through these for the curvature."""

        def slope(theta: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
            gradient: Tensor = grad(lambda parameters: cross_entropy(self._one(parameters, x), y).mean())(theta)
            return (gradient * direction).sum(), gradient

        products: Tensor
        products, gradients = vmap(grad(slope, has_aux=True))(theta, direction)
        return gradients, products

    def _one(self, theta: Tensor, x: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        parameters = {name: part.reshape(shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}
        others = ((name, one) for name, one in self.module.named_parameters() if name not in self.shapes)
        parameters |= {name: one.to(theta.dtype) for name, one in others if one.dtype != theta.dtype}
        with _CALLING:
            answers: Tensor = functional_call(self.module, parameters, (x,))
        return answers


class Softmax(Settings):
    """Softmax regression. It is convex, and every quantity of a round has a closed form."""

    kind: Literal["softmax"] = "softmax"

    def build(self, n_features: int, n_classes: int) -> Model:
        """The model for this many features and classes."""
        return SoftmaxRegression(n_features, n_classes)

    def maker(self) -> object:
        """What builds the model, beside the settings: nothing."""
        return None


class Mlp(Settings):
    """A multilayer perceptron with ReLU units."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((32,), description="Units of each hidden layer.")

    def build(self, n_features: int, n_classes: int) -> Model:
        """The model for this many features and classes."""
        layers: list[nn.Module] = []
        width = n_features
        for units in self.hidden:
            layers += [nn.Linear(width, units), nn.ReLU()]
            width = units
        return ModuleModel(nn.Sequential(*layers, nn.Linear(width, n_classes)), n_features, n_classes)

    def maker(self) -> object:
        """What builds the model, beside the settings: nothing."""
        return None


class Module(Settings):
    """Any ``nn.Module``, built by a factory that is imported by its name."""

    kind: Literal["module"] = "module"
    factory: str = Field(description="'package.module:function'. It is called with n_features, n_classes and the arguments below.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the factory.")

    def build(self, n_features: int, n_classes: int) -> Model:
        """The model for this many features and classes.

        Raises:
            ValueError: If the factory cannot be imported or called, or its module is refused by :class:`ModuleModel`.
        """
        factory = self._imported()
        try:
            module = factory(n_features, n_classes, **self.arguments)
        except ValueError:
            raise
        except Exception as error:  # a user's function
            raise ValueError(
                f"model.factory={self.factory!r} cannot be called with ({n_features}, {n_classes}, {self.arguments}): "
                f"{type(error).__name__}: {error}"
            ) from error
        return ModuleModel(module, n_features, n_classes)

    def maker(self) -> object:
        """What builds the model, beside the settings: the factory.

        Raises:
            ValueError: If it cannot be imported.
        """
        factory = self._imported()
        return factory if isinstance(factory, Hashable) else id(factory)

    def _imported(self) -> Callable[..., nn.Module]:
        module_name, _, attribute = self.factory.partition(":")
        try:
            factory: Callable[..., nn.Module] = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"model.factory={self.factory!r} cannot be imported ({error}): write 'package.module:function'") from error
        return factory


ModelSettings = Annotated[Annotated[Softmax | Mlp | Cnn | Vit | Module, Field(discriminator="kind")], default_kind("softmax")]
