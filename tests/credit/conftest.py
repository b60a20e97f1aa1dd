"""Games and rounds that the tests of the credit rules share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from proxycoop import credit


def _codes(coalitions: Tensor) -> Tensor:
    return (coalitions * 2 ** torch.arange(coalitions.shape[1])).sum(dim=1)


@pytest.fixture(scope="session")
def table_game() -> Callable[[Tensor], credit.CoalitionGame]:
    """From a table of worths, ``(2**n,)`` or ``(E, 2**n)``, to the game that looks them up."""

    def build(v: Tensor) -> credit.CoalitionGame:
        return credit.CoalitionGame(lambda coalitions: v[..., _codes(coalitions)], n_players=v.shape[-1].bit_length() - 1)

    return build


@pytest.fixture(scope="session")
def learning_round() -> Callable[..., credit.Round]:
    """The round of a cooperative whose utility is U(θ) = −½‖θ − target‖², standing at θ = 0, with one step of Σ_{i∈S} Δ_i.

    So v(S) = ⟨target, Δ_S⟩ − ½‖Δ_S‖², and the utility's gradient is the target: updates, gradient and game fit together.
    """

    def build(
        updates: Tensor, target: Tensor, *, admitted: Tensor | None = None, samples: Tensor | None = None, t: int = 0
    ) -> credit.Round:
        n_envs, n_players, _ = updates.shape

        def value(coalitions: Tensor) -> Tensor:
            step = torch.einsum("cn,enp->ecp", coalitions.to(updates.dtype), updates)
            return torch.einsum("ep,ecp->ec", target, step) - 0.5 * step.square().sum(dim=-1)

        if admitted is None:
            admitted = torch.ones(n_envs, n_players, 1, dtype=torch.bool)
        if samples is None:
            samples = torch.ones(n_players, admitted.shape[-1], dtype=torch.int64)
        return credit.Round(
            credit.CoalitionGame(value, n_players),
            contributed=torch.ones_like(admitted),
            admitted=admitted,
            blocked_by=(~admitted)[..., None].expand(*admitted.shape, n_players),
            samples=samples,
            updates=lambda: updates,
            utility_gradient=lambda: target,
            t=t,
        )

    return build


@pytest.fixture
def clean_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers among the credit rules is gone after it."""
    credit.RULES.names()  # the entry points of the machine that runs the tests are read before the copy is taken
    monkeypatch.setattr(credit.RULES, "_factories", dict(credit.RULES._factories))
