"""What an answer of the emulated host rests on: whatever, were it another, might make it another answer.

Each part is a hash or a text. Two answers to one vector whose parts are all the same are of the same experiment.
The vector itself, whose id says all of its state, is no part. On a lab machine firmware and microcode cannot be
hashed from here: no answer of one has a basis.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Final

from harness import places
from harness.build import rootfs, sha256
from harness.hosts import BIOS, BOARD, VGABIOS, Board, Model, models
from harness.observe import arguments, module_options
from harness.protocol import L1_MEMORY
from harness.questions import Load
from kvmodel.question.vector import Machine

# Ours that puts questions to the host and reads its answers: modules and packages, as their code is.
OBSERVER: Final = ("harness/protocol.py", "harness/hosts", "harness/observe", "kvmodel/question")
# Ours that says what mirror and contract say of an answer, and what their difference is called.
JUDGES: Final = ("kvmodel", "harness/results", "harness/run/judge.py", "harness/run/sharing.py")
STARTED_BY: Final = ("bochsrc.j2", "isolinux.cfg.j2")  # under images/bochs: what a host is switched on with


class Basis:
    """The parts of one run: ``code`` gives the machine code of a level's modules, the rest are files."""

    def __init__(
        self,
        *,
        code: Callable[[int], str],
        image: Path,
        emulator: Path,
        file_system: Path,
        qemu: str,
        probe: Path,
        client: Path,
        model: Model = models.USUAL,
        board: Board = BOARD,
    ) -> None:
        self._code = code
        self._model = model
        self._board = board
        self._files = {
            "kernel image": sha256(image),
            "emulator": sha256(emulator),
            "firmware": _digest((sha256(BIOS), sha256(VGABIOS))),
            "file system": sha256(file_system),
            "probe": sha256(probe),
            "client": sha256(client),
        }
        started = [(places.IMAGES / "bochs" / name).read_text(encoding="utf-8") for name in STARTED_BY]
        self._files |= {
            "QEMU": qemu,
            "host": _digest((*started, rootfs.COMMAND_LINE)),
            "observer": observer(places.PACKAGES),
        }

    def parts(self, load: Load, guest: Machine | None) -> dict[str, str]:
        """The function gives what answers of ``load`` rest on: of an L1 on ``guest``, or of the host itself where that
        is None.
        """
        words = module_options(load.setting, load.env)
        said = [] if guest is None else self._arguments(guest)
        return self._files | {
            "modules": self._code(load.level),
            "parameters": f"kvm {words.kvm}; kvm_intel {words.kvm_intel}",
            "environment": json.dumps(asdict(load.env), sort_keys=True),
            "CPU": (self._model if load.env.cpu_mbec else models.WITHOUT_MBEC).emulated_as,
            "QEMU's arguments": " ".join(said),
        }

    def _arguments(self, guest: Machine) -> list[str]:
        return arguments(guest, kernel="probe.elf", memory=L1_MEMORY, serial="l1-serial", board=self._board)

    def text(self, load: Load, guest: Machine | None) -> str:
        """``parts`` as the journal keeps it: equal texts are equal parts."""
        return json.dumps(self.parts(load, guest), sort_keys=True)


def other_parts(one: str, two: str) -> list[str]:
    """The function gives the names of the parts in which two texts of ``Basis.text`` differ."""
    a, b = json.loads(one), json.loads(two)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


@lru_cache(maxsize=4)
def observer(packages: Path) -> str:
    """The hash is of the OBSERVER's code under ``packages``; comments, docstrings and layout play no part."""
    return _digest(
        text for file in _files(packages, OBSERVER) for text in (str(file.relative_to(packages)), _code_of(file))
    )


@lru_cache(maxsize=4)
def judges(packages: Path) -> str:
    """The hash is of the JUDGES under ``packages``, comments and all: an answer is judged anew in a moment."""
    files = _files(packages, JUDGES)
    return _digest(text for file in files for text in (str(file.relative_to(packages)), sha256(file)))


def _files(packages: Path, names: Iterable[str]) -> list[Path]:
    """The Python files of modules and packages under ``packages``."""
    roots = (packages / name for name in names)
    return [file for root in roots for file in (sorted(root.rglob("*.py")) if root.is_dir() else [root])]


def _code_of(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            assert isinstance(body, list)
            del body[0]
    return ast.dump(tree)


def _digest(texts: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for text in texts:
        data = text.encode()
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()
