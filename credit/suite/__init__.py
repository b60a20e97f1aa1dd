"""What a rule promises, and the test suite that checks it.

* ``axioms``: the axioms, and :func:`check_rule`, which tests a rule on them;
* ``battery``: the rounds on which rules are tested;
* ``witness``: the smallest round in which a rule is seen to lack an axiom.
"""

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
