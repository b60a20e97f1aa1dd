"""Models, rows and the centralised step that the protocol's step is compared with."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from proxycoop.traversal import Node, SplitModel

DATA = {0: (7, 5), 1: (9,), 2: (4, 6, 3)}  # rows of each node's lots


class Patches(nn.Module):
    """A picture of 8 × 8 as 16 patches of 2 × 2, each embedded with its place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cut = nn.Unfold(2, stride=2)
        self.embed = nn.Linear(4, width)
        self.place = nn.Parameter(torch.randn(16, width) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.cut(x.reshape(-1, 1, 8, 8)).transpose(1, 2)) + self.place


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class LoRA(nn.Module):
    """A frozen linear layer and a trained correction of rank 2."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.base = nn.Linear(n_in, n_out).requires_grad_(False)
        self.down, self.up = nn.Linear(n_in, 2, bias=False), nn.Linear(2, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 10))


def cnn() -> nn.Module:
    picture = nn.Unflatten(1, (1, 8, 8))
    features = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten()
    return nn.Sequential(picture, *features, nn.Linear(24, 10))


def transformer() -> nn.Module:
    layer = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "batch_first": True, "activation": "gelu"}
    return nn.Sequential(
        Patches(8), nn.TransformerEncoderLayer(**layer), nn.TransformerEncoderLayer(**layer), Mean(), nn.LayerNorm(8), nn.Linear(8, 10)
    )


def lora() -> nn.Module:
    return nn.Sequential(LoRA(64, 12), nn.GELU(), LoRA(12, 9), nn.GELU(), nn.Linear(9, 10))


MODELS = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "lora": lora}


def made(name: str, cut: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> SplitModel:
    torch.manual_seed(seed)
    return SplitModel(MODELS[name]().to(dtype), cut)


def cuts_of(name: str) -> list[int]:
    return made(name, {"mlp": 1, "cnn": 2, "transformer": 1, "lora": 1}[name]).cuts


def nodes_of(split: SplitModel, dtype: torch.dtype = torch.float64, seed: int = 1, kind: type[Node] = Node, **more) -> dict[int, Node]:
    draw = torch.Generator().manual_seed(seed)
    nodes = {}
    for node, counts in DATA.items():
        x = torch.rand(sum(counts), 64, generator=draw, dtype=torch.float64).to(dtype)
        nodes[node] = kind(split, x, torch.randint(0, 10, (len(x),), generator=draw), counts, **more)
    return nodes


def centralised(split: SplitModel, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy on rows, from the whole module by plain autograd."""
    leaf = theta.clone().requires_grad_()
    parts = leaf.split([shape.numel() for shape in split.shapes.values()])
    parameters = {name: part.reshape(shape) for part, (name, shape) in zip(parts, split.shapes.items(), strict=True)}
    loss = nn.functional.cross_entropy(torch.func.functional_call(split.module, parameters, (x,)), y)
    return torch.autograd.grad(loss, leaf)[0]


def batch_of(nodes: dict[int, Node], visits) -> tuple[Tensor, Tensor]:
    """The rows and labels of visits, put together as only a test can."""
    x = torch.cat([nodes[visit.node].x[visit.rows] for visit in visits])
    return x, torch.cat([nodes[visit.node].y[visit.rows] for visit in visits])


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest entry of b."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    """All of the above."""
    return SimpleNamespace(
        made=made,
        cuts_of=cuts_of,
        nodes_of=nodes_of,
        centralised=centralised,
        batch_of=batch_of,
        relative=relative,
        models=MODELS,
        data=DATA,
    )
