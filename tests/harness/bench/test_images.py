"""The workload and the counter built; the workload on the bare emulated CPU, and one variant counted on KVM (live)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bench import batch, images
from harness.bench.batch import Window
from harness.build import Cache, probe
from harness.cli import main as cli
from harness.observe import bare
from harness.observe.batch import Observation
from harness.process import programs
from harness.run import emulator
from kvmodel.machine.exits import Exit, Hypervisor, Mix, Vmcs, window
from tests.kvmodel.mirror import CPU

DONE, EXIT, SCAFFOLD = 1, 2, 8
EPT_VIOLATION, FETCH = 48, 4
LOAD_BASE = batch.CONSTANTS["LOAD_BASE"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def test_the_workload_is_an_image_that_loaders_take(built: Cache) -> None:
    path = images.workload(built)
    probe.check_multiboot(path.read_bytes())
    assert images.workload(built) == path


def test_the_probe_has_none_of_it(built: Cache) -> None:
    loop = b"\x0f\x05\x49\xff\xcc"  # SYSCALL, DEC R12
    assert loop in images.workload(built).read_bytes()
    assert loop not in probe.build(built).read_bytes()


@pytest.mark.parametrize(
    "words, told",
    [
        ((), "usage"),
        (("/nowhere", "1", "-1", "kvm:kvm_exit"), "/nowhere"),
        (("MEMORY", "1", "-1", "kvm"), "SYSTEM:EVENT"),
        (("MEMORY", "1", "-1", "kvm:no_such_event"), "the kernel has no event kvm:no_such_event"),
    ],
)
def test_the_counter_says_what_it_cannot_do(built: Cache, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    memory = tmp_path / "memory"
    with memory.open("wb") as file:
        file.truncate(64 << 20)
    asked = [str(memory) if word == "MEMORY" else word for word in words]
    done = programs.run([images.counter(built), *asked], check=False)
    assert done.returncode == 1 and told in done.stderr


@pytest.fixture(scope="module")
def on_bare_cpu() -> list[Observation]:
    cache = Cache()
    mix = Mix(40, fresh_every=5, load_every=8, hypercall_every=4, hypercalls=2)
    loading = Mix(12, load_every=4)
    asked = [
        Window(mix, gated=False),
        Window(mix, mbec=True, gated=False),
        Window(mix, bit10=True, gated=False),
        Window(loading, silent=True, gated=False),
        Window(loading, mbec=True, silent=True, gated=False),
        Window(mix, evmcs=True, gated=False),
    ]
    data = batch.pack(asked)
    return list(bare.run_batch(emulator.build(cache), images.workload(cache), data, timeout=120).observations)


@pytest.mark.live
def test_l2_makes_its_calls_and_l1_is_entered_as_often_as_the_mirror_says(on_bare_cpu: list[Observation]) -> None:
    mix = Mix(40, fresh_every=5, load_every=8, hypercall_every=4, hypercalls=2)
    for seen, l1, level in ((0, Hypervisor(False, Vmcs.PLAIN), 0), (1, Hypervisor(True, Vmcs.PLAIN), 18),
                            (2, Hypervisor(False, Vmcs.PLAIN, True), 0)):  # fmt: skip
        visits = sum(exit.to == "L1" for exit in window(level, True if level else None, CPU, l1, mix))
        o = on_bare_cpu[seen]
        assert (o.verdict, o.value, o.exits) == (DONE, 40, visits), l1


@pytest.mark.live
def test_code_that_l1_was_not_asked_about_is_not_run(on_bare_cpu: list[Observation]) -> None:
    for o in on_bare_cpu[3:5]:
        assert (o.verdict, o.reason, o.gpa, o.value) == (EXIT, EPT_VIOLATION, LOAD_BASE, 4)
        assert o.qualification & FETCH


@pytest.mark.live
def test_a_cpu_without_a_hypervisor_has_no_enlightened_vmcs(on_bare_cpu: list[Observation]) -> None:
    assert on_bare_cpu[5].verdict == SCAFFOLD


@pytest.mark.live
def test_one_variant_is_counted_on_kvm_and_is_as_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    words = "bench exits --levels 0 --variants software-evmcs --runs 2 --calls 20 --load-every 10 --no-curve"
    assert cli.main(words.split()) == 0
    text = capsys.readouterr().out
    assert "software-evmcs" in text and "the same" in text and "none" in text


@pytest.mark.live
def test_a_kernel_without_mbec_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    words = "bench exits --levels 0 --variants mbec-evmcs --runs 1 --calls 4 --no-curve"
    assert cli.main(words.split()) == 4
    told = capsys.readouterr().err
    assert "kvmirror: variant mbec-evmcs ran on none of the kernels: this kernel does not offer L1 MBEC" in told


def test_an_exit_is_named_by_its_guest() -> None:
    assert str(Exit("L2", "VMCALL", "L1")) == "L2 VMCALL to L1" and str(Exit("L1", "VMREAD")) == "L1 VMREAD"
