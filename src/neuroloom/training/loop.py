"""The training loop: plain torch, so that a stopped run goes on bit by bit where it was.

    state.pt       network, its average, optimiser, step, scores: every `checkpoint_every` steps, and when stopped
    best.ckpt      lowest VOI of the whole chain on the validation volumes; without that, lowest held-out loss
    last.ckpt      the newest
    descriptors/   of the training volumes, while they are needed, if `keep_descriptors`
    curve.jsonl    one line per step, score, and batch that was left out       tensorboard/, snapshots/

Why no framework: batch n is a function of (seed, n), the schedule a function of n, so the state is a few dictionaries
and exact resume needs no cooperation of data loaders or callbacks.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.blockwise.interrupting import interruptible
from neuroloom.errors import Interrupted, UserError
from neuroloom.files import hash_file, holds, lock, make_folder, write_json, write_text
from neuroloom.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.precision import autocast, choose_device, choose_precision
from neuroloom.networks.setups import LSD_CHANNELS, SETUPS
from neuroloom.networks.unet import UNet, crop
from neuroloom.training.augmentation import NO_AUGMENTATION, input_shape
from neuroloom.training.batches import Batch, BatchMaker, input_shapes
from neuroloom.training.crops import Crops, check_labels, check_voxel_size
from neuroloom.training.group import Group
from neuroloom.training.job import TrainingJob, checkpoint_paths
from neuroloom.training.kept import keep_descriptors, region_of
from neuroloom.training.schedule import PLATEAU, learning_rate
from neuroloom.training.score import Scorer
from neuroloom.training.size import check_memory
from neuroloom.training.snapshots import write_snapshot
from neuroloom.training.start import start_from
from neuroloom.training.state import load_state, save_state
from neuroloom.training.stopping import stop_requests
from neuroloom.training.weights import balanced_mse
from neuroloom.volume.array import same_voxel_size

Report = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a few words (the loss)."""

KEPT = "descriptors"
"""Folder of kept descriptors in a training's folder."""

MOST_SKIPPED = 3
"""Batches that may be left out in a row, without a state saved in between."""


def train(
    job: TrainingJob,
    folder: Path,
    lsd_checkpoint: Path | None = None,
    report: Report | None = None,
    start: Path | None = None,
    scorer: Scorer | None = None,
    group: Group | None = None,
    trial: bool = False,
    take_over: bool = False,
) -> Path:
    """Train a network, or go on with a training that was stopped.

    Args:
        job: What to train.
        folder: Where everything of this training lies (the caller names it by the job's fingerprint).
        lsd_checkpoint: The trained descriptor network, for setups that need one.
        report: Called after every step.
        start: The checkpoint whose weights training starts from, for jobs with a `start_sha256`.
        scorer: Scores a network that gives affinities, every `score_every` steps.
        group: The processes that train together; this one alone by default.
        trial: Only the time of steps counts: descriptors that would be kept are left at 0.
        take_over: Whether a lock that a run on another host left behind is taken over.

    Returns:
        The best checkpoint.

    Raises:
        UserError: A volume or checkpoint does not fit, or another run writes this folder.
        Interrupted: Ctrl-C, SIGTERM or SIGUSR1; the state is saved.
    """
    group = group or Group()
    if (folder / "done.json").exists():
        return checkpoint_paths(folder)[0]
    make_folder(folder)
    keep_freed_memory()
    parts = (job, folder, lsd_checkpoint, report or (lambda done, total, text: None), start, scorer, group, trial)
    if not group.first:
        return _Trainer(*parts).run()
    with lock(folder / "lock", f"training of {job.setup}", take_over) as run:
        with interruptible():
            trainer = _Trainer(*parts)
        trainer.owner = run
        return trainer.run()


class _Trainer:
    def __init__(
        self,
        job: TrainingJob,
        folder: Path,
        lsd_checkpoint: Path | None,
        report: Report,
        start: Path | None,
        scorer: Scorer | None,
        group: Group,
        trial: bool,
    ) -> None:
        self.job, self.folder, self.report, self.start, self.group = job, folder, report, start, group
        self.scorer = scorer if job.score_every > 0 and "affinities" in job.outputs else None
        self.owner = ""
        self.device = choose_device(job.device)
        self.precision = choose_precision(self.device, job.precision)
        self.lsd = _load_lsd(job, lsd_checkpoint)
        lsd_network = self.lsd.metadata.network if self.lsd else None
        if self.lsd is not None:
            self.lsd.network.to(self.device)
        try:
            raw_shape, self.inner_shape = input_shapes(job, lsd_network)
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
        check_labels(training.arrays)
        keep = job.keep_descriptors and self.lsd is not None
        parts = (self.device, job.augmentation, job.crops_at_once)
        self.batches = BatchMaker(job, training, self.inner_shape if keep else raw_shape, *parts, keep)
        # without descriptors, raw need only be as large as the affinity network's input
        self.first_batches = BatchMaker(job, training, self.inner_shape, *parts)
        self.held_out: list[tuple[Batch, torch.Tensor]] = []
        if job.validation and group.first:
            validation = Crops(job.validation, job.seed + 1, job.crop)
            check_voxel_size(validation.arrays, job.voxel_size)
            maker = BatchMaker(job, validation, raw_shape, self.device, NO_AUGMENTATION, 1)
            # what a frozen network makes of them never changes either
            batches = [maker.make(n) for n in range(job.validation_crops)]
            self.held_out = [(batch, self._inputs(batch)) for batch in batches]
        check_memory(job, lsd_network, self.device, self.precision)
        # the largest blocks that they are computed in are as large as a crop would need
        self.keeps, self.largest_block, self.trial = (training.arrays if keep else []), raw_shape, trial
        self._begin()

    def _keep_descriptors(self, stop: threading.Event) -> None:
        """Let the descriptor network see the training volumes, as far as crops do."""
        job, lsd = self.job, self.lsd
        seen = input_shape(self.inner_shape, job.augmentation, job.voxel_size)
        z, y, x = (n // 2 + 1 + output // 2 for n, output in zip(seen, job.crop, strict=True))
        started = time.monotonic()
        for number, arrays in enumerate(self.keeps):
            assert lsd is not None

            def tell(share: float, name: str = arrays.name) -> None:
                self.report(0, job.iterations, f"descriptors of {name}: {share:.0%}")

            arrays.descriptors = keep_descriptors(
                arrays.raw,
                region_of(arrays.cells, arrays.shape, (z, y, x)),
                self.folder / KEPT / f"{number}.npy",
                None if self.trial else partial(self._run, lsd.network),
                lsd.metadata.network,
                self.largest_block,
                self.device,
                tell,
                stop.is_set,
                self.group,
            )
        self.seconds += time.monotonic() - started

    def _begin(self) -> None:
        """Weights, optimiser and scores as they are before the first step."""
        job = self.job
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            self.network = UNet(job.geometry)
        if self.start is not None:
            start_from(self.network, job, self.start)
        elif self.lsd is not None and job.begins_with(self.lsd.metadata.network):
            self.network.begin_with(self.lsd.network)
            # every output begins at one half: a random head on large features drives the first steps so far that ReLUs
            # may die for good
            torch.nn.init.zeros_(self.network.head.weight)
        self.network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        self.network.recompute = job.recompute
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=job.learning_rate, betas=(0.95, 0.999), eps=1e-8, fused=True
        )
        # without a scale, fp16 loses small gradients
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.step, self.seconds, self.waited = 0, 0.0, 0.0
        self.best, self.worse, self.plateaus = math.inf, 0, 0
        self.skipped: list[int] = []
        self.curve: list[dict[str, Any]] = []

    def run(self) -> Path:
        best, last = checkpoint_paths(self.folder)
        if self.group.first:
            write_text(self.folder / "job.json", self.job.model_dump_json(indent=2))
        self._resume()
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(self.folder / "tensorboard", purge_step=self.step) if self.group.first else None
        try:
            # on a GPU too, the run that goes on shall equal the one that was not stopped
            with stop_requests() as stop, torch.backends.cudnn.flags(deterministic=True, benchmark=False):
                if not self._is_over():
                    self._keep_descriptors(stop)
                while not self._loop(stop, board):
                    pass
        except KeyboardInterrupt:  # the second request: what counts is what was saved last
            raise Interrupted(
                "Stopped at once. Run the same command again: training goes on from the last state that was saved."
            ) from None
        finally:
            if board is not None:
                board.close()
        if self.group.first:
            # once more: a run that was killed right after its last state has not written it
            self._save_checkpoint(last)
            write_json(self.folder / "done.json", self._summary(best))
            shutil.rmtree(self.folder / KEPT, ignore_errors=True)  # of no more use
        return best

    def _summary(self, best: Path) -> dict[str, Any]:
        losses = [entry["validation"] for entry in self.curve if "validation" in entry]
        return {
            "setup": self.job.setup,
            "fingerprint": self.job.fingerprint(),
            "steps": self.step,
            "stopped_early": self.step < self.job.iterations,
            "seconds": round(self.seconds, 1),
            "waited_for_batches": round(self.waited / self.seconds, 4) if self.seconds else 0.0,
            "skipped_batches": self.skipped,
            "best_validation_loss": min(losses, default=math.inf),
            "best_voi": self.best if self.scorer else None,
            "checkpoint": best.name,
            "checkpoint_sha256": hash_file(best),
            "device": str(self.device),
            "processes": self.group.size,
            "precision": self.precision,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def _loop(self, stop: threading.Event, board: Any) -> bool:
        """Steps until all are done; False when the state went back, to begin again from there."""
        started, seconds_before = time.monotonic(), self.seconds
        if self._is_over():
            return True
        for number, parts in self._steps():
            left_out = number in self.skipped
            if not left_out:
                loss, culprits = self._step(parts, number)
                if culprits:
                    self._go_back(number, loss, culprits)
                    return False
            self.step = number + 1
            self.seconds = seconds_before + time.monotonic() - started
            if not left_out:
                self._tell(loss, board)
            at_end = self.step == self.job.iterations
            self._judge(at_end, board)
            if self.group.first and not left_out and (self._due(self.job.snapshot_every) or at_end):
                self._snapshot(parts[0])
            asked = self.group.add([float(stop.is_set())], self.device)[0] > 0
            if (self._due(self.job.checkpoint_every) and not left_out) or self._is_over() or asked:
                self._save_state()
            if self._is_over():
                return True
            if asked:
                raise Interrupted(
                    f"Stopped after step {self.step} of {self.job.iterations}; all of it is kept. Run the same command "
                    "again to go on from there."
                )
        raise AssertionError("the last step is over")

    def _tell(self, loss: float, board: Any) -> None:
        """Write down and report the loss of the step that was just made."""
        self.curve.append({"step": self.step, "loss": loss, "seconds": round(self.seconds, 2)})
        if board is not None:
            board.add_scalar("loss/training", loss, self.step)
        idle = self.waited / self.seconds
        words = f"loss {self._smooth_loss():.4f}" + (f", waited {idle:.0%}" if idle >= 0.01 else "")
        self.report(self.step, self.job.iterations, words)

    def _steps(self) -> Iterator[tuple[int, list[Batch]]]:
        """This process's parts of every step that is left, prepared ahead; none of a step that is left out."""
        per_step = self.job.parts
        own = self.group.own(per_step)
        border = max(self.step, min(self.job.raw_first, self.job.iterations))
        first, rest = range(self.step, border), range(border, self.job.iterations)
        ahead = itertools.chain.from_iterable(
            maker.ahead(n * per_step + part for n in steps if n not in self.skipped for part in own)
            for maker, steps in ((self.first_batches, first), (self.batches, rest))
        )
        for number in (*first, *rest):
            before = time.monotonic()
            parts = [] if number in self.skipped else [next(ahead)[1] for _ in own]
            self.waited += time.monotonic() - before
            yield number, parts

    def _judge(self, at_end: bool, board: Any) -> None:
        """Losses on held-out crops and scores of the whole chain, when they are due; the best network is kept."""
        if self._due(self.job.validate_every) or at_end:
            loss = self.group.tell([self._validate() if self.group.first else 0.0], self.device)[0]
            self.curve.append({"step": self.step, "validation": loss})
            if board is not None:
                board.add_scalar("loss/validation", loss, self.step)
            if self.scorer is None:
                self._keep_if_best(loss)
        if self.scorer is not None and (self._due(self.job.score_every) or at_end):
            entry: dict[str, Any] = {"step": self.step, "voi": 0.0}
            if self.group.first:
                self.report(self.step, self.job.iterations, "scoring the whole chain on the validation volumes")
                newest = checkpoint_paths(self.folder)[1]
                self._save_checkpoint(newest)
                score = self.scorer(newest)
                entry |= dataclasses.asdict(score)
            entry["voi"] = self.group.tell([entry["voi"]], self.device)[0]
            self.curve.append(entry)
            if board is not None:
                board.add_scalar("VOI", entry["voi"], self.step)
            self._keep_if_best(entry["voi"])

    def _keep_if_best(self, value: float) -> None:
        self.worse = 0 if value < self.best else self.worse + 1
        if self.worse > 0 and self.worse % PLATEAU == 0:
            self.plateaus += 1
        if value < self.best:
            self.best = value
            if self.group.first:
                self._save_checkpoint(checkpoint_paths(self.folder)[0])

    def _is_over(self) -> bool:
        """Whether all steps are done, or the scores have stopped falling."""
        on_plateau = self.job.patience is not None and self.worse >= self.job.patience
        return self.step >= self.job.iterations or on_plateau

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _step(self, parts: list[Batch], number: int) -> tuple[float, list[str]]:
        """Change the weights; the loss, and where the crops lie that made it no number (then nothing has changed)."""
        job = self.job
        rate = learning_rate(number, job.iterations, job.learning_rate, job.schedule, self.plateaus)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        culprits: list[str] = []
        for batch in parts:
            loss = self._loss(batch, self._run(self.network, self._inputs(batch))) / job.parts
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach())
            total += value
            if not math.isfinite(value):
                culprits += batch.crops
        self.group.add_gradients(self.network.parameters())
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.get_total_norm([w.grad for w in self.network.parameters() if w.grad is not None])
        total = self.group.add([total], self.device)[0]
        # with a scale, gradients that are too large are nothing special: the step is left out and the scale halved
        broken = not math.isfinite(total) or (not math.isfinite(float(norm)) and not self.scaler.is_enabled())
        if broken:
            return total, culprits or [place for batch in parts for place in batch.crops]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._update_average(number)
        return total, []

    def _go_back(self, number: int, loss: float, culprits: list[str]) -> None:
        """Take up the last state that was saved and leave this step's crops out from now on."""
        skipped, where = [*self.skipped, number], ", ".join(culprits)
        self.report(self.step, self.job.iterations, f"loss {loss} with {where}: left out, back to the last state")
        self._begin()
        self._resume()
        if sum(n >= self.step for n in skipped) > MOST_SKIPPED:
            raise UserError(
                f"The loss of {self.job.setup} became {loss} at step {number}, with {where}; {MOST_SKIPPED} batches "
                "shortly before were left out for the same reason. Look at that place, or lower "
                "`training.learning_rate`."
            )
        self.skipped = skipped
        self.curve.append({"step": self.step, "skipped": number, "crops": culprits})

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

    def _inputs(self, batch: Batch) -> torch.Tensor:
        """Raw, or descriptors, or both, as the setup wants them; descriptors pass through uint8 as when stored."""
        raw, channels = batch.raw, []
        for name in SETUPS[self.job.setup].inputs:
            if name == "raw":
                channels.append(crop(raw, self.inner_shape))
                continue
            assert self.lsd is not None
            if batch.descriptors is not None:
                channels.append(batch.descriptors)
                continue
            if raw.shape[2:] == self.inner_shape:  # made by `first_batches`
                channels.append(raw.new_zeros((len(raw), LSD_CHANNELS, *self.inner_shape)))
                continue
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
            return float(np.mean(losses[-self.job.validate_every :] or [math.nan]))
        losses = [float(self._loss(batch, self._run(self.average, inputs))) for batch, inputs in self.held_out]
        return float(np.mean(losses))

    @torch.inference_mode()
    def _snapshot(self, batch: Batch) -> None:
        batch, inputs = self.held_out[0] if self.held_out else (batch, self._inputs(batch))
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
        self._check_owner()
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
                "validation_loss": next((e["validation"] for e in reversed(self.curve) if "validation" in e), None),
                "voi": next((e["voi"] for e in reversed(self.curve) if "voi" in e), None),
            },
        )
        save_checkpoint(path, metadata, self.average.state_dict(), self.lsd)

    def _check_owner(self) -> None:
        """Write nothing where another run does: one that SLURM started in place of this, whose node it has lost."""
        if not holds(self.folder / "lock", self.owner):
            raise Interrupted("Stopped: another run has taken this training over, and goes on with it.")

    def _save_state(self) -> None:
        if not self.group.first:
            return
        self._check_owner()
        save_state(
            self.folder,
            {
                "step": self.step,
                "seconds": self.seconds,
                "waited": self.waited,
                "best": self.best,
                "worse": self.worse,
                "plateaus": self.plateaus,
                "skipped": self.skipped,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            },
            self.curve,
        )
        self._save_checkpoint(checkpoint_paths(self.folder)[1])

    def _resume(self) -> None:
        """Take up the last state that was saved, if there is one."""

        def take(state: dict[str, Any], curve: list[dict[str, Any]]) -> None:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            self.step, self.seconds, self.waited = int(state["step"]), float(state["seconds"]), float(state["waited"])
            self.best, self.worse = float(state["best"]), int(state["worse"])
            self.plateaus = int(state["plateaus"])
            self.skipped, self.curve = [int(n) for n in state["skipped"]], curve

        load_state(self.folder, self.device, take)


def _load_lsd(job: TrainingJob, path: Path | None) -> Checkpoint | None:
    if not SETUPS[job.setup].needs_lsd_network:
        return None
    if path is None:
        raise UserError(f"Setup {job.setup} needs a trained descriptor network. Run `neuroloom train lsd` first.")
    file = load_checkpoint(path)
    loaded = file.lsd or file
    metadata = loaded.metadata
    if metadata.setup != "lsd":
        raise UserError(f"{path} is of setup {metadata.setup!r}; expected a descriptor network (lsd).")
    if job.lsd_sha256 is not None and file.sha256 != job.lsd_sha256:
        raise UserError(f"{path} is not the descriptor network this training began with. Put the right file back.")
    if metadata.sigma_nm is None or abs(metadata.sigma_nm - job.sigma_nm) > 1e-6:
        raise UserError(
            f"The descriptor network {path} was trained with sigma {metadata.sigma_nm:g} nm, the project's `sigma_nm` "
            f"is {job.sigma_nm:g} nm. Train it again with `neuroloom train lsd`, or set `sigma_nm` back."
        )
    if not same_voxel_size(metadata.voxel_size, job.voxel_size):
        raise UserError(
            f"The descriptor network {path} was trained on voxels of {metadata.voxel_size} nm, the project's are "
            f"{job.voxel_size} nm. Train it again with `neuroloom train lsd`."
        )
    return loaded
