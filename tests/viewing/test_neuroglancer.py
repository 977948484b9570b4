"""What neuroglancer is told, without a browser; what a browser makes of it is in tests/system/test_viewing.py."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import neuroglancer
import numpy as np
import psutil
import pytest

from neuroloom.errors import UserError
from neuroloom.viewing import Layer, view
from neuroloom.volume import Volume, create_volume


@pytest.fixture
def raw(tmp_path: Path) -> Volume:
    return create_volume(tmp_path / "a.zarr", "raw", (10, 40, 60), "uint8", (40, 8, 4), (80, 16, -12))


def test_voxel_size_and_offset_reach_the_viewer(raw: Volume) -> None:
    viewer = view([Layer("raw", "image", raw)])
    try:
        state = viewer.state.state.to_json()
    finally:
        viewer.close()
    assert state["dimensions"] == {"z": [4e-8, "m"], "y": [8e-9, "m"], "x": [4e-9, "m"]}
    # the middle of 80 … 480, 16 … 336 and -12 … 228 nm, in voxels
    assert state["position"] == [7, 22, 27]
    (layer,) = state["layers"]
    (source,) = layer["source"] if isinstance(layer["source"], list) else [layer["source"]]
    assert source["url"].endswith("/0/|zarr3:")
    transform = source["transform"]
    assert transform["outputDimensions"] == state["dimensions"]
    assert list(transform["inputDimensions"].values()) == list(state["dimensions"].values())
    assert transform["matrix"] == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 1, -3]]


def test_ids_above_53_bits_stay_exact(tmp_path: Path) -> None:
    labels = create_volume(tmp_path / "a.zarr", "fragments", (4, 4, 4), "uint64", (8, 8, 8))
    large = 2**63 + 1
    table = np.array([[5, large, large + 2], [5, 5, large + 2]], np.uint64)
    viewer = view([Layer("segments", "labels", labels, lookup=table)])
    try:
        text = json.dumps(viewer.state.state.to_json()["layers"][0]["equivalences"])
    finally:
        viewer.close()
    assert text == f'[["5", "{large}"]]'


def test_only_this_machine_can_connect_and_only_with_the_token(raw: Volume) -> None:
    before = listening()
    viewer = view([Layer("raw", "image", raw)])
    try:
        opened = listening() - before
        assert {port for _, port in opened} == set(viewer.ports)
        assert {address for address, _ in opened} == {"127.0.0.1"}
        token = viewer.url.rstrip("/").rpartition("/")[2]
        assert len(token) >= 32
        page, arrays = viewer.ports
        assert status(f"http://127.0.0.1:{page}/v/{token}/") == 200
        assert status(f"http://127.0.0.1:{page}/v/{'0' * len(token)}/") == 404
        assert status(f"http://127.0.0.1:{arrays}/{token}/0/zarr.json") == 200
        assert status(f"http://127.0.0.1:{arrays}/{'0' * len(token)}/0/zarr.json") == 404
    finally:
        viewer.close()
    assert listening() <= before
    other = view([Layer("raw", "image", raw)])
    other.close()
    assert other.url.rpartition("/v/")[2] != viewer.url.rpartition("/v/")[2]


@pytest.mark.parametrize("taken", [0, 1])
def test_a_taken_port_leaves_nothing_running(raw: Volume, taken: int) -> None:
    before = listening()
    # below the ports that the system gives away, so that no other program has its neighbour
    port = 21000 + 10 * (os.getpid() % 900)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UserError, match=f"{port} .*--port"):
            view([Layer("raw", "image", raw)], port=port - taken)
    assert listening() <= before
    assert not neuroglancer.is_server_running()


def test_one_viewer_at_a_time(raw: Volume) -> None:
    viewer = view([Layer("raw", "image", raw)])
    try:
        with pytest.raises(UserError, match="already"):
            view([Layer("raw", "image", raw)])
    finally:
        viewer.close()


def listening() -> set[tuple[str, int]]:
    connections = psutil.Process().net_connections(kind="tcp")
    return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
