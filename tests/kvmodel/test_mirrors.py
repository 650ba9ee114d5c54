"""The registry of what is mirrored: each function in its room, nothing of the mirror outside it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import kvmodel
from kvmodel import mirrors
from kvmodel.mirrors import Mirror

REGISTRY = mirrors.registry()
FOLDER = Path(next(iter(kvmodel.__path__)))


def doc(module: str) -> str:
    """What a module of the mirror says of itself."""
    return (importlib.import_module(f"kvmodel.{module}").__doc__ or "").strip()


@pytest.mark.parametrize("mirror", REGISTRY.values(), ids=lambda m: f"{m.module}.{m.name}")
def test_a_function_is_in_the_room_of_its_c_file(mirror: Mirror) -> None:
    room = mirrors.room(mirror.file)
    if mirror.file.endswith(".h"):
        assert mirror.module in {room, f"{room}_h"}
    else:
        assert mirror.module == room or mirror.module.startswith(f"{room}_")
    assert doc(mirror.module).startswith(mirrors.kernel_path(mirror.file))
    assert getattr(importlib.import_module(f"kvmodel.{mirror.module}"), mirror.name).__doc__


def test_a_header_has_its_own_name_unless_it_is_taken() -> None:
    """``P_h.py`` where the kernel has ``P.c`` or a folder ``P`` beside ``P.h``, else ``P.py``."""
    files = {m.file for m in REGISTRY.values()}
    sources = {file.removesuffix(".c") for file in files if file.endswith(".c")} | {"vmx/hyperv_evmcs", "mmu/tdp_iter"}
    folders = {file.rpartition("/")[0] for file in files}
    for mirror in REGISTRY.values():
        if mirror.file.endswith(".h"):
            stem = mirror.file.removesuffix(".h")
            assert mirror.module.endswith("_h") is (stem in sources or stem in folders), mirror.file


def test_the_parts_of_a_file_are_listed_in_it() -> None:
    """A part says by its first word which C file it is of: the one of the module that has the plain name."""
    first = {name: re.split("[: ]", doc(name))[0] for name in mirrors.modules()}
    parts = [(name, whole) for name in first for whole in first if name.startswith(f"{whole}_")]
    of_one_file = [(name, whole) for name, whole in parts if first[name] == first[whole]]
    assert len(of_one_file) == 10
    for name, whole in of_one_file:
        assert f"``{name.rpartition('.')[2]}``" in doc(whole), f"{whole} does not list its part {name}"


def test_the_contract_of_imports_names_all_of_the_mirror() -> None:
    rules = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    named = {rule["id"]: rule for rule in rules["contracts"]}
    mirror = {f"kvmodel.{name.partition('.')[0]}" for name in mirrors.modules()}
    mirror -= {f"kvmodel.{name}" for name in ("bits", "cpu", "series")}  # what mirror and contract share
    assert mirror == set(named["mirror"]["source_modules"]) == set(named["contract"]["forbidden_modules"])


def test_the_names_of_the_design_stay() -> None:
    for name in ("vmx.vmx", "vmx.capabilities", "mmu.spte", "mmu.tdp_mmu", "vmx.nested", "vmx.hyperv"):
        assert name in set(mirrors.modules())


def test_a_decorated_function_is_the_function_itself() -> None:
    def plain() -> None: ...

    assert mirrors.mirrors("mmu/spte.c nothing")(plain) is plain
    del mirrors._REGISTRY[__name__, plain.__qualname__]


def gates(mirror: Mirror) -> set[int]:
    """The patches that a function asks for."""
    function = getattr(importlib.import_module(f"kvmodel.{mirror.module}"), mirror.name)
    return {
        node.args[0].value
        for node in ast.walk(ast.parse(inspect.getsource(function)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "has"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, int)
    }


@pytest.mark.parametrize("mirror", REGISTRY.values(), ids=lambda m: f"{m.module}.{m.name}")
def test_a_patch_that_is_asked_for_is_declared(mirror: Mirror) -> None:
    assert gates(mirror) <= set(mirror.patches)
    assert list(mirror.patches) == sorted(mirror.patches)


def test_where_a_file_is() -> None:
    make_spte = mirrors.of("kvmodel.mmu.spte", "make_spte")
    assert (make_spte.c, make_spte.file, make_spte.function) == ("mmu/spte.c make_spte", "mmu/spte.c", "make_spte")
    assert mirrors.kernel_path("mmu/spte.c") == "arch/x86/kvm/mmu/spte.c"
    assert mirrors.kernel_path("asm/vmx.h") == "arch/x86/include/asm/vmx.h"
    assert mirrors.kernel_path("virt/kvm/kvm_main.c") == "virt/kvm/kvm_main.c"
    assert mirrors.room("virt/kvm/kvm_main.c") == "virt.kvm_main"
    assert mirrors.room("asm/hyperv-tlfs.h") == "include.asm.hyperv_tlfs"
