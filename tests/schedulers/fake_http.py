"""Fakes of Docker Swarm and of Chronos: HTTP servers that answer as their manuals say, and run the commands here.

They never look at the image. What is tested by them is our side of the contract.
"""

import json
import os
import re
import subprocess
import threading
import urllib.parse
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Fake(ABC):
    """An HTTP server on loopback, with what it was asked to run."""

    def __init__(self) -> None:
        fake = self
        self.asked: list[dict[str, Any]] = []
        """Bodies of all jobs that were handed over."""
        self.down = False

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else {}
                address = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(address.query))
                code, answer = (
                    (503, {"message": "down"}) if fake.down else fake.answer(self.command, address.path, query, body)
                )
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

    @abstractmethod
    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the JSON of the answer."""

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Swarm(Fake):
    """/services, /tasks and their logs (https://docs.docker.com/reference/api/engine/version/v1.41/)."""

    def __init__(self) -> None:
        super().__init__()
        self._services: dict[str, dict[str, Any]] = {}
        self._tasks: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        filters = json.loads(query.get("filters", "{}"))
        if (method, path) == ("POST", "/v1.41/services/create"):
            return self._create(body)
        if (method, path) == ("GET", "/v1.41/services"):
            return 200, [{"ID": key, "Spec": spec} for key, spec in self._services.items()]
        if (method, path) == ("GET", "/v1.41/tasks"):
            return 200, [self._told(one) for one in self._tasks if one["ServiceID"] in filters["service"]]
        if found := re.fullmatch(r"/v1\.41/tasks/(\w+)/logs", path):
            process = next(one["process"] for one in self._tasks if one["ID"] == found[1])
            pieces = [(1, process.stdout.read()), (2, process.stderr.read())]
            return 200, b"".join(
                bytes((stream, 0, 0, 0)) + len(data).to_bytes(4) + data for stream, data in pieces if data
            )
        if found := re.fullmatch(r"/v1\.41/services/(\w+)", path):
            return self._remove(found[1])
        return 404, {"message": "page not found"}

    def _create(self, spec: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append(spec)
        if any(one["Name"] == spec["Name"] for one in self._services.values()):
            return 409, {"message": "name conflicts with an existing object"}
        if spec["TaskTemplate"].get("Placement", {}).get("Constraints"):
            return 400, {"message": "no such label on any node"}
        key = f"s{len(self.asked)}"
        self._services[key] = spec
        for slot in range(spec["Mode"]["ReplicatedJob"]["TotalCompletions"]):
            self._begin(key, slot)
        return 201, {"ID": key}

    def _begin(self, key: str, slot: int) -> None:
        container = self._services[key]["TaskTemplate"]["ContainerSpec"]
        env = dict(word.replace("{{.Task.Slot}}", str(slot)).split("=", 1) for word in container["Env"])
        process = subprocess.Popen(
            container["Command"],
            env={"PATH": os.environ["PATH"], **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        number = len(self._tasks)
        task = {"ID": f"t{number}", "ServiceID": key, "Slot": slot, "CreatedAt": f"2026-01-01T00:00:{number:02}Z"}
        self._tasks.append({**task, "process": process, "again": False})

    def _told(self, task: dict[str, Any]) -> dict[str, Any]:
        code = task["process"].poll()
        status: dict[str, Any] = {"State": "running"}
        if code is not None:
            code = 128 - code if code < 0 else code
            status = {"State": "failed" if code else "complete", "ContainerStatus": {"ExitCode": code}}
            policy = self._services[task["ServiceID"]]["TaskTemplate"]["RestartPolicy"]
            tries = sum(one["ServiceID"] == task["ServiceID"] and one["Slot"] == task["Slot"] for one in self._tasks)
            if code and not task["again"] and policy["Condition"] == "on-failure" and tries <= policy["MaxAttempts"]:
                task["again"] = True
                self._begin(task["ServiceID"], task["Slot"])
        return {key: value for key, value in task.items() if key not in {"process", "again"}} | {"Status": status}

    def _remove(self, key: str) -> tuple[int, Any]:
        if self._services.pop(key, None) is None:
            return 404, {"message": "service not found"}
        for task in self._tasks:
            if task["ServiceID"] == key:
                task["process"].kill()
                task["process"].communicate()
        self._tasks = [one for one in self._tasks if one["ServiceID"] != key]
        return 200, {}

    def stop(self) -> None:
        super().stop()
        for task in self._tasks:
            task["process"].kill()
            task["process"].wait()
            for stream in (task["process"].stdout, task["process"].stderr):
                stream.close()


class Chronos(Fake):
    """/v1/scheduler (https://mesos.github.io/chronos/docs/api.html)."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, method: str, path: str, _: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
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
        super().stop()
        for process in self._processes.values():
            process.kill()
            process.wait()
