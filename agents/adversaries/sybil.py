"""A sybil: one principal under several names."""

from __future__ import annotations

from ...envs.scenario import Scenario
from ..agent import AGENTS
from .adversary import Adversary


@AGENTS.register("sybil")
class Sybil(Adversary):
    """Contributes as ``honest`` does, under each of its principal's names. The scenario says who has several (``conduct.identities``)."""

    @classmethod
    def lacks(cls, scenario: Scenario) -> str:
        """Principals with several names, if the scenario has none."""
        if scenario.conduct is not None and scenario.conduct.identities:
            return ""
        return (
            f"agent {cls.__name__} needs a principal with several names, and the scenario has none: add "
            "conduct: {identities: [{principal: 0, split: 2}]}"
        )
