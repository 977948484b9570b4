"""What a package of bioimage.io says of its network, whoever wrote it. None of its code is run.

axes, extents, halo                 -> input_axes, input, output, step, halo, output_axes
scale and unit of the axes          -> voxel_size
range, preprocessing                -> raw_range, where each voxel is scaled by itself
postprocessing                      -> output_is
names of the output's channels      -> neighborhood, where they are those that neuroloom writes: z_minus_1
"""

from __future__ import annotations

import math
import re
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuroloom.errors import UserError
from neuroloom.volume.units import nanometres_per

_CHANNEL = re.compile(r"([zyx])_(minus|plus)_(\d+)(?:_|$)")


@dataclass(frozen=True)
class NetworkFile:
    """Where a network lies that can be run without code of its own.

    Attributes:
        kind: What it is.
        file: Holds it.
        external: A file that holds the weights, where they are kept apart; in a package, their name.
        member: The name in a package.
    """

    kind: Literal["torchscript", "onnx"]
    file: Path
    external: Path | str | None = None
    member: str | None = None

    def read(self) -> bytes:
        """The network.

        Raises:
            UserError: The package does not hold it, or is damaged.
        """
        return self.file.read_bytes() if self.member is None else self._part(self.member)

    def read_external(self) -> tuple[str, bytes] | None:
        """Name and content of the weights that are kept apart.

        Raises:
            UserError: The package does not hold them, or is damaged.
        """
        if self.external is None:
            return None
        if isinstance(self.external, Path):
            return self.external.name, self.external.read_bytes()
        return Path(self.external).name, self._part(self.external)

    def _part(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.file) as package:
                return package.read(name)
        except KeyError:
            raise UserError(f"{self.file} does not hold {name}, which it names as its network.") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{self.file} is damaged. Copy it again.") from error


@dataclass(frozen=True)
class Package:
    """What a package says.

    Attributes:
        values: Keys of a `Declaration`.
        unsaid: Keys that it leaves open, or that cannot be taken from it, each with the reason.
        network: What is run.
    """

    values: dict[str, Any]
    unsaid: dict[str, str]
    network: NetworkFile


def read_package(path: Path, number: int | None) -> Package:
    """What a package says of its network.

    Args:
        path: The zip file.
        number: Which output has the affinities, from 0, where there are several.

    Raises:
        UserError: bioimageio.spec is not installed, the file is no valid package, its network cannot be run without
            code of its own, or sees more than one image.
    """
    described = _load(path)
    network = _network(path, described.weights)
    if len(described.inputs) != 1:
        raise UserError(f"{path}: its network sees {len(described.inputs)} images; expected one.")
    if number is None and len(described.outputs) > 1:
        names = ", ".join(str(output.id) for output in described.outputs)
        raise UserError(f"{path}: its network has several outputs, {names}. Declare `output_number`, from 0.")
    if number is not None and number >= len(described.outputs):
        raise UserError(
            f"{path}: `output_number` is {number}, and the last of its outputs is {len(described.outputs) - 1}."
        )
    raw, output = described.inputs[0], described.outputs[number or 0]
    values: dict[str, Any] = {}
    unsaid: dict[str, str] = {}
    for tensor, key in ((raw, "input_axes"), (output, "output_axes")):
        values[key] = _letters(tensor)
        if not set("zyx") <= set(values[key]):
            raise UserError(f"{path}: `{tensor.id}` has the axes {values[key]!r}; expected z, y and x among them.")
    if (seen := len(_channel_names(raw))) != 1:
        raise UserError(f"{path}: its network sees {seen} channels; expected one, the image.")
    if any(a.scale != b.scale for a, b in zip(_space(raw), _space(output), strict=True)):
        raise UserError(f"{path}: what its network gives has another voxel size than the image; expected the same.")
    said = (
        _extents(described, raw, output),
        _voxel_size(path, raw),
        _raw_range(raw),
        _meaning(output),
        _offsets(output),
    )
    for part in said:
        if isinstance(part, _Unsaid):
            unsaid |= dict.fromkeys(part.keys, part.reason)
        else:
            values |= part
    return Package(values, unsaid, network)


@dataclass(frozen=True)
class _Unsaid:
    """Keys that a package does not decide, and why."""

    keys: tuple[str, ...]
    reason: str


def _load(path: Path) -> Any:
    try:
        from bioimageio.spec import InvalidDescr, load_description
        from bioimageio.spec.model.v0_5 import ModelDescr
    except ImportError as error:
        raise UserError(
            "Packages of bioimage.io need its own libraries. Install them with `pip install neuroloom[bioimageio]`."
        ) from error
    try:
        with zipfile.ZipFile(path) as package:
            names = set(package.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is no zip file, or damaged. Copy it again.") from error
    if not names & {"rdf.yaml", "bioimageio.yaml"}:
        raise UserError(f"{path} is no package of bioimage.io: it holds no rdf.yaml. Name a model's .zip file.")
    try:
        described = load_description(path, format_version="latest", perform_io_checks=False)
    except Exception as error:  # of many types, among them those of the library that reads YAML
        raise UserError(
            f"{path} is no valid package of bioimage.io: {type(error).__name__}. Copy it again, or ask its author for "
            "a valid one."
        ) from error
    if isinstance(described, InvalidDescr):
        first = described.validation_summary.errors[0]
        place = "".join(f"{part}." for part in first.loc).removesuffix(".") or "its description"
        reason = textwrap.shorten(first.msg.removeprefix("Value error, "), 160, placeholder=" …").rstrip(".")
        raise UserError(
            f"{path} is no valid package of bioimage.io: {place}: {reason}. Ask its author for a valid one."
        )
    if not isinstance(described, ModelDescr):
        raise UserError(
            f"{path} is a package of bioimage.io, but of no model: {described.type}. Name a model's .zip file."
        )
    return described


def _network(path: Path, weights: Any) -> NetworkFile:
    """What is run of a package."""
    if weights.torchscript is not None:
        return NetworkFile("torchscript", path, member=str(weights.torchscript.source))
    if weights.onnx is not None:
        external = weights.onnx.external_data
        return NetworkFile("onnx", path, None if external is None else str(external.source), str(weights.onnx.source))
    raise UserError(
        f"{path} holds its network as {', '.join(weights.available_formats)} only, which runs with code or "
        "libraries of its own; neuroloom runs none of that. Ask its author for weights as torchscript or onnx."
    )


def _letters(tensor: Any) -> str:
    return "".join({"batch": "b", "channel": "c"}.get(axis.type, str(axis.id)) for axis in tensor.axes)


def _channel_names(tensor: Any) -> list[str]:
    return next(([str(name) for name in axis.channel_names] for axis in tensor.axes if axis.type == "channel"), ["one"])


def _space(tensor: Any) -> list[Any]:
    """Its axes z, y, x."""
    return [next(axis for axis in tensor.axes if str(axis.id) == name) for name in "zyx"]


def _extents(described: Any, raw: Any, output: Any) -> dict[str, Any] | _Unsaid:
    growing = [(raw.id, axis.id) for axis in _space(raw) if hasattr(axis.size, "step")]
    (inputs, outputs), (larger, larger_outputs) = (
        described.get_tensor_sizes(dict.fromkeys(growing, n), batch_size=1) for n in (0, 1)
    )
    extent, step, given, growth = (
        [sizes[tensor.id][axis.id] for axis in _space(tensor)]
        for sizes, tensor in ((inputs, raw), (larger, raw), (outputs, output), (larger_outputs, output))
    )
    if not all(isinstance(size, int) for size in (*given, *growth)):
        return _Unsaid(("input", "output"), "the package says that the output's extent depends on the image")
    step = [b - a for a, b in zip(extent, step, strict=True)]
    growth = [b - a for a, b in zip(given, growth, strict=True)]
    return {
        "input": extent,
        "output": given,
        "step": [a if a == b else 0 for a, b in zip(step, growth, strict=True)],
        "halo": [getattr(axis, "halo", 0) for axis in _space(output)],
    }


def _voxel_size(path: Path, raw: Any) -> dict[str, Any] | _Unsaid:
    sizes = []
    for axis in _space(raw):
        try:
            factor = None if axis.unit is None else nanometres_per(axis.unit, str(path))
        except UserError:
            factor = None
        if factor is None:
            return _Unsaid(("voxel_size",), f"the package gives its axis {axis.id} in {axis.unit or 'no unit'}")
        sizes.append(round(axis.scale * factor, 6))
    return {"voxel_size": sizes}


def _raw_range(raw: Any) -> dict[str, Any] | _Unsaid:
    """What raw 0 and 255 become."""
    key, data = ("raw_range",), raw.data
    low, high = getattr(data, "range", (None, None))
    if data.type in ("uint8", "uint16"):
        low, high = 0.0, 255.0 if data.type == "uint8" else 65535.0
    if low is None or high is None or not math.isfinite(high - low):
        return _Unsaid(key, "the package does not say between which values the image lies")
    ends = [float(low), float(high)]
    for step in raw.preprocessing:
        if step.id == "scale_linear":
            gain, offset = _only(step.kwargs.gain), _only(step.kwargs.offset)
            ends = [end * gain + offset for end in ends]
        elif step.id == "fixed_zero_mean_unit_variance":
            mean, deviation = _only(step.kwargs.mean), _only(step.kwargs.std)
            ends = [(end - mean) / deviation for end in ends]
        elif step.id != "ensure_dtype" or not step.kwargs.dtype.startswith("float"):
            if step.id == "ensure_dtype" and step is raw.preprocessing[0]:
                continue  # the image has whole numbers
            return _Unsaid(
                key,
                f"the package prepares the image with {step.id}, and what one tile would become so would differ from "
                "the next. If it takes a mean and a deviation: (0 - mean) / deviation and (255 - mean) / deviation of "
                "your volume",
            )
    return {"raw_range": ends}


def _only(value: float | list[float]) -> float:
    """A value that may be given for each of one channel."""
    return value[0] if isinstance(value, list) else value


def _meaning(output: Any) -> dict[str, Any] | _Unsaid:
    steps = [step.id for step in output.postprocessing if step.id != "ensure_dtype"]
    if steps in ([], ["sigmoid"]):
        return {"output_is": "logits" if steps else "affinities"}
    return _Unsaid(("output_is",), f"the package lets {' and '.join(steps)} follow, which is not done here")


def _offsets(output: Any) -> dict[str, Any] | _Unsaid:
    """Offsets by the names of channels: "z_minus_1" is (-1, 0, 0), "y_minus_5_x_plus_4" is (0, -5, 4)."""
    offsets = []
    for name in _channel_names(output):
        parts = _CHANNEL.findall(name)
        if not parts or "_".join("_".join(part) for part in parts) != name:
            return _Unsaid(("neighborhood",), f"the package calls an output channel {name!r}, which names no neighbour")
        along = {axis: int(number) * (-1 if sign == "minus" else 1) for axis, sign, number in parts}
        offsets.append([along.get(axis, 0) for axis in "zyx"])
    return {"neighborhood": offsets}
