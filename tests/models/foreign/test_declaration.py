"""Declarations of others' networks: what identifies them, and every mistake in its own sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreign_network import EDGES, NEAREST, TURNED, Edges, declare, declare_edges, save_script
from neuroloom.errors import UserError
from neuroloom.models.foreign import read_foreign


def test_content_identifies_it(tmp_path: Path) -> None:
    model = read_foreign(declare_edges(tmp_path / "a.toml"))
    assert model.factor == (10, 9, 8)
    commented = tmp_path / "b.toml"
    commented.write_text("# the same\n" + (tmp_path / "a.toml").read_text() + "halo = [0, 0, 0]\n")
    assert read_foreign(commented).sha256 == model.sha256
    assert read_foreign(declare(tmp_path / "c.toml", EDGES, halo=[1, 0, 0])).sha256 != model.sha256
    save_script(Edges([*NEAREST, [-1, -1, 0]]), tmp_path / "edges.pt")
    assert read_foreign(tmp_path / "a.toml").sha256 != model.sha256


def test_weights_beside_an_onnx_file_belong_to_it(tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(b"network")
    path = declare(tmp_path / "n.toml", EDGES, file="n.onnx")
    alone = read_foreign(path).sha256
    (tmp_path / "n.onnx.data").write_bytes(b"weights")
    found = {alone, read_foreign(path).sha256}
    (tmp_path / "n.onnx.data").write_bytes(b"other weights")
    assert len(found | {read_foreign(path).sha256}) == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"voxel_size": None}, r"n\.toml, `voxel_size` is missing \(nm that it was trained on\)"),
        ({"voxelsize": [8, 8, 8]}, r"n\.toml, line \d: unknown key `voxelsize`; did you mean `voxel_size`"),
        ({"voxel_size": [8, 8, 0]}, r"line 2: `voxel_size\[2\]` is 0; expected greater than 0"),
        ({"file": None}, r"`file` is missing"),
        ({"file": "none.pt"}, r"`file`, .*none\.pt, does not exist"),
        ({"file": "best.ckpt"}, r"`file` is 'best\.ckpt'; expected TorchScript .*Weights alone cannot be run"),
        ({"file": "none.zip"}, r"The package .*none\.zip does not exist"),
        ({"neighborhood": NEAREST[::-1]}, r"line 3: `neighborhood`: it begins with \[\[0, 0, -1\].*`channels` says"),
        ({"neighborhood": [NEAREST[0], *TURNED[1:]]}, r"`neighborhood`: it begins with \[\[-1, 0, 0\], \[0, 1, 0\]"),
        ({"neighborhood": NEAREST[:2]}, r"`neighborhood`: it begins with"),
        ({"neighborhood": [*NEAREST, NEAREST[0]]}, r"the offset \[-1, 0, 0\] is given twice"),
        ({"neighborhood": [*NEAREST, [0, 0, 0]]}, r"the offset \[0, 0, 0\] is no neighbour"),
        ({"channels": [0, 1]}, r"line \d: `channels`: 2 given; expected 3, one for each of `neighborhood`"),
        ({"output": [10, 9, 7]}, r"line 5: `output`: \[10, 9, 7\] cannot lie in the middle of `input`, \[14, 13, 12\]"),
        ({"output": [16, 9, 8]}, r"`output`: \[16, 9, 8\] cannot lie in the middle"),
        ({"halo": [5, 0, 0]}, r"`halo`: with \[5, 0, 0\], nothing is left of the output, \[10, 9, 8\]"),
        (
            {"neighborhood": TURNED, "input": [5, 5, 5], "output": [1, 1, 1]},
            r"`halo`: .* nothing is left of the output",
        ),
        (
            {"step": [4, 4, 4], "grows": False, "halo": [4, 0, 0]},
            r"with \[4, 0, 0\], less than a step is left of the out",
        ),
        ({"step": [0, -1, 0]}, r"`step\[1\]` is -1; expected greater than or equal to 0"),
        ({"raw_range": [1, 1]}, r"`raw_range`: both ends are equal"),
        ({"output_is": "logit"}, r"`output_is` is 'logit'; expected 'affinities' or 'logits'; did you mean 'logits'"),
        ({"input_axes": "bcyx"}, r"`input_axes`: 'bcyx' given; expected each of 'zyx' once"),
        ({"output_axes": "bzyx"}, r"`output_axes`: 'bzyx' given; expected each of 'czyx' once"),
        ({"output_axes": "ccczyx"}, r"`output_axes`: 'ccczyx' given"),
    ],
)
def test_mistakes(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"")
    save_script(Edges(NEAREST), tmp_path / "edges.pt")
    with pytest.raises(UserError, match=said):
        read_foreign(declare(tmp_path / "n.toml", EDGES, **changed))


def test_files_that_are_no_declarations(tmp_path: Path) -> None:
    for content, said in (
        (None, r"The declaration .*n\.toml does not exist"),
        (b"file = ", r"n\.toml is no valid TOML"),
        (b"\xff\xfe\x00", r"cannot be read as text in UTF-8"),
        (b"", r"`file` is missing"),
        (b"file = 3", r"`file` is 3; expected a valid string"),
    ):
        if content is not None:
            (tmp_path / "n.toml").write_bytes(content)
        with pytest.raises(UserError, match=said):
            read_foreign(tmp_path / "n.toml")
    (tmp_path / "f.toml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_foreign(tmp_path / "f.toml")
