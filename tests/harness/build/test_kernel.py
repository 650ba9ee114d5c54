"""The kernel's source and configuration: what is refused, what is said, what is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.build import kernel
from harness.build.cache import Cache
from harness.errors import BuildError, CompileError, FetchError, InputError
from harness.series import pinned

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 8\nEXTRAVERSION =\nall:\n\ttrue\n"


def tree(folder: Path) -> Path:
    """The least that passes for a kernel's source."""
    folder.mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "Kconfig").write_text("")
    (folder / "arch").mkdir()
    (folder / "arch" / "vmx.h").write_text("one\n")
    return folder


def git(folder: Path, *words: str) -> None:
    """git in ``folder`` with an identity."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_symbols_that_did_not_take_are_listed() -> None:
    fragment = "# words\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n# CONFIG_D is not set\n# CONFIG_E is not set\n"
    config = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_D=y\n# CONFIG_E is not set\n"
    assert kernel.untaken(fragment, config) == [
        "CONFIG_B=m (is y)",
        "CONFIG_C=y (is not set)",
        "CONFIG_D not set (is y)",
    ]


def test_fragment_has_what_the_harness_rests_on() -> None:
    text = kernel.FRAGMENT.read_text()
    for line in ("CONFIG_KVM=m", "CONFIG_KVM_INTEL=m", "# CONFIG_MODVERSIONS is not set", "CONFIG_E1000=y"):
        assert line in text.splitlines()
    assert len(set(names := [n for n in text.splitlines() if "CONFIG_" in n])) == len(names)


def test_compiler_lines_are_found_among_the_rest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "  CC x.o\nx.c:3:5: error: 'y' undeclared\nx.c:4: note: each\nld: a.o: undefined reference to `f'\n"
        'ERROR: modpost: "g" [kvm.ko] undefined!\nmake[2]: *** [x.o] Error 1\ny.c:1:9: fatal error: no.h: No such\n'
    )
    assert [line.split(":")[0] for line in kernel.compiler_errors(log)] == ["x.c", "ld", "ERROR", "y.c"]
    assert kernel.compiler_errors(tmp_path / "none") == []


def test_version_of_a_source_and_of_what_is_none(tmp_path: Path) -> None:
    assert pinned.of_tree(tree(tmp_path / "linux"), "x") == "6.12.8"
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(InputError, match="is no kernel source"):
        pinned.of_tree(tmp_path, "x")


def test_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--linux .*none: there is no such file or folder"):
        kernel.source(Cache(tmp_path / "cache"), tmp_path / "none")


def test_source_that_is_no_tarball(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no tarball")
    with pytest.raises(InputError, match=r"x\.tar cannot be unpacked"):
        kernel.source(Cache(tmp_path / "cache"), tmp_path / "x.tar")
    assert not list((tmp_path / "cache").glob("linux-source/*"))


def test_source_that_is_a_tarball_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README").write_text("hello")
    subprocess.run(["tar", "-cf", tmp_path / "o.tar", "-C", tmp_path, "other"], check=True)
    with pytest.raises(InputError, match=r"o\.tar is no kernel source"):
        kernel.source(Cache(tmp_path / "cache"), tmp_path / "o.tar")


def test_source_from_tarball_folder_and_git(tmp_path: Path) -> None:
    cache, linux = Cache(tmp_path / "cache"), tree(tmp_path / "linux")
    subprocess.run(["tar", "-cf", tmp_path / "l.tar", "-C", tmp_path, "linux"], check=True)
    from_tarball = kernel.source(cache, tmp_path / "l.tar")
    from_folder = kernel.source(cache, linux)
    assert kernel.source(cache, linux) == from_folder
    git(linux, "init")
    git(linux, "add", ".")
    git(linux, "commit", "-m", "base")
    from_git = kernel.source(cache, linux)
    for source in (from_tarball, from_folder, from_git):
        assert (source / "arch" / "vmx.h").read_text() == "one\n"
    (linux / "arch" / "vmx.h").write_text("two\n")
    git(linux, "commit", "-a", "-m", "next")
    assert (kernel.source(cache, linux) / "arch" / "vmx.h").read_text() == "two\n"
    assert (from_git / "arch" / "vmx.h").read_text() == "one\n"


def test_folder_that_changed_is_another_source(tmp_path: Path) -> None:
    cache, linux = Cache(tmp_path / "cache"), tree(tmp_path / "linux")
    first = kernel.source(cache, linux)
    (linux / "arch" / "vmx.h").write_text("longer\n")
    assert kernel.source(cache, linux) != first


def test_folder_in_which_something_was_built(tmp_path: Path) -> None:
    linux = tree(tmp_path / "linux")
    (linux / ".config").write_text("")
    with pytest.raises(InputError, match="make mrproper"):
        kernel.source(Cache(tmp_path / "cache"), linux)


def test_pinned_source_out_of_reach_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> Path:
        raise FetchError("no network")

    monkeypatch.setattr(kernel.fetch, "debian_source", nothing)
    with pytest.raises(FetchError, match=r"no network\. Or fetch .*linux-6\.12\.8\.tar\.xz .*--linux PATH"):
        kernel.source(Cache(tmp_path))


def make(cache: Cache, linux: Path, target: str, error: type[BuildError] | type[InputError]) -> None:
    """The kernel's make with a Makefile of ours."""
    kernel.make(cache, linux, linux / "build", [target], log=cache.log("kernel"), error=error)


def test_failed_make_raises_the_compilers_lines(tmp_path: Path) -> None:
    cache, linux = Cache(tmp_path / "cache"), tree(tmp_path / "linux")
    (linux / "Makefile").write_text("broken:\n\t@echo \"vmx.c:7:1: error: 'mbec' undeclared\" >&2; false\n")
    with pytest.raises(CompileError, match=r"(?s)does not build.*vmx.c:7:1: error: 'mbec'.*log: ") as caught:
        make(cache, linux, "broken", CompileError)
    assert caught.value.exit_code == 2


def test_make_that_fails_without_a_compiler_error_is_not_the_sources_fault(tmp_path: Path) -> None:
    cache, linux = Cache(tmp_path / "cache"), tree(tmp_path / "linux")
    (linux / "Makefile").write_text("broken:\n\t@echo disk full >&2; false\n")
    with pytest.raises(BuildError, match=r"(?s)exit status 2.*disk full"):
        make(cache, linux, "broken", CompileError)


def test_make_is_told_what_makes_builds_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, linux = Cache(tmp_path / "cache"), tree(tmp_path / "linux")
    (linux / "Makefile").write_text("show:\n\t@env; echo local=[$(LOCALVERSION)] o=$(O)\n")
    monkeypatch.setenv("MAKEFLAGS", "-n")
    monkeypatch.setenv("LOCALVERSION", "-mine")
    monkeypatch.setenv("KCFLAGS", "-O0")
    make(cache, linux, "show", BuildError)
    log = cache.log("kernel").read_text()
    assert "KBUILD_BUILD_USER=kvmirror" in log
    assert "KBUILD_BUILD_TIMESTAMP=Thu Jan  2" in log
    assert "KCFLAGS" not in log
    assert "local=[]" in log
    assert f"o={linux}/build" in log


def test_restore_brings_back_what_differs_with_a_new_time(tmp_path: Path) -> None:
    pristine, src = tree(tmp_path / "pristine"), tree(tmp_path / "src")
    for folder in (pristine, src):
        for path in folder.rglob("*"):
            os.utime(path, (1, 1))
    (src / "arch" / "vmx.h").write_text("patched\n")
    os.utime(src / "arch" / "vmx.h", (2, 2))
    (src / "arch" / "new.h").write_text("added by a patch\n")
    nowhere = tmp_path / "x"
    base = kernel.BaseKernel(nowhere, nowhere, nowhere, pristine, src, nowhere, "6.12.8", "key")
    assert kernel.restore(base, ["arch/vmx.h", "arch/new.h", "Kconfig", "never"]) == ["arch/vmx.h", "arch/new.h"]
    assert (src / "arch" / "vmx.h").read_text() == "one\n"
    assert (src / "arch" / "vmx.h").stat().st_mtime > 2  # make compares times: an old one would hide the change
    assert (src / "Kconfig").stat().st_mtime == 1
    assert not (src / "arch" / "new.h").exists()


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_jobs_that_are_no_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KVMIRROR_JOBS", text)
    with pytest.raises(InputError, match="KVMIRROR_JOBS="):
        kernel.jobs()


def test_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMIRROR_JOBS", "3")
    assert kernel.jobs() == 3
    monkeypatch.delenv("KVMIRROR_JOBS")
    assert kernel.jobs() == len(os.sched_getaffinity(0))


BUILDING = """
allnoconfig:
	@cp $(KCONFIG_ALLCONFIG) $(O)/.config
bzImage:
	@echo built >> $(O)/../../../built
	@grep -q one arch/vmx.h || { echo "vmx.h:1:1: error: not one"; false; }
	@mkdir -p $(O)/arch/x86/boot $(O)/include/config
	@cp arch/vmx.h $(O)/arch/x86/boot/bzImage
	@touch $(O)/Module.symvers $(O)/System.map
	@echo 6.12.8 > $(O)/include/config/kernel.release
modules: bzImage
"""


class TestBase:
    """The base's way through the cache, with a source whose make is quick."""

    @pytest.fixture
    def linux(self, tmp_path: Path) -> Path:
        """The source."""
        linux = tree(tmp_path / "linux")
        with (linux / "Makefile").open("a") as file:
            file.write(BUILDING)
        return linux

    def built(self, cache: Cache) -> int:
        """How often make was asked for the image."""
        return len((cache.root / "built").read_text().splitlines())

    def test_built_once_with_its_tree(self, tmp_path: Path, linux: Path) -> None:
        cache = Cache(tmp_path / "cache")
        base = kernel.base(cache, linux)
        assert base.release == "6.12.8"
        assert base.bzimage.read_text() == "one\n"
        assert base.config.read_text() == kernel.FRAGMENT.read_text()
        assert kernel.base(cache, linux) == base
        assert self.built(cache) == 1
        with kernel.working(cache, base) as work:
            assert (work.source_dir / "arch" / "vmx.h").read_text() == "one\n"
            assert (work.build_dir / kernel.IMAGE).exists()
            (work.source_dir / "arch" / "vmx.h").write_text("patched\n")
        assert (base.pristine / "arch" / "vmx.h").read_text() == "one\n"

    def test_lost_tree_is_made_again_and_the_image_stays(self, tmp_path: Path, linux: Path) -> None:
        cache = Cache(tmp_path / "cache")
        base = kernel.base(cache, linux)
        shutil.rmtree(base.source_dir.parent)
        assert kernel.base(cache, linux) == base
        assert base.source_dir.is_dir()
        assert self.built(cache) == 2

    def test_another_configuration_is_another_base(
        self, tmp_path: Path, linux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = Cache(tmp_path / "cache")
        first = kernel.base(cache, linux)
        other = tmp_path / "fragment"
        other.write_text("CONFIG_KVM=m\n")
        monkeypatch.setattr(kernel, "FRAGMENT", other)
        second = kernel.base(cache, linux)
        assert second.bzimage != first.bzimage
        assert second.build_dir != first.build_dir

    def test_source_that_does_not_compile(self, tmp_path: Path, linux: Path) -> None:
        (linux / "arch" / "vmx.h").write_text("two\n")
        cache = Cache(tmp_path / "cache")
        with pytest.raises(CompileError, match=r"vmx\.h:1:1: error: not one"):
            kernel.base(cache, linux)
        assert not list(cache.root.glob("kernel/*"))
        assert not list(cache.root.glob("trees/*/base.json"))

    def test_symbols_that_the_kernel_has_not(self, tmp_path: Path, linux: Path) -> None:
        text = (linux / "Makefile").read_text()
        (linux / "Makefile").write_text(
            text.replace("@cp $(KCONFIG_ALLCONFIG)", "@grep -v CONFIG_E1000 $(KCONFIG_ALLCONFIG) >")
        )
        with pytest.raises(CompileError, match=r"did not take CONFIG_E1000=y \(is not set\)"):
            kernel.base(Cache(tmp_path / "cache"), linux)
