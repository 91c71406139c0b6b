"""The Container Device Interface: files in which a site says what a device needs in a container.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md (1.0). Devices, mounts and variables are taken
as they are. Hooks are programs of the site for OCI runtimes and are not run; what NVIDIA's do, the names under which
the loader looks for libraries, is done here by reading them from the libraries.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from computeops.engine.model import Bind
from computeops.errors import EngineError, did_you_mean
from computeops.host import elf
from computeops.limits import LIMITS

FOLDERS = ("etc/cdi", "var/run/cdi")
"""Of two files about one device, that in the later folder wins."""
LIBRARIES = "/.singularity.d/libs"
"""Where the libraries of drivers are in a container, as under Apptainer; its environment names this folder."""
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Edits:
    """What a container gets for a device."""

    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def joined(self, other: "Edits") -> "Edits":
        """Return both, each place once."""
        binds = {bind.target: bind for bind in (*self.binds, *other.binds)}
        return Edits(tuple(binds.values()), {**self.env, **other.env})


def kinds(root: Path = Path("/")) -> dict[str, tuple[str, ...]]:
    """Return VENDOR/CLASS to the names of its devices, of all files that can be read; broken ones are passed over."""
    found: dict[str, tuple[str, ...]] = {}
    for spec in _specs(root):
        names = [str(one.get("name")) for one in _tables(spec.get("devices"))]
        found[str(spec["kind"])] = tuple(dict.fromkeys((*found.get(str(spec["kind"]), ()), *names)))
    return found


def device(name: str, root: Path = Path("/")) -> Edits:
    """Return what the device VENDOR/CLASS=NAME needs; `all` is every device where a site did not name one so.

    Raises:
        EngineError: no file describes it.
    """
    kind, _, wanted = name.partition("=")
    edits: dict[str, Edits] = {}
    for spec in _specs(root):
        if spec["kind"] != kind:
            continue
        common = _edits(spec.get("containerEdits"), root)
        for one in _tables(spec.get("devices")):
            edits[str(one.get("name"))] = common.joined(_edits(one.get("containerEdits"), root))
    if wanted in edits:
        return edits[wanted]
    if wanted == _ALL and edits:
        return _together(edits.values())
    known = [f"{kind}={one}" for kind, names in kinds(root).items() for one in names]
    raise EngineError(
        f"no CDI device is called {name!r}{did_you_mean(name, known)}",
        hint=f"there are: {', '.join(known) or 'none'}; nvidia-ctk cdi generate describes NVIDIA's",
    )


def _together(every: Iterable[Edits]) -> Edits:
    found = Edits()
    for one in every:
        found = found.joined(one)
    return found


def _specs(root: Path) -> Iterator[Mapping[str, Any]]:
    """Yield every file that is a CDI specification, those that win last."""
    for folder in FOLDERS:
        for file in sorted((root / folder).glob("*")):
            spec = _read(file) if file.suffix in {".json", ".yaml", ".yml"} else None
            if isinstance(spec, dict) and isinstance(spec.get("kind"), str) and "cdiVersion" in spec:
                yield spec


def _read(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMITS.recipe_bytes + 1)
        if len(data) > LIMITS.recipe_bytes:
            return None
        return json.loads(data) if file.suffix == ".json" else _yaml(data)
    except (OSError, ValueError, RecursionError):
        return None


def _yaml(data: bytes) -> Any:
    """Return a YAML document.

    Raises:
        ValueError: it is none; EngineError: what reads YAML is not installed.
    """
    try:
        import yaml  # type: ignore[import-untyped]  # no stubs: they would be one more dependency
    except ImportError as error:
        raise EngineError(
            "this machine describes its devices in YAML, and PyYAML is not installed",
            hint="pip install 'computeops[gpu]'",
        ) from error
    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe loaders
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _edits(found: Any, root: Path) -> Edits:
    """Return the containerEdits of a file; a device or mount that this machine does not have is left out."""
    if not isinstance(found, dict):
        return Edits()
    binds = [*_devices(_tables(found.get("deviceNodes")), root), *_mounts(_tables(found.get("mounts")), root)]
    words = [one for one in found.get("env") or [] if isinstance(one, str)]
    return Edits(tuple(binds), {name: value for name, _, value in (one.partition("=") for one in words) if name})


def _devices(nodes: Sequence[Mapping[str, Any]], root: Path) -> Iterator[Bind]:
    for node in nodes:
        target = str(node.get("path", ""))
        source = _inside(root, str(node.get("hostPath") or target))
        if target.startswith("/dev/") and source.exists():
            yield Bind(source, target)


def _mounts(mounts: Sequence[Mapping[str, Any]], root: Path) -> Iterator[Bind]:
    for mount in mounts:
        source, target = _inside(root, str(mount.get("hostPath", ""))), str(mount.get("containerPath", ""))
        if not target.startswith("/") or not source.exists():
            continue
        if ".so" not in source.name or not source.is_file():
            options = mount.get("options") or []
            yield Bind(source, target, read_only="ro" in options or "rw" not in options)
            continue
        for name in dict.fromkeys((source.name, elf.read(source).soname or source.name)):
            yield Bind(source, f"{LIBRARIES}/{name}", read_only=True)


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _tables(found: Any) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
