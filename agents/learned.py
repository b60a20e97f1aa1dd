"""Proxies that play a saved policy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs import randomness
from ..envs.observations.layout import ObservationLayout, features_differ
from .agent import AGENTS, Agent
from .network import FORMAT, LotNetwork, Normaliser
from .saved import read


@AGENTS.register("learned")
class Learned(Agent):
    """Plays a policy that ``proxycoop train`` saved. It works with any number of lots.

    Loading a policy runs no code from its file. A digest in the file tells whether it is as it was written. Policies of earlier versions
    have none; they load, but are not verified.

    Args:
        path: The run's folder, or its ``policy.pt``.
        deterministic: ``True``: contribute a lot iff its probability exceeds one half. ``False``: draw each lot with its probability. By
            default, policies of value-based learners are deterministic, and others draw, as in their training.

    Raises:
        ValueError: If an argument is of another type, there is no policy at the path, the file is damaged, has another format, or holds
            numbers that are not finite, or if ``deterministic`` is ``False`` for a policy of a value-based learner.
    """

    def __init__(self, path: str | Path, deterministic: bool | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"path={path!r}: must be the folder of a finished 'proxycoop train' run, or its policy.pt")
        if deterministic is not None and not isinstance(deterministic, (bool, np.bool_)):
            raise ValueError(f"deterministic={deterministic!r}: must be True, False, or None for the learner's own way")
        file = Path(path) / "policy.pt" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise ValueError(f"no policy at {str(file)!r}: pass the folder of a finished 'proxycoop train' run")
        data: dict[str, Any] = read(file, "policy", "copy it again from where it is whole, or train it again")
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"policy {str(file)!r} has format {data['format']}, but this version reads {FORMAT}: train it again")
            network = LotNetwork(len(data["lot_features"]), len(data["agent_features"]), data["hidden"])
            network.load_state_dict(data["network"])
            greedy = bool(data["greedy"])
            if not data["mean"].shape == data["variance"].shape == (network.n_lot_features + network.n_agent_features,):
                raise TypeError("mean and variance must have a number for each feature")
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"policy {str(file)!r} is damaged or not a policy ({type(error).__name__}): train it again") from error
        if greedy and deterministic is not None and not deterministic:
            raise ValueError(
                f"deterministic=False: policy {str(file)!r} was learned from action values, which give no probabilities: leave it out"
            )
        self.deterministic = greedy if deterministic is None else bool(deterministic)
        self._network = network.eval()
        self._trained_on = data

    def check_layout(self, layout: ObservationLayout) -> None:
        """Refuse other features than those that the policy was trained on. It plays with any number of lots.

        Raises:
            ValueError: If the features, or their order, differ; the message says in what.
        """
        for part, features in (("lot", layout.lot_features), ("agent", layout.agent_features)):
            if difference := features_differ(self._trained_on[f"{part}_features"], features):
                hint = "; forgeries and levers must be those of its scenario (conduct)" if "is/" in difference else ""
                raise ValueError(f"the policy was trained on other {part} features than this scenario has: {difference}{hint}")

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode.

        Raises:
            ValueError: If the observations have other features than those that the policy was trained on.
        """
        super().begin(layout, keys)
        self._normalise = Normaliser(self._trained_on["mean"], self._trained_on["variance"], len(layout.lot_features), layout.n_items)

    @torch.no_grad()
    def probabilities(self, observations: Tensor) -> Tensor:
        """Probability of contributing each lot: ``(..., size)`` → ``(..., K)``; 0 or 1 if the policy is deterministic."""
        logits = self._network.logits(self._normalise(observations))
        return (logits > 0).to(logits.dtype) if self.deterministic else logits.sigmoid()

    def choose(self, observations: Tensor) -> Tensor:
        """Contribute each lot with its probability."""
        probabilities = self.probabilities(observations)
        if self.deterministic:
            return probabilities > 0.5
        return randomness.uniform(self.round_keys(), *probabilities.shape[1:]) < probabilities
