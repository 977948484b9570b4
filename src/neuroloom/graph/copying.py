"""A graph from one store to another: `neuroloom graph copy`.

A store is named by the folder of a step's results, or by a database's address and, after #, the name of a run in it:

    results/whole/agglomeration-0123456789ab
    postgresql://host/database#whole_agglomeration-0123456789ab
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuroloom.addresses import check_address, scheme_of
from neuroloom.errors import UserError
from neuroloom.files import read_json
from neuroloom.graph.files import GraphFiles
from neuroloom.graph.place import open_store, run_name, store_class
from neuroloom.graph.store import GraphStore, Run, score_name
from neuroloom.graph.tables import KINDS
from neuroloom.volume import open_volume

Progress = Callable[[int, int, int], None]
"""Called with blocks done, blocks in all, and rows so far."""


def copy_graph(source: str, target: str, progress: Progress) -> tuple[str, str, int]:
    """Copy all rows of a run; what the target holds of its blocks is replaced.

    Args:
        source: Where the rows are.
        target: Where they shall be.
        progress: Called after every block.

    Returns:
        Where the rows came from and where they are, with the run's name; and how many there are.

    Raises:
        UserError: The source does not exist or is empty, the target holds another run, or a store cannot be used.
    """
    address, wanted = _parse(source)
    run = _run_of_folder(Path(address)) if not scheme_of(address) else _stored_run(address, wanted)
    reader = _open(address, run)
    written = {kind: reader.blocks(kind) for kind in KINDS}
    total = sum(map(len, written.values()))
    if not total:
        raise UserError(f"{source} holds no graph. Name the folder of fragments or of an agglomeration, or a database.")
    to, name = _parse(target)
    if name and name != run.name:
        raise UserError(f"{target} names the run {name}, but {source} holds {run.name}. Leave out what follows the #.")
    writer = _open(to, run)
    if writer.address == reader.address:
        raise UserError(f"{source} and {target} are the same store. Name two.")
    done = rows = 0
    for kind in KINDS:
        for number, columns in reader.read(kind):
            writer.write(kind, number, columns)
            done, rows = done + 1, rows + len(next(iter(columns.values())))
            progress(done, total, rows)
    return reader.address, writer.address if isinstance(writer, GraphFiles) else f"{writer.address}#{run.name}", rows


def _parse(text: str) -> tuple[str, str]:
    """Address and name of the run; a folder has none."""
    if "://" not in text and not scheme_of(text):
        return text, ""
    address, _, name = text.partition("#")
    try:
        return check_address(address), name
    except ValueError as error:
        raise UserError(f"The address of a store is wrong: {error}.") from None


def _open(address: str, run: Run) -> GraphStore:
    if scheme_of(address):
        return open_store(address, Path(), run)
    folder = Path(address)
    return GraphFiles(folder if folder.name == "graph" else folder / "graph")


def _run_of_folder(folder: Path) -> Run:
    """The run whose results lie in a folder, as the step itself would call it.

    Raises:
        UserError: It is no folder of results with a graph.
    """
    folder = (folder.parent if folder.name == "graph" else folder).resolve()
    if not (folder / "graph").is_dir() or not (folder / "stage.json").is_file():
        raise UserError(
            f"{folder} holds no graph. Name the folder of fragments or of an agglomeration in a project's `results`."
        )
    described = read_json(folder / "stage.json")
    parameters: dict[str, Any] = described["parameters"]
    run = Run(name=run_name(folder), fingerprint=described["fingerprint"])
    if "merge_function" in parameters:
        fragments = Path(parameters["fragments"]["path"]).parent
        return run.model_copy(update={"fragments": run_name(fragments), "merge_function": score_name(parameters)})
    made = folder / "fragments.zarr"
    if not made.exists():
        return run
    volume = open_volume(made, "fragments")
    return run.model_copy(update={"voxel_size": volume.voxel_size, "offset": volume.offset})


def _stored_run(address: str, wanted: str) -> Run:
    """The run of a name in a database; the only one where none is named.

    Raises:
        UserError: There is none of that name, or more than one to choose from.
    """
    runs = {run.name: run for run in store_class(scheme_of(address)).runs(address)}  # type: ignore[attr-defined]
    if wanted in runs:
        return runs[wanted]
    if not wanted and len(runs) == 1:
        return next(iter(runs.values()))
    names = ", ".join(runs) or "none"
    asked = f"no run {wanted}" if wanted else f"{len(runs)} runs"
    raise UserError(f"{address} holds {asked}; it has: {names}. Name one: {address}#RUN.")
