"""Differential privacy, as data: how long an update may be, how much noise is added, and where."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from ...settings import Settings, misplaced
from ..conduct.settings import AnyForgery
from .accountant import epsilon
from .mechanism import clipped, noised, step_noise
from .units import READ_ALL, releases

_OF_UPDATES_WITHOUT_NOISE = ("blend", *READ_ALL)
"""Forgeries whose length or content comes from what others learned, as the server sees it."""


class Privacy(Settings):
    r"""Gaussian noise on what is learned from lots. The unit that it protects is one lot.

    Two cooperatives are neighbours if they differ in one lot, whose updates are zero in one of them. With noise of standard deviation σC on
    what a lot changes by C at most, neighbours are hard to tell apart: see :func:`~proxycoop.envs.privacy.epsilon`.

    * ``noise: updates``: every update is noised before it leaves its proxy, so the server need not be trusted. Screening, aggregation and
      credit see noised updates alone, and cost no more privacy.
    * ``noise: step``: the server sees the clipped updates, and noises the step that it makes of them. This is far less noise for the model.
      Verdicts and credit come from updates without noise: ε does not cover them, nor what proxies then do because of them.

    References:
        Dwork & Roth (2014), *The algorithmic foundations of differential privacy*, for the Gaussian mechanism and for post-processing.
        McMahan, Ramage, Talwar & Zhang (2018), *Learning differentially private recurrent language models*, ICLR, for the noised step. Of
        its two estimators this is the one with a fixed denominator, as with ``weights: fixed`` here; lots are not drawn at random. Kairouz
        et al. (2021), *Practical and private (deep) learning without sampling or shuffling*, ICML, for neighbours of which one has zeros.
    """

    clip: float = Field(1.0, gt=0, description="Largest norm C of an update, in units of the parameters. Longer ones are shortened to it.")
    noise_multiplier: float = Field(
        1.0,
        ge=0,
        description="Standard deviation σ of the noise on every coordinate, as a multiple of the most that one lot changes: of clip with "
        "noise: updates, of clip times the largest share of a lot with noise: step. 0: no noise.",
    )
    noise: Literal["updates", "step"] = Field(
        "updates",
        description="updates: every update is noised before it leaves its proxy; all that follows, credit too, is covered. step: the "
        "server noises the step once; verdicts and credit come from updates without noise, and are not covered.",
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="δ of the guarantee (ε, δ): the probability with which ε may fail to hold.")

    @property
    def scale(self) -> float:
        """Standard deviation σC of the noise on an update, in units of the parameters."""
        return self.noise_multiplier * self.clip

    @property
    def covers_credit(self) -> bool:
        """Whether verdicts and credit follow from noised updates alone."""
        return self.noise == "updates"

    def shortened(self, updates: Tensor, norm: Tensor) -> Tensor:
        """Updates ``(E, N, U, P)`` of some norms ``(E, N, U)``, shortened to ``clip``: see :func:`~proxycoop.envs.privacy.clipped`."""
        return clipped(updates, norm, self.clip)

    def released(self, updates: Tensor, norm: Tensor, keys: Tensor, t: int) -> Tensor:
        """Updates as they leave the proxies: shortened, and with ``noise: updates`` noised.

        Args:
            updates: What the lots propose, ``(E, N, K, P)``.
            norm: Their norms, ``(E, N, K)``.
            keys: One key per environment and episode, int64 ``(E,)``.
            t: Index of the round.
        """
        short = self.shortened(updates, norm)
        return noised(short, keys, t, self.scale) if self.noise == "updates" else short

    def of_step(self, largest_share: Tensor, n_parameters: int, keys: Tensor, t: int) -> Tensor:
        """What the server adds to the step, ``(E, P)``: zeros with ``noise: updates``.

        Args:
            largest_share: The largest weight that a lot has in the step, ``(E,)``. It must not depend on the lots' data: not on what the
                screening found.
            n_parameters: Number of parameters P.
            keys: One key per environment and episode, int64 ``(E,)``.
            t: Index of the round.
        """
        if self.noise == "updates":
            return largest_share.new_zeros(len(largest_share), n_parameters)
        return step_noise(self.scale * largest_share, n_parameters, keys, t)

    def releases(self, sent: Tensor, forgeries: Sequence[AnyForgery], n_lots: int, *, all_read: bool | Tensor = False) -> Tensor:
        """How many releases a round was for each lot, ``(E, N, K)``: see :func:`~proxycoop.envs.privacy.releases`.

        Args:
            sent: Which updates were contributed, bool ``(E, N, U)``.
            forgeries: The forgeries there are.
            n_lots: Number of lots K.
            all_read: Whether the round reads the updates of all lots, sent or not; or whose it reads, bool ``(E, N)``.
        """
        return releases(sent, forgeries, n_lots, in_one_sum=self.noise == "step", all_read=all_read)

    def spent(self, releases: Tensor) -> Tensor:
        """ε that each principal has spent in an episode: that of the lot of which most was released, float64 ``(E, N)``.

        It is a number for one lot, and says nothing about several lots of a principal together.

        Args:
            releases: How many releases there were of each lot, summed over rounds, int64 ``(E, N, K)``.
        """
        return epsilon(releases.amax(dim=-1), self.noise_multiplier, self.delta)

    def check(
        self,
        *,
        holders: int = 1,
        copied: bool = False,
        vertical: bool = False,
        weights: str = "fixed",
        aggregator: str = "mean",
        governance: str = "none",
        filter: str = "reject",
        limited: bool = False,
        forgeries: Collection[str] = (),
    ) -> None:
        """Refuse what would make ε say more than what holds.

        Whether lots share rows is known when they are drawn: see :func:`~proxycoop.envs.privacy.overlapping`.

        Args:
            holders: How many principals hold the same lots.
            copied: Whether a principal offers the same lots under several names.
            vertical: Whether lots are columns of the same rows.
            weights: ``fixed`` or ``participants``.
            aggregator: How updates are merged.
            governance: The screening's.
            filter: The screening's.
            limited: Whether a round has places for some of the updates only.
            forgeries: Kinds of forgeries that there are.

        Raises:
            ValueError: If a lot's data is in other lots' updates too; or if with ``noise: step`` a lot can change the step by more than its
                share of ``clip``. The error has its place.
        """
        if holders > 1:
            why = f"holders={holders}: privacy protects one lot, but {holders} principals hold the same ones: leave holders or privacy out"
            raise misplaced(("lots", "holders"), why)
        if copied:
            why = (
                "lots: copied offers the same lots under several names, but privacy protects one lot: use lots: dealt, or leave privacy out"
            )
            raise misplaced(("conduct", "identities"), why)
        if vertical:
            why = "substrate vertical does not go with privacy: every update depends on all lots there, through the residuals; leave it out"
            raise misplaced(("privacy",), why)
        if self.noise == "updates":
            return
        others = [kind for kind in _OF_UPDATES_WITHOUT_NOISE if kind in forgeries]
        for does_not_apply, why, instead in (
            (weights != "fixed", f"weights={weights}: a lot also changes what the others are divided by", "use weights: fixed"),
            (aggregator != "mean", f"aggregator.kind={aggregator}: a lot may change more than its share", "use mean"),
            (filter == "project", "filter project: what is nearest to an update may be longer than clip", "use another filter"),
            (governance == "negotiate", "governance negotiate: a lot also changes which others enter", "use another governance"),
            (limited, "admission: a lot may take another one's place", "leave admission out"),
            (bool(others), f"the forgery {' and '.join(others)}: it comes from what others sent, without noise", "leave it out"),
        ):
            if does_not_apply:
                raise misplaced(("privacy", "noise"), f"noise=step does not go with {why}; {instead}, or use noise: updates")
