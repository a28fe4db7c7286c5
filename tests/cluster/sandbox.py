"""The node's world: namespaces of its own, so that a whole Kubernetes node leaves this machine as it was.

Mount, pid, net, uts and ipc namespaces hold all that a kubelet, a container runtime and a service proxy
change. Outside are only: a control group, one end of a network cable with two routes, and the cluster's
folder. `stop` (or the death of the one process `pid`, by any hand) ends every process, mount, rule and route
at once, since the kernel does; the groups and the folder are then removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.addresses import NODE, Numbers
from tests.cluster.processes import DIE_WITH_PARENT, environment, running
from tests.cluster.waiting import ClusterError, tail, until

GROUPS = Path("/sys/fs/cgroup")
SCRIPT = Path(__file__).with_name("node.sh")
START_SECONDS = 30.0
STOP_SECONDS = 30.0
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "gcc": "gcc",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
"""Program -> its Debian package."""
PLUGINS = Path("/usr/lib/cni/bridge")
BUSYBOX = Path("/bin/busybox")


def missing_packages() -> list[str]:
    """Return the Debian packages that the cluster needs and this machine lacks."""
    path = environment()["PATH"]
    missing = {package for name, package in PACKAGES.items() if shutil.which(name, path=path) is None}
    if not PLUGINS.exists():
        missing.add("containernetworking-plugins")
    if not BUSYBOX.exists():
        missing.add("busybox-static")
    if not Path("/usr/include/stdio.h").exists():
        missing.add("libc6-dev")
    return sorted(missing)


def require_machine() -> None:
    """Raise ClusterError where a node cannot run here, with what would help."""
    if os.geteuid() != 0:
        raise ClusterError("A Kubernetes node wants root. Without it: pytest tests/cluster -k control_plane")
    missing = missing_packages()
    if missing:
        raise ClusterError(f"Debian packages are missing. As root: apt-get install {' '.join(missing)}")
    if not (GROUPS / "cpuset").is_dir():
        raise ClusterError(
            "The test cluster was made for control groups of version 1; this machine has none."
        )


class Sandbox:
    """One node's namespaces: made by `start`, gone after `stop`."""

    def __init__(self, folder: Path, numbers: Numbers) -> None:
        self.folder, self.numbers = folder, numbers
        self.pid = 0
        self._outer: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, folder: Path) -> Sandbox | None:
        """Return the sandbox that runs in ``folder``, whoever started it, or None."""
        try:
            kept = json.loads((folder / "sandbox.json").read_text())
        except FileNotFoundError:
            return None
        sandbox = cls(folder, Numbers(kept["n"], lock=-1))
        sandbox.pid = kept["pid"]
        return sandbox if running(sandbox.pid) and _born(sandbox.pid) == kept["born"] else None

    # --- life

    def start(self, *, lasting: bool = False) -> None:
        """Make the namespaces. They end with this process, unless they are ``lasting``."""
        self._make_groups()
        log = self.log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [] if lasting else list(DIE_WITH_PARENT)
        command += ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--uts", "--ipc"]
        command += ["--fork", "--kill-child", "--mount-proc", "sh", str(SCRIPT)]
        settings = {
            "WORK": str(self.folder),
            "NODE": NODE,
            "NODE_IP": self.numbers.node_ip,
            "HOST_IP": self.numbers.host_ip,
        }
        with log.open("ab") as output:
            self._outer = subprocess.Popen(
                command,
                env=environment() | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[self.numbers.lock],  # held as long as anything in there lives
                start_new_session=True,
            )
        self.pid = until(self._first_process, "the node's namespaces", START_SECONDS, lambda: tail(log))
        kept = {"pid": self.pid, "born": _born(self.pid), "n": self.numbers.n}
        (self.folder / "sandbox.json").write_text(json.dumps(kept))
        self._plug_in()
        until(self._is_ready, "the node's world", START_SECONDS, lambda: tail(log))

    def stop(self) -> None:
        """End everything in it, and remove what it left on this machine. Safe to call again."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            until(lambda: not running(self.pid), "the end of the node", STOP_SECONDS)
        if self._outer is not None:
            self._outer.wait(STOP_SECONDS)
            self._outer = None
        self.numbers.release()
        remove_groups(self.numbers.group)
        self.pid = 0

    def _first_process(self) -> int | None:
        assert self._outer is not None
        if self._outer.poll() is not None:
            raise ClusterError(f"the node's namespaces were not made\n{tail(self.log)}")
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        if not children:
            return None
        pid = int(children[0])
        return pid if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net") else None

    def _is_ready(self) -> bool:
        if not running(self.pid):
            raise ClusterError(f"the node's first process ended\n{tail(self.log)}")
        return (self.root / "run/node-is-ready").exists()

    def _make_groups(self) -> None:
        for hierarchy in GROUPS.iterdir():
            if hierarchy.is_dir() and not hierarchy.is_symlink() and hierarchy.name != "unified":
                (hierarchy / self.numbers.group).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            text = (GROUPS / "cpuset" / file).read_text()
            (GROUPS / "cpuset" / self.numbers.group / file).write_text(text)

    def _plug_in(self) -> None:
        numbers = self.numbers
        _ip("link", "add", numbers.device, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        _ip("addr", "add", f"{numbers.host_ip}/30", "dev", numbers.device)
        _ip("link", "set", numbers.device, "up")
        for network in (numbers.pods, numbers.services):
            _ip("route", "add", network, "via", numbers.node_ip, "dev", numbers.device)

    # --- inside

    @property
    def log(self) -> Path:
        """What the first process said."""
        return self.folder / "log/node.log"

    @property
    def root(self) -> Path:
        """The node's file system, as this machine can read and write it (only by root)."""
        return Path(f"/proc/{self.pid}/root")

    def inside(self, *command: str) -> list[str]:
        """Return a command that runs ``command`` on the node."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "--", *command]

    def run(self, *command: str, stdin: str | None = None, seconds: float = 120.0) -> str:
        """Run a command on the node; return its output, or raise ClusterError with what it said."""
        done = subprocess.run(
            self.inside(*command),
            input=stdin,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def remove_groups(group: str) -> None:
    """Remove a control group of an ended cluster from every hierarchy."""
    deadline = time.monotonic() + STOP_SECONDS
    for top in GROUPS.glob(f"*/{group}"):
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            if time.monotonic() > deadline:
                raise ClusterError(f"{top} is still in use")
            time.sleep(0.02)


def _born(pid: int) -> str:
    """Return when a process started, in clock ticks: a number that came again is another process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"ip {' '.join(words)}: {done.stderr.strip()}")
