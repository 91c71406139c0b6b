"""A real HTCondor pool on this machine: collector, negotiator, schedd and startd under one condor_master."""

import contextlib
import os
import signal
from collections.abc import Callable

from schedulers.daemons import Daemons, free_port


def up() -> Daemons:
    condor = Daemons("htcondor")
    condor.folders("log", "spool", "execute", "run", "lock", user="condor")
    condor.folders("etc", "tokens", "pw", user="root")
    conf = condor.write("condor_config", _CONF.format(S=condor.folder, P=free_port()))
    condor.env["CONDOR_CONFIG"] = str(conf)
    condor.start(["/usr/sbin/condor_master", "-f"])
    condor.wait(lambda: "slot" in condor.run(["condor_status", "-af", "Name"], check=False))
    condor.wait(lambda: bool(condor.run(["condor_status", "-schedd", "-af", "Name"], check=False).strip()))
    return condor


def crash(condor: Daemons, saved: str) -> Callable[[], None]:
    """Kill the schedd, which has every job on its disk at once; its master starts it again, and that is waited for."""
    assert saved
    (schedd,) = condor.run(["pgrep", "-P", str(condor.master.pid), "condor_schedd"]).split()
    os.kill(int(schedd), signal.SIGKILL)
    return lambda: condor.wait(
        lambda: condor.run(["condor_q", "-allusers", "-af", "ClusterId"], check=False).strip() != ""
    )


def down(condor: Daemons) -> None:
    """End the master and its children by force: a startd takes ten seconds to go by itself."""
    master = condor.master
    children = condor.run(["pgrep", "-P", str(master.pid)], check=False).split()
    condor.stop(signal.SIGKILL)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


_CONF = """\
RELEASE_DIR = /usr
LOCAL_DIR = {S}
LOCAL_CONFIG_DIR =
LOCAL_CONFIG_FILE =
LOG = {S}/log
SPOOL = {S}/spool
EXECUTE = {S}/execute
RUN = {S}/run
LOCK = {S}/lock
ETC = {S}/etc
BIN = /usr/bin
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SHARE = /usr/share/condor
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:{P}
USE_SHARED_PORT = True
SHARED_PORT_PORT = {P}
COLLECTOR_USES_SHARED_PORT = True
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False
UID_DOMAIN = computeops.local
FILESYSTEM_DOMAIN = computeops.local
DEFAULT_DOMAIN_NAME = computeops.local
TRUST_UID_DOMAIN = True
SOFT_UID_DOMAIN = True
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
use security:recommended_v9_0
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
SEC_PASSWORD_DIRECTORY = {S}/pw
SEC_TOKEN_SYSTEM_DIRECTORY = {S}/tokens
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = root@computeops.local, condor@computeops.local
ALLOW_ADMINISTRATOR = root@computeops.local, condor@computeops.local
use feature:PartitionableSlot
NUM_CPUS = 16
MEMORY = 8192
START = True
SUSPEND = False
PREEMPT = False
KILL = False
WANT_SUSPEND = False
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 2
UPDATE_INTERVAL = 3
CLAIM_WORKLIFE = 60
JOB_START_DELAY = 0
BASE_CGROUP =
USE_PID_NAMESPACES = False
MOUNT_UNDER_SCRATCH =
DISCARD_SESSION_KEYRING_ON_STARTUP = False
SINGULARITY = /usr/bin/apptainer
HasSIF = True
STARTD_ATTRS = $(STARTD_ATTRS) HasSIF
"""
