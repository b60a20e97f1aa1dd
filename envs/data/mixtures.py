"""Mixtures: which share of a lot's rows is of which kind.

A row's *kind* is its class. Where lots have strata, it is the class together with the stratum (the level of an attribute, such as sex).
With S strata and C classes, kind s·C + c is class c in stratum s. Without strata, S is 1 and kinds are classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.special import gammaincinv
from torch import Tensor

from ...settings import LATER, Settings
from .. import randomness
from ..randomness import fold
from .dataset import Dataset

_LEAST = 1e-9  # weight of a class beside a principal's most frequent one, below which it makes no difference


class DirichletMixture(Settings):
    r"""Class shares of a lot by Dirichlet weights on a random subset of the common classes (label skew).

    With ``principal_concentration`` α, principals differ as in the literature on federated learning: principal i's shares of the common
    classes are :math:`q_i \sim \text{Dir}(\alpha, \dots, \alpha)`. Small α give each principal few classes (0.1 is much used), large
    α make all alike. The weight of a class in a lot is :math:`q_{ic}` times a gamma number of shape ``concentration``.

    Protected classes, if there are any, are rare. In a lot of a principal whose profile protects the class, it is present with probability
    ``owner_share``; in other lots with probability ``other_share``. If it is present, its weight is ``protected_weight`` · U(0.5, 1.5),
    relative to the common classes' sum of 1.

    References:
        Hsu, Qi & Brown (2019), *Measuring the effects of non-identical data distribution for federated visual classification*.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    concentration: int = Field(3, ge=1, description="Dirichlet parameter of each class in a lot; larger is more even.")
    classes_per_lot: int | None = Field(
        None, ge=1, description="Number of common classes in a lot; by default all of them, or all that its principal holds."
    )
    classes_per_principal: int | None = Field(
        None,
        ge=1,
        json_schema_extra=LATER,
        description="Number of common classes that a principal holds; all of them by default. Each episode deals the classes anew, one "
        "after another from a shuffled deck, and from its start again when it runs out.",
    )
    principal_concentration: float | None = Field(
        None,
        ge=0.01,
        json_schema_extra=LATER,
        description="Dirichlet parameter α of the common classes that a principal holds, drawn anew each episode (Hsu et al. 2019): 0.1 "
        "gives each principal one class or two, 1 many, 100 makes principals alike. By default they are alike.",
    )
    protected: tuple[int | str, ...] = Field((), description="Protected classes, by name or number.")
    owner_share: float = Field(
        0.7, ge=0, le=1, description="Probability that a protected class is in a lot of a principal whose profile protects it."
    )
    other_share: float = Field(0.25, ge=0, le=1, description="Probability that a protected class is in a lot of any other principal.")
    protected_weight: float = Field(
        0.12, ge=0, description="Mean weight of a protected class in a lot that holds it; the common classes' weights sum to 1."
    )

    @property
    def every_class(self) -> bool:
        """Whether the mixture may need rows of every class."""
        return True

    def shares(self, keys: Tensor, n_lots: int, owned: Tensor, counts: Tensor, dataset: Dataset) -> Tensor:
        """Shares of the classes in every lot; see :meth:`LogisticNormalMixture.shares`."""
        n_envs, n_agents, n_classes = owned.shape
        del counts
        rare_classes = sorted({dataset.class_index(label) for label in self.protected})
        protected = torch.tensor(rare_classes, dtype=torch.int64, device=keys.device)
        common = torch.tensor([c for c in range(n_classes) if c not in rare_classes], device=keys.device)
        shape = (n_agents, n_lots, len(common))
        weight = randomness.gamma(fold(keys, 1), self.concentration, *shape)  # (E, N, K, common)
        if self.principal_concentration is not None:
            weight = weight * self._principals_weights(fold(keys, 5), n_agents, len(common))[:, :, None]
        rank = randomness.permutation(fold(keys, 2), *shape)
        if self.classes_per_principal is not None:  # the classes that the principal holds keep their order, and come before the others
            held = self._held(fold(keys, 4), n_agents, len(common))[:, :, None]
            rank = (rank + len(common) * ~held).argsort(dim=-1).argsort(dim=-1)
        most = min(self.classes_per_lot or len(common), self.classes_per_principal or len(common))
        weight = weight * (rank < most)
        shares = weight.new_zeros(n_envs, n_agents, n_lots, n_classes)
        shares[..., common] = weight / weight.sum(dim=-1, keepdim=True)
        if rare_classes:
            present = torch.where(owned, self.owner_share, self.other_share)[:, :, None]  # (E, N, 1, n_classes)
            u = randomness.uniform(fold(keys, 3), n_agents, n_lots, n_classes, 2)
            rare = (u[..., 0] < present) * self.protected_weight * (0.5 + u[..., 1])
            shares[..., protected] = rare[..., protected]
        return shares / shares.sum(dim=-1, keepdim=True)

    def _principals_weights(self, keys: Tensor, n_agents: int, n_common: int) -> Tensor:
        """Weights of the common classes at each principal, gamma numbers of shape α by inversion, float64 ``(E, N, n_common)``."""
        u = randomness.uniform(keys, n_agents, n_common)
        weight = torch.from_numpy(np.asarray(gammaincinv(self.principal_concentration, u.cpu().numpy()))).to(keys.device)
        return (weight / weight.amax(dim=-1, keepdim=True)).clamp(min=_LEAST)  # a lot may be left with rare classes alone

    def _held(self, keys: Tensor, n_agents: int, n_common: int) -> Tensor:
        """Which common classes each principal holds, bool ``(E, N, n_common)``."""
        assert self.classes_per_principal is not None
        deck = randomness.permutation(keys, n_common)  # (E, n_common)
        place = torch.arange(n_agents * self.classes_per_principal, device=keys.device) % n_common
        dealt = deck[:, place].reshape(len(keys), n_agents, self.classes_per_principal)
        return torch.zeros(len(keys), n_agents, n_common, dtype=torch.bool, device=keys.device).scatter_(2, dealt, True)

    def check(self, dataset: Dataset) -> None:
        """Check the settings against the data.

        Raises:
            ValueError: If a class is unknown, all classes are protected, ``classes_per_principal`` exceeds the number of common classes, or
                ``classes_per_lot`` exceeds the number that a principal holds.
        """
        n_common = len(dataset.class_names) - len({dataset.class_index(label) for label in self.protected})
        if n_common < 1:
            raise ValueError("lots.mixture.protected names every class: at least one class must stay unprotected")
        n_held = self.classes_per_principal or n_common
        if n_held > n_common:
            raise ValueError(f"lots.mixture.classes_per_principal={n_held}: there are only {n_common} common classes")
        if self.classes_per_lot is not None and self.classes_per_lot > n_held:
            whose = "there are only" if self.classes_per_principal is None else "a principal holds only"
            raise ValueError(f"lots.mixture.classes_per_lot={self.classes_per_lot}: {whose} {n_held} common classes")


class LogisticNormalMixture(Settings):
    """Class shares of a lot by base rates. Their log odds vary from site to site and from lot to lot.

    With strata, a class's share is divided among the strata as in the rows from which the principal's lots are dealt. With prevalence
    ``natural`` the shares of the classes come from these rows too.
    """

    kind: Literal["logistic_normal"] = "logistic_normal"
    prevalence: dict[int | str, float] | Literal["natural"] = Field(
        default_factory=dict,
        description="Typical share of a class, by name or number; the other classes share the rest evenly. natural: the classes' shares at "
        "the principal's site, or in the train pool where there are no sites.",
    )
    site_deviation: float = Field(0.6, ge=0, description="Standard deviation between sites (principals) of the log odds.")
    lot_deviation: float = Field(1.2, ge=0, description="Standard deviation between lots of the log odds.")

    @property
    def every_class(self) -> bool:
        """Whether the mixture may need rows of every class, even of classes that a site does not have."""
        return self.prevalence != "natural"

    def shares(self, keys: Tensor, n_lots: int, owned: Tensor, counts: Tensor, dataset: Dataset) -> Tensor:
        """Draw the share of each kind in every lot.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            n_lots: Number of lots K of a principal.
            owned: Whether a principal's profile protects a class, bool ``(E, N, n_classes)``; not used by this mixture.
            counts: Number of rows of each kind from which a principal's lots are dealt, float64 ``(N, n_strata, n_classes)``.
            dataset: The data set, in which classes are looked up.

        Returns:
            float64 ``(E, N, K, n_strata · n_classes)``. A lot's shares sum to 1; the share of a kind without rows is 0.
        """
        del owned
        base = self._base(counts, dataset).flatten(start_dim=1)  # (N, n_kinds)
        n_agents, n_kinds = base.shape
        # noise of variance s²/2 on each kind's log weight gives noise of variance s² on the log odds of two kinds
        site = self.site_deviation * 0.5**0.5 * randomness.normal(fold(keys, 1), n_agents, 1, n_kinds)
        lot = self.lot_deviation * 0.5**0.5 * randomness.normal(fold(keys, 2), n_agents, n_lots, n_kinds)
        shares: Tensor = (base.log()[:, None] + site + lot).softmax(dim=-1)
        return shares

    def check(self, dataset: Dataset) -> None:
        """Check the settings against the data.

        Raises:
            ValueError: If a class is unknown, or the shares leave nothing for the other classes.
        """
        if self.prevalence != "natural":
            self._prevalence(self.prevalence, dataset)

    def _base(self, counts: Tensor, dataset: Dataset) -> Tensor:
        """Typical shares, ``(N, n_strata, n_classes)``."""
        if self.prevalence == "natural":
            return counts / counts.sum(dim=(1, 2), keepdim=True)
        return self._prevalence(self.prevalence, dataset).to(counts) * (counts / counts.sum(dim=1, keepdim=True))

    def _prevalence(self, prevalence: Mapping[int | str, float], dataset: Dataset) -> Tensor:
        """The classes' typical shares, ``(n_classes,)``."""
        n_classes = len(dataset.class_names)
        base = torch.full((n_classes,), float("nan"), dtype=torch.float64)
        for label, share in prevalence.items():
            if not 0 < share < 1:
                raise ValueError(f"lots.mixture.prevalence[{label!r}]={share}: must lie strictly between 0 and 1")
            base[dataset.class_index(label)] = share
        rest, n_rest = 1 - base.nansum(), int(base.isnan().sum())
        if (rest < 1e-9 and n_rest) or rest < -1e-9:
            raise ValueError(f"lots.mixture.prevalence={prevalence}: shares must leave something for the {n_rest} other classes")
        base[base.isnan()] = rest / max(n_rest, 1)
        return base / base.sum()
