"""The training loop: plain torch, so that a stopped run goes on bit by bit where it was.

    state.pt       network, its average, optimiser, step, scores: every `checkpoint_every` steps, and when stopped
    best.ckpt      lowest loss on held-out crops       last.ckpt   the newest
    curve.jsonl    one line per step and per score     tensorboard/, snapshots/

Why no framework: batch n is a function of (seed, n), the schedule a function of n, so the state is three dictionaries
and exact resume needs no cooperation of data loaders or callbacks.
"""

from __future__ import annotations

import copy
import io
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from neuroloom.blockwise.run import interruptible
from neuroloom.errors import Interrupted, UserError
from neuroloom.files import explain_os_errors, hash_file, lock, write_bytes, write_json, write_text
from neuroloom.networks.checkpoint import Checkpoint, Metadata, load_checkpoint, load_tensors, save_checkpoint
from neuroloom.networks.memory import keep_freed_memory
from neuroloom.networks.precision import Precision, autocast, choose_device, choose_precision
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import UNet, crop, feature_values, parameter_count
from neuroloom.training.augmentation import NO_AUGMENTATION
from neuroloom.training.batches import Batch, BatchMaker, input_shapes
from neuroloom.training.crops import Crops, check_voxel_size
from neuroloom.training.job import TrainingJob, checkpoint_paths
from neuroloom.training.snapshots import write_snapshot
from neuroloom.training.start import start_from
from neuroloom.training.stopping import stop_requests
from neuroloom.training.weights import balanced_mse
from neuroloom.volume.array import Triple

Report = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a few words (the loss)."""

WARM_UP = 50
"""Steps over which the learning rate rises."""
LAST_RATE = 0.02
"""Learning rate at the end, as a share of the highest."""


def train(
    job: TrainingJob,
    folder: Path,
    lsd_checkpoint: Path | None = None,
    report: Report | None = None,
    start: Path | None = None,
) -> Path:
    """Train a network, or go on with a training that was stopped.

    Args:
        job: What to train.
        folder: Where everything of this training lies (the caller names it by the job's fingerprint).
        lsd_checkpoint: The trained descriptor network, for setups that need one.
        report: Called after every step.
        start: The checkpoint whose weights training starts from, for jobs with a `start_sha256`.

    Returns:
        The best checkpoint.

    Raises:
        UserError: A volume or checkpoint does not fit, or another run writes this folder.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    if (folder / "done.json").exists():
        return checkpoint_paths(folder)[0]
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with lock(folder / "lock", f"training of {job.setup}"):
        with interruptible():
            trainer = _Trainer(job, folder, lsd_checkpoint, report or (lambda done, total, text: None), start)
        return trainer.run()


class _Trainer:
    def __init__(
        self, job: TrainingJob, folder: Path, lsd_checkpoint: Path | None, report: Report, start: Path | None
    ) -> None:
        self.job, self.folder, self.report = job, folder, report
        self.device = choose_device(job.device)
        self.precision = choose_precision(self.device, job.precision)
        self.lsd = _load_lsd(job, lsd_checkpoint)
        if self.lsd is not None:
            self.lsd.network.to(self.device)
        try:
            raw_shape, self.inner_shape = input_shapes(job, self.lsd.metadata.network if self.lsd else None)
        except ValueError as error:
            raise UserError(f"{error}. Correct `training.crop` in the project file.") from error
        training = Crops(job.volumes, job.seed, job.crop)
        check_voxel_size(training.arrays, job.voxel_size)
        for arrays in training.arrays:
            if any(s < n for s, n in zip(arrays.shape, job.crop, strict=True)):
                raise UserError(
                    f"Volume {arrays.name} of {arrays.shape} voxels is smaller than a training crop of {job.crop} "
                    "voxels. Make `training.crop` smaller or leave the volume out."
                )
        augmentation = job.augmentation.model_copy(update={"per_section": job.serial_sections})
        self.batches = BatchMaker(job, training, raw_shape, self.device, augmentation, job.batch_size)
        self.held_out: list[tuple[Batch, torch.Tensor]] = []
        if job.validation:
            validation = Crops(job.validation, job.seed + 1, job.crop)
            check_voxel_size(validation.arrays, job.voxel_size)
            maker = BatchMaker(job, validation, raw_shape, self.device, NO_AUGMENTATION, 1)
            # what a frozen network makes of them never changes either
            batches = [maker.make(n) for n in range(job.validation_crops)]
            self.held_out = [(batch, self._inputs(batch.raw)) for batch in batches]
        _check_memory(job, self.inner_shape, self.device, self.precision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            self.network = UNet(job.geometry)
        if start is not None:
            start_from(self.network, job, start)
        elif self.lsd is not None and job.begins_with(self.lsd.metadata.network):
            self.network.begin_with(self.lsd.network)
        self.network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=job.learning_rate, betas=(0.95, 0.999), eps=1e-8, fused=True
        )
        self.step, self.seconds = 0, 0.0
        self.best = math.inf
        self.worse = 0
        self.curve: list[dict[str, Any]] = []

    def run(self) -> Path:
        write_text(self.folder / "job.json", self.job.model_dump_json(indent=2))
        self._resume()
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(self.folder / "tensorboard", purge_step=self.step)
        best, last = checkpoint_paths(self.folder)
        try:
            # on a GPU too, the run that goes on shall equal the one that was not stopped
            with stop_requests() as stop, torch.backends.cudnn.flags(deterministic=True, benchmark=False):
                self._loop(stop, board, best)
        except KeyboardInterrupt:  # the second request: what counts is what was saved last
            raise Interrupted(
                "Stopped at once. Run the same command again: training goes on from the last state that was saved."
            ) from None
        finally:
            board.close()
        # once more: a run that was killed right after its last state has not written it
        self._save_checkpoint(last)
        write_json(
            self.folder / "done.json",
            {
                "setup": self.job.setup,
                "fingerprint": self.job.fingerprint(),
                "steps": self.step,
                "stopped_early": self.step < self.job.iterations,
                "seconds": round(self.seconds, 1),
                "best_validation_loss": self.best,
                "checkpoint": best.name,
                "checkpoint_sha256": hash_file(best),
                "device": str(self.device),
                "precision": self.precision,
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )
        return best

    def _loop(self, stop: threading.Event, board: Any, best: Path) -> None:
        started, seconds_before = time.monotonic(), self.seconds
        if self._is_over():
            return
        for number, batch in self.batches.ahead(self.step, self.job.iterations):
            loss = self._step(batch, number)
            if not math.isfinite(loss):
                raise UserError(
                    f"The loss of {self.job.setup} became {loss} at step {number}, with {', '.join(batch.crops)}. "
                    "Look at that place, or lower `training.learning_rate`."
                )
            self.step = number + 1
            self.seconds = seconds_before + time.monotonic() - started
            self.curve.append({"step": self.step, "loss": loss, "seconds": round(self.seconds, 2)})
            board.add_scalar("loss/training", loss, self.step)
            self.report(self.step, self.job.iterations, f"loss {self._smooth_loss():.4f}")
            at_end = self.step == self.job.iterations
            if self._due(self.job.validate_every) or at_end:
                score = self._validate()
                self.curve.append({"step": self.step, "validation": score})
                board.add_scalar("loss/validation", score, self.step)
                self.worse = 0 if score < self.best else self.worse + 1
                if score < self.best:
                    self.best = score
                    self._save_checkpoint(best)
            if self._due(self.job.snapshot_every) or at_end:
                self._snapshot(batch)
            if self._due(self.job.checkpoint_every) or self._is_over() or stop.is_set():
                self._save_state()
            if self._is_over():
                return
            if stop.is_set():
                raise Interrupted(
                    f"Stopped after step {self.step} of {self.job.iterations}; all of it is kept. Run the same command "
                    "again to go on from there."
                )

    def _is_over(self) -> bool:
        """Whether all steps are done, or the scores have stopped falling."""
        on_plateau = self.job.patience is not None and self.worse >= self.job.patience
        return self.step >= self.job.iterations or on_plateau

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _step(self, batch: Batch, number: int) -> float:
        rate = learning_rate(number, self.job.iterations, self.job.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._loss(batch, self._run(self.network, self._inputs(batch.raw)))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self._update_average(number)
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self, number: int) -> None:
        """Running average of the weights; the first steps, far from the end, are forgotten faster."""
        keep = min(self.job.weight_average, (1 + number) / (10 + number)) if self.job.weight_average > 0 else 0.0
        for average, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(weight, 1 - keep)

    def _run(self, network: UNet, inputs: torch.Tensor) -> torch.Tensor:
        with autocast(self.device, self.precision):
            result = network(inputs)
        assert isinstance(result, torch.Tensor)
        return result.float()

    def _inputs(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw, or descriptors, or both, as the setup wants them; descriptors pass through uint8 as when stored."""
        channels = []
        for name in SETUPS[self.job.setup].inputs:
            if name == "raw":
                channels.append(crop(raw, self.inner_shape))
                continue
            assert self.lsd is not None
            with torch.no_grad():
                descriptors = self._run(self.lsd.network, raw)
            channels.append(crop(descriptors, self.inner_shape).mul(255).round_().div_(255))
        return torch.cat(channels, dim=1).contiguous(memory_format=torch.channels_last_3d)

    def _loss(self, batch: Batch, prediction: torch.Tensor) -> torch.Tensor:
        total = prediction.new_zeros(())
        begin = 0
        for name, channels in self.job.geometry.heads:
            part = prediction[:, begin : begin + channels]
            total = total + balanced_mse(part, batch.targets[name], batch.weights[name])
            begin += channels
        return total

    def _smooth_loss(self) -> float:
        losses = [entry["loss"] for entry in self.curve[-60:] if "loss" in entry]
        return float(np.mean(losses))

    @torch.inference_mode()
    def _validate(self) -> float:
        """Mean loss over the held-out crops; without validation volumes, over the last training steps."""
        if not self.held_out:
            losses = [entry["loss"] for entry in self.curve if "loss" in entry]
            return float(np.mean(losses[-self.job.validate_every :]))
        losses = [float(self._loss(batch, self._run(self.average, inputs))) for batch, inputs in self.held_out]
        return float(np.mean(losses))

    @torch.inference_mode()
    def _snapshot(self, batch: Batch) -> None:
        batch, inputs = self.held_out[0] if self.held_out else (batch, self._inputs(batch.raw))
        prediction = self._run(self.average, inputs)
        arrays: dict[str, NDArray[Any]] = {
            "raw": (crop(batch.raw[0, 0], self.job.crop).cpu().numpy() + 1) / 2,
            "labels": batch.labels[0].cpu().numpy().astype(np.uint64),
        }
        begin = 0
        for name, channels in self.job.geometry.heads:
            arrays[f"{name} target"] = batch.targets[name][0].cpu().numpy()
            arrays[f"{name} predicted"] = prediction[0, begin : begin + channels].cpu().numpy()
            begin += channels
        write_snapshot(self.folder / "snapshots", self.step, arrays, self.job.voxel_size)

    def _save_checkpoint(self, path: Path) -> None:
        losses = [entry["loss"] for entry in self.curve[-200:] if "loss" in entry]
        metadata = Metadata(
            setup=self.job.setup,
            network=self.job.geometry,
            voxel_size=self.job.voxel_size,
            sigma_nm=self.job.sigma_nm if {"lsd"} & {*self.job.outputs, *SETUPS[self.job.setup].inputs} else None,
            neighborhood=self.job.neighborhood if "affinities" in self.job.outputs else (),
            iteration=self.step,
            lsd_sha256=self.lsd.sha256 if self.lsd else None,
            training={
                "job": self.job.fingerprint(),
                "loss": float(np.mean(losses)) if losses else None,
                "validation_loss": None if math.isinf(self.best) else self.best,
            },
        )
        save_checkpoint(path, metadata, self.average.state_dict(), self.lsd)

    def _save_state(self) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "step": self.step,
                "seconds": self.seconds,
                "best": self.best,
                "worse": self.worse,
                "curve_lines": len(self.curve),
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            },
            buffer,
        )
        # The curve first: of a longer curve the state knows how much counts.
        write_text(self.folder / "curve.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.curve))
        write_bytes(self.folder / "state.pt", buffer.getvalue())
        self._save_checkpoint(checkpoint_paths(self.folder)[1])

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        try:
            state = load_tensors(path.read_bytes(), self.device)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            lines = (self.folder / "curve.jsonl").read_text().splitlines()[: state["curve_lines"]]
            self.curve = [json.loads(line) for line in lines]
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.best, self.worse = float(state["best"]), int(state["worse"])
        except Exception as error:  # whatever is wrong with the file, the way out is the same
            raise UserError(
                f"The training state {path} cannot be read ({type(error).__name__}). Delete {self.folder} to train "
                "again from the beginning."
            ) from error


def learning_rate(step: int, steps: int, highest: float) -> float:
    """A short linear warm-up, then a cosine down to `LAST_RATE` of the highest.

    Args:
        step: From 0.
        steps: In all.
        highest: Learning rate after the warm-up.
    """
    warm_up = min(WARM_UP, max(1, steps // 10))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return highest * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


def _check_memory(job: TrainingJob, shape: Triple, device: torch.device, precision: Precision) -> None:
    """Refuse what cannot fit, before the system ends this process without a word."""
    weights = parameter_count(job.geometry)
    # weights, gradients, two moments of Adam and the average; what layers put out is kept for the way back
    needed = 20 * weights + (2 if precision == "bf16" else 4) * job.batch_size * feature_values(job.geometry, shape)
    there = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else psutil.virtual_memory().total
    if needed > there:
        raise UserError(
            f"Training {job.setup} takes {needed / 1e9:.0f} GB of memory or more ({weights / 1e6:.1f} million weights, "
            f"crops of {job.crop} voxels), and this machine has {there / 1e9:.0f} GB. Make `network.feature_maps`, "
            "`network.growth` or `training.crop` smaller."
        )


def _load_lsd(job: TrainingJob, path: Path | None) -> Checkpoint | None:
    if not SETUPS[job.setup].needs_lsd_network:
        return None
    if path is None:
        raise UserError(f"Setup {job.setup} needs a trained descriptor network. Run `neuroloom train lsd` first.")
    loaded = load_checkpoint(path)
    metadata = loaded.metadata
    if metadata.setup != "lsd":
        raise UserError(f"{path} is of setup {metadata.setup!r}; expected a descriptor network (lsd).")
    if job.lsd_sha256 is not None and loaded.sha256 != job.lsd_sha256:
        raise UserError(f"{path} is not the descriptor network this training began with. Put the right file back.")
    if metadata.sigma_nm is None or abs(metadata.sigma_nm - job.sigma_nm) > 1e-6:
        raise UserError(
            f"The descriptor network {path} was trained with sigma {metadata.sigma_nm:g} nm, the project's `sigma_nm` "
            f"is {job.sigma_nm:g} nm. Train it again with `neuroloom train lsd`, or set `sigma_nm` back."
        )
    if any(abs(a - b) > 1e-3 * b for a, b in zip(metadata.voxel_size, job.voxel_size, strict=True)):
        raise UserError(
            f"The descriptor network {path} was trained on voxels of {metadata.voxel_size} nm, the project's are "
            f"{job.voxel_size} nm. Train it again with `neuroloom train lsd`."
        )
    return loaded
