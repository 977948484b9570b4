"""The declaration of somebody else's network, a TOML file that a person writes:

file = "their-model.pt"                             TorchScript, ONNX, or a package of bioimage.io, which says most
voxel_size = [8, 8, 8]
neighborhood = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
input = [84, 84, 84]
output = [56, 56, 56]
step = [4, 4, 4]
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError, ValidationInfo, field_validator

from neuroloom.errors import UserError
from neuroloom.files import hash_file, hash_json
from neuroloom.models.foreign.geometry import AxisTiles
from neuroloom.models.foreign.package import NetworkFile, Package, read_package
from neuroloom.project import NEAREST
from neuroloom.project.mistakes import explain, list_problems
from neuroloom.project.parameters import PositiveNanometres, PositiveTriple, Section
from neuroloom.project.toml_lines import key_lines
from neuroloom.volume.array import Triple

NotNegative = Annotated[int, Field(ge=0)]
NotNegativeTriple = tuple[NotNegative, NotNegative, NotNegative]
PACKAGE, ONNX, TORCHSCRIPT = ".zip", ".onnx", (".pt", ".pth", ".ts", ".torchscript")


class Declaration(Section):
    """What is said of a network; of a package of bioimage.io, what is left out is taken from the package."""

    file: str = Field(
        description="the network, from this file's folder: TorchScript (.pt), ONNX (.onnx) or a package of bioimage.io "
        "(.zip)"
    )
    voxel_size: PositiveNanometres = Field(description="nm that it was trained on")
    neighborhood: tuple[Triple, ...] = Field(
        description="offset of the neighbour that each affinity joins a voxel to, in voxels; the nearest along z, y, x "
        "first, either all before it, [-1, 0, 0], or after it, [1, 0, 0]"
    )
    channels: tuple[NotNegative, ...] | None = Field(
        None, description="which output channel each of these affinities is, from 0; default: the first ones"
    )
    input: PositiveTriple = Field(description="an extent of the image that the network takes, in voxels")
    output: PositiveTriple = Field(description="the extent that it then gives, from the middle of the input")
    step: NotNegativeTriple = Field(
        (0, 0, 0),
        description="voxels by which the network must be moved to give the same again: all that it pools by, 8 where "
        "it halves three times; tiles begin at multiples of it; 0: not known, so they begin at multiples of the output",
    )
    grows: bool = Field(True, description="whether input and output may be larger by multiples of `step`")
    halo: NotNegativeTriple = Field(
        (0, 0, 0),
        validate_default=True,
        description="voxels at each end of the output that are not used: as far as the network is disturbed by the "
        "border of its input",
    )
    raw_range: tuple[FiniteFloat, FiniteFloat] = Field(
        (-1.0, 1.0), description="what raw 0 and 255 (float32: 0 and 1) become before the network"
    )
    output_is: Literal["affinities", "logits"] = Field(
        "affinities", description='"affinities": 0 to 1; "logits": what a sigmoid turns into affinities'
    )
    output_number: NotNegative | None = Field(
        None, description="which output has the affinities, from 0, of a network that has several"
    )
    input_axes: str = Field("bczyx", description="order of the input's axes; b (batch) and c (channel) may be missing")
    output_axes: str = Field("bczyx", description="order of the output's axes; b (batch) may be missing")

    @field_validator("neighborhood")
    @classmethod
    def _nearest_first(cls, offsets: tuple[Triple, ...]) -> tuple[Triple, ...]:
        for number, offset in enumerate(offsets):
            if offset == (0, 0, 0):
                raise ValueError("the offset [0, 0, 0] is no neighbour")
            if offset in offsets[:number]:
                raise ValueError(f"the offset {list(offset)} is given twice")
        if offsets[:3] not in (NEAREST, _turned(NEAREST)):
            nearest, turned = ([list(offset) for offset in some] for some in (NEAREST, _turned(NEAREST)))
            raise ValueError(
                f"it begins with {[list(offset) for offset in offsets[:3]]}; expected {nearest} or {turned}, because "
                "fragments are cut from these three. `channels` says where the network has them"
            )
        return offsets

    @field_validator("channels")
    @classmethod
    def _one_for_each(cls, channels: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        offsets = info.data.get("neighborhood")
        if channels is not None and offsets is not None and len(channels) != len(offsets):
            raise ValueError(f"{len(channels)} given; expected {len(offsets)}, one for each of `neighborhood`")
        return channels

    @field_validator("output")
    @classmethod
    def _in_the_middle(cls, output: Triple, info: ValidationInfo) -> Triple:
        for given, extent in zip(output, info.data.get("input", output), strict=True):
            if given > extent or (extent - given) % 2:
                raise ValueError(
                    f"{list(output)} cannot lie in the middle of `input`, {list(info.data['input'])}: it must be "
                    "smaller by an even number of voxels, or equal"
                )
        return output

    @field_validator("halo")
    @classmethod
    def _something_is_left(cls, halo: Triple, info: ValidationInfo) -> Triple:
        names = ("input", "output", "step", "grows", "neighborhood")
        if {*names} <= info.data.keys():
            try:
                _tiles(**{name: info.data[name] for name in names}, halo=halo)
            except ValueError as error:
                raise ValueError(f"with {list(halo)}, {error}, {list(info.data['output'])}") from error
        return halo

    @field_validator("raw_range")
    @classmethod
    def _not_flat(cls, values: tuple[float, float]) -> tuple[float, float]:
        if values[0] == values[1]:
            raise ValueError("both ends are equal, so the network would see nothing")
        return values

    @field_validator("input_axes", "output_axes")
    @classmethod
    def _axes_are_known(cls, axes: str, info: ValidationInfo) -> str:
        needed = "zyx" if info.field_name == "input_axes" else "czyx"
        if len({*axes}) < len(axes) or not {*needed} <= {*axes} <= {*"bczyx"}:
            raise ValueError(f"{axes!r} given; expected each of {needed!r} once, and of 'bc' what else there is")
        return axes

    @property
    def is_turned(self) -> bool:
        """Whether the nearest affinities are kept at the other end of their edges than ours."""
        return self.neighborhood[:3] == _turned(NEAREST)

    @property
    def output_channels(self) -> tuple[int, ...]:
        """Of the network, one for each affinity."""
        return self.channels or tuple(range(len(self.neighborhood)))

    @property
    def tiles(self) -> tuple[AxisTiles, AxisTiles, AxisTiles]:
        """Tiles along z, y, x."""
        return _tiles(self.input, self.output, self.step, self.grows, self.halo, self.neighborhood)


def _turned(offsets: tuple[Triple, ...]) -> tuple[Triple, ...]:
    return tuple((-z, -y, -x) for z, y, x in offsets)


def _tiles(
    input: Triple, output: Triple, step: Triple, grows: bool, halo: Triple, neighborhood: tuple[Triple, ...]
) -> tuple[AxisTiles, AxisTiles, AxisTiles]:
    before = int(neighborhood[:3] == _turned(NEAREST))
    z, y, x = (AxisTiles.of(*along, before, grows) for along in zip(input, output, step, halo, strict=True))
    return z, y, x


@dataclass(frozen=True)
class ForeignModel:
    """Somebody else's network.

    Attributes:
        path: Its declaration, or the package that needs none.
        sha256: What is said of it, and the content of its file.
        declaration: What is said of it.
        network: The file, or the part of a package, that is run.
    """

    path: Path
    sha256: str
    declaration: Declaration
    network: NetworkFile

    @property
    def factor(self) -> Triple:
        """Voxels by which the prediction may be moved without changing it, z y x."""
        z, y, x = (along.factor for along in self.declaration.tiles)
        return z, y, x


def is_foreign(name_or_path: str | Path) -> bool:
    """Whether somebody else's network is named: by a declaration, or a package of bioimage.io."""
    return Path(name_or_path).suffix in (".toml", PACKAGE)


def read_foreign(path: Path) -> ForeignModel:
    """Read the declaration of somebody else's network, or a package that needs none.

    Raises:
        UserError: A file is missing or damaged, the declaration is wrong (all mistakes are listed), or a package leaves
            something open that is not declared.
    """
    path = path.resolve()
    text = "" if path.suffix == PACKAGE else _read(path)
    try:
        declared = {"file": path.name} if path.suffix == PACKAGE else tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no valid TOML: {error}. Correct that line.") from error
    package = _package(path, declared)
    try:
        declaration = Declaration.model_validate({**(package.values if package else {}), **declared})
    except ValidationError as error:
        raise UserError(list_problems(path, explain(error, key_lines(text), Declaration))) from error
    file = path.parent / declaration.file
    network = package.network if package else _network_file(path, file)
    content = [_hash(part, *_state(part)) for part in (file, network.external) if isinstance(part, Path)]
    said = declaration.model_dump(mode="json", exclude={"file"}, exclude_defaults=True)
    return ForeignModel(path, hash_json({"declaration": said, "content": content}), declaration, network)


def _package(path: Path, declared: dict[str, Any]) -> Package | None:
    """What the package says that is declared, or None where none is."""
    name = declared.get("file")
    if not isinstance(name, str) or Path(name).suffix != PACKAGE:
        return None
    file = path.parent / name
    if not file.is_file():
        raise UserError(f"The package {file} does not exist. Name the right file.")
    number = declared.get("output_number")
    package = _described(file, *_state(file), number if isinstance(number, int) else None)
    unsaid = [f"`{key}`, since {reason}" for key, reason in package.unsaid.items() if key not in declared]
    if unsaid:
        where = "there" if path != file else f'in a file such as their-model.toml, with `file = "{name}"`'
        raise UserError(
            f"{path} leaves open {'; '.join(unsaid)}. Declare {'it' if len(unsaid) == 1 else 'them'} {where}."
        )
    return package


def _network_file(path: Path, file: Path) -> NetworkFile:
    if file.suffix not in (ONNX, *TORCHSCRIPT):
        raise UserError(
            f"{path}: `file` is {file.name!r}; expected TorchScript ({', '.join(TORCHSCRIPT)}), ONNX ({ONNX}) or a "
            f"package of bioimage.io ({PACKAGE}). Weights alone cannot be run without the code that they belong to."
        )
    if not file.is_file():
        raise UserError(f"{path}: `file`, {file}, does not exist. Name the right file.")
    if file.suffix != ONNX:
        return NetworkFile("torchscript", file)
    beside = file.with_name(f"{file.name}.data")  # where PyTorch writes the weights
    return NetworkFile("onnx", file, beside if beside.is_file() else None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"The declaration {path} does not exist. Name the right file, or write it.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"The declaration {path} cannot be read as text in UTF-8. Save it as such.") from error


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=32)
def _hash(path: Path, modified: int, size: int) -> str:
    return hash_file(path)


@lru_cache(maxsize=32)
def _described(path: Path, modified: int, size: int, number: int | None) -> Package:
    return read_package(path, number)
