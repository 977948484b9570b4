"""The project file: every mistake is named with its line, what was expected and the nearest right word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neuroloom.errors import UserError
from neuroloom.project import FILE_NAME, Augmentation, Parameters, load_project
from neuroloom.project.parameters import Segmentation
from neuroloom.project.template import render

VALUES: dict[str, Any] = {
    "voxel_size": [8.0, 8.0, 8.0],
    "volumes": {
        "train": [{"name": "a", "path": "a.zarr", "zero_ids": [7]}, {"name": "b", "path": "b.zarr", "weight": 2.0}],
        "validate": [{"name": "v", "path": "v.zarr", "mask": "volumes/labels/mask"}],
        "predict": [{"name": "p", "path": "https://example.org/p.zarr"}],
    },
    "training": {"lsd": {"iterations": 7}, "baseline": True},
}


OFFSETS = "[[-1, 0, 0], [0, -1, 0], [0, 0, -1]]"


def write(folder: Path, text: str) -> Path:
    (folder / FILE_NAME).write_text(text)
    return folder


def test_what_is_rendered_is_what_is_loaded(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, render(VALUES)))
    expected = Parameters.model_validate({**VALUES, "training": {"lsd": {"iterations": 7}, "baseline": True}})
    assert project.parameters == expected
    assert project.parameters.training.affinities.iterations == 2000
    assert project.parameters.volumes.train[0].zero_ids == (7,)
    assert project.parameters.training.augmentation == Augmentation()
    assert project.locate("a.zarr") == str(tmp_path / "a.zarr")
    assert project.locate("https://example.org/p.zarr") == "https://example.org/p.zarr"


def test_a_file_with_examples_only_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="voxel_size"):
        load_project(write(tmp_path, render({})))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("sigma_nm = 80.0", "sigma_um = 0.08", r"line \d+: unknown key `training.sigma_um`; did you mean `sigma_nm`\?"),
        ("sigma_nm = 80.0", 'sigma_nm = "80 nm"', r"line \d+: `training.sigma_nm` is '80 nm'; expected a valid number"),
        ("seed = 0", "seed = -1", r"line \d+: `training.seed` is -1; expected greater than or equal to 0"),
        ("[20, 20, 20]", "[20, -1, 20]", r"line \d+: `fragments.context\[1\]` is -1; expected greater than"),
        (
            "context = [64, 64, 64]",
            "context = [-1, 0, 0]",
            r"line \d+: `agglomeration.context\[0\]` is -1; expected greater than",
        ),
        ("[resources]", "[resource]", r"line \d+: unknown key `resource`; did you mean `resources`\?"),
        (
            '"hist_quant_75"',
            '"hist_quant75"',
            r"line \d+: `agglomeration.merge_function`.*did you mean 'hist_quant_75'\?",
        ),
        ('name = "a"', 'name = "a b"', r"line \d+: `volumes.train\[0\].name` is 'a b'; expected letters, digits"),
        ('name = "p"', 'name = "v"', r"two volumes are called 'v'"),
        ("iterations = 7", "iterations = 7.5", r"line \d+: `training.lsd.iterations` is 7.5; expected a valid integer"),
        ('threshold = "auto"', "threshold = 1.5", r"line \d+: `segmentation.threshold` is 1.5; expected less than"),
        ("# block =", "block = [101, 100, 100] #", r"line \d+: `prediction.block` is \[101, 100, 100\]; expected mult"),
        ("block = [256, 256, 256]", "block = [192, 256, 100]", r"multiples of `fragments.block` \[192, 256, 100\]"),
        ("voxel_size = [8.0, 8.0, 8.0]", "voxel_size = [8.0, 8.0]", r"line 5: `voxel_size\[2\]` is missing"),
        (
            "voxel_size = [8.0, 8.0, 8.0]",
            "voxel_size = [8.0, 8.0, 0]",
            r"line 5: `voxel_size\[2\]` is 0; expected greater",
        ),
        ("slip = 0.01", "slipp = 0.01", r"unknown key `training.augmentation.slipp`; did you mean `slip`\?"),
        (
            "slip = 0.01",
            "slip = 1.5",
            r"line \d+: `training.augmentation.slip` is 1.5; expected less than or equal to 1",
        ),
        (
            "[0.0, 90.0]",
            "[90.0, 0.0]",
            r"line \d+: `training.augmentation.rotation`: the smallest of \[90, 0\] is larger",
        ),
        ("[0.1, 0.5]", "[-0.1, 0.5]", r"`training.augmentation.dark_scale\[0\]` is -0.1; expected greater than"),
        ("[0.9, 1.1]", "[0.9, inf]", r"`training.augmentation.intensity_scale\[1\]` is inf; expected a finite number"),
        ('"background"', '"ignored"', r"`volumes.train\[0\].unlabelled` is 'ignored'.*did you mean 'ignore'\?"),
        ("zero_ids = [7]", "zero_ids = [0]", r"line \d+: `volumes.train\[0\].zero_ids\[0\]` is 0; expected greater"),
        ("zero_ids = [7]", "zero_ids = [3.5]", r"`volumes.train\[0\].zero_ids\[0\]` is 3.5; expected a valid integer"),
        (
            "ignore_ids = []",
            "ignore_ids = [8, 7]",
            r"line \d+: `volumes.train\[0\].ignore_ids`: 7 cannot be both in zero_ids and in ignore_ids",
        ),
        ('store = "files"', 'store = "mysql://h/d"', r'line \d+: `graph.store`: expected "files", "sqlite:FILE"'),
        (
            'store = "files"',
            'store = "postgresql://me:secret@host/db"',
            r"line \d+: `graph.store`: it holds a user or a password, .*; take them out and .* NEUROLOOM_POSTGRES.$",
        ),
        ("ensemble = []", 'ensemble = "a"', r"`prediction.ensemble` is 'a'; expected a list in \[ \] \(more weights"),
        ('device = "auto"', 'device = "cpu,,cpu"', r"`resources.device`: a device has no name in 'cpu,,cpu'"),
        ("# large_threshold =", "large_threshold = 0.1 #", r"`large` and `large_threshold` belong together"),
        ("large = 0 ", "large = 5 ", r"`large` and `large_threshold` belong together"),
        ("seed = 0", "seed = = 0", r"is no valid TOML: .*line \d+"),
        (
            "kernels = []",
            "kernels = [[1, 3, 3]]",
            r"line \d+: `network.kernels`: 1 given; expected 3, one for each level",
        ),
        (
            "kernels = []",
            f"kernels = {[[2, 3, 3]] * 3}",
            r"line \d+: `network.kernels`: an even extent is given; expected",
        ),
        (
            "kernels = []",
            "kernels = [[0, 3, 3], [3, 3, 3], [3, 3, 3]]",
            r"line \d+: `network.kernels\[0\]\[0\]` is 0; expected greater",
        ),
        (
            OFFSETS,
            "[[0, -1, 0], [-1, 0, 0]]",
            r"line \d+: `training.neighborhood`: it begins with \[0, -1, 0\], .* first",
        ),
        (OFFSETS, "[]", r"line \d+: `training.neighborhood`: it begins with nothing; expected \[-1, 0, 0\], "),
        (OFFSETS, f"{OFFSETS[:-1]}, [0, 0, 0]]", r"`training.neighborhood`: the offset \[0, 0, 0\] is no neighbour"),
        (OFFSETS, f"{OFFSETS[:-1]}, [-1, 0, 0]]", r"`training.neighborhood`: the offset \[-1, 0, 0\] is given twice"),
        (OFFSETS, f"{OFFSETS[:-1]}, [-3, 0]]", r"line \d+: `training.neighborhood\[3\]\[2\]` is missing"),
        (OFFSETS, f"{OFFSETS[:-1]}, [-3, 0, 0, 0]]", r"line \d+: `training.neighborhood\[3\]` is .*; expected "),
        (
            OFFSETS,
            f"{OFFSETS[:-1]}, [-3, 0, 0.5]]",
            r"line \d+: `training.neighborhood\[3\]\[2\]` is 0.5; expected a valid",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = render(VALUES)
    assert old in text
    with pytest.raises(UserError, match=expected) as caught:
        load_project(write(tmp_path, text.replace(old, new, 1)))
    assert FILE_NAME in str(caught.value)
    assert " mistakes:\n" not in str(caught.value)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    text = render(VALUES).replace("seed = 0", "seed = -1").replace("growth = 3", "growht = 3")
    with pytest.raises(UserError) as caught:
        load_project(write(tmp_path, text))
    assert "2 mistakes" in str(caught.value)
    assert "`growth`" in str(caught.value)
    assert "training.seed" in str(caught.value)


def test_the_lines_are_right(tmp_path: Path) -> None:
    text = render(VALUES).replace("seed = 0", "seed = -1")
    line = next(n for n, content in enumerate(text.splitlines(), 1) if content.startswith("seed"))
    with pytest.raises(UserError, match=f"line {line}:"):
        load_project(write(tmp_path, text))


def test_a_missing_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neuroloom init"):
        load_project(tmp_path)


def test_the_chosen_threshold_is_written_with_why_and_comments_are_kept(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, render(VALUES)))
    assert project.threshold is None
    changed = project.choose_threshold(0.28, 'lowest VOI sum on "v"')
    assert changed.threshold == 0.28
    assert changed.parameters.segmentation.chosen_because == 'lowest VOI sum on "v"'
    text = project.file.read_text()
    assert text.count("#") == render(VALUES).count("#")
    assert changed.choose_threshold(0.3, "again").threshold == 0.3
    by_hand = text.replace('threshold = "auto"', "threshold = 0.5")
    assert load_project(write(tmp_path, by_hand)).threshold == 0.5


def test_no_segment_is_large_and_an_orphan() -> None:
    with pytest.raises(ValidationError, match="`large` is 5 and `orphans` 9"):
        Segmentation(orphans=9, large=5, large_threshold=0.1)
