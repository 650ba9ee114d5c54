"""The archive as another program reads it, the keys as paramiko reads them, and the libraries of a binary."""

from __future__ import annotations

import subprocess
from pathlib import Path

import paramiko
import pytest

from harness.build import debs, rootfs
from harness.build.cache import Cache
from harness.errors import BuildError


def test_archive_is_read_back(tmp_path: Path) -> None:
    archive = tmp_path / "a.cpio"
    with rootfs.Cpio(archive) as out:
        out.folder("bin")
        out.file("bin/odd", b"12345", 0o755)
        out.link("bin/sh", "odd")
        out.file("empty", b"")
    with archive.open("rb") as data:
        listed = subprocess.run(
            ["busybox", "cpio", "-tv"], stdin=data, capture_output=True, text=True, check=True
        ).stdout
    assert "bin/odd" in listed and "bin/sh -> odd" in listed and "empty" in listed
    into = tmp_path / "into"
    into.mkdir()
    with archive.open("rb") as data:
        subprocess.run(["busybox", "cpio", "-id"], stdin=data, cwd=into, check=True, capture_output=True)
    assert (into / "bin/sh").read_bytes() == b"12345"
    assert (into / "bin/odd").stat().st_mode & 0o777 == 0o755


def test_keys_are_made_once_and_fit(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = rootfs.keys(cache)
    client = paramiko.Ed25519Key.from_private_key_file(str(keys.client_private))
    assert client.get_base64() == keys.client_public.split()[1]
    assert keys.client_private.stat().st_mode & 0o077 == 0
    assert rootfs.keys(Cache(tmp_path)).host_public == keys.host_public
    # dropbear's own format: the kind, then secret and public key in one string
    data = keys.host_private.read_bytes()
    assert data[4:15] == b"ssh-ed25519" and len(data) == 4 + 11 + 4 + 64
    assert keys.host_public.split()[1].encode() != keys.client_public.split()[1].encode()


def test_closure_goes_all_the_way() -> None:
    found = debs.closure(Path("/"), ["usr/bin/xorriso"])
    assert "libc.so.6" in found and len(found) > 2
    assert all(path.is_file() for path in found.values())


def test_closure_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "lz4").write_bytes(Path("/usr/bin/xorriso").read_bytes())
    with pytest.raises(BuildError, match=r"needs lib\S+, which no unpacked package has"):
        debs.closure(tmp_path, ["lz4"])


def test_closure_refuses_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(BuildError, match="not an ELF file"):
        debs.closure(tmp_path, ["text"])
