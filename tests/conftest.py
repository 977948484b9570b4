"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("NEUROLOOM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real EM volumes with ground truth; the test is skipped where there is none, and fails in CI."""
    if (DATA / "fib25-val.zarr").exists():
        return DATA
    reason = f"no real EM volumes in {DATA} (set NEUROLOOM_TEST_DATA)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests share the machine: keep torch from starting a thread per core, unless a test asks for it."""
    import torch

    torch.set_num_threads(1)
