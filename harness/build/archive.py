"""Kernels of Debian's archive: which there are, which one a user's word means, and its source.

A word is a series (``debian:7.2``: the newest of it that any suite has), a version (``debian:6.12.117``, with or
without Debian's revision), or a suite (``debian:trixie-backports``: the newest there). A suite's source is in a package
linux-source-X.Y, with Debian's patches in it, or is the upstream tarball of the source package linux. The archive
moves: indexes list tarballs that are no longer there, and what is there today is not there next month.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from harness.build import fetch
from harness.build.cache import GIB, Cache
from harness.build.fetch import Apt
from harness.errors import FetchError, InputError
from harness.process import programs, side_by_side

PREFIX: Final = "debian:"
# By code name: a mirror may keep what "stable" or "testing" names at another age than the suite itself.
SUITES: Final = ("bookworm-backports", "trixie", "trixie-backports", "forky", "sid", "experimental")
KIND: Final = "debian-kernel"
TARBALL: Final = "linux.tar.xz"
BRACKETS: Final = "(in brackets: upstream's tarball, which may be gone)"
_SERIES: Final = re.compile(r"\d+\.\d+")
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:~rc(\d+))?")


@dataclass(frozen=True, slots=True)
class Debian:
    """This is a kernel of the archive as the user named it, without ``debian:``."""

    word: str

    def __str__(self) -> str:
        return PREFIX + self.word

    @property
    def is_series(self) -> bool:
        """The word is a series such as 7.2: True."""
        return bool(_SERIES.fullmatch(self.word))

    @property
    def is_version(self) -> bool:
        """The word is one version, such as 7.2.13 or 7.2.13-1: True."""
        return self.word[0].isdigit() and not self.is_series


def named(text: str) -> Path | Debian:
    """The word that ``--linux`` was given is a path or a kernel of the archive.

    Raises InputError when a word behind ``debian:`` can be none.
    """
    if not text.startswith(PREFIX):
        return Path(text)
    word = text.removeprefix(PREFIX).replace("-rc", "~rc")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+~-]*", word):
        raise InputError(
            f"--linux {text}: write a series (debian:7.2), a version (debian:6.12.117) or a suite (debian:trixie)"
        )
    return Debian(word)


@dataclass(frozen=True, slots=True)
class Offer:
    """This is a kernel source that a suite's signed index lists. ``version`` has Debian's revision; ``size`` in
    bytes.
    """

    version: str
    suite: str
    path: str
    size: int
    sha256: str

    @property
    def upstream(self) -> str:
        """This is the kernel's own version, without Debian's revision."""
        return self.version.rpartition("-")[0]

    @property
    def series(self) -> str:
        """The series is the version's first two numbers."""
        return ".".join(self.upstream.partition("~")[0].split(".")[:2])

    @property
    def package(self) -> bool:
        """Whether it is a package with Debian's patches, else it is the upstream tarball."""
        return self.path.endswith(".deb")

    @property
    def rank(self) -> tuple[tuple[int, ...], bool, str]:
        """The rank sorts the newest last: by the upstream version, then packages before tarballs."""
        match = _VERSION.match(self.upstream)
        major, minor, sub, rc = match.groups() if match else ("0", "0", "0", None)
        numbers = (int(major), int(minor), int(sub or 0), int(rc) if rc else 1 << 30)
        return numbers, self.package, self.version

    def __str__(self) -> str:
        return f"Linux {self.upstream} ({'linux-source' if self.package else 'source'} {self.version} of {self.suite})"


def packages(text: str, suite: str) -> Iterator[Offer]:
    """The function gives the offers in paragraphs of a suite's index of binary packages."""
    for fields in fetch.stanzas(text):
        if re.fullmatch(r"linux-source-\d+\.\d+", fields.get("Package", "")):
            size, digest = int(fields["Size"]), fields["SHA256"]
            yield Offer(fields["Version"], suite, fields["Filename"], size, digest)


def tarballs(files: Iterable[fetch.SourceFile], suite: str) -> Iterator[Offer]:
    """The function gives the offers among the files of a suite's source package linux."""
    for file in files:
        if file.package == "linux" and re.fullmatch(r"linux_\S+\.orig\.tar\.\w+", file.name):
            yield Offer(file.version, suite, f"{file.directory}/{file.name}", file.size, file.sha256)


def choose(wanted: Debian, offers: Iterable[Offer]) -> list[Offer]:
    """The offers that a word may mean, the best first; each file once. A suite's word is given its offers only."""
    if wanted.is_series:
        meant = [o for o in offers if o.series == wanted.word]
    elif wanted.is_version:
        meant = [o for o in offers if wanted.word in (o.upstream, o.version)]
    else:
        meant = list(offers)
    best = sorted(meant, key=lambda o: o.rank, reverse=True)
    return list({o.sha256: o for o in reversed(best)}.values())[::-1]


def listed(offers: Iterable[Offer]) -> str:
    """The lines say what there is, a part a suite, newest first; versions that are there as upstream's tarball alone
    are in brackets.
    """
    suites: dict[str, dict[str, bool]] = {}
    for offer in sorted(offers, key=lambda o: o.rank, reverse=True):
        there = suites.setdefault(offer.suite, {})
        there[offer.upstream] = there.get(offer.upstream, False) or offer.package
    parts = [
        f"{suite}: {', '.join(version if package else f'({version})' for version, package in there.items())}"
        for suite, there in suites.items()
    ]
    return "; ".join(parts) or "nothing"


def _look(cache: Cache, suite: str) -> list[Offer]:
    """What a suite has, by its indexes of today. FetchError where it cannot be reached, or is none."""
    with cache.tree(f"apt-{suite}-kernels") as state:
        apt = Apt(state, [f"deb @MIRROR@ {suite} main", f"deb-src @MIRROR@ {suite} main"])
        apt.update(f"the index of Debian {suite}")
        names = apt.run(["apt-cache", "search", "--names-only", r"^linux-source-[0-9]"], "the list of kernels")
        found = [line.split()[0] for line in names.splitlines()]
        text = apt.run(["apt-cache", "show", *found], "the kernels' index entries") if found else ""
        return [*packages(text, suite), *tarballs(apt.source_files("linux"), suite)]


def _everywhere(cache: Cache, suites: Sequence[str]) -> tuple[list[Offer], list[str]]:
    """What all suites have, and what was said of those that could not be asked."""
    trouble: list[str] = []
    with cache.progress.task("Debian's kernels", total=len(suites)) as task:

        def look(suite: str) -> list[Offer]:
            try:
                return _look(cache, suite)
            except FetchError as error:
                trouble.append(str(error))
                return []
            finally:
                task.advance()

        found = side_by_side({suite: functools.partial(look, suite) for suite in suites})
    return [offer for suite in suites for offer in found[suite]], trouble


def _kept(cache: Cache) -> list[Offer]:
    """The offers that the cache holds, of all words and suites."""
    notes = sorted((cache.root / KIND).glob("[0-9a-f]*/offer.json"))
    return [Offer(**json.loads(note.read_text(encoding="utf-8"))) for note in notes]


_FOUND: dict[tuple[Path, str], Offer] = {}


def find(cache: Cache, wanted: Debian) -> Offer:
    """The kernel that a word means, fetched: a version that the cache has needs no network, for a series or a suite
    the archive is asked once a process.

    FetchError, with what there is, where the archive has no such kernel (any more), or cannot be asked.
    """
    with cache.lock(KIND):
        key = (cache.root, wanted.word)
        if key not in _FOUND:
            _FOUND[key] = held(cache, wanted) or _fetched(cache, wanted, _candidates(cache, wanted))
            if not wanted.is_version:
                cache.progress.say(f"{wanted} is {_FOUND[key]}")
        return _FOUND[key]


def held(cache: Cache, wanted: Debian) -> Offer | None:
    """The kernel that a word means, None where the cache has it not; nothing is fetched but the archive's indexes.

    Of a series or a suite that is the newest that is listed, whether or not the archive still gives it.
    """
    kept = choose(wanted, _kept(cache))
    if not kept or wanted.is_version:
        return kept[0] if kept else None
    newest = _candidates(cache, wanted)[0]
    return newest if newest.sha256 in {offer.sha256 for offer in kept} else None


@functools.lru_cache
def _candidates(cache: Cache, wanted: Debian) -> tuple[Offer, ...]:
    """What the archive lists for a word, the best first. FetchError, with what there is, where that is nothing."""
    suites = SUITES if wanted.word[0].isdigit() else (wanted.word,)
    offers, trouble = _everywhere(cache, suites)
    if not offers and len(trouble) == len(suites):
        raise FetchError(f"{wanted}: {trouble[0]}" + _others(cache, suites))
    for one in trouble:
        cache.progress.say(f"{wanted}: {one}")
    found = choose(wanted, offers)
    if not found:
        raise FetchError(f"{wanted}: Debian's archive has no such kernel. It lists {listed(offers)} {BRACKETS}")
    return tuple(found)


def _fetched(cache: Cache, wanted: Debian, candidates: Sequence[Offer]) -> Offer:
    """The first of the candidates that the archive still gives, fetched."""
    for offer in candidates:
        try:
            tarball(cache, offer)
        except FetchError as error:
            if "404" not in str(error):
                raise
            cache.progress.say(f"{offer}: it is listed, and no longer there")
            continue
        return offer
    offers, _ = _everywhere(cache, SUITES)
    gone = "; ".join(map(str, candidates))
    raise FetchError(
        f"{wanted}: Debian's archive has no such kernel any more ({gone}: listed, and gone). It lists {listed(offers)} "
        f"{BRACKETS}"
    )


def _others(cache: Cache, asked: Sequence[str]) -> str:
    """Where one suite was asked and did not answer: what the others have, if they do."""
    if len(asked) > 1:
        return ""
    offers, _ = _everywhere(cache, SUITES)
    return f". Other suites have {listed(offers)}" if offers else ""


def tarball(cache: Cache, offer: Offer) -> Path:
    """The source's tarball is in the cache, verified by the signed index.

    Raises FetchError when the archive has it no more.
    """

    def build(folder: Path) -> None:
        with cache.tree(f"apt-{offer.suite}-kernels") as state:
            apt = Apt(state, [f"deb @MIRROR@ {offer.suite} main", f"deb-src @MIRROR@ {offer.suite} main"])
            file = folder / Path(offer.path).name
            apt.download(f"{apt.mirror}/{offer.path}", file, offer.sha256)
        if offer.package:
            _take_out(file, folder / TARBALL, offer)
            file.unlink()
        else:
            file.rename(folder / TARBALL)
        (folder / "offer.json").write_text(json.dumps(asdict(offer)) + "\n", encoding="utf-8")

    key = {"sha256": offer.sha256}
    place = cache.entry(KIND, key, build, needs=GIB, title=f"fetch Linux {offer.upstream}", record="fetch-linux")
    return place / TARBALL


def _take_out(package: Path, target: Path, offer: Offer) -> None:
    """The tarball that a package linux-source-X.Y holds, to ``target``."""
    inside = package.with_suffix(".d")
    programs.run(["dpkg-deb", "-x", package, inside])
    found = sorted((inside / "usr" / "src").glob("linux-source-*.tar.*"))
    if len(found) != 1:
        raise FetchError(f"{offer}: the package holds {len(found)} tarballs, one was expected")
    found[0].rename(target)
    programs.run(["rm", "-rf", inside])
