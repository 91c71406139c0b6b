"""A real Grid Engine on this machine, without its interactive installer: sge_qmaster and sge_execd."""

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from schedulers.daemons import Daemons, free_port

_BIN = Path("/usr/lib/gridengine")
_SHARE = Path("/usr/share/gridengine")
_SLOTS = 16


def up() -> Daemons:
    grid = Daemons("gridengine")
    root, common = grid.folder / "root", grid.folder / "root/default/common"
    host = socket.gethostname().partition(".")[0]
    grid.folders(
        "root/bin", "root/lib", "root/utilbin", "root/default/common", "spool/qmaster/job_scripts", user="sgeadmin"
    )
    grid.folders("root", "root/default", "spool", "spool/qmaster", "spool/spooldb", "spool/execd", user="sgeadmin")
    for name in ("bin", "lib", "utilbin"):
        (root / name / "lx-amd64").symlink_to(_BIN)
    (root / "util").symlink_to(_SHARE / "util")
    names = [host, "localhost", *socket.gethostbyaddr("127.0.0.1")[1]]
    (common / "host_aliases").write_text(" ".join(dict.fromkeys(names)) + "\n")  # 127.0.0.1 must have one name
    (common / "act_qmaster").write_text(f"{host}\n")
    (common / "cluster_name").write_text("computeops\n")
    places = {
        "spooling_params": grid.folder / "spool/spooldb",
        "qmaster_spool_dir": grid.folder / "spool/qmaster",
        "binary_path": root / "bin",
    }
    (common / "bootstrap").write_text(_changed((_SHARE / "default-bootstrap").read_text(), places))
    for path in common.iterdir():
        shutil.chown(path, "sgeadmin", "sgeadmin")
    grid.env |= {
        "SGE_ROOT": str(root),
        "SGE_CELL": "default",
        "SGE_QMASTER_PORT": str(free_port()),
        "SGE_EXECD_PORT": str(free_port()),
        "SGE_ARCH": "lx-amd64",
    }
    _initialise(grid)
    _master(grid)
    _configure(grid, host)
    return grid


def _master(grid: Daemons) -> None:
    grid.start([_BIN / "sge_qmaster"], env={"SGE_ND": "1"})
    grid.wait(lambda: grid.run([_BIN / "qconf", "-sh"], check=False).strip() != "")


def crash(grid: Daemons, saved: str) -> Callable[[], None]:
    """Kill the master, which has every job on its disk at once; return what starts it again."""
    assert saved
    grid.killed("sge_qmaster")
    return lambda: _master(grid)


def _initialise(grid: Daemons) -> None:
    changes = {
        "execd_spool_dir": grid.folder / "spool/execd",
        "shell_start_mode": "unix_behavior",
        "load_report_time": "00:00:02",
        "mailer": "/bin/true",
        "administrator_mail": "none",
    }
    text = _changed((_SHARE / "default-configuration").read_text(), changes)
    conf = grid.write("conf", text.replace("flush_time=00:00:15", "flush_time=00:00:00"))
    resources = _SHARE / "util/resources"
    words = [f"{name}={grid.env[name]}" for name in ("SGE_ROOT", "SGE_CELL", "SGE_ARCH")]
    admin = ["setpriv", "--reuid=sgeadmin", "--regid=sgeadmin", "--clear-groups", "env", *words]
    grid.run([*admin, _BIN / "spoolinit", "berkeleydb", "libspoolb", grid.folder / "spool/spooldb", "init"])
    for what in (
        ["configuration", conf],
        ["complexes", resources / "centry"],
        ["usersets", resources / "usersets"],
        ["managers", "sgeadmin", "root"],
    ):
        grid.run([*admin, _BIN / "spooldefaults", *what])


def _configure(grid: Daemons, host: str) -> None:
    qconf = _BIN / "qconf"
    grid.run([qconf, "-ah", host], check=False)
    grid.run([qconf, "-as", host], check=False)
    fast = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
    grid.run([qconf, "-Msconf", grid.write("sched", _changed(grid.run([qconf, "-ssconf"]), fast))])
    grid.start([_BIN / "sge_execd"], env={"SGE_ND": "1"})
    grid.wait(lambda: host in grid.run([qconf, "-se", host], check=False))
    grid.run([qconf, "-Ap", grid.write("pe", _ENVIRONMENT)])
    complexes = "\n".join(line for line in grid.run([qconf, "-sc"]).splitlines() if not line.startswith("#"))
    grid.run([qconf, "-Mc", grid.write("complexes", f"{complexes}\ngpu gpu INT <= YES YES 0 0\n")])
    grid.run([qconf, "-rattr", "exechost", "complex_values", f"gpu=2,slots={_SLOTS}", host])
    grid.run([qconf, "-Ahgrp", grid.write("hosts", f"group_name @allhosts\nhostlist {host}\n")])
    queue = {
        "qname": "all.q",
        "hostlist": "@allhosts",
        "slots": _SLOTS,
        "pe_list": "smp",
        "shell": "/bin/sh",
        "load_thresholds": "NONE",  # a busy test machine would start nothing
        "shell_start_mode": "unix_behavior",
    }
    grid.run([qconf, "-Aq", grid.write("queue", _changed(grid.run([qconf, "-sq"]), queue))])
    grid.wait(
        lambda: (
            re.search(r"all\.q@\S+ +\S+ +\S+ +[0-9.]+ +\S+ *$", grid.run([_BIN / "qstat", "-f"]), re.MULTILINE)
            is not None
        )
    )


def _changed(text: str, values: dict[str, object]) -> str:
    """A configuration of `name value` lines with other values."""
    for name, value in values.items():
        text = re.sub(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
    return text


_ENVIRONMENT = """\
pe_name smp
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves TRUE
job_is_first_task TRUE
urgency_slots min
accounting_summary TRUE
qsort_args NONE
"""
