"""Games that are additive in the logits, by doubling and one coalition at a time."""

import pytest
import torch
from torch import Tensor

from proxycoop.credit import coalition_matrix
from proxycoop.envs.compiled.assumptions import assuming
from proxycoop.envs.model.additive import AdditiveLogits


def game(n_agents: int, size: float = 0.3) -> AdditiveLogits:
    draws = torch.Generator().manual_seed(n_agents)
    shift = size * torch.randn(7, 2, n_agents, 3, generator=draws, dtype=torch.float64)
    log_share = torch.randn(7, 2, 3, generator=draws, dtype=torch.float64).log_softmax(dim=-1)
    return AdditiveLogits(shift, log_share, torch.ones(2, n_agents, dtype=torch.float64), "fixed")


def by_hand(of: AdditiveLogits, n_agents: int) -> Tensor:
    members = coalition_matrix(n_agents).to(of.shift)
    return -torch.logsumexp(of.log_share[:, :, None] + torch.einsum("cn,venk->veck", members, of.shift), dim=-1).mean(dim=0)


@pytest.mark.parametrize("n_agents", [1, 2, 3, 4, 5, 7])
def test_all_values_at_once_are_those_of_each_coalition(n_agents: int) -> None:
    of = game(n_agents)
    torch.testing.assert_close(of.block(0, n_agents), by_hand(of, n_agents))
    if n_agents > 2:  # the others always in
        first = 2**n_agents - 2 ** (n_agents - 1)
        torch.testing.assert_close(of.block(first, n_agents - 1), by_hand(of, n_agents)[:, first:])


def test_an_environment_out_of_range_goes_through_the_log_domain() -> None:
    of = game(4)
    shift = of.shift.clone()
    shift[:, 1] *= 1e4
    far = AdditiveLogits(shift, of.log_share, of.weight, "fixed")
    assert [(None if envs is None else envs.tolist(), in_range) for envs, in_range in far._by_range] == [([0], True), ([1], False)]
    torch.testing.assert_close(far.block(0, 4), by_hand(far, 4))
    assert torch.equal(far.block(0, 4)[0], of.block(0, 4)[0])


@pytest.mark.parametrize(("size", "holds"), [(0.3, True), (1e4, False)])
def test_while_a_round_is_traced_the_range_is_taken_for_granted_and_told(size: float, holds: bool) -> None:
    with assuming() as assumed:
        game(4, size).block(0, 4)
    assert [bool(one) for one in assumed] == [holds]
