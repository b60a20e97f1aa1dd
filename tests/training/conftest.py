"""A small cooperative that PPO learns in seconds, and a comparison of it."""

from __future__ import annotations

import pytest

from proxycoop.envs import scenario


@pytest.fixture(scope="session")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])
