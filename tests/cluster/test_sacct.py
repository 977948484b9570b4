"""Figures in what a real `sacct` printed, and a cluster that keeps none; `tests/system` asks a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from neuroloom.cluster import sacct
from neuroloom.cluster.sacct import Figures, NotKept, parse, seconds_of, settled_figures

REAL = """\
1_0|COMPLETED|8|00:02.495||2|cpu1|billing=2,cpu=2,mem=1500M,node=1
1_0.batch|COMPLETED|8|00:02.495|226639872|2|cpu1|cpu=2,mem=1500M,node=1
1_1|REQUEUED|12|00:02.324||2|cpu1|billing=2,cpu=2,mem=1500M,node=1
1_1.batch|CANCELLED|12|00:02.324|226627584|2|cpu1|cpu=2,mem=1500M,node=1
1_2|CANCELLED by 0|29|00:02.586||2|cpu2|billing=2,cpu=2,mem=1500M,node=1
1_2.batch|CANCELLED|29|00:02.586|226603008|2|cpu2|cpu=2,mem=1500M,node=1
1_1|PENDING|0|00:00:00||2|None assigned|
2_0|COMPLETED|8|01:02:03||1|gpu1|billing=1,cpu=1,gres/gpu=2,mem=1500M,node=1
2_0.batch|COMPLETED|8|01:02:03||1|gpu1|cpu=1,gres/gpu=2,mem=1500M,node=1
"""


def test_what_a_real_sacct_printed_is_understood() -> None:
    assert parse(REAL) == [
        Figures("1_0", "COMPLETED", 8.0, 2.495, 226639872, 2, 0, "cpu1"),
        Figures("1_1", "REQUEUED", 12.0, 2.324, 226627584, 2, 0, "cpu1"),
        Figures("1_2", "CANCELLED", 29.0, 2.586, 226603008, 2, 0, "cpu2"),
        Figures("1_1", "PENDING", 0.0, 0.0, 0, 2, 0, "None assigned"),
        Figures("2_0", "COMPLETED", 8.0, 3723.0, 0, 1, 2, "gpu1"),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:02.495", 2.495), ("01:02:03", 3723.0), ("1-02:03:04.5", 93784.5), ("", 0.0)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo Slurm accounting storage is disabled >&2; exit 1", "Slurm accounting storage is disabled"),
        ("exit 3", "exit code 3"),
        ("sleep 30", "did not answer within"),
        (None, "there is no `sacct`"),
    ],
)
def test_a_cluster_without_figures_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str
) -> None:
    monkeypatch.setattr(sacct, "COMMAND_SECONDS", 0.5)
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        (tmp_path / "sacct").write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")
        (tmp_path / "sacct").chmod(0o755)
    with pytest.raises(NotKept, match=message):
        settled_figures(["1"], 0.0)


def test_a_fake_sacct_is_asked_again_until_jobs_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = "\n".join(line for line in REAL.splitlines() if "PENDING" not in line)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "ended").write_text(ended + "\n")
    (tmp_path / "first").write_text(REAL)
    (tmp_path / "sacct").write_text(
        f'#!/bin/sh\ncd {tmp_path}\necho "$@" >> asked\nif [ -e first ]; then cat first; rm first; else cat ended; fi\n'
    )
    (tmp_path / "sacct").chmod(0o755)
    found = settled_figures(["1", "2"], 1.8e9)
    assert [figures.job for figures in found] == ["1_0", "1_1", "1_2", "2_0"]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 2
    assert "--jobs=1,2 --starttime=2027-01-1" in asked[0]
