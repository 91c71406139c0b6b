"""A fake of Chronos: an HTTP server that answers as its manual says, and runs the commands here.

It never looks at the image. What is tested by it is our side of the contract.
"""

import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Chronos:
    """/v1/scheduler (https://mesos.github.io/chronos/docs/api.html), on loopback."""

    def __init__(self) -> None:
        fake = self
        self.asked: list[dict[str, Any]] = []
        """Bodies of all jobs that were handed over."""
        self._jobs: dict[str, dict[str, Any]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else {}
                code, answer = fake._answer(self.command, self.path, body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        for verb in ("GET", "POST", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler._serve)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"tcp://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        if method == "POST" and path in {"/v1/scheduler/iso8601", "/v1/scheduler/dependency"}:
            self.asked.append(body)
            assert ("parents" in body) == path.endswith("dependency")
            if body["container"]["image"].endswith("refused"):
                return 400, {"message": "bad image"}
            self._jobs[body["name"]] = {**body, "successCount": 0, "errorCount": 0}
            self._turn()
            return 204, b""
        if (method, path) == ("GET", "/v1/scheduler/jobs"):
            self._turn()
            return 200, list(self._jobs.values())
        if found := re.fullmatch(r"/v1/scheduler/(?:task/kill|job)/([^/]+)", path):
            if "/task/" in path:
                if process := self._processes.pop(found[1], None):
                    process.kill()
                    process.wait()
            else:
                self._jobs.pop(found[1], None)
            return 204, b""
        return 404, b""

    def _turn(self) -> None:
        for name, job in self._jobs.items():
            process = self._processes.get(name)
            if (
                process
                and process.poll() is not None
                and not job["successCount"]
                and job["errorCount"] <= job["retries"]
            ):
                job["errorCount" if process.returncode else "successCount"] += 1
                process = None if process.returncode and job["errorCount"] <= job["retries"] else process
            ready = all(self._jobs[one]["successCount"] for one in job.get("parents", []) if one in self._jobs)
            if process is None and ready:
                env = {one["name"]: one["value"] for one in job["environmentVariables"]}
                self._processes[name] = subprocess.Popen(
                    ["/bin/sh", "-c", job["command"]], env={"PATH": os.environ["PATH"], **env}, start_new_session=True
                )

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for process in self._processes.values():
            process.kill()
            process.wait()
