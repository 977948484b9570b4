"""`neuroloom models`: weights that come with neuroloom, and what people should know of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from neuroloom.models import Model, find_model, find_weights, is_path, shipped_models
from neuroloom.models.card import read_card


class _NameOrCommand(TyperGroup):
    """A group of which `neuroloom models NAME`, for any other word than a command's, shows that model."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


models_app = typer.Typer(cls=_NameOrCommand, invoke_without_command=True, rich_markup_mode=None)


@models_app.callback()
def models_command(context: typer.Context) -> None:
    """List the models that come with neuroloom; `neuroloom models NAME` shows a model's card."""
    if context.invoked_subcommand is not None:
        return
    models = shipped_models()
    if not models:
        print("No models come with this version yet. Checkpoints are named by their path instead, such as ./best.ckpt.")
        return
    rows: list[tuple[str, ...]] = [("name", "setup", "voxel size (nm)", "sigma (nm)", "weights", "size", "VOI")]
    rows += [_row(model) for model in models.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print('Use one with `model = "NAME"` in the section [prediction] of a project, or start a training from it with')
    print("`neuroloom train SETUP --from NAME`.")


@models_app.command("show", hidden=True)
def show_command(name: Annotated[str, typer.Argument(help="The model.")]) -> None:
    """Show a model's card."""
    model = find_model(name)
    card, row = model.card, _row(model)
    print(f"{model.name}: {card.description}")
    facts = {
        "setup": row[1],
        "voxel size": f"{row[2]} nm (z, y, x)",
        "sigma": "none" if row[3] == "-" else f"{row[3]} nm",
        "weights": f"{row[4]}, {row[5]}",
        "trained on": card.trained_on,
        "VOI": None if card.voi is None else f"{row[6]} bits ({card.voi_convention or 'convention not stated'})",
        "licence": card.license,
        "authors": ", ".join(author.name for author in card.authors),
        "file": str(model.checkpoint),
    }
    for name, value in facts.items():
        if value is not None:
            print(f"  {name:<11} {value}")
    for citation in card.citations:
        print(f"  {'cite':<11} {citation.text}" + (f" https://doi.org/{citation.doi}" if citation.doi else ""))
    if model.text:
        print(f"\n{model.text.rstrip()}")


def _row(model: Model) -> tuple[str, ...]:
    weights = model.weights
    sigma = weights.metadata.sigma_nm
    return (
        model.name,
        weights.metadata.setup,
        " x ".join(f"{v:g}" for v in weights.metadata.voxel_size),
        "-" if sigma is None else f"{sigma:g}",
        f"{weights.parameters / 1e6:.2f} million",
        f"{weights.path.stat().st_size / 1e6:.1f} MB",
        "-" if model.card.voi is None else f"{model.card.voi:g}",
    )


@models_app.command("export")
def export_command(
    model: Annotated[str, typer.Argument(help="A model's name, or the path of a checkpoint (.ckpt).")],
    package: Annotated[Path, typer.Argument(help="The package to write, a .zip file; its name becomes the model's.")],
    card: Annotated[
        Path | None,
        typer.Option(help="The card of a checkpoint, a TOML file; default: model.toml beside the checkpoint."),
    ] = None,
) -> None:
    """Write a model as a package for bioimage.io."""
    from neuroloom.models.bioimageio.package import export_package

    weights = find_weights(model)
    text = ""
    if is_path(model):
        described = read_card(card or weights.path.with_name("model.toml"))
    else:
        shipped = find_model(model)
        described, text = read_card(card) if card else shipped.card, shipped.text
    export_package(weights, described, text, package)
    print(f"Wrote {package} ({package.stat().st_size / 1e6:.1f} MB).")
    print(f"Next: bioimageio test {package}")


@models_app.command("import")
def import_command(
    package: Annotated[Path, typer.Argument(help="A package that `neuroloom models export` wrote.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="The checkpoint to write; default: the package's name with .ckpt, here.")
    ] = None,
) -> None:
    """Take the checkpoint out of a package of bioimage.io."""
    from neuroloom.models.bioimageio.reading import import_package

    to = checkpoint or Path(package.with_suffix(".ckpt").name)
    import_package(package, to)
    print(f'Wrote {to}. Use it with `model = "{to}"` in the section [prediction] of a project.')
