r"""A Flower strategy: the clients' value profiles decide which updates enter the model, and a credit rule decides who is paid.

Flower (https://flower.ai) is an optional extra: ``pip install 'proxycoop[flower]'``. The strategy uses its message API, from 1.41 on::

    from proxycoop.flower import ValueConstrainedStrategy

    strategy = ValueConstrainedStrategy(
        model=Net(), clients=6, utility=utility, credit="shapley",
        values={"nines": loss_on_nines}, profiles={3: {"tolerances": {"nines": 0.1}}},
    )
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(Net().state_dict()), num_rounds=10)
    result.train_metrics_clientapp[1]["credit/0"]  # what client 0 earned in the first round

``FedAvg`` asks of a client's reply to a train message that it holds one ``ArrayRecord`` with the trained state dict and one
``MetricRecord`` with ``num-examples``. This strategy also asks for the client's id, as ``partition-id``: in the ``MetricRecord`` if it is a
number, or else in a ``ConfigRecord``. A ``ConfigRecord`` may also name the provenance of the client's data, as ``tag``.

``examples/flower_digits.py`` in the repository is a complete run. It needs no network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from .. import credit as credit_rules
from ..credit import CreditRule, Round, from_updates
from ..credit.games.from_updates import step_weights
from ..credit.games.head import class_head
from ..credit.games.replica import Replica, Utility
from ..credit.games.round import lacking
from ..envs.screening.filters import filtered, largest
from ..envs.screening.harm import predicted_harm
from ..envs.screening.profiles import Profile, Profiles, ProfileTable
from ..envs.screening.verdicts import Screening, Verdicts, guard_factor, let_through, weights_of
from ..registry import unknown_name

try:
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.common.logger import log
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg, Result
except ImportError as error:
    raise ImportError(f"proxycoop.flower needs flwr 1.41 or newer ({error}): pip install 'proxycoop[flower]'") from error

ClientId = int | str
"""A client's id: a number or a name."""
Weights = Literal["fixed", "participants"]


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round. N clients stand in the roster's order; there are M values.

    Attributes:
        credit: Each client's credit, ``(N,)``, in the utility's unit.
        contributed: bool ``(N,)``: whether the client's reply came in time and without an error.
        admitted: bool ``(N,)``: whether the client's update is in the step.
        blocked_by: bool ``(N, N)``: whether client i's update was inadmissible to client j.
        kept: Norm of the admitted update over the norm of the update that was sent, ``(N,)``. It is below 1 where the filter changed the
            update, and 0 for a client that is not in the step.
        harm: Predicted harm of each client's update, ``(N, M)``; 0 for a client that sent no usable update.
        norm: Euclidean norm of each client's update, ``(N,)``; 0 for a client that sent no usable update.
        weights: Each client's share of all data, ``(N,)``.
        reasons: By client id, why the client is not in the step.
        gamma: The guard's factor on the step; 1 without a guard.
        utility: Utility after the round.
        gain: Gain in utility from the round's step, v(N).
        value_losses: Value losses after the round, by name.
        evaluations: Coalitions evaluated for the credit.
    """

    credit: Tensor
    contributed: Tensor
    admitted: Tensor
    blocked_by: Tensor
    kept: Tensor
    harm: Tensor
    norm: Tensor
    weights: Tensor
    reasons: dict[ClientId, str]
    gamma: float
    utility: float
    gain: float
    value_losses: dict[str, float]
    evaluations: int


@dataclass
class _Replies:
    """The replies that came in, by the client's place in the roster."""

    contents: dict[int, RecordDict] = field(default_factory=dict)
    updates: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


class ValueConstrainedStrategy(FedAvg):  # type: ignore[misc]  # an extra: type checkers may not see it
    r"""Federated averaging with screening by value profiles and credit for every client.

    .. math:: \theta' = \theta + \gamma \sum_{i \in A} w_i \Delta_i

    A round has four steps:

    1. *Updates*. The clients' replies are sorted by id. An update Δ is what training added to the model.
    2. *Screening*. An update is inadmissible to a client if its predicted harm to a value is above the client's tolerance, if its norm is
       above the client's ``max_norm``, or if it comes from data with a tag that the client forbids. The predicted harm is the inner product
       of the update with the value's gradient at the round's start. ``screening`` says whose verdicts count.
    3. *Aggregation*. The step is the weighted sum of the admitted updates A; weights go by amounts of data. A guard shrinks the step (γ).
    4. *Credit*. The rule assigns credit for the gain in utility to all clients of the roster.

    What goes wrong with one client does not stop the others:

    - A client that failed or did not answer takes no part. It earns what the rule pays to a client that contributes nothing.
    - An update that is not finite is admissible to nobody.
    - A reply is screened out if its arrays are missing, do not fit the model or cannot be read, or if it does not say how many examples it
      was trained on.

    The reasons are logged and kept in the history. If nobody is admitted, the model stays as it is and nobody is paid.

    Entries of the state dict that are not floating-point numbers, such as the counter of a batch normalisation, keep the server's values.
    ``FedAvg`` would average them.

    A reply without a valid ``partition-id`` stops the run, and so do two replies with the same one: the run was set up wrongly.

    Each round's ``MetricRecord`` holds the metrics of the admitted clients, averaged as ``FedAvg`` does. It also holds, for every client,
    ``credit/<id>`` (in the utility's unit), ``contributed/<id>`` and ``admitted/<id>`` (0 or 1). For the round it holds ``gain``, and after
    the round ``utility`` and each value's loss, ``value/<name>``. With a guard it holds ``gamma``.

    Args:
        model: The architecture, or a function that builds it. Its parameters do not matter. Utility and values are evaluated in its mode
            (train or eval).
        utility: A function from a module to a number or a 0-d tensor, higher is better, on data that the server holds. Credit is
            for its gain.
        clients: The number of clients N, whose ids are then 0 to N − 1; or their ids; or a mapping from ids to numbers of data rows.
        credit: A credit rule or its name, with arguments if it takes any: ``"shapley(budget=60)"``. Rules that ask peers are refused,
            because the server does not have the clients' data.
        values: Differentiable losses of a module, by name, on data that the server holds. Tolerances have the same units.
        profiles: Value profiles: either a sequence in the roster's order (one with ``holders: n`` stands for n clients), or a mapping from
            client ids. Clients that it does not cover have no profile. Each is a :class:`~proxycoop.envs.screening.profiles.Profile` or its
            settings.
        screening: Governance, filter and guard; see :class:`~proxycoop.envs.screening.verdicts.Screening`. Unanimous by default. Only
            first-order harm is supported, and governance ``negotiate`` is not.
        weights: ``fixed``: a client's weight is its share of all the roster's data, so that a missing client changes nothing for the
            others. ``participants``: weights are renormalised over the admitted updates, as ``FedAvg`` does. The amounts of data are those
            in ``clients``. If it gives none, they are what each client last reported under ``weighted_by_key``. A client counts as without
            data until its first report, so shares stay the same only once all have reported. To fix them from the start, give numbers of
            rows in ``clients``.
        id_key: Key under which clients report their id.
        tag_key: Key of a ``ConfigRecord`` under which they report the provenance tag of their data.
        **fedavg: Arguments of ``FedAvg``: ``fraction_train``, ``min_train_nodes``, ``weighted_by_key``, …

    Attributes:
        clients: The roster, in order.
        history: One :class:`RoundRecord` per round since the start.

    Raises:
        ValueError: If the roster, the profiles or the screening are not valid, the rule is unknown, or the rule needs something that the
            strategy cannot give it.
    """

    def __init__(
        self,
        *,
        model: nn.Module | Callable[[], nn.Module],
        utility: Utility,
        clients: int | Sequence[ClientId] | Mapping[ClientId, float],
        credit: CreditRule | str = "shapley",
        values: Mapping[str, Utility] | None = None,
        profiles: Sequence[Profile | Mapping[str, Any]] | Mapping[ClientId, Profile | Mapping[str, Any]] = (),
        screening: Screening | Mapping[str, Any] | None = None,
        weights: Weights = "fixed",
        id_key: str = "partition-id",
        tag_key: str = "tag",
        **fedavg: Any,
    ) -> None:
        self.clients = _roster(clients)
        least = {f"min_{which}_nodes": min(2, len(self.clients)) for which in ("train", "evaluate", "available")}
        super().__init__(**{**least, **fedavg})  # FedAvg waits for two clients, even where there is only one
        self._replica = Replica(model if isinstance(model, nn.Module) else model())
        self.utility = utility
        self.values = dict(values or {})
        self.screening = screening if isinstance(screening, Screening) else Screening.model_validate(screening or {})
        if weights not in get_args(Weights):
            raise ValueError(f"weights={weights!r}: must be one of {', '.join(get_args(Weights))}")
        self.weights = weights
        self.id_key, self.tag_key = id_key, tag_key
        self._given_rows = dict(clients) if isinstance(clients, Mapping) else None
        held = self._profiles(profiles)
        self._tags = sorted({tag for profile in held for tag in profile.forbidden_tags})
        if self.screening.governance == "negotiate" or self.screening.harm != "first_order":
            raise ValueError(
                f"screening has governance {self.screening.governance} and harm {self.screening.harm}: the strategy supports only harm "
                "first_order, and every governance except negotiate"
            )
        table = ProfileTable(held, len(self.clients), list(self.values), [*self._tags, ""], False, torch.float64)
        self._limits = table.deal(torch.zeros(1, dtype=torch.int64))
        self._began: Tensor | None = None  # value losses before the first round, from which limits count
        self.rule = credit_rules.make(credit) if isinstance(credit, str) else credit
        if not isinstance(self.rule, CreditRule):
            raise ValueError(f"credit={credit!r}: must be a credit rule or its name")
        self.rule_name = credit if isinstance(credit, str) else type(credit).__name__
        has = {
            "class_head": class_head(self._replica.model) is not None,
            "vetoes": self.screening.judges_each,
            "peer_gains": False,
            "columns": False,
        }
        if need := self.rule.unmet(has, self.rule_name):
            raise ValueError(f"credit rule {self.rule_name!r} needs {need}: {lacking(need)}")
        self.reset()

    def reset(self) -> None:
        """Start over: clear the history and what the rule remembers. :meth:`start` calls this."""
        self.rule.reset(1, len(self.clients))
        self.history: list[RoundRecord] = []
        self._rows: dict[int, float] = {}
        self._arrays: ArrayRecord | None = None

    @property
    def credits(self) -> Tensor:
        """What each client has earned so far, ``(N,)``, in the utility's unit."""
        earned = [record.credit for record in self.history]
        return torch.stack(earned).sum(dim=0) if earned else torch.zeros(len(self.clients), dtype=torch.float64)

    def start(self, *args: Any, **kwargs: Any) -> Result:
        """Run all rounds; the arguments are those of ``FedAvg.start``."""
        self.reset()
        return super().start(*args, **kwargs)

    def summary(self) -> None:
        """Log the strategy's settings."""
        super().summary()
        log(INFO, "\t├──> Credit: %s among %d clients, %s", self.rule_name, len(self.clients), self.rule.method(len(self.clients)))
        guard = f", filter {self.screening.filter}" + ", with a guard" * self.screening.guard
        log(INFO, "\t└──> Screening: %s by %s%s", self.screening.governance, ", ".join(self.values) or "no values", guard)

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Do what ``FedAvg`` does, and keep the arrays: updates are differences from them.

        Raises:
            ValueError: If the arrays do not fit the model.
        """
        state = {name: _tensor(array) for name, array in arrays.items()}
        if problem := self._replica.layout.problem(state):
            raise ValueError(f"initial_arrays{problem}" if server_round == 1 else f"arrays{problem}")
        self._arrays = arrays
        messages: Iterable[Message] = super().configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen, aggregate and credit the replies, as the class's docstring says.

        Raises:
            ValueError: If a reply has no valid id, two replies have the same id, or the rule, the utility or a value returns something
                invalid.
            RuntimeError: If :meth:`configure_train` was not called before.
        """
        if self._arrays is None:
            raise RuntimeError("aggregate_train was called before configure_train, which takes the round's arrays: call it first")
        start = {name: _tensor(array) for name, array in self._arrays.items()}
        theta = self._replica.layout.vector(start).to(self._replica.theta)
        self._replica.load(theta)
        came = self._read(replies, start)
        the_round, record_so_far = self._screen(came, theta)
        credit = self._credit(the_round)
        evaluations = the_round.evaluations  # read now: the evaluations below are not for the credit
        after = theta + the_round.updates[0].sum(dim=0).to(theta)
        record = RoundRecord(
            credit=credit,
            utility=self._replica.value(self.utility, after, "the utility"),
            gain=float(the_round.gain),
            value_losses={name: self._replica.value(value, after, f"value {name!r}") for name, value in self.values.items()},
            evaluations=evaluations,
            **record_so_far,
        )
        self.history.append(record)
        for client, reason in record.reasons.items():
            absent = client not in {self.clients[i] for i in came.contents}  # normal where clients are sampled
            level = INFO if absent and self.fraction_train < 1 else WARNING
            log(level, "aggregate_train: round %d goes on without client %s, which %s", server_round, client, reason)
        arrays = self._arrays if not record.admitted.any() else self._with(after, start)
        return arrays, self._metrics(record, came)

    def _read(self, replies: Iterable[Message], start: dict[str, Tensor]) -> _Replies:
        """Read the updates and amounts of data, by place in the roster; and where there is no update, the reason."""
        valid, _ = self._check_and_log_replies(list(replies), is_train=True, validate=False)
        came = _Replies()
        for message in valid:
            place = self._place(message)
            if place in came.contents:
                raise ValueError(f"two replies have the {self.id_key!r} {self.clients[place]!r}: every client must have its own")
            came.contents[place] = message.content
        for place, content in sorted(came.contents.items()):
            rows = [record[self.weighted_by_key] for record in content.metric_records.values() if self.weighted_by_key in record]
            if len(rows) != 1 or isinstance(rows[0], list) or not 0 < rows[0] < math.inf:
                came.reasons[place] = f"did not report one positive number as {self.weighted_by_key!r}"
                continue
            self._rows[place] = rows[0]
            update = self._change(content, start)
            if isinstance(update, str):
                came.reasons[place] = update
            else:
                came.updates[place] = update
        return came

    def _place(self, message: Message) -> int:
        """The place in the roster of the client that sent a reply."""
        content = message.content
        found = [
            record[self.id_key] for record in (*content.metric_records.values(), *content.config_records.values()) if self.id_key in record
        ]
        where = f"the reply of node {message.metadata.src_node_id}"
        if not found:
            raise ValueError(f"{where} holds no {self.id_key!r}: the client must put its id into its MetricRecord or a ConfigRecord")
        if found[0] not in self.clients:
            raise ValueError(f"{where}: {unknown_name(self.id_key, found[0], [str(client) for client in self.clients])}")
        return self.clients.index(found[0])

    def _change(self, content: RecordDict, start: dict[str, Tensor]) -> dict[str, Tensor] | str:
        """What a client's training added to the model, or the reason why there is no such update."""
        if len(content.array_records) != 1:
            return f"sent {len(content.array_records)} array records, must be 1"
        (arrays,) = content.array_records.values()
        try:
            state = {name: _tensor(array) for name, array in arrays.items()}
        except (ValueError, TypeError, EOFError, OSError, MemoryError, BadZipFile) as error:  # from numpy, on foreign bytes
            return f"sent arrays that cannot be read: {error}"
        if problem := self._replica.layout.problem(state):
            return f"sent arrays that do not fit the model: its state dict{problem}"
        if of_other_kind := [name for name in self._replica.layout.names if not state[name].is_floating_point()]:
            return f"sent arrays that do not fit the model: {of_other_kind[0]!r} is {state[of_other_kind[0]].dtype}, must be floating point"
        return {name: state[name] - start[name] for name in self._replica.layout.names}

    def _screen(self, came: _Replies, theta: Tensor) -> tuple[Round, dict[str, Any]]:
        """Decide who is admitted; return the round, and the part of its record that is known by now."""
        n, layout = len(self.clients), self._replica.layout
        contributed = torch.tensor([i in came.contents for i in range(n)])
        flat = torch.zeros(n, len(theta), dtype=torch.float64)
        for i, update in came.updates.items():
            flat[i] = layout.vector(update)
        norm = flat.to(self._replica.theta.dtype).norm(dim=1).double()  # finite also in the model's dtype
        norm[list(came.reasons)] = math.inf
        finite = norm.isfinite()
        flat = torch.where(finite[:, None], flat, 0.0)
        gradients = torch.zeros(1, len(self.values), len(theta), dtype=torch.float64)
        losses = [self._replica.value(value, theta, f"value {name!r}") for name, value in self.values.items()]
        for m, (name, value) in enumerate(self.values.items()):
            gradient = self._replica.gradient(value, theta, f"value {name!r}")
            if gradient is None:
                raise ValueError(f"value {name!r} has no gradient: it must be a differentiable function of the module's parameters")
            gradients[0, m] = gradient
        harm = predicted_harm(gradients, flat[None, :, None])  # (1, N, 1, M)
        tags = torch.tensor([self._tag(came.contents.get(i)) for i in range(n)])
        counts = [self._given_rows[c] if self._given_rows else self._rows.get(i, 0) for i, c in enumerate(self.clients)]
        rows = torch.tensor(counts, dtype=torch.float64)
        share = rows / rows.sum().clamp(min=torch.finfo(rows.dtype).tiny)
        now = torch.tensor([losses], dtype=torch.float64)
        self._began = now if self._began is None else self._began
        limits = self._limits.at(now, self._began)
        weight = weights_of(self.screening, limits, rows[:, None])
        verdicts = Verdicts(harm, norm[None, :, None], tags[None, :, None], limits, weight)  # of N clients with one lot each
        mended = filtered(flat[None, :, None], verdicts, self.screening, gradients, None)
        passes, flat = mended.passes[0, :, 0], mended.updates[0, :, 0]
        admitted = contributed & passes
        gamma = self._gamma(theta, flat, share * admitted, gradients, losses, limits)

        def let_in(coalitions: Tensor) -> Tensor:
            if self.screening.judges_each:
                return let_through(coalitions, verdicts, self.screening)
            return mended.passes[:, None].expand(-1, len(coalitions), -1, -1)

        self._replica.load(theta)  # in training mode, utility and values have changed the statistics: undo that
        the_round = from_updates(
            self._replica.model,
            [dict(zip(layout.names, self._replica.parts(change), strict=True)) for change in flat],
            share,
            utility=self.utility,
            contributed=contributed,
            admitted=admitted,
            blocked_by=verdicts.blocked_by[0, :, 0],
            screening=let_in,
            renormalise=self.weights == "participants",
            factor=gamma,
            samples=rows.long(),
            t=len(self.history),
        )
        reasons = {self.clients[i]: self._reason(i, came, finite, verdicts.blocked_by) for i in range(n) if not admitted[i]}
        return the_round, {
            "contributed": contributed,
            "admitted": admitted,
            "blocked_by": verdicts.blocked_by[0, :, 0],
            "kept": torch.where(admitted, mended.kept[0, :, 0], 0.0),
            "harm": harm[0, :, 0],
            "norm": torch.where(finite, norm, 0.0),
            "weights": share,
            "reasons": reasons,
            "gamma": gamma,
        }

    def _gamma(self, theta: Tensor, flat: Tensor, entering: Tensor, gradients: Tensor, losses: Sequence[float], limits: Profiles) -> float:
        """The guard's factor on the step. Limits for all rounds together are measured: no loss may rise by more than is left."""
        if not self.screening.guard:
            return 1.0
        step = (step_weights(entering, renormalise=self.weights == "participants") @ flat)[None]
        gamma = guard_factor(predicted_harm(gradients, step), step.norm(dim=1), limits)
        if limits.may_rise is None:
            return float(gamma)
        most = limits.may_rise[0].amin(dim=0).tolist()

        def holds(factor: Tensor) -> Tensor:
            there = theta + (factor * step[0]).to(theta)
            after = [self._replica.value(value, there, f"value {name!r}") for name, value in self.values.items()]
            return torch.tensor([all(new - old <= rise for new, old, rise in zip(after, losses, most, strict=True))])

        return float(largest(holds, gamma))

    def _reason(self, i: int, came: _Replies, finite: Tensor, blocked_by: Tensor) -> str:
        if i not in came.contents:
            return "was not asked, failed, or did not answer"
        if i in came.reasons:
            return came.reasons[i]
        if not finite[i]:
            return "sent an update that is not finite"
        return f"sent an update that is inadmissible to {', '.join(str(self.clients[j]) for j in blocked_by[0, i, 0].nonzero()[:, 0])}"

    def _tag(self, content: RecordDict | None) -> int:
        """The number of the tag of a reply's data; all tags that nobody forbids have the same number."""
        tags = [] if content is None else [record[self.tag_key] for record in content.config_records.values() if self.tag_key in record]
        return self._tags.index(tags[0]) if tags and tags[0] in self._tags else len(self._tags)

    def _credit(self, the_round: Round) -> Tensor:
        """The credit that the rule assigns, ``(N,)``. It is checked, because third parties write rules."""
        credit = self.rule.assign(the_round)
        if not isinstance(credit, Tensor) or credit.shape != (1, len(self.clients)) or not credit.isfinite().all():
            raise ValueError(
                f"credit rule {self.rule_name} answered with {credit}: must be finite numbers of shape (1, {len(self.clients)})"
            )
        return credit[0].detach().double().cpu()

    def _with(self, theta: Tensor, start: dict[str, Tensor]) -> ArrayRecord:
        """The arrays after the step. Entries that are not floating point stay as they were."""
        layout = self._replica.layout
        parts = dict(zip(layout.names, self._replica.parts(theta), strict=True))
        state = {name: parts.get(layout.alias.get(name, name), old) for name, old in start.items()}
        return ArrayRecord({name: entry.detach().to(start[name]) for name, entry in state.items()})

    def _metrics(self, record: RoundRecord, came: _Replies) -> MetricRecord:
        """The round's metrics, which Flower reports."""
        contents = [_without(came.contents[i], self.id_key) for i in record.admitted.nonzero()[:, 0].tolist()]
        forms = {tuple(sorted((key, _length(value)) for one in c.metric_records.values() for key, value in one.items())) for c in contents}
        if len(forms) > 1:
            log(WARNING, "aggregate_train: the clients' metrics have different keys or lengths, so they are left out")
        metrics: MetricRecord = self.train_metrics_aggr_fn(contents, self.weighted_by_key) if len(forms) == 1 else MetricRecord()
        for i, client in enumerate(self.clients):
            metrics[f"credit/{client}"] = float(record.credit[i])
            metrics[f"contributed/{client}"] = int(record.contributed[i])
            metrics[f"admitted/{client}"] = int(record.admitted[i])
        metrics["utility"], metrics["gain"] = record.utility, record.gain
        for name, loss in record.value_losses.items():
            metrics[f"value/{name}"] = loss
        if self.screening.guard:
            metrics["gamma"] = record.gamma
        return metrics

    def _profiles(self, profiles: Sequence[Profile | Mapping[str, Any]] | Mapping[ClientId, Profile | Mapping[str, Any]]) -> list[Profile]:
        """One profile per client."""

        def made(profile: Profile | Mapping[str, Any]) -> Profile:
            return profile if isinstance(profile, Profile) else Profile.model_validate(profile)

        if isinstance(profiles, Mapping):
            for client in profiles:
                if client not in self.clients:
                    raise unknown_name("client in profiles", client, [str(one) for one in self.clients])
            held = [made(profiles[client]) if client in profiles else Profile() for client in self.clients]
            if any(profile.holders != 1 for profile in held):
                raise ValueError("a profile given by client id is held by that client alone: leave out 'holders'")
        else:
            held = [one for profile in map(made, profiles) for one in [profile.model_copy(update={"holders": 1})] * profile.holders]
        if len(held) > len(self.clients):
            raise ValueError(f"profiles have {len(held)} holders in all, but there are only {len(self.clients)} clients: lower 'holders'")
        for profile in held:
            for value in profile.values:
                if value not in self.values:
                    raise unknown_name("value in a profile", value, sorted(self.values) or ["none: give some as values"])
        return held


def _roster(clients: int | Sequence[ClientId] | Mapping[ClientId, float]) -> tuple[ClientId, ...]:
    if not isinstance(clients, int | Sequence | Mapping):
        raise ValueError(f"clients={clients!r}: must be a positive number, or distinct ids")
    roster = tuple(range(clients)) if isinstance(clients, int) else tuple(clients)
    if not roster or len(set(map(str, roster))) < len(roster) or isinstance(clients, str):  # ids are part of metrics' names
        raise ValueError(f"clients={clients!r}: must be a positive number, or distinct ids")
    if isinstance(clients, Mapping) and not all(0 < rows < math.inf for rows in clients.values()):
        raise ValueError(f"clients={dict(clients)}: numbers of data rows must be positive and finite")
    return roster


def _tensor(array: Any) -> Tensor:
    return torch.tensor(array.numpy())


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else -1


def _without(content: RecordDict, key: str) -> RecordDict:
    """A reply without its id, which must not be averaged."""
    records = {name: MetricRecord({k: v for k, v in record.items() if k != key}) for name, record in content.metric_records.items()}
    return RecordDict({**content, **records})
