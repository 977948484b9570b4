"""What there is to see of a project's volume: raw, truth, and the newest finished results that belong together.

    segmentation  <- made from -  fragments  <- made from -  affinities

The newest finished segmentation is shown with the very fragments and affinities that it was made from, as the
`stage.json` beside each result tells; where a step is not done yet, the newest of the step before.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from neuroloom.blockwise.intermediate import any_deleted
from neuroloom.errors import UserError
from neuroloom.files import read_json
from neuroloom.project import LabelledVolume, Project, RawVolume
from neuroloom.segmentation import map_lookup, mapped
from neuroloom.viewing.layers import Layer, has_copies
from neuroloom.volume.array import Volume, open_volume

_STEPS = ("segmentation", "fragments", "affinities")


def project_layers(project: Project, name: str | None = None) -> list[Layer]:
    """Layers of one volume of a project, in the order they are drawn.

    Args:
        project: The project.
        name: The volume's name; the first validation volume with results, or else the first of all, if None.

    Returns:
        raw, affinities, fragments, truth and segmentation, as far as they exist. Raw and the last step that is done
        are switched on.

    Raises:
        UserError: The project has no volume of that name, or an array cannot be opened.
    """
    volume = _find_volume(project, name)
    path = project.locate(volume.path)
    results = finished_results(project, volume.name)
    shown = next((step for step in _STEPS if step in results), "truth")
    layers = [Layer("raw", "image", open_volume(path, volume.raw))]
    for step in ("affinities", "fragments"):
        if step in results:
            array = open_volume(results[step] / f"{step}.zarr", step)
            layers.append(Layer(step, "affinities" if step == "affinities" else "labels", array, step == shown))
    if isinstance(volume, LabelledVolume):
        layers.append(Layer("truth", "labels", open_volume(path, volume.labels), shown == "truth"))
    if "segmentation" in results:
        segmentation = _segmentation(results)
        layers.append(Layer("segmentation", "labels", segmentation, copies=has_copies(segmentation)))
    return layers


def _segmentation(results: dict[str, Path]) -> Volume:
    """The segmentation as it is written, or, where only its table is, made of the fragments as they are read."""
    folder = results["segmentation"]
    if (folder / "segmentation.zarr").exists():
        return open_volume(folder / "segmentation.zarr", "segmentation")
    if "fragments" not in results:
        raise UserError(
            f"{folder} holds the table of a segmentation, but the fragments it was made from are gone. Make them "
            "again with `neuroloom run`."
        )
    threshold = float(read_json(folder / "stage.json")["parameters"]["threshold"])
    return mapped(open_volume(results["fragments"] / "fragments.zarr", "fragments"), map_lookup(folder, threshold))


def finished_results(project: Project, name: str) -> dict[str, Path]:
    """The folders of a volume's newest finished results that were made from one another.

    Args:
        project: The project.
        name: The volume's name.

    Returns:
        Folders of "segmentation", "fragments" and "affinities", as far as they are done and not deleted.
    """
    found: dict[str, Path] = {}
    folder: Path | None = None
    for step in _STEPS:
        source = None if folder is None else _source_fingerprint(folder, step)
        folder = _newest(project, name, step) if source is None else project.result_folder(name, step, source)
        if folder is not None and (folder / "done.json").exists() and not any_deleted(folder):
            found[step] = folder
    return found


def _newest(project: Project, name: str, step: str) -> Path | None:
    parent = project.result_folder(name, step, "").parent
    done = sorted(parent.glob(f"{step}-*/done.json"), key=lambda file: (file.stat().st_mtime_ns, file.parent.name))
    return done[-1].parent if done else None


def _source_fingerprint(folder: Path, name: str) -> str | None:
    """The fingerprint of the input called `name` from which the stage in `folder` was made."""
    try:
        return str(json.loads((folder / "stage.json").read_text())["parameters"][name]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_volume(project: Project, name: str | None) -> RawVolume:
    volumes = project.parameters.volumes
    everything = [*volumes.validate_, *volumes.predict, *volumes.train]
    if name is None:
        return next((volume for volume in everything if finished_results(project, volume.name)), everything[0])
    for volume in everything:
        if volume.name == name:
            return volume
    names = [volume.name for volume in everything]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}."
    raise UserError(f"{project.file} has no volume {name!r}; {hint}")
