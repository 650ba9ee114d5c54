"""What MBEC costs and saves: VM exits of an L1 that guards its L2's kernel code, counted on hosts and predicted."""

from harness.bench import batch, images, measure, page, pictures, table
from harness.bench.measure import Plan, Programs
from harness.bench.result import Result, as_json
from harness.bench.variants import VARIANTS, Kernel, named

__all__ = [
    "VARIANTS",
    "Kernel",
    "Plan",
    "Programs",
    "Result",
    "as_json",
    "batch",
    "images",
    "measure",
    "named",
    "page",
    "pictures",
    "table",
]
