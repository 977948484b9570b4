"""waterz behind one function: what it merges, and that it keeps quiet."""

from __future__ import annotations

import numpy as np
import pytest

from neuroloom.errors import UserError
from neuroloom.fragments.hierarchy import MERGE_FUNCTIONS, agglomerate


@pytest.mark.parametrize("name", sorted(MERGE_FUNCTIONS))
def test_merges_below_the_threshold_only(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    # three regions in a row; 1|2 are joined by affinity 0.8, 2|3 by 0.2
    numbers = np.repeat(np.array([1, 2, 3], dtype=np.uint32), 2).reshape(1, 1, 6)
    affinities = np.zeros((3, 1, 1, 6), dtype=np.uint8)
    affinities[2, 0, 0] = [0, 255, 204, 255, 51, 255]
    before = numbers.copy()
    regions, merges, scores = agglomerate(affinities, numbers, name, 0.5)
    assert regions[0, 0, 0] == regions[0, 0, 3] != regions[0, 0, 5]
    assert sorted(merges[0]) == [1, 2]
    np.testing.assert_allclose(scores, [0.2], atol=1 / 256)
    np.testing.assert_array_equal(numbers, before)
    captured = capfd.readouterr()
    assert captured.out == ""
    print("still here")
    assert capfd.readouterr().out == "still here\n"


def test_nothing_to_merge() -> None:
    regions, merges, scores = agglomerate(np.zeros((3, 2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint32), "mean", 0.5)
    assert not regions.any()
    assert merges.shape == (0, 2)
    assert scores.shape == (0,)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="hist_quant_80"):
        agglomerate(np.zeros((3, 1, 1, 2), np.uint8), np.ones((1, 1, 2), np.uint32), "hist_quant_80", 0.5)
