"""A lab on this machine: a labgrid coordinator, an exporter, and places that are emulated Intel hosts.

Each place has an SSH server on a port of 127.0.0.1, a power port that is switched by HTTP, and its serial line on a TCP
port. ``python -m tests.emulated_lab [PLACES]`` brings it up by hand until Ctrl-C and prints what to type meanwhile.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.build import kernel, rootfs
from harness.build.cache import Cache
from harness.hosts import boot
from harness.hosts.emulated import EmulatedHost, free_port
from harness.process import programs
from harness.run import emulator

SCRIPTS = Path(sys.executable).parent
TAGS = {"cpu": "icelake", "mbec": "yes"}
READY = 30.0  # seconds in which coordinator and exporter have to be there


@dataclass
class Socket:
    """A machine and what it is plugged into: power, and its serial line."""

    host: EmulatedHost
    line: int  # TCP port of the serial line
    cycles: int = 0  # times that its power came on
    dead: bool = False  # it does not come on any more
    lock: threading.Lock = field(default_factory=threading.Lock)

    def switch(self, on: bool) -> None:
        with self.lock:
            running = self.host.folder is not None
            if running and not on:
                self.host.stop()
            elif on and self.dead:
                raise OSError("its power supply is broken")
            elif on and not running:
                self.cycles += 1
                self.host.start()

    def pull(self) -> None:
        """The plug is pulled: the machine is gone at once."""
        assert self.host._process is not None
        self.host._process.stop(grace=0)

    def said(self) -> bytes:
        folder = self.host.folder
        try:
            return (folder / "console.log").read_bytes() if folder else b""
        except OSError:
            return b""


def _power(sockets: list[Socket]) -> http.server.ThreadingHTTPServer:
    """The power switch: GET /relay/INDEX/0 or 1, as labgrid's model simplerest asks."""

    class Relay(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match = re.fullmatch(r"/relay/(\d+)/([01])", self.path)
            if match is None:
                self.send_error(404)
                return
            try:
                sockets[int(match[1])].switch(match[2] == "1")
            except Exception as error:
                self.send_error(500, str(error).splitlines()[0])
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(match[2].encode())

        def log_message(self, *_: object) -> None:
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)


def _line(socket: Socket, port: int) -> socketserver.ThreadingTCPServer:
    """The serial line: whoever connects gets what the machine says from then on."""

    class Line(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            at = len(socket.said())
            with contextlib.suppress(OSError):
                while True:
                    said = socket.said()
                    at = at if at <= len(said) else 0  # another boot has begun
                    if len(said) > at:
                        self.request.sendall(said[at:].replace(b"\n", b"\r\n"))
                        at = len(said)
                    time.sleep(0.1)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    return Server(("127.0.0.1", port), Line)


class EmulatedLab:
    """The lab, up: its coordinator's address, its places, and how one logs in to them."""

    def __init__(self, folder: Path, sockets: Mapping[str, Socket], coordinator: str) -> None:
        self.folder = folder
        self.sockets = sockets
        self.coordinator = coordinator
        self.key = rootfs.keys(Cache()).client_private
        self.known_hosts = folder / "known_hosts"

    @property
    def login(self) -> list[str]:
        """The options by which kvmirror logs in."""
        return ["--host-key", str(self.key), "--known-hosts", str(self.known_hosts)]

    def client(self, *words: str) -> str:
        """What labgrid-client says."""
        return programs.run([SCRIPTS / "labgrid-client", "-x", self.coordinator, *words]).stdout

    def ssh(self, name: str) -> str:
        """The address of one place's machine, without labgrid."""
        return f"ssh://root@127.0.0.1:{self.sockets[name].host.port}"


def _exported(sockets: Mapping[str, Socket], power: int) -> str:
    """The exporter's file: what each place has."""
    found = []
    for index, (name, socket) in enumerate(sockets.items()):
        found += [
            f"{name}:",
            "  NetworkService:",
            "    address: 127.0.0.1",
            f"    port: {socket.host.port}",
            "    username: root",
            "  NetworkPowerPort:",
            "    model: simplerest",
            f"    host: 'http://127.0.0.1:{power}/relay/{{index}}/{{value}}'",
            f"    index: {index}",
            "  NetworkSerialPort:",
            "    host: 127.0.0.1",
            f"    port: {socket.line}",
            "    protocol: raw",
        ]
    return "\n".join(found) + "\n"


def _places(tags: Mapping[str, Mapping[str, str]]) -> str:
    """What the coordinator keeps of its places, as it would write it itself."""
    found = []
    for name, own in tags.items():
        found += [f"{name}:", "  aliases: []", "  comment: ''", "  created: 0.0", "  changed: 0.0", "  tags:"]
        found += [f"    {key}: '{value}'" for key, value in own.items()]
        found += ["  matches:", f"  - {{exporter: rack1, group: {name}, cls: '*', name: null, rename: null}}"]
    return "\n".join(found) + "\n"


def _until(what: str, ready: Any) -> None:
    deadline = time.monotonic() + READY
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come up"
        time.sleep(0.1)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def coordinated(folder: Path, tags: Mapping[str, Mapping[str, str]], resources: str, last: str = "") -> Iterator[str]:
    """A coordinator with places of these tags, and an exporter of ``resources``; its address.

    ``last``: the group of resources that is awaited; else that of the last place.
    """
    pytest.importorskip("labgrid", reason="labgrid is not in this virtual environment: make setup brings it")
    folder.mkdir(parents=True, exist_ok=True)
    if tags:
        (folder / "places.yaml").write_text(_places(tags))
    (folder / "exporter.yaml").write_text(resources)
    address = f"127.0.0.1:{free_port()}"
    said, exported = folder / "coordinator.log", folder / "exporter.log"
    with contextlib.ExitStack() as stack:
        coordinator = [SCRIPTS / "labgrid-coordinator", "-l", address]
        stack.enter_context(programs.spawn(coordinator, cwd=folder, log=said))
        _until("the coordinator", lambda: "listening on" in _text(said))
        exporter = [SCRIPTS / "labgrid-exporter", "-c", address, "-n", "rack1", "--hostname", "127.0.0.1"]
        stack.enter_context(programs.spawn([*exporter, folder / "exporter.yaml"], cwd=folder, log=exported))
        last = last or list(tags)[-1]
        _until("the exporter", lambda: f"add resource {last}/" in _text(exported))
        yield address


@contextlib.contextmanager
def emulated_lab(folder: Path, places: int = 2) -> Iterator[EmulatedLab]:
    """The lab with so many places, all of them switched on."""
    cache = Cache()
    medium = boot.boot(cache, kernel.base(cache).bzimage)
    sockets = {
        f"lab{n + 1}": Socket(
            EmulatedHost(
                cache, bochs=emulator.build(cache), boot=medium, name=f"lab{n + 1}", port=free_port(), boot_timeout=300
            ),
            free_port(),
        )
        for n in range(places)
    }
    with contextlib.ExitStack() as stack:
        servers = [_power(list(sockets.values())), *(_line(socket, socket.line) for socket in sockets.values())]
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        for socket in sockets.values():
            stack.callback(socket.host.stop)
            socket.switch(True)
        power = servers[0].server_address[1]
        assert isinstance(power, int)
        resources = _exported(sockets, power)
        lab = EmulatedLab(
            folder, sockets, stack.enter_context(coordinated(folder, dict.fromkeys(sockets, TAGS), resources))
        )
        host_key = rootfs.keys(cache).host_public
        lab.known_hosts.write_text(
            "".join(f"[127.0.0.1]:{socket.host.port} {host_key}\n" for socket in sockets.values())
        )
        yield lab


def main() -> None:
    """Until Ctrl-C."""
    programs.interruptible()
    places = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory(prefix="kvmirror-lab-") as folder, emulated_lab(Path(folder), places) as lab:
        print(f"export LG_COORDINATOR={lab.coordinator}")
        print(f"kvmirror doctor --host labgrid:cpu=icelake,mbec=yes {' '.join(lab.login)}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
