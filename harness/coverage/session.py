"""A session whose modules count what they run: what loading them runs apart from what the vectors run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.coverage import counters
from harness.coverage.build import MODULE, Instrumented
from harness.coverage.counters import Counters
from harness.hosts import Host
from harness.observe import Session
from harness.questions import Load

FILE: Final = f"/sys/kernel/debug/{MODULE}"


class CountingSession(Session):
    """Loads instrumented modules and adds their counters to ``setup`` and ``vectors``, whenever they are removed."""

    def __init__(
        self, host: Host, modules: Instrumented, client: Path, probe: Path, setup: Counters, vectors: Counters
    ) -> None:
        super().__init__(host, lambda _: modules, client, probe)
        self._setup, self._vectors = setup, vectors
        self._at_load: Counters = {}
        host.unload()
        host.run(f"insmod {host.deliver(modules.coverage)}", check=True)

    def load(self, load: Load) -> None:
        """As a session's; what ran up to its end is set-up: loading, and reading what KVM offers."""
        self.count()
        super().load(load)
        self._at_load = self._read()

    def count(self) -> None:
        """The modules are removed, and what they counted since they were loaded is added. Nothing happens where none
        are loaded. Nothing where none are loaded.
        """
        if not self._at_load:
            return
        before = self._read()
        self._host.unload()
        after = self._read()
        self._host.run(f"echo >{FILE}", check=True)
        counters.add(self._vectors, before)
        counters.add(self._vectors, self._at_load, -1)
        counters.add(self._setup, self._at_load)
        counters.add(self._setup, after)
        counters.add(self._setup, before, -1)
        self._at_load = {}

    def _read(self) -> Counters:
        return counters.parse(self._host.get(FILE))
