"""A pytest plugin: what was skipped stands in the last lines, and fails a run in continuous integration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Runs round pytest's own summary, so after its last line. A worker has no terminal and says nothing."""
    yield
    terminal: Any = session.config.pluginmanager.getplugin("terminalreporter")
    skipped = terminal.stats.get("skipped", []) if terminal else []
    if not skipped:
        return
    for report in skipped:
        _, _, reason = report.longrepr
        terminal.write_line(f"skipped: {report.nodeid}: {reason.removeprefix('Skipped: ')}")
    end = f"{len(skipped)} skipped"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        end += ": with CI=true nothing may be skipped, so this run has failed"
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    terminal.write_line(end)
