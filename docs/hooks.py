"""Fills the reference pages from the code while the site is built, so that they cannot disagree with it.

<!-- project-file-keys -->  becomes one table per section of the project file
<!-- commands -->           becomes one section per command with its arguments and options
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with the text of every page."""
    for marker, write in (("<!-- project-file-keys -->", project_file_keys), ("<!-- commands -->", commands)):
        if marker in markdown:
            markdown = markdown.replace(marker, write())
    return markdown


def project_file_keys() -> str:
    """All keys with their defaults and meanings, a table per section."""
    from neuroloom.project import Parameters

    return "\n".join(_section(Parameters, "", {}))


def _section(model: type[BaseModel], name: str, defaults: dict[str, Any]) -> Iterator[str]:
    rows, inner = [], []
    for field_name, info in model.model_fields.items():
        key = info.alias or field_name
        nested = _model_in(info.annotation)
        if nested is None:
            rows.append((key, info))
        else:
            repeated = get_args(info.annotation)[1:2] == (...,)
            given = info.default.model_dump() if isinstance(info.default, BaseModel) else {}
            title = f"{name}.{key}" if name else key
            inner.append((title, nested, repeated, info.description, given, info.annotation))
    if rows:
        yield "| key | default | meaning |\n|---|---|---|"
        for key, info in rows:
            yield f"| `{key}` | {_default(info, defaults.get(key))} | {_cell(_meaning(info))} |"
        yield ""
    for title, nested, repeated, description, given, annotation in inner:
        named = ".NAME" * (get_origin(annotation) is dict)
        yield f"## `[[{title}]]`\n" if repeated else f"## `[{title}{named}]`\n"
        summary = description or (nested.__doc__ or "").strip().splitlines()[0]
        yield f"{summary[0].upper()}{summary[1:].rstrip('.')}.\n"
        if issubclass(model, nested):
            yield f"Any of the keys of `[{name}]` but its own tables.\n"
        else:
            yield from _section(nested, title + named, given)


def _meaning(info: Any) -> str:
    words = _literals(info.annotation)
    description = info.description or ""
    # the description of a few words names them all; a list of many is shown here
    missing = [word for word in words if word not in description]
    return f"{description}; one of {', '.join(f'`{word}`' for word in words)}" if missing else description


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return []


def _default(info: Any, given: Any) -> str:
    if info.is_required() and given is None:
        return "**needed**"
    value = info.get_default(call_default_factory=True) if given is None else given
    if value is None:
        return "none"
    if isinstance(value, tuple) and len(value) > 6:
        return f"`{value[0]}` … `{value[-1]}`, {len(value)} values"
    from neuroloom.project.template import to_toml

    return f"`{to_toml(value)}`"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)


def commands() -> str:
    """All commands with their arguments and options."""
    import typer

    from neuroloom.cli import app

    return "\n".join(_commands(typer.main.get_command(app), "neuroloom"))


def _commands(group: Any, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield f"## `{prefix} {name}`\n\n{_paragraphs(command.help)}\n\n```sh\n{prefix} {name}\n```\n"
            yield from _commands(command, f"{prefix} {name}")
            continue
        if command.hidden:
            continue
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and "--help" not in p.opts]
        usage = " ".join([prefix, name, *(_usage(argument) for argument in arguments)])
        yield f"## `{prefix} {name}`\n\n{_paragraphs(command.help)}\n"
        yield f"```sh\n{usage}{' [OPTIONS]' * bool(options)}\n```\n"
        if arguments or options:
            yield "| | default | meaning |\n|---|---|---|"
            for parameter in [*arguments, *options]:
                yield f"| {_names(parameter)} | {_value(parameter)} | {_cell(parameter.help or '')} |"
            yield ""


def _usage(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _value(parameter: Any) -> str:
    if parameter.required:
        return "**needed**"
    default = parameter.default
    if callable(default) or default in (None, False, (), []) or str(default) in ("", "Sentinel.UNSET"):
        return ""
    return "yes" if default is True else f"`{default}`"


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
