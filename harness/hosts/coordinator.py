"""A lab's machines as labgrid keeps them: places found by tags, reserved, acquired, switched, and given back.

labgrid is the engine: its coordinator decides who gets which place, its queue of reservations is the only one. What is
here is a client of it, by labgrid's own session (the one behind ``labgrid-client``) on an event loop in a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, TypeVar

from harness.errors import HostError, InfraError
from harness.hosts.tags import Tags
from harness.process import PROGRESS, programs

DEFAULT: Final = "127.0.0.1:20408"  # labgrid's own
ADDRESS: Final = "LG_COORDINATOR"  # the environment variable that labgrid's own programs read
ANSWER: Final = 30.0  # seconds in which the coordinator has to answer
POLL: Final = 1.0  # seconds between two looks at a reservation; one that is not looked at expires after 60
MEND: Final = "pip install 'kvmirror[lab]'"

T = TypeVar("T")
_open: set[Coordinator] = set()


class LabgridMissing(InfraError):
    """labgrid is not installed beside kvmirror."""


@dataclass(frozen=True, slots=True)
class Service:
    """The record says where a place is reached by SSH, from its NetworkService."""

    user: str
    address: str
    port: int


def labgrid() -> ModuleType:
    """The function gives labgrid's client. LabgridMissing, with the mend, where it is not installed.

    Raises LabgridMissing, with the mend, when it is not installed.
    """
    try:
        from labgrid.remote import client
    except ModuleNotFoundError as error:
        raise LabgridMissing(
            f"places of a lab need labgrid, and Python's module {error.name!r} is not there: {MEND}"
        ) from error
    module: ModuleType = client
    return module


class _Said(logging.Handler):
    """What labgrid logs by Python's root logger: kept until the session stands, afterwards said as it comes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self.aloud = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "root" and not record.name.startswith("labgrid"):
            return
        self.last = record.getMessage()
        if self.aloud:
            PROGRESS.say(f"labgrid: {self.last}")


class Coordinator:
    """This is one session with the coordinator at ``address`` (host[:port]; None: LG_COORDINATOR, else labgrid's
    default).
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get(ADDRESS) or DEFAULT
        self._client = labgrid()
        self._loop = asyncio.new_event_loop()
        self._session: Any = None
        self._said = _Said()
        self._power = threading.Lock()
        self._held: dict[str, str] = {}  # places that are acquired: their reservation's token

    # the session

    def open(self) -> None:
        """The session is connected.

        Raises HostError when no coordinator answers.
        """
        from labgrid.util.proxy import proxymanager

        logging.getLogger().addHandler(self._said)
        threading.Thread(target=self._loop.run_forever, name="labgrid", daemon=True).start()
        _open.add(self)

        async def start() -> Any:
            where = proxymanager.get_grpc_address(self.address, default_port=20408)
            session = self._client.ClientSession(where, asyncio.get_running_loop())
            try:
                await session.start()
            except BaseException:
                await session.close()
                raise
            return session

        try:
            self._session = self._wait(start())
        except (self._client.Error, InfraError) as error:
            self.close()
            raise HostError(
                f"no labgrid coordinator answers at {self.address}: {self._said.last or error}; name it with "
                f"--coordinator or {ADDRESS}, or start labgrid-coordinator there"
            ) from error
        self._said.aloud = True

    def _wait(self, work: Coroutine[Any, Any, T], timeout: float = ANSWER) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise HostError(f"the labgrid coordinator at {self.address} did not answer in {timeout:.0f} s") from None

    def _call(self, method: str, message: str, **fields: Any) -> Any:
        """One request to the coordinator, and what it changed seen here. HostError with its reason where it refuses."""
        request = getattr(self._client.labgrid_coordinator_pb2, message)(**fields)

        async def ask() -> Any:
            answer = await getattr(self._session.stub, method)(request)
            await self._session.sync_with_coordinator()
            return answer

        try:
            return self._wait(ask())
        except self._client.grpc.aio.AioRpcError as error:
            raise HostError(f"the labgrid coordinator at {self.address}: {error.details()}") from error

    def close(self) -> None:
        """Give back whatever is held, and leave. Never raises: what could not be given back is said, with the mend."""
        for name in list(self._held):
            self.release(name)
        _open.discard(self)
        if self._session is not None:
            with contextlib.suppress(Exception):
                self._wait(self._session.stop(), 5)
            with contextlib.suppress(Exception):
                self._wait(self._session.close(), 5)
            self._session = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        logging.getLogger().removeHandler(self._said)

    # places

    def matching(self, tags: Tags) -> list[str]:
        """The function gives the names of the places that have ``tags``, free or not.

        Raises HostError, which says what tag is nowhere to be had.
        """
        places: Mapping[str, Any] = dict(self._session.places)
        found = sorted(name for name, place in places.items() if tags.match(name, place.tags))
        if not found:
            why = tags.refused({name: place.tags for name, place in places.items()})
            raise HostError(f"labgrid at {self.address}: {why}")
        return found

    def taken_by(self, name: str) -> str:
        """Who has a place or has reserved it; the empty text where nobody has."""
        place = self._session.places.get(name)
        if place is None:
            return "nobody: it was deleted"
        return place.acquired or (f"reservation {place.reservation}" if place.reservation else "")

    def holds(self, name: str) -> bool:
        """A place that was acquired here still is: True; also while the coordinator is not reached."""
        if self._session is None or self._session.stopping.is_set():
            return True
        place = self._session.places.get(name)
        return place is not None and place.acquired == self._me

    @property
    def _me(self) -> str:
        return f"{self._session.gethostname()}/{self._session.getuser()}"

    def acquire(self, tags: Tags, most: int, wait: float) -> list[str]:
        """Places that have ``tags`` are reserved and acquired: as many as can be had now, ``most`` at most. Where none
        can be had now, it is the first that is free within ``wait`` seconds.

        Raises HostError, which says who has them, when that is none.
        """
        names = self.matching(tags)
        tokens = [self._reserve(tags) for _ in range(min(most, len(names)))]
        try:
            allocated = self._allocated(tokens, tags, wait)
            for token, name in allocated.items():
                self._held[name] = token  # beforehand: an interrupt may come at any moment
                tokens.remove(token)
                self._call("AcquirePlace", "AcquirePlaceRequest", placename=name)
        finally:
            self._cancel(tokens)
        return sorted(allocated.values())

    def _reserve(self, tags: Tags) -> str:
        wanted = self._client.labgrid_coordinator_pb2.Reservation.Filter(filter=dict(tags.wanted))
        made = self._call("CreateReservation", "CreateReservationRequest", filters={"main": wanted}, prio=0.0)
        return str(made.reservation.token)

    def _allocated(self, tokens: Iterable[str], tags: Tags, wait: float) -> dict[str, str]:
        """The places of the reservations that got one, by token, as soon as one has; HostError where none gets one."""
        deadline = time.monotonic() + wait
        told = False
        while True:
            found = {}
            for token in tokens:
                answer = self._call("PollReservation", "PollReservationRequest", token=token).reservation
                if answer.state == self._client.ReservationState.allocated.value:
                    found[token] = str(answer.allocations["main"])
            if found:
                return found
            others = "; ".join(f"{name}: {self.taken_by(name) or 'not given yet'}" for name in self.matching(tags))
            if time.monotonic() >= deadline:
                waited = f"after {wait:.0f} s " if wait else ""
                raise HostError(
                    f"labgrid at {self.address}: {waited}no place with {tags} is free ({others}); --place-wait SECONDS "
                    "waits in its queue, labgrid-client release gives back a place of yours that is not in use"
                )
            if not told:
                PROGRESS.say(f"waiting for a place with {tags} ({others})")
                told = True
            programs.breathe()
            time.sleep(POLL)

    def _cancel(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            with contextlib.suppress(HostError):  # it expires by itself in a minute
                self._call("CancelReservation", "CancelReservationRequest", token=token)

    def release(self, name: str) -> None:
        """A place is given back, and its reservation with it. It never raises: a place that stays taken is said. Never
        raises: a place that stays taken is said.
        """
        token = self._held.pop(name, None)
        if token is None:
            return
        try:
            if self.holds(name):
                self._call("ReleasePlace", "ReleasePlaceRequest", placename=name, fromuser=self._me)
        except HostError as error:
            PROGRESS.say(f"{name} could not be released: {error}; labgrid-client -p {name} release does")
        self._cancel([token])

    # what a place has

    def _resources(self, name: str) -> list[Any]:
        return list(self._session.get_target_resources(self._session.places[name]).values())

    def service(self, name: str) -> Service:
        """The function says where an acquired place is reached.

        Raises HostError when its resources do not say it, or want a proxy.
        """
        found = [one for one in self._resources(name) if one.cls == "NetworkService"]
        if len(found) != 1:
            raise HostError(
                f"place {name} has {len(found)} resources NetworkService, and one is needed: have the exporter export "
                f"one, and match it (labgrid-client -p {name} show)"
            )
        (resource,) = found
        if resource.extra.get("proxy_required"):
            raise HostError(
                f"place {name} is behind its exporter, which wants an SSH proxy: start labgrid-exporter without "
                "--isolated, or give --host the machine itself as ssh://"
            )
        said = resource.args
        return Service(str(said["username"]), str(said["address"]), int(said.get("port") or 22))

    def console(self, name: str) -> Any:
        """The function gives an active console driver of the place, labgrid's ConsoleProtocol; None where it has no
        NetworkSerialPort.
        """
        if not any(one.cls == "NetworkSerialPort" for one in self._resources(name)):
            return None
        from labgrid.driver import SerialDriver

        target = self._target(name)
        driver = SerialDriver(target, name=None)
        target.activate(driver)
        return driver

    def cycle(self, name: str) -> bool:
        """The place is switched off and on; False where it has no resource that labgrid can switch.

        Raises HostError when it fails.
        """
        with self._power:  # labgrid's client has one set of arguments
            self._session.args = argparse.Namespace(place=name, action="cycle", delay=None, name=None)
            try:
                self._session.power()
            except self._client.UserError:
                return False
            except Exception as error:  # a driver's own: HTTP, a tool that is not there, no answer
                raise HostError(f"place {name} could not be switched: {type(error).__name__}: {error}") from error
        return True

    def _target(self, name: str) -> Any:
        with self._power:
            return self._session._get_target(self._session.places[name])


def release_all() -> None:
    """Every place that this process holds is given back."""
    for coordinator in list(_open):
        coordinator.close()


atexit.register(release_all)
