"""A real SLURM for tests, on this machine alone: daemons of its own, with all their files in one folder.

cpu[1-2]      always there
gpu[1-2]      likewise, with two "GPUs" each: devices that every machine has, so that SLURM can count them
spot[1-2]     machines of a cloud: they are started when jobs ask for them, and may be evicted
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from system_parts import do_without, require

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
STATIC = ("cpu1", "cpu2", "gpu1", "gpu2")
CLOUD = ("spot1", "spot2")

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a job that goes back to the queue waits as long as its credential lasts: two minutes, if nothing is said, or below 5
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=2
MinJobAge=120
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
JobRequeue=1
AccountingStorageType=accounting_storage/none
ResumeProgram={folder}/resume
SuspendProgram={folder}/suspend
SuspendTime=600
SuspendTimeout=3
ResumeTimeout=30
ResumeRate=0
SuspendRate=0
SuspendExcNodes={static}
PrivateData=cloud
TreeWidth=65533
CommunicationParameters=NoAddrCache
SlurmctldParameters=power_save_interval=1,power_save_min_interval=0,idle_on_node_suspend
"""

# un-blocks the signals that slurmctld's children inherit blocked: a slurmd that cannot be told to end would remain
_BOOT = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, []); os.execvp(sys.argv[1], sys.argv[1:])"

_RESUME = """\
#!/bin/bash
export SLURM_CONF={folder}/slurm.conf PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e {folder}/no-machines ] && exit 0
for node in $(scontrol show hostnames "$1"); do
  setsid -f python3 -c '{boot}' slurmd -N $node -b </dev/null >>{folder}/boot.log 2>&1
done
"""

_SUSPEND = """\
#!/bin/bash
export SLURM_CONF={folder}/slurm.conf PATH=/usr/sbin:/usr/bin:/sbin:/bin
for node in $(scontrol show hostnames "$1"); do
  [ -s {folder}/slurmd-$node.pid ] && kill -9 $(cat {folder}/slurmd-$node.pid)
done
exit 0
"""


def require_slurm() -> None:
    """SLURM's programs, installed first where root may; without them tests are skipped, and fail in CI."""
    if os.geteuid() != 0:
        do_without("a SLURM of one's own needs root")
    require(PROGRAMS, "slurm-wlm", "munge")


class Slurm:
    """The running daemons.

    Attributes:
        folder: Of all their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
        }

    def start(self) -> None:
        """Write the configuration and start everything; returns when the nodes that are always there are idle."""
        for name in ("state", "munge"):
            (self.folder / name).mkdir()
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        ports = free_ports(1 + len(STATIC + CLOUD))
        host = socket.gethostname().partition(".")[0]
        text = _CONFIGURATION.format(folder=self.folder, host=host, port=ports[0], static=",".join(STATIC))
        for node, port in zip(STATIC + CLOUD, ports[1:], strict=True):
            gpus = "" if node.startswith("cpu") else " Gres=gpu:2"
            cloud = "Feature=cloud State=CLOUD" if node in CLOUD else "State=UNKNOWN"
            address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            text += f"NodeName={node} {address} CPUs=4 RealMemory=8000{gpus} {cloud}\n"
        for name, nodes, more in (
            ("cpu", "cpu[1-2]", "Default=YES"),
            ("gpu", "gpu[1-2]", "MaxTime=2:00:00"),
            ("spot", "spot[1-2]", ""),
        ):
            text += f"PartitionName={name} Nodes={nodes} State=UP {more}\n"
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(
            "AutoDetect=off\nNodeName=gpu[1-2],spot[1-2] Name=gpu File=/dev/null\n"
            "NodeName=gpu[1-2],spot[1-2] Name=gpu File=/dev/zero\n"
        )
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # is read, not used
        for name, script in (("resume", _RESUME), ("suspend", _SUSPEND)):
            (self.folder / name).write_text(script.format(folder=self.folder, boot=_BOOT))
            (self.folder / name).chmod(0o755)
        munge = self.folder / "munge"
        self.call(
            "munged",
            f"--key-file={key}",
            f"--socket={munge / 'socket'}",
            f"--pid-file={self.folder / 'munged.pid'}",
            f"--log-file={munge / 'log'}",
            f"--seed-file={munge / 'seed'}",
        )
        self.before_controller()
        self.call("slurmctld")
        for node in STATIC:
            self.call("slurmd", "-N", node)
        self.wait_for(lambda: set(self.call("sinfo", "-hNp", "cpu,gpu", "-o", "%T").split()) == {"idle"}, 30)

    def before_controller(self) -> None:
        """Start what the controller needs; nothing but for a SLURM that keeps accounts."""

    def call(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=600
        ).stdout

    def jobs(self) -> list[str]:
        """Jobs that wait or run."""
        return self.call("squeue", "-hr", "-o", "%i").split()

    def settle(self) -> None:
        """Wait until there are no jobs, two minutes at most."""
        with contextlib.suppress(TimeoutError, subprocess.CalledProcessError):
            self.wait_for(lambda: not self.jobs(), 30)

    def revive(self) -> None:
        """Start the controller again if it has ended, as a machine's service manager does."""
        process = int((self.folder / "slurmctld.pid").read_text())
        if not Path(f"/proc/{process}").exists():
            self.call("slurmctld")

    def wait_for(self, condition: object, seconds: float) -> None:
        """Wait until a function is true; of SLURM's commands, those that fail for now count as not true.

        Args:
            condition: The function.
            seconds: What it may take where nothing else runs; in all it gets four times as long.
        """
        end = time.monotonic() + 4 * seconds
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError):
                if condition():  # type: ignore[operator]
                    return
            time.sleep(0.2)
        raise TimeoutError(self.call("squeue", "-a") + self.call("sinfo") + self.log())

    def log(self) -> str:
        """The end of the controller's log."""
        return (self.folder / "slurmctld.log").read_text()[-3000:]

    def evict(self, node: str, jobs_live: bool = False) -> bool:
        """Take a machine away as a cloud does: all its processes die at once, and the controller hears of it.

        Args:
            node: Its name.
            jobs_live: Whether processes of jobs go on all the same, as on a machine that only the controller has lost.

        Returns:
            Whether it was there.
        """
        pid_file = self.folder / f"slurmd-{node}.pid"
        there = pid_file.exists()
        # another SLURM of tests may have a node of that name
        its = {f"SLURMD_NODENAME={node}", f"SLURM_CONF={self.folder / 'slurm.conf'}"}
        dying = [process for process, environment in _processes() if its <= set(environment) and not jobs_live]
        if there:
            dying.append(int(pid_file.read_text()))
            pid_file.unlink(missing_ok=True)
        # all stand still before the first dies, or SLURM would hear of a killed job instead of a machine that is gone
        for name in (signal.SIGSTOP, signal.SIGKILL):
            for process in dying:
                _kill(process, name)
        for steps in (self.folder / f"spool-{node}").glob(f"{node}_*"):
            steps.unlink()
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=evicted")
        self.call("scontrol", "update", f"nodename={node}", "state=resume")
        if node in CLOUD:  # the cloud may give another of that name
            self.call("scontrol", "update", f"nodename={node}", "state=power_down")
        else:  # it has been started again
            self.call("slurmd", "-N", node)
        return there

    @contextlib.contextmanager
    def without(self, node: str, folder: Path) -> Iterator[None]:
        """A node that does not see what lies in a folder: it has another, empty disk there."""
        self._start_again(node, "unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder))
        try:
            yield
        finally:
            self._start_again(node)

    def _start_again(self, node: str, *before: str) -> None:
        pid_file = self.folder / f"slurmd-{node}.pid"
        _kill(int(pid_file.read_text()), signal.SIGTERM)
        self.wait_for(lambda: not pid_file.exists(), 10)
        self.call(*before, "slurmd", "-N", node)
        self.wait_for(lambda: self.call("sinfo", "-hn", node, "-o", "%T").strip() == "idle", 30)

    def stop(self) -> None:
        """Cancel all jobs, and end the daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", "--user=root")
            self.wait_for(lambda: not self.jobs(), 15)
        for file in [self.folder / "slurmctld.pid", *self.folder.glob("slurmd-*.pid"), self.folder / "munged.pid"]:
            with contextlib.suppress(OSError, ValueError):
                _kill(int(file.read_text()), signal.SIGTERM)
        time.sleep(0.5)
        ours = f"SLURM_CONF={self.folder / 'slurm.conf'}"
        for process, environment in _processes():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{process}/comm").read_text()
                if ours in environment and name.startswith("slurm"):
                    _kill(process, signal.SIGKILL)


@contextlib.contextmanager
def running_slurm(kind: type[Slurm] = Slurm) -> Iterator[Slurm]:
    """A SLURM as long as it is needed."""
    require_slurm()
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # munge asks for that
        slurm = kind(Path(folder))
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.stop()


def _processes() -> Iterator[tuple[int, list[str]]]:
    """All processes with their environment variables."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "environ").read_bytes().decode(errors="replace").split("\0")


def _kill(process: int, sent: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, sent)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
