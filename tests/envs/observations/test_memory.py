"""What observations are made of, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from proxycoop.envs import Engine, scenario


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_norms_are_relative_to_the_mean_of_the_updates_that_are_finite(bad: float) -> None:
    engine = Engine(scenario.load("breast_cancer", **{"reward.scale": 1.0}), None, 2)
    engine.reset([0, 1])
    look = engine.prospect
    norm = torch.ones_like(look.norm)  # (2, 6, 4)
    norm[0, 0, 0], norm[0, 5, 3] = bad, 3.0  # a mean of 25 / 23 over the 23 others
    look = replace(look, verdicts=replace(look.verdicts, norm=norm))
    observed = engine.layout.lot(engine._memory.observe(0, engine.theta, look, engine.profiles.holds), "norm")
    expected = torch.log(norm[0].flatten()[1:] * 23 / 25)
    torch.testing.assert_close(observed[0].flatten()[1:], expected.float())
    assert (observed[1] == 0).all()  # in the other environment all are equal
