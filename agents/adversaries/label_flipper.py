"""A label flipper: its data carry wrong labels, and it contributes them all."""

from __future__ import annotations

from torch import Tensor

from ...envs.scenario import Scenario
from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("label_flipper")
class LabelFlipper(Adversary):
    """Contributes every lot in every round. The scenario says whose labels are wrong (``lots.corruption.principals``)."""

    knows = "nothing: it does not look"

    @classmethod
    def lacks(cls, scenario: Scenario) -> str:
        """Principals whose lots are corrupt, if the scenario has none."""
        if scenario.lots.corruption.principals:
            return ""
        return (
            f"agent {cls.__name__} needs principals whose labels are wrong, and the scenario names none: add "
            "lots: {corruption: {principals: [0]}}"
        )

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """Every lot, and nothing beside them."""
        del honest
        return lots.new_ones(lots.shape), self.every(lots, ())
