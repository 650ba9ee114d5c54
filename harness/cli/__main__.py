"""``python -m harness.cli`` is ``kvmirror``."""

import sys

from harness.cli.main import main

sys.exit(main())
