"""Crops: the right place, the same in every run, and a clear word about volumes that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.training import crops as module
from neuroloom.training.crops import Crop, Crops, LabelledArrays, check_labels, check_voxel_size
from neuroloom.training.truth import COUNTS
from neuroloom.volume.array import reflect_indices

from .conftest import VOXEL_SIZE, MakeVolume, cells

OUTPUT, RAW, LABELS = (12, 12, 12), (20, 24, 28), (16, 16, 16)


def same(a: Crop, b: Crop) -> bool:
    return (
        (a.volume, a.centre) == (b.volume, b.centre)
        and np.array_equal(a.raw.read_mirrored(), b.raw.read_mirrored())
        and np.array_equal(a.labels.read(), b.labels.read())
        and np.array_equal(a.roles.read(), b.roles.read())
    )


def counts(crop: Crop) -> NDArray[np.bool_]:
    return crop.roles.read() == COUNTS


class TestPlace:
    def test_crop_is_the_volume_around_its_centre(self, make_volume: MakeVolume) -> None:
        raw, labels = cells((40, 36, 44))
        mask = np.random.default_rng(0).random(raw.shape) < 0.9
        volume = make_volume(raw=raw, labels=labels, mask=mask.astype(np.uint8))
        crops = Crops([volume], 0, OUTPUT)
        for number in range(8):
            crop = crops.draw(number, RAW, LABELS)
            begin = [c - o // 2 for c, o in zip(crop.centre, OUTPUT, strict=True)]
            assert all(0 <= b <= s - o for b, s, o in zip(begin, raw.shape, OUTPUT, strict=True))
            around = [
                reflect_indices(b - (n - o) // 2, n, s)
                for b, n, o, s in zip(begin, RAW, OUTPUT, raw.shape, strict=True)
            ]
            np.testing.assert_array_equal(crop.raw.read_mirrored(), raw[np.ix_(*around)])
            found, good = crop.labels.read(), counts(crop)
            for z, y, x in np.random.default_rng(number).integers(0, 16, (50, 3)):
                place = tuple(b - 2 + i for b, i in zip(begin, (z, y, x), strict=True))
                inside = all(0 <= p < s for p, s in zip(place, raw.shape, strict=True))
                assert found[z, y, x] == (labels[place] if inside else 0)
                assert good[z, y, x] == (mask[place] if inside else False)

    def test_all_of_the_volume_is_drawn(self, make_volume: MakeVolume) -> None:
        crops = Crops([make_volume()], 0, OUTPUT)
        centres = np.array([crops.draw(n, OUTPUT, OUTPUT).centre for n in range(300)])
        np.testing.assert_array_less(centres.min(axis=0), 9)
        np.testing.assert_array_less(np.array([40, 36, 44]) - 9, centres.max(axis=0))

    def test_volume_smaller_than_the_output_lies_in_the_middle(self, make_volume: MakeVolume) -> None:
        raw, labels = cells((6, 36, 44))
        crop = Crops([make_volume(raw=raw, labels=labels)], 0, OUTPUT).draw(0, OUTPUT, OUTPUT)
        assert counts(crop).any(axis=(1, 2)).tolist() == [False] * 3 + [True] * 6 + [False] * 3

    def test_half_of_the_output_is_masked_in(self, make_volume: MakeVolume) -> None:
        mask = np.zeros((40, 36, 44), np.uint8)
        mask[:, :, :20] = 1
        crops = Crops([make_volume(mask=mask)], 0, OUTPUT)
        assert min(counts(crops.draw(n, OUTPUT, OUTPUT)).mean() for n in range(40)) >= 0.5

    def test_a_small_labelled_box_in_a_large_volume_is_found(self, make_volume: MakeVolume) -> None:
        shape = (20, 160, 160)
        labels = np.zeros(shape, np.uint64)
        mask = np.zeros(shape, np.uint8)
        labels[2:18, 100:118, 37:55] = mask[2:18, 100:118, 37:55] = 1
        volume = make_volume(raw=np.zeros(shape, np.uint8), labels=labels, mask=mask)
        crops = Crops([volume], 0, OUTPUT)
        drawn = [crops.draw(n, OUTPUT, OUTPUT) for n in range(30)]
        assert np.mean([counts(crop).mean() >= 0.5 for crop in drawn]) > 0.8
        assert len({crop.centre for crop in drawn}) > 15


class TestDrawing:
    def test_crop_is_a_function_of_seed_and_number(self, make_volume: MakeVolume) -> None:
        volumes = [make_volume("one"), make_volume("three")]
        first, second = Crops(volumes, 3, OUTPUT), Crops(volumes, 3, OUTPUT)
        forwards = [first.draw(n, RAW, LABELS) for n in range(6)]
        backwards = [second.draw(n, RAW, LABELS) for n in reversed(range(6))]
        assert all(same(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
        assert not same(forwards[0], forwards[1])
        assert not same(forwards[0], Crops(volumes, 4, OUTPUT).draw(0, RAW, LABELS))

    def test_given_weights_are_the_probabilities(self, make_volume: MakeVolume) -> None:
        crops = Crops([make_volume("rare", weight=1), make_volume("often", weight=4)], 0, OUTPUT)
        share = np.mean([crops.draw(n, OUTPUT, OUTPUT).volume == "often" for n in range(300)])
        assert 0.7 < share < 0.9

    def test_default_weight_is_the_number_of_labelled_voxels(self, make_volume: MakeVolume) -> None:
        raw, labels = cells((20, 20, 20))
        labels[:10] = 0
        mask = np.ones(raw.shape, np.uint8)
        mask[:, :5] = 0
        assert LabelledArrays(make_volume(raw=raw, labels=labels, mask=mask)).weight == 10 * 15 * 20

    def test_volumes_too_large_for_the_memory_give_the_same_crops(
        self, make_volume: MakeVolume, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        volume = make_volume(mask=np.ones((40, 36, 44), np.uint8))
        kept = Crops([volume], 0, OUTPUT)
        monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
        read = Crops([volume], 0, OUTPUT)
        assert (kept.arrays[0].nbytes > 0, read.arrays[0].nbytes) == (True, 0)
        assert all(same(kept.draw(n, RAW, LABELS), read.draw(n, RAW, LABELS)) for n in range(4))

    def test_float_raw_is_taken_as_it_is(self, make_volume: MakeVolume) -> None:
        raw = np.random.default_rng(0).random((40, 36, 44), np.float32)
        crop = Crops([make_volume(raw=raw)], 0, OUTPUT).draw(0, OUTPUT, OUTPUT)
        z, y, x = (slice(c - 6, c + 6) for c in crop.centre)
        assert np.array_equal(crop.raw.read_mirrored(), raw[z, y, x])


class TestRefusal:
    def test_mask_of_zeros(self, make_volume: MakeVolume) -> None:
        volume = make_volume(mask=np.zeros((40, 36, 44), np.uint8))
        with pytest.raises(UserError, match=r"cells\.zarr/mask.*no voxel is both labelled and masked in"):
            LabelledArrays(volume)

    def test_labels_of_zeros(self, make_volume: MakeVolume) -> None:
        with pytest.raises(UserError, match="nothing to learn from"):
            LabelledArrays(make_volume(labels=np.zeros((40, 36, 44), np.uint64)))

    @pytest.mark.parametrize("memory", [2**30, 0])
    def test_one_label_in_all_volumes(self, make_volume: MakeVolume, memory: int) -> None:
        one = np.zeros((40, 36, 44), np.uint64)
        one[:, 10:20] = 7
        volume = make_volume(labels=one)
        arrays = [LabelledArrays(volume, memory)]
        with pytest.raises(UserError, match="one label only in cells, so there are no neurites to tell apart"):
            check_labels(arrays)
        check_labels([*arrays, LabelledArrays(make_volume("more"), memory)])
        # painted in part, it is known to end where it ends
        check_labels([LabelledArrays(volume.model_copy(update={"unlabelled": "ignore"}), memory)])

    @pytest.mark.parametrize("memory", [2**30, 0])
    def test_nan_in_raw(self, make_volume: MakeVolume, memory: int) -> None:
        raw = np.full((40, 36, 44), np.nan, np.float32)
        with pytest.raises(UserError, match=r"cells\.zarr/raw holds NaN"):
            LabelledArrays(make_volume(raw=raw), memory).raw((0, 0, 0), OUTPUT)

    def test_float_raw_outside_its_range(self, make_volume: MakeVolume) -> None:
        raw = np.full((40, 36, 44), 200, np.float32)
        with pytest.raises(UserError, match=r"values from 200 to 200; float raw must lie in \[0, 1\]"):
            LabelledArrays(make_volume(raw=raw))

    def test_raw_of_another_type(self, make_volume: MakeVolume) -> None:
        with pytest.raises(UserError, match="is uint16; expected uint8, or float32"):
            LabelledArrays(make_volume(raw=np.zeros((40, 36, 44), np.uint16)))

    def test_float_labels(self, make_volume: MakeVolume) -> None:
        with pytest.raises(UserError, match="labels must be whole numbers"):
            LabelledArrays(make_volume(labels=np.ones((40, 36, 44), np.float32)))

    def test_labels_of_another_shape(self, make_volume: MakeVolume) -> None:
        with pytest.raises(UserError, match=r"labels has \(40, 36, 43\) voxels, its raw \(40, 36, 44\)"):
            LabelledArrays(make_volume(labels=np.ones((40, 36, 43), np.uint64)))

    def test_labels_in_another_place(self, make_volume: MakeVolume) -> None:
        with pytest.raises(UserError, match=r"begins at \(80\.0, 0\.0, 0\.0\) nm, its raw at"):
            LabelledArrays(make_volume(label_offset=(80.0, 0.0, 0.0)))

    def test_missing_dataset(self, make_volume: MakeVolume) -> None:
        with pytest.raises(UserError, match="holds no dataset 'truth'; it holds labels, raw"):
            LabelledArrays(make_volume().model_copy(update={"labels": "truth"}))

    def test_another_voxel_size(self, make_volume: MakeVolume) -> None:
        arrays = [LabelledArrays(make_volume(voxel_size=(4.0, 8.0, 8.0)))]
        with pytest.raises(UserError, match=r"Volume cells has voxels of \(4\.0, 8\.0, 8\.0\) nm"):
            check_voxel_size(arrays, VOXEL_SIZE)

    def test_truncated_chunk(self, make_volume: MakeVolume) -> None:
        volume = make_volume()
        chunk = next(p for p in (Path(volume.path) / "raw").rglob("*") if p.is_file() and p.name != "zarr.json")
        chunk.write_bytes(chunk.read_bytes()[:20])
        with pytest.raises(UserError, match="cannot be decoded"):
            LabelledArrays(volume)
