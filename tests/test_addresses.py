"""Addresses of graph stores: which there are, and that no password stays in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroloom.addresses import check_address, sqlite_path, with_credentials, without_secrets
from neuroloom.errors import UserError


@pytest.mark.parametrize(
    "address",
    [
        "files",
        "sqlite:graph.sqlite",
        "sqlite:///data/graph.sqlite",
        "postgresql://host/db",
        "postgresql://host:5433/db?sslmode=require",
        "postgresql:///db",
        "postgres://[::1]:5432/db",
        "mongodb://host:27017/db",
        "mongodb+srv://cluster.example.org/db",
    ],
)
def test_addresses(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file", "expected"),
        ("sqlite:", "file is missing"),
        ("mysql://host/db", "expected"),
        ("postgresql://host", "database is missing"),
        ("postgresql://user:se/cret@host/db", "user or a password.*NEUROLOOM_POSTGRES"),
        ("postgresql://user@host/db", "user or a password"),
        ("postgresql://host/db?user=a&password=secret", "user or a password"),
        ("mongodb://user:secret@host/db", "user or a password.*NEUROLOOM_MONGODB"),
        ("mongodb://[host/secret", "no address"),
    ],
)
def test_what_is_none_or_holds_a_password_is_refused_without_repeating_it(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as told:
        check_address(address)
    assert "secret" not in str(told.value)
    assert "cret" not in str(told.value)


def test_files_of_sqlite() -> None:
    assert sqlite_path("sqlite:a/b.sqlite") == "a/b.sqlite"
    assert sqlite_path("sqlite:/a/b.sqlite") == sqlite_path("sqlite:///a/b.sqlite") == "/a/b.sqlite"


@pytest.mark.parametrize(
    "text",
    [
        "could not use postgresql://me:se/cret@host/db, sorry",
        "mongodb://me:secret@host1:1,host2:2/?x=1",
        "host=h password=secret dbname=d",
    ],
)
def test_passwords_are_taken_out_of_texts(text: str) -> None:
    assert "cret" not in without_secrets(text)
    assert "host" in without_secrets(text)


def test_credentials_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mongodb://me:secret@host\n")
    monkeypatch.setenv("NEUROLOOM_MONGODB", f"@{tmp_path / 'secret'}")
    assert with_credentials("mongodb://host/db", "mongodb") == "mongodb://me:secret@host"
    (tmp_path / "secret").unlink()
    with pytest.raises(UserError, match="NEUROLOOM_MONGODB names cannot be read"):
        with_credentials("mongodb://host/db", "mongodb")


def test_credentials_are_for_their_own_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROLOOM_POSTGRES", raising=False)
    assert with_credentials("postgresql://host/db", "postgresql") is None
    secret = "postgresql://me:secret@Host:5432"
    monkeypatch.setenv("NEUROLOOM_POSTGRES", secret)
    assert with_credentials("postgresql://host/db", "postgresql") == secret
    assert with_credentials("postgresql:///db", "postgresql") == secret
    for other in ("postgresql://host:5433/db", "postgresql://elsewhere/db"):
        with pytest.raises(UserError, match="no other server") as told:
            with_credentials(other, "postgresql")
        assert "secret" not in str(told.value)
    for wrong in ("me:secret", "postgresql://me:se/cret@host", "postgresql://me:se#cret@host"):
        monkeypatch.setenv("NEUROLOOM_POSTGRES", wrong)
        with pytest.raises(UserError, match="holds no address") as told:
            with_credentials("postgresql://host/db", "postgresql")
        assert "me:se" not in str(told.value)
