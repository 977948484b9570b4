"""`neuroloom run`, and one command for every step."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from neuroloom.blockwise import Stage
from neuroloom.blockwise.failures import finished_blocks
from neuroloom.chain import Chain, Step, all_steps, open_project
from neuroloom.chain.artifacts import STAGES
from neuroloom.chain.prediction_plan import calibrate, calibration_file, plan_prediction
from neuroloom.chain.running import running_on
from neuroloom.chain.selecting import Selection, parse_selection
from neuroloom.chain.steps import OVERLAPPING, steps_beside
from neuroloom.cli.progress import duration, show_progress, show_progresses
from neuroloom.errors import UserError
from neuroloom.project import RawVolume, allow_resampling

ProjectOption = Annotated[Path, typer.Option("--project", "-p", help="The project's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For scripts: one JSON object instead of text.")]
OnOption = Annotated[
    str | None,
    typer.Option("--on", help="Profile of a cluster (or `local`) whose workers do the work; default: this machine."),
]
TakeOverOption = Annotated[
    bool,
    typer.Option("--take-over", help="Go on where a run on another machine left off, if it gives no sign of life."),
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", help='Only blocks of these numbers, such as "3,7-9"; `run`: of the next step.')
]
RoiOption = Annotated[
    str | None,
    typer.Option("--roi", help='Only blocks in a region, in voxels z, y, x from the first one: "0:64,128:256,0:256".'),
]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Only the blocks that failed the last time.")]
VolumeArgument = Annotated[list[str] | None, typer.Argument(help="Names of volumes; default: all.")]


def run_command(
    project: ProjectOption = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    on: OnOption = None,
    take_over: TakeOverOption = False,
    delete_intermediate: Annotated[
        bool,
        typer.Option("--delete-intermediate", help="Delete affinities as soon as no later step is to read them."),
    ] = False,
    only: OnlyOption = None,
    roi: RoiOption = None,
    retry_failed: RetryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Do all that is missing, in order: train, predict, fragments, agglomerate, evaluate, segment, report.

    Everything can be interrupted (Ctrl-C) and goes on where it was with the same command.
    """
    selection = parse_selection(only, roi, retry_failed)
    chain = _chain(project, on, take_over, delete_intermediate)
    if selection is not None:
        run_selected(chain, selection, quiet=as_json)
        return
    steps = all_steps(chain)
    if as_json:
        print(
            json.dumps({"project": str(chain.project.folder), "steps": [step_json(step) for step in steps]}, indent=2)
        )
        if dry_run:
            return
    else:
        print_plan(chain, steps)
    chain.check_threshold()
    if dry_run:
        return
    run_all(chain, quiet=as_json)


def run_all(chain: Chain, quiet: bool = False) -> None:
    """Run every step that is not done, then write the report."""
    from neuroloom.chain.report import write_project_report

    started = time.monotonic()
    for name in [step.name for step in all_steps(chain)]:
        # what a step is follows from what is done before it
        steps = all_steps(chain)
        step = next(step for step in steps if step.name == name)
        beside, owner, volume = steps_beside(steps, step), step.chain, step.volume
        if beside and owner is not None and volume is not None:
            run_beside(owner, volume, beside, quiet)
        elif step.state != "done":
            run_step(chain, step, quiet)
    if chain.running.delete_intermediate:
        for segmented in chain.volumes:
            read = chain.affinities_read(segmented)
            if read is not None:
                read.delete()
    report = write_project_report(chain)
    if not quiet:
        print(f"\nAll done in {duration(time.monotonic() - started)}.")
        print_results(chain)
        print(f"Report:  {report}\nLook:    neuroloom view {chain.project.option}")


def run_step(chain: Chain, step: Step, quiet: bool = False) -> None:
    """Do what is missing of one step, with progress; of predictions, say before what they take, and then what they did.

    Args:
        chain: The project's.
        step: One of its steps.
        quiet: Say nothing.
    """
    if quiet:
        step.run(lambda done, total, words: None)
        return
    kind, _, name = step.name.partition(" ")
    if kind == "predict" and chain.members:
        print(f"  {step.name}: {plan_prediction(chain, chain.volume(name))}", flush=True)
    with show_progress(step.name) as advance:
        step.run(advance)
    stage = chain.predict(chain.volume(name)) if kind == "predict" else None
    if stage is not None:
        print(f"  {step.name}: {stage.measured}", flush=True)


def run_beside(owner: Chain, volume: RawVolume, steps: Sequence[Step], quiet: bool = False) -> None:
    """Do what is missing of steps at the same time, block by block.

    Args:
        owner: The project's chain, or its baseline's.
        volume: The one whose steps they are.
        steps: In their order.
        quiet: Say nothing.
    """
    stages = [stage for stage in owner.to_edges(volume) if stage.folder in {step.folder for step in steps}]
    if quiet:
        owner.run_stages([(stage, lambda done, total, words: None, None) for stage in stages])
        return
    if steps[0].name.startswith("predict") and owner.members:
        print(f"  {steps[0].name}: {plan_prediction(owner, volume)}", flush=True)
    with show_progresses([step.name for step in steps]) as advances:
        owner.run_stages([(stage, advance, None) for stage, advance in zip(stages, advances, strict=True)])
    predict = owner.predict(volume)
    if predict is not None and predict.measurements.exists():
        print(f"  predict {volume.name}: {predict.measured}", flush=True)


def run_selected(chain: Chain, selection: Selection, quiet: bool = False) -> None:
    """Do some blocks of the steps that have any, and say what is done of them.

    Args:
        chain: The project's.
        selection: Which: of the next step, or in a region of all steps to the edges, or those that failed.
        quiet: Say nothing but the result.
    """
    touched = 0
    for volume in chain.volumes:
        stages = chain.to_edges(volume)
        if not stages:
            raise UserError("Single blocks need a trained network. Run `neuroloom train` first.")
        if not selection.touches(stages[0]):
            continue
        touched += 1
        chosen = selection.of(stages)
        if not chosen:
            print(f"{volume.name}: {'no block failed the last time' if selection.failed else 'all blocks are done'}.")
        _run_blocks(chain, volume, chosen, quiet)
    if selection.roi is not None and not touched:
        raise UserError(
            "--roi lies outside of all volumes of the project; it is in voxels from the first one, z, y, x."
        )
    print(f"Next: neuroloom run {chain.project.option}")


def _run_blocks(
    chain: Chain, volume: RawVolume, chosen: Sequence[tuple[Stage, frozenset[int]]], quiet: bool = False
) -> None:
    """Do blocks of stages of one volume, and say what is done of them."""
    if not chosen:
        return
    names = [f"{STAGES[type(stage)]} {volume.name}" for stage, _ in chosen]
    with show_progresses([] if quiet else names) as advances:
        advances = advances or [lambda done, total, words: None] * len(chosen)
        chain.run_stages(
            [(stage, advance, numbers) for (stage, numbers), advance in zip(chosen, advances, strict=True)]
        )
    for name, (stage, _) in zip(names, chosen, strict=True):
        done = int(np.count_nonzero(finished_blocks(stage)))
        print(f"{name}: {done} of {stage.block_count} blocks are done: {stage.folder}")


def print_plan(chain: Chain, steps: list[Step], notes: Mapping[str, list[str]] | None = None) -> None:
    """What is done, what will be done, and roughly how long it takes.

    Args:
        chain: The project's.
        steps: Its steps.
        notes: Lines that follow a step, by its name.
    """
    print(f"Project {chain.project.folder}")
    width = max(len(step.name) for step in steps)
    for step in steps:
        when = ""
        if step.seconds is not None:
            when = f"{'took' if step.state == 'done' else 'about'} {duration(step.seconds)}"
        elif step.name.startswith("predict"):
            when = "time not known"
        print(f"  {step.state:<6}  {step.name:<{width}}  {when:<16}  {step.why}")
        for note in (notes or {}).get(step.name, ()):
            print(f"          {note}")
    for volume in filter(chain.is_trained_on, chain.validation_volumes):
        print(f"Note: {volume.name} is trained on as well; its scores say little of other volumes.")
    left = [step for step in steps if step.state != "done"]
    unknown = any(step.name.startswith("predict") and step.seconds is None for step in left)
    seconds = duration(sum(step.seconds or 0.0 for step in left))
    besides = ", and what somebody else's network takes to predict" if unknown else ""
    print(f"Left: roughly {seconds} on this machine{besides}." if left else "Everything is done.")


def print_results(chain: Chain) -> None:
    """Scores and where the segmentations lie."""
    for volume in chain.validation_volumes:
        evaluation = chain.evaluation(volume)
        if evaluation is None:
            continue
        used = evaluation.used
        line = f"VOI sum on {volume.name}: {used.plain.voi_sum:.3f}"
        for name, scores in (("one voxel", used.eroded_1), ("two", used.eroded_2)):
            if scores is not None:
                line += f", truth eroded by {name} {scores.voi_sum:.3f}"
        print(f"{line} (bits, split + merge, truth 0 ignored, threshold {used.threshold:g}: {evaluation.why_used})")
    for segmented in chain.volumes:
        stage = chain.segment(segmented)
        if stage is not None and stage.is_done():
            print(f"Segmentation of {segmented.name}: {stage.output.path} (dataset {stage.output.dataset})")


def step_json(step: Step) -> dict[str, Any]:
    """A step as JSON."""
    return {
        "name": step.name,
        "state": step.state,
        "why": step.why,
        "folder": None if step.folder is None else str(step.folder),
        "seconds": None if step.seconds is None else round(step.seconds, 1),
        "changes": [asdict(change) for change in step.changes],
    }


def predict_command(
    volumes: VolumeArgument = None,
    project: ProjectOption = Path(),
    calibrate_first: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Only predict a piece, two minutes at most, and keep how fast and with how much memory."
        ),
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only say how volumes are cut, memory and speed.")] = False,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            help="Resample volumes of other voxels than the network was trained on, for this and all later commands: "
            "written into the project.",
        ),
    ] = False,
    on: OnOption = None,
    take_over: TakeOverOption = False,
    only: OnlyOption = None,
    roi: RoiOption = None,
    retry_failed: RetryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict affinities."""
    if resample:
        allow_resampling(project)
    if as_json and not (plan or calibrate_first):
        raise UserError("--json goes with --plan or --calibrate.")
    chain = Chain(open_project(project))
    if calibrate_first:
        found = calibrate(chain, _chosen(chain, volumes)[0])
        print(found.model_dump_json(indent=2) if as_json else f"{found}\nKept in {calibration_file(chain)}.")
    elif plan:
        plans = [plan_prediction(chain, volume) for volume in _chosen(chain, volumes)]
        if as_json:
            print(json.dumps([planned.model_dump(mode="json") for planned in plans], indent=2))
        else:
            print("\n".join(f"{planned.volume}: {planned}" for planned in plans))
    else:
        selection = parse_selection(only, roi, retry_failed)
        _stage_command("predict", "fragments", volumes, _chain(project, on, take_over), selection)


def fragments_command(
    volumes: VolumeArgument = None,
    project: ProjectOption = Path(),
    on: OnOption = None,
    take_over: TakeOverOption = False,
    only: OnlyOption = None,
    roi: RoiOption = None,
    retry_failed: RetryOption = False,
) -> None:
    """Cut affinities into fragments (supervoxels)."""
    selection = parse_selection(only, roi, retry_failed)
    _stage_command("fragments", "agglomerate", volumes, _chain(project, on, take_over), selection)


def agglomerate_command(
    volumes: VolumeArgument = None,
    project: ProjectOption = Path(),
    on: OnOption = None,
    take_over: TakeOverOption = False,
    only: OnlyOption = None,
    roi: RoiOption = None,
    retry_failed: RetryOption = False,
) -> None:
    """Score which fragments belong together, and build the merge forest."""
    selection = parse_selection(only, roi, retry_failed)
    _stage_command("agglomerate", "evaluate", volumes, _chain(project, on, take_over), selection)


def evaluate_command(
    volumes: VolumeArgument = None, project: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Score validation volumes at every threshold; the best is written into the project."""
    chain = Chain(open_project(project))
    if not chain.validation_volumes:
        raise UserError(f"{chain.project.file} names no validation volume. Add [[volumes.validate]] with truth.")
    chosen = [v for v in chain.validation_volumes if not volumes or v.name in volumes]
    for name in volumes or []:
        if name not in {v.name for v in chosen}:
            names = ", ".join(v.name for v in chain.validation_volumes)
            raise UserError(f"{name!r} is no validation volume; expected one of {names}.")
    for volume in chosen:
        if chain.evaluation(volume) is None:
            with show_progress(f"evaluate {volume.name}") as advance:
                chain.evaluate(volume, advance)
    if all(chain.evaluation(volume) is not None for volume in chain.validation_volumes):
        chain.choose_threshold()
    if as_json:
        evaluations = {v.name: e.model_dump(mode="json") for v in chosen if (e := chain.evaluation(v)) is not None}
        print(json.dumps(evaluations, indent=2))
        return
    print_results(chain)
    settings = chain.parameters.segmentation
    if settings.chosen_threshold is not None:
        print(
            f"Threshold {settings.chosen_threshold:g} is written into {chain.project.file}: {settings.chosen_because}."
        )
    print(f"Next: neuroloom segment {chain.project.option}")


def segment_command(
    volumes: VolumeArgument = None,
    project: ProjectOption = Path(),
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Merge threshold; default: the project's.")
    ] = None,
    materialize: Annotated[
        bool | None,
        typer.Option(
            "--materialize/--no-materialize",
            help="Write the segmentation, or only the table from fragments to segments; default: the project's.",
        ),
    ] = None,
    on: OnOption = None,
    take_over: TakeOverOption = False,
) -> None:
    """Cut the merge forest at a threshold and write the segmentation. A higher threshold merges more."""
    chain = _chain(project, on, take_over)
    if threshold is None and chain.project.threshold is None:
        raise UserError(
            "No threshold is chosen yet. Run `neuroloom evaluate` (with validation volumes), set "
            "`segmentation.threshold`, or give --threshold."
        )
    for name in volumes or [v.name for v in chain.volumes]:
        wanted = chain.volume(name)
        stage = chain.segment(wanted, threshold, materialize)
        agglomerate = chain.agglomerate(wanted)
        if stage is None or agglomerate is None or not agglomerate.is_done():
            raise UserError(f"{name} is not agglomerated yet. Run `neuroloom agglomerate {name}` first.")
        with show_progress(f"segment {name}") as advance:
            chain.run_stage(stage, f"`segment {name}`", advance)
        what, where = ("Segmentation", stage.output.path) if stage.materialize else ("Table", stage.lookup_file)
        print(f"{what} of {name} at threshold {stage.threshold:g}: {where}")
    print(f"Next: neuroloom view {chain.project.option}")


def report_command(project: ProjectOption = Path()) -> None:
    """Write the report of what is done: one HTML page."""
    from neuroloom.chain.report import write_project_report

    print(f"Report: {write_project_report(Chain(open_project(project)))}")


BEFORE = {"fragments": "predict", "agglomerate": "fragments"}


def _chain(project: Path, on: str | None, take_over: bool, delete_intermediate: bool = False) -> Chain:
    """The chain of a project whose blocks are run where a profile says."""
    opened = open_project(project)
    return Chain(opened, running_on(opened, on, take_over, delete_intermediate))


def _stage_command(
    name: str, following: str, volumes: list[str] | None, chain: Chain, selection: Selection | None = None
) -> None:
    for volume in _chosen(chain, volumes):
        steps = {step.name: step for step in all_steps(chain)}
        before = steps.get(f"{BEFORE.get(name)} {volume.name}")
        if before is not None and before.state != "done":
            raise UserError(f"{volume.name} is not ready: run `neuroloom {BEFORE[name]} {volume.name}` first.")
        step = steps[f"{name} {volume.name}"]
        if selection is not None:
            _run_selected_blocks(chain, step, volume, selection)
            continue
        if step.state != "done":
            run_step(chain, step)
        step = next(s for s in all_steps(chain) if s.name == f"{name} {volume.name}")
        print(f"{step.name}: {step.folder}")
    print(f"Next: neuroloom {following} {chain.project.option}")


def _run_selected_blocks(chain: Chain, step: Step, volume: RawVolume, selection: Selection) -> None:
    kind = step.name.split()[0]
    stages = dict(zip(OVERLAPPING, chain.to_edges(volume), strict=False))
    if kind not in stages:
        raise UserError(f"`{step.name}` needs a trained network. Run `neuroloom train` first.")
    numbers = selection.blocks(stages[kind])
    if not numbers:
        print(f"{step.name}: no block failed the last time.")
    elif stages[kind].is_done():
        print(f"{step.name}: all {stages[kind].block_count} blocks are done: {stages[kind].folder}")
    else:
        _run_blocks(chain, volume, [(stages[kind], numbers)])


def _chosen(chain: Chain, volumes: list[str] | None) -> list[RawVolume]:
    """Volumes by name, or all that are segmented; at least one."""
    chosen = [chain.volume(volume) for volume in volumes] if volumes else list(chain.volumes)
    if not chosen:
        raise UserError(
            f"{chain.project.file} names no volume to segment. Add [[volumes.predict]] or [[volumes.validate]]."
        )
    return chosen
