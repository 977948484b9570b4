"""Checkpoints: all that prediction needs, and a clear word about every file that is none."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch

from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.networks.architecture import input_shape
from neuroloom.networks.checkpoint import FORMAT, export_checkpoint, load_checkpoint, save_checkpoint
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.setups import network_parameters
from neuroloom.networks.unet import UNet
from neuroloom.project import Network

SIZE = Network(feature_maps=2, growth=2, downsampling=((2, 2, 2),))


def metadata(setup: str, **changes: object) -> Metadata:
    values = {
        "setup": setup,
        "network": network_parameters(setup, SIZE),
        "voxel_size": (22.5, 8.0, 8.0),
        "sigma_nm": 80.0,
        "neighborhood": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)) if setup != "lsd" else (),
        "iteration": 17,
        "training": {"loss": 0.25},
        **changes,
    }
    return Metadata.model_validate(values)


def save(path: Path, setup: str, seed: int = 0, lsd: Path | None = None) -> UNet:
    torch.manual_seed(seed)
    network = UNet(network_parameters(setup, SIZE)).eval()
    with_lsd = load_checkpoint(lsd) if lsd else None
    sha256 = with_lsd.sha256 if with_lsd else None
    save_checkpoint(path, metadata(setup, lsd_sha256=sha256), network.state_dict(), with_lsd)
    return network


def output(network: UNet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = input_shape(network.geometry, (4, 4, 4))
    with torch.no_grad():
        return network(torch.rand(1, network.geometry.in_channels, *shape, generator=generator))


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; name the checkpoint in it, such as .*best\.ckpt"):
        load_checkpoint(tmp_path)


def test_network_and_metadata_come_back(tmp_path: Path) -> None:
    network = save(tmp_path / "best.ckpt", "lsd")
    loaded = load_checkpoint(tmp_path / "best.ckpt")
    assert loaded.metadata == metadata("lsd")
    assert torch.equal(output(loaded.network), output(network))
    assert loaded.sha256 == hash_file(tmp_path / "best.ckpt")
    assert loaded.lsd is None
    assert not loaded.network.training


def test_descriptor_network_travels_inside(tmp_path: Path) -> None:
    lsd = save(tmp_path / "lsd.ckpt", "lsd", seed=1)
    save(tmp_path / "acrlsd.ckpt", "acrlsd", seed=2, lsd=tmp_path / "lsd.ckpt")
    sha256 = hash_file(tmp_path / "lsd.ckpt")
    (tmp_path / "lsd.ckpt").unlink()
    loaded = load_checkpoint(tmp_path / "acrlsd.ckpt")
    assert loaded.lsd is not None
    assert loaded.lsd.sha256 == loaded.metadata.lsd_sha256 == sha256
    assert loaded.lsd.metadata == metadata("lsd")
    assert torch.equal(output(loaded.lsd.network), output(lsd))


def test_weights_go_into_their_place_without_others_being_drawn(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", "lsd")
    before = torch.random.get_rng_state()
    network = load_checkpoint(tmp_path / "a.ckpt").network
    assert torch.equal(torch.random.get_rng_state(), before)
    for weight in network.parameters():
        assert weight.requires_grad
        assert weight.ndim != 5 or weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_same_network_gives_same_bytes(tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", "lsd")
    save(tmp_path / "b.ckpt", "lsd")
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_halves_the_file_and_comes_back_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path / "lsd.ckpt", "lsd", seed=1)
    network = save(tmp_path / "acrlsd.ckpt", "acrlsd", seed=2, lsd=tmp_path / "lsd.ckpt")
    export_checkpoint(tmp_path / "acrlsd.ckpt", tmp_path / "half.ckpt", dtype)
    loaded = load_checkpoint(tmp_path / "half.ckpt")
    assert loaded.metadata == load_checkpoint(tmp_path / "acrlsd.ckpt").metadata
    assert loaded.lsd is not None
    assert loaded.lsd.sha256 == hash_file(tmp_path / "lsd.ckpt")
    for name, weight in network.state_dict().items():
        found = loaded.network.state_dict()[name]
        assert found.dtype == torch.float32
        assert torch.equal(found, weight.to(dtype).float())
    stored = torch.load(tmp_path / "half.ckpt", weights_only=True)
    for weights in (stored["weights"], stored["lsd"]["weights"]):
        assert {weight.dtype for weight in weights.values()} == {dtype}


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    network = save(tmp_path / "best.ckpt", "lsd")
    weights = {**network.state_dict(), "head.bias": torch.full((10,), 1e6)}
    save_checkpoint(tmp_path / "best.ckpt", metadata("lsd"), weights)
    with pytest.raises(UserError, match=r"head\.bias holds values too large for torch\.float16"):
        export_checkpoint(tmp_path / "best.ckpt", tmp_path / "half.ckpt", torch.float16)
    assert not (tmp_path / "half.ckpt").exists()
    export_checkpoint(tmp_path / "best.ckpt", tmp_path / "half.ckpt")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.ckpt does not exist"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.ckpt"
    save(path, "lsd")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(UserError, match=r"best\.ckpt cannot be read.*damaged"):
        load_checkpoint(path)


def test_no_flipped_bit_reaches_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    expected = save(path, "lsd").state_dict()
    raw = path.read_bytes()
    choose = random.Random(0)
    refused = 0
    for _ in range(60):
        flipped = bytearray(raw)
        flipped[choose.randrange(len(raw))] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        try:
            weights = load_checkpoint(path).network.state_dict()
        except UserError:
            refused += 1
        else:
            assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert refused > 30


def test_file_of_another_program_is_told_apart(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {"w": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt is a PyTorch file, but no checkpoint of neuroloom"):
        load_checkpoint(tmp_path / "other.pt")
    (tmp_path / "notes.txt").write_text("no network")
    with pytest.raises(UserError, match=r"notes\.txt cannot be read"):
        load_checkpoint(tmp_path / "notes.txt")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

    save(tmp_path / "best.ckpt", "lsd")
    evil = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "best.ckpt") as good, zipfile.ZipFile(evil, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, pickle.dumps(Harm(), 2) if name.endswith("data.pkl") else good.read(name))
    (tmp_path / "evil.ckpt").write_bytes(evil.getvalue())
    with pytest.raises(UserError):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "harm").exists()


def test_newer_format_says_update(tmp_path: Path) -> None:
    torch.save({"neuroloom_checkpoint": FORMAT + 1}, tmp_path / "new.ckpt")
    with pytest.raises(UserError, match="newer neuroloom"):
        load_checkpoint(tmp_path / "new.ckpt")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = UNet(network_parameters("lsd", SIZE.model_copy(update={"feature_maps": 3})))
    save_checkpoint(tmp_path / "mixed.ckpt", metadata("lsd"), other.state_dict())
    with pytest.raises(UserError, match=r"mixed\.ckpt is incomplete: its weights do not fit"):
        load_checkpoint(tmp_path / "mixed.ckpt")


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "best.ckpt", "lsd")
    before = (tmp_path / "best.ckpt").read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match="No room left"):
        save(tmp_path / "best.ckpt", "lsd", seed=5)
    assert (tmp_path / "best.ckpt").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["best.ckpt"]
