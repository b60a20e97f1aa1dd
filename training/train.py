"""Train proxies with any of the libraries: one policy, shared over proxies and lots."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .. import __version__
from ..agents import saved
from ..agents.network import save
from ..envs.devices import plain_torch
from ..envs.observations.layout import ObservationLayout
from ..envs.scenario import differences, load
from ..envs.shared import shared
from ..files import output_folder, read_json, remove_temporaries, write_json, write_text
from .libraries.registry import learner, versions
from .outputs import Outputs, locked
from .run import CHECKPOINT, Progress, Run, Trained
from .settings import TrainSettings, differing

ENTRIES = ("run.json", "scenario.yaml", "policy.pt", "curve.json", "checkpoint.pt", "tb")
"""What a training writes into its folder."""


def train(
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Mapping[Path, str] | None = None,
    progress: Progress | None = None,
    tensorboard: bool = True,
    told: Callable[[str], object] | None = None,
) -> Path:
    """Train one policy and save it.

    The folder then holds:

    * ``run.json``: settings, version, commit, whether the run is finished, and the seconds that it took;
    * ``scenario.yaml``: the scenario;
    * ``policy.pt``: the policy, with the normalisation of its observations;
    * ``curve.json``: metrics of every update's episodes;
    * ``tb/``: TensorBoard's logs;
    * ``checkpoint.pt``, until the run is finished.

    An interrupted run continues from its last checkpoint, and ends with the same numbers as an uninterrupted one. While a training runs,
    its folder is locked.

    A training whose numbers are no longer finite stops. It writes no policy, and its last checkpoint stays. Policies and checkpoints carry
    a digest, so that a damaged one is refused; see :mod:`~proxycoop.agents.saved`.

    Args:
        settings: What to train, with which library, and how.
        out: The run's folder.
        resume: Continue the run in the folder, if there is one.
        overwrite: Begin anew, and replace what has these names in the folder already, whoever wrote it. With ``resume``, a run that is
            there goes on instead; so a folder of an older version is taken over.
        inputs: Files that were read, each with what it is, in words. They are never replaced.
        progress: Called after every update.
        tensorboard: Whether to write TensorBoard's logs.
        told: Called once with ``resume``: what becomes of the run, in words. It goes on from a checkpoint, begins, or is finished already.

    Returns:
        The run's folder.

    Raises:
        ValueError: If the library does not have the algorithm or is not installed; if the folder cannot be written, is in use, holds a run
            that is not to be resumed or one with other settings, or something that is not ours to replace (see
            :mod:`~proxycoop.training.outputs`); if the checkpoint is damaged; or if the training diverges.
    """
    learn = learner(settings)
    shared(settings.scenario, torch.float32)  # data that is missing is told before the folder is made
    folder = output_folder(out)
    with locked(folder, "train"):
        finished, checkpoint = _prior(folder, settings, resume, overwrite)
        if resume and told is not None:
            told(_becomes(folder, settings, finished, checkpoint))
        if not finished:
            _claim(folder, settings, resume, checkpoint is not None, Outputs("train", overwrite=overwrite, inputs=inputs))
            how: dict[str, Any] = {"progress": progress, "tensorboard": tensorboard, "versions": versions(settings.library)}
            _train(learn, settings, folder, Run(settings, folder, checkpoint=checkpoint, **how))
    return folder


def _claim(folder: Path, settings: TrainSettings, resume: bool, from_checkpoint: bool, outputs: Outputs) -> None:
    """Make the folder ours, and remove what an earlier run left, unless that goes on."""
    entries: dict[str, bytes | None] = dict.fromkeys(ENTRIES)
    goes_on = resume and (folder / "run.json").exists()
    if goes_on and (folder / "scenario.yaml").exists():
        del entries["scenario.yaml"]  # it stays: it may be what was read
        if changed := differences(load(folder / "scenario.yaml").to_dict(), settings.plain()["scenario"]):
            raise ValueError(
                f"{str(folder / 'scenario.yaml')!r} was changed since the training began ({'; '.join(changed)}): put it back, or choose "
                "another --out"
            )
    else:
        entries["scenario.yaml"] = settings.scenario.to_yaml().encode()
    outputs.own_folder(folder, entries, known="run.json")
    remove_temporaries(folder, ENTRIES)
    for name in () if from_checkpoint else ("tb",) if goes_on else ENTRIES:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif entries[name] is None:
            path.unlink(missing_ok=True)
    if entries.get("scenario.yaml") is not None:
        write_text(folder / "scenario.yaml", settings.scenario.to_yaml())


def _train(learn: Callable[[Run], Trained], settings: TrainSettings, folder: Path, run: Run) -> None:
    """Train, and write what was learned."""
    record = {"version": __version__, "commit": _commit(), "settings": settings.plain()}
    write_json(folder / "run.json", {"finished": False, **record})
    try:
        try:
            with plain_torch(grad=True):  # a training does not depend on what the caller has set
                trained = learn(run)
        except Exception:  # a library may say anything about numbers that are not finite: it is said here what they mean
            run.require_finite()
            raise
        run.require_finite()
    except ValueError:
        if not (folder / CHECKPOINT).exists():  # there is nothing to go on from: the folder is free for corrected settings
            (folder / "run.json").unlink()
        raise
    finally:
        run.close()
    write_json(folder / "curve.json", {"updates": run.curve})
    layout = ObservationLayout.of(settings.scenario)
    save(
        folder / "policy.pt",
        trained.network,
        trained.mean,
        trained.variance,
        layout,
        return_variance=trained.return_variance,
        greedy=trained.greedy,
    )
    write_json(folder / "run.json", {"finished": True, "seconds": round(run.seconds, 3), **record})
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def tqdm_progress(description: str) -> tuple[tqdm[Any], Progress]:
    """A progress bar, and the function that moves it."""
    bar = tqdm(desc=description, unit=" agent-steps", unit_scale=True, dynamic_ncols=True, delay=1, disable=None)

    def move(done: int, total: int, metrics: dict[str, float]) -> None:
        bar.total = total
        bar.set_postfix_str(f"welfare {metrics['welfare']:.1f}, clean {metrics['clean_share']:.0%}, corrupt {metrics['corrupt_share']:.0%}")
        bar.update(done - bar.n)

    return bar, move


def _prior(folder: Path, settings: TrainSettings, resume: bool, overwrite: bool) -> tuple[bool, dict[str, Any] | None]:
    """Whether the run in the folder is finished, and its checkpoint, if it has one and is to be resumed."""
    if overwrite and not resume:
        return False, None
    if not (folder / "run.json").exists():
        if (folder / "policy.pt").exists() and not overwrite:
            raise ValueError(f"{str(folder)!r} holds a policy.pt of unknown origin: choose another --out, or replace it with --overwrite")
        return False, None
    run = read_json(folder / "run.json")
    if not isinstance(run.get("settings"), dict):
        raise ValueError(f"{str(folder / 'run.json')!r} is not the record of a training: choose another --out")
    if not resume:
        raise ValueError(
            f"{str(folder)!r} holds a run already: resume it with --resume, choose another --out, or replace it with --overwrite"
        )
    plain = settings.plain()
    if others := differing(run["settings"], plain):
        old = run["settings"].get("scenario")
        told = "; ".join(differences(plain["scenario"], old)) if "scenario" in others and old is not None else ""
        raise ValueError(f"{str(folder)!r} holds a run with another {', '.join(others)}{told and f' ({told})'}: choose another --out")
    if is_finished(folder):
        return True, None
    if not (folder / "checkpoint.pt").exists():
        return False, None
    return False, _checkpoint(folder / CHECKPOINT, settings)


def _becomes(folder: Path, settings: TrainSettings, finished: bool, checkpoint: Mapping[str, Any] | None) -> str:
    """What becomes of a run that is to be resumed, in words."""
    if finished:
        return "the run is already finished: nothing to do"
    if checkpoint is None:
        anew = (folder / "run.json").exists()
        return "the run begins anew: there is no checkpoint yet" if anew else "the run begins: there is none in the folder yet"
    done = int(checkpoint["curve"][-1]["agent_steps"]) if checkpoint["curve"] else 0
    return f"the run goes on at step {done:,} of {settings.total_steps:,}"


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a run that is finished, with its policy."""
    return (folder / "policy.pt").exists() and (folder / "run.json").exists() and bool(read_json(folder / "run.json").get("finished"))


def _checkpoint(file: Path, settings: TrainSettings) -> dict[str, Any]:
    """The checkpoint of a run with these settings. Reading it runs no code of the file's.

    Raises:
        ValueError: If the file is damaged, is no checkpoint, belongs to another run, was written with other versions of the library, of
            torch or of proxycoop, or holds numbers that are not finite.
    """
    advice = "delete it to train from the start"
    data = saved.read(file, "checkpoint", advice)
    if missing := [key for key in ("curve", "seconds", "state") if key not in data]:
        raise ValueError(f"checkpoint {str(file)!r} is damaged or not a checkpoint (it lacks {', '.join(missing)}): {advice}")
    plain = settings.plain()
    if others := differing(data.get("settings", plain), plain):  # earlier versions did not keep them
        raise ValueError(f"checkpoint {str(file)!r} is that of a run with another {', '.join(others)}: {advice}")
    now = versions(settings.library)
    if others := [f"{name} {old}, here is {now.get(name)}" for name, old in data.get("versions", now).items() if now.get(name) != old]:
        raise ValueError(f"checkpoint {str(file)!r} was written with {'; '.join(others)}: install what it was written with, or {advice}")
    return data


def _commit() -> str | None:
    """The commit of the source tree in use, with ``-dirty`` if files were changed since; ``None`` for an installed copy."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails if the repository is another project's
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
