r"""PPO in a single file, directly on the engine's tensors (after CleanRL), and two variants without a critic.

All proxies share one policy, and each is a learner of its own (independent PPO). An update plays an episode of every cooperative: T rounds,
E cooperatives, N proxies, K lots. Everything stays in tensors, on the CPU or on an accelerator: the engine takes choices (E, N, K), and
returns observations and rewards. Algorithm, network, normalisation and settings are those of ``--library sb3 --algo ppo``.

An action consists of K independent choices, one for each lot:

.. math:: \log \pi(a | s) = \sum_{k \text{ available}} a_k \log p_k + (1 - a_k) \log(1 - p_k)

A lot that has nothing to contribute is withheld with certainty: it adds 0 to the log-probability and to the entropy.

``grpo`` and ``ospo`` replace the critic by a comparison within a group. Let x be the discounted reward-to-go (``grpo``) or the reward of
this one round (``ospo``). The advantage is

.. math:: A = (x - \text{mean of } x \text{ in the group}) / \text{spread}

``group`` says who is compared. In Zhao & Li a group is the agents of a fleet at one time, which are interchangeable. Proxies are not: a
proxy with clean lots is paid more than one with corrupt lots, whatever the two do, so all its actions would get a positive advantage.
``group: replicas`` therefore compares a seat with itself, in G replicas of its cooperative. Replicas have the same seed, and so the same
lots and profiles, but other random choices; Shao et al. compare answers to one question in the same way. From the second round on the
replicas' models differ, so their mean is a baseline for seat and time, not for the state. ``group: agents`` compares the proxies of a
cooperative with each other.

``spread`` says what gaps are divided by. ``spread: group`` divides by the spread of x in the same group, as Shao et al. do. Then late
rounds weigh as much as early ones. In late rounds a contribution gains little more than it costs, and proxies learn to withhold too much.
``spread: update`` divides by the spread of the gaps in the whole update. Unlike in Shao et al., there is no penalty for leaving a reference
policy.

Where only some agents are present in a round (the scenario has ``participation``), their rows alone are learned from; an agent's return is
over its own rounds (:mod:`~proxycoop.training.libraries.shared.own_rounds`). Agent-steps count those present who learn.

With replicas and ``spread: update`` both algorithms come within a few per cent of PPO's welfare. Comparing agents costs a few per cent on
breast_cancer. ``spread: group`` costs a sixth to nearly a half on digits, and nothing on breast_cancer
(``python benchmarks/training/ippo.py --groups``).

References:
    Schulman et al. (2017), *Proximal policy optimization algorithms*, arXiv 1707.06347.
    de Witt et al. (2020), *Is independent learning all you need in the StarCraft multi-agent challenge?*, arXiv 2011.09533.
    Huang et al. (2022), *CleanRL: high-quality single-file implementations of deep reinforcement learning algorithms*, JMLR 23.
    Shao et al. (2024), *DeepSeekMath*, arXiv 2402.03300: GRPO.
    Zhao & Li (2025), *One step is enough*, arXiv 2507.15351: GRPO for many agents, and OSPO.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...agents.network import CLIP, LotNetwork
from ...envs.engine import Engine
from ...envs.metrics import episode_metrics
from ...envs.observations.layout import ObservationLayout
from ...envs.observations.spaces import Pay
from ...envs.randomness import seeds_from
from ..run import Run, Trained
from ..settings import EngineSettings, GroupSettings
from .shared.closed_form import ClosedFormNetwork
from .shared.own_rounds import OwnRounds

MAX_GRAD_NORM = 0.5
VALUE_COEF = 0.5
EPSILON = 1e-8
GROUP_EPSILON = 1e-4
"""Added to a spread, in reward units, so that differences by rounding do not count."""


def learn(run: Run) -> Trained:
    """Train. An interrupted run continues from its checkpoint, to the same numbers.

    Raises:
        ValueError: If there is no such device.
    """
    settings = run.settings
    assert isinstance(settings, EngineSettings | GroupSettings)
    seeds = cooperatives(settings)
    engine = Engine(settings.scenario, settings.credit, settings.num_cooperatives, device=settings.device)
    layout, device, pay = engine.layout, engine.device, Pay(settings.rewards)
    company = settings.company()  # who plays the seats that do not learn
    learners = slice(None) if company is None else company.learners
    some_are_absent = settings.scenario.samples_some
    some_do_not_learn = some_are_absent and company is not None  # of those present
    n_rounds, n_envs, n_lots = engine.horizon, engine.num_envs, engine.num_items
    n_agents = engine.num_seats if some_are_absent else settings.n_learners  # whose choices are recorded in a round
    n_rows = n_rounds * n_envs * n_agents
    # agent-steps after the last update, where every update has as many
    last_step = settings.total_steps if some_do_not_learn else math.ceil(settings.total_steps / n_rows) * n_rows

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = LotNetwork(**layout.sizes, hidden=settings.hidden).to(device)
    has_critic = isinstance(settings, EngineSettings)
    closed = ClosedFormNetwork(network, has_critic)
    run.watch(network.named_parameters)
    gradient = closed.vector.grad
    assert gradient is not None
    optimizer = torch.optim.Adam([closed.vector], lr=settings.learning_rate, eps=1e-5, fused=True)
    generator = torch.Generator(device).manual_seed(settings.seed)
    seen, seen_returns = RunningMoments(layout.size, device), RunningMoments(1, device)
    update, agent_steps = 0, run.steps_done
    if run.checkpoint is not None:
        update = run.checkpoint["update"]
        network.load_state_dict(run.checkpoint["network"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        generator.set_state(run.checkpoint["generator"])
        for moments, saved in zip((seen, seen_returns), run.checkpoint["moments"], strict=True):
            moments.mean, moments.variance, moments.count = saved[0].to(device), saved[1].to(device), saved[2]

    observations = torch.empty(n_rounds, n_envs, n_agents, layout.size, device=device)  # normalised, (T, E, N, size)
    available = torch.empty(n_rounds, n_envs, n_agents, n_lots, dtype=torch.bool, device=device)  # (T, E, N, K)
    actions = torch.empty_like(available)
    logits = torch.empty(n_rounds, n_envs, n_agents, n_lots, device=device)
    values, rewards = torch.empty(2, n_rounds, n_envs, n_agents, device=device)
    if some_are_absent:
        rewards = torch.empty(n_rounds, n_envs, engine.num_agents, device=device)
        present = torch.empty(n_rounds, n_envs, n_agents, dtype=torch.int64, device=device)  # (T, E, m)
        learns = torch.ones(engine.num_agents, dtype=torch.bool, device=device)
        if company is not None:
            learns[:] = False
            learns[company.learners] = True

    def of_learners(by_agent: Tensor) -> Tensor:
        """What belongs to those whose choices are recorded, ``(E, N, …)`` → ``(E, n_agents, …)``."""
        return by_agent[:, learners] if not some_are_absent or engine.attendance is None else engine.attendance.of(by_agent)

    def of_all(chosen: Tensor) -> Tensor:
        """Everybody's choices, from those that are recorded."""
        whole = engine.for_all(chosen) if some_are_absent else chosen
        return whole if company is None else company.join(engine, whole[:, learners] if some_are_absent else whole)

    while agent_steps < settings.total_steps:
        # play one episode of every cooperative
        observation = of_learners(engine.reset(seeds, episode=update) if engine.seeds is None else engine.reset())  # (E, N, size)
        if company is not None:
            company.begin(engine)
        with torch.no_grad():
            for t in range(n_rounds):
                if some_are_absent and engine.attendance is not None:
                    present[t] = engine.attendance.agents
                watched = observation[learns[present[t]]][None] if some_do_not_learn else observation  # (1, n, size) or (E, N, size)
                if watched.numel():
                    seen.update(*pooled(layout, watched), watched.shape[:2].numel())
                observations[t] = seen.normalise(observation)
                available[t] = engine.prospect.choosable if some_are_absent else engine.prospect.choosable[:, learners]
                logit, value = closed.forward(observations[t].flatten(end_dim=1))  # (E·N, K), (E·N,)
                logits[t], values[t] = logit.view_as(logits[t]), value.view_as(values[t])
                coins = torch.rand(n_envs, n_agents, n_lots, generator=generator, device=device)
                actions[t] = available[t] & (coins < logits[t].sigmoid())
                result = engine.step(of_all(actions[t]))
                observation = of_learners(result.observations)
                rewards[t] = pay(result.rewards) if some_are_absent else pay(result.rewards)[:, learners]

            # what each action was worth
            learning = learns[present] if some_do_not_learn else None  # (T, E, m)
            n_learning = n_rows if learning is None else int(learning.sum())
            turns = OwnRounds(present, engine.num_agents) if some_are_absent else None
            earned = rewards if turns is None else turns.rewards(rewards)  # (T, E, N)
            if isinstance(settings, EngineSettings):
                returns = (discounted if turns is None else turns.discounted)(earned, settings.gamma)
                if n_learning:
                    counted = returns.flatten() if learning is None else returns[learning]
                    variance, mean = torch.var_mean(counted.double(), dim=0, correction=0, keepdim=True)
                    seen_returns.update(mean, variance, n_learning)
                scaled = (earned / (seen_returns.variance + EPSILON).sqrt().float()).clamp(-CLIP, CLIP)
                advantages = (gae if turns is None else turns.gae)(scaled, values, settings.gamma, settings.gae_lambda)  # (T, E, N)
                targets = (advantages + values).flatten()
            else:
                worth = (
                    earned if settings.algo == "ospo" else (reward_to_go if turns is None else turns.reward_to_go)(earned, settings.gamma)
                )
                advantages = relative(worth, settings, learning)
                targets = torch.zeros_like(advantages)  # there is no critic

        # learn from it
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - agent_steps / last_step)
        parts = (observations, actions.float(), available.float(), log_prob(logits, actions.float(), available), advantages, targets)
        rows = torch.cat([part.reshape(n_rows, -1) for part in parts], dim=1)  # one table, so that drawing rows is one operation
        widths = [part.numel() // n_rows for part in parts]
        if learning is not None:
            rows = rows[learning.flatten()]
        n_minibatches = max(math.ceil(n_learning / settings.batch_size), 1)
        for _ in range(settings.n_epochs):
            for chosen in torch.randperm(len(rows), generator=generator, device=device).tensor_split(n_minibatches):
                x, a, can, *columns = rows.index_select(0, chosen).split(widths, dim=1)
                old_log_prob, advantage, target = (column[:, 0] for column in columns)
                if not len(advantage):  # nobody who learns was present
                    continue
                if has_critic and len(advantage) > 1:
                    advantage = (advantage - advantage.mean()) / (advantage.std() + EPSILON)
                logit, value = closed.forward(x)  # (B, K), (B,)
                closed.backward(*loss_gradient(settings, logit, value, a, can, old_log_prob, advantage, target))
                gradient.mul_((MAX_GRAD_NORM / (torch.linalg.vector_norm(gradient) + EPSILON)).clamp(max=1))
                optimizer.step()
        update += 1
        agent_steps += n_learning

        measured = episode_metrics(engine)
        metrics = {name: measure.float().mean() for name, measure in measured.items()}
        if company is not None:  # what others get is beside the point
            metrics["learners_return"] = measured["return"][:, learners].float().mean()
        run.report(agent_steps, dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True)))
        if run.is_due:
            run.keep(
                {
                    "update": update,
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                    "moments": [(one.mean, one.variance, one.count) for one in (seen, seen_returns)],
                }
            )
    lots, own = layout.split(torch.stack([seen.mean, seen.variance]).float().cpu())  # (2, K, F), (2, G)
    mean, variance = torch.cat([lots[:, 0], own], dim=1)
    return Trained(network.cpu(), mean, variance, float(seen_returns.variance))


def cooperatives(settings: EngineSettings | GroupSettings) -> list[int]:
    """A seed for each cooperative, the same as with Stable-Baselines3. Replicas share a seed."""
    replicas = settings.group_size if isinstance(settings, GroupSettings) and settings.group == "replicas" else 1
    return [seed for seed in seeds_from(settings.seed, settings.num_cooperatives // replicas) for _ in range(replicas)]


def log_prob(logits: Tensor, actions: Tensor, available: Tensor) -> Tensor:
    """Log-probability of choices 0 or 1, ``(..., K)`` each → ``(...)``."""
    return ((actions * logits - softplus(logits)) * available).sum(dim=-1)


def gae(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    r"""Generalised advantage estimation (Schulman et al. 2016), ``(T, ...)``; nothing is earned after the last round.

    .. math:: A_t = \delta_t + \gamma \lambda A_{t+1}, \quad \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)
    """
    advantages = torch.empty_like(rewards)
    advantage = next_value = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        advantage = rewards[t] + gamma * next_value - values[t] + gamma * lam * advantage
        advantages[t], next_value = advantage, values[t]
    return advantages


def reward_to_go(rewards: Tensor, gamma: float) -> Tensor:
    r"""Discounted sum of this round's and later rewards, ``(T, ...)``: :math:`G_t = r_t + \gamma G_{t+1}`."""
    return discounted(rewards.flip(0), gamma).flip(0)


def discounted(rewards: Tensor, gamma: float) -> Tensor:
    r"""Discounted sum of this round's and earlier rewards, ``(T, ...)``: :math:`R_t = r_t + \gamma R_{t-1}`, as in VecNormalize."""
    sums = rewards.clone()
    for t in range(1, len(sums)):
        sums[t] += gamma * sums[t - 1]
    return sums


def relative(worth: Tensor, settings: GroupSettings, learning: Tensor | None = None) -> Tensor:
    """Advantages over the group, ``(T, E, N)`` → ``(T, E, N)``. Replicas are adjacent cooperatives.

    Args:
        worth: What is compared.
        settings: Who is compared, and how.
        learning: Who learns, bool ``(T, E, N)``; all by default. The others are in no group, and their advantages are not numbers.
    """
    if learning is not None:
        worth = worth.where(learning, torch.nan)
    among_agents = settings.group == "agents"
    groups = worth[:, :, None] if among_agents else worth.unflatten(1, (-1, settings.group_size))  # (T, E, 1, N) or (T, E / G, G, N)
    dim = 3 if among_agents else 2
    if learning is None:
        gaps = groups - groups.mean(dim=dim, keepdim=True)
        spread = gaps.std(correction=0) if settings.spread == "update" else gaps.std(dim=dim, correction=0, keepdim=True)
    else:
        gaps = groups - groups.nanmean(dim=dim, keepdim=True)
        squares = gaps.square()  # a group's gaps have mean 0
        spread = (squares.nanmean() if settings.spread == "update" else squares.nanmean(dim=dim, keepdim=True)).sqrt()
    return (gaps / (spread + GROUP_EPSILON)).flatten(1, 2)


def loss_gradient(
    settings: EngineSettings | GroupSettings,
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    available: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Gradient of PPO's loss with respect to the logits ``(B, K)`` and the values ``(B,)``.

    .. math::
        L = \frac1B \sum_b -\min(\rho A, \text{clip}(\rho, 1 - \epsilon, 1 + \epsilon) A) - c_H H + c_V (V - R)^2, \quad
        \rho = \pi(a|s) / \pi_\text{old}(a|s)

    with :math:`\partial \log \pi / \partial l_k = a_k - p_k` and :math:`\partial H / \partial l_k = -l_k p_k (1 - p_k)`.
    """
    p, epsilon = logits.sigmoid(), settings.clip_range
    ratio = (log_prob(logits, actions, available) - old_log_prob).exp()  # (B,)
    surrogate = advantages * ratio
    is_kept = surrogate <= advantages * ratio.clamp(1 - epsilon, 1 + epsilon)  # where the clipped term is the minimum, there is no gradient
    d_log_prob = -surrogate * is_kept
    d_logits = (d_log_prob[:, None] * (actions - p) + settings.ent_coef * logits * p * (1 - p)) * available
    return d_logits / len(logits), (2 * VALUE_COEF / len(logits)) * (values - targets)


class RunningMoments:
    """Mean and variance of all rows seen so far, as Stable-Baselines3's ``RunningMeanStd`` keeps them (Chan, Golub & LeVeque 1979).

    Attributes:
        mean: float64 ``(size,)``.
        variance: The same.
        count: How many rows were seen.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.variance = torch.ones(size, dtype=torch.float64, device=device)
        self.count = 1e-4

    def update(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Add rows with these moments, ``(size,)`` each."""
        total = self.count + count
        delta = mean - self.mean
        within = self.variance * self.count + variance * count
        self.variance = (within + delta.square() * (self.count * count / total)) / total
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def normalise(self, observations: Tensor) -> Tensor:
        """Normalised to mean 0 and variance 1, clipped to ±:data:`CLIP`, ``(..., size)``, in single precision."""
        return ((observations - self.mean.float()) / (self.variance + EPSILON).sqrt().float()).clamp(-CLIP, CLIP)


def pooled(layout: ObservationLayout, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every entry, ``(E, N, size)`` → float64 ``(size,)`` each. A lot feature has the same for all lots."""
    lots, own = layout.split(observations.double())  # (E, N, K, F), (E, N, G)
    lot_variance, lot_mean = torch.var_mean(lots, dim=(0, 1, 2), correction=0)
    own_variance, own_mean = torch.var_mean(own, dim=(0, 1), correction=0)
    return torch.cat([lot_mean.repeat(layout.n_items), own_mean]), torch.cat([lot_variance.repeat(layout.n_items), own_variance])
