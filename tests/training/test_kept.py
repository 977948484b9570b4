"""Kept descriptors: what the network says of a volume, computed block by block, and turned with the crops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.errors import Interrupted, UserError
from neuroloom.networks.architecture import UNetParameters, input_shape
from neuroloom.networks.unet import UNet
from neuroloom.project import Augmentation
from neuroloom.training.augmentation.map import draw_map
from neuroloom.training.augmentation.map import input_shape as crop_shape
from neuroloom.training.augmentation.sampling import sample_descriptors, sample_labels
from neuroloom.training.descriptors import lsd
from neuroloom.training.group import Group
from neuroloom.training.kept import KeptDescriptors, blocks_of, keep_descriptors, region_of
from neuroloom.training.windows import Window, whole
from neuroloom.volume.array import Triple

from .conftest import cells

CPU = torch.device("cpu")
CUBE = (8.0, 8.0, 8.0)
GEOMETRY = UNetParameters(in_channels=1, heads=(("lsd", 10),), feature_maps=2, growth=2, downsampling=((2, 2, 2),))


def known(labels: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Descriptors and presence of labels, as a network would give them that makes no mistake."""
    exact = np.concatenate([lsd(labels, 24.0, CUBE), labels[None] != 0]).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(np.rint(exact * 255).astype(np.uint8), 0, -1))


def looked_up(
    labels: NDArray[np.uint64], shape: Triple, parameters: Augmentation, seed: int, begin: Triple | None = None
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Kept descriptors of a crop, and its labels."""
    needed = crop_shape(shape, parameters, CUBE)
    z, y, x = ((n - c) // 2 for n, c in zip(labels.shape, needed, strict=True))
    places = draw_map(torch.Generator().manual_seed(seed), parameters, CUBE, shape, needed)
    found = torch.empty((10, *shape))
    sample_descriptors(Window(known(labels), begin or (z, y, x), needed), places, found)
    turned, roles = torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.uint8)
    window = Window(labels, begin or (z, y, x), needed)
    sample_labels(window, Window(np.ones(labels.shape, np.uint8), window.begin, needed), places, turned, roles)
    return found, turned.numpy()


class TestTurning:
    """What is looked up for a crop is what its own labels would give."""

    @settings(max_examples=12, deadline=None)
    @given(st.integers(0, 3), st.integers(0, 2**31))
    def test_at_right_angles_and_in_mirrors(self, quarters: int, seed: int) -> None:
        labels = cells((46, 46, 46), seed % 7)[1]
        labels[labels % 4 == 0] = 0
        parameters = Augmentation(rotation=(90.0 * quarters,) * 2, elastic_jitter=0.0, slip=0.0, shift=0.0)
        found, turned = looked_up(labels, (40, 40, 40), parameters, seed)
        inner = (slice(None), *[slice(9, -9)] * 3)  # as far as the window does not leave the crop
        expected = lsd(turned.astype(np.uint64), 24.0, CUBE)[inner]
        # uint8; a Pearson coefficient of small variances loses more
        np.testing.assert_allclose(found.numpy()[inner][:6], expected[:6], atol=0.004)
        difference = np.abs(found.numpy()[inner][6:9] - expected[6:9])
        assert np.quantile(difference, 0.99) < 0.02
        assert (found.numpy()[inner][:, turned[inner[1:]] == 0] == 0).all()

    def test_by_any_angle(self) -> None:
        labels = cells((80, 80, 80), 1, number=5)[1]
        parameters = Augmentation(rotation=(30.0, 60.0), elastic_jitter=0.0, slip=0.0, shift=0.0)
        for seed in range(3):
            found, turned = looked_up(labels, (44, 44, 44), parameters, seed)
            inner = (slice(None), *[slice(9, -9)] * 3)
            expected = lsd(turned.astype(np.uint64), 24.0, CUBE)[inner]
            difference = np.abs(found.numpy()[inner] - expected)
            assert difference.mean() < 0.02
            untouched = np.abs(known(labels)[18:62, 18:62, 18:62].astype(np.float32)[inner[1:]] / 255 - 0.5)
            assert difference[:3].mean() < untouched[..., :3].mean() / 5  # far better than not knowing

    def test_beyond_the_border_they_are_those_of_the_mirrored_image(self) -> None:
        labels = np.pad(cells((30, 28, 26), 3)[1], 20, mode="reflect")
        values = known(labels)
        kept = Window(np.ascontiguousarray(values[20:-20, 20:-20, 20:-20]), (-9, -9, -9), (48, 46, 44))
        plain = Augmentation(mirror=False, transpose=False, rotation=(0.0, 0.0), elastic_jitter=0.0, slip=0, shift=0)
        places = draw_map(torch.Generator(), plain, CUBE, (48, 46, 44), (48, 46, 44))
        found = torch.empty((10, 48, 46, 44))
        sample_descriptors(kept, places, found)
        expected = np.moveaxis(values[11:-11, 11:-11, 11:-11, :10], -1, 0) / 255
        np.testing.assert_allclose(found, expected, atol=0.01)
        assert (np.abs(np.diff(expected[0], axis=0)) > 0.1).any()  # offsets do change there


class TestKeeping:
    def test_are_what_the_network_says(self, tmp_path: Path, network: UNet) -> None:
        raw = cells((37, 30, 33), 0)[0]
        kept = keep(raw, tmp_path / "0.npy", network)
        begin, shape = kept.begin, kept.values.shape[:3]
        outer = input_shape(GEOMETRY, shape)
        low = [b - (o - n) // 2 for b, o, n in zip(begin, outer, shape, strict=True)]
        seen = Window(raw, (low[0], low[1], low[2]), outer).read_mirrored().astype(np.float32) / 127.5 - 1
        with torch.no_grad():
            said = network(torch.from_numpy(seen)[None, None])[0].numpy()
        z, y, x = shape
        expected = np.moveaxis(said[:, :z, :y, :x], 0, -1) * 255
        np.testing.assert_allclose(kept.values[..., :10], expected, atol=0.51)

    def test_presence_is_what_a_mirror_image_adds(self, tmp_path: Path, network: UNet) -> None:
        raw = cells((20, 20, 20), 0)[0]
        region: tuple[Triple, Triple] = ((4, 4, 4), (12, 12, 12))
        kept = keep_descriptors(
            *(lambda begin, extent: Window(raw, begin, extent), region, tmp_path / "0.npy", network, GEOMETRY),
            *((12, 12, 12), CPU, lambda share: None),
        )
        outer = input_shape(GEOMETRY, (12, 12, 12))
        z, y, x = (4 - (n - 12) // 2 for n in outer)
        seen = torch.from_numpy(Window(raw, (z, y, x), outer).read_mirrored()).float()[None, None] / 127.5 - 1
        with torch.no_grad():
            both = network(seen) + network(seen.flip(2, 3, 4)).flip(2, 3, 4)
        np.testing.assert_allclose(kept.values[..., 10], both[0, :3].mean(0).clamp(0, 1) * 255, atol=0.51)

    def test_go_on_where_they_were_stopped(self, tmp_path: Path, network: UNet) -> None:
        raw = cells((37, 30, 33), 0)[0]
        expected = keep(raw, tmp_path / "whole.npy", network).values
        before: list[float] = []
        with pytest.raises(Interrupted, match="of them are kept"):
            keep(raw, tmp_path / "0.npy", network, before.append, lambda: len(before) == 5)
        after: list[float] = []
        found = keep(raw, tmp_path / "0.npy", network, after.append)
        np.testing.assert_array_equal(found.values, expected)
        shares = [*before, *after]
        np.testing.assert_allclose(shares, np.arange(1, len(shares) + 1) / len(shares))
        assert len(before) == 5

    @pytest.mark.parametrize("damaged", ["0.npy", "0.done.npy"])
    @pytest.mark.parametrize("content", [None, b"", b"nonsense", b"cut"])
    def test_a_damaged_file_is_made_again(
        self, tmp_path: Path, network: UNet, damaged: str, content: bytes | None
    ) -> None:
        raw = cells((37, 30, 33), 0)[0]
        expected = np.array(keep(raw, tmp_path / "0.npy", network).values)
        file = tmp_path / damaged
        whole_file = file.read_bytes()
        file.unlink()
        if content is not None:
            file.write_bytes(whole_file[:-1] if content == b"cut" else content)
        np.testing.assert_array_equal(keep(raw, tmp_path / "0.npy", network).values, expected)

    def test_processes_share_the_blocks(self, tmp_path: Path, network: UNet) -> None:
        raw = cells((37, 30, 33), 0)[0]
        expected = keep(raw, tmp_path / "whole.npy", network).values
        barrier = threading.Barrier(2)

        class Two(Group):
            def tell(self, values: object, device: torch.device) -> list[float]:
                barrier.wait(30)
                return [0.0]

            def add(self, values: object, device: torch.device) -> list[float]:
                return self.tell(values, device)

        results: dict[int, NDArray[np.uint8]] = {}
        calls = [0, 0]

        def part(rank: int) -> None:
            def count(values: torch.Tensor) -> torch.Tensor:
                calls[rank] += 1
                return network(values)

            results[rank] = keep(raw, tmp_path / "0.npy", count, group=Two(rank, 2)).values

        threads = [threading.Thread(target=part, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        np.testing.assert_array_equal(results[0], expected)
        np.testing.assert_array_equal(results[1], expected)
        assert min(calls) > 0
        assert abs(calls[0] - calls[1]) <= 2

    def test_without_room_nothing_is_begun(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: UNet
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("neuroloom.files.os.fsync", full)
        with pytest.raises(UserError, match="No room"):
            keep(cells((37, 30, 33), 0)[0], tmp_path / "0.npy", network)
        assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 90)] * 3), st.tuples(*[st.integers(4, 50)] * 3))
def test_blocks_cover_a_region_once(shape: Triple, largest: Triple) -> None:
    block, places = blocks_of(shape, GEOMETRY, largest)
    seen = np.zeros(shape, int)
    for place in places:
        seen[tuple(slice(p, p + n) for p, n in zip(place, block, strict=True))] += 1
    assert (seen == 1).all()
    assert all(b <= most + 1 for b, most in zip(block, largest, strict=True))  # even outputs only


def test_the_region_is_what_crops_can_see() -> None:
    counted = np.zeros((5, 4, 6), np.int64)
    counted[2, 1, 3] = 7
    assert region_of(counted, (75, 64, 90), (10, 30, 20)) == ((22, 0, 28), (36, 62, 56))
    counted[:] = 1
    assert region_of(counted, (75, 64, 90), (10, 30, 20)) == ((0, 0, 0), (75, 64, 90))


def test_windows_name_voxels_of_the_volume() -> None:
    numbers = np.arange(4 * 5 * 6 * 11, dtype=np.uint8).reshape(4, 5, 6, 11)
    kept = KeptDescriptors(numbers, (10, 20, 30))
    np.testing.assert_array_equal(kept.window((11, 22, 33), (2, 2, 2)).read_mirrored(), numbers[1:3, 2:4, 3:5])


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(GEOMETRY).eval()


def keep(
    raw: NDArray[np.uint8],
    path: Path,
    network: Callable[[torch.Tensor], torch.Tensor],
    report: Callable[[float], None] = lambda share: None,
    stop: Callable[[], bool] = lambda: False,
    group: Group | None = None,
) -> KeptDescriptors:
    """Descriptors of a volume but for its rim, in many blocks."""
    shape = raw.shape
    region: tuple[Triple, Triple] = ((1, 0, 2), (shape[0] - 1, shape[1], shape[2] - 2))

    def read(begin: Triple, extent: Triple) -> Window:
        window = whole(raw)
        return Window(window.values, begin, extent)

    return keep_descriptors(read, region, path, network, GEOMETRY, (12, 12, 12), CPU, report, stop, group)
