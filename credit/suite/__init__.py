"""What a rule promises, and the test-suite that holds it to it."""

from .axioms import RuleReport, RuleViolation, check_rule
from .battery import Case, game_round, learning_round

__all__ = [
    "Case",
    "RuleReport",
    "RuleViolation",
    "check_rule",
    "game_round",
    "learning_round",
]
