"""Shapley values of games that are played in episodes, and the intervals of their means."""

from __future__ import annotations

import pytest
import torch

from proxycoop.credit import Shapley
from proxycoop.training.analysis.attribution import attribute, rule_within


def test_a_game_of_episodes_has_its_shapley_values_and_leaves_out_undefined_episodes():
    def worth(coalitions):
        v = (coalitions[:, 0] & coalitions[:, 1:].any(dim=1)).double()
        return torch.stack([v, 3 * v + 1, torch.full_like(v, torch.nan)])[None]

    found = attribute(worth, ("right", "left", "other"), Shapley())
    assert found.values[0, 0].tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert found.values[0, 1].tolist() == pytest.approx([2, 1 / 2, 1 / 2])
    assert found.values[0, 2].isnan().all()
    assert found.means[0][0].mean == pytest.approx(4 / 3)
    assert found.means[0][0].half_width == pytest.approx(12.706205 * (2 / 3))  # t with 1 degree of freedom × standard error
    assert found.nobody[0, :2].tolist() == [0, 1]
    assert found.everybody[0, :2].tolist() == [1, 4]


def test_intervals_count_the_choice_of_coalitions_too():
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(8, generator=generator, dtype=torch.float64)

    def worth(coalitions):
        v = (coalitions.double() @ weight).square() * (1 + coalitions[:, 0] * coalitions[:, 3] * coalitions[:, 5])
        return v.expand(1, 4, -1)  # the same in all episodes, so that nothing else is left to chance

    names = tuple("abcdefgh")
    exact, estimated = attribute(worth, names, rule_within(8, 255)), attribute(worth, names, rule_within(8, 100))
    assert exact.method == "exact"
    assert estimated.method.startswith("paired KernelSHAP")
    for right, about in zip(exact.means[0], estimated.means[0], strict=True):
        assert right.half_width == pytest.approx(0, abs=1e-9)
        assert abs(about.mean - right.mean) < 2 * about.half_width
        assert about.half_width > 0


def test_among_more_players_the_others_are_worth_nothing():
    found = attribute(lambda coalitions: coalitions.double().sum(dim=1).expand(1, 2, -1), ("b", "d"), Shapley()).among(("a", "b", "c", "d"))
    assert found.values.tolist() == [[[0, 1, 0, 1]] * 2]
    assert [one.mean for one in found.means[0]] == pytest.approx([0, 1, 0, 1])
