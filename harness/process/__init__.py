"""Other programs: the only place of the harness that starts them, ends them, and shows what they are at."""

from harness.process import parallel, programs, table
from harness.process.parallel import side_by_side
from harness.process.progress import PROGRESS, Progress, Task, escaped, seen

__all__ = [
    "PROGRESS",
    "Progress",
    "Task",
    "escaped",
    "parallel",
    "programs",
    "seen",
    "side_by_side",
    "table",
]
