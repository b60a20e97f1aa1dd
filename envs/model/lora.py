r"""Low-rank adapters of a frozen vision transformer, batched over parameters, and the kind of model ``vit``.

A frozen matrix W is moved by a product of two small ones. Only these are trained:

.. math:: W' = W + \frac{\alpha}{r} B A, \qquad A \in \mathbb{R}^{r \times w},\ B \in \mathbb{R}^{w \times r}

B is zero at the start, so that the model starts as the frozen one. Adapted are the queries and the values of the last block, as Hu et al.
do. The head is new and trained with them. Nothing before the last block depends on what is trained: it is computed once for the rows of
lots (:meth:`LoraTransformer.prepare`), and once for rows that all models share.

The logits need the class token alone. With one query, attention needs no keys and no values of the other tokens:

.. math:: q_h^\top W_{K,h}\, y_t = (W_{K,h}^\top q_h)^\top y_t, \qquad
    \sum_t a_{ht} W'_{V,h}\, y_t = W'_{V,h} \sum_t a_{ht}\, y_t

with h a head, y the normalised tokens, and a the softmax over t. So what differs between models is as small as the class token, not as
large as all tokens. (The keys' bias adds the same to every t, which the softmax does not see.)

References:
    Hu et al. (2022), *LoRA: low-rank adaptation of large language models*, ICLR; arXiv 2106.09685.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.func import grad, vjp
from torch.utils.weak import WeakTensorKeyDictionary

from ...settings import Settings
from ..compiled.assumptions import traced
from ..data.dataset import DATA
from .interface import Model
from .likelihood import residual
from .vit import Pretraining, VisionTransformer, pretrained

_ROWS = 2048
"""Rows that are answered at once. What the block makes of them then stays in the cache of a core, a few MiB."""


class LoraTransformer(Model):
    """The last block of a frozen vision transformer with adapters, and a new head.

    The parameters are A and B of the queries, A and B of the values, the head's weights ``(w, C)``, and its biases.

    Args:
        network: The transformer; its own head is not used.
        rank: Rank r of the adapters.
        alpha: Their scale α.
        n_classes: Number of classes C.

    Attributes:
        n_frozen: Number of parameters that nobody trains; the old head is not among them.
    """

    def __init__(self, network: VisionTransformer, rank: int, alpha: float, n_classes: int) -> None:
        network = network.eval().requires_grad_(False)
        self.n_features, self.n_classes = network.side**2, n_classes
        self.scale = alpha / rank
        self.n_tokens, self.width = network.place.shape
        w = self.width
        self._shapes = [(rank, w), (w, rank), (rank, w), (w, rank), (w, n_classes), (1, n_classes)]
        self._sizes = [rows * columns for rows, columns in self._shapes]
        self.n_parameters = sum(self._sizes)
        self.n_frozen = sum(part.numel() for name, part in network.named_parameters() if not name.startswith("head."))
        n_head = (w + 1) * n_classes
        self.class_head = torch.cat([torch.full((self.n_parameters - n_head,), -1), torch.arange(n_classes).repeat(w + 1)])
        drawn = [torch.randn(rank, w) / w**0.5 for _ in range(2)]
        parts = [drawn[0], torch.zeros(w, rank), drawn[1], torch.zeros(w, rank), torch.zeros(n_head)]
        self._start = torch.cat([part.flatten() for part in parts])
        self._networks = {(torch.float32, torch.device("cpu")): network.float()}
        self._seen = WeakTensorKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """What was made of rows stays with them."""
        return vars(self) | {"_seen": WeakTensorKeyDictionary()}

    def start(self) -> Tensor:
        """A drawn with variance 1/w, B and the head zero, ``(P,)``: an untrained head gives every class the same chance."""
        return self._start.clone()

    def prepare(self, x: Tensor) -> Tensor:
        """The rows, what enters the last block of the class token, and the normalised tokens, ``(..., D + w + T·w)``.

        It does not depend on what is trained. Of rows ``(R, D)``, which are those that all models share, it is kept as long as they are.
        """
        if x.shape[-1] != self.n_features:
            return x
        if x.dim() != 2 or traced():
            return self._prepared(x)
        kept = self._seen.get(x)
        if kept is None or kept[0] != x._version:
            kept = self._seen[x] = (x._version, self._prepared(x))
        prepared: Tensor = kept[1]
        return prepared

    @torch.no_grad()
    def _prepared(self, x: Tensor) -> Tensor:
        network, rows = self._network(x), x.reshape(-1, self.n_features)
        made = []
        for some in rows.split(_ROWS):
            h = network.tokens(some)
            made.append(torch.cat([h[:, :1], network.last.before_attention(h)], dim=1).flatten(start_dim=1))
        prepared = torch.cat(made)
        return torch.cat([x, prepared.reshape(*x.shape[:-1], prepared.shape[-1])], dim=-1)  # there may be no rows

    def _network(self, like: Tensor) -> VisionTransformer:
        """The transformer with parameters of a tensor's type, on its device."""
        key = (like.dtype, like.device)
        if key not in self._networks:
            first = next(iter(self._networks.values()))
            self._networks[key] = copy.deepcopy(first).to(dtype=like.dtype, device=like.device)
        return self._networks[key]

    def logits(self, theta: Tensor, x: Tensor) -> Tensor:
        """The logits, ``(B, R, C)``, a few models at a time."""
        return torch.cat([self._answers(some, rows) for some, rows, _ in self._few(theta, self.prepare(x), theta)])

    def pullback(self, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
        """By reverse-mode differentiation, ``(B, P)``, a few models at a time."""
        found = []
        for some, rows, back in self._few(theta, self.prepare(x), cotangent):
            (gradient,) = self._vjp(some, rows)[1](back)
            found.append(gradient)
        return torch.cat(found)

    def loss_gradient(self, theta: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """With one forward pass for both."""
        answers, gradients = [], []
        for some, rows, which in self._few(theta, self.prepare(x), torch.arange(len(theta))):
            logits, back = self._vjp(some, rows)
            answers.append(logits)
            (gradient,) = back(residual(logits, y[which]) * weight[which][..., None])
            gradients.append(gradient)
        return torch.cat(answers), torch.cat(gradients)

    def curvature(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> Tensor:
        """By differentiating twice, ``(B, P)``."""
        return self.expansion(theta, x, y, direction)[1]

    def expansion(self, theta: Tensor, x: Tensor, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """With one way through the block and back for both, and another back through these for the curvature."""

        def loss(theta: Tensor, rows: Tensor) -> Tensor:  # models do not depend on each other: of a sum, each has its own gradient
            logits = self._answers(theta, rows)
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(len(theta)), reduction="sum") / len(y)

        def slope(theta: Tensor, rows: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
            gradient: Tensor = grad(loss)(theta, rows)
            return (gradient * along).sum(), gradient

        parts = [grad(slope, has_aux=True)(some, rows, along) for some, rows, along in self._few(theta, self.prepare(x), direction)]
        products, gradients = zip(*parts, strict=True)
        return torch.cat(gradients), torch.cat(products)

    def _vjp(self, theta: Tensor, rows: Tensor) -> Any:
        return vjp(lambda parameters: self._answers(parameters, rows), theta)

    @staticmethod
    def _few(theta: Tensor, rows: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Models with their rows, and what belongs to them, so many at a time that they have about ``_ROWS`` rows in all."""
        n = max(1, _ROWS // max(1, rows.shape[-2]))
        for first in range(0, max(1, len(theta)), n):
            some = slice(first, first + n)
            yield theta[some], rows if rows.dim() == 2 else rows[some], beside[some]

    def _answers(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Logits ``(B, R, C)`` of prepared rows, ``(R, ·)`` or ``(B, R, ·)``."""
        network, w = self._network(theta), self.width
        block = network.last
        parts = theta.split(self._sizes, dim=1)
        a_q, b_q, a_v, b_v, head, bias = (part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True))
        token = rows[..., self.n_features : self.n_features + w]  # (…, R, w)
        y = rows[..., self.n_features + w :].unflatten(-1, (self.n_tokens, w))  # (…, R, T, w)
        heads: tuple[int, int] = (block.heads, -1)  # (H, w / H)

        first = y[..., 0, :]
        q = block.query(first) + self.scale * (first @ a_q.transpose(1, 2)) @ b_q.transpose(1, 2)  # (B, R, w)
        u = torch.einsum("brhd,hdw->brhw", q.unflatten(-1, heads), block.key.weight.unflatten(0, heads))
        attended = _attend(u / (w // block.heads) ** 0.5, y)  # (B, R, H, w)
        v = torch.einsum("brhw,hdw->brhd", attended, block.value.weight.unflatten(0, heads)) + block.value.bias.unflatten(0, heads)
        low = torch.einsum("brhw,bkw->brhk", attended, a_v)
        v = v + self.scale * torch.einsum("brhk,bhdk->brhd", low, b_v.unflatten(1, heads))

        z = token + block.together(v.flatten(start_dim=2))
        z = z + block.layers(block.before_layers(z))
        return torch.baddbmm(bias, network.norm(z), head)


def _attend(query: Tensor, y: Tensor) -> Tensor:
    """Means of tokens, weighted by the softmax of their products with a query: ``(B, R, H, w)``, ``([B,] R, T, w)`` → ``(B, R, H, w)``."""
    if y.dim() == 4:
        return (query @ y.transpose(-1, -2)).softmax(dim=-1) @ y
    n_models = len(query)
    query = query.transpose(0, 1).flatten(1, 2)  # (R, B·H, w): one product a row for all models
    means: Tensor = ((query @ y.transpose(-1, -2)).softmax(dim=-1) @ y).unflatten(1, (n_models, -1))
    return means.transpose(0, 1)


class Vit(Settings):
    """A small vision transformer for grey images, pretrained and frozen. Adapters of its last block and a new head are trained."""

    kind: Literal["vit"] = "vit"
    patch: int = Field(7, ge=1, description="Side of a patch, in pixels. It divides the side of the images, which are square and grey.")
    width: int = Field(32, ge=2, description="Width of a token.")
    heads: int = Field(2, ge=1, description="Heads of each block's attention. The width is a multiple of their number.")
    blocks: int = Field(3, ge=1, description="Number of blocks.")
    rank: int = Field(4, ge=1, description="Rank r of the adapters of the last block's queries and values.")
    alpha: float = Field(8.0, gt=0, description="Their scale is alpha / rank.")
    pretraining: Pretraining = Field(default_factory=Pretraining, description="How the transformer is trained before it is frozen.")

    @model_validator(mode="after")
    def _check(self) -> Vit:
        if self.width % self.heads:
            raise ValueError(f"width={self.width}: must be a multiple of heads={self.heads}")
        if self.rank > self.width:
            raise ValueError(f"rank={self.rank}: adapters of a width of {self.width} have at most that rank")
        return self

    def build(self, n_features: int, n_classes: int) -> Model:
        """The model for this many features and classes. The first time on a machine it trains the transformer.

        Raises:
            ValueError: If rows are no square images that patches fill, or the source of the pretraining has other rows or other classes.
        """
        side = math.isqrt(n_features)
        if side * side != n_features or side % self.patch:
            raise ValueError(
                f"model.patch={self.patch}: rows have {n_features} features, which are no square grey image whose side is a multiple of it"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.pretraining.seed)
            network = VisionTransformer(side, self.patch, self.width, self.heads, self.blocks, n_classes)
        pretrained(network, self.pretraining, self.model_dump(mode="json", exclude={"rank", "alpha"}), n_features, n_classes)
        return LoraTransformer(network, self.rank, self.alpha, n_classes)

    def maker(self) -> object:
        """What builds the model, beside the settings: the source of the pretraining."""
        return DATA[self.pretraining.source]
