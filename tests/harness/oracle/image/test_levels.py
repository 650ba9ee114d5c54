"""The real thing: images of the first and the last level, and the pinned source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.build import kernel
from harness.build.cache import Cache
from harness.oracle.check import constants, reach
from harness.oracle.check.check import Checker
from harness.oracle.image import levels
from harness.oracle.image.worker import Image, ImageWorker
from harness.oracle.specs.catalogue import SPECS
from harness.oracle.specs.spaces import flat
from harness.oracle.specs.spec import State
from harness.series import folder
from kvmodel.series import LAST, Level

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def found() -> dict[int, Path]:
    return levels.levels(Cache(), folder.read(), [0, LAST])


def test_mirror_and_c_agree(found: dict[int, Path]) -> None:
    with Checker(found, 2_000) as checker:
        for spec in SPECS:
            outcome = checker.run(spec)
            assert not outcome.mismatches, str(outcome.shown[0])
            assert outcome.cases or not spec.applies(Level.of(0))


@pytest.mark.parametrize("level", [0, LAST])
def test_constants_agree(found: dict[int, Path], level: int) -> None:
    with ImageWorker(Image(found[level])) as worker:
        same, wrong = constants.compare(Level.of(level), worker.image.constants(worker))
    assert not wrong
    assert same > 300


def test_no_set_up_warns_and_the_kernel_s_own_warning_is_named(found: dict[int, Path]) -> None:
    with ImageWorker(Image(found[0])) as worker:
        for entry, row in State().calls():
            assert not worker.call(entry, flat([tuple(map(int, row))])).events, entry
        nothing_allowed = worker.call("make_spte", flat([(1, *[0] * 13)]))
    (event,) = nothing_allowed.events[0]
    assert event.function == "make_spte"
    assert event.what.startswith("arch/x86/kvm/mmu/spte.c:")


def test_every_mirrored_function_is_in_the_source() -> None:
    cache = Cache()
    series = folder.read()
    pristine = kernel.source(cache)
    state = folder.level_state(series, pristine, LAST)
    missing = []
    for name in reach.mirrored():
        file, function = name.split(" ")
        roots = ("arch/x86/kvm", "arch/x86", "arch/x86/kvm/mmu", "arch/x86/include", "arch/x86/include/uapi", "")
        texts = []
        for path in (f"{root}/{file}".removeprefix("/") for root in roots):
            data = state.get(path)
            if data is not None:
                texts.append(data.decode())
            elif (pristine / path).is_file():
                texts.append((pristine / path).read_text(encoding="utf-8"))
        plain = function.removeprefix("ept_")
        if not any(re.search(rf"\b{re.escape(n)}\b", text) for text in texts for n in (function, plain)):
            missing.append(name)
    assert not missing
