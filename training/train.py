"""Train proxies with any of the libraries: one policy, shared over proxies and lots."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .. import __version__
from ..agents.network import save
from ..envs.observations.layout import ObservationLayout
from ..files import output_folder, read_json, write_json, write_text
from .libraries.registry import learner
from .run import Progress, Run
from .settings import TrainSettings


def train(
    settings: TrainSettings, out: str | Path, *, resume: bool = False, progress: Progress | None = None, tensorboard: bool = True
) -> Path:
    """Train one policy and save it.

    The folder then holds:

    * ``run.json``: settings, version, commit, whether the run is finished, and the seconds that it took;
    * ``scenario.yaml``: the scenario;
    * ``policy.pt``: the policy, with the normalisation of its observations;
    * ``curve.json``: metrics of every update's episodes;
    * ``tb/``: TensorBoard's logs;
    * ``checkpoint.pt``, until the run is finished.

    An interrupted run continues from its last checkpoint, and ends with the same numbers as an uninterrupted one. With libraries that write
    no checkpoints (see :mod:`~proxycoop.training.libraries.registry`) it begins again.

    Args:
        settings: What to train, with which library, and how.
        out: The run's folder.
        resume: Continue the run in the folder, if there is one.
        progress: Called after every update.
        tensorboard: Whether to write TensorBoard's logs.

    Returns:
        The run's folder.

    Raises:
        ValueError: If the library does not have the algorithm or is not installed; if the folder cannot be written, holds a run that is not
            to be resumed, or one with other settings; or if the checkpoint is damaged.
    """
    learn = learner(settings)
    folder = output_folder(out)
    plain = settings.plain()
    finished, checkpoint = _prior(folder, plain, resume)
    if finished:
        return folder
    if checkpoint is None:
        shutil.rmtree(folder / "tb", ignore_errors=True)  # logs of an interrupted run that begins again
    record = {"version": __version__, "commit": _commit(), "settings": plain}
    write_text(folder / "scenario.yaml", settings.scenario.to_yaml())
    write_json(folder / "run.json", {"finished": False, **record})
    run = Run(settings, folder, progress=progress, tensorboard=tensorboard, checkpoint=checkpoint)
    try:
        trained = learn(run)
    except ValueError:
        if not run.curve:  # nothing was learned: the folder is free for corrected settings
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
    return folder


def tqdm_progress(description: str) -> tuple[tqdm[Any], Progress]:
    """A progress bar, and the function that moves it."""
    bar = tqdm(desc=description, unit=" agent-steps", unit_scale=True, dynamic_ncols=True, delay=1, disable=None)

    def move(done: int, total: int, metrics: dict[str, float]) -> None:
        bar.total = total
        bar.set_postfix_str(f"welfare {metrics['welfare']:.1f}, clean {metrics['clean_share']:.0%}, corrupt {metrics['corrupt_share']:.0%}")
        bar.update(done - bar.n)

    return bar, move


def _prior(folder: Path, plain: dict[str, Any], resume: bool) -> tuple[bool, dict[str, Any] | None]:
    """Whether the run in the folder is finished, and its checkpoint, if it has one and is to be resumed."""
    if not (folder / "run.json").exists():
        if (folder / "policy.pt").exists():
            raise ValueError(f"{str(folder)!r} holds a policy.pt of unknown origin: choose another --out, or delete it")
        return False, None
    if not resume:
        raise ValueError(f"{str(folder)!r} holds a run already: resume it with --resume, or choose another --out")
    run = read_json(folder / "run.json")
    if run.get("settings") != plain:
        old = run.get("settings", {})
        changed = sorted(key for key in plain if old.get(key) != plain[key])
        raise ValueError(f"{str(folder)!r} holds a run with another {', '.join(changed)}: choose another --out")
    if run.get("finished") and (folder / "policy.pt").exists():
        return True, None
    if not (folder / "checkpoint.pt").exists():
        return False, None
    try:
        data: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=False)  # a file of ours, which holds random states
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{str(folder / 'checkpoint.pt')!r} is damaged ({type(error).__name__}): delete it to train from the start"
        ) from error
    return False, data


def _commit() -> str | None:
    """The commit of the source tree in use, with ``-dirty`` if files were changed since; ``None`` for an installed copy."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails if the repository is another project's
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
