"""Looking at volumes and results: neuroglancer in the browser, fed from this machine alone."""

from neuroloom.viewing.layers import Layer, layer_kind
from neuroloom.viewing.neuroglancer import Viewer, view
from neuroloom.viewing.results import project_layers

__all__ = ["Layer", "Viewer", "layer_kind", "project_layers", "view"]
