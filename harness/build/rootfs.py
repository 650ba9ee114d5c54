"""What the emulated host boots: an initramfs with QEMU in it, and ISO images, made without root.

The initramfs (newc, legacy lz4, what the kernel unpacks fastest on an emulator) holds busybox, an SSH server,
QEMU of a newer Debian suite with the libraries it needs and its own dynamic loader, ``memio`` (L1's memory
from the host) and our init. Nothing of it is installed on the user's machine.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness import places
from harness.build import debs, fetch, stubs
from harness.build.cache import Cache
from harness.errors import BuildError
from harness.process import programs

IMAGES: Final = places.IMAGES
SUITE: Final = "sid"
PACKAGES: Final = ("qemu-system-x86", "dropbear-bin")
QEMU: Final = "usr/bin/qemu-system-x86_64"
DROPBEAR: Final = "usr/sbin/dropbear"
FIRMWARE: Final = {  # name in QEMU's data folder: where the packages have it
    "qboot.rom": "usr/share/qemu/qboot.rom",
    "bios-256k.bin": "usr/share/seabios/bios-256k.bin",
    "kvmvapic.bin": "usr/share/qemu/kvmvapic.bin",
    "linuxboot_dma.bin": "usr/share/qemu/linuxboot_dma.bin",
    "multiboot_dma.bin": "usr/share/qemu/multiboot_dma.bin",
    "pvh.bin": "usr/share/qemu/pvh.bin",
}
STUBS: Final = (  # libraries that QEMU names and, started as harness.qemu starts it, never calls
    *("libpng16.so.16", "libjpeg.so.62", "libslirp.so.0", "libvdeplug.so.2"),  # displays and networks
    *("libpmem.so.1", "libnuma.so.1", "libudev.so.1", "libfuse3.so.4", "libaio.so.1t64", "libzstd.so.1"),  # devices
    *("librdmacm.so.1", "libibverbs.so.1"),  # migration by RDMA; bring netlink
    *("libbpf.so.1", "libseccomp.so.2"),  # filters; bring an ELF library
    "libcapstone.so.5",  # disassembly
    "libgio-2.0.so.0",  # D-Bus; brings mounts, SELinux and systemd
    "libsasl2.so.2",  # VNC's log-in; brings OpenSSL
    *("libgnutls.so.30", "libnettle.so.8", "libhogweed.so.6"),  # TLS and disk encryption
)
# What is called at each start all the same: to set the library up, and for a seed that no machine of ours takes.
ANSWERING: Final = ("gnutls_global_init", "gnutls_rnd")
COMMAND_LINE: Final = (
    "console=ttyS0,115200 nokaslr mitigations=off random.trust_cpu=on tsc=reliable no_timer_check nowatchdog "
    "quiet loglevel=5"
)
_FOLDERS: Final = (
    *("bin", "sbin", "dev", "proc", "sys", "root", "root/.ssh", "etc", "etc/dropbear", "tmp", "run", "mnt", "var"),
    *("var/run", "lib64", "lib", "lib/x86_64-linux-gnu", "usr", "usr/share", "usr/share/qemu"),
)
_ISOLINUX: Final = (Path("/usr/lib/ISOLINUX"), Path("/usr/lib/syslinux/modules/bios"))


@dataclass(frozen=True, slots=True)
class Keys:
    """The cache has its SSH keys, Ed25519: the host's (dropbear's own format) and the client's (OpenSSH's)."""

    folder: Path

    @property
    def host_private(self) -> Path:
        """The server's key is in the image only."""
        return self.folder / "host_key"

    @property
    def host_public(self) -> str:
        """``ssh-ed25519 AAAA...``, what a client must see."""
        return (self.folder / "host_key.pub").read_text().strip()

    @property
    def client_private(self) -> Path:
        """The client's key file has mode 600."""
        return self.folder / "client_key"

    @property
    def client_public(self) -> str:
        """This is the line for authorized_keys."""
        return (self.folder / "client_key.pub").read_text().strip()


class Cpio:
    """A newc archive, written in memory-friendly order; everything belongs to root, whoever runs this."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._inode = 0

    def __enter__(self) -> Cpio:
        return self

    def __exit__(self, *_: object) -> None:
        self._entry("TRAILER!!!", 0, b"")
        self._file.close()

    def _entry(self, name: str, mode: int, data: bytes, rdev: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(encoded), 0)
        self._file.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self._file.write(b"\0" * (-(110 + len(encoded)) % 4) + data + b"\0" * (-len(data) % 4))

    def folder(self, name: str) -> None:
        """A directory is added, mode 755 (700 for root's own)."""
        self._entry(name, stat.S_IFDIR | (0o700 if name.startswith("root") else 0o755), b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """A regular file is added."""
        self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link is added."""
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device is added, mode 600."""
        self._entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))


def _string(data: bytes) -> bytes:
    """An SSH wire string (RFC 4251, section 5)."""
    return struct.pack(">I", len(data)) + data


def _make_keys(folder: Path) -> None:
    kind = b"ssh-ed25519"
    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    for name in ("host", "client"):
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(*raw)
        line = base64.b64encode(_string(kind) + _string(public)).decode()
        (folder / f"{name}_key.pub").write_text(f"ssh-ed25519 {line} kvmirror-{name}\n")
        if name == "host":
            secret = key.private_bytes(
                serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
            )
            data = _string(kind) + _string(secret + public)
        else:
            data = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
        path = folder / f"{name}_key"
        path.touch(mode=0o600)
        path.write_bytes(data)


def keys(cache: Cache) -> Keys:
    """The cache has these SSH keys, which are made at first use."""
    return Keys(cache.entry("ssh-keys", "1", _make_keys))


def _digest(*parts: bytes | str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:24]


def packages(cache: Cache) -> list[fetch.Deb]:
    """QEMU's and the SSH server's packages with all they depend on, fetched once per cache."""
    return fetch.debian_packages(cache, SUITE, PACKAGES)


def qemu_version(cache: Cache) -> str:
    """The function gives Debian's version of the QEMU in the image, for the provenance.

    Raises BuildError when no package of it was fetched.
    """
    for deb in packages(cache):
        if deb.name == PACKAGES[0]:
            return deb.version
    raise BuildError(f"no {PACKAGES[0]} was fetched: remove the folder debs from the cache and try again")


def _memio(folder: Path) -> Path:
    """The compiled ``memio``, static; BuildError with the compiler's words."""
    out = folder / "memio"
    done = programs.run(
        ["gcc", "-O2", "-Wall", "-static", "-o", str(out), str(IMAGES / "rootfs" / "memio.c")], check=False
    )
    if done.returncode:
        raise BuildError(f"memio.c does not compile: {done.stderr.strip()[-400:]} (is build-essential installed?)")
    return out


def _busybox() -> Path:
    for name in ("/bin/busybox", "/usr/bin/busybox"):
        path = Path(name)
        if path.exists() and not programs.run(["readelf", "-d", name], check=False).stdout.count("NEEDED"):
            return path
    raise BuildError("no static busybox: install busybox-static")


def _write_archive(path: Path, root: Path, busybox: Path, memio: Path, ssh: Keys) -> None:
    """The uncompressed archive from the unpacked packages under ``root``."""
    libraries = debs.closure(root, (QEMU, DROPBEAR), STUBS)
    for file in (root / DROPBEAR, *(path for soname, path in libraries.items() if soname not in STUBS)):
        if missed := debs.needed(file) & set(STUBS):
            raise BuildError(f"{file.name} needs {', '.join(sorted(missed))}: only what QEMU alone needs can be a stub")
    for soname in STUBS:
        libraries[soname] = stubs.make(root / QEMU, libraries[soname], soname, root, ANSWERING)
    applets = programs.run([str(busybox), "--list"]).stdout.split()
    with Cpio(path) as archive:
        for name in _FOLDERS:
            archive.folder(name)
        archive.device("dev/console", 5, 1)
        archive.device("dev/null", 1, 3)
        archive.file("init", (IMAGES / "rootfs" / "init").read_bytes(), 0o755)
        archive.file("bin/busybox", busybox.read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                archive.link(f"bin/{applet}", "busybox")
        archive.file("bin/memio", memio.read_bytes(), 0o755)
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("etc/group", b"root:x:0:\n")
        archive.file("etc/shells", b"/bin/sh\n")
        archive.file("etc/dropbear/host_key", ssh.host_private.read_bytes(), 0o600)
        archive.file("root/.ssh/authorized_keys", ssh.client_public.encode() + b"\n", 0o600)
        archive.file("sbin/dropbear", (root / DROPBEAR).read_bytes(), 0o755)
        archive.file("bin/qemu-system-x86_64", (root / QEMU).read_bytes(), 0o755)
        loader = libraries.pop("ld-linux-x86-64.so.2", None) or (root / "usr/lib64/ld-linux-x86-64.so.2").resolve()
        archive.file("lib64/ld-linux-x86-64.so.2", loader.read_bytes(), 0o755)
        for soname, library in sorted(libraries.items()):
            archive.file(f"lib/x86_64-linux-gnu/{soname}", library.read_bytes(), 0o755)
        for name, source in FIRMWARE.items():
            archive.file(f"usr/share/qemu/{name}", (root / source).read_bytes())


def pack(archive: Path, to: Path) -> None:
    """``archive`` as the kernel takes it; it is removed. BuildError where it cannot be packed."""
    done = programs.run(["lz4", "-l", "-9", "-q", "-f", str(archive), str(to)], check=False)
    if done.returncode:
        raise BuildError(f"lz4 could not pack {archive.name}: {done.stderr.strip()} (is lz4 installed?)")
    archive.unlink()


def initramfs(cache: Cache) -> Path:
    """The function gives the compressed initramfs.

    Raises BuildError when it cannot be made.
    Raises FetchError when a package cannot be had.
    """
    ssh, fetched, busybox = keys(cache), packages(cache), _busybox()
    key = _digest(
        Path(__file__).read_bytes(),
        Path(stubs.__file__).read_bytes(),
        (IMAGES / "rootfs" / "init").read_bytes(),
        (IMAGES / "rootfs" / "memio.c").read_bytes(),
        busybox.read_bytes(),
        ssh.host_public,
        ssh.client_public,
        *sorted(f"{deb.name} {deb.version}" for deb in fetched),
    )

    def build(folder: Path) -> None:
        root = folder / "root"
        debs.unpack([deb.path for deb in fetched], root)
        archive = folder / "initramfs.cpio"
        _write_archive(archive, root, busybox, _memio(folder), ssh)
        pack(archive, folder / "initrd")
        shutil.rmtree(root)

    return cache.entry("initramfs", key, build) / "initrd"


def render(template: str, **values: object) -> str:
    """A file under images/bochs rendered; a value that is missing is an error."""
    env = Environment(loader=FileSystemLoader(IMAGES / "bochs"), undefined=StrictUndefined, keep_trailing_newline=True)
    return env.get_template(template).render(**values)


def _syslinux(name: str) -> Path:
    for folder in _ISOLINUX:
        if (path := folder / name).exists():
            return path
    raise BuildError(f"{name} is missing: install isolinux and syslinux-common")


def make_iso(folder: Path, files: dict[str, Path], menu: str, modules: Iterable[str]) -> None:
    """The function makes ``folder``/image.iso, booted by isolinux with ``menu``, holding ``files`` by their names
    there.

    Raises BuildError when the ISO's tools fail.
    """
    tree = folder / "tree"
    tree.mkdir()
    for name in ("isolinux.bin", *modules):
        shutil.copyfile(_syslinux(name), tree / name)
    for name, source in files.items():
        shutil.copyfile(source, tree / name)
    (tree / "isolinux.cfg").write_text(menu)
    done = programs.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(folder / "image.iso"), "-b", "isolinux.bin", "-c", "boot.cat",
         "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", str(tree)],
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"xorriso made no image: {done.stderr.strip()[-400:]} (is xorriso installed?)")
    shutil.rmtree(tree)
