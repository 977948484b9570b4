"""Writing a commented `neuroloom.toml`: every key of the models with its value and what it means.

The comments are the models' own descriptions, so the file, its checks and its reference page cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from neuroloom.project.parameters import LabelledVolume, Parameters, RawVolume, Volumes, model_in
from neuroloom.project.profiles import Profile

_HEADER = """\
# neuroloom project: what to train on, what to segment, and how.
# `neuroloom run` does all of it; `neuroloom run --dry-run` says what that would be.
# Lengths are in nm where the name says nm, in voxels (z, y, x) otherwise. Keys with a leading # show their default.
"""

_COLUMN = 44


def render(values: Mapping[str, Any]) -> str:
    """A commented project file.

    Args:
        values: What differs from the defaults, nested as in the file: {"voxel_size": …, "volumes": {"train": […]}}.
            Volumes may be left out: the file then holds examples to fill in.

    Returns:
        TOML text.
    """
    lines = [_HEADER, *_keys(Parameters, values), ""]
    volumes = values.get("volumes", {})
    for kind, model, field in _volume_kinds():
        lines += [f"# {field.description}"]
        given = volumes.get(kind, [])
        for volume in given:
            lines += [f"[[volumes.{kind}]]", *_keys(model, volume), ""]
        if not given:
            example = {"name": f"my-{kind}-volume", "path": f"data/my-{kind}-volume.zarr"}
            lines += ["# " + line for line in [f"[[volumes.{kind}]]", *_keys(model, example)]] + [""]
    for name, info in Parameters.model_fields.items():
        section = model_in(info.annotation)
        if section is not None and section not in (Volumes, Profile):  # profiles are for those who have a cluster
            lines += [*_section(name, section, values.get(name, {})), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str, model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{name}]  # {(model.__doc__ or '').strip().splitlines()[0]}"
    yield from _keys(model, values)
    for key, info in model.model_fields.items():
        inner = model_in(info.annotation)
        if inner is not None:
            yield ""
            default = info.default.model_dump() if isinstance(info.default, BaseModel) else {}
            yield from _section(f"{name}.{key}", inner, {**default, **values.get(key, {})})


def _keys(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        key = info.alias or name
        if model_in(info.annotation) is not None or (info.description or "").startswith("written by"):
            continue
        given = values.get(key)
        value = info.get_default(call_default_factory=True) if given is None else given
        if given is None and info.is_required():
            value = "…"
        assignment = f"# {key} =" if value is None else f"{key} = {to_toml(value)}"
        yield f"{assignment:<{_COLUMN}}  # {info.description}" if info.description else assignment


def _volume_kinds() -> Iterator[tuple[str, type[RawVolume], FieldInfo]]:
    for name, info in Volumes.model_fields.items():
        yield info.alias or name, RawVolume if name == "predict" else LabelledVolume, info


def to_toml(value: Any) -> str:
    """A number, text, truth value or nested sequence of them as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    return repr(value)
