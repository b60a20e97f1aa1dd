"""Substrates: how lots become candidate updates, and which weight each update has in the aggregate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...settings import Settings, default_kind
from .. import randomness
from ..data.columns import column_blocks
from ..data.lots import DrawnLots
from .interface import Model
from .likelihood import cross_entropy, loss_and_residual


@dataclass(frozen=True)
class Proposals:
    """The updates that all lots propose in a round.

    Attributes:
        updates: Each lot's update Δ, ``(E, N, K, P)``.
        share: Each lot's share p of all data, ``(E, N, K)``, summing to 1 over lots. With fixed weights it is the lot's weight.
        loss: Mean cross-entropy of the shared model on each lot, ``(E, N, K)``, in nats.
        available: Which lots have something to contribute, bool ``(E, N, K)``: those whose share is not 0.
    """

    updates: Tensor
    share: Tensor
    loss: Tensor
    available: Tensor


def _lot_errors(model: Model, theta: Tensor, lots: DrawnLots) -> tuple[Tensor, Tensor]:
    """Each row's cross-entropy under the shared model, ``(E, N, K, R)``, and its gradient (softmax − one-hot), ``(E, N·K·R, C)``."""
    x, y = lots.rows_of_all
    loss, error = loss_and_residual(model.logits(theta, x), y)
    return loss.reshape(lots.y.shape), error


def _lot_gradient(model: Model, theta: Tensor, lots: DrawnLots, error: Tensor, row_weight: Tensor) -> Tensor:
    """Gradient of each lot's weighted cross-entropy, Σ_r w_r ce_r, from the rows' errors.

    Shapes: errors ``(E, N·K·R, C)``, weights ``([E,] N, K, R)`` → ``(E, N, K, P)``.
    """
    by_lot = lots.rows_of_lots
    cotangent = error * row_weight.reshape(-1, error.shape[1], 1)
    start = theta if model.linear else _per_lot(theta, lots)  # a linear model's gradient does not depend on them
    gradient = model.pullback(start, by_lot, cotangent.reshape(*by_lot.shape[:2], -1))
    return gradient.reshape(*lots.y.shape[:3], -1)


def _per_lot(theta: Tensor, lots: DrawnLots) -> Tensor:
    """The shared parameters, repeated for every lot: ``(E, P)`` → ``(E·N·K, P)``."""
    n_envs, n_agents, n_lots = lots.y.shape[:3]
    return theta[:, None, None].expand(n_envs, n_agents, n_lots, -1).reshape(n_envs * n_agents * n_lots, -1)


class FedAvg(Settings):
    """Federated averaging: every lot takes a few local gradient steps.

    References:
        McMahan et al. (2017), *Communication-efficient learning of deep networks from decentralized data*, AISTATS.
    """

    kind: Literal["fedavg"] = "fedavg"
    local_lr: float = Field(0.4, gt=0, description="Learning rate of the local steps.")
    local_steps: int = Field(1, ge=1, description="Local gradient steps per round, each on the whole lot.")

    def propose(self, model: Model, theta: Tensor, lots: DrawnLots, keys: Tensor, t: int) -> Proposals:
        """Every lot's update from the shared parameters.

        Args:
            model: The shared model.
            theta: ``(E, P)``.
            lots: The lots of all principals.
            keys: One key per environment; not used, because whole lots are taken.
            t: Index of the round; not used.
        """
        del keys, t
        weight = -self.local_lr * lots.row_weight  # (N, K, R)
        if model.linear:  # one pass for all lots, since all have the same parameters
            row_loss, error = _lot_errors(model, theta, lots)
            updates = _lot_gradient(model, theta, lots, error, weight)
        else:
            answers, updates = self._step(model, _per_lot(theta, lots), lots, weight)
            row_loss = cross_entropy(answers, lots.y)
        loss = (row_loss * lots.row_weight).sum(dim=-1)
        for _ in range(self.local_steps - 1):
            _, step = self._step(model, _per_lot(theta, lots) + updates.flatten(end_dim=2), lots, weight)
            updates = updates + step
        return Proposals(updates, lots.share, loss, lots.filled)

    def _step(self, model: Model, start: Tensor, lots: DrawnLots, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A local step of every lot from parameters of its own, ``(E·N·K, P)``: logits ``(E, N, K, R, C)``, steps ``(E, N, K, P)``."""
        rows = lots.rows_of_lots, lots.y.flatten(end_dim=2), weight.expand(lots.y.shape).flatten(end_dim=2)
        answers, steps = model.loss_gradient(start, *rows)
        return answers.reshape(*lots.y.shape, -1), steps.reshape(*lots.y.shape[:3], -1)


class Traversal(Settings):
    r"""Traversal learning: one virtual batch over all lots, and each lot's exact share of the pooled gradient.

    The orchestrator draws a batch of b rows over all lots, b_ik of them from lot (i, k). Each lot runs the forward pass on its own rows.
    The backward pass is central, on the whole batch. The gradient of a weight is the sum of the lots' parts (output error times the lot's
    own activations). So the update is :math:`\Delta_{ik} = -\eta\,\frac{1}{b_{ik}} \sum_{r \in \text{batch} \cap ik} \nabla \text{ce}_r`
    with share :math:`p_{ik} = b_{ik}/b`. The sum :math:`\sum_{ik} p_{ik} \Delta_{ik}` equals the centralised step on the same rows: nothing
    is lost.

    The batch is drawn before the proxies choose, so that they know what their updates would do. Updates that are then withheld or screened
    out are missing from the step. The step then adds up only the remaining lots' parts of the batch.

    References:
        Batbaatar et al. (2025), *Traversal learning*, arXiv 2504.07471.
    """

    kind: Literal["traversal"] = "traversal"
    lr: float = Field(0.4, gt=0, description="Learning rate η of the pooled step.")
    batch: int | None = Field(None, ge=1, description="Rows b of the virtual batch; all rows by default.")

    def propose(self, model: Model, theta: Tensor, lots: DrawnLots, keys: Tensor, t: int) -> Proposals:
        """Every lot's share of the pooled gradient step.

        Args:
            model: The shared model.
            theta: ``(E, P)``.
            lots: The lots of all principals.
            keys: One key per environment for this episode, int64 ``(E,)``.
            t: Index of the round. Every round has its own virtual batch.
        """
        batch = self.virtual_batch(lots, randomness.fold(keys, randomness.Purpose.VIRTUAL_BATCH, t))  # (E, N, K, R)
        counts = batch.sum(dim=-1)  # (E, N, K)
        row_loss, error = _lot_errors(model, theta, lots)
        loss = (row_loss * lots.present).sum(dim=-1) / lots.samples.clamp(min=1)
        weight = batch.to(theta.dtype) / counts.clamp(min=1)[..., None]
        updates = _lot_gradient(model, theta, lots, error, -self.lr * weight)
        share = counts.to(theta.dtype) / counts.sum(dim=(1, 2), keepdim=True)
        return Proposals(updates, share, loss, counts > 0)

    def virtual_batch(self, lots: DrawnLots, keys: Tensor) -> Tensor:
        """Which rows are in the batch, bool ``(E, N, K, R)``: b rows, drawn from all rows without replacement."""
        present = lots.present.expand(lots.y.shape)
        if self.batch is None:
            return present
        order = randomness.uniform(keys, *lots.present.shape)
        order = torch.where(present, order, 2.0).flatten(start_dim=1)  # padding comes last
        size = min(self.batch, int(lots.samples.sum()))
        chosen = torch.zeros_like(order, dtype=torch.bool).scatter(1, order.topk(size, largest=False).indices, True)
        return chosen.reshape(present.shape)


@lru_cache(maxsize=16)
def _own_parameters(n_columns: int, n_blocks: int, n_classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """For each block of columns, 1 for the parameters of softmax regression that read it, else 0 (also for the bias): ``(n_blocks, P)``."""
    block = column_blocks(n_columns, n_blocks).repeat_interleave(n_classes)  # (P - C,)
    own = (block == torch.arange(n_blocks)[:, None]).to(dtype)
    return torch.nn.functional.pad(own, (0, n_classes)).to(device)


class Vertical(Settings):
    r"""Vertical federated learning of a linear model: principals hold columns of the same rows, and the server holds the labels.

    Each lot (i, k) holds a block of columns and the parameters :math:`W_{ik}` that read it. For every row it sends its embedding
    :math:`x_{r,ik} W_{ik}` to the server. The server has the labels and the bias b. It returns the residuals ε of the full model, from
    which each lot computes the gradient of its own parameters:

    .. math:: \epsilon_r = \text{softmax}\Bigl(\sum_{ik} x_{r,ik} W_{ik} + b\Bigr) - \text{onehot}(y_r), \qquad
        \Delta_{ik} = -\eta\,N K\,\frac{1}{R} \sum_r x_{r,ik}^\top \epsilon_r, \qquad p_{ik} = \frac{1}{N K}

    The parts :math:`p_{ik} \Delta_{ik}` lie in disjoint blocks. Their sum equals the centralised gradient step of rate η on the R rows,
    except for the bias, which keeps its value from the public start. Because of the factor N·K the shares sum to one, as in the other
    substrates. So screening, which looks at Δ, works in the same way, and its theorem holds.

    A lot that is withheld or screened out keeps its parameters, so its old embedding is in the next round's residuals. Thus v(S) is the
    gain of the new embeddings of S next to the others' old ones. A lot's wrong links affect everybody's residuals.

    References:
        Fan et al. (2022), *Fair and efficient contribution valuation for vertical federated learning* (VerFedSV), arXiv 2201.02658: its
        synchronous setting for logistic regression. Two things differ: its rounds take mini-batches, and here they take all rows; its v is
        the decrease of the training loss, and here v is the increase of the utility, as everywhere. Liu et al. (2022), *Vertical federated
        learning: concepts, advances and challenges*, arXiv 2211.12814.
    """

    kind: Literal["vertical"] = "vertical"
    lr: float = Field(0.4, gt=0, description="Learning rate η of the pooled step.")

    def propose(self, model: Model, theta: Tensor, lots: DrawnLots, keys: Tensor, t: int) -> Proposals:
        """Every lot's part of the pooled gradient step, in the parameters of its own columns.

        Args:
            model: The shared model. It is softmax regression: its parameters are columns × classes, then the bias.
            theta: ``(E, P)``.
            lots: The lots of all principals: blocks of columns of the same rows.
            keys: One key per environment; not used, because all rows are taken.
            t: Index of the round; not used.
        """
        del keys, t
        n_envs, n_agents, n_lots, n_rows, n_columns = lots.x.shape
        x, y = lots.inputs[:, 0, 0], lots.y[:, 0, 0]  # (E, R, D + 1), (E, R)
        row_loss, error = loss_and_residual(model.logits(theta, x), y[..., None])
        gradient = model.pullback(theta, x, error / n_rows)  # (E, P)
        own = _own_parameters(n_columns, n_agents * n_lots, model.n_classes, theta.dtype, theta.device).reshape(n_agents, n_lots, -1)
        updates = -self.lr * n_agents * n_lots * own * gradient[:, None, None]  # (E, N, K, P)
        share = theta.new_full((n_envs, n_agents, n_lots), 1 / (n_agents * n_lots))
        return Proposals(updates, share, row_loss.mean(dim=-1)[:, None, None].expand(share.shape), share > 0)


SubstrateSettings = Annotated[Annotated[FedAvg | Traversal | Vertical, Field(discriminator="kind")], default_kind("fedavg")]
