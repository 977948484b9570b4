"""What `init --from` proposes can be trained as it is, whatever the voxel size and extent of the volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.chain import open_project
from neuroloom.chain.new_project import downsampling, fitting_crop, kernels, propose
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.networks import architecture
from neuroloom.networks.setups import network_parameters
from neuroloom.project import FILE_NAME, Network
from neuroloom.project.template import render
from neuroloom.volume import create_volume
from small_model import CARD, save_weights
from small_project import VALUES, make_volume, neuroloom

FACTOR = st.integers(1, 3)


@pytest.mark.parametrize(
    ("voxel_size", "pooling", "extents"),
    [
        ((8, 8, 8), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (3, 3, 3), (3, 3, 3))),
        ((20, 9, 9), ((1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3))),
        ((40, 4, 4), ((1, 2, 2), (1, 2, 2)), ((1, 3, 3), (1, 3, 3), (3, 3, 3))),
        ((4, 4, 16), ((2, 2, 1), (2, 2, 1)), ((3, 3, 1), (3, 3, 1), (3, 3, 3))),
    ],
)
def test_long_voxels_are_neither_pooled_nor_mixed(
    voxel_size: tuple[float, ...], pooling: tuple[tuple[int, int, int], ...], extents: object
) -> None:
    assert downsampling(voxel_size) == pooling
    assert kernels(voxel_size, pooling) == extents


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(FACTOR, FACTOR, FACTOR), min_size=1, max_size=2),
    st.tuples(*[st.integers(8, 40)] * 3),
    st.lists(st.tuples(*[st.integers(6, 50)] * 3), max_size=2),
)
def test_the_crop_is_the_largest_output_that_fits(
    levels: list[tuple[int, int, int]], wanted: tuple[int, int, int], shapes: list[tuple[int, int, int]]
) -> None:
    network = Network(downsampling=tuple(levels))
    parameters = network_parameters("lsd", network)
    found = fitting_crop(network, wanted, shapes)
    assert architecture.output_shape(parameters, architecture.input_shape(parameters, found)) == found
    for axis, limit in enumerate(min(extents) for extents in zip(wanted, *shapes, strict=True)):
        outputs = set()
        for extent in range(1, 200):
            try:
                outputs.add(
                    architecture.output_shape(parameters, architecture.input_shape(parameters, (extent,) * 3))[axis]
                )
            except ValueError:
                continue
        fitting = [output for output in outputs if output <= limit]
        assert found[axis] == (max(fitting) if fitting else min(outputs))


def test_a_thin_anisotropic_volume_is_ready_to_train(tmp_path: Path) -> None:
    shape = (7, 90, 100)
    labels = np.arange(100, dtype=np.uint64)[None, None, :] // 25 + 1
    for name, values in (("raw", np.full(shape, 90, np.uint8)), ("labels/neuron_ids", np.broadcast_to(labels, shape))):
        create_volume(tmp_path / "v.zarr", f"volumes/{name}", shape, values.dtype, (40, 4, 4)).write(
            (0, 0, 0), np.ascontiguousarray(values)
        )
    result = neuroloom("init", tmp_path / "p", "--from", tmp_path / "v.zarr")
    assert result.returncode == 0, result.stderr
    assert "downsampling [[1, 2, 2], [1, 2, 2]]" in result.stdout
    assert "crop [7, 64, 64]" in result.stdout
    assert "sigma_nm 66 all the same" in result.stdout  # of 400 nm, a sixth
    parameters = open_project(tmp_path / "p").parameters
    assert parameters.network.downsampling == ((1, 2, 2), (1, 2, 2))
    assert parameters.network.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert parameters.training.crop == (7, 64, 64)
    # put back what does not fit: it is told with its line, before anything starts
    file = tmp_path / "p" / FILE_NAME
    file.write_text(file.read_text().replace("crop = [7, 64, 64]", "crop = [64, 64, 64]"))
    result = neuroloom("run", "--dry-run", "--project", tmp_path / "p")
    assert result.returncode == 2
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text.startswith("crop"))
    assert f"line {line}: volume v of 7 x 90 x 100 voxels is smaller than `training.crop`" in result.stderr
    assert "the largest that fits: [7, 64, 64]" in result.stderr


def test_what_validates_is_segmented_once(tmp_path: Path) -> None:
    for name in ("v", "whole"):
        create_volume(tmp_path / f"{name}.zarr", "volumes/raw", (8, 8, 8), np.uint8, (8, 8, 8))
    create_volume(tmp_path / "v.zarr", "volumes/labels/neuron_ids", (8, 8, 8), np.uint64, (8, 8, 8))
    found = propose([], [tmp_path / "v.zarr"], [f"{tmp_path}/v.zarr/", tmp_path / "whole.zarr"], tmp_path / "p")
    assert [entry["name"] for entry in found["volumes"]["predict"]] == ["whole"]
    assert f"{tmp_path}/v.zarr/ is not among those to predict: what validates is segmented anyway" in found["_why"]


def test_a_project_with_given_weights(tmp_path: Path) -> None:
    make_volume(tmp_path / "v.zarr", 1, (40, 44, 48))
    network = {"feature_maps": 5, "growth": 2, "downsampling": [[2, 2, 2], [3, 3, 3]]}
    save_weights(tmp_path / "given" / "mine.ckpt", "acrlsd", network)
    (tmp_path / "given" / "model.toml").write_text(
        CARD + "[settings.prediction]\nmirrors = 2\n[settings.fragments]\nmin_seed_distance = 7\n"
        "[settings.segmentation]\nthreshold = 0.34\norphans = 50\n"
    )
    # nothing to train on: they predict, and the card's advice is written down
    init = ("--model", tmp_path / "given" / "mine.ckpt")
    result = neuroloom("init", tmp_path / "p", "--predict", tmp_path / "v.zarr", *init)
    assert result.returncode == 0, result.stderr
    assert "segmentation: threshold 0.34, orphans 50, as the model's card advises" in result.stdout
    parameters = open_project(tmp_path / "p").parameters
    assert (parameters.prediction.model, parameters.prediction.mirrors) == ("../given/mine.ckpt", 2)
    assert (parameters.fragments.min_seed_distance, parameters.segmentation.threshold) == (7, 0.34)
    assert parameters.segmentation.orphans == 50
    # something to train on: training starts from them, with their network; the threshold is found anew
    result = neuroloom("init", tmp_path / "q", "--from", tmp_path / "v.zarr", *init)
    assert result.returncode == 0, result.stderr
    parameters = open_project(tmp_path / "q").parameters
    assert (parameters.prediction.model, parameters.training.start) == (None, "../given/mine.ckpt")
    assert (parameters.network.feature_maps, parameters.network.downsampling) == (5, ((2, 2, 2), (3, 3, 3)))
    assert (parameters.training.sigma_nm, parameters.segmentation.threshold) == (VALUES["training"]["sigma_nm"], "auto")
    assert parameters.segmentation.orphans == 50
    assert (parameters.training.crop, parameters.training.descriptors) == ((36, 42, 48), None)


def test_a_model_whose_networks_differ_in_size(tmp_path: Path) -> None:
    make_volume(tmp_path / "v.zarr", 1, (40, 44, 48))
    mixed = save_weights(tmp_path / "mine.ckpt", "acrlsd", lsd_network={**VALUES["network"], "feature_maps": 8})
    found = propose([tmp_path / "v.zarr"], [], [], tmp_path, str(mixed))
    assert (found["training"]["start"], found["training"]["descriptors"]) == ("mine.ckpt", "mine.ckpt")
    assert found["network"]["feature_maps"] == 4
    assert "its descriptor network is of another size than the affinity network: used as it is" in found["_why"]
    del found["_why"]
    write_text(tmp_path / FILE_NAME, render(found))
    open_project(tmp_path)  # and it fits
    del found["training"]["descriptors"]
    write_text(tmp_path / FILE_NAME, render(found))
    with pytest.raises(UserError, match=r"maps` 8 instead of 4\. .*, or use its descriptor network as it is \(`train"):
        open_project(tmp_path)


def test_weights_for_other_voxels_are_refused(tmp_path: Path) -> None:
    make_volume(tmp_path / "v.zarr", 1, (20, 20, 20), (8.0, 8.0, 8.4))
    save_weights(tmp_path / "mine.ckpt", "affs")
    with pytest.raises(UserError, match=r"trained on voxels of 8 x 8 x 8 nm, these volumes have 8 x 8 x 8\.4 nm"):
        propose([], [], [tmp_path / "v.zarr"], tmp_path, str(tmp_path / "mine.ckpt"))


def test_a_descriptor_network_cannot_segment_but_be_trained_on(tmp_path: Path) -> None:
    make_volume(tmp_path / "v.zarr", 1, (40, 44, 48))
    lsd = str(save_weights(tmp_path / "lsd.ckpt", "lsd"))
    with pytest.raises(UserError, match=r"setup 'lsd', which gives no affinities.*or train on from it with --from"):
        propose([], [], [tmp_path / "v.zarr"], tmp_path, lsd)
    training = propose([tmp_path / "v.zarr"], [], [], tmp_path, lsd)["training"]
    assert (training["start"], "setup" in training) == ("lsd.ckpt", False)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["cremi-b-thin", "gala-a"])
def test_the_chain_runs_on_real_volumes_as_proposed(tmp_path: Path, real_data: Path, name: str) -> None:
    volume = real_data / f"{name}.zarr"
    # scored on what it was trained on: this is about shapes, not about scores
    assert neuroloom("init", tmp_path, "--from", volume, "--validate", volume).returncode == 0
    file = tmp_path / FILE_NAME
    text = file.read_text().replace("feature_maps = 12", "feature_maps = 2").replace("growth = 3", "growth = 2")
    file.write_text(text.replace("iterations = 2000", "iterations = 2"))
    result = neuroloom("run", "--project", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"VOI sum on {name}" in result.stdout
