"""The inventory of each image that was pushed, made once, by a process of its own within bounds.

That process reads what strangers pushed: it has a bound of memory, of processor time and of what it may write, none of
the hub's secrets, and is killed when it takes too long. What cannot be read is remembered with the reason, which makes
the verdict `unscannable`; it is tried again only where the machine was at fault, and not the image.
"""

import contextlib
import hashlib
import os
import resource
import secrets
import shutil
import signal
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from computeops import proc
from computeops.check.inventory import Inventory, Package, System, of_image
from computeops.errors import ComputeOpsError, FormatError, LimitError, StorageError
from computeops.files import whole_file
from computeops.hub import contents, sifs
from computeops.hub.db import upsert
from computeops.hub.facts import clean
from computeops.hub.state import Hub
from computeops.hub.tables import manifests
from computeops.hub.vulnerabilities import gates
from computeops.hub.vulnerabilities.tables import inventories, systems, uses, verdicts
from computeops.hub.vulnerabilities.tables import packages as package_rows
from computeops.limits import LIMITS
from computeops.model import Digest

TRIES = 3
_PAUSE_SECONDS = 600
_POLL_SECONDS = 0.05
_OUTPUT_BYTES = 64 * 1024 * 1024
_TEXT = 300
_BATCH = 400
_KEY_BYTES = 16

_encode, _decode = msgspec.json.Encoder(order="sorted").encode, msgspec.json.Decoder(Inventory).decode


def want(connection: sa.Connection, repository: int, digest: str) -> None:
    """Let the image `digest`, just pushed to a repository, be inventoried and judged, if it was not yet."""
    upsert(connection, inventories, _waiting(digest), on=["digest"], keep=True)
    strict = gates.strict(connection, repository)
    row = {"repository": repository, "digest": digest, "verdict": "waiting", "counts": [], "changed": int(time.time())}
    more = {"pending": True, "told": 0, "blocked_from": 0 if strict else None, "why": gates.UNJUDGED if strict else ""}
    upsert(connection, verdicts, row | more, keep=True)


def _waiting(digest: str) -> Mapping[str, Any]:
    now = int(time.time())
    made: dict[str, Any] = {
        "digest": digest,
        "system": None,
        "packages": b"",
        "kinds": {},
        "owned": 0,
        "unread": [],
        "fault": "",
    }
    return made | {"tries": 0, "due": now, "made": now}


# the process that reads the image


def read(image: Path, output: Path, *, memory_bytes: int, seconds: int) -> None:
    """Write the packages of `image` to `output`, as JSON. For a process that does nothing else: its bounds stay.

    Raises:
        FormatError, LimitError: the image, or a package database in it, is broken or larger than is read.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITS.package_files_bytes, LIMITS.package_files_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found = of_image(image, tmp=output.parent)
        data = _encode(found)
    except MemoryError:
        raise LimitError(f"the image needs more than {memory_bytes} bytes of memory to be read") from None
    except (OSError, UnicodeError) as error:
        raise FormatError(f"the image cannot be read: {error!s:.200}") from error
    if len(data) > _OUTPUT_BYTES:
        raise LimitError(f"the list of its packages has more than {_OUTPUT_BYTES} bytes")
    with whole_file(output) as file:
        file.write(data)


# the hub's side


def next_waiting(hub: Hub) -> sa.Row[Any] | None:
    """Return the image that has waited longest for its inventory."""
    due = sa.select(inventories).where(inventories.c.due <= int(time.time())).order_by(inventories.c.due)
    with hub.database.read() as connection:
        return connection.execute(due.limit(1)).first()


def make(hub: Hub, row: sa.Row[Any], keep: Callable[[Inventory], None], stopped: Callable[[], bool]) -> bool:
    """Make the inventory that is wanted in `row` and `keep` it; return whether it was done, for better or worse."""
    folder = hub.blobs.work / secrets.token_hex(16)
    try:
        folder.mkdir(parents=True)
        with _opened(hub, row.digest, folder) as image:
            found = _read_apart(image, folder / "packages.json", stopped)
        if found is None:
            return False
        keep(found)
    except (StorageError, OSError) as error:  # this machine's fault
        _fail(hub, row, str(error), again=row.tries + 1 < TRIES)
    except ComputeOpsError as error:
        _fail(hub, row, error.message, again=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


@contextlib.contextmanager
def _opened(hub: Hub, digest: str, folder: Path) -> Iterator[Path]:
    """Give the image as a file or layout of this machine, without copying what is here already."""
    query = sa.select(manifests).where(manifests.c.digest == digest).limit(1)
    with hub.database.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        raise FormatError("it was deleted")
    if hub.blobs.storage.local("blobs/x") is None:
        size = contents.describe(hub.blobs, row.body).size
        if size > shutil.disk_usage(folder).free // 2:
            raise StorageError(f"there is no room for an image of {size} bytes", hint="ask the operator of the hub")
    layer = sifs.layer(row)
    if layer is None:
        hub.making.lay_out(folder / "image", row)
        yield folder / "image"
    else:
        with hub.blobs.file(Digest.parse(str(layer["digest"]))) as file:
            yield file


def _read_apart(image: Path, output: Path, stopped: Callable[[], bool]) -> Inventory | None:
    """Read an image in another process; None: the hub ends.

    Raises:
        FormatError, LimitError: it could not be read.
    """
    argv = [sys.executable, "-m", "computeops", "hub", "inventory", str(image), str(output)]
    env = {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one), "LANG": "C.UTF-8"}
    log = output.with_name("log")
    with log.open("wb") as said:
        child = proc.start(
            argv, env=env, stdin=proc.DEVNULL, stdout=said, stderr=said, cwd=output.parent, new_session=True
        )
        with child:
            end = time.monotonic() + LIMITS.inventory_seconds
            while child.poll() is None and time.monotonic() < end and not stopped():
                time.sleep(_POLL_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if stopped():
        return None
    if child.returncode != 0 or not output.exists():
        raise FormatError(_why(child.returncode, log))
    try:
        return _decode(output.read_bytes())
    except msgspec.MsgspecError as error:
        raise FormatError(f"its inventory cannot be read: {error}") from error


def _why(code: int, log: Path) -> str:
    if code < 0:
        return f"it took more time or memory than an image may: {signal.Signals(-code).name}"
    with log.open("rb") as file:
        lines = file.read(_TEXT * 10).decode(errors="replace").splitlines()
    return clean(lines[0].removeprefix("error: ") if lines else "it could not be read", _TEXT)


def _fail(hub: Hub, row: sa.Row[Any], fault: str, *, again: bool) -> None:
    due = int(time.time()) + _PAUSE_SECONDS if again else None
    new = {"fault": clean(fault, _TEXT), "tries": row.tries + 1, "due": due, "made": int(time.time())}
    with hub.database.write() as connection:
        connection.execute(sa.update(inventories).where(inventories.c.id == row.id).values(**new))
        connection.execute(sa.update(verdicts).where(verdicts.c.digest == row.digest).values(pending=True))


def store(connection: sa.Connection, number: int, found: Inventory) -> Sequence[int]:
    """Keep the inventory with this number, and return the ids of those of its packages that no image had before."""
    system = _system(connection, found.system)
    judged = [one for one in found.packages if not one.owner]
    known, new_ones = _interned(connection, system, judged)
    ids = sorted(known | new_ones)
    connection.execute(sa.delete(uses).where(uses.c.inventory == number))
    if ids:
        connection.execute(sa.insert(uses), [{"package": one, "inventory": number} for one in ids])
    new = {
        "system": system,
        "packages": array("I", ids).tobytes(),
        "kinds": dict(Counter(one.kind for one in judged)),
        "owned": len(found.packages) - len(judged),
        "unread": [[clean(text, _TEXT) for text in (one.kind, one.place, one.why)] for one in found.unread[:100]],
        "fault": "",
        "due": None,
        "made": int(time.time()),
    }
    connection.execute(sa.update(inventories).where(inventories.c.id == number).values(**new))
    return sorted(new_ones)


def _system(connection: sa.Connection, system: System) -> int:
    row = {"name": system.id, "version": system.version, "title": clean(system.title, _TEXT)}
    upsert(connection, systems, row, on=list(row), keep=True)
    query = sa.select(systems.c.id).where(*(systems.c[name] == value for name, value in row.items()))
    return int(connection.execute(query).scalar_one())


def _interned(connection: sa.Connection, system: int, found: Sequence[Package]) -> tuple[set[int], set[int]]:
    """Return the ids of the packages that were known, and of those that are new."""
    rows: dict[str, Mapping[str, Any]] = {}
    for one in found:
        body = _encode(replace(one, place=""))
        key = hashlib.blake2b(b"%d:%b" % (system, body), digest_size=_KEY_BYTES).hexdigest()
        told = {"key": key, "system": system, "body": body.decode(), "counts": ""}
        rows[key] = told | {"name": clean(one.name, _TEXT), "version": clean(one.version, _TEXT)}
    known, made = set[int](), set[int]()
    keys = list(rows)
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        query = sa.select(package_rows.c.key, package_rows.c.id).where(package_rows.c.key.in_(batch))
        there = {row.key: row.id for row in connection.execute(query)}
        known.update(there.values())
        if lacking := [rows[key] for key in batch if key not in there]:
            connection.execute(sa.insert(package_rows), lacking)
            made.update(row.id for row in connection.execute(query) if row.key not in there)
    return known, made
