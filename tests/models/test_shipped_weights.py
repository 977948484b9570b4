"""The shipped weights find neurites in tissue that they have not learned, at the settings of their cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.new_project import propose
from neuroloom.files import write_text
from neuroloom.models.card import read_card
from neuroloom.models.registry import CARD_NAME, FOLDER
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from neuroloom.volume import create_volume, open_volume

SHAPE = (110, 110, 110)


@pytest.mark.real_data
@pytest.mark.parametrize("name", sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD_NAME}")))
def test_a_corner_of_tissue_that_was_not_learned(real_data: Path, tmp_path: Path, name: str) -> None:
    for dataset in ("volumes/raw", "volumes/labels/neuron_ids", "volumes/labels/mask"):
        whole = open_volume(real_data / "fib25-val.zarr", dataset)
        values = whole.read((0, 0, 0), SHAPE)
        volume = create_volume(tmp_path / "v.zarr", dataset, SHAPE, values.dtype, whole.voxel_size)
        volume.write((0, 0, 0), values)
    found = propose([], [tmp_path / "v.zarr"], [], tmp_path, name)
    del found["_why"]
    found["segmentation"]["threshold"] = read_card(FOLDER / name / CARD_NAME).settings.segmentation.threshold
    write_text(tmp_path / FILE_NAME, render(found))
    chain = Chain(open_project(tmp_path))
    for step in all_steps(chain):
        if step.name.startswith("segment"):
            break
        next(s for s in all_steps(chain) if s.name == step.name).run(lambda done, total, words: None)
    evaluation = chain.evaluation(chain.validation_volumes[0])
    assert evaluation is not None
    used = evaluation.used
    assert used.threshold == found["segmentation"]["threshold"]
    assert used.plain.voi_sum < 1.15  # 1.02 and 1.00 were measured
    assert used.eroded_1 is not None
    assert used.eroded_1.voi_sum < 0.55  # 0.45 and 0.44
