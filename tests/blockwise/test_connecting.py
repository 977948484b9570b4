"""Workers whose addresses others have had; where the system has few ports, nearly all have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from neuroloom.blockwise import Block, Stage, run_stage
from system_parts import do_without, require

SCRIPT = """
import sys, time
from pathlib import Path
from neuroloom.blockwise import Stage, run_stage
from neuroloom.errors import BlocksFailed

class Tries(Stage):
    def process(self, block):
        file = self.folder / f"tries-{block.number}"
        with file.open("a") as tries:
            tries.write("x")
        if block.number < 6 and file.stat().st_size == 1:
            raise ValueError("its worker ends, and another connects")
        time.sleep(0.7)  # longer than daisy takes to look for lost blocks

if __name__ == "__main__":
    run_stage(Tries(folder=Path(sys.argv[1]), shape=(9, 4, 4), block_shape=(1, 4, 4)), 1)
"""

FEW_PORTS = """
ip link set lo up
echo 40000 40007 > /proc/sys/net/ipv4/ip_local_port_range
echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse
exec "$@"
"""


class Addresses(Stage):
    """Each block says from where its worker has connected."""

    def process(self, block: Block) -> None:
        (self.folder / f"seen-{block.number}").write_text(json.dumps(os.listdir(self.folder / "logs" / "addresses")))


def test_blocks_of_a_worker_with_a_used_port_count_as_done(tmp_path: Path) -> None:
    """Eight ports for the master and seven workers, one after the other: without care, some are given again."""
    if sys.platform != "linux" or os.geteuid() != 0:
        do_without("a network of one's own needs Linux and root")
    require(("unshare", "ip"), "util-linux", "iproute2")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = ["unshare", "--net", "sh", "-c", FEW_PORTS, "sh", sys.executable, script, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    tries = [(tmp_path / "out" / f"tries-{block}").stat().st_size for block in range(9)]
    assert tries == [2] * 6 + [1] * 3
    assert len(list((tmp_path / "out" / "logs" / "addresses").iterdir())) == 7


def test_claims_are_those_of_one_run(tmp_path: Path) -> None:
    claims = tmp_path / "stage" / "logs" / "addresses"
    claims.mkdir(parents=True)
    (claims / "127.0.0.1-1").touch()
    run_stage(Addresses(folder=tmp_path / "stage", shape=(4, 4, 4), block_shape=(2, 4, 4)), 1)
    (address,) = json.loads((tmp_path / "stage" / "seen-0").read_text())
    host, _, port = address.rpartition("-")
    assert host.count(".") == 3
    assert 0 < int(port) != 1
