"""Kernels of Debian's archive: what a word means, what is there, and what is said of what is not."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from harness.build import archive, fetch
from harness.build.archive import Debian, Offer
from harness.build.cache import Cache
from harness.errors import FetchError, InputError

TARBALL = b"a kernel"
ORIG = hashlib.sha256(TARBALL).hexdigest()


def offer(version: str, suite: str, *, package: bool = True, sha256: str = "") -> Offer:
    name = f"linux-source_{version}.deb" if package else f"linux_{version}.orig.tar.xz"
    return Offer(version, suite, f"pool/{name}", 1, sha256 or f"{version}{package}")


OFFERS = [
    offer("6.12.117-1", "trixie"),
    offer("6.12.117-1", "trixie", package=False),
    offer("6.12.8-1", "trixie", package=False),
    offer("6.18.9-1~bpo13+1", "trixie-backports", package=False),
    offer("6.18.15-1~bpo13+1", "trixie-backports", package=False),
    offer("7.2.12-1~bpo13+1", "trixie-backports"),
    offer("7.2.13-1", "sid"),
    offer("7.2.13-1", "sid", package=False),
    offer("7.3~rc7-1~exp1", "experimental"),
    offer("7.3.4-1~bpo13+1", "trixie-backports"),
]


def best(word: str) -> str:
    return str(archive.choose(Debian(word), OFFERS)[0])


def test_words() -> None:
    assert archive.named("~/linux.tar.xz") == Path("~/linux.tar.xz")
    assert archive.named("debian:7.2") == Debian("7.2")
    assert str(archive.named("debian:trixie-backports")) == "debian:trixie-backports"
    assert (Debian("7.2").is_series, Debian("7.2").is_version) == (True, False)
    assert (Debian("7.2.13-1").is_series, Debian("7.2.13-1").is_version) == (False, True)
    assert (Debian("sid").is_series, Debian("sid").is_version) == (False, False)
    assert archive.named("debian:7.3-rc7") == Debian("7.3~rc7")
    for wrong in ("debian:", "debian: x", "debian:../x", "debian:-1"):
        with pytest.raises(InputError, match="write a series"):
            archive.named(wrong)


def test_a_series_is_its_newest_anywhere_and_a_package_before_a_tarball() -> None:
    assert best("7.2") == "Linux 7.2.13 (linux-source 7.2.13-1 of sid)"
    assert best("6.18") == "Linux 6.18.15 (source 6.18.15-1~bpo13+1 of trixie-backports)"
    assert best("7.3") == "Linux 7.3.4 (linux-source 7.3.4-1~bpo13+1 of trixie-backports)"  # not the candidate 7.3~rc7
    assert best("6.12") == "Linux 6.12.117 (linux-source 6.12.117-1 of trixie)"


def test_a_version_is_that_version_and_no_other() -> None:
    assert best("6.12.8") == "Linux 6.12.8 (source 6.12.8-1 of trixie)"
    assert best("7.3~rc7") == "Linux 7.3~rc7 (linux-source 7.3~rc7-1~exp1 of experimental)"
    assert best("7.2.12-1~bpo13+1") == "Linux 7.2.12 (linux-source 7.2.12-1~bpo13+1 of trixie-backports)"
    assert archive.choose(Debian("6.12.11"), OFFERS) == []
    assert archive.choose(Debian("7.2.1"), OFFERS) == []


def test_what_there_is_by_suite() -> None:
    said = archive.listed(OFFERS)
    assert "trixie: 6.12.117, (6.12.8)" in said
    assert "sid: 7.2.13;" in said
    assert archive.listed([]) == "nothing"


PACKAGES = """\
Package: linux-source
Version: 7.2.13-1
Filename: pool/main/l/linux-signed/linux-source_7.2.13-1_all.deb
Size: 1
SHA256: 00

Package: linux-source-7.2
Version: 7.2.13-1
Filename: pool/main/l/linux/linux-source-7.2_7.2.13-1_all.deb
Size: 164108840
SHA256: 11
"""


def test_the_indexes_are_read() -> None:
    (package,) = archive.packages(PACKAGES, "sid")
    assert (package.upstream, package.series, package.size, package.package) == ("7.2.13", "7.2", 164108840, True)
    files = [
        fetch.SourceFile("linux", "6.12.8-1", "pool/main/l/linux", name, 5, name)
        for name in ("linux_6.12.8-1.dsc", "linux_6.12.8.orig.tar.xz", "linux_6.12.8-1.debian.tar.xz")
    ]
    (tarball,) = archive.tarballs(files, "trixie")
    assert (tarball.path, tarball.package) == ("pool/main/l/linux/linux_6.12.8.orig.tar.xz", False)


class FakeApt:
    """apt with an archive of its own: ``there`` by suite, and the files that are gone though they are listed."""

    there: ClassVar[dict[str, list[Offer]]] = {}
    gone: ClassVar[set[str]] = set()
    updates: ClassVar[list[str]] = []
    mirror = "http://archive.example/debian"

    def __init__(self, folder: Path, sources: list[str]) -> None:
        assert [line.split()[0] for line in sources] == ["deb", "deb-src"]
        self.suite = sources[0].split()[2]

    def update(self, what: str) -> None:
        FakeApt.updates.append(self.suite)
        if self.suite not in self.there:
            raise FetchError(f"{what} could not be fetched: no Release file")

    def run(self, argv: list[str], what: str) -> str:
        found = [o for o in self.there[self.suite] if o.package]
        if argv[1] == "search":
            return "".join(f"linux-source-{o.series} - Linux kernel source\n" for o in found)
        return "\n".join(
            f"Package: linux-source-{o.series}\nVersion: {o.version}\nFilename: {o.path}\nSize: 1\nSHA256: {o.sha256}\n"
            for o in found
        )

    def source_files(self, package: str) -> list[fetch.SourceFile]:
        return [
            fetch.SourceFile("linux", o.version, "pool", o.path.rpartition("/")[2], 1, o.sha256)
            for o in self.there[self.suite]
            if not o.package
        ]

    def download(self, uri: str, target: Path, digest: str) -> None:
        if any(uri.endswith(path) for path in self.gone):
            raise FetchError(f"{uri}: 404  Not Found")
        target.write_bytes(TARBALL)


def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process: nothing is remembered but what the cache holds."""
    monkeypatch.setattr(archive, "_FOUND", {})
    archive._candidates.cache_clear()


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> type[FakeApt]:
    """FakeApt in apt's place, and nothing found yet."""
    monkeypatch.setattr(archive, "Apt", FakeApt)
    anew(monkeypatch)
    monkeypatch.setattr(FakeApt, "updates", [])
    monkeypatch.setattr(FakeApt, "gone", set())
    there: dict[str, list[Offer]] = {suite: [] for suite in archive.SUITES}
    there["trixie-backports"] = [o for o in OFFERS if o.suite == "trixie-backports" and not o.package]
    there["trixie"] = [o for o in OFFERS if o.suite == "trixie" and not o.package]
    monkeypatch.setattr(FakeApt, "there", there)
    return FakeApt


def test_a_version_is_fetched_once_and_needs_no_network_then(
    tmp_path: Path, apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    found = archive.find(cache, Debian("6.12.8"))
    assert archive.tarball(cache, found).read_bytes() == TARBALL
    assert sorted(apt.updates) == sorted(archive.SUITES)
    anew(monkeypatch)
    monkeypatch.setattr(apt, "there", {})
    assert archive.find(cache, Debian("6.12.8")) == found


def test_a_suite_is_asked_alone_and_anew_by_the_next_process(
    tmp_path: Path, apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    assert archive.find(cache, Debian("trixie-backports")).upstream == "6.18.15"
    assert archive.find(cache, Debian("trixie-backports")).upstream == "6.18.15"
    assert apt.updates == ["trixie-backports"]
    anew(monkeypatch)
    apt.there["trixie-backports"].append(offer("6.18.16-1~bpo13+1", "trixie-backports", package=False))
    assert archive.find(cache, Debian("trixie-backports")).upstream == "6.18.16"


def test_what_is_held_is_told_without_fetching(
    tmp_path: Path, apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    assert archive.held(cache, Debian("6.18")) is None
    found = archive.find(cache, Debian("6.18"))
    assert archive.held(cache, Debian("6.18")) == archive.held(cache, Debian("6.18.15")) == found
    anew(monkeypatch)
    newer = offer("6.18.16-1~bpo13+1", "trixie-backports", package=False)
    apt.there["trixie-backports"].append(newer)
    assert archive.held(cache, Debian("6.18")) is None  # the newest is another now, and was not fetched
    assert archive.held(cache, Debian("6.18.15")) == found


def test_what_is_listed_and_gone_is_said_and_the_next_is_taken(
    tmp_path: Path, apt: type[FakeApt], capsys: pytest.CaptureFixture[str]
) -> None:
    apt.gone.add("linux_6.18.15-1~bpo13+1.orig.tar.xz")
    assert archive.find(Cache(tmp_path), Debian("6.18")).upstream == "6.18.9"
    assert "6.18.15-1~bpo13+1 of trixie-backports): it is listed, and no longer there" in capsys.readouterr().err


def test_a_version_that_is_gone_is_no_other_version(tmp_path: Path, apt: type[FakeApt]) -> None:
    apt.gone.add("linux_6.18.15-1~bpo13+1.orig.tar.xz")
    with pytest.raises(
        FetchError, match=r"any more \(Linux 6\.18\.15 .*It lists .*trixie: \(6\.12\.117\), \(6\.12\.8\)"
    ):
        archive.find(Cache(tmp_path), Debian("6.18.15"))


def test_a_kernel_that_never_was_is_told_with_those_there_are(tmp_path: Path, apt: type[FakeApt]) -> None:
    with pytest.raises(FetchError, match=r"debian:9\.9: .*no such kernel\. It lists .*\(6\.18\.15\), \(6\.18\.9\)"):
        archive.find(Cache(tmp_path), Debian("9.9"))


def test_a_suite_that_is_none_is_told_with_those_there_are(tmp_path: Path, apt: type[FakeApt]) -> None:
    with pytest.raises(
        FetchError, match=r"debian:hamm: .*no Release file\. Other suites have .*trixie: \(6\.12\.117\)"
    ):
        archive.find(Cache(tmp_path), Debian("hamm"))


def test_a_mirror_that_fails_otherwise_is_no_reason_for_an_older_kernel(
    tmp_path: Path, apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise FetchError("its SHA-256 is another")

    monkeypatch.setattr(apt, "download", broken)
    with pytest.raises(FetchError, match="its SHA-256 is another"):
        archive.find(Cache(tmp_path), Debian("6.18"))


def test_a_package_gives_the_tarball_in_it(tmp_path: Path, apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "deb"
    (inside / "DEBIAN").mkdir(parents=True)
    (inside / "DEBIAN" / "control").write_text(
        "Package: linux-source-7.2\nVersion: 7.2.13-1\nArchitecture: all\nMaintainer: t <t@t.org>\nDescription: t\n"
    )
    (inside / "usr" / "src").mkdir(parents=True)
    (inside / "usr" / "src" / "linux-source-7.2.tar.xz").write_bytes(TARBALL)
    subprocess.run(["dpkg-deb", "-b", inside, tmp_path / "x.deb"], check=True, capture_output=True)
    package = (tmp_path / "x.deb").read_bytes()
    monkeypatch.setattr(apt, "download", lambda _, uri, target, digest: target.write_bytes(package))
    got = archive.tarball(Cache(tmp_path / "cache"), offer("7.2.13-1", "sid"))
    assert got.read_bytes() == TARBALL
    assert sorted(path.name for path in got.parent.iterdir()) == [
        "inputs.json", "linux.tar.xz", "offer.json", "seconds.json",
    ]  # fmt: skip
