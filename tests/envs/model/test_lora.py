"""Adapters of a frozen transformer: against the plain module, closed forms, what stays frozen, and the file of the pretraining."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import DATA, Dataset
from proxycoop.envs.model import Vit, lora, vit
from proxycoop.envs.model.lora import LoraTransformer
from proxycoop.envs.model.vit import Pretraining, VisionTransformer

SMALL = {"patch": 2, "width": 8, "heads": 2, "blocks": 2, "rank": 2, "alpha": 3.0}


def network(seed: int = 0, classes: int = 3) -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(6, 2, 8, 2, 2, classes).double()


def adapted(rank: int = 2, alpha: float = 3.0) -> LoraTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return LoraTransformer(network(), rank, alpha, 3)


def some(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(model: LoraTransformer, theta: Tensor) -> VisionTransformer:
    """The whole transformer, all tokens and all, with what the adapters add put into its matrices, and the new head; differentiable."""
    whole = network()
    a_q, b_q, a_v, b_v, head, bias = (part.reshape(shape) for part, shape in zip(theta.split(model._sizes), model._shapes, strict=True))
    last = whole.blocks[-1]
    for linear, moved in (
        (last.query, last.query.weight.detach() + model.scale * b_q @ a_q),
        (last.value, last.value.weight.detach() + model.scale * b_v @ a_v),
        (whole.head, head.T),
    ):
        del linear.weight
        linear.weight = moved
    del whole.head.bias
    whole.head.bias = bias[0]
    return whole


def test_no_rows_are_prepared_to_no_rows() -> None:
    model = adapted()  # as at the server of a federation, which has lots without rows
    assert model.prepare(some(1, 2, 3, 0, 36)).shape == (1, 2, 3, 0, model.prepare(some(5, 36)).shape[1])


def test_the_logits_are_those_of_the_whole_transformer_with_the_adapters_in_its_matrices() -> None:
    model, theta, x = adapted(), some(4, adapted().n_parameters), some(5, 36, seed=6)
    expected = torch.stack([plain(model, one)(x) for one in theta])
    assert torch.allclose(model.logits(theta, x), expected, atol=1e-12)
    own = some(4, 5, 36, seed=7)
    expected = torch.stack([plain(model, one)(rows) for one, rows in zip(theta, own, strict=True)])
    assert torch.allclose(model.logits(theta, own), expected, atol=1e-12)
    assert torch.allclose(model.logits(theta, model.prepare(own)), expected, atol=1e-12)


def test_gradients_and_curvature_are_those_of_the_plain_module() -> None:
    model, x, y = adapted(), some(5, 36, seed=6), torch.tensor([0, 1, 2, 1, 0])
    theta, along = some(2, model.n_parameters), some(2, model.n_parameters, seed=8)

    def loss(one: Tensor) -> Tensor:
        return cross_entropy(plain(model, one)(x), y)

    with sdpa_kernel(SDPBackend.MATH):  # of the other, torch has no second derivative
        bent = torch.stack([torch.autograd.functional.hvp(loss, one, v)[1] for one, v in zip(theta, along, strict=True)])
    slopes = torch.stack([torch.autograd.functional.jacobian(loss, one) for one in theta])
    gradient, curvature = model.expansion(theta, x, y, along)
    assert torch.allclose(gradient, slopes, atol=1e-11)
    assert torch.allclose(curvature, bent, atol=1e-10)
    assert torch.allclose(model.curvature(theta, x, y, along), bent, atol=1e-10)
    rows = x.expand(2, -1, -1)
    logits, gradient = model.loss_gradient(theta, rows, y.expand(2, -1), torch.full((2, 5), 0.2, dtype=torch.float64))
    assert torch.allclose(gradient, slopes, atol=1e-11)
    assert torch.allclose(logits, model.logits(theta, x), atol=1e-12)
    cotangent = some(2, 5, 3, seed=9)
    expected = torch.stack(
        [torch.autograd.functional.vjp(lambda one: plain(model, one)(x), one, c)[1] for one, c in zip(theta, cotangent, strict=True)]
    )
    assert torch.allclose(model.pullback(theta, x, cotangent), expected, atol=1e-11)
    assert torch.allclose(model.pullback(theta, rows, cotangent), expected, atol=1e-11)


def test_with_b_zero_the_model_is_the_frozen_one_under_its_new_head() -> None:
    model, whole, x = adapted(), network(), some(5, 36, seed=6)
    theta = model.start().double()
    theta[-27:] = torch.cat([whole.head.weight.T.flatten(), whole.head.bias])
    assert torch.allclose(model.logits(theta[None], x)[0], whole(x), atol=1e-12)
    assert not model.logits(model.start().double()[None], x).any()  # with a head of zeros


def test_adapters_of_full_rank_reach_every_change_of_their_matrices() -> None:
    model, whole, x = adapted(rank=8, alpha=4.0), network(), some(5, 36, seed=6)
    change_q, change_v = some(8, 8, seed=10), some(8, 8, seed=11)
    one = torch.eye(8, dtype=torch.float64)
    head = torch.cat([whole.head.weight.T.flatten(), whole.head.bias])
    parts = (one, change_q / model.scale, one, change_v / model.scale)
    theta = torch.cat([*(part.flatten() for part in parts), head])
    with torch.no_grad():
        whole.blocks[-1].query.weight += change_q
        whole.blocks[-1].value.weight += change_v
    assert torch.allclose(model.logits(theta[None], x)[0], whole(x), atol=1e-12)


def test_answers_do_not_depend_on_how_many_models_and_rows_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = adapted(), some(5, 36, seed=6), torch.tensor([0, 1, 2, 1, 0])
    theta = some(7, model.n_parameters)

    def found() -> list[Tensor]:
        back = model.pullback(theta, x, some(7, 5, 3, seed=9))
        rows, labels = x.expand(7, -1, -1), y.expand(7, -1)
        return [
            model.logits(theta, x),
            back,
            *model.expansion(theta, x, y, theta),
            *model.loss_gradient(theta, rows, labels, y.expand(7, -1)),
        ]

    whole = found()
    monkeypatch.setattr(lora, "_ROWS", 6)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, found(), strict=True))


def test_rows_that_changed_are_prepared_anew() -> None:
    model, x = adapted(), some(5, 36, seed=6)
    theta = some(1, model.n_parameters)
    before = model.logits(theta, x)
    assert torch.equal(model.prepare(x), model.prepare(x))
    x += 1
    assert not torch.allclose(model.logits(theta, x), before)
    assert model.prepare(model.prepare(x)).shape == (5, 36 + 8 + 10 * 8)


def test_one_step_of_the_pretraining_is_adam_on_the_first_batch() -> None:
    x, y = some(4, 36).float(), torch.tensor([0, 1, 2, 0])
    trained, by_hand = network().float(), network().float()
    vit._train(trained, Pretraining(epochs=1, batch=4, lr=0.01), x, y)
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    cross_entropy(by_hand(x[order]), y[order]).backward()
    adam.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(trained.parameters(), by_hand.parameters(), strict=True))


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Dataset]:
    """A data source of small pictures: a bar stands upright, lies, or there is none. Its files go to a folder of their own."""

    def made(seed: int = 0) -> Dataset:
        random = np.random.default_rng(seed)
        labels = np.arange(240) % 3
        pictures = 0.3 * random.random((240, 6, 6))
        at = random.integers(6, size=240)
        pictures[labels == 0, :, at[labels == 0]] = 1
        pictures[labels == 1, at[labels == 1]] = 1
        return Dataset(pictures.reshape(240, 36), labels, ("upright", "lying", "none"), tuple(f"pixel_{i}" for i in range(36)))

    monkeypatch.setenv("PROXYCOOP_CACHE", str(tmp_path / "kept"))
    monkeypatch.setitem(DATA._factories, "bars_public", made)
    return made


def model_of(**pretraining: object) -> Vit:
    return Vit.model_validate(SMALL | {"pretraining": {"source": "bars_public", "epochs": 2, **pretraining}})


def built(settings: Vit) -> LoraTransformer:
    model = settings.build(36, 3)
    assert isinstance(model, LoraTransformer)
    return model


def parameters(model: LoraTransformer) -> list[Tensor]:
    return [part.clone() for part in model._network(torch.zeros(1)).parameters()]


def test_pretraining_comes_out_the_same_from_the_file_and_without_it(bars: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = parameters(built(model_of()))
    (file,) = (tmp_path / "kept").iterdir()
    file.unlink()
    assert all(map(torch.equal, first, parameters(built(model_of()))))
    (file,) = (tmp_path / "kept").iterdir()
    monkeypatch.setattr(vit, "_train", lambda *_: pytest.fail("it was trained again"))
    assert all(map(torch.equal, first, parameters(built(model_of()))))
    assert all(map(torch.equal, first, parameters(built(model_of().model_copy(update={"rank": 1})))))  # adapters do not matter


def test_whatever_matters_makes_another_file_and_a_damaged_one_is_made_anew(bars: object, tmp_path: Path) -> None:
    first = parameters(built(model_of()))
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(b"damaged")
    assert all(map(torch.equal, first, parameters(built(model_of()))))
    for changed in ({"seed": 1}, {"without": ["none"]}, {"rows": 100}, {"lr": 1e-3}, {"epochs": 1}):
        built(model_of(**changed))
    assert len(list((tmp_path / "kept").iterdir())) == 6


def test_a_folder_that_cannot_be_written_is_no_obstacle(bars: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = parameters(built(model_of()))
    (tmp_path / "a file").touch()
    monkeypatch.setenv("PROXYCOOP_CACHE", str(tmp_path / "a file"))
    assert all(map(torch.equal, first, parameters(built(model_of()))))


def test_the_number_of_threads_and_the_global_seed_do_not_matter(bars: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, threads = parameters(built(model_of())), torch.get_num_threads()
    monkeypatch.setenv("PROXYCOOP_CACHE", str(tmp_path / "other"))
    try:
        torch.set_num_threads(2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(99)
            assert all(map(torch.equal, first, parameters(built(model_of()))))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_cache_folder_is_the_users_unless_a_variable_names_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROXYCOOP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert vit.folder() == tmp_path / "proxycoop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert vit.folder() == Path.home() / ".cache" / "proxycoop"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 9}, r"width=9: must be a multiple of heads=2"),
        ({"rank": 9}, r"rank=9: adapters of a width of 8 have at most that rank"),
        ({"patch": 0}, r"greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vit.model_validate(SMALL | settings)


@pytest.mark.parametrize(
    ("pretraining", "message"),
    [
        ({"without": ["upright", "lying", 2]}, r"without names every class of its source"),
        ({"without": ["leaning"]}, r"'leaning'.*upright, lying, none"),
        ({"rows": 200, "without": ["none"]}, r"rows=200: source 'bars_public' has 160 rows of the classes that are kept"),
        ({"source": "digits"}, r"source='digits' has 64 features and 10 classes, and the scenario's data 36 and 3"),
        ({"lr": 1e30}, r"lr=1e\+30: training does not lead to finite parameters: lower it"),
    ],
)
def test_pretraining_that_cannot_be_is_refused(bars: object, pretraining: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(model_of(**pretraining))


@pytest.mark.parametrize(("n_features", "patch"), [(35, 2), (36, 4)])
def test_rows_that_are_no_pictures_of_whole_patches_are_refused(bars: object, n_features: int, patch: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.patch={patch}: rows have {n_features} features, which are no square grey image"):
        Vit.model_validate(SMALL | {"patch": patch}).build(n_features, 3)


def cooperative(**overrides: object) -> Engine:
    settings = {
        "data": {"source": "bars_private", "public_rows": 12, "validation": {"rows": 30}, "test": {"rows": 30}, "probe_rows": 6},
        "lots": {"per_principal": 2, "rows": 6, "corruption": {"share": 0.0}},
        "model": SMALL | {"kind": "vit", "pretraining": {"source": "bars_public", "epochs": 2}},
        "start": {"steps": 20, "lr": 0.3},
        "substrate": {"kind": "fedavg", "local_lr": 0.3},
        "values": {"lying": {"kind": "class_loss", "label": "lying"}},
        "profiles": [{"holders": 1, "tolerances": {"lying": 0.3}}],
        "reward": {"scale": 10.0},
    }
    text = tuple(overrides.pop("seeds", (3,)))  # type: ignore[arg-type]
    one = scenario.Scenario.model_validate({"name": "bars", "principals": 3, "horizon": 3} | settings | overrides)
    engine = Engine(one, credit="shapley", num_envs=len(text))
    engine.reset(list(text))
    return engine


def play(engine: Engine) -> list[Tensor]:
    offered = torch.ones(engine.num_envs, engine.num_agents, engine.num_lots, dtype=torch.bool)
    worths = []
    for _ in range(3):
        engine.step(offered)
        worths.append(engine.round.value(torch.eye(engine.num_agents, dtype=torch.bool)))
    return [engine.theta, *worths]


def test_an_episode_trains_adapters_and_head_and_leaves_the_rest(bars: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA._factories, "bars_private", lambda: bars(1))
    engine = cooperative()
    model = engine.model
    assert isinstance(model, LoraTransformer)
    before, start = parameters(model), engine.theta.clone()
    play(engine)
    assert all(map(torch.equal, before, parameters(model)))
    moved = (engine.theta - start).abs().split(model._sizes, dim=1)
    assert all(part.max() > 0 for part in moved)  # each A and B, the head and its biases


def test_the_same_seed_gives_the_same_numbers_on_any_batch_size(bars: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA._factories, "bars_private", lambda: bars(1))
    together, again = play(cooperative(seeds=(3, 4, 5))), play(cooperative(seeds=(3, 4, 5)))
    assert all(map(torch.equal, together, again))
    alone = play(cooperative(seeds=(4,)))
    assert all(torch.allclose(a[1:2], b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_pretraining_on_the_scenarios_own_data_is_refused(bars: Callable[..., Dataset]) -> None:
    with pytest.raises(ValueError, match=r"model\.pretraining\.source='bars_public': 240 of its 240 rows are in the scenario's data too"):
        cooperative(data={"source": "bars_public", "public_rows": 12, "validation": {"rows": 30}, "test": {"rows": 30}, "probe_rows": 6})


@pytest.mark.fashion
def test_less_than_five_percent_of_the_parameters_of_fashion_lora_are_trained() -> None:
    settings = scenario.load("fashion-lora").model
    assert isinstance(settings, Vit)
    whole = VisionTransformer(28, settings.patch, settings.width, settings.heads, settings.blocks, 10)
    model = LoraTransformer(whole, settings.rank, settings.alpha, 10)
    assert model.n_parameters < 0.05 * (model.n_parameters + model.n_frozen)
    assert model.n_frozen == sum(part.numel() for name, part in whole.named_parameters() if not name.startswith("head."))


@pytest.mark.fashion
def test_public_and_private_images_are_all_images_each_once() -> None:
    public, private, whole = (DATA.make(f"fashion_mnist{part}") for part in ("_public", "_private", ""))
    assert (len(public.labels), len(private.labels)) == (10_000, 60_000)
    assert np.array_equal(np.concatenate([public.labels, private.labels]), whole.labels)
    assert np.array_equal(public.features, whole.features[:10_000])
    assert np.array_equal(private.features[-5:], whole.features[-5:])


def test_a_module_that_is_frozen_has_no_gradient() -> None:
    assert not any(part.requires_grad for part in adapted()._network(torch.zeros(1)).parameters())
    assert isinstance(network(), nn.Module)
