"""What is built, each thing once and kept in a cache: kernel, modules, emulator, file system, probe and client."""

from harness.build import archive, bochs, cache, kernel, modules, needs, packages, probe, rootfs, variants
from harness.build.cache import GIB, Cache, digest, sha256
from harness.build.kernel import BaseKernel
from harness.build.modules import Modules
from harness.build.rootfs import make_iso, render

__all__ = [
    "GIB",
    "BaseKernel",
    "Cache",
    "Modules",
    "archive",
    "bochs",
    "cache",
    "digest",
    "kernel",
    "make_iso",
    "modules",
    "needs",
    "packages",
    "probe",
    "render",
    "rootfs",
    "sha256",
    "variants",
]
