"""Needs of a configuration: which way a kernel takes, and what is said of what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.build import needs
from harness.build.needs import Need
from harness.errors import BuildError

PREEMPT = Need("preemption", "time", (("PREEMPT_NONE=y",), ("PREEMPT_LAZY=y",)), "it is slower", required=False)
SYSCTL = Need("sysctl", "huge pages", (("PROC_FS=y", "PROC_SYSCTL=y"), ("PROC_FS=y", "SYSCTL=y")), "huge pages")
KVM = Need("kvm", "all", (("KVM=m", "SMP=n"),), "nothing runs")
IOAPIC = Need("ioapic", "L1", (("KVM_IOAPIC=y",),), "no L1 runs", where_known=True)
ALL = (PREEMPT, SYSCTL, KVM, IOAPIC)


def kconfig(*takes: str) -> Callable[[str], str]:
    """A kernel that takes the settings ``takes`` where it is asked for them, as Kconfig writes them down."""

    def configure(fragment: str) -> str:
        wanted = set(fragment.splitlines())
        return "".join(f"{line}\n" for line in map(needs.line, takes) if line in wanted)

    return configure


OLD = ("PREEMPT_NONE=y", "PROC_FS=y", "PROC_SYSCTL=y", "KVM=m", "SMP=n")
NEW = ("PREEMPT_LAZY=y", "PROC_FS=y", "SYSCTL=y", "KVM=m", "SMP=n", "KVM_IOAPIC=y")


def symbols(*settings: str) -> set[str]:
    return {setting.partition("=")[0] for setting in settings}


def test_the_first_way_is_taken_where_the_kernel_takes_it() -> None:
    settled = needs.settle(ALL, symbols(*OLD), kconfig(*OLD))
    assert settled.lost == () and settled.other_ways == {}
    assert settled.fragment == needs.plain(ALL)
    assert settled.fragment.splitlines() == [
        "CONFIG_PREEMPT_NONE=y", "CONFIG_PROC_FS=y", "CONFIG_PROC_SYSCTL=y", "CONFIG_KVM=m", "# CONFIG_SMP is not set",
    ]  # fmt: skip


def test_another_kernel_goes_another_way_and_needs_what_only_it_has() -> None:
    settled = needs.settle(ALL, symbols(*NEW), kconfig(*NEW))
    assert settled.lost == ()
    assert settled.other_ways == {"preemption": ("PREEMPT_LAZY=y",), "sysctl": ("PROC_FS=y", "SYSCTL=y")}
    assert "CONFIG_KVM_IOAPIC=y" in settled.fragment and "PREEMPT_NONE" not in settled.fragment


def test_what_no_way_brings_is_lost_with_its_reason() -> None:
    takes = ("PROC_FS=y", "SYSCTL=y", "KVM=m", "SMP=n")
    settled = needs.settle(ALL, symbols(*takes, "PREEMPT_NONE=y", "KVM_IOAPIC=y"), kconfig(*takes))
    assert [lost.need for lost in settled.lost] == [PREEMPT, IOAPIC]
    assert settled.lost[0].settings == (
        "CONFIG_PREEMPT_NONE=y is n, something that it depends on is missing",
        "CONFIG_PREEMPT_LAZY=y is n, this kernel has no such symbol",
    )
    assert str(settled.lost[1]).startswith("ioapic (CONFIG_KVM_IOAPIC=y is n, something") and (
        str(settled.lost[1]).endswith("): no L1 runs")
    )


def test_a_word_more_in_a_reason_is_the_same_build_and_another_way_is_not() -> None:
    worded = (replace(PREEMPT, why="emulated time", without="each run takes longer"), *ALL[1:])
    assert needs.key(worded) == needs.key(ALL)
    assert needs.key((replace(PREEMPT, ways=PREEMPT.ways[:1]), *ALL[1:])) != needs.key(ALL)


def test_a_setting_that_came_out_otherwise_is_not_taken() -> None:
    config = "CONFIG_KVM=y\nCONFIG_SMP=y\n# CONFIG_A is not set\n"
    assert needs.untaken(("KVM=m", "SMP=n", "A=n", "B=n"), config) == ("CONFIG_KVM=m is y", "CONFIG_SMP=n is y")


def test_the_symbols_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text("config KVM_OTHER\n\nmenuconfig KVM\n\tbool\n# config NOT_THIS\n")
    (tmp_path / "fs" / "proc").mkdir(parents=True)
    (tmp_path / "fs" / "proc" / "Kconfig.x").write_text("\tdepends on SMP\nconfig SYSCTL\n")
    assert needs.known(tmp_path, {"KVM", "SYSCTL", "SMP", "NOT_THIS"}) == {"KVM", "SYSCTL"}


class TestFile:
    """images/kernel/needs.toml."""

    def test_each_need_says_what_falls_away(self) -> None:
        wanted = needs.read()
        assert all(need.why and need.without for need in wanted)
        assert len({need.name for need in wanted}) == len(wanted)

    def test_no_symbol_is_wanted_twice_with_two_values(self) -> None:
        seen: dict[str, set[str]] = {}
        for need in needs.read():
            for way in need.ways:
                for setting in way:
                    name, value = setting.split("=")
                    seen.setdefault(name, set()).add(value)
        assert {name: values for name, values in seen.items() if len(values) > 1} == {}

    def test_what_the_harness_rests_on(self) -> None:
        lines = needs.plain(needs.read()).splitlines()
        assert {"CONFIG_KVM=m", "CONFIG_KVM_INTEL=m", "# CONFIG_MODVERSIONS is not set", "CONFIG_E1000=y"} <= set(lines)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('name = "x"\nwhy = ""\nways = [["KVM=m"]]', "need 'x': the key 'without' is missing"),
            ('name = "x"\nwhy = ""\nwithout = ""\nways = [["CONFIG_KVM"]]', "need 'x': 'CONFIG_KVM' is no setting"),
            ('name = "x"\nwhy = ""\nwithout = ""\nways = []\nwhen = 1', "the key 'when' is unknown"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "needs.toml").write_text(f"[[need]]\n{text}\n")
        with pytest.raises(BuildError, match=said):
            needs.read(tmp_path / "needs.toml")
