"""Convolutional networks: equal to torch's layers, whichever way they are asked, and refused where they do not fit the data."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from proxycoop.envs import Engine, scenario
from proxycoop.envs.model import Cnn, Model
from proxycoop.envs.model.likelihood import cross_entropy
from proxycoop.envs.model.networks import ConvolutionalNetwork

C = 3
NETWORKS = {
    "patches side by side": ((8, 8, 1), Cnn(channels=(3,), kernel=(4,), stride=(4,), hidden=())),
    "overlapping patches, colours, no square": (
        (9, 7, 2),
        Cnn(shape=(9, 7, 2), channels=(3, 4), kernel=(3, 2), stride=(2, 1), hidden=(5,)),
    ),
    "three layers, pixels left over": (
        (11, 10, 1),
        Cnn(shape=(11, 10), channels=(2, 3, 2), kernel=(4, 2, 1), stride=(2, 1, 2), hidden=(6, 4)),
    ),
}


class InTorch(nn.Module):
    """The same network of torch's own layers."""

    def __init__(self, model: ConvolutionalNetwork, shape: tuple[int, int, int], theta: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.convolutions, self.dense = nn.ModuleList(), nn.ModuleList()
        place = 0
        for one in model.convolutions:
            layer = nn.Conv2d(one.depth, one.channels, one.kernel, one.stride)
            n = one.size * one.channels
            filters = theta[place : place + n].reshape(one.kernel, one.kernel, one.depth, one.channels)
            layer.weight.data, layer.bias.data = filters.permute(3, 2, 0, 1), theta[place + n : place + n + one.channels]
            place += n + one.channels
            self.convolutions.append(layer)
        for inputs, outputs in model.dense:
            dense = nn.Linear(inputs, outputs)
            n = inputs * outputs
            dense.weight.data, dense.bias.data = theta[place : place + n].reshape(inputs, outputs).T, theta[place + n : place + n + outputs]
            place += n + outputs
            self.dense.append(dense)
        assert place == len(theta)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, self.shape).movedim(3, 1)
        for layer in self.convolutions:
            x = layer(x).relu()
        x = x.movedim(1, 3).flatten(start_dim=1)
        for layer in self.dense[:-1]:
            x = layer(x).relu()
        return self.dense[-1](x)


@pytest.fixture(params=NETWORKS, name="made")
def _made(request: pytest.FixtureRequest) -> tuple[ConvolutionalNetwork, tuple[int, int, int]]:
    shape, settings = NETWORKS[request.param]
    model = settings.build(shape[0] * shape[1] * shape[2], C)
    assert isinstance(model, ConvolutionalNetwork)
    return model, shape


def drawn(model: Model, shape: tuple[int, int, int], n_models: int, n_rows: int, *, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters, rows and labels."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(n_models, model.n_parameters, generator=generator, dtype=torch.float64) / 3
    size = (n_rows, shape[0] * shape[1] * shape[2])
    x = torch.randn(*(size if shared else (n_models, *size)), generator=generator, dtype=torch.float64)
    return theta, x, torch.randint(C, (n_rows,) if shared else (n_models, n_rows), generator=generator)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_rows", [1, 5, 700])
def test_logits_equal_those_of_torchs_layers(made, n_rows: int, shared: bool) -> None:
    model, shape = made
    theta, x, _ = drawn(model, shape, 4, n_rows, shared=shared)
    expected = [InTorch(model, shape, one)(x if shared else x[b]) for b, one in enumerate(theta)]
    torch.testing.assert_close(model.logits(theta, x), torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_the_pullback_is_the_gradient_that_autograd_finds(made, shared: bool) -> None:
    model, shape = made
    theta, x, _ = drawn(model, shape, 3, 200, shared=shared)
    cotangent = torch.randn(3, 200, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for b, one in enumerate(theta):
        torch_model = InTorch(model, shape, one)
        (torch_model(x if shared else x[b]) * cotangent[b]).sum().backward()
        parts = []
        for layer in torch_model.convolutions:
            parts += [layer.weight.grad.permute(2, 3, 1, 0).flatten(), layer.bias.grad]
        for layer in torch_model.dense:
            parts += [layer.weight.grad.T.flatten(), layer.bias.grad]
        torch.testing.assert_close(model.pullback(theta, x, cotangent)[b], torch.cat(parts), rtol=1e-10, atol=1e-10)


def test_a_loss_gradient_is_logits_and_pullback_at_once(made) -> None:
    model, shape = made
    theta, x, y = drawn(model, shape, 7, 50, shared=False)
    weight = torch.rand(7, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logits, gradient = model.loss_gradient(theta, x, y, weight)
    expected_logits, expected = Model.loss_gradient(model, theta, x, y, weight)
    torch.testing.assert_close(logits, expected_logits)
    torch.testing.assert_close(gradient, expected)


def test_the_curvature_is_the_hessians_product_that_autograd_finds(made) -> None:
    model, shape = made
    theta, x, y = drawn(model, shape, 3, 120, shared=True)
    along = torch.randn(theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    module = InTorch(model, shape, theta[0])
    names = {name: one.shape for name, one in module.named_parameters()}
    flat = torch.cat([one.detach().flatten() for one in module.parameters()])
    # from the network's order of parameters to that of torch's layers: by giving each parameter its place as its value
    places = torch.cat(
        [one.detach().flatten() for one in InTorch(model, shape, torch.arange(len(flat), dtype=torch.float64)).parameters()]
    ).long()

    def loss(parameters: Tensor) -> Tensor:
        parts = parameters.split([shape.numel() for shape in names.values()])
        answers = functional_call(
            module, {name: part.reshape(shape) for part, (name, shape) in zip(parts, names.items(), strict=True)}, (x,)
        )
        return cross_entropy(answers, y).mean()

    gradients, products = model.expansion(theta, x, y, along)
    for b in range(3):
        slope = grad(loss)(theta[b][places])
        product = grad(lambda at, b=b: (grad(loss)(at) * along[b][places]).sum())(theta[b][places])
        torch.testing.assert_close(gradients[b][places], slope, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(products[b][places], product, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.curvature(theta, x, y, along), products)


def test_many_rows_of_one_model_are_answered_some_at_a_time() -> None:
    model = Cnn(channels=(2,), kernel=(3,), stride=(2,), hidden=()).build(25, C)
    theta, x, _ = drawn(model, (5, 5, 1), 1, 5000, shared=True)
    theta = theta + torch.randn(theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(model.logits(theta, x), model.logits(theta.repeat(2, 1), x)[:1])
    torch.testing.assert_close(model.logits(theta, x[None]), model.logits(theta, x))


def test_an_untrained_network_gives_every_class_the_same_chance_and_the_seed_fixes_it() -> None:
    torch.manual_seed(0)
    model = Cnn().build(784, 10)
    torch.manual_seed(0)
    again = Cnn().build(784, 10)
    assert model.n_parameters == 30_038
    assert torch.equal(model.start(), again.start())
    assert model.start()[:1000].std() > 0
    assert model.logits(model.start()[None], torch.rand(5, 784)).abs().max() == 0


def test_the_class_head_names_the_class_of_each_parameter_of_the_last_layer(made) -> None:
    model, shape = made
    theta, x, _ = drawn(model, shape, 1, 6, shared=True)
    before = model.logits(theta, x)
    assert model.class_head is not None
    for c in range(C):
        moved = model.logits(theta + (model.class_head == c), x) - before
        assert moved[..., [other for other in range(C) if other != c]].abs().max() == 0
        assert moved[..., c].abs().min() > 0


@pytest.mark.parametrize(
    ("settings", "features", "said"),
    [
        ({"kernel": [4]}, 784, r"kernel=\[4\]: give one number for each of the 2 layers in channels"),
        ({"stride": [4, 2, 1]}, 784, r"stride=\[4, 2, 1\]: give one number for each of the 2 layers"),
        ({"shape": [784]}, 784, r"shape=\[784\]: give height and width"),
        ({"shape": [20, 20]}, 784, r"model.shape is \[20, 20\], but rows have 784 features"),
        ({}, 30, "model.shape is none, which stands for square grey images, but rows have 30 features"),
        ({"kernel": [4, 8]}, 784, r"model.kernel=\[4, 8\]: layer 2 gets images of 7 x 7 pixels, which hold no patch of 8 x 8"),
    ],
)
def test_a_network_that_fits_nothing_is_refused(settings: dict[str, list[int]], features: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cnn(**settings).build(features, 10)


def played(n_envs: int, seeds: list[int], choose: Callable[[Engine], Tensor]) -> Engine:
    engine = Engine(scenario.load("digits", **SMALL), "loo", n_envs, dtype=torch.float64)
    engine.reset(seeds)
    while engine.t < engine.horizon:
        engine.step(choose(engine))
    return engine


SMALL = {
    "principals": 3,
    "horizon": 3,
    "profiles": [],
    "reward.scale": 1.0,
    "model": {"kind": "cnn", "channels": [4], "kernel": [2], "stride": [2], "hidden": [6]},
}


def test_a_batch_of_cooperatives_plays_as_each_alone() -> None:
    together = played(3, [5, 6, 7], lambda engine: ~engine.lots.corrupt)
    for e, seed in enumerate((5, 6, 7)):
        alone = played(1, [seed], lambda engine: ~engine.lots.corrupt)
        torch.testing.assert_close(together.theta[e], alone.theta[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(together.credit_so_far[e], alone.credit_so_far[0], rtol=1e-9, atol=1e-12)


def test_screening_to_second_order_and_shapleys_quadratic_surrogate_take_its_curvature() -> None:
    engine = Engine(scenario.load("digits", **{**SMALL, "principals": 6, "screening.harm": "second_order"}), "shapley(budget=6)", 2)
    engine.reset(range(2))
    assert engine.step(~engine.lots.corrupt).credit.isfinite().all()


def test_a_copy_has_parameters_of_its_own_start() -> None:
    model = Cnn().build(784, 10)
    copy.deepcopy(model).start().fill_(1.0)
    model.start().fill_(1.0)
    assert model.start().max() < 1
