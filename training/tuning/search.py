"""The outer loop's search: which values are tried next, and the record of what was tried.

Values are proposed by Optuna's tree-structured Parzen estimator. The record is Optuna's journal, a file in the tuning's folder.

Trials are proposed in batches of :data:`BATCH`, whatever the number of processes. A proposal depends on the sampler's seed, its own number,
and the trials of earlier batches, and on nothing else. So the number of processes changes nothing, and a search that was interrupted goes
on with the same trials as one that was not.

References:
    Bergstra, Bardenet, Bengio & Kégl (2011), *Algorithms for hyper-parameter optimization*, NeurIPS 24.
    Akiba, Sano, Yanase, Ohta & Koyama (2019), *Optuna: a next-generation hyperparameter optimization framework*, KDD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import write_bytes
from .parameters import Parameter

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

BATCH = 4
"""Trials that are proposed at once, each without the results of the others."""
JOURNAL = "study.journal"
"""Name of the file that records the search. ``optuna-dashboard`` shows it."""
_STUDY = "tuning"


@dataclass(frozen=True)
class Trial:
    """Values that were tried, and what they reached.

    Attributes:
        number: Its number, from 0.
        values: The value of each parameter, by its name.
        score: Mean of the objective over the tuning seeds and their data splits; ``None`` if the trial failed.
        scores: Of each objective the mean on each split, by tuning seed: lists of numbers.
        failed: Why it failed; empty if it did not.
        is_default: Whether its values are those of the rule and the scenario as they were given.
    """

    number: int
    values: Mapping[str, Any]
    score: float | None
    scores: Mapping[str, list[list[float]]]
    failed: str = ""
    is_default: bool = False


def require_optuna() -> None:
    """Refuse to tune without Optuna.

    Raises:
        ValueError: If it is not installed, with the command that installs it.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError("tune needs optuna, which is not installed: pip install 'proxycoop[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """A search and its record.

    Args:
        folder: The tuning's folder, which holds the journal.
        parameters: What is varied.
        seed: Seed of the sampler.
        settings: All that the trials depend on, as a JSON file returns it. It is kept in the journal.
        default: The values of the rule and the scenario as they were given. If they are within the ranges, they are trial 0.

    Raises:
        ValueError: If the journal is damaged, or that of a tuning with other settings; the message names them.
    """

    def __init__(
        self, folder: Path, parameters: Sequence[Parameter], seed: int, settings: Mapping[str, Any], default: Mapping[str, Any]
    ) -> None:
        require_optuna()
        self.parameters = parameters
        self.seed = seed
        self.default = default if all(one.holds(default[one.name]) for one in parameters) else None
        self._distributions = {one.name: _distribution(one) for one in parameters}
        self._storage, self._study = _opened(folder / JOURNAL)
        known = self._study.user_attrs.get("settings")
        if known is None:
            self._study.set_user_attr("settings", dict(settings))
        elif changed := [name for name in {**known, **settings} if known.get(name) != settings.get(name)]:
            both = "; ".join(f"{name}: {_short(known.get(name))} and {_short(settings.get(name))}" for name in changed)
            raise ValueError(
                f"{str(folder)!r} holds a tuning with another {', '.join(changed)} ({both}): a folder holds one tuning, so choose another "
                "--out"
            )

    def trials(self) -> list[Trial]:
        """The trials that are finished, in the order of their numbers; failed ones too."""
        return [self._trial(one) for one in self._study.get_trials(deepcopy=False) if one.state.is_finished()]

    def proposed(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The values of trials by their numbers, proposed now unless they were before. Those that are finished are left out.

        Args:
            numbers: Numbers of one batch, ascending. All trials of smaller numbers were proposed before.
        """
        from optuna.trial import TrialState, create_trial

        for number in numbers:
            if number >= len(self._study.get_trials(deepcopy=False)):
                params = self._proposal(number)
                self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=self._distributions))
        waiting = self._study.get_trials(deepcopy=False)
        return {number: self._values(waiting[number]) for number in numbers if not waiting[number].state.is_finished()}

    def tell(self, number: int, score: float | None, scores: Mapping[str, list[list[float]]], failed: str = "") -> None:
        """Record what a trial reached, or why it failed."""
        from optuna.trial import TrialState

        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._storage.get_study_id_from_name(_STUDY), number)
        self._storage.set_trial_user_attr(trial_id, "scores", dict(scores))
        self._storage.set_trial_user_attr(trial_id, "failed", failed)
        self._study.tell(number, score, state=TrialState.FAIL if score is None else TrialState.COMPLETE)

    def _proposal(self, number: int) -> dict[str, Any]:
        """What the sampler proposes: the default first, and then by the finished trials of earlier batches."""
        from optuna import create_study
        from optuna.samplers import TPESampler

        if number == 0 and self.default is not None:
            return {one.name: one.text_of(self.default[one.name]) if one.choices else self.default[one.name] for one in self.parameters}
        earlier = [one for one in self._study.get_trials() if one.number < number - number % BATCH and one.state.is_finished()]
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        memory = create_study(direction="maximize", sampler=TPESampler(seed=seed))
        memory.add_trials(earlier)
        return memory.ask(self._distributions).params

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's values as the mechanism takes them. Optuna holds choices by their texts, and numbers with all digits."""
        if trial.number == 0 and self.default is not None:
            return dict(self.default)
        held = trial.params
        return {one.name: one.rounded(held[one.name] if one.choices is None else one.choices[held[one.name]]) for one in self.parameters}

    def _trial(self, one: FrozenTrial) -> Trial:
        scores, failed = one.user_attrs.get("scores", {}), one.user_attrs.get("failed", "")
        values = self._values(one)
        return Trial(one.number, values, None if failed else one.value, scores, failed, values == self.default)


def _distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter's values, as Optuna says it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choices is not None:
        return CategoricalDistribution(tuple(parameter.choices))
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.is_whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.log)


def _opened(path: Path) -> tuple[BaseStorage, Study]:
    """The study that a journal records, a new one if there is none, and its storage. Nobody else may be writing the journal.

    Raises:
        ValueError: If the journal cannot be read or written, or is damaged.
    """
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of a process that was killed
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        write_bytes(path, text[: text.rfind(b"\n") + 1])  # a line that was half-written
    try:
        storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        return storage, create_study(storage=storage, study_name=_STUDY, direction="maximize", load_if_exists=True)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read or written: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}): delete it and run the command again; trainings that are finished are kept"
        ) from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
