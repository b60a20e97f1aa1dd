"""Train proxies by PPO: one policy, shared over proxies and lots."""

from __future__ import annotations

import io
import pickle
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from tqdm import tqdm

from .. import __version__
from ..agents.network import save
from ..envs.engine import Engine
from ..envs.vector import CooperativeVecEnv
from ..files import output_folder, read_json, write_atomically, write_json, write_text
from .normalise import PooledMeanStd, normalised
from .policy import LotPolicy
from .settings import TrainSettings

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every update with agent-steps done, agent-steps in all, and the last episodes' mean metrics."""


def train(
    settings: TrainSettings, out: str | Path, *, resume: bool = False, progress: Progress | None = None, tensorboard: bool = True
) -> Path:
    """Train one policy and save it.

    The folder then holds ``run.json`` (settings, versions, state), ``scenario.yaml``, ``policy.pt`` (the policy with the
    normalisation of its observations), ``curve.json`` (metrics of every update's episodes), ``checkpoint.pt`` and TensorBoard's
    ``tb/``. A run that was cut off goes on from its last checkpoint, to the same numbers as if it had not been.

    Args:
        settings: What to train, and how.
        out: The run's folder.
        resume: Go on with the run in the folder, if there is one.
        progress: Told after every update.
        tensorboard: Whether to write TensorBoard's logs.

    Returns:
        The run's folder.

    Raises:
        ValueError: If the folder cannot be written, holds a finished run or one with other settings, or its checkpoint is damaged.
    """
    folder = output_folder(out)
    plain = settings.plain()
    finished, checkpoint = _prior(folder, plain, resume)
    if finished:
        return folder
    record = {"version": __version__, "commit": _commit(), "settings": plain}
    write_text(folder / "scenario.yaml", settings.scenario.to_yaml())
    write_json(folder / "run.json", {"finished": False, **record})

    rows = CooperativeVecEnv(settings.scenario, settings.credit, settings.num_cooperatives, actions=settings.actions)
    env, seen = normalised(rows, settings.gamma)
    log = str(folder / "tb") if tensorboard else None
    if checkpoint is None:
        model = PPO(
            LotPolicy,
            env,
            learning_rate=lambda remaining: settings.learning_rate * remaining,
            n_steps=settings.scenario.horizon,
            batch_size=_minibatch(settings.scenario.horizon * rows.num_envs, settings.batch_size),
            n_epochs=settings.n_epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.ent_coef,
            policy_kwargs={**rows.policy_kwargs, "hidden": settings.hidden},
            tensorboard_log=log,
            seed=settings.seed,
            device="cpu",
        )
        curve: list[dict[str, float]] = []
    else:
        model, curve = _restore(checkpoint, env, seen, rows)
        model.tensorboard_log = log
    callback = _Recorder(settings, folder, env, seen, rows, curve, progress)
    remaining = settings.total_steps - model.num_timesteps
    if remaining > 0:
        model.learn(remaining, callback, reset_num_timesteps=checkpoint is None, tb_log_name="ppo")

    write_json(folder / "curve.json", {"updates": curve})
    mean, variance = (torch.from_numpy(part.astype(np.float32)) for part in seen.per_feature())
    network = cast(LotPolicy, model.policy).network
    save(folder / "policy.pt", network, mean, variance, rows.engine.layout, return_variance=float(env.ret_rms.var))
    write_json(folder / "run.json", {"finished": True, **record})
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


def _minibatch(n_rows: int, wanted: int) -> int:
    """The largest size up to ``wanted`` into which an update's rows divide evenly."""
    return next(size for size in range(min(wanted, n_rows), 0, -1) if n_rows % size == 0)


class _Recorder(BaseCallback):
    """After every update: metrics to TensorBoard and to the curve, now and then a checkpoint."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        env: VecNormalize,
        seen: PooledMeanStd,
        rows: CooperativeVecEnv,
        curve: list[dict[str, float]],
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.folder = folder
        self.env = env
        self.seen = seen
        self.rows = rows
        self.curve = curve
        self.progress = progress

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # an update ends here: the network has learnt from the rollout before, and every cooperative stands at an episode's start
        if self.curve and len(self.curve) % self.settings.checkpoint_every == 0:
            _checkpoint(self.folder / "checkpoint.pt", cast(PPO, self.model), self.env, self.seen, self.rows.engine, self.curve)

    def _on_rollout_end(self) -> None:
        metrics = {name: float(measure.mean()) for name, measure in self.rows.last_episode.items()}
        self.curve.append({"agent_steps": self.num_timesteps, **metrics})
        for name, value in metrics.items():
            self.logger.record(f"cooperative/{name}", value)
        if self.progress is not None:
            self.progress(self.num_timesteps, max(self.settings.total_steps, self.num_timesteps), metrics)


def _checkpoint(path: Path, model: PPO, env: VecNormalize, seen: PooledMeanStd, engine: Engine, curve: list[dict[str, float]]) -> None:
    """Everything that the rest of the run depends on, in one file."""
    buffer = io.BytesIO()
    model.save(buffer)
    data = {
        "model": buffer.getvalue(),
        "statistics": [(one.mean, one.var, one.count) for one in (seen, env.ret_rms)],
        "return_so_far": env.returns,
        "seeds": engine.seeds,
        "episode": engine.episode,
        "curve": curve,
        "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),  # noqa: NPY002  # Stable-Baselines3 draws from these
    }
    write_atomically(path, lambda file: torch.save(data, file))


def _restore(
    checkpoint: dict[str, Any], env: VecNormalize, seen: PooledMeanStd, rows: CooperativeVecEnv
) -> tuple[PPO, list[dict[str, float]]]:
    """The run as it was at a checkpoint."""
    model = PPO.load(io.BytesIO(checkpoint["model"]), env=env, device="cpu", force_reset=False)
    rows.start(checkpoint["seeds"].tolist(), checkpoint["episode"])  # after loading, which seeds the environment anew
    for one, saved in zip((seen, env.ret_rms), checkpoint["statistics"], strict=True):
        one.mean, one.var, one.count = saved
    env.returns = checkpoint["return_so_far"]
    env.old_obs = rows.engine.observations.flatten(end_dim=1).numpy()
    python, numpy, pytorch = checkpoint["random"]
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002  # Stable-Baselines3 draws from it
    torch.set_rng_state(pytorch)
    return model, checkpoint["curve"]


def _prior(folder: Path, plain: dict[str, Any], resume: bool) -> tuple[bool, dict[str, Any] | None]:
    """Whether the run in the folder is finished, and its checkpoint, if it is to be resumed and has one."""
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
        data: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=False)  # our own file; it holds random states
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{str(folder / 'checkpoint.pt')!r} is damaged ({type(error).__name__}): delete it to train from the start"
        ) from error
    return False, data


def _commit() -> str | None:
    """The commit of the source tree that runs, with ``-dirty`` if it was changed since; ``None`` for an installed copy."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # another project's repository does not know this file
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
