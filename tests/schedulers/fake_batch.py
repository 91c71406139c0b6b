#!/usr/bin/env python3
"""A fake batch system that speaks the commands of LSF, PBS Pro or Torque as their manuals describe them.

Not the real thing: no package offers those. It is called under the name of the command (bsub, qstat ...), keeps its
jobs in the folder that its own variable names, and runs them as processes of this machine. Only the words, answers and
exit codes that the manuals promise are spoken; a word that it does not know is an error.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.sax.saxutils import escape

DIALECT = "lsf"
VARIABLE = {"lsf": "LSF_ENVDIR", "pbs": "PBS_CONF_FILE", "torque": "PBS_DEFAULT"}
VALUED = {
    "lsf": {"-J", "-cwd", "-o", "-n", "-R", "-gpu", "-M", "-W", "-w", "-q", "-P"},
    "pbs": {"-N", "-S", "-j", "-o", "-l", "-J", "-W", "-q", "-A"},
    "torque": {"-N", "-S", "-j", "-o", "-l", "-t", "-W", "-q", "-A"},
}
FLAGS = {"lsf": {"-ti"}, "pbs": {"-V"}, "torque": {"-V"}}
INDEX = {"lsf": "LSB_JOBINDEX", "pbs": "PBS_ARRAY_INDEX", "torque": "PBS_ARRAYID"}
NO_JOB = {"lsf": 255, "pbs": 153, "torque": 153}


def fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def words(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options with their values, and what stands behind them."""
    found: dict[str, list[str]] = {}
    while argv and argv[0].startswith("-"):
        name = argv.pop(0)
        if name in VALUED[DIALECT]:
            found.setdefault(name, []).append(argv.pop(0))
        elif name in FLAGS[DIALECT]:
            found[name] = []
        else:
            fail(f"illegal option {name}", 2)
    return found, argv


class Queue:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self) -> list[dict]:
        files = sorted(self.folder.glob("*.job"), key=lambda one: int(one.stem))
        return [json.loads(one.read_text()) for one in files]

    def tasks(self, job: dict) -> dict[int, dict]:
        return {n: self.task(job["number"], n) for n in job["tasks"]}

    def task(self, number: int, task: int) -> dict:
        file = self.folder / f"{number}.{task}.state"
        return json.loads(file.read_text()) if file.exists() else {"state": "wait"}

    def set(self, number: int, task: int, **state) -> None:
        file = self.folder / f"{number}.{task}.state"
        new = file.with_suffix(f".new-{os.getpid()}-{time.monotonic_ns()}")
        new.write_text(json.dumps(state))
        new.replace(file)

    def add(self, name: str, script: str, tasks: list[int], array: bool, at_once: int, after: list[int]) -> int:
        number = 1
        while True:
            try:
                with (self.folder / f"{number}.job").open("x") as file:
                    job = {"number": number, "name": name, "tasks": tasks, "array": array, "after": after}
                    json.dump({**job, "at_once": at_once, "script": script, "cwd": str(Path.home())}, file)
                break
            except FileExistsError:
                number += 1
        if not os.fork():
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            self.run(json.loads((self.folder / f"{number}.job").read_text()))
            os._exit(0)
        return number

    def run(self, job: dict) -> None:
        (self.folder / f"{job['number']}.pid").write_text(str(os.getpid()))
        while job["after"]:
            ends = [t for n in job["after"] for j in self.jobs() if j["number"] == n for t in self.tasks(j).values()]
            if any(t["state"] == "end" and t["code"] for t in ends):
                for task in job["tasks"]:
                    self.set(job["number"], task, state="end", code=None)
                return
            if all(t["state"] == "end" for t in ends):
                break
            time.sleep(0.2)
        with ThreadPoolExecutor(job["at_once"] or 8) as pool:
            list(pool.map(lambda task: self.one(job, task), job["tasks"]))

    def one(self, job: dict, task: int) -> None:
        self.set(job["number"], task, state="run")
        env = {**os.environ, **({INDEX[DIALECT]: str(task)} if job["array"] else {})}
        code = subprocess.run(["/bin/sh", "-c", job["script"]], env=env, cwd=job["cwd"], check=False).returncode
        self.set(job["number"], task, state="end", code=256 - code if code < 0 else code)

    def cancel(self, number: int) -> bool:
        for job in self.jobs():
            if job["number"] == number:
                pid = int((self.folder / f"{number}.pid").read_text())
                subprocess.run(["pkill", "-KILL", "--session", str(pid)], check=False)
                for task, state in self.tasks(job).items():
                    if state["state"] != "end":
                        self.set(number, task, state="end", code=256 + signal.SIGTERM, killed=True)
                return True
        return False


def numbers(text: str) -> tuple[list[int], int]:
    """Tasks and bound of `1-10%2`."""
    span, _, bound = text.partition("%")
    first, _, last = span.partition("-")
    return list(range(int(first), int(last or first) + 1)), int(bound or 0)


def bsub(queue: Queue, argv: list[str]) -> None:
    found, rest = words(argv)
    assert not rest, rest
    if found.get("-q", ["normal"])[0] != "normal":
        fail(f"{found['-q'][0]}: No such queue. Job not submitted.", 255)
    match = re.fullmatch(r"([^\[\]]+)(?:\[([0-9-]+)\](%\d+)?)?", found["-J"][0])
    assert match
    tasks, bound = numbers(match[2] + (match[3] or "")) if match[2] else ([0], 0)
    after = [int(one) for one in re.findall(r"done\((\d+)\)", found.get("-w", [""])[0])]
    number = queue.add(match[1], sys.stdin.read(), tasks, bool(match[2]), bound, after)
    print(f"Job <{number}> is submitted to default queue <normal>.")


def bjobs(queue: Queue, argv: list[str]) -> None:
    assert argv[:3] == ["-a", "-json", "-o"], argv
    records = []
    for job in queue.jobs():
        for task, state in queue.tasks(job).items():
            stat = {"wait": "PEND", "run": "RUN"}.get(state["state"]) or ("EXIT" if state["code"] != 0 else "DONE")
            code = state.get("code")
            reason = (
                "TERM_OWNER: job killed by owner" if state.get("killed") or (stat == "EXIT" and code is None) else ""
            )
            name = f"{job['name']}[{task}]" if job["array"] else job["name"]
            records.append(
                {
                    "JOBID": str(job["number"]),
                    "JOBINDEX": str(task),
                    "STAT": stat,
                    "EXIT_CODE": str(code) if code else "",
                    "EXIT_REASON": reason,
                    "PEND_REASON": "New job is waiting for scheduling;" if stat == "PEND" else "",
                    "JOB_NAME": name,
                }
            )
    print(json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}))


def bkill(queue: Queue, argv: list[str]) -> None:
    if not queue.cancel(int(argv[0])):
        fail(f"Job <{argv[0]}>: No matching job found", 255)
    print(f"Job <{argv[0]}> is being terminated")


def qsub(queue: Queue, argv: list[str]) -> None:
    found, rest = words(argv)
    if found.get("-q", ["batch"])[0] != "batch":
        fail("qsub: Unknown queue", 170)
    name = found["-N"][0]
    if DIALECT == "torque" and len(name) > 15:
        fail("qsub: illegal -N value", 2)
    array = found.get("-J" if DIALECT == "pbs" else "-t", [""])[0]
    tasks, bound = numbers(array) if array else ([0], 0)
    after = [int(one) for one in re.findall(r"[:,](\d+)", found.get("-W", [""])[0])]
    number = queue.add(name, Path(rest[0]).read_text(), tasks, bool(array), bound, after)
    print(f"{number}[].server" if array else f"{number}.server")


def qstat(queue: Queue, argv: list[str]) -> None:
    rows: list[tuple[str, dict]] = []
    for job in queue.jobs():
        for task, state in queue.tasks(job).items():
            rows.append(
                (
                    f"{job['number']}[{task}].server" if job["array"] else f"{job['number']}.server",
                    {**state, "name": job["name"], "task": task, "array": job["array"]},
                )
            )
    if DIALECT == "pbs":
        assert argv == ["-x", "-t", "-f", "-F", "json"], argv
        jobs = {}
        for name, state in rows:
            letter = {"wait": "Q", "run": "R"}.get(state["state"], "X" if state["array"] else "F")
            jobs[name] = {"Job_Name": state["name"], "job_state": letter}
            if letter in "FX" and state["code"] is not None:
                jobs[name]["Exit_status"] = state["code"]
        print(json.dumps({"timestamp": int(time.time()), "pbs_version": "23.06", "pbs_server": "server", "Jobs": jobs}))
        return
    assert argv == ["-t", "-x"], argv
    if rows:
        print("<Data>", end="")
        for name, state in rows:
            letter = {"wait": "Q", "run": "R"}.get(state["state"], "C")
            full = f"{state['name']}-{state['task']}" if state["array"] else state["name"]
            status = (
                f"<exit_status>{state['code']}</exit_status>" if letter == "C" and state["code"] is not None else ""
            )
            print(
                f"<Job><Job_Id>{name}</Job_Id><Job_Name>{escape(full)}</Job_Name><job_state>{letter}</job_state>{status}</Job>",
                end="",
            )
        print("</Data>")


def qdel(queue: Queue, argv: list[str]) -> None:
    if not queue.cancel(int(re.match(r"\d+", argv[0])[0])):
        fail(f"qdel: Unknown Job Id {argv[0]}", NO_JOB[DIALECT])


if __name__ == "__main__":
    command = Path(sys.argv[0]).name
    DIALECT = (Path(sys.argv[0]).parent / "dialect").read_text().strip()
    place = Path(os.environ[VARIABLE[DIALECT]])
    globals()[command](Queue(place), sys.argv[1:])
