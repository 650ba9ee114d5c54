"""What a load names must be in the modules as built: the kernel itself takes an unknown parameter in silence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.errors import InputError
from harness.hosts import ModuleFiles
from harness.questions import Setting
from harness.run import having

BUILT = {"kvm.ko": {"mode": "charp"}, "kvm-intel.ko": {"mbec": "bool", "ple_gap": "uint"}}
FILES = cast(ModuleFiles, SimpleNamespace(kvm=Path("kvm.ko"), kvm_intel=Path("kvm-intel.ko")))


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(having, "types", lambda module: BUILT[module.name])


@pytest.mark.parametrize(
    "text", ["unset", "kvm_intel.mbec=0", "kvm_intel.mbec=Y", "kvm.mode=fast,kvm_intel.ple_gap=0x80"]
)
def test_what_the_modules_have_is_taken(text: str) -> None:
    having.check(Setting.parse(text), FILES, "level 3")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1", "level 3 has no parameter kvm.enable_pt_guest_exec_control: kvm.ko has mode"),
        ("kvm.mbec=0", "kvm.ko has mode"),
        ("kvm_intel.mbec=2", "kvm_intel.mbec is a bool and does not take '2'"),
        ("kvm_intel.ple_gap=much", "is a uint and does not take 'much'"),
    ],
)
def test_what_they_have_not_is_refused(text: str, why: str) -> None:
    with pytest.raises(InputError) as refused:
        having.check(Setting.parse(text), FILES, "level 3")
    assert why in str(refused.value)
