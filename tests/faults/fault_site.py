"""The site on which faults are injected: three hosts, a broker, an orchestrator, each with a cable, and gates.

A gate is a hook of the site's configuration: a real command, which waits on a FIFO when somebody has armed it, and ends
at once otherwise. So an attempt can be held where an agent waits for a command of the site's.
"""

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.agents import HostAddresses
from tests.faults import pair
from tests.faults.network import Loopback, Network, listening
from tests.faults.pair import EtcdDaemon, Pair
from tests.faults.qemu_rows import PROGRAMS
from tests.system.daemons import Daemon, launch, program
from tests.system.qemu_machines import offer
from tests.system.site import Site

HOSTS = ("host-a", "host-b", "host-c")
CONTROL = "orchestrator"
"""Where the orchestrator runs, and the command that drives."""
BROKER = "broker"
NAMES = (*HOSTS, CONTROL, BROKER, pair.SECOND)
PAIR = "pair"
"""The configuration of an operator who turns to two orchestrators over one etcd."""
COMMAND_LINE = "cli"
"""The configuration of a command that drives its own attempts, over a store that no daemon looks into."""
GATES = ("before_prepare", "before_handoff", "before_ready", "after_active")
_GATE = (
    'cd "$0" && mv "$VIADUCT_HOOK.armed" "$VIADUCT_HOOK.reached" 2>/dev/null '
    '&& read -r go <"$VIADUCT_HOOK.fifo" && [ "$go" = no ] && exit 1; exit 0'
)
_BROKER_SECONDS = 30.0
_START_SECONDS = 120.0
"""Several sites start at once, of eight daemons each."""


@dataclass
class Broker(Daemon):
    """A mosquitto; it says nothing of being ready, so it is asked."""

    address: tuple[str, int] = ("127.0.0.1", 0)

    def start(self) -> None:
        earlier = self._times_running()
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + _BROKER_SECONDS
        while self._times_running() == earlier:
            assert self.running, f"The broker ended:\n{self.log[-1000:]}"
            assert time.monotonic() < until, "The broker did not start"
            time.sleep(0.01)  # it writes into a file, which has no event

    def _times_running(self) -> int:
        path = self.folder / f"{self.name}.log"
        return path.read_text(errors="replace").count(" running\n") if path.exists() else 0


@dataclass
class FaultSite(Site):
    """Three hosts with everything that a migration has around it."""

    network: Network = field(default_factory=Loopback)
    pair: Pair | None = None

    def __post_init__(self) -> None:
        self.gates = self.folder / "gates"
        self.gates.mkdir()
        self._fifos = {}
        for gate in GATES:
            os.mkfifo(self.gates / f"{gate}.fifo")
            # Open at both ends here: a command that opens it never waits, one that reads does.
            self._fifos[gate] = os.open(self.gates / f"{gate}.fifo", os.O_RDWR | os.O_NONBLOCK)
        self.orchestrator_address = f"{self.network.address(CONTROL)}:{self.network.ports(1)[0]}"
        self.broker_address = (self.network.address(BROKER), self.network.ports(1)[0])
        self.broker = "mqtt://{}:{}".format(*self.broker_address)
        command = json.dumps(["sh", "-c", _GATE, str(self.gates)])
        self.hooks = "[hooks]\n" + "".join(f"{gate} = [{command}]\n" for gate in GATES) + 'deadline = "100s"\n'
        self.hooks += offer(*PROGRAMS)
        super().__post_init__()
        for name, orchestrator in ((CONTROL, True), ("operator", True), (COMMAND_LINE, False)):
            self.configuration(name).write_text(self._site_text(name, daemon=orchestrator))
        self.orchestrator = Daemon(
            "orchestrator",
            [*self.inside(CONTROL), program("viaduct"), "orchestrator", "--config", str(self.configuration(CONTROL))],
            self.folder,
        )
        self.mosquitto = Broker("broker", self._broker_command(), self.folder, address=self.broker_address)

    def find_addresses(self) -> dict[str, HostAddresses]:
        found = {}
        for host in self.budgets:
            ip, (source, dest) = self.network.address(host), self.network.ports(2)
            found[host] = HostAddresses(f"{ip}:{source}", f"{ip}:{dest}")
        return found

    def inside(self, host: str) -> list[str]:
        return self.network.inside(host)

    @property
    def everyone(self) -> list[Daemon]:
        both = [] if self.pair is None else self.pair.everyone
        return [*self.daemons.values(), self.orchestrator, self.mosquitto, *both]

    def start_all(self) -> None:
        """Have everybody run."""
        self.start([daemon for daemon in self.everyone if not daemon.running])

    def start(self, daemons: Sequence[Daemon]) -> None:
        """Have some daemons run; this returns when they serve."""
        silent = [daemon for daemon in daemons if isinstance(daemon, Broker | EtcdDaemon)]
        for daemon in silent:
            daemon.start()
        if self.pair is not None and any(isinstance(daemon, EtcdDaemon) for daemon in silent):
            self.pair.wait_answers()
        launch([daemon for daemon in daemons if daemon not in silent], _START_SECONDS)

    def have_pair(self) -> Pair:
        """Have two orchestrators over one etcd run too, from the first row on that is about them."""
        if self.pair is None:
            text = self._text(CONTROL)
            self.pair = Pair(self.folder, self.network, text, self.identities)
            operator, own = self.identities["operator"], self.identities[CONTROL]
            self.configuration(PAIR).write_text(self.pair.text_for(operator, own))
        self.start_all()
        self.pair.wait_led()
        return self.pair

    def store(self, *, cli: bool) -> Path:
        return self.folder / ("cli.db" if cli else "orchestrator.db")

    def agent_pids(self) -> dict[int, str]:
        return {daemon.pid: daemon.name for daemon in self.everyone if daemon.running}

    def listening(self) -> frozenset[str]:
        """Return who listens on the site's hosts, machine processes included."""
        if not self.network.has_cables:
            return frozenset()  # the ports of everybody else on this machine would be among them
        return frozenset(
            f"{daemon.name} {port}" for daemon in self.everyone if daemon.running for port in listening(daemon.pid)
        )

    def close(self) -> None:
        """End everything, what is frozen too."""
        if self.pair is not None:
            self.pair.close()
        for daemon in self.everyone:
            if daemon.running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon.pid, signal.SIGCONT)
            daemon.kill()
        self.sweep()
        self.network.close()
        for descriptor in self._fifos.values():
            os.close(descriptor)
        self._fifos.clear()

    # gates

    def arm(self, gate: str) -> None:
        """Have the next command at a gate wait."""
        with contextlib.suppress(BlockingIOError):  # what was meant for one that ended before it read
            os.read(self._fifos[gate], 64)
        (self.gates / f"{gate}.armed").touch()

    def reached(self, gate: str) -> bool:
        return (self.gates / f"{gate}.reached").exists()

    def open_gate(self, gate: str, word: str = "yes") -> None:
        """Let go on what waits at a gate, and what may come; on the word `no` the waiting command fails."""
        (self.gates / f"{gate}.armed").unlink(missing_ok=True)
        if self.reached(gate):
            (self.gates / f"{gate}.reached").unlink()
            os.write(self._fifos[gate], f"{word}\n".encode())

    def _site_text(self, name: str, *, daemon: bool) -> str:
        text = self._text("operator" if name != CONTROL else CONTROL)
        if daemon:
            return text.replace("[site]\n", f'[site]\norchestrator = "{self.orchestrator_address}"\n')
        return text.replace("orchestrator.db", "cli.db")

    def _broker_command(self) -> list[str]:
        path = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert path, "mosquitto is missing: apt-get install mosquitto"
        ip, port = self.broker_address
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text(f"user {getpass.getuser()}\nlistener {port} {ip}\nallow_anonymous true\n")
        return [*self.inside(BROKER), path, "-c", str(configuration)]
