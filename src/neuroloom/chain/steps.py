"""The steps of a project as `run` and `status` see them: what is done, what is begun, what is missing, and doing it.

train lsd, if the setup needs it -> train SETUP -> for every volume: predict -> fragments -> agglomerate
                                                   for validation volumes: evaluate -> the threshold
                                                   for every volume: segment
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from neuroloom.blockwise import Stage
from neuroloom.blockwise.intermediate import deleted_blocks
from neuroloom.blockwise.run import read_done
from neuroloom.chain import estimates
from neuroloom.chain.artifacts import Chain, Progress
from neuroloom.chain.changes import Change, in_words, stage_changes, training_changes
from neuroloom.chain.prediction_plan import plan_prediction
from neuroloom.files import read_json_lines
from neuroloom.project import LabelledVolume, RawVolume

State = Literal["done", "begun", "to do"]
OVERLAPPING = ("predict", "fragments", "agglomerate")
"""Steps that may run at the same time, block by block."""


@dataclass(frozen=True)
class Step:
    """One step of the chain as `status` and `run` see it.

    Attributes:
        name: Unique: "train lsd", "predict val".
        state: "done", "begun" (some of it is there), or "to do".
        why: Why it is to be done, in a few words.
        folder: Where its results lie; None while its fingerprint is unknown.
        seconds: How long it took, or a rough estimate of how long it takes; None where that is not known.
        run: Does what is missing of it.
        changes: What is other than when it was done last, if it was and is to be done again.
        chain: Of a step that has blocks: whose it is, the project's or its baseline's.
        volume: Likewise: the one whose blocks they are.
    """

    name: str
    state: State
    why: str
    folder: Path | None
    seconds: float | None
    run: Callable[[Progress], None] = field(repr=False)
    changes: tuple[Change, ...] = ()
    chain: Chain | None = field(default=None, repr=False)
    volume: RawVolume | None = None

    @property
    def may_overlap(self) -> bool:
        """Whether it may run at the same time as the steps beside it that may, of the same volume."""
        return self.volume is not None and self.name.removeprefix("baseline ").split()[0] in OVERLAPPING


def steps_beside(steps: Sequence[Step], step: Step) -> list[Step]:
    """Steps that are to be done and run at the same time as one of them, itself included; at least two, or none.

    Args:
        steps: All of a project.
        step: One of them.
    """
    if step.chain is None or not step.may_overlap or not step.chain.stages_overlap:
        return []
    owner = step.chain, step.volume
    beside = [s for s in steps if s.may_overlap and s.state != "done" and (s.chain, s.volume) == owner]
    return beside if len(beside) > 1 else []


def all_steps(chain: Chain) -> list[Step]:
    """All steps of a project in order, with their state now."""
    steps = _steps_to_scores(chain, chain.volumes)
    if chain.validation_volumes and chain.parameters.segmentation.threshold == "auto":
        done = chain.choice_is_current
        why = f"threshold {chain.project.threshold:g}" if done and chain.project.threshold is not None else "not chosen"
        steps.append(
            Step("choose threshold", "done" if done else "to do", why, None, None, lambda _: chain.choose_threshold())
        )
    steps += [_stage_step(chain, "segment", volume, chain.segment) for volume in chain.volumes]
    baseline = chain.baseline()
    if baseline is not None:
        for step in _steps_to_scores(baseline, chain.validation_volumes):
            steps.append(replace(step, name=step.name if step.name == "train affs" else f"baseline {step.name}"))
    return steps


def _steps_to_scores(chain: Chain, volumes: Sequence[RawVolume]) -> list[Step]:
    steps = [_training_step(chain, setup) for setup in chain.setups]
    for volume in volumes:
        for name, make in (
            ("predict", chain.predict),
            ("fragments", chain.fragments),
            ("agglomerate", chain.agglomerate),
        ):
            steps.append(_stage_step(chain, name, volume, make))
        if isinstance(volume, LabelledVolume):
            steps.append(_evaluation_step(chain, volume))
    return steps


def _training_step(chain: Chain, setup: str) -> Step:
    folder = chain.training_folder(setup)
    trained = chain.trained(setup)
    begun = folder is not None and (folder / "state.pt").exists()
    state: State = "done" if trained else "begun" if begun else "to do"
    job = chain.job(setup)
    length = chain.parameters.training.length(setup)
    why = f"{length.iterations} steps"
    step, spent = 0, 0.0
    changes: tuple[Change, ...] = ()
    if job is not None and folder is not None and not trained and not begun:
        changes = training_changes(job, folder)
    if trained:
        voi, loss = trained.summary["best_voi"], trained.summary["best_validation_loss"]
        best = f"validation loss {loss:.4f}" if voi is None else f"lowest VOI {voi:.3f}"
        why = f"{trained.summary['steps']} steps, {best}"
    elif begun and folder is not None:
        step, spent = _last_step(folder)
        why = f"{step} of {length.iterations} steps are done"
    elif job is None:
        why += "; waits for the descriptor network"
    why = "; ".join(filter(None, (why, in_words(changes))))
    if trained:
        seconds = float(trained.summary["seconds"])
    elif begun and step > 0:
        seconds = spent / step * (length.iterations - step)
    else:
        seconds = estimates.training(chain.project, setup)
        if chain.scored_in_training(setup):
            seconds += estimates.scoring(chain.parameters, chain.networks, chain.scored_shapes)
    return Step(f"train {setup}", state, why, folder, seconds, lambda progress: chain.train(setup, progress), changes)


def _stage_step(chain: Chain, name: str, volume: RawVolume, make: Callable[[RawVolume], Stage | None]) -> Step:
    stage = make(volume)
    size = chain.raw(volume).open().shape
    state: State = "to do"
    why, folder = "waits for what comes before", None
    seconds: float | None = None
    changes: tuple[Change, ...] = ()
    if stage is not None:
        folder = stage.folder
        state = "done" if stage.is_done() else "begun" if (folder / "stage.json").exists() else "to do"
        why = f"{stage.block_count} block{'s' if stage.block_count != 1 else ''}"
        if state == "done":
            seconds = float(read_done(stage)["seconds"])
        else:
            inputs = [chain.predict(volume), chain.fragments(volume), chain.agglomerate(volume)]
            changes = stage_changes(stage, [made for made in inputs if made], chain.project.folder / "training")
            why = "; ".join(filter(None, (why, in_words(changes))))
        read = chain.affinities_read(volume) if name == "predict" else None
        if read is not None and (deleted := int(np.count_nonzero(deleted_blocks(stage)))):
            if again := int(np.count_nonzero(read.wanted_again())):
                state, why = "begun", f"{why}; affinities of {again} are deleted, and wanted again"
            else:
                why += f"; affinities of {deleted} are deleted, since no step is to read them"
    # how many operations somebody else's network takes is not known
    if state != "done" and (name != "predict" or chain.members):
        if name == "predict" and stage is not None:
            rate = plan_prediction(chain, volume).voxels_per_second
            seconds = estimates.SECONDS_PER_STAGE + math.prod(size) / rate
        else:
            seconds = estimates.stage(chain.parameters, name, size, chain.networks)
    return Step(
        f"{name} {volume.name}",
        state,
        why,
        folder,
        seconds,
        lambda progress: chain.run_stage(make(volume), f"`{name} {volume.name}`", progress),
        changes,
        chain,
        volume,
    )


def _evaluation_step(chain: Chain, volume: LabelledVolume) -> Step:
    evaluation = chain.evaluation(volume)
    file = chain.evaluation_file(volume)
    why = f"VOI sum {evaluation.used.plain.voi_sum:.3f}" if evaluation else "not scored"
    if evaluation is None and file is not None and any(file.parent.glob(f"{volume.name}-{12 * '[0-9a-f]'}.json")):
        why += " with these settings, this truth and this agglomeration"
    size = chain.raw(volume).open().shape
    return Step(
        f"evaluate {volume.name}",
        "done" if evaluation else "to do",
        why,
        file,
        None if evaluation else estimates.stage(chain.parameters, "evaluate", size, chain.networks),
        lambda progress: chain.evaluate(volume, progress),
    )


def _last_step(folder: Path) -> tuple[int, float]:
    """The last step of a training that is not done, and the seconds spent until then."""
    entries = read_json_lines(folder / "curve.jsonl")
    steps = [(int(entry["step"]), float(entry["seconds"])) for entry in entries if "seconds" in entry]
    return steps[-1] if steps else (0, 0.0)
