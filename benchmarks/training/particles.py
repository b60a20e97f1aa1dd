"""Times PettingZoo's particles and VMAS for ``operations.py``, in an environment of their own, on request.

It knows nothing of proxycoop. Each line of its input names what to play, the number of environments, and for how many seconds:
``balance 16 0.3``. It answers with a line: agent-steps per second of processor time, resets included. Both have six agents.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import vmas  # noqa: E402
from mpe2 import simple_spread_v3  # noqa: E402

N_AGENTS, CYCLES = 6, 25


def spread(n_envs: int) -> Callable[[], int]:
    """An episode of simple_spread through PettingZoo's parallel interface; the number of agent-steps."""
    assert n_envs == 1
    env = simple_spread_v3.parallel_env(N=N_AGENTS, max_cycles=CYCLES)
    env.reset(seed=0)
    coins = np.random.default_rng(0)
    rounds = [{agent: int(coins.integers(5)) for agent in env.possible_agents} for _ in range(CYCLES)]

    def episode() -> int:
        env.reset()
        for actions in rounds:
            env.step(actions)
        return N_AGENTS * CYCLES

    return episode


def balance(n_envs: int) -> Callable[[], int]:
    """As many steps of VMAS's balance; the number of agent-steps."""
    env = vmas.make_env("balance", num_envs=n_envs, n_agents=N_AGENTS, continuous_actions=True, device="cpu", seed=0)
    coins = torch.Generator().manual_seed(0)
    rounds = [[torch.rand(n_envs, 2, generator=coins) * 2 - 1 for _ in range(N_AGENTS)] for _ in range(CYCLES)]

    def episode() -> int:
        env.reset()
        for actions in rounds:
            env.step(actions)
        return N_AGENTS * CYCLES * n_envs

    return episode


def main() -> None:
    """Answer every line."""
    torch.set_num_threads(int(sys.argv[1]))
    made: dict[tuple[str, int], Callable[[], int]] = {}
    for line in sys.stdin:
        name, n_envs, seconds = line.split()
        kind = name, int(n_envs)
        if kind not in made:
            made[kind] = {"spread": spread, "balance": balance}[name](int(n_envs))
            made[kind]()
        began, steps = time.process_time(), 0
        while (elapsed := time.process_time() - began) < float(seconds) or steps == 0:
            steps += made[kind]()
        sys.stdout.write(f"{steps / elapsed}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
