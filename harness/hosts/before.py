"""What a lab machine was before a run came, and how it becomes that again.

The way back is a shell script that lies on the machine from the beginning. The run itself starts it at its end, after
a failure and on Ctrl-C; where the run dies without a chance to, a shell there does, which waits for the end of the
connection.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.hosts.channel import CommandResult
from harness.hosts.transport import FILES

MODULES: Final = ("irqbypass", "kvm", "kvm_intel")  # in the order in which they are loaded
TRACING: Final = ("tracing_on", "buffer_size_kb")  # of tracefs: what a run changes there
BACK: Final = f"{FILES}/put-back"  # where the script waits
TAKEN: Final = f"{FILES}/putting-back"  # where it lies while it runs: whoever renames it runs it
RUN: Final = f"mv {BACK} {TAKEN} 2>/dev/null && exec sh {TAKEN}"
KEEPER: Final = f"sh -c {shlex.quote(f'cat >/dev/null; {RUN}')}"  # its standard input ends with the connection

Run = Callable[[str], CommandResult]

_LOOK: Final = (
    f"for m in {' '.join(MODULES)}; do [ -e /sys/module/$m/initstate ] || continue; echo module $m; "
    "grep -H . /sys/module/$m/parameters/* 2>/dev/null; done; "
    "echo boot $(cat /proc/sys/kernel/random/boot_id 2>/dev/null); "
    "echo huge $(cat /proc/sys/vm/nr_hugepages 2>/dev/null); "
    f"cd /sys/kernel/tracing 2>/dev/null && grep -H . {' '.join(TRACING)} 2>/dev/null; true"
)
_PARAMETER: Final = re.compile(r"/sys/module/(\w+)/parameters/(\w+):(.*)")


@dataclass(frozen=True, slots=True)
class Before:
    """These are KVM's modules that were loaded, each with its parameters; ``nr_hugepages``; tracefs's files by name."""

    modules: Mapping[str, Mapping[str, str]]
    huge_pages: int = 0
    tracing: Mapping[str, str] | None = None
    boot: str = ""  # the kernel's id of this boot: after another one there is nothing to put back

    @classmethod
    def of(cls, text: str) -> Before:
        """The function reads what ``_LOOK`` wrote."""
        modules: dict[str, dict[str, str]] = {}
        tracing: dict[str, str] = {}
        huge, boot = 0, ""
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if found := _PARAMETER.fullmatch(line):
                modules[found[1]][found[2]] = found[3]
            elif line.startswith("module "):
                modules[line.split()[1]] = {}
            elif line.startswith("huge "):
                huge = int(line.split()[1])
            elif line.startswith("boot "):
                boot = line.split()[1]
            elif name in TRACING and "expanded" not in value:  # not made yet: nothing to go back to
                tracing[name] = value
        return cls(modules, huge, tracing, boot)


def look(run: Run) -> Before:
    """The function tells what the machine is now; nothing is changed."""
    return Before.of(run(_LOOK).stdout)


def users(run: Run) -> list[str]:
    """The function tells who uses KVM there: processes, modules, else how many guests the kernel counts."""
    found = []
    told = run(
        "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -e '^/proc/' -e ' /dev/kvm$' -e 'anon_inode:.*kvm-'"
    ).stdout  # a folder's name, and behind it what in it is KVM's
    process = ""
    for line in told.splitlines():
        if line.startswith("/proc/"):
            process = line.split("/")[2]
        elif process:
            name = run(f"cat /proc/{process}/comm").stdout.strip()
            found.append(f"process {process} ({name or 'gone'})")
            process = ""
    held = run("ls /sys/module/irqbypass/holders /sys/module/kvm/holders /sys/module/kvm_intel/holders 2>/dev/null")
    found += [f"module {name}" for name in held.stdout.split() if "/" not in name and name not in MODULES]
    count = run("cat /sys/module/kvm_intel/refcnt 2>/dev/null").stdout.strip() or "0"
    return found if found or count == "0" else [f"{count} by the kernel's count"]


def not_to_be_found(run: Run, before: Before) -> list[str]:
    """The loaded modules that could not be loaded again: those that depmod's list does not have."""
    listed = run("cat /lib/modules/$(uname -r)/modules.dep 2>/dev/null").stdout
    names = {re.sub(r"\.ko.*", "", line.split(":")[0]).rsplit("/", 1)[-1].replace("-", "_")
             for line in listed.splitlines()}  # fmt: skip
    return [name for name in before.modules if name not in names]


def script(before: Before, sent: Iterable[str] = (), root: str = "") -> str:
    """The way back: what it cannot put back it writes, a line each. ``root`` stands before every path, for a test."""
    loading = "; ".join(f"modprobe {name} $again_{name} || say {name} cannot be loaded" for name in before.modules)
    wanted = [
        f"want {module} {name} {shlex.quote(value)}"
        for module, parameters in before.modules.items()
        for name, value in parameters.items()
        if value != "(null)"
    ]
    tracing = [f"echo {value} >$R/sys/kernel/tracing/{name}" for name, value in (before.tracing or {}).items()]
    remove = shlex.join(sorted({f"{root}{FILES}", *(f"{root}{path}" for path in sent)}))
    return f"""\
#!/bin/sh
# Makes this machine what it was before kvmirror came.
export PATH=$PATH:/usr/sbin:/sbin
R={shlex.quote(root)}
say() {{ echo "$*"; }}
if [ "$(cat $R/proc/sys/kernel/random/boot_id 2>/dev/null)" != "{before.boot}" ]; then
	rm -rf {remove}
	exit 0
fi
# Ours: whatever was started from our files, or has L1's memory.
for f in $(grep -l -e /tmp/[k]vm -e /dev/shm/[k]vmirror -e /mnt/[k]vmirror $R/proc/[0-9]*/cmdline 2>/dev/null); do
	p=${{f%/cmdline}}; p=${{p##*/}}
	[ $p = $$ ] || kill -9 $p 2>/dev/null
done
i=0
while [ $i -lt 50 ] && [ "$(cat $R/sys/module/kvm_intel/refcnt 2>/dev/null || echo 0)" != 0 ]; do
	sleep 0.1; i=$((i + 1))
done
unload() {{
	for m in kvm_intel kvm irqbypass; do
		[ ! -e $R/sys/module/$m/initstate ] || rmmod $m || say $m cannot be removed
	done
}}
load() {{ {loading or ":"}; }}
want() {{
	f=$R/sys/module/$1/parameters/$2
	[ "$(cat $f 2>/dev/null)" != "$3" ] || return 0
	echo "$3" 2>/dev/null >$f
	[ "$(cat $f 2>/dev/null)" != "$3" ] || return 0
	wrong="$wrong $1.$2"
	eval "again_$1=\\"\\$again_$1 $2=$3\\""
}}
parameters() {{
	wrong=
{chr(10).join(f"{chr(9)}{line}" for line in wanted) or f"{chr(9)}:"}
}}
unload
load
parameters
# What cannot be written later is given when the module is loaded.
if [ -n "$wrong" ]; then
	unload
	load
	parameters
	[ -z "$wrong" ] || say these parameters are not what they were: $wrong
fi
for m in $(grep -o ' /mnt/kvmirror[^ ]*' $R/proc/mounts 2>/dev/null); do umount $m; rmdir $m; done
rm -rf $R/dev/shm/kvmirror-* $R/tmp/kvmclient
echo {before.huge_pages} 2>/dev/null >$R/proc/sys/vm/nr_hugepages
[ "$(cat $R/proc/sys/vm/nr_hugepages)" = {before.huge_pages} ] || say nr_hugepages is not {before.huge_pages}
if cd $R/sys/kernel/tracing 2>/dev/null; then
	echo 0 >tracing_on; echo 0 >events/enable; echo >trace
	cd /
fi
{chr(10).join(tracing)}
rm -rf {remove}
"""
