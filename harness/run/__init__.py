"""A run: what it needs, who asks which host what, and the three voices side by side."""

from harness.run import bare, leave_out, minimise_on_hosts
from harness.run.book import finished
from harness.run.done import LOG, Done, Part, beside, machine_name
from harness.run.earlier import CPU, Earlier
from harness.run.foresee import Named, foresee
from harness.run.judge import Voices
from harness.run.sample import huge_pages
from harness.run.setup import Bench
from harness.run.workers import Options, ask, costs, execute

__all__ = [
    "CPU",
    "LOG",
    "Bench",
    "Done",
    "Earlier",
    "Named",
    "Options",
    "Part",
    "Voices",
    "ask",
    "bare",
    "beside",
    "costs",
    "execute",
    "finished",
    "foresee",
    "huge_pages",
    "leave_out",
    "machine_name",
    "minimise_on_hosts",
]
