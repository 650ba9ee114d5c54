"""Whether the modules of a level have the parameters that a load gives them: their own .modinfo says.

The kernel takes a parameter that a module does not have with a line in its log and no error, so that a run with a
name that is wrong would be a run of something else.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.hosts import ModuleFiles
from harness.questions import Setting
from harness.review import identity

_BOOL: Final = re.compile(r"[01yYnNtTfF]|on|off|On|Off|ON|OFF")
_NUMBER: Final = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)")
_FORMS: Final = {
    **dict.fromkeys(("bool", "invbool", "bint"), _BOOL),
    **dict.fromkeys(("byte", "hexint", "short", "ushort", "int", "uint", "long", "ulong", "ullong"), _NUMBER),
}


@lru_cache(maxsize=256)
def types(module: Path) -> dict[str, str]:
    """The function gives the module's parameters with the kernel's words for their types, as ``modinfo -p``
    lists them.
    """
    return identity.Module(module).parameters


def check(setting: Setting, modules: ModuleFiles, where: str) -> None:
    """InputError where ``modules`` do not have a parameter of ``setting``, or its type does not take the value."""
    files = {"kvm": modules.kvm, "kvm_intel": modules.kvm_intel}
    for module, name, value in setting.words:
        known = types(files[module])
        if name not in known:
            raise InputError(
                f"{where} has no parameter {module}.{name}: {files[module].name} has {', '.join(sorted(known))}; "
                "mend --param, or first_level and last_level of [[parameter]] in series.toml"
            )
        form = _FORMS.get(known[name])
        if form is not None and not form.fullmatch(value):
            raise InputError(f"{where}: {module}.{name} is a {known[name]} and does not take {value!r}: mend --param")
