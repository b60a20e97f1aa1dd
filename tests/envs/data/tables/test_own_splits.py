"""Own tables that are split: medians come from the train pool, own splits are kept, and nothing else of the split changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop.envs import scenario
from proxycoop.envs.data import Data, Group, HeldOut, Lots, split
from proxycoop.envs.data.lots import LotSource
from proxycoop.envs.data.sites import Sites
from proxycoop.envs.values import ClassLoss

N = 600
SIZES = {"public_rows": 20, "validation": HeldOut(rows=50), "test": HeldOut(rows=60), "probe_rows": 10}
STRATA = {"ones": ClassLoss(label="1").strata}


@pytest.fixture
def own(tmp_path):
    """Data that are read from a table of these columns."""

    def own(columns, *, settings=None, **file) -> Data:
        columns = {"row": range(N), "label": [i % 2 for i in range(N)]} | columns
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
        file = {"path": str(tmp_path / "own.csv"), "label": "label"} | file
        return Data.model_validate({"source": "csv", "file": file} | SIZES | (settings or {}))

    return own


def rows_of(splits, part) -> set[int]:
    """The rows that a set holds, by the column ``row``."""
    rows = {"public": splits.public, "train": splits.train, "validation": splits.validation, "test": splits.test}
    rows |= {"probe": splits.probe["ones"], "probe test": splits.probe_test["ones"]}
    return {int(row) for row in rows[part].x[:, 0]}


SETS = ("public", "train", "validation", "test", "probe", "probe test")


def test_an_own_split_is_kept_and_sizes_are_as_asked(own):
    names = ["train"] * 300 + ["validation"] * 100 + ["test"] * 100 + ["probe"] * 60 + ["public"] * 40
    for seed in range(3):
        splits = split(own({"fold": names}, settings={"split_seed": seed}, split="fold"), STRATA, torch.float64)
        for part in SETS:
            assert {names[row] for row in rows_of(splits, part)} == {part.removesuffix(" test")}
        assert [len(rows_of(splits, part)) for part in SETS] == [20, 300, 50, 60, 10, 10]
        assert splits.dataset.feature_names == ("row",)
        assert splits.dataset.attributes["fold"].tolist() == names


def test_sets_without_rows_of_their_own_are_dealt_from_those_for_training(own):
    names = ["train"] * 400 + ["test"] * 200
    splits = split(own({"fold": names}, split="fold"), STRATA, torch.float64)
    assert all(row >= 400 for row in rows_of(splits, "test"))
    dealt = [rows_of(splits, part) for part in SETS if part != "test"]
    assert set().union(*dealt) == set(range(400))
    assert sum(map(len, dealt)) == 400
    with pytest.raises(ValueError, match=r"the test set wants 150 rows but only 100 are left of those that data\.file\.split gives it"):
        split(own({"fold": names}, settings={"test": HeldOut(rows=300)}, split="fold"), STRATA, torch.float64)


def test_classes_of_an_own_set_have_its_own_proportions(own):
    label = [i % 2 for i in range(300)] + [int(i % 4 == 0) for i in range(300)]
    names = ["train"] * 300 + ["test"] * 300
    splits = split(own({"label": label, "fold": names}, split="fold"), {}, torch.float64)
    assert torch.bincount(splits.test.y).tolist() == [45, 15]
    assert torch.bincount(splits.validation.y).tolist() == [25, 25]


def test_gaps_are_filled_with_the_median_of_the_train_pool(own):
    random = np.random.default_rng(0)
    height = [f"{one:.3f}" if random.random() < 0.8 else "" for one in random.normal(170, 10, N)]
    for seed in (0, 1):
        data = own({"height": height}, missing="fill", settings={"split_seed": seed})
        splits = split(data, STRATA, torch.float64)
        table = splits.dataset.features[:, 1]
        median = np.nanmedian(table[splits.train_index])
        assert median != np.nanmedian(table)
        for part in (splits.train, splits.test, splits.validation, splits.public):
            gaps = part.x[:, 2] == 1
            assert gaps.any()
            assert (part.x[gaps, 1] == median).all()
            assert part.x.isfinite().all()
        scaled = split(data.model_copy(update={"scaling": "standardise"}), STRATA, torch.float64)
        assert scaled.train.x.mean(0).abs().max() < 1e-9
        assert (scaled.train.x.std(0, correction=0) - 1).abs().max() < 1e-9


def test_a_row_whose_number_is_missing_is_in_no_group(own):
    height = ["" if i % 3 == 0 else i for i in range(N)]
    groups = {"tall": Group(column="height", above=0.5), "small": Group(column="height", below=0.5)}
    splits = split(own({"height": height}, missing="fill", settings={"groups": groups}), STRATA, torch.float64)
    gaps = splits.train.x[:, 2] == 1
    assert not splits.train.groups["tall"][gaps].any()
    assert not splits.train.groups["small"][gaps].any()
    assert abs(float(splits.train.groups["tall"][~gaps].double().mean()) - 0.5) < 0.1


def test_sites_cannot_be_cut_by_a_column_with_gaps(own):
    height = ["" if i % 3 == 0 else i for i in range(N)]
    splits = split(own({"height": height}, missing="fill"), STRATA, torch.float64)
    with pytest.raises(ValueError, match=r"lots\.sites\.column='height' lacks 200 entries"):
        LotSource(Lots(sites=Sites(column="height")), splits, 3)


def test_rows_alike_with_gaps_are_dropped_too(own):
    columns = {"row": [i % 300 for i in range(N)], "height": ["" if i % 300 < 50 else 1 + i % 5 for i in range(N)]}
    data = own(columns, missing="fill", settings={"duplicates": "drop"})
    splits = split(data, STRATA, torch.float64)
    assert sum(len(rows_of(splits, part)) for part in SETS) == 300


def test_a_table_in_the_files_of_a_scenario_plays_the_same_when_read_back(own, tmp_path):
    data = own({"x": [i % 7 for i in range(N)], "sex": ["f", "m"] * (N // 2)}, attributes=["sex"])
    made = scenario.Scenario(data=data, horizon=2)
    back = scenario.Scenario.model_validate(made.to_dict())
    assert back == made
    assert back.data.file is not None
    assert back.data.file.sha256 is not None
    (tmp_path / "back.yaml").write_text(made.to_yaml())
    assert scenario.load(tmp_path / "back.yaml") == made
    assert "file" not in scenario.load("digits").to_dict()["data"]  # what shipped scenarios record stays as it was
