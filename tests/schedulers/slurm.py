"""A real Slurm: munged, slurmctld and two slurmd on this machine, with fake GPUs; accounting with `accounting()`."""

import os
import shutil
import socket
import stat
from collections.abc import Callable

from schedulers.daemons import Daemons, free_port

CPUS = 8
"""Of each node, as Slurm believes: the tests want many small jobs at once."""


def up(*, accounting: bool = False) -> Daemons:
    slurm = Daemons("slurm")
    folder, host = slurm.folder, socket.gethostname().partition(".")[0]
    slurm.folders("munge", user="munge")
    slurm.folders("ctld", "log", user="slurm")
    _munge(slurm)
    for node in ("n1", "n2"):
        (folder / f"spool-{node}").mkdir()
        for gpu in range(2):
            os.mknod(folder / f"gpu-{node}-{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    accounts = _accounting(slurm, host) if accounting else ""
    conf = slurm.write(
        "slurm.conf", _CONF.format(S=folder, H=host, P=[free_port() for _ in range(3)], C=CPUS) + accounts
    )
    slurm.write("gres.conf", _GRES.format(S=folder))
    slurm.write("cgroup.conf", "CgroupPlugin=disabled\n")
    slurm.env["SLURM_CONF"] = str(conf)
    if accounting:
        slurm.wait(lambda: "Cluster" in slurm.run(["sacctmgr", "show", "cluster"], check=False))
        slurm.run(["sacctmgr", "-i", "add", "cluster", "computeops"], check=False)
    _controller(slurm)  # a node whose first registration is lost would be unknown for half a minute
    for node in ("n1", "n2"):
        slurm.start(["/usr/sbin/slurmd", "-D", "-N", node, "-f", conf])
    slurm.wait(lambda: slurm.run(["sinfo", "-h", "-p", "debug", "-t", "idle", "-o", "%D"], check=False).strip() == "2")
    return slurm


def _controller(slurm: Daemons) -> None:
    slurm.start(["/usr/sbin/slurmctld", "-D", "-i", "-f", slurm.env["SLURM_CONF"]])
    slurm.wait(lambda: "is UP" in slurm.run(["scontrol", "ping"], check=False))


def crash(slurm: Daemons, saved: str) -> Callable[[], None]:
    """Kill the controller once the job called `saved` is on its disk; return what starts it again."""
    slurm.wait(lambda: saved.encode() in (slurm.folder / "ctld/job_state").read_bytes())
    slurm.killed("slurmctld")
    return lambda: _controller(slurm)


def _munge(slurm: Daemons) -> None:
    key = slurm.write("munge.key", "", mode=0o400)
    key.write_bytes(os.urandom(1024))
    shutil.chown(key, "munge", "munge")
    place = slurm.folder / "munge"
    words = [f"--{name}-file={place}/munged.{name}" for name in ("pid", "log", "seed")]
    slurm.start(
        ["/usr/sbin/munged", "--foreground", f"--socket={place}/socket", f"--key-file={key}", *words], user="munge"
    )
    slurm.wait((place / "socket").exists)


def _accounting(slurm: Daemons, host: str) -> str:
    """Start MariaDB and slurmdbd, and return their lines of slurm.conf."""
    slurm.folders("db", user="mysql")
    data, sock, port = slurm.folder / "db/data", slurm.folder / "db/s", free_port()
    install = ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db"]
    slurm.run([*install, "--auth-root-authentication-method=socket"])
    slurm.start(
        ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={sock}", "--skip-networking"]
    )
    mariadb = ["mariadb", "--no-defaults", "-S", sock, "-e"]
    slurm.wait(lambda: "1" in slurm.run([*mariadb, "select 1"], check=False))
    slurm.run([*mariadb, _SQL])
    conf = slurm.write("slurmdbd.conf", _DBD.format(S=slurm.folder, H=host, P=port), mode=0o600)
    shutil.chown(conf, "slurm", "slurm")
    slurm.write("slurm.conf", "")
    env = {"SLURM_CONF": f"{slurm.folder}/slurm.conf", "MYSQL_UNIX_PORT": str(sock)}
    slurm.start(["/usr/sbin/slurmdbd", "-D"], user="slurm", env=env)
    return (
        "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
        f"AccountingStoragePort={port}\nAccountingStoragePass={slurm.folder}/munge/socket\n"
        "AccountingStorageTRES=gres/gpu\n"
    )


_SQL = (
    "create database slurm_acct_db; create or replace user 'slurm'@'localhost' identified via unix_socket;"
    "grant all on slurm_acct_db.* to 'slurm'@'localhost'"
)
_DBD = """\
DbdHost={H}
DbdAddr=127.0.0.1
DbdPort={P}
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket={S}/munge/socket
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
CommunicationParameters=NoInAddrAny
PidFile={S}/ctld/slurmdbd.pid
LogFile={S}/log/slurmdbd.log
"""
_CONF = """\
ClusterName=computeops
SlurmctldHost={H}(127.0.0.1)
SlurmUser=slurm
SlurmctldPort={P[0]}
SlurmctldPidFile={S}/ctld/slurmctld.pid
SlurmdPidFile={S}/spool-%n/slurmd.pid
SlurmdSpoolDir={S}/spool-%n
StateSaveLocation={S}/ctld
SlurmctldLogFile={S}/log/slurmctld.log
SlurmdLogFile={S}/log/slurmd-%n.log
AuthType=auth/munge
AuthInfo=socket={S}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
MpiDefault=pmi2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
KillWait=5
MinJobAge=3600
MaxArraySize=20001
MaxJobCount=50000
SlurmdTimeout=30
GresTypes=gpu
NodeName=n1 NodeHostname={H} NodeAddr=127.0.0.1 Port={P[1]} CPUs={C} RealMemory=4096 Gres=gpu:fake:2 State=UNKNOWN
NodeName=n2 NodeHostname={H} NodeAddr=127.0.0.1 Port={P[2]} CPUs={C} RealMemory=4096 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=256
"""
_GRES = """\
AutoDetect=off
NodeName=n1 Name=gpu Type=fake File={S}/gpu-n1-[0-1]
NodeName=n2 Name=gpu Type=fake File={S}/gpu-n2-[0-1]
"""
