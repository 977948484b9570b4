"""`neuroloom view`: volumes and results in the browser."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroloom.cli.run import ProjectOption
from neuroloom.errors import UserError
from neuroloom.project import load_project
from neuroloom.volume import open_volume

if TYPE_CHECKING:
    from neuroloom.viewing import Layer, Viewer


def view_command(
    volume: Annotated[
        str | None, typer.Argument(help="Name of a volume of the project; default: the first one with results.")
    ] = None,
    project: ProjectOption = Path(),
    layer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH:DATASET, a volume to show instead of the project's; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page, the next one serves the voxels; 0: any two.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Look at raw, affinities, fragments, segmentation and truth in neuroglancer."""
    from neuroloom.viewing import project_layers, view  # loads neuroglancer

    layers = [parse_layer(text) for text in layer] if layer else project_layers(load_project(project), volume)
    # also where a shell started this in the background, with Ctrl-C switched off
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    viewer = view(layers, port)
    try:
        remote = "SSH_CONNECTION" in os.environ
        print(describe(viewer, remote), flush=True)
        if browser and not remote:
            webbrowser.open(viewer.url)
        while True:
            time.sleep(1)  # not longer: where another thread got the signal, this one notices when it wakes
    except KeyboardInterrupt:
        print("\nStopped.")
    finally:
        viewer.close()


def parse_layer(text: str) -> Layer:
    """The layer that "NAME=PATH:DATASET" names; how it is drawn follows from its channels and element type.

    Raises:
        UserError: Not of that form, or the volume cannot be opened.
    """
    from neuroloom.viewing import Layer, layer_kind

    name, equals, place = text.partition("=")
    path, colon, dataset = place.rpartition(":")
    if not (name and equals and path and colon and dataset):
        raise UserError(f"--layer {text!r} cannot be read; expected NAME=PATH:DATASET, such as raw=a.zarr:volumes/raw.")
    volume = open_volume(path, dataset)
    return Layer(name, layer_kind(name, volume), volume)


def describe(viewer: Viewer, remote: bool) -> str:
    """What is shown, where, and how to stop.

    Args:
        viewer: The open viewer.
        remote: Whether the person sits at another machine and needs a tunnel.
    """
    width = max(len(layer.name) for layer in viewer.layers)
    lines = ["Showing"]
    for layer in viewer.layers:
        shape = " x ".join(str(s) for s in layer.volume.shape)
        voxel = " x ".join(f"{v:g}" for v in layer.volume.voxel_size)
        hidden = "" if layer.visible else "  (click its name to show it)"
        lines.append(f"  {layer.name:<{width}}  {shape} voxels of {voxel} nm  {layer.volume.location}{hidden}")
    if remote:
        forward = " ".join(f"-L {port}:127.0.0.1:{port}" for port in viewer.ports)
        lines += ["On your own machine, run", f"  ssh -N {forward} {getpass.getuser()}@{socket.getfqdn()}", "and open"]
    else:
        lines += ["at"]
    return "\n".join([*lines, f"  {viewer.url}", "Whoever knows this address can look. Ctrl-C stops it."])
