"""The vectors asked on a host with instrumented modules, and what these counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.coverage.build import Instrumented
from harness.coverage.counters import Counters
from harness.coverage.session import CountingSession
from harness.errors import HostError
from harness.questions import Work
from harness.run import Bench, Options, ask
from kvmodel.question.outcome import Kind


@dataclass(slots=True)
class Counted:
    """The record has what all loads counted, and how many vectors were asked, blocked and left out as the same
    experiment again.
    """

    setup: Counters = field(default_factory=dict)
    vectors: Counters = field(default_factory=dict)
    loads: int = 0
    asked: int = 0
    blocked: int = 0
    merged: int = 0


def collect(
    bench: Bench, works: list[Work], options: Options, modules: Instrumented, advance: Callable[[int], None]
) -> Counted:
    """The ``works`` are asked, one host at a time.

    Raises HostError when a host dies of the same load twice.
    """
    counted = Counted()
    todo = list(works)
    deaths = 0
    while todo:
        cpu_mbec = todo[0].load.env.cpu_mbec
        try:
            with bench.open_host(cpu_mbec, "emulated host") as host:
                session = CountingSession(host, modules, bench.client, bench.probe, counted.setup, counted.vectors)
                while todo and todo[0].load.env.cpu_mbec is cpu_mbec:
                    done = ask(session, todo[0], options)
                    session.count()
                    deaths = 0
                    outcomes = [o for batch in done.batches.values() for o in batch.seen.outcomes]
                    blocked = sum(o.kind is Kind.BLOCKED for o in outcomes)
                    counted.loads += 1
                    counted.asked += len(outcomes) - blocked
                    counted.blocked += blocked
                    counted.merged += sum(done.collapsed.values())
                    advance(todo.pop(0).size)
        except HostError:
            deaths += 1
            if deaths > 1:
                raise
    return counted
