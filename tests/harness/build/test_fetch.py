"""Downloads: which archive, which file, which hash; and what is said when there is no network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from harness.build import fetch
from harness.build.cache import Cache
from harness.errors import FetchError

BODY = b"a source tarball"
DIGEST = hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()
SOURCES = f"""\
Package: bochs
Binary: bochs, bochsbios
Version: 3.0+dfsg-1
Checksums-Sha256:
 {OTHER} 2554 bochs_3.0+dfsg-1.dsc
 {DIGEST} {len(BODY)} bochs_3.0+dfsg.orig.tar.xz
Directory: pool/main/b/bochs

Package: bochs
Version: 3.1+dfsg-1
Checksums-Sha256:
 {OTHER} 7 bochs_3.1+dfsg.orig.tar.xz
Directory: pool/main/b/bochs

Package: bochs-guest
Version: 3.0+dfsg-1
Checksums-Sha256:
 {OTHER} 7 bochs-guest_3.0+dfsg.orig.tar.xz
Directory: pool/main/b/bochs-guest
"""


class FakeApt:
    """apt with an archive of one file; counts what it is asked for."""

    mirror = "http://archive.example/debian"
    updates = 0
    body = BODY
    uris: tuple[str, ...] = ()

    def __init__(self, folder: Path, sources: list[str]) -> None:
        self.folder = folder

    def update(self, what: str) -> None:
        FakeApt.updates += 1

    def source_files(self, package: str) -> list[fetch.SourceFile]:
        return fetch.source_files(SOURCES)

    def download(self, uri: str, target: Path, digest: str) -> None:
        FakeApt.uris += (uri,)
        target.write_bytes(FakeApt.body)
        fetch.check(target, digest)


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> type[FakeApt]:
    """FakeApt in apt's place."""
    monkeypatch.setattr(fetch, "Apt", FakeApt)
    monkeypatch.setattr(FakeApt, "updates", 0)
    monkeypatch.setattr(FakeApt, "uris", ())
    monkeypatch.setattr(FakeApt, "body", BODY)
    return FakeApt


def bochs(cache: Cache) -> Path:
    """The tarball, asked for as harness.bochs does."""
    return fetch.debian_source(cache, "bochs", "3.0+dfsg", "trixie", ".orig.tar.xz")


def test_mirror_of_one_line_sources() -> None:
    text = """
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/x] https://packages.vendor.example/apt stable main
deb http://security.debian.org/debian-security bookworm-security main
deb-src [trusted=no] http://first.example/debian/ bookworm main
deb http://second.example/debian bookworm main
"""
    assert fetch.mirror_of_one_line(text) == ["http://first.example/debian", "http://second.example/debian"]


def test_mirror_of_deb822_sources() -> None:
    text = """\
Types: deb
Enabled: no
URIs: http://disabled.example/debian
Suites: bookworm

# a comment in between
Types: deb
URIs: https://vendor.example/node_20.x http://good.example/debian
Suites: bookworm
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 URIs: http://inside.example/debian
"""
    assert fetch.mirror_of_deb822(text) == ["http://good.example/debian"]


def test_mirror_of_the_machine(tmp_path: Path) -> None:
    assert fetch.mirror(tmp_path) == fetch.DEFAULT_MIRROR
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources.disabled").write_text("Types: deb\nURIs: http://no.example/debian\nSuites: x\n")
    assert fetch.mirror(tmp_path) == fetch.DEFAULT_MIRROR
    (parts / "debian.sources").write_text("Types: deb\nURIs: http://deb822.example/debian\nSuites: x\n")
    assert fetch.mirror(tmp_path) == "http://deb822.example/debian"
    (tmp_path / "sources.list").write_text("deb http://list.example/debian bookworm main\n")
    assert fetch.mirror(tmp_path) == "http://list.example/debian"


def test_source_files_have_version_directory_size_and_hash() -> None:
    file = fetch.source_files(SOURCES)[1]
    assert file == fetch.SourceFile(
        "bochs", "3.0+dfsg-1", "pool/main/b/bochs", "bochs_3.0+dfsg.orig.tar.xz", len(BODY), DIGEST
    )


def test_the_file_of_that_package_and_version_is_fetched_once(tmp_path: Path, apt: type[FakeApt]) -> None:
    cache = Cache(tmp_path)
    path = bochs(cache)
    assert path.read_bytes() == BODY
    assert apt.uris == ("http://archive.example/debian/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz",)
    assert bochs(cache) == path
    assert apt.updates == 1


def test_wrong_hash_is_refused_and_nothing_kept(tmp_path: Path, apt: type[FakeApt]) -> None:
    apt.body = b"tampered"
    with pytest.raises(FetchError, match=f"not the file that is pinned.*expected {DIGEST}"):
        bochs(Cache(tmp_path))
    assert not list(tmp_path.glob("download/*"))


def test_file_damaged_in_the_cache_is_refused(tmp_path: Path, apt: type[FakeApt]) -> None:
    cache = Cache(tmp_path)
    bochs(cache).write_bytes(b"bit rot")
    with pytest.raises(FetchError, match=r"lies damaged in .* remove that folder"):
        bochs(cache)


def test_pin_that_the_index_has_not_is_a_sentence(tmp_path: Path, apt: type[FakeApt]) -> None:
    with pytest.raises(FetchError, match=r"has no bochs 3\.0\* with a file \*\.orig\.tar\.xz of SHA-256 0000.*--bochs"):
        fetch.debian_source(Cache(tmp_path), "bochs", "3.0", "trixie", ".orig.tar.xz", "0" * 64)


class TestRealApt:
    """apt itself, with an archive that is not there or not to be trusted."""

    @pytest.fixture(autouse=True)
    def _no_retries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        quick = fetch._APT_CONF.replace('Acquire::Retries "3"', 'Acquire::Retries "0"')
        monkeypatch.setattr(fetch, "_APT_CONF", quick)

    def test_no_network_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch, "mirror", lambda: "http://127.0.0.1:9/debian")
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        with pytest.raises(FetchError) as caught:
            bochs(Cache(tmp_path))
        text = str(caught.value)
        assert text.startswith("the source index of Debian trixie could not be fetched from http://127.0.0.1:9/debian")
        assert "check the network" in text
        assert not list(tmp_path.glob("download/*"))

    def test_archive_without_signature_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        dists = tmp_path / "debian" / "dists" / "trixie" / "main" / "source"
        dists.mkdir(parents=True)
        (dists / "Sources").write_text(SOURCES)
        (dists.parents[1] / "Release").write_text("Origin: Debian\nSuite: trixie\nCodename: trixie\n")
        monkeypatch.setattr(fetch, "mirror", lambda: f"file:{tmp_path}/debian")
        with pytest.raises(FetchError, match=r"(?i)sign"):
            bochs(Cache(tmp_path / "cache"))

    def test_machines_own_state_is_not_touched(self, tmp_path: Path) -> None:
        apt = fetch.Apt(tmp_path, ["deb-src @MIRROR@ trixie main"])
        dump = apt.run(["apt-config", "dump"], "nothing")
        for name in ("Dir::State", "Dir::State::Lists", "Dir::State::status", "Dir::Cache", "Dir::Cache::archives"):
            line = next(line for line in dump.splitlines() if line.lower().startswith(f"{name.lower()} "))
            assert str(tmp_path) in line
        assert not [line for line in dump.splitlines() if line.startswith("APT::Update::Post-Invoke-Success:: ")]

    def test_file_with_its_hash_is_copied_and_another_refused(self, tmp_path: Path) -> None:
        (tmp_path / "served").write_bytes(BODY)
        apt = fetch.Apt(tmp_path / "apt", [])
        apt.download(f"file:{tmp_path}/served", tmp_path / "got", DIGEST)
        assert (tmp_path / "got").read_bytes() == BODY
        with pytest.raises(FetchError):
            apt.download(f"file:{tmp_path}/served", tmp_path / "wrong", OTHER)


def test_missing_keyring_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(FetchError, match="install debian-archive-keyring"):
        fetch.Apt(tmp_path, [])


def test_deb_file_names() -> None:
    deb = fetch._deb(Path("qemu-system-x86_1%3a11.1.3+ds-1_amd64.deb"))
    assert (deb.name, deb.version) == ("qemu-system-x86", "1:11.1.3+ds-1")


def test_reason_is_apts_own_once() -> None:
    assert fetch.reason("W: x\nE: Cannot reach it.\nE: Cannot reach it.\n").startswith("Cannot reach it. To mend it")
    assert "update debian-archive-keyring" in fetch.reason("E: The repository is not signed: NO_PUBKEY 12\n")
    assert os.linesep not in fetch.reason("E: a\nE: b\n")
