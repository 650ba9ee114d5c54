"""The command lines of docs/recipes.md: QEMU of the build cache takes each, and KVM of the last level its CPU.

No guest runs: firmware, disk and virtual TPM are empty, and QEMU is told to stop before the first instruction.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.build import debs, rootfs
from harness.build.cache import Cache
from harness.hosts import Parameters
from harness.process import programs
from harness.questions.parameters import OWN
from harness.run.setup import Bench

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "recipes.md").read_text()
FLASH = {"OVMF_CODE_4M.ms.fd": 3653632, "win11_VARS.fd": 540672, "server_VARS.fd": 540672}  # bytes, as ovmf has them


def lines(program: str) -> list[list[str]]:
    """Every line of the page that starts a program, as words."""
    text = PAGE.replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith(f"{program} ")]


GUESTS = lines("qemu-system-x86_64")


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """QEMU of the build cache, with its own loader, libraries and firmware: nothing of it is installed."""
    root = tmp_path_factory.mktemp("qemu")
    debs.unpack([deb.path for deb in rootfs.packages(Cache())], root)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    data = [word for folder in ("qemu", "seabios") for word in ("-L", str(root / "usr/share" / folder))]
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(root / rootfs.QEMU), *data]


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[None]:
    """The page's virtual TPM."""
    (line,) = lines("swtpm")
    (tmp_path / "tpm").mkdir()
    with programs.spawn([word for word in line if word != "--daemon"], cwd=tmp_path):
        deadline = time.monotonic() + 30
        while not (tmp_path / "tpm" / "socket").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield


def empty(words: list[str], folder: Path) -> None:
    """Whatever a line's drives name, without contents."""
    for name in re.findall(r"file=(\S+)", " ".join(words)):
        if name in FLASH:
            (folder / name).write_bytes(b"\0" * FLASH[name])
        else:
            with (folder / name).open("wb") as disk:
                disk.truncate(1 << 20)


def test_there_is_a_line_for_each_guest_that_the_cover_names() -> None:
    assert len(GUESTS) == 3
    evmcs = ["hv-evmcs" in option(words, "-cpu") for words in GUESTS]
    assert evmcs == [True, False, True]
    for words in GUESTS:
        cpu = option(words, "-cpu").split(",")
        assert cpu[:3] == ["host", "+vmx", "+vmx-mbec"]
        assert len(set(cpu)) == len(cpu)
        assert {"hv-emsr-bitmap", "hv-tlbflush-direct"} <= set(cpu) or "hv-evmcs" not in cpu
    on, off = (set(option(words, "-cpu").split(",")) for words in GUESTS[:2])
    assert on - off == {"hv-evmcs", "hv-emsr-bitmap", "hv-tlbflush-direct"} and not off - on


@pytest.mark.live
@pytest.mark.usefixtures("tpm")
@pytest.mark.parametrize("words", GUESTS, ids=[f"{option(w, '-name')}-{n}" for n, w in enumerate(GUESTS)])
def test_qemu_takes_the_line(words: list[str], qemu: list[str], tmp_path: Path) -> None:
    """But for what this machine lacks: KVM. The CPU is then QEMU's own with the same properties."""
    empty(words, tmp_path)
    asked = [*qemu, *words[1:]]
    asked[asked.index("-accel") + 1] = "tcg"
    asked[asked.index("-m") + 1] = "256M"
    asked[asked.index("-display") + 1] = "none"
    cpu = asked.index("-cpu") + 1
    asked[cpu] = asked[cpu].replace("host,", "max,")
    asked = [word.replace("format=qcow2", "format=raw").replace("127.0.0.1:2222", "127.0.0.1:0") for word in asked]
    with subprocess.Popen(
        [*asked, "-S", "-monitor", "stdio"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        said, complained = process.communicate("info status\nquit\n", 120)
    assert process.returncode == 0, complained
    assert "VM status: paused" in said
    assert [line for line in complained.splitlines() if "vmx" not in line] == []  # which TCG has not


@pytest.mark.live
def test_a_property_that_is_none_is_refused(qemu: list[str]) -> None:
    """The test above would notice a misspelt one."""
    done = programs.run(
        [*qemu, "-accel", "tcg", "-machine", "q35", "-cpu", "max,+vmx-mbce", "-S", "-display", "none"], check=False
    )
    assert done.returncode and "vmx-mbce" in done.stderr


@pytest.mark.live
def test_kvm_of_the_last_level_takes_each_cpu() -> None:
    """On the emulated host: nothing that the page asks of KVM is refused; without the parameter the control is."""
    bench = Bench(Cache(), emulator=None, mended=True, linux=None, series=None)
    bench.build([bench.series.last])
    start = "-machine q35 -accel kvm -m 64M -display none -vga none -nodefaults -S -bios qboot.rom -monitor stdio"
    with bench.open_host(True, "recipes") as host:
        modules = bench.modules(bench.series.last)
        for value in ("1", "0"):
            host.load(modules, Parameters(((OWN.module, OWN.name, value),)))
            for words in GUESTS:
                cpu = option(words, "-cpu")
                done = host.run(
                    f"qemu-system-x86_64 {start} -cpu {cpu},enforce", input=b"info status\nquit\n", timeout=120
                )
                if value == "1":
                    assert done.status == 0 and "paused" in done.stdout, done.stderr
                    assert "warning" not in done.stderr
                else:
                    assert done.status and "vmx-mbec" in done.stderr, done.stderr
