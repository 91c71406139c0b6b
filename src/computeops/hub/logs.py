"""The log of a hub, on standard error: lines for people, or one JSON object a line for machines."""

import json
import logging
import sys
import time

ACCESS = logging.getLogger("computeops.hub.access")
"""One line for each request, when asked for; it never has a token or a query string."""


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= getattr(record, "facts", {})
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")


def begin(form: str) -> None:
    """Write the log as `json`, or as `text` without a line for each request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger("computeops")
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
    # not `disabled`, which the server's own configuration of logging resets
    ACCESS.setLevel(logging.INFO if form == "json" else logging.WARNING)


def request(door: str, method: str, path: str, status: int, seconds: float, sent: int, client: str) -> None:
    """Log one request."""
    if not ACCESS.isEnabledFor(logging.INFO):
        return
    facts = {"door": door, "method": method, "path": path, "status": status, "client": client}
    facts |= {"milliseconds": round(seconds * 1000, 1), "sent": sent}
    ACCESS.info("%s %s %s", method, path, status, extra={"facts": facts})
