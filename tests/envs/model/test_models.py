"""Models: closed forms against a generic module and automatic differentiation, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from proxycoop.envs import Engine, scenario
from proxycoop.envs.model import models
from proxycoop.envs.model.models import Mlp, Model, Module, ModuleModel, Softmax, SoftmaxRegression
from proxycoop.envs.shared import _shared

D, C, B, R = 5, 3, 4, 7


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_linear(theta: Tensor) -> Tensor:
    """Softmax regression's parameters in the order of ``nn.Linear``: weight (C, D) row by row, then bias."""
    w = theta.reshape(-1, D + 1, C)
    return torch.cat([w[:, :D].transpose(1, 2).flatten(start_dim=1), w[:, D]], dim=1)


def by_autograd(model: Model, theta: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    theta = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((model.logits(theta, x) * cotangent).sum(), theta)
    return gradient


@pytest.fixture(scope="module")
def softmax() -> SoftmaxRegression:
    return SoftmaxRegression(D, C)


@pytest.fixture(scope="module")
def linear() -> ModuleModel:
    return ModuleModel(nn.Linear(D, C), D, C)


@pytest.mark.parametrize("shape", [(R, D), (B, R, D)])
def test_softmax_regression_equals_a_linear_module_with_the_same_parameters(
    softmax: SoftmaxRegression, linear: ModuleModel, shape: tuple[int, ...]
) -> None:
    theta, x, cotangent = random(B, softmax.n_parameters), random(*shape, seed=1), random(B, R, C, seed=2)
    assert softmax.n_parameters == linear.n_parameters == (D + 1) * C
    torch.testing.assert_close(softmax.logits(theta, x), linear.logits(as_linear(theta), x))
    torch.testing.assert_close(as_linear(softmax.pullback(theta, x, cotangent)), linear.pullback(as_linear(theta), x, cotangent))


@pytest.mark.parametrize("shape", [(R, D), (B, R, D)])
@pytest.mark.parametrize("settings", [Softmax(), Mlp(hidden=(6, 4)), Mlp(hidden=())])
def test_pullback_is_the_gradient_that_autograd_finds(settings: Softmax | Mlp, shape: tuple[int, ...]) -> None:
    model = settings.build(D, C)
    theta, x, cotangent = random(B, model.n_parameters), random(*shape, seed=1), random(B, R, C, seed=2)
    torch.testing.assert_close(model.pullback(theta, x, cotangent), by_autograd(model, theta, x, cotangent))


@pytest.mark.parametrize("settings", [Softmax(), Mlp(hidden=(6,))])
def test_rows_shared_by_all_models_equal_rows_given_to_each(settings: Softmax | Mlp) -> None:
    model = settings.build(D, C)
    theta, x, cotangent = random(B, model.n_parameters), random(R, D, seed=1), random(B, R, C, seed=2)
    each = x.expand(B, R, D).contiguous()
    torch.testing.assert_close(model.logits(theta, x), model.logits(theta, each))
    torch.testing.assert_close(model.pullback(theta, x, cotangent), model.pullback(theta, each, cotangent))
    for b in range(B):
        torch.testing.assert_close(model.logits(theta[b : b + 1], x)[0], model.logits(theta, x)[b])


def test_one_softmax_logit_by_hand() -> None:
    model = SoftmaxRegression(2, 2)
    theta = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.5, -0.5]])  # rows: feature 0, feature 1, bias
    assert model.logits(theta, torch.tensor([[10.0, 1.0]])).tolist() == [[[13.5, 23.5]]]


def test_only_softmax_regression_claims_linear_logits_and_they_are(softmax: SoftmaxRegression) -> None:
    a, b, x = random(B, softmax.n_parameters), random(B, softmax.n_parameters, seed=3), random(R, D, seed=1)
    assert softmax.linear
    torch.testing.assert_close(softmax.logits(a + b, x), softmax.logits(a, x) + softmax.logits(b, x))
    assert not Mlp().build(D, C).linear


def test_mlp_is_linear_layers_with_relu_between() -> None:
    model = Mlp(hidden=(2,)).build(1, 2)
    #              hidden weight  bias        output weight         bias
    theta = torch.tensor([[1.0, -1.0, 0.5, 0.0, 1.0, 2.0, 3.0, 4.0, 0.1, 0.2]])
    # x = 2: hidden = relu(2.5, -2) = (2.5, 0); answer = (2.5·1 + 0.1, 2.5·3 + 0.2)
    torch.testing.assert_close(model.logits(theta, torch.tensor([[2.0]])), torch.tensor([[[2.6, 7.7]]]))


def test_softmax_starts_at_zero_and_a_module_as_it_is() -> None:
    assert torch.equal(SoftmaxRegression(D, C).start(), torch.zeros((D + 1) * C))
    module = nn.Sequential(nn.Linear(D, 4), nn.LayerNorm(4), nn.Linear(4, C))
    expected = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    model = ModuleModel(module, D, C)
    assert torch.equal(model.start(), expected)
    x = torch.randn(7, D)
    torch.testing.assert_close(model.logits(model.start()[None], x)[0], module(x))


def test_the_start_of_a_cooperative_depends_on_the_split_seed_alone() -> None:
    def start(seed: int) -> Tensor:
        engine = Engine(
            scenario.load("breast_cancer", model={"kind": "mlp", "hidden": [3]}, **{"data.split_seed": seed, "reward.scale": 1.0}), None
        )
        engine.reset([0])
        return engine.theta

    before = torch.get_rng_state()
    first = start(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    _shared.cache_clear()
    assert torch.equal(start(4), first)
    assert not torch.equal(start(5), first)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (nn.Sequential(nn.Linear(D, C), nn.BatchNorm1d(C)), "buffer"),
        (nn.Sequential(nn.Linear(D, C), nn.BatchNorm1d(C, track_running_stats=False)), r"depends on the other rows"),
        (nn.ReLU(), "no parameters"),
        (nn.Linear(D, C + 1), r"maps \(2, 5\) to \(2, 4\), must be \(2, 3\)"),
    ],
)
def test_modules_that_cannot_serve_are_refused(module: nn.Module, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ModuleModel(module, D, C)


def test_a_module_that_cannot_take_the_features_is_refused_with_a_clear_message() -> None:
    with pytest.raises(ValueError, match="model"):
        ModuleModel(nn.Linear(D + 1, C), D, C)


def test_hidden_layers_without_units_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden"):
        Mlp(hidden=(0,))


FACTORY = """
from torch import nn

def bottleneck(n_features, n_classes, width=3):
    return nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_classes))
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "proxycoop_test_factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    return "proxycoop_test_factory:bottleneck"


def test_a_factory_found_by_import_path_builds_the_shared_model_and_it_learns(factory: str) -> None:
    settings = {"kind": "module", "factory": factory, "arguments": {"width": 12}}
    made = scenario.load("digits", model=settings, horizon=3, **{"reward.scale": 1.0, "screening.governance": "none"})
    engine = Engine(made, None, dtype=torch.float64)
    engine.reset([1])
    assert engine.theta.shape == (1, 64 * 12 + 12 + 12 * 10 + 10)
    clean = ~engine.lots.corrupt
    for _ in range(3):
        assert engine.step(clean).gain > 0


@pytest.mark.parametrize(
    "path",
    ["no_such_module_at_all:f", "torch.nn:NoSuchLayer", "torch.nn", "", ":Linear"],
    ids=["module", "name", "no name", "empty", "no module"],
)
def test_a_factory_that_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(ValueError, match=r"model\.factory='.*' cannot be imported"):
        Module(factory=path).build(D, C)


def test_a_class_of_torch_serves_as_a_factory() -> None:
    assert Module(factory="torch.nn:Linear", arguments={"bias": False}).build(D, C).n_parameters == D * C


@pytest.mark.parametrize(("path", "arguments"), [("torch.nn:Linear", {"wdth": 3}), ("torch.nn:functional", {}), ("math:gcd", {})])
def test_a_factory_that_does_not_build_a_module_from_its_arguments_is_a_value_error(path: str, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="model"):
        Module(factory=path, arguments=arguments).build(D, C)


def _draws(n_features: int, n_classes: int) -> nn.Module:
    class Draws(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.randn(1)

    return Draws(n_features, n_classes)


def _decides(n_features: int, n_classes: int) -> nn.Module:
    class Decides(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    return Decides(n_features, n_classes)


def _not_finite(n_features: int, n_classes: int) -> nn.Module:
    module = nn.Linear(n_features, n_classes)
    nn.init.constant_(module.weight, torch.nan)
    return module


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (_draws(D, C), r"does not work under torch.func.vmap"),
        (_decides(D, C), r"does not work under torch.func.vmap"),
        (_not_finite(D, C), "not finite"),
        (nn.LazyLinear(C), "lazy layers"),
    ],
)
def test_modules_that_cannot_serve_are_refused_when_the_engine_is_made(module: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=f"model: .*{said}"):
        ModuleModel(module, D, C)


def test_a_module_that_uses_a_layer_twice_serves() -> None:
    twice = nn.Linear(D, D)
    model = ModuleModel(nn.Sequential(twice, nn.Tanh(), twice, nn.Linear(D, C)), D, C)
    assert model.start().isfinite().all()
    assert model.logits(model.start()[None], torch.zeros(R, D)).shape == (1, R, C)


# frozen parameters


def frozen_trunk(n_features: int, n_classes: int) -> nn.Module:
    """A trunk that is shared once, and a small head that is trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        trunk, head = nn.Sequential(nn.Linear(n_features, 12), nn.Tanh()), nn.Linear(12, n_classes)
    trunk.requires_grad_(False)
    return nn.Sequential(trunk, head)


class Adapted(nn.Module):
    """A frozen linear layer with an adapter of rank 2 (LoRA)."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.base = nn.Linear(n_features, n_classes).requires_grad_(False)
        self.down, self.up = nn.Linear(n_features, 2, bias=False), nn.Linear(2, n_classes, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def test_only_trained_parameters_count_and_frozen_ones_stay_as_they_are() -> None:
    module = frozen_trunk(5, 3)
    model = ModuleModel(module, 5, 3)
    assert model.n_parameters == 12 * 3 + 3
    assert torch.equal(model.start(), torch.cat([one.detach().flatten() for one in module[1].parameters()]))
    assert model.class_head is not None
    assert len(model.class_head) == model.n_parameters
    theta, x = torch.randn(4, model.n_parameters), torch.randn(7, 5)
    by_hand = torch.stack([module[0](x) @ one[:36].reshape(3, 12).T + one[36:] for one in theta])
    assert torch.allclose(model.logits(theta, x), by_hand, atol=1e-6)
    cotangent = torch.randn(4, 7, 3)
    weight = torch.einsum("bvc,vd->bcd", cotangent, module[0](x)).flatten(1)
    assert torch.allclose(model.pullback(theta, x, cotangent), torch.cat([weight, cotangent.sum(dim=1)], dim=1), atol=1e-5)


def test_a_cooperative_with_a_frozen_trunk_is_softmax_regression_on_what_the_trunk_makes_of_rows() -> None:
    """Steps, screening and credit: nothing depends on what is frozen, but for the features."""
    engine = Engine(
        scenario.load("digits", model={"kind": "module", "factory": f"{__name__}:frozen_trunk"}, **{"reward.scale": 1.0}), "shapley"
    )
    engine.reset([0])
    assert engine.theta.shape[1] == 12 * 10 + 10
    before = [one.clone() for one in engine.model.module[0].parameters()]
    for _ in range(3):
        engine.step(torch.ones(1, 6, engine.num_lots, dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(before, engine.model.module[0].parameters(), strict=True))
    game, near = engine.round.game, engine.round.game.surrogate(6)
    assert torch.allclose(game.values(), near.game.values(), atol=1e-6), "linear in what is trained, so its logits are the game"


def test_adapters_are_all_that_is_shared() -> None:
    model = ModuleModel(Adapted(6, 4), 6, 4)
    assert model.n_parameters == 2 * 6 + 4 * 2
    assert model.class_head is None or (model.class_head >= 0).sum() == 8


def test_the_factory_may_give_the_same_module_again() -> None:
    module = frozen_trunk(5, 3)
    assert ModuleModel(module, 5, 3).n_parameters == ModuleModel(module, 5, 3).n_parameters == 39
    assert [one.requires_grad for one in module.parameters()] == [False, False, True, True], "it is the user's, and stays as it is"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("double", [False, True])
def test_frozen_parameters_have_the_precision_of_the_trained_ones(dtype: torch.dtype, double: bool) -> None:
    module = frozen_trunk(5, 3).to(torch.float64 if double else torch.float32)
    model = ModuleModel(module, 5, 3)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    answers = model.logits(model.start().to(dtype)[None], x.to(dtype))
    assert answers.dtype == dtype
    assert torch.allclose(answers[0].double(), module.double()(x.double()), atol=1e-5)


def test_where_all_parameters_are_frozen_all_are_shared() -> None:
    assert ModuleModel(nn.Linear(5, 3).requires_grad_(False), 5, 3).n_parameters == 18


@pytest.mark.parametrize("shared", [True, False])
def test_a_large_module_answers_for_some_models_at_a_time_and_alike(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    torch.manual_seed(0)
    model = Mlp(hidden=(100, 100)).build(D, C)
    assert model.n_parameters >= models._LARGE
    theta = model.start() + torch.randn(7, model.n_parameters) / 10
    x = torch.randn(600, D) if shared else torch.randn(7, 600, D)
    some = model.logits(theta, x)
    monkeypatch.setattr(models, "_ROWS", 10**9)
    torch.testing.assert_close(some, model.logits(theta, x))
