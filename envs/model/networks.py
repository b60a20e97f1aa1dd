r"""Convolutional networks for images, batched over parameters.

A layer cuts an image into *patches*, flattened to rows (im2col), and multiplies these with its filters. For B models this is one batched
matrix product:

.. math:: z_b = \text{patches}(h_b)\, W_b + \beta_b, \qquad h'_b = \max(z_b, 0), \qquad
    \frac{\partial}{\partial W_b} = \text{patches}(h_b)^\top \frac{\partial}{\partial z_b}

``nn.Conv2d`` under ``vmap`` becomes a grouped convolution, which takes longer on a CPU where patches do not overlap. What saves time here:
B models on the same rows cut the patches of their first layer once; and models are taken a few at a time, so that what a layer makes is
still in the cache when the next one reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.func import grad

from ...settings import Settings
from .interface import Model
from .likelihood import residual

_ROWS = 1024
"""Rows that are answered at once. What the layers make of them then fits into the cache of a core, a few MiB."""
_ROWS_BACK = 256
"""The same where it is kept for the way back."""


@dataclass(frozen=True)
class _Convolution:
    """One convolutional layer.

    Attributes:
        height, width, depth: Of the images that it takes.
        channels: Depth of the images that it gives.
        kernel: Side of a patch, in pixels.
        stride: Pixels from one patch to the next.
    """

    height: int
    width: int
    depth: int
    channels: int
    kernel: int
    stride: int

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of what it gives."""
        return (self.height - self.kernel) // self.stride + 1, (self.width - self.kernel) // self.stride + 1

    @property
    def positions(self) -> int:
        """Number of patches of an image."""
        return math.prod(self.out)

    @property
    def size(self) -> int:
        """Entries of a patch."""
        return self.kernel * self.kernel * self.depth

    def patches(self, images: Tensor) -> Tensor:
        """Images ``(n, height·width·depth)``, row by row, pixel by pixel → their patches, ``(n·positions, size)``."""
        n, (rows, columns), k = len(images), self.out, self.kernel
        images = images.reshape(n, self.height, self.width, self.depth).contiguous()
        image, row, pixel, one = images.stride()
        cut = images.as_strided((n, rows, columns, k, k * self.depth), (image, row * self.stride, pixel * self.stride, row, one))
        return cut.reshape(n * self.positions, self.size)

    def put_together(self, patches: Tensor) -> Tensor:
        """The transpose of :meth:`patches`: each pixel is the sum of its entries in patches, ``(n·positions, size)`` → ``(n, …)``."""
        (rows, columns), k, s = self.out, self.kernel, self.stride
        parts = patches.reshape(-1, rows, columns, k, k, self.depth)
        images = parts.new_zeros(len(parts), self.height, self.width, self.depth)
        for i in range(k):
            for j in range(k):
                images[:, i : i + s * rows : s, j : j + s * columns : s] += parts[:, :, :, i, j]
        return images.flatten(start_dim=1)


class ConvolutionalNetwork(Model):
    """Convolutional layers, then dense ones, with ReLU units between all of them.

    The parameters are, layer after layer, the weights with the inputs first, ``(inputs, outputs)``, and the biases. A filter's inputs are
    a patch, row by row, pixel by pixel, channel by channel.

    Args:
        shape: Height, width and number of channels of the images. A row holds an image row by row, pixel by pixel, channel by channel.
        channels: Channels of each convolutional layer.
        kernel: Side of each layer's patches, in pixels.
        stride: Pixels from one patch to the next, in each layer. Pixels at the right and lower edge that fill no patch are left out.
        hidden: Units of each dense layer before the last.
        n_classes: Number of classes C.

    Raises:
        ValueError: If a layer's patches are larger than its images.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        hidden: Sequence[int],
        n_classes: int,
    ) -> None:
        self.convolutions: list[_Convolution] = []
        height, width, depth = shape
        for place, (c, k, s) in enumerate(zip(channels, kernel, stride, strict=True)):
            if k > min(height, width):
                raise ValueError(
                    f"model.kernel={list(kernel)}: layer {place + 1} gets images of {height} x {width} pixels, which hold no patch of "
                    f"{k} x {k}: lower its kernel, or the kernels and strides before it"
                )
            layer = _Convolution(height, width, depth, c, k, s)
            self.convolutions.append(layer)
            (height, width), depth = layer.out, c
        widths = [height * width * depth, *hidden, n_classes]
        self.dense = list(pairwise(widths))
        sizes = [(layer.size, layer.channels) for layer in self.convolutions] + self.dense
        self._shapes = [shape for inputs, outputs in sizes for shape in ((inputs, outputs), (outputs,))]
        self.n_parameters = sum(math.prod(shape) for shape in self._shapes)
        self.n_classes = n_classes
        head = (widths[-2] + 1) * n_classes
        self.class_head = torch.cat([torch.full((self.n_parameters - head,), -1), torch.arange(n_classes).repeat(widths[-2] + 1)])
        self._start = torch.cat([self._drawn(*shape).flatten() for shape in self._shapes[:-2]] + [torch.zeros(head)])

    @staticmethod
    def _drawn(inputs: int, outputs: int | None = None) -> Tensor:
        """Weights by He et al. (2015), variance 2 / inputs, from torch's global generator; or biases, 0."""
        return torch.zeros(inputs) if outputs is None else torch.randn(inputs, outputs) * (2 / inputs) ** 0.5

    def start(self) -> Tensor:
        """Weights by He et al. (2015), ``(P,)``; the last layer's are 0, so that an untrained network gives every class the same chance.

        References:
            He et al. (2015), *Delving deep into rectifiers*, ICCV.
        """
        return self._start.clone()

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """The logits, ``(B, R, C)``, a few models at a time."""
        if len(theta) == 1 and x.shape[-2] > 2 * _ROWS:
            return torch.cat([self.logits(theta, some) for some in x.split(_ROWS, dim=-2)], dim=1)
        patches = self._shared_patches(x)
        parts = [self._forward(some, rows, patches)[0] for some, rows, _ in self._few(_ROWS, theta, x, theta)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def pullback(self, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
        """Back through the layers, ``(B, P)``, a few models at a time."""
        patches = self._shared_patches(x)
        parts = [
            self._backward(some, self._forward(some, rows, patches)[1], back)
            for some, rows, back in self._few(_ROWS_BACK, theta, x, cotangent)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def loss_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """With one way through the layers for both."""
        n = max(1, _ROWS_BACK // x.shape[1])
        answers, gradients = [], []
        for some, rows, labels, of_row in zip(theta.split(n), x.split(n), y.split(n), weight.split(n), strict=True):
            logits, kept = self._forward(some, rows, None)
            answers.append(logits)
            gradients.append(self._backward(some, kept, residual(logits, labels) * of_row[..., None]))
        return torch.cat(answers), torch.cat(gradients)

    def curvature(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """By differentiating the gradient, ``(B, P)``. With ReLU units the second derivative exists almost everywhere."""
        return self.expansion(theta, x, y, direction)[1]

    def expansion(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """With one way through the layers and back for both, and another back through these for the curvature."""

        def slope(theta: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
            logits, kept = self._forward(theta, x, patches)
            probabilities = logits.softmax(dim=-1)  # residual() works in place
            error = probabilities - torch.nn.functional.one_hot(y, self.n_classes)
            gradient = self._backward(theta, kept, error / len(x))
            return (gradient * along).sum(), gradient

        patches = self._shared_patches(x)
        parts = [grad(slope, has_aux=True)(some, along) for some, _, along in self._few(_ROWS_BACK, theta, x, direction)]
        products, gradients = zip(*parts, strict=True)
        return torch.cat(gradients), torch.cat(products)

    @staticmethod
    def _few(n_rows: int, theta: Tensor, x: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Models with their rows, and what belongs to them, so many at a time that they have about ``n_rows`` in all."""
        n = max(1, n_rows // x.shape[-2])
        for first in range(0, len(theta), n):
            some = slice(first, first + n)
            yield theta[some], x if x.dim() == 2 else x[some], beside[some]

    def _shared_patches(self, x: Tensor) -> Tensor | None:
        """The first layer's patches of rows that all models have, ``(R·positions, size)``; ``None`` where each has its own."""
        return self.convolutions[0].patches(x) if x.dim() == 2 and self.convolutions else None

    def _parts(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights ``(B, inputs, outputs)`` and biases ``(B, 1, outputs)`` of each layer."""
        parts = [
            part.reshape(-1, *shape)
            for part, shape in zip(theta.split([math.prod(shape) for shape in self._shapes], dim=1), self._shapes, strict=True)
        ]
        return [(weight, bias[:, None]) for weight, bias in zip(parts[::2], parts[1::2], strict=True)]

    def _forward(self, theta: Tensor, x: Tensor, patches: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Logits ``(B, R, C)``, and what each layer took: patches, or rows."""
        n_models, n_rows, layers = len(theta), x.shape[-2], self._parts(theta)
        kept: list[Tensor] = []
        h = x
        for place, (layer, (weight, bias)) in enumerate(zip(self.convolutions, layers, strict=False)):
            if place > 0 or patches is None:
                patches = layer.patches(h.reshape(n_models * n_rows, -1)).unflatten(0, (n_models, -1))  # (B, R·positions, size)
            kept.append(patches.expand(n_models, -1, -1))
            h = torch.baddbmm(bias, kept[-1], weight).relu_()  # (B, R·positions, channels)
        h = h.reshape(n_models, n_rows, -1) if self.convolutions or h.dim() == 3 else h.expand(n_models, -1, -1)
        for place, (weight, bias) in enumerate(layers[len(self.convolutions) :]):
            kept.append(h)
            h = torch.baddbmm(bias, h, weight)
            if place < len(self.dense) - 1:
                h = h.relu_()
        return h, kept

    def _backward(self, theta: Tensor, kept: list[Tensor], cotangent: Tensor) -> Tensor:
        """Gradient of the sum of cotangent × logits, ``(B, P)``, from what :meth:`_forward` kept."""
        n_models, n_rows = cotangent.shape[:2]
        layers, n_convolutions = self._parts(theta), len(self.convolutions)
        found: list[Tensor] = []  # the last layer first
        back = cotangent
        for place in reversed(range(len(layers))):
            took, weight = kept[place], layers[place][0]
            if place < n_convolutions:
                back = back.reshape(n_models, -1, weight.shape[2])  # (B, R·positions, channels)
            slope = torch.bmm(took.transpose(1, 2), back)
            found += [back.sum(dim=1), slope.flatten(start_dim=1)]
            if place == 0:
                break
            back = torch.bmm(back, weight.transpose(1, 2)) * (took > 0)  # a pixel that the ReLU cut is 0 in each of its patches
            if place < n_convolutions:
                back = self.convolutions[place].put_together(back.flatten(0, 1)).unflatten(0, (n_models, n_rows))
        return torch.cat(found[::-1], dim=1)


class Cnn(Settings):
    """A convolutional network with ReLU units, for images; by default of about 30,000 parameters on 28 × 28 grey pixels and ten classes."""

    kind: Literal["cnn"] = "cnn"
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        description="Height and width of the images, and their channels if more than one: [28, 28]. By default they are square and grey.",
    )
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field((16, 32), min_length=1, description="Channels of each convolutional layer.")
    kernel: tuple[Annotated[int, Field(ge=1)], ...] = Field((4, 3), description="Side of each layer's filters, in pixels.")
    stride: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (4, 2), description="Pixels from one place of a filter to the next, in each layer. As large as the kernel: nothing is read twice."
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((84,), description="Units of each dense layer after them.")

    @model_validator(mode="after")
    def _check(self) -> Cnn:
        for name, given in (("kernel", self.kernel), ("stride", self.stride)):
            if len(given) != len(self.channels):
                raise ValueError(f"{name}={list(given)}: give one number for each of the {len(self.channels)} layers in channels")
        if len(self.shape) not in (0, 2, 3):
            raise ValueError(f"shape={list(self.shape)}: give height and width, and the number of channels if the images are not grey")
        return self

    def build(self, n_features: int, n_classes: int) -> Model:
        """The model for this many features and classes.

        Raises:
            ValueError: If a row is no image of this shape, or a layer's filters are larger than its images.
        """
        side = math.isqrt(n_features)
        height, width, depth = (*(self.shape or (side, side)), 1)[:3]
        if height * width * depth != n_features:
            given = list(self.shape) or "none, which stands for square grey images"
            raise ValueError(f"model.shape is {given}, but rows have {n_features} features: give height, width and channels that fit")
        return ConvolutionalNetwork((height, width, depth), self.channels, self.kernel, self.stride, self.hidden, n_classes)

    def maker(self) -> object:
        """What builds the model, beside the settings: nothing."""
        return None
