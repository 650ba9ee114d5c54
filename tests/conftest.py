"""What the live tests need is built before the first of them, in sight: on an empty cache that takes half an hour."""

import signal
from pathlib import Path

import pytest

from harness.build import kernel
from harness.build.cache import Cache
from harness.coverage import build
from harness.run.setup import Bench
from tests import skips

LIVE_LEVELS = (0, 12, 18)  # of test_end_to_end.py

# A shell starts what it puts in the background, as a pipeline may do, with Ctrl-C ignored: then no test could press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _build(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        bench = Bench(Cache(), emulator=None, mended=True, linux=None, series=None)
        bench.build(LIVE_LEVELS)
        build.modules(bench.cache, bench.series, LIVE_LEVELS[-1])


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(skips)


@pytest.fixture(scope="session")
def pinned_source() -> Path:
    """The source of the pinned kernel, from the build cache, fetched into it where it is not there yet."""
    return kernel.source(Cache())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """All tests, side by side: here is the terminal, which the workers have not."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        _build(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly and any(item.get_closest_marker("live") for item in session.items):
        _build(session.config)
