"""Which parameters of a model speak for which class."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from proxycoop.credit.games.head import class_head


class WithSoftmax(nn.Module):
    """A linear layer whose answers are changed by another that has no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.linear(x))


class Scaled(nn.Module):
    """A body, a head, and a parameter of the module itself, which comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        self.head = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale * self.body(x))


MLP_HEAD = [0, 0, 0, 1, 1, 1]
HEADS: list[tuple[str, nn.Module, list[int]]] = [
    ("linear", nn.Linear(3, 2), [0, 0, 0, 1, 1, 1, 0, 1]),  # weight (2, 3), bias (2,)
    ("linear without bias", nn.Linear(3, 2, bias=False), [0, 0, 0, 1, 1, 1]),
    ("mlp", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), [-1] * 15 + [0, 0, 0, 1, 1, 1, 0, 1]),
    ("mlp without biases", nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2, bias=False)), [-1] * 12 + MLP_HEAD),
    ("nested", nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 2))), [-1] * 15 + [*MLP_HEAD, 0, 1]),
    ("parameter of its own", Scaled(), [-1] * 3 + [-1] * 15 + [*MLP_HEAD, 0, 1]),
    ("three layers alike", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), [-1] * 12 + [0, 0, 1, 1, 0, 1]),
]


@pytest.mark.parametrize(("module", "expected"), [(module, expected) for _, module, expected in HEADS], ids=[name for name, *_ in HEADS])
def test_head_by_hand_in_the_order_of_the_parameters(module, expected):
    head = class_head(module)
    assert head is not None
    assert head.dtype == torch.int64
    assert head.tolist() == expected
    assert len(head) == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("module", [module for _, module, _ in HEADS], ids=[name for name, *_ in HEADS])
def test_a_parameter_of_a_class_moves_only_the_logit_of_that_class(module):
    head = class_head(module)
    assert head is not None
    module = module.double()
    names = [name for name, parameter in module.named_parameters() for _ in range(parameter.numel())]
    index = [i for parameter in module.parameters() for i in range(parameter.numel())]
    generator = torch.Generator().manual_seed(0)
    theta = {name: torch.randn(p.shape, dtype=torch.float64, generator=generator) for name, p in module.named_parameters()}
    x = torch.randn(5, next(m for m in module.modules() if isinstance(m, nn.Linear)).in_features, dtype=torch.float64, generator=generator)
    before = functional_call(module, theta, (x,))
    for name, i, label in zip(names, index, head.tolist(), strict=True):
        moved = theta[name].clone()
        moved.view(-1)[i] += 1
        change = (functional_call(module, {**theta, name: moved}, (x,)) - before).abs().amax(dim=0)
        if label >= 0:
            assert change[label] > 0
            change[label] = 0
            assert change.max() == 0


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
        nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten()),
        nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)),
        nn.Bilinear(3, 3, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),  # its weight is made of others
        WithSoftmax(),
        nn.ReLU(),
        nn.Identity(),
        nn.Sequential(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_module_whose_last_layer_is_not_linear_has_no_head(module):
    assert class_head(module) is None
