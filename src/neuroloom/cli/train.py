"""`neuroloom train`: one network, as long as the project says or as a time allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroloom.chain import Chain, open_project
from neuroloom.chain.networks import setups_to_train
from neuroloom.chain.running import running_on
from neuroloom.cli.progress import duration, show_progress
from neuroloom.cli.run import JsonOption, OnOption, ProjectOption, TakeOverOption
from neuroloom.errors import UserError, one_of
from neuroloom.networks.setups import SETUPS
from neuroloom.project import Training
from neuroloom.volume.array import Triple

if TYPE_CHECKING:
    from neuroloom.chain.training_plan import TrainingPlan


def train_command(
    setup: Annotated[str, typer.Argument(help=f"One of {', '.join(SETUPS)}: what is learned from what.")],
    project: ProjectOption = Path(),
    start: Annotated[
        str | None,
        typer.Option("--from", help="Weights to start from: a model's name or a checkpoint; kept as `training.start`."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Train for about this long: steps are timed, and as many as fit are written into the project.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what it takes: size, operations, memory, measured time per step.")
    ] = False,
    on: OnOption = None,
    take_over: TakeOverOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train one network, or go on with it."""
    if setup not in SETUPS:
        raise UserError(f"There is no setup {setup!r}; expected one of {one_of(setup, SETUPS)}")
    if as_json and not plan:
        raise UserError("--json goes with --plan.")
    if plan and (minutes is not None or start is not None):
        raise UserError("--plan changes nothing; give --minutes or --from without it.")
    if on is not None and (plan or minutes is not None):
        raise UserError("--plan and --minutes time steps on this machine; give them without --on.")
    opened = open_project(project)
    chain = Chain(opened, running_on(opened, on, take_over))
    if start is not None:
        chain.start_from(setup, start)
    if minutes is not None:
        chain = _fit(chain, setup, minutes)
    if plan:
        _plan(chain, setup, as_json)
        return
    trained = chain.trained(setup)
    if trained is None:
        with show_progress(f"train {setup}") as advance:
            chain.train(setup, advance)
        trained = chain.trained(setup)
    assert trained is not None
    print(f"Trained {setup}: {trained.checkpoint}")
    print(f"Pictures of what it sees: {trained.folder / 'snapshots'}")
    following = {"lsd": f"train {chain.setup}", chain.setup: "predict"}.get(setup)
    if following is None:
        print(f'To segment with it, set `setup = "{setup}"` in the section [training] of {chain.project.file}.')
    else:
        print(f"Next: neuroloom {following} {chain.project.option}")


def _plan(chain: Chain, setup: str, as_json: bool) -> None:
    from neuroloom.chain.training_plan import plan_training  # loads PyTorch

    if as_json:
        print(plan_training(chain, setup, lambda done, total, words: None).model_dump_json(indent=2))
        return
    with show_progress("trial") as advance:
        planned = plan_training(chain, setup, advance)
    print(_words(planned))


def _fit(chain: Chain, setup: str, minutes: float) -> Chain:
    """The project with as many steps of a setup as fit into a time; the same again for the same time."""
    from neuroloom.chain.pacing import steps_in, try_trainings  # loads PyTorch

    if chain.parameters.training.length(setup).minutes == minutes:
        return chain
    print(f"Timing a few training steps, to see how many fit into {minutes:g} minutes on this machine.", flush=True)
    with show_progress("trial") as advance:
        trial = try_trainings(chain.project, setups_to_train(setup, chain.parameters.training), advance)[setup]
    key, steps = Training.length_key(setup), steps_in(60 * minutes, trial)
    print(
        f"{trial.seconds:.3g} s per step: `training.{key}.iterations = {steps}` is written into {chain.project.file}."
    )
    return Chain(chain.project.set_length(key, steps, minutes), chain.running)


def _words(plan: TrainingPlan) -> str:
    frozen = f" (and {_count(plan.frozen_weights)} of the frozen descriptor network)" if plan.frozen_weights else ""
    batch = "one crop" if plan.batch_size == 1 else f"{plan.batch_size} crops"
    keeping = f", after {duration(plan.keeping_seconds)} at most for descriptors" if plan.keeping_seconds else ""
    scoring = f", and about {duration(plan.scoring_seconds)} for scores" if plan.scoring_seconds else ""
    rows = (
        ("weights", f"{_count(plan.weights)}{frozen}"),
        ("crop", f"{_times(plan.crop)} voxels of output from {_times(plan.raw)} of raw; {batch} per step"),
        ("operations", f"{_count(plan.flop)} per step (convolutions, forward and back)"),
        ("memory", f"{plan.memory / 1e9:.2g} GB at least, of {plan.memory_there / 1e9:.0f} GB; {plan.precision}"),
        ("rate", f"{plan.seconds_per_step:.3g} s per step on {plan.device}, measured in {plan.measured_steps} steps"),
        ("length", f"{plan.steps} steps: about {duration(plan.seconds)}{keeping}{scoring}"),
    )
    lines = [f"Training {plan.setup} would take:", *(f"  {name:<10}  {words}" for name, words in rows)]
    return "\n".join([*lines, f"Nothing was kept of the trial. To begin: neuroloom train {plan.setup}"])


def _count(number: int) -> str:
    """A number in words, such as 1.2 million."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return str(number)


def _times(shape: Triple) -> str:
    return " x ".join(map(str, shape))
