"""Data: splits that are disjoint, thinned as asked and the same every time, and clear errors where they cannot be."""

import dataclasses

import numpy as np
import pytest
import torch

from proxycoop.envs.data import Data, Dataset, Group, HeldOut, Rows, Splits, load, split
from proxycoop.envs.data.lots import Lots, LotSource
from proxycoop.envs.values import ClassLoss

STRATA = {"eights": ClassLoss(label=8).strata, "nines": ClassLoss(label=9).strata}
SETTINGS = Data(
    public_rows=40,
    validation=HeldOut(rows=150, thin={8: 0.15, 9: 0.15}),
    test=HeldOut(rows=400, thin={8: 0.15, 9: 0.15}),
    probe_rows=35,
)


def parts(splits: Splits) -> dict[str, Rows]:
    named = {"public": splits.public, "train": splits.train, "validation": splits.validation, "test": splits.test}
    named |= {f"probe of {name}": rows for name, rows in splits.probe.items()}
    return named | {f"probe test of {name}": rows for name, rows in splits.probe_test.items()}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return split(SETTINGS, STRATA, torch.float64)


def test_every_row_of_the_data_is_in_exactly_one_split(splits: Splits) -> None:
    data = load("digits")
    # rows of digits are all different pictures, so a row is known by its pixels
    known = {row.tobytes(): i for i, row in enumerate(data.features)}
    assert len(known) == len(data.labels) == 1797
    dealt = [known[row.numpy().tobytes()] for rows in parts(splits).values() for row in rows.x]
    assert sorted(dealt) == list(range(1797))


def test_splits_have_the_sizes_asked_for_and_train_the_rest(splits: Splits) -> None:
    sizes = {name: len(rows) for name, rows in parts(splits).items()}
    assert sizes.pop("train") == 1797 - 40 - 150 - 400 - 4 * 35
    assert sizes == {
        "public": 40,
        "validation": 150,
        "test": 400,
        "probe of eights": 35,
        "probe of nines": 35,
        "probe test of eights": 35,
        "probe test of nines": 35,
    }


def test_a_smaller_train_pool_is_a_part_of_the_whole_one_and_changes_nothing_else(splits: Splits) -> None:
    fewer = split(SETTINGS.model_copy(update={"train_rows": 300}), STRATA, torch.float64)
    assert len(fewer.train) == 300
    assert set(fewer.train_index.tolist()) < set(splits.train_index.tolist())
    assert torch.bincount(fewer.train.y, minlength=10).min() > 5  # at random, rather than the first rows of the file
    for name in set(parts(splits)) - {"train"}:
        assert torch.equal(parts(fewer)[name].x, parts(splits)[name].x)


def test_a_part_of_the_train_pool_has_as_many_of_a_class_that_was_thinned_elsewhere_as_the_whole() -> None:
    thinned = {"source": "digits", "public_rows": 0, "validation": {"rows": 500, "thin": {8: 0.05}}, "test": {"rows": 2, "thin": {8: 0.0}}}
    shares = np.array(
        [
            [
                float((split(Data(**thinned, split_seed=seed, train_rows=rows), {}, torch.float32).train.y == 8).float().mean())
                for rows in (None, 300)
            ]
            for seed in range(20)
        ]
    )
    whole, part = shares.mean(axis=0)
    assert whole > 0.13  # a tenth is natural
    assert part == pytest.approx(whole, abs=0.015)  # four standard errors


def test_labels_stay_with_their_rows(splits: Splits) -> None:
    data = load("digits")
    known = {row.tobytes(): int(label) for row, label in zip(data.features, data.labels, strict=True)}
    for rows in parts(splits).values():
        assert rows.y.tolist() == [known[row.numpy().tobytes()] for row in rows.x]


def test_probes_hold_only_the_class_they_are_about(splits: Splits) -> None:
    for probes in (splits.probe, splits.probe_test):
        assert set(probes["eights"].y.tolist()) == {8}
        assert set(probes["nines"].y.tolist()) == {9}


@pytest.mark.parametrize(("what", "rows"), [("validation", 150), ("test", 400)])
def test_held_out_classes_are_thinned_to_within_a_row(splits: Splits, what: str, rows: int) -> None:
    natural = np.bincount(load("digits").labels)
    share = natural * np.array([1.0] * 8 + [0.15] * 2)
    counts = torch.bincount(getattr(splits, what).y, minlength=10).numpy()
    assert counts.sum() == rows
    assert np.abs(counts - rows * share / share.sum()).max() < 1


def test_public_rows_have_natural_proportions(splits: Splits) -> None:
    natural = np.bincount(load("digits").labels)
    counts = torch.bincount(splits.public.y, minlength=10).numpy()
    assert np.abs(counts - 40 * natural / natural.sum()).max() < 1


def test_a_class_thinned_to_nothing_is_absent() -> None:
    thinned = split(Data(validation=HeldOut(rows=100, thin={3: 0.0})), {}, torch.float32)
    assert 3 not in thinned.validation.y.tolist()
    assert len(thinned.validation) == 100


@pytest.mark.parametrize("thin", [{8: -1.0}, dict.fromkeys(range(10), 0.0)], ids=["negative", "everything"])
def test_impossible_thinning_is_refused(thin: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="thin"):
        split(Data(test=HeldOut(rows=100, thin=thin)), {}, torch.float32)


def test_the_same_settings_give_the_same_splits_and_another_seed_others(splits: Splits) -> None:
    again = split(SETTINGS, STRATA, torch.float64)
    other = split(SETTINGS.model_copy(update={"split_seed": 1}), STRATA, torch.float64)
    for name, rows in parts(splits).items():
        assert torch.equal(rows.x, parts(again)[name].x)
        assert not torch.equal(rows.x, parts(other)[name].x)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"public_rows": 5000}, "the public set wants"),
        ({"validation": {"rows": 5000}}, "the validation set wants"),
        ({"test": {"rows": 1600}}, "the test set wants"),
        ({"probe_rows": 90}, "the probe test set of value 'eights' wants 90 rows"),
        ({"probe_rows": 200}, "the probe set of value 'eights' wants 200 rows but only 1"),
    ],
)
def test_splits_that_are_too_large_say_which_and_what_to_do(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=rf"{what}.*left: lower the rows"):
        split(Data.model_validate({"public_rows": 40, **settings}), STRATA, torch.float32)


def test_splits_that_leave_no_train_pool_say_so() -> None:
    all_but_two_zeros = HeldOut(rows=1795, thin={0: 176 / 178})
    two_zeros = HeldOut(rows=2, thin=dict.fromkeys(range(1, 10), 0.0))
    with pytest.raises(ValueError, match="train pool"):
        split(Data(public_rows=0, validation=all_but_two_zeros, test=two_zeros), {}, torch.float32)


def test_a_class_that_is_missing_in_the_train_pool_is_named() -> None:
    without = HeldOut(rows=100, thin={8: 0.0})
    made = split(Data(public_rows=0, validation=without, test=without, probe_rows=87), {"eights": STRATA["eights"]}, torch.float32)
    with pytest.raises(ValueError, match="train pool for 8"):
        LotSource(Lots(), made, 2)


@pytest.mark.parametrize("scaling", ["none", "centre", "standardise"])
def test_scaling_uses_the_train_pools_statistics(scaling: str) -> None:
    raw = split(Data(source="breast_cancer", test=HeldOut(rows=100)), {}, torch.float64)
    scaled = split(Data(source="breast_cancer", test=HeldOut(rows=100), scaling=scaling), {}, torch.float64)
    mean = raw.train.x.mean(dim=0) if scaling != "none" else 0.0
    deviation = raw.train.x.std(dim=0, correction=0) if scaling == "standardise" else 1.0
    for name, rows in parts(scaled).items():
        torch.testing.assert_close(rows.x, (parts(raw)[name].x - mean) / deviation)


def test_a_constant_column_survives_standardising() -> None:
    assert split(Data(scaling="standardise"), {}, torch.float64).train.x.isfinite().all()  # digits has pixels that are always 0


def test_only_the_columns_asked_for_are_kept_in_their_order() -> None:
    whole, some = (split(Data(columns=columns), {}, torch.float64) for columns in (None, (20, 3)))
    assert torch.equal(some.train.x, whole.train.x[:, [20, 3]])
    assert some.n_features == 2
    assert some.n_classes == 10


def test_columns_go_by_number_name_and_pattern_in_their_order_and_once() -> None:
    data = load("breast_cancer")
    wanted = ("worst t*", 0, "mean area", "mean [rt]*", "worst texture")
    names = [data.feature_names[i] for i in data.columns(wanted)]
    assert names == ["worst texture", "mean radius", "mean area", "mean texture"]
    whole, some = (split(Data(source="breast_cancer", test=HeldOut(rows=100), columns=c), {}, torch.float64) for c in (None, wanted))
    assert torch.equal(some.train.x, whole.train.x[:, data.columns(wanted)])


def test_the_name_of_a_column_or_level_is_no_list_of_its_letters() -> None:
    data = load("breast_cancer")
    with pytest.raises(ValueError, match=r"wanted='mean radius': give a list of columns, such as \['mean radius'\]"):
        data.columns("mean radius")
    levels = dataclasses.replace(data, attributes={"sex": np.full(len(data.labels), "f")})
    with pytest.raises(ValueError, match=r"levels='f': give a list of levels, such as \['f'\]"):
        levels.with_levels("sex", "f")


def test_unknown_names_and_patterns_without_a_column_list_the_columns() -> None:
    for wanted, said in (
        ("mean aera", r"unknown column 'mean aera' \(did you mean 'mean area'\?\)"),
        ("x*", r"no column matches 'x\*'.*mean area"),
    ):
        with pytest.raises(ValueError, match=said):
            split(Data(source="breast_cancer", test=HeldOut(rows=100), columns=(wanted,)), {}, torch.float32)


@pytest.mark.parametrize("columns", [(64,), (-1,)])
def test_columns_that_do_not_exist_are_refused(columns: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="numbers must be from 0 to 63"):
        split(Data(columns=columns), {}, torch.float32)


def test_no_columns_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        split(Data(columns=()), {}, torch.float32)


def test_groups_follow_their_rows() -> None:
    data = load("breast_cancer")
    made = split(
        Data(source="breast_cancer", test=HeldOut(rows=100), groups={"large": Group(column="mean area", above=0.5)}), {}, torch.float64
    )
    area, median = data.column("mean area"), np.quantile(data.features[:, data.column("mean area")], 0.5)
    for rows in parts(made).values():
        assert torch.equal(rows.groups["large"], rows.x[:, area] > median)


TOY = Dataset(
    features=np.arange(6.0)[:, None],
    labels=np.array([0, 1, 0, 1, 0, 1]),
    class_names=("no", "yes"),
    feature_names=("age",),
    attributes={"town": np.array(["a", "b", "b", "c", "c", "c"]), "sex": np.array(["f", "m"] * 3)},
)


def test_groups_by_attribute_hold_the_rows_with_the_named_levels() -> None:
    assert Group(attribute="town", equals="c").members(TOY).tolist() == [False] * 3 + [True] * 3
    assert Group(attribute="town", equals=("a", "b")).members(TOY).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"column": "age"},
        {"column": "age", "above": 0.2, "below": 0.8},
        {"above": 0.5},
        {"attribute": "town"},
        {"equals": "a"},
        {"attribute": "town", "equals": ()},
        {"attribute": "town", "equals": "a", "above": 0.5},
        {"column": "age", "above": 0.5, "equals": "a"},
        {"column": "age", "above": 0.5, "attribute": "town", "equals": "a"},
    ],
)
def test_a_group_takes_exactly_one_form(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"either a column with exactly one of 'above' and 'below', or an attribute with 'equals'"):
        Group.model_validate(settings)


def test_unknown_attributes_and_levels_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown attribute 'twon' \(did you mean 'town'\?\): the known ones are sex, town"):
        Group(attribute="twon", equals="a").members(TOY)
    with pytest.raises(ValueError, match=r"unknown level of attribute 'town' 'd'.*the known ones are c, b, a"):
        Group(attribute="town", equals=("a", "d")).members(TOY)
    with pytest.raises(ValueError, match="this data has no attributes"):
        Group(attribute="sex", equals="f").members(load("digits"))


def test_the_train_index_says_which_rows_are_the_train_pool(splits: Splits) -> None:
    assert np.array_equal(load("digits").features[splits.train_index], splits.train.x.numpy())


def test_unknown_sources_and_classes_list_the_known() -> None:
    with pytest.raises(
        ValueError,
        match=r"unknown data source 'digts'.*did you mean 'digits'.*adult, breast_cancer, compas, csv, digits, fashion_mnist, "
        "fashion_mnist_private, fashion_mnist_public, german, idx, npz, parquet, reviews",
    ):
        load("digts")
    with pytest.raises(ValueError, match="unknown class 'x'"):
        split(Data(test=HeldOut(thin={"x": 0.5})), {}, torch.float32)


def test_classes_go_by_name_or_number() -> None:
    data = load("breast_cancer")
    assert data.class_index("malignant") == data.class_index(1) == 1
    assert (data.labels == 1).sum() == 212  # of 569 the well-known 212 are malignant
    assert (load("digits").class_index(8), load("digits").class_index("8")) == (8, 8)


def test_data_sources_are_sound() -> None:
    for name in ("digits", "breast_cancer"):
        data: Dataset = load(name)
        assert data.features.shape == (len(data.labels), len(data.feature_names))
        assert np.isfinite(data.features).all()
        assert sorted(set(data.labels.tolist())) == list(range(len(data.class_names)))
    assert load("digits").features.max() == 1.0
