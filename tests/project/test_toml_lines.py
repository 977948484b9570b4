from __future__ import annotations

from neuroloom.project.toml_lines import key_lines, line_of


def test_lines_of_keys() -> None:
    lines = key_lines('a = 1\n\n[t]\nb = 2\n[[v.train]]\nx = 1\n[[v.train]]\nx = [\n 1,\n]\n"q.r" = 1\nd.e = 2\n')
    assert lines[("a",)] == 1
    assert lines[("t", "b")] == 4
    assert lines[("v", "train", 1, "x")] == 8
    assert lines[("v", "train", 1, "q.r")] == 11
    assert lines[("v", "train", 1, "d", "e")] == 12
    assert line_of(lines, ("v", "train", 1, "x", 0)) == 8
    assert line_of(lines, ("nowhere",)) is None
