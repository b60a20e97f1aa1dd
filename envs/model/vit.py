r"""A small vision transformer, which is trained on public rows, once on a machine, and then frozen.

An image is cut into patches of p × p pixels. Each patch is a token of width w, and a *class token* comes before them. Blocks follow one
another; each normalises before it acts (layer normalisation, LN):

.. math:: h \leftarrow h + \text{Attention}(\text{LN}(h)), \qquad h \leftarrow h + W_2\,\text{GELU}(W_1 \text{LN}(h))

and the logits are linear in the normalised class token. What members train of it is in :mod:`~proxycoop.envs.model.lora`.

What comes out of the pretraining depends on the settings, the rows and torch's version. It is kept in a file whose name is a digest of all
these, in the folder that the environment variable ``PROXYCOOP_CACHE`` names, else in ``proxycoop`` in the user's cache folder
(``XDG_CACHE_HOME``, else ``~/.cache``). A file that is missing or damaged is made anew. Where the folder cannot be written, each process
trains its own. Training takes one thread and seeds of its own, so that it comes out the same in every process of a machine. Processors of
another kind may round sums differently. After thousands of steps the parameters then differ visibly, though hardly in what they are worth.

References:
    Dosovitskiy et al. (2021), *An image is worth 16x16 words: transformers for image recognition at scale*, ICLR.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, scaled_dot_product_attention
from tqdm import tqdm

from ...files import write_atomically
from ...settings import Settings
from ..data.dataset import Dataset
from ..data.sources import load

_VERSION = 1
"""Raised when the procedure changes, so that files of older versions are not taken."""


class Block(nn.Module):
    """One block: attention of the tokens to each other, then two layers on each token.

    Args:
        width: Width w of a token.
        heads: Heads of the attention; w is a multiple of their number.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.together = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        """Tokens ``(R, T, w)`` → ``(R, T, w)``."""
        y = self.before_attention(h)
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        h = h + self.together(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(start_dim=2))
        h = h + self.layers(self.before_layers(h))
        return h


class VisionTransformer(nn.Module):
    """The transformer.

    Args:
        side: Height and width of the grey images, in pixels.
        patch: Side p of a patch.
        width: Width w of a token.
        heads: Heads of each block's attention.
        blocks: Number of blocks.
        n_classes: Number of classes C.
    """

    def __init__(self, side: int, patch: int, width: int, heads: int, blocks: int, n_classes: int) -> None:
        super().__init__()
        self.side, self.patch = side, patch
        n_patches = (side // patch) ** 2
        self.embed = nn.Linear(patch * patch, width)
        self.place = nn.Parameter(0.02 * torch.randn(n_patches + 1, width))  # the class token's own is its content
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_classes)

    @property
    def last(self) -> Block:
        """The last block."""
        block: Block = self.blocks[-1]  # type: ignore[assignment]  # the list knows only that it holds modules
        return block

    def tokens(self, x: Tensor) -> Tensor:
        """What enters the last block: rows ``(R, D)`` → ``(R, T, w)``, T − 1 patches and first the class token."""
        n, p = self.side // self.patch, self.patch
        patches = x.reshape(-1, n, p, n, p).transpose(2, 3).reshape(-1, n * n, p * p)
        h = pad(self.embed(patches), (0, 0, 1, 0)) + self.place
        for block in self.blocks[:-1]:
            h = block(h)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(R, D)`` → logits ``(R, C)``."""
        logits: Tensor = self.head(self.norm(self.last(self.tokens(x))[:, 0]))
        return logits


class Pretraining(Settings):
    """How a network is trained on public rows. They come from a data source of their own, so that none of them is in any split."""

    source: str = Field(
        "fashion_mnist_public", description="Data source of the rows. It has the same features and classes as data.source, and other rows."
    )
    without: tuple[int | str, ...] = Field((), description="Classes that the public rows lack, by name or number.")
    rows: int | None = Field(None, ge=1, description="Number of rows, the first of the source; all by default.")
    epochs: int = Field(6, ge=1, description="How often each row is taken.")
    batch: int = Field(50, ge=1, description="Rows of a step of Adam.")
    lr: Annotated[float, Field(gt=0)] = Field(2e-3, description="Its rate at the start. It falls to 0 in a straight line.")
    seed: int = Field(0, ge=0, description="Seed of the first parameters and of the order of rows.")

    def public_rows(self, n_features: int, n_classes: int) -> tuple[Tensor, Tensor]:
        """Features float32 ``(n_rows, D)``, and labels int64 ``(n_rows,)``.

        Raises:
            ValueError: If the source is unknown, or has other features or classes, or too few rows.
        """
        dataset = load(self.source)
        if (dataset.features.shape[1], len(dataset.class_names)) != (n_features, n_classes):
            raise ValueError(
                f"model.pretraining.source={self.source!r} has {dataset.features.shape[1]} features and {len(dataset.class_names)} "
                f"classes, and the scenario's data {n_features} and {n_classes}: name a source of the same kind"
            )
        x, y = torch.from_numpy(dataset.features), torch.from_numpy(dataset.labels)
        lacked = torch.tensor(sorted({dataset.class_index(label) for label in self.without}), dtype=torch.int64)
        kept = (~torch.isin(y, lacked)).nonzero()[:, 0]
        if self.rows is not None and len(kept) < self.rows:
            raise ValueError(
                f"model.pretraining.rows={self.rows}: source {self.source!r} has {len(kept)} rows of the classes that are kept"
            )
        kept = kept[: self.rows]
        if not len(kept):
            raise ValueError("model.pretraining.without names every class of its source: leave some to learn from")
        return x[kept].float(), y[kept]

    def check(self, dataset: Dataset) -> None:
        """Refuse public rows that are in a cooperative's data too, from which its splits are dealt.

        Raises:
            ValueError: If more than 1 % of them are. (A few images of Fashion-MNIST are there twice.)
        """
        public = self.public_rows(dataset.features.shape[1], len(dataset.class_names))[0].numpy()
        theirs = {row.tobytes() for row in np.asarray(dataset.features, dtype=np.float32)}
        n_shared = sum(row.tobytes() in theirs for row in public)
        if n_shared > 0.01 * len(public):
            raise ValueError(
                f"model.pretraining.source={self.source!r}: {n_shared:,} of its {len(public):,} rows are in the scenario's data too, and "
                "would be in its splits: name sources that have no row in common, such as fashion_mnist_public and fashion_mnist_private"
            )


def pretrained(network: nn.Module, settings: Pretraining, architecture: Mapping[str, Any], n_features: int, n_classes: int) -> None:
    """Give a network the parameters that it has after the pretraining: from the file, if there is one, else by training.

    Args:
        network: From rows ``(R, D)`` to logits ``(R, C)``; its present parameters are those before the training.
        settings: How it is trained.
        architecture: Whatever the network is made of, as plain data, for the name of the file.
        n_features: Number of features D.
        n_classes: Number of classes C.

    Raises:
        ValueError: If the public rows do not fit, or training does not lead to finite parameters.
    """
    x, y = settings.public_rows(n_features, n_classes)
    digest = hashlib.sha256(
        json.dumps([_VERSION, torch.__version__, architecture, settings.model_dump(mode="json")], sort_keys=True).encode()
    )
    digest.update(x.numpy().tobytes() + y.numpy().tobytes())
    path = folder() / f"pretrained-{digest.hexdigest()[:32]}.pt"
    if _restored(network, path):
        return
    with _one_thread():
        _train(network, settings, x, y)
    if not all(part.isfinite().all() for part in network.parameters()):
        raise ValueError(f"model.pretraining.lr={settings.lr:g}: training does not lead to finite parameters: lower it")
    with contextlib.suppress(OSError):  # a folder that cannot be written
        _keep(network, path)


def folder() -> Path:
    """Where files are kept."""
    if given := os.environ.get("PROXYCOOP_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxycoop"


def _train(network: nn.Module, settings: Pretraining, x: Tensor, y: Tensor) -> None:
    generator = torch.Generator().manual_seed(settings.seed)
    steps = settings.epochs * -(-len(x) // settings.batch)
    adam = torch.optim.Adam(network.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=steps)
    title = "pretraining, once on this machine"
    with torch.enable_grad(), tqdm(total=steps, desc=title, unit=" steps", disable=None, leave=False) as bar:
        for _ in range(settings.epochs):
            for batch in torch.randperm(len(x), generator=generator).split(settings.batch):
                adam.zero_grad()
                cross_entropy(network(x[batch]), y[batch]).backward()
                adam.step()
                schedule.step()
                bar.update()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are taken in one order, however many threads torch may use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _restored(network: nn.Module, path: Path) -> bool:
    """Whether a file had the network's parameters, which then are taken."""
    try:
        kept = torch.load(path, weights_only=True)
        network.load_state_dict(kept)
    except Exception:  # missing, damaged or of another network: whatever torch says, it is made anew
        return False
    return True


def _keep(network: nn.Module, path: Path) -> None:
    """Write the file, in one move, since other processes may do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.save(network.state_dict(), file))
