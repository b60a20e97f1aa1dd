"""How the benchmarks of values compare: filters at equal harm, and governances on one scale of satisfaction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop.envs import Engine, scenario


def test_a_curve_is_read_at_no_more_harm_and_has_no_gain_where_it_always_harms_more(benchmark_script) -> None:
    at_equal_harm = benchmark_script("values/strictness").at_equal_harm
    curve = np.array([[0.0, 1.0], [-1.0, 2.0], [1.0, 3.0]])  # turns back: at harm -0.5 it has the gains 1.5 and 2.25
    read = at_equal_harm(curve, np.array([-1.1, -1.0, -0.5, 0.0, 5.0]))
    np.testing.assert_allclose(read, [np.nan, 2.0, 2.25, 2.5, 3.0])


def test_what_harms_more_and_gains_less_further_on_does_not_count_against_a_curve(benchmark_script) -> None:
    at_equal_harm = benchmark_script("values/strictness").at_equal_harm
    np.testing.assert_allclose(at_equal_harm(np.array([[-1.0, 2.0], [1.0, 0.0]]), np.array([0.0, 3.0])), [2.0, 2.0])


@pytest.mark.parametrize("governance", ["none", "unanimous"])
def test_satisfaction_is_measured_on_one_scale_whoever_screens(governance: str, benchmark_script) -> None:
    satisfaction = benchmark_script("values/governance")._satisfaction
    engine = Engine(scenario.load("digits", screening={"governance": governance}, profiles=[], **{"reward.scale": 1.0}), None, 3)
    engine.reset(range(3))
    look, gradient = engine.prospect, engine.utility_gradient()
    everything = torch.ones(3, engine.num_agents, engine.num_lots, dtype=torch.bool)
    gain = look.proposals.share * (look.proposals.updates @ gradient[:, None, :, None])[..., 0]
    some = gain == gain.flatten(1).amax(dim=1)[:, None, None]  # the best lot alone
    expected = 1 + gain.flatten(1).amax(dim=1) / gain.clamp(min=0).sum(dim=(1, 2))
    torch.testing.assert_close(
        satisfaction(engine, look, engine.predicted_gain(), everything, some), expected[:, None].expand(-1, engine.num_agents)
    )
