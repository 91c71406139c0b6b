"""A machine described in a file, so that `fit` can say at a desk what will run on a cluster."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from computeops.errors import LimitError, UsageError
from computeops.host.model import Host
from computeops.limits import LIMITS


def load(file: Path) -> Host:
    """Read the machine that `file` describes, as `computeops host --toml` writes it.

    Raises:
        UsageError: it cannot be read, or does not describe a machine; LimitError: it is too large.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMITS.recipe_bytes + 1)
        if len(data) > LIMITS.recipe_bytes:
            raise LimitError(f"{file}: larger than {LIMITS.recipe_bytes} bytes")
        return msgspec.convert(tomllib.loads(data.decode()), Host)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOML and msgspec say what is wrong, and where
        raise UsageError(f"{file} does not describe a machine: {error}", hint=_HINT) from error


_HINT = "computeops host --toml writes such a file"


def dump(host: Host) -> str:
    """Return the TOML document that describes `host`."""
    facts: dict[str, Any] = msgspec.to_builtins(host)
    lines = [f"{key} = {_value(value)}" for key, value in facts.items() if not _is_tables(value)]
    for key, tables in facts.items():
        if _is_tables(tables):
            lines += [line for table in tables for line in _table(key, table)]
    return "\n".join(lines) + "\n"


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict)


def _table(key: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"[[{key}]]")
    yield from (f"{name} = {_value(value)}" for name, value in table.items())


def _value(value: Any) -> str:
    """Return a value of TOML: texts, numbers, booleans and lists of texts look there as in JSON."""
    return json.dumps(value).replace("\x7f", "\\u007f")
