"""Running somebody else's network: TorchScript by PyTorch, ONNX by onnxruntime.

Both hold a computation and its weights, no Python: nothing is unpickled, and no code of a package is run.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from neuroloom.errors import UserError
from neuroloom.models.foreign.declaration import ForeignModel
from neuroloom.networks.precision import autocast, choose_precision
from neuroloom.volume.array import Triple

Run = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""Takes the input, gives all outputs."""

TOLERANCE = 1e-3
"""By which affinities may leave 0 to 1, for rounding."""

BYTES_PER_MAP = 32.0
"""That a U-Net takes per voxel of its input and feature map of its first layer: four such layers at once in float32,
and as much again for copies."""

LEAST_BYTES, UNKNOWN_BYTES = 200.0, 1000.0
"""Per voxel of the input: that any network takes; and of one whose layers cannot be seen, 32 feature maps."""


class ForeignNetwork:
    """Somebody else's network as a function from raw to affinities.

    Args:
        model: What it is.
        device: Where it shall run; ONNX runs on a GPU if the onnxruntime that is installed can.
        precision: "bf16" or "fp16" for TorchScript whose convolutions are to run so; everything else runs in float32,
            "auto" too, since nobody knows how others' networks bear rounding.

    Attributes:
        device: Where it runs.
        bytes_per_voxel: Of memory, about, per voxel of the input; the least where memory that does not suffice is told.

    Raises:
        UserError: The file cannot be read as what it is said to be, or onnxruntime is not installed.
    """

    def __init__(self, model: ForeignModel, device: torch.device, precision: str = "auto") -> None:
        self.model = model
        if model.network.kind == "torchscript":
            self.device = device
            self._run, needed = _torchscript(model, device, precision)
        else:
            self.device, self._run = _onnx(model, device)
            needed = UNKNOWN_BYTES
        self.bytes_per_voxel = max(LEAST_BYTES, needed) if self.device.type == "cpu" else LEAST_BYTES

    @torch.inference_mode()
    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        """Run it once.

        Args:
            raw: `(z, y, x)` float32 in the declared range, of an extent that it takes.

        Returns:
            `(affinity, z', y', x')` float32 in [0, 1].

        Raises:
            UserError: What it gives is not what is declared.
            RuntimeError: It does not take such an input, or memory does not suffice.
        """
        said = self.model.declaration
        axes = said.input_axes
        values = raw.to(self.device).permute(*("zyx".index(axis) for axis in axes if axis in "zyx"))
        for place, axis in enumerate(axes):
            if axis not in "zyx":
                values = values.unsqueeze(place)
        output = self._one(self._run(values.contiguous()))
        shape = (raw.shape[0], raw.shape[1], raw.shape[2])
        return self._affinities(self._arranged(output, shape))

    def _one(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        number = self.model.declaration.output_number
        if number is None and len(outputs) != 1:
            shapes = ", ".join(str(list(output.shape)) for output in outputs)
            raise self._refuse("output_number", f"the network gives {len(outputs)} outputs, of the shapes {shapes}")
        if number is not None and number >= len(outputs):
            raise self._refuse("output_number", f"it is {number}, and the last output is number {len(outputs) - 1}")
        return outputs[number or 0]

    def _arranged(self, output: torch.Tensor, shape: Triple) -> torch.Tensor:
        """The output as `(c, z, y, x)`, its extent checked."""
        said = self.model.declaration
        axes = said.output_axes
        if output.ndim != len(axes):
            raise self._refuse("output_axes", f"it is {axes!r}, and the output has the shape {list(output.shape)}")
        output = output.permute(*(axes.index(axis) for axis in "bczyx" if axis in axes))
        output = output[0] if "b" in axes else output
        given = tuple(output.shape[1:])
        expected = tuple(n - a + b for n, a, b in zip(shape, said.input, said.output, strict=True))
        if given != expected:
            key = "output" if shape == said.input else "step"
            raise self._refuse(
                key, f"of {list(shape)} voxels the network gives {list(given)}; expected {list(expected)}"
            )
        last = max(said.output_channels)
        if last >= output.shape[0]:
            raise self._refuse("channels", f"the network gives {output.shape[0]} channels; expected {last + 1} or more")
        return output[list(said.output_channels)].float()

    def _affinities(self, values: torch.Tensor) -> torch.Tensor:
        if not bool(torch.isfinite(values).all()):
            raise UserError(
                f"{self.model.path}: the network gives NaN or infinite values. If `raw_range`, "
                f"{list(self.model.declaration.raw_range)}, is what it was trained with, the network is broken."
            )
        if self.model.declaration.output_is == "logits":
            return torch.sigmoid(values)
        low, high = float(values.min()), float(values.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            reason = f"the network gives values from {low:.3g} to {high:.3g}, which are no affinities, 0 to 1"
            raise self._refuse("output_is", f'{reason}. If a sigmoid is to follow, declare output_is = "logits"')
        return values

    def _refuse(self, key: str, reason: str) -> UserError:
        return UserError(f"{self.model.path}, `{key}`: {reason}. Correct the declaration.")


def _torchscript(model: ForeignModel, device: torch.device, wanted: str) -> tuple[Run, float]:
    """How to run it, and bytes per voxel of its input."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded: torch.nn.Module = torch.jit.load(io.BytesIO(model.network.read()), device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UserError(
            f"{_name(model)} is no TorchScript, or damaged. A state_dict or a pickled module needs the code it belongs "
            "to; save the network there with `torch.jit.script(network).save(…)` or `torch.jit.trace`."
        ) from error

    # convolutions are faster so, and sized by what the first of them gives
    module = loaded.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    kernels = (weight for weight in module.parameters() if weight.ndim == 5)
    first = next(kernels, None)
    precision = "fp32" if wanted == "auto" else choose_precision(device, wanted)

    def run(values: torch.Tensor) -> Sequence[torch.Tensor]:
        # what is optimised after some runs may be rounded otherwise than before
        with torch.jit.optimized_execution(False), autocast(device, precision):  # type: ignore[attr-defined]
            if values.ndim == 5:
                values = values.contiguous(memory_format=torch.channels_last_3d)
            return _tensors(module(values))

    return run, 0.0 if first is None else BYTES_PER_MAP * first.shape[0]


def _onnx(model: ForeignModel, device: torch.device) -> tuple[torch.device, Run]:
    """Where and how it runs."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("ONNX networks need onnxruntime. Install it with `pip install neuroloom[onnx]`.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    external = model.network.read_external()
    if external is not None:
        name, content = external
        options.add_external_initializers_from_files_in_memory([name], [content], [len(content)])
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    else:
        device = torch.device("cpu")
    try:
        session = onnxruntime.InferenceSession(model.network.read(), options, providers=providers)
    except Exception as error:  # of many types; all of them mean that the bytes are not a whole ONNX network
        raise UserError(
            f"{_name(model)} is no ONNX network, damaged, or without its weights ({_first_line(error)}). Weights "
            f"belong into the same file, or beside it as {model.network.file.name}.data."
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise UserError(f"{_name(model)} sees {len(inputs)} inputs; expected one, the image.")

    def run(values: torch.Tensor) -> Sequence[torch.Tensor]:
        try:
            outputs = session.run(None, {inputs[0].name: values.cpu().numpy()})
        except Exception as error:  # not of the types that PyTorch raises
            raise RuntimeError(str(error)) from error
        return [torch.from_numpy(output) for output in outputs]

    return device, run


def _tensors(output: Any) -> list[torch.Tensor]:
    """All tensors of an output, which may be one, or nested in tuples, lists and dictionaries."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _name(model: ForeignModel) -> str:
    network = model.network
    return str(network.file) if network.member is None else f"{network.member} in {network.file}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
