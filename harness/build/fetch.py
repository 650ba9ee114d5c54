"""Downloads: from Debian, by apt with a configuration of our own inside the cache, verified by signature and hash.

The machine gives its mirror and its proxy; its sources, its package state and its caches are not touched. No root.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build.cache import MIB, Cache, sha256
from harness.errors import FetchError
from harness.process import programs

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HELPER: Final = "/usr/lib/apt/apt-helper"
DEFAULT_MIRROR: Final = "http://deb.debian.org/debian"
UPDATE_TIMEOUT: Final = 600.0  # seconds; an index
FILE_TIMEOUT: Final = 1800.0  # seconds; a file

_APT_CONF: Final = """\
// Everything apt writes lies in this folder; proxies and certificates come from the machine's configuration.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::State::extended_states "{folder}/extended_states";
Dir::Cache "{folder}";
Dir::Cache::archives "{folder}/archives";
Dir::Log "{folder}";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Debug::NoLocking "true";
"""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """This is a file of a Debian source package, as the signed index has it. ``size`` in bytes."""

    package: str
    version: str
    directory: str
    name: str
    size: int
    sha256: str


def stanzas(text: str) -> list[dict[str, str]]:
    """The paragraphs of a Debian control file; continuation lines are kept, joined by newlines."""
    found: list[dict[str, str]] = []
    for block in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                if name:
                    fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            found.append(fields)
    return found


def _is_debian(uri: str) -> bool:
    """Whether an archive's address is that of Debian itself (not its security archive, not someone else's)."""
    path = uri.rstrip("/")
    return path.startswith(("http://", "https://", "mirror+", "file:", "tor+")) and path.rpartition("/")[2] == "debian"


def mirror_of_one_line(text: str) -> list[str]:
    """The function gives the addresses in sources of the one-line form, in order; comments and other archives are left
    out.
    """
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb(?:-src)?\s+(?:\[[^]]*\]\s+)?(\S+)\s+\S+", line)
        if match and _is_debian(match[1]):
            found.append(match[1].rstrip("/"))
    return found


def mirror_of_deb822(text: str) -> list[str]:
    """The function gives the addresses in sources of the deb822 form, in order; paragraphs with ``Enabled: no`` are
    left out.
    """
    found = []
    for fields in stanzas(text):
        lower = {name.lower(): value for name, value in fields.items()}
        if lower.get("enabled", "yes").lower() in ("no", "false", "0", "off"):
            continue
        found += [uri.rstrip("/") for uri in lower.get("uris", "").split() if _is_debian(uri)]
    return found


def mirror(etc: Path = Path("/etc/apt")) -> str:
    """The machine has its Debian archive here, by its sources under ``etc``; without any it is deb.debian.org."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        read = {".list": mirror_of_one_line, ".sources": mirror_of_deb822}.get(file.suffix)
        if read and (found := read(text)):
            return found[0]
    return DEFAULT_MIRROR


class Apt:
    """This is apt with all its state in ``folder``; ``sources`` are one-line entries with @MIRROR@ for the archive.

    Raises FetchError when Debian's keyring is missing.
    """

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        if not KEYRING.exists():
            raise FetchError(
                f"{KEYRING} is missing, so that Debian's signatures cannot be checked: install debian-archive-keyring"
            )
        self.folder = folder
        self.mirror = mirror()
        for sub in ("lists/partial", "archives/partial"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "apt.conf").write_text(_APT_CONF.format(folder=folder), encoding="utf-8")
        signed = f"[signed-by={KEYRING}] {self.mirror}"
        (folder / "sources.list").write_text("".join(s.replace("@MIRROR@", signed) + "\n" for s in sources))

    def run(self, argv: Sequence[str], what: str, timeout: float = UPDATE_TIMEOUT) -> str:
        """One of apt's programs runs; the function gives its standard output.

        Raises FetchError, which says what could not be fetched and why.
        """
        words = [argv[0], "-c", str(self.folder / "apt.conf"), *argv[1:]]  # -c: read last, so that it has the last word
        done = programs.run(words, env={"APT_CONFIG": None}, check=False, timeout=timeout)
        if done.returncode:
            raise FetchError(f"{what} could not be fetched from {self.mirror}: {reason(done.stderr)}")
        return done.stdout

    def update(self, what: str) -> None:
        """The indexes are fetched and verified."""
        self.run(["apt-get", "-q", "update"], what)

    def source_files(self, package: str) -> list[SourceFile]:
        """The function gives the files of every version of source package ``package`` in the indexes."""
        text = self.run(["apt-cache", "showsrc", "--only-source", package], f"the index entry of {package}")
        return source_files(text)

    def download(self, uri: str, target: Path, digest: str) -> None:
        """One file is downloaded; its SHA-256 is checked by apt and once more here."""
        argv = [HELPER, "-q", "download-file", uri, str(target), f"SHA256:{digest}"]
        self.run(argv, uri.rpartition("/")[2], FILE_TIMEOUT)
        check(target, digest)


def reason(stderr: str) -> str:
    """The function gives apt's own reasons as one sentence, and the mend."""
    lines = [line.removeprefix("E: ").strip() for line in stderr.splitlines() if line.startswith("E:")]
    text = "; ".join(dict.fromkeys(lines)) or programs.tail(stderr, 3) or "apt gave no reason"
    mend = "check the network, the proxy and the mirror in this machine's apt sources"
    if "Signed-By" in text or "signature" in text.lower() or "NO_PUBKEY" in text:
        mend = "update debian-archive-keyring"
    return f"{text[:600].rstrip('.')}. To mend it: {mend}"


def source_files(text: str) -> list[SourceFile]:
    """The function gives the files that source stanzas list, with the SHA-256 of each."""
    found = []
    for fields in stanzas(text):
        for line in fields.get("Checksums-Sha256", "").split("\n"):
            parts = line.split()
            if len(parts) == 3:
                digest, size, name = parts
                found.append(
                    SourceFile(
                        fields.get("Package", ""),
                        fields.get("Version", ""),
                        fields.get("Directory", ""),
                        name,
                        int(size),
                        digest,
                    )
                )
    return found


def check(path: Path, digest: str) -> None:
    """The file's SHA-256 is ``digest``; a file with another one is removed.

    Raises FetchError when it is another one.
    """
    seen = sha256(path)
    if seen != digest:
        path.unlink(missing_ok=True)
        raise FetchError(f"{path.name} is not the file that is pinned: its SHA-256 is {seen}, expected {digest}")


def debian_source(
    cache: Cache, package: str, version_prefix: str, suite: str, file_suffix: str, pinned: str | None = None
) -> Path:
    """The function gives a file of a source package of ``suite``, by the signed index; it is kept in the cache, so that
    later calls need no network.

    The version begins with ``version_prefix``, the file's name ends in ``file_suffix``. With ``pinned``, a SHA-256,
    only that file will do.

    Raises FetchError when the archive has no such file, or its SHA-256 is another one.
    """
    key = {"package": package, "version": version_prefix, "suite": suite, "file": file_suffix, "sha256": pinned}
    names: list[str] = []

    def build(folder: Path) -> None:
        with cache.tree(f"apt-{suite}-src") as state:
            apt = Apt(state, [f"deb-src @MIRROR@ {suite} main"])
            apt.update(f"the source index of Debian {suite}")
            files = [
                f
                for f in apt.source_files(package)
                if f.package == package
                and f.version.startswith(version_prefix)
                and f.name.endswith(file_suffix)
                and pinned in (None, f.sha256)
            ]
            if not files:
                raise FetchError(
                    f"Debian {suite} at {apt.mirror} has no {package} {version_prefix}* with a file *{file_suffix}"
                    + (f" of SHA-256 {pinned}" if pinned else "")
                    + ": give a copy of yours on the command line (--linux, --bochs)"
                )
            file = files[-1]
            cache.room(2 * file.size, file.name)
            apt.download(f"{apt.mirror}/{file.directory}/{file.name}", folder / file.name, file.sha256)
            (folder / "SHA256SUMS").write_text(f"{file.sha256}  {file.name}\n", encoding="ascii")
            names.append(file.name)

    place = cache.entry(
        "download", key, build, needs=64 * MIB, title=f"fetch {package} {version_prefix}", record=f"fetch-{package}"
    )
    digest, _, name = (place / "SHA256SUMS").read_text(encoding="ascii").strip().partition("  ")
    if not names:  # it was in the cache: what lies there may have been damaged since
        try:
            check(place / name, digest)
        except (FetchError, OSError) as error:
            raise FetchError(f"{error}; it lies damaged in {place}: remove that folder and try again") from error
    return place / name


@dataclass(frozen=True, slots=True)
class Deb:
    """This is a Debian binary package that was fetched."""

    name: str
    version: str
    path: Path


def debian_packages(cache: Cache, suite: str, names: Iterable[str], key: str = "") -> list[Deb]:
    """Binary packages of ``suite`` and all they depend on (nothing counts as installed), verified by apt.

    What was fetched first stays: the suite moves, a cache does not, unless ``key`` changes. FetchError with the
    reason when the suite cannot be reached or has no such package.
    """
    wanted = sorted(set(names))

    def build(folder: Path) -> None:
        with cache.tree(f"apt-{suite}") as state:
            apt = Apt(state, [f"deb @MIRROR@ {suite} main"])
            apt.update(f"the index of Debian {suite}")
            argv = ["apt-get", "-q", "-y", "install", "--download-only", "--no-install-recommends", *wanted]
            apt.run(["apt-get", "clean"], "nothing")
            apt.run(argv, f"{', '.join(wanted)} of Debian {suite}", FILE_TIMEOUT)
            for deb in sorted((state / "archives").glob("*.deb")):
                shutil.move(deb, folder / deb.name)

    place = cache.entry(
        "debs",
        {"suite": suite, "names": wanted, "key": key},
        build,
        needs=512 * MIB,
        title=f"fetch packages of {suite}",
        record=f"fetch-{suite}",
    )
    return [_deb(path) for path in sorted(place.glob("*.deb"))]


def _deb(path: Path) -> Deb:
    """Name and version from a file name as apt writes it: name_version_arch.deb, colons as %3a."""
    name, version, _ = path.stem.split("_")
    return Deb(name, version.replace("%3a", ":"), path)
