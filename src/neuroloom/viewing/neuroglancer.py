"""Opens volumes in neuroglancer: its page and the arrays come from this machine, nothing from elsewhere.

browser  --http://127.0.0.1:PORT/v/<token>/-->        neuroglancer's page and state
         --http://127.0.0.1:PORT + 1/<token>/0/-->    chunks as zarr, read where they lie (URLs, too)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import neuroglancer

from neuroloom.errors import UserError
from neuroloom.viewing.layers import (
    Layer,
    axis_names,
    bounds,
    check_layers,
    grey_window,
    groups,
    layer_files,
    translation,
    zarr_format,
)
from neuroloom.viewing.server import serve_arrays

_PANEL = 400
"""Pixels of one of the four panels in a usual window, to choose the zoom."""

_GREY = "#uicontrol invlerp normalized(range=[{low}, {high}])\nvoid main() {{ emitGrayscale(normalized()); }}"
_RED_GREEN_BLUE = "void main() {{ emitRGB(vec3({channels})); }}"


@dataclass(frozen=True)
class Viewer:
    """A viewer that is open until `close`.

    Attributes:
        url: What to open in a browser; whoever knows it sees the layers.
        ports: The two ports in use: the page and the arrays.
        layers: What is shown.
        state: neuroglancer's own viewer, to look at its state or change it.
    """

    url: str
    ports: tuple[int, int]
    layers: tuple[Layer, ...]
    state: Any
    _stop: Callable[[], None]

    def close(self) -> None:
        """Stop serving the arrays and the page."""
        self._stop()


def view(layers: Sequence[Layer], port: int = 0, bind: str = "127.0.0.1", token: str | None = None) -> Viewer:
    """Show volumes at their right scale and place in neuroglancer.

    Args:
        layers: What to show, lowest first; the first one gives the units of the position.
        port: Of the page; the arrays take the one after it. 0 takes any two that are free.
        bind: Address to listen on; the default can be reached from this machine only.
        token: Secret part of the URL; a new one if None.

    Returns:
        The viewer. Its servers run in the background until `close` or the end of the process.

    Raises:
        UserError: A layer cannot be shown, a port is taken, or this process shows another viewer already.
    """
    check_layers(layers)
    if neuroglancer.is_server_running():
        raise UserError("This process shows a viewer already. Close it first.")
    secret = token or secrets.token_hex(20)
    arrays = serve_arrays([layer_files(layer) for layer in layers], secret, port + 1 if port else 0, bind)

    def stop() -> None:
        neuroglancer.stop()
        arrays.shutdown()
        arrays.server_close()

    try:
        neuroglancer.set_server_bind_address(bind, port)
        # a viewer with a token of ours never asks this machine for cloud credentials
        viewer = neuroglancer.Viewer(token=secret)
        page = viewer.get_viewer_url()
        host = page.removeprefix("http://").rpartition(":")[0]
        with viewer.txn() as state:
            _arrange(state, layers, f"http://{host}:{arrays.server_port}/{secret}")
    except BaseException as error:
        stop()
        if isinstance(error, OSError):
            raise UserError(
                f"Port {port} of {bind} cannot be used ({error.strerror}). Choose another --port."
            ) from error
        raise
    page_port = int(page.removeprefix("http://").partition("/")[0].rpartition(":")[2])
    return Viewer(page, (page_port, arrays.server_port), tuple(layers), viewer, stop)


def _arrange(state: Any, layers: Sequence[Layer], base: str) -> None:
    first = layers[0].volume
    low, high = bounds(first)
    voxel_size = first.voxel_size
    # before any scale: scales count in these units
    state.dimensions = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="nm", scales=voxel_size)
    state.display_dimensions = ["x", "y", "z"]
    for number, layer in enumerate(layers):
        state.layers.append(name=layer.name, layer=_draw(layer, f"{base}/{number}"), visible=layer.visible)
    state.position = [(a + b) / 2 / v for a, b, v in zip(low, high, voxel_size, strict=True)]
    extent = max(b - a for a, b in zip(low, high, strict=True)) / min(voxel_size)
    # never more than one voxel per pixel: a whole large volume does not fit into the browser
    state.cross_section_scale = min(1.0, extent / _PANEL)
    state.projection_scale = 1.6 * extent
    state.layout = "4panel"


def _draw(layer: Layer, url: str) -> Any:
    source = neuroglancer.LayerDataSource(url=f"{url}/|zarr{zarr_format(layer.volume)}:", transform=_transform(layer))
    if layer.kind == "labels":
        drawn = neuroglancer.SegmentationLayer(source=source, selected_alpha=0.4).to_json()
        if layer.lookup is not None:
            # ids as text: the browser reads numbers as doubles, which end at 53 bits
            drawn["equivalences"] = [[str(f) for f in group] for group in groups(layer.lookup)]
        return neuroglancer.SegmentationLayer(drawn)
    if layer.kind == "affinities":
        return neuroglancer.ImageLayer(source=source, shader=_affinity_shader(layer))
    low, high = grey_window(layer.volume)
    return neuroglancer.ImageLayer(source=source, shader=_GREY.format(low=low, high=high))


def _affinity_shader(layer: Layer) -> str:
    count = min(3, layer.volume.channels or 1)
    drawn = [f"toNormalized(getDataValue({c}))" for c in range(count)] + ["0.0"] * (3 - count)
    return _RED_GREEN_BLUE.format(channels=", ".join(drawn))


def _transform(layer: Layer) -> Any:
    """Array axes to nm; "c^" is neuroglancer's name for an axis that a shader reads as channels."""
    volume = layer.volume
    channels = volume.channels is not None
    names = [*(["c^"] if channels else []), "z", "y", "x"]
    scales = [*([1.0] if channels else []), *volume.voxel_size]
    units = [*([""] if channels else []), "nm", "nm", "nm"]
    # copies are moved by what the container tells of each
    moved = [*([0.0] if channels else []), *((0.0, 0.0, 0.0) if layer.copies else translation(volume))]
    rank = len(names)
    space = neuroglancer.CoordinateSpace
    return neuroglancer.CoordinateSpaceTransform(
        # the matrix maps physical lengths: without the voxel size here, a voxel of the array would be a metre long
        input_dimensions=space(names=axis_names(volume), units=units, scales=scales),
        output_dimensions=space(names=names, units=units, scales=scales),
        matrix=[[float(row == column) for column in range(rank)] + [moved[row]] for row in range(rank)],
    )
