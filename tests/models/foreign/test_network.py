"""Running others' networks: axes, outputs and channels as declared, and every way in which they are otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foreign_network import EDGES, NEAREST, Edges, declare, save_script
from neuroloom.errors import UserError
from neuroloom.models.foreign import read_foreign
from neuroloom.models.foreign.network import ForeignNetwork

CPU = torch.device("cpu")


class Otherwise(nn.Module):
    """`Edges` of an image `(x, z, y, channel)`: a dictionary of three outputs, the last one `(z, channel, y, x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = Edges([[0, 0, -1], [0, -1, 0], [-1, 0, 0]])

    def forward(self, raw: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        affinities = self.edges(raw.permute(3, 1, 2, 0)[None])[0]
        return {"a": (raw, raw), "b": (affinities.permute(1, 0, 2, 3), raw)}


class Scaled(nn.Module):
    """`Edges`, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.edges = Edges([[-1, 0, 0], [0, -1, 0], [0, 0, -1]])
        self.factor = factor

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return self.edges(raw) * self.factor


def run(path: Path, extent: tuple[int, ...] = (14, 13, 12)) -> torch.Tensor:
    network = ForeignNetwork(read_foreign(path), CPU)
    return network(torch.from_numpy(np.random.default_rng(0).random(extent, np.float32)))


def test_axes_outputs_and_channels(tmp_path: Path) -> None:
    save_script(Edges(NEAREST), tmp_path / "edges.pt")
    save_script(Otherwise(), tmp_path / "otherwise.pt")
    expected = run(declare(tmp_path / "a.toml", EDGES))
    assert expected.shape == (3, 10, 9, 8)
    changed: dict[str, Any] = {"file": "otherwise.pt", "input_axes": "xzyc", "output_axes": "zcyx"}
    path = declare(tmp_path / "b.toml", EDGES, **changed, output_number=2, channels=[2, 1, 0])
    torch.testing.assert_close(run(path), expected, rtol=0, atol=0)
    # in a larger input, what is declared grows with it
    assert run(tmp_path / "a.toml", (14, 15, 12)).shape == (3, 10, 11, 8)


def test_logits_become_affinities(tmp_path: Path) -> None:
    save_script(Scaled(10.0), tmp_path / "edges.pt")
    save_script(Scaled(1.0), tmp_path / "one.pt")
    found = run(declare(tmp_path / "a.toml", EDGES, output_is="logits"))
    expected = torch.sigmoid(10 * run(declare(tmp_path / "b.toml", EDGES, file="one.pt")))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("module", "changed", "said"),
    [
        (Edges(NEAREST[:2]), {}, r"n\.toml, `channels`: the network gives 2 channels; expected 3 or more"),
        (Edges(NEAREST), {"channels": [0, 1, 5]}, r"`channels`: the network gives 3 channels; expected 6 or more"),
        (
            Edges(NEAREST),
            {"output": [8, 9, 8]},
            r"`output`: of \[14, 13, 12\] voxels .* \[10, 9, 8\]; expected \[8, 9, 8",
        ),
        (Scaled(2.0), {}, r"`output_is`: the network gives values from .* to 1\.\d+, .*declare output_is = \"logits\""),
        (Scaled(-1.0), {}, r"`output_is`: the network gives values from -"),
        (Scaled(float("nan")), {}, r"the network gives NaN or infinite values"),
        (Scaled(float("inf")), {"output_is": "logits"}, r"the network gives NaN or infinite values"),
        (Otherwise(), {"input_axes": "xzyc"}, r"`output_number`: the network gives 4 outputs, of the shapes \[\[?12, "),
        (Otherwise(), {"input_axes": "xzyc", "output_number": 4}, r"it is 4, and the last output is number 3"),
        (
            Edges(NEAREST),
            {"output_axes": "czyx"},
            r"`output_axes`: it is 'czyx', and the output has the shape \[1, 3, ",
        ),
    ],
)
def test_what_is_not_as_declared(tmp_path: Path, module: nn.Module, changed: dict[str, Any], said: str) -> None:
    save_script(module, tmp_path / "edges.pt")
    with pytest.raises(UserError, match=said):
        run(declare(tmp_path / "n.toml", EDGES, **changed))


def test_what_is_no_torchscript(tmp_path: Path) -> None:
    path = declare(tmp_path / "n.toml", EDGES)
    torch.save(nn.Conv3d(1, 3, 3).state_dict(), tmp_path / "edges.pt")
    with pytest.raises(UserError, match=r"edges\.pt is no TorchScript, or damaged. A state_dict or a pickled module"):
        run(path)
    whole = save_script(Edges(NEAREST), tmp_path / "edges.pt").read_bytes()
    (tmp_path / "edges.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is no TorchScript, or damaged"):
        run(path)


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _libraries(self) -> None:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")

    def save(self, path: Path, inputs: int = 1, **options: Any) -> torch.nn.Conv3d:
        """A convolution and a sigmoid, and the convolution."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        torch.manual_seed(0)
        layer = nn.Conv3d(1, 3, 5)
        weights = [numpy_helper.from_array(p.detach().numpy(), name) for name, p in layer.named_parameters()]
        nodes = [
            helper.make_node("Conv", ["raw", "weight", "bias"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["affinities"]),
        ]
        given = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "z", "y", "x"])
            for name in ("raw", "other")[:inputs]
        ]
        found = [helper.make_tensor_value_info("affinities", TensorProto.FLOAT, [1, 3, "a", "b", "c"])]
        model = helper.make_model(
            helper.make_graph(nodes, "g", given, found, weights),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        onnx.save(model, path, **options)
        return layer

    @pytest.mark.parametrize(
        "options", [{}, {"save_as_external_data": True, "location": "n.onnx.data", "size_threshold": 0}]
    )
    def test_it_runs(self, tmp_path: Path, options: dict[str, Any]) -> None:
        layer = self.save(tmp_path / "n.onnx", **options)
        assert (tmp_path / "n.onnx.data").exists() == bool(options)
        raw = torch.from_numpy(np.random.default_rng(0).random((14, 13, 12), np.float32))
        found = run(declare(tmp_path / "n.toml", EDGES, file="n.onnx"))
        torch.testing.assert_close(found, torch.sigmoid(layer(raw[None, None])[0]))

    def test_what_cannot_be_run(self, tmp_path: Path) -> None:
        path = declare(tmp_path / "n.toml", EDGES, file="n.onnx")
        (tmp_path / "n.onnx").write_text("nothing")
        with pytest.raises(UserError, match=r"n\.onnx is no ONNX network, damaged, or without its weights"):
            run(path)
        self.save(tmp_path / "n.onnx", inputs=2)
        with pytest.raises(UserError, match="sees 2 inputs; expected one, the image"):
            run(path)
        self.save(tmp_path / "n.onnx")
        with pytest.raises(RuntimeError, match="rank"):
            run(declare(tmp_path / "n.toml", EDGES, file="n.onnx", input_axes="zyx"))


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "n.onnx").write_bytes(b"network")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"need onnxruntime. Install it with `pip install neuroloom\[onnx\]`"):
        run(declare(tmp_path / "n.toml", EDGES, file="n.onnx"))
