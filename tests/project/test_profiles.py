"""Profiles: where they are looked for, which key wins, and mistakes in them told with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroloom.errors import UserError
from neuroloom.project import Profile, find_profile
from neuroloom.project.profiles import load_profiles

LAB = """\
[profiles.lab]
kind = "slurm"
partition = "cpu"
memory_gb = 8

[profiles.lab.predict]
partition = "gpu"
gpus = 1
"""


def test_a_stage_s_own_keys_win() -> None:
    profile = Profile.model_validate(
        {"kind": "slurm", "partition": "cpu", "memory_gb": 8, "predict": {"partition": "gpu", "gpus": 1}}
    )
    predict, fragments = profile.job("predict"), profile.job("fragments")
    assert (predict.partition, predict.gpus, predict.memory_gb) == ("gpu", 1, 8)
    assert (fragments.partition, fragments.gpus, fragments.memory_gb) == ("cpu", 0, 8)


def test_training_has_the_shared_keys_that_make_sense_and_its_own() -> None:
    shared = {"kind": "slurm", "partition": "cpu", "memory_gb": 8, "workers_max": 40, "spot_partition": "spot"}
    profile = Profile.model_validate({**shared, "train": {"partition": "gpu", "nodes": 2, "gpus": 4, "minutes": 60}})
    job = profile.train_job
    assert (job.partition, job.memory_gb, job.minutes, job.nodes, job.gpus) == ("gpu", 8, 60, 2, 4)
    assert job.processes == 8
    plain = Profile.model_validate(shared).train_job
    assert (plain.partition, plain.memory_gb, plain.nodes, plain.processes) == ("cpu", 8, 1, 1)


def test_the_nearest_file_that_knows_a_profile_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, shared, site = tmp_path / "project", tmp_path / "shared.toml", tmp_path / "site.toml"
    project.mkdir()
    site.write_text(LAB + '\n[profiles.site]\nkind = "slurm"\npartition = "site"\n')
    monkeypatch.setenv("NEUROLOOM_CLUSTER", str(site))
    assert find_profile(project, {}, None, "lab").partition == "cpu"
    (project / "cluster.toml").write_text(LAB.replace('"cpu"', '"beside"'))
    assert find_profile(project, {}, None, "lab").partition == "beside"
    shared.write_text(LAB.replace('"cpu"', '"named"'))
    assert find_profile(project, {}, "../shared.toml", "lab").partition == "named"
    own = {"lab": Profile(kind="slurm", partition="own")}
    assert find_profile(project, own, "../shared.toml", "lab").partition == "own"
    assert find_profile(project, own, "../shared.toml", "site").partition == "site"
    assert find_profile(project, {}, None, "local").kind == "local"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAB.replace("gpus = 1", "gpu = 1"), "line 8: unknown key `profiles.lab.predict.gpu`; did you mean `gpus`"),
        (
            LAB.replace('kind = "slurm"', 'kind = "slum"'),
            "line 2: `profiles.lab.kind` is 'slum'; .*did you mean 'slurm'",
        ),
        (LAB.replace("memory_gb = 8", "memory_gb = 0"), "line 4: `profiles.lab.memory_gb` is 0"),
        (LAB + "memory_max_gb = 4\n", "predict: memory_max_gb is 4; expected memory_gb, 8, or more"),
        (
            LAB + "[profiles.lab.train]\nworkers_max = 2\n",
            "line 10: unknown key `profiles.lab.train.workers_max`",
        ),
        (LAB + "[profiles.lab.train]\nmemory_max_gb = 4\n", "train: memory_max_gb is 4; expected memory_gb, 8"),
        (LAB.replace("gpus = 1", "gpus = 2"), "`profiles.lab.predict.gpus` is 2"),
        ("[profiles", "is no valid TOML"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_profiles(file)


def test_an_unknown_profile_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(LAB)
    with pytest.raises(UserError, match="no profile 'lap'; known: lab, local; did you mean 'lab'"):
        find_profile(tmp_path, {}, None, "lap")
    with pytest.raises(UserError, match="cannot be read"):
        find_profile(tmp_path, {}, "nowhere.toml", "lab")
