"""Judge an engine by really trying each of the seven criteria on this machine.

The image of the trials is the smallest there is, as SIF and as OCI layout, with the machine's /usr bound into it; so
nothing is fetched, and each trial takes a start or two.
"""

import contextlib
import os
import secrets
import select
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from computeops import engine, proc
from computeops.engine import inside_probe, machine, trial
from computeops.engine.criteria import CRITERIA, Judged, Mark, Verdict
from computeops.engine.model import Bind, Request
from computeops.errors import ComputeOpsError, EngineError

_PYTHON = Path("/usr/bin/python3")
_SECONDS = 20.0
"""What one start may take."""
_ENGINE_SECONDS = 60.0
"""What all trials of one engine may take together; an engine that hangs does not keep the others waiting."""
_STARTS, _STARTS_SECONDS = 3, 1.0
"""Starts that are measured, and after which time no other is begun."""
_OUTPUT_BYTES = 16384
_SETUID = 0o4000
_STARTERS = ("/usr/libexec/apptainer/bin/starter-suid", "/usr/lib/x86_64-linux-gnu/apptainer/bin/starter-suid")
_DAEMONS = ("docker", "kata")
"""Engines whose containers a daemon of root makes."""
_MPI_LIBRARIES = (
    "lib*/libmpi.so.40",
    "lib/*-linux-gnu/libmpi.so.40",
    "lib*/libmpi.so.12",
    "lib/*-linux-gnu/libmpi.so.12",
)
_SHELL = "/usr/bin/sh"
_WAIT = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"


@dataclass(frozen=True, slots=True)
class Material:
    """What all trials share."""

    folder: Path
    sif: Path
    layout: Path
    environ: Mapping[str, str]
    """The environment of the caller, with a display where one can be had."""
    display: bool


@contextlib.contextmanager
def material(environ: Mapping[str, str]) -> Iterator[Material]:
    """Make the images of the trials and, where Xvfb is installed and no display is there, a display.

    Raises:
        MissingProgramError: images cannot be packed here.
    """
    from computeops.image import convert, oci
    from computeops.image.tree import Directory

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="computeops-judge-")))
        folder.chmod(0o755)
        sif, layout = folder / "probe.sif", folder / "probe.oci"
        described = oci.Description(machine.architecture(), env={"PATH": "/usr/bin:/bin"}, command=("/usr/bin/true",))
        writer = convert.Writer(compression="gzip", level=1)
        root = stack.enter_context(trial.root())
        convert.pack(Directory(root), described, to_sif=sif, to_layout=layout, writer=writer, epoch=0)
        screen = environ.get("DISPLAY", "") or stack.enter_context(_screen(folder))
        yield Material(folder, sif, layout, {**environ, **({"DISPLAY": screen} if screen else {})}, bool(screen))


@contextlib.contextmanager
def _screen(folder: Path) -> Iterator[str]:
    """Give the name of a display of an X server without a screen; "" if there is no such server."""
    if proc.find("Xvfb") is None:
        yield ""
        return
    argv = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "64x64x24", "-fbdir", str(folder)]
    with proc.start(argv, stdout=proc.PIPE, stderr=proc.DEVNULL) as server:
        assert server.stdout is not None
        number = server.stdout.readline().decode().strip()
        try:
            yield f":{number}" if number else ""
        finally:
            server.terminate()


def judge(name: str, shared: Material, cache: Path) -> Judged:
    """Return the verdicts on engine `name`, which works here; `start` measures its start when nothing else runs."""
    probe = _Probe(name, shared, cache)
    trials: Mapping[str, Callable[[], tuple[Mark, str]]] = {
        "docker": probe.docker,
        "security": probe.security,
        "io": probe.transparent_io,
        "scheduler": probe.scheduler,
        "gpu": probe.gpu,
        "mobility": probe.mobility,
        "file": probe.single_file,
    }
    verdicts = []
    for criterion in CRITERIA:
        began = time.monotonic()
        try:
            mark, evidence = trials[criterion]()
        except _TimeUsedUpError as error:
            mark, evidence = Mark.UNTRIED, error.message
        except ComputeOpsError as error:
            mark, evidence = Mark.NO, error.message.splitlines()[0]
        verdicts.append(Verdict(criterion, mark, evidence, time.monotonic() - began))
    return Judged(name, True, "", tuple(verdicts))


def start(one: Judged, shared: Material, cache: Path) -> Judged:
    """Return `one` with the time that a start of its engine takes.

    Raises:
        ComputeOpsError: it does not start any more.
    """
    return replace(one, start_seconds=_Probe(one.engine, shared, cache).start())


class _TimeUsedUpError(EngineError):
    """An engine's trials took so long that the rest of them is left out."""


class _Probe:
    """The trials of one engine."""

    def __init__(self, name: str, shared: Material, cache: Path) -> None:
        self._name, self._shared, self._cache = name, shared, cache
        self._until = time.monotonic() + _ENGINE_SECONDS

    def _left(self) -> float:
        """Return the seconds that one start may take.

        Raises:
            _TimeUsedUpError: the engine has none left.
        """
        if (left := self._until - time.monotonic()) <= 0:
            raise _TimeUsedUpError(f"its trials took longer than {_ENGINE_SECONDS:.0f} s")
        return min(left, _SECONDS)

    def _plan(self, argv: Sequence[str], image: Path | None = None, **more: object) -> engine.Plan:
        request = Request(action="exec", argv=tuple(argv), binds=(Bind(trial.USR, "/usr"),), cwd="/", **more)  # type: ignore[arg-type]  # fields by name
        environ = self._shared.environ
        return engine.plan(image or self._shared.sif, request, engine=self._name, cache=self._cache, environ=environ)

    def _run(self, argv: Sequence[str], image: Path | None = None, **more: object) -> proc.Observed:
        plan = self._plan(argv, image, **more)
        return self._observe(plan.argv, plan.env)

    def _observe(self, argv: Sequence[str], env: Mapping[str, str]) -> proc.Observed:
        done = proc.observe(argv, env=env, timeout=self._left(), limit_bytes=_OUTPUT_BYTES)
        if done.timed_out:
            self._left()  # no verdict on what was cut short because the trials before it took so long
        return done

    def start(self) -> float:
        """Return the median time of a few starts."""
        seconds: list[float] = []
        while len(seconds) < _STARTS and sum(seconds) < _STARTS_SECONDS:
            seconds.append(self._run(["/usr/bin/true"]).seconds)
        return statistics.median(seconds)

    def docker(self) -> tuple[Mark, str]:
        """Start a program of an OCI image layout."""
        done = self._run(["/usr/bin/true"], self._shared.layout)
        return (Mark.YES, "an OCI image layout starts") if done.code == 0 else (Mark.NO, _last(done))

    def security(self) -> tuple[Mark, str]:
        """Ask a program inside what it could do outside."""
        if not _PYTHON.exists():
            return Mark.UNTRIED, f"there is no {_PYTHON} here to ask with"
        done = self._run([str(_PYTHON), "-c", inside_probe.SECURITY])
        found = next(
            (line.split() for line in done.output.decode(errors="replace").splitlines() if "probe " in line), []
        )
        if len(found) != 5:
            return Mark.NO, _last(done)
        _, space, powers, locked, wrote = found
        own = space != os.readlink("/proc/self/ns/user")  # noqa: PTH115  a name, not a path
        setuid = [one for one in _STARTERS if self._name == "apptainer" and _is_setuid(Path(one))]
        daemon = self._name in _DAEMONS
        facts = [
            "its user namespace is its own" if own else "it is in the machine's user namespace",
            "no capabilities"
            if int(powers, 16) == 0
            else "capabilities inside that namespace only"
            if own
            else f"capabilities {powers}",
            "no new privileges" if locked == "1" else "setuid programs work inside",
            *(
                ["a file of root was written", *([] if os.geteuid() else ["for root started it"])]
                if wrote == "1"
                else []
            ),
            *([f"{setuid[0]} is setuid"] if setuid else []),
            *(["whoever may ask its daemon can become root"] if daemon else []),
        ]
        harmless = (own or int(powers, 16) == 0) and (wrote == "0" or os.geteuid() == 0)
        mark = Mark.NO if not harmless else Mark.PARTLY if setuid or daemon or wrote == "1" else Mark.YES
        return mark, ", ".join(facts)

    def transparent_io(self) -> tuple[Mark, str]:
        """Let two ranks exchange a message, and open a window."""
        tried = [self._ranks(), self._window()]
        marks = {mark for mark, _ in tried}
        worst = Mark.NO if marks == {Mark.NO} else Mark.PARTLY if Mark.NO in marks else min(marks, key=list(Mark).index)
        return worst, "; ".join(said for _, said in tried)

    def _ranks(self) -> tuple[Mark, str]:
        library = next((str(one) for pattern in _MPI_LIBRARIES for one in sorted(trial.USR.glob(pattern))), "")
        if proc.find("mpirun") is None or not library or not _PYTHON.exists():
            return Mark.UNTRIED, "MPI: no mpirun here"
        words = ["exec", "--engine", self._name, "--mpi", "auto", "--bind", "/usr", str(self._shared.sif), str(_PYTHON)]
        start = [sys.executable, "-m", "computeops", *words, "-c", inside_probe.MPI, library]
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        env = {**self._shared.environ, "COMPUTEOPS_CACHE": str(self._cache), "OMPI_MCA_btl": "self,sm"}
        argv = ["mpirun", *root, "-n", "2", "--oversubscribe", *start]
        done = self._observe(argv, env)
        said = "rank 1 of 2 received 42"
        return (
            (Mark.YES, f"MPI: {said}")
            if said in done.output.decode(errors="replace")
            else (Mark.NO, f"MPI: {_last(done)}")
        )

    def _window(self) -> tuple[Mark, str]:
        if not self._shared.display or not _PYTHON.exists():
            return Mark.UNTRIED, "X11: no display and no Xvfb here"
        done = self._run([str(_PYTHON), "-c", inside_probe.X11], x11=True)
        return (Mark.YES if done.code == 0 else Mark.NO), f"X11: {_last(done)}"

    def scheduler(self) -> tuple[Mark, str]:
        """See whether the program is the caller's: its exit code, its signals, its life."""
        facts = {"its exit code passes": self._run([_SHELL, "-c", "exit 7"]).code == 7}
        code, _, _ = self._ended(signal.SIGTERM)
        facts["SIGTERM reaches it"] = code == 9
        _, below, gone = self._ended(signal.SIGKILL)
        facts["it is a child of its caller"] = below
        facts["it ends with its caller's child"] = gone
        failed = [what for what, holds in facts.items() if not holds]
        if not failed:
            return Mark.YES, ", ".join(facts)
        mark = Mark.NO if "it is a child of its caller" in failed else Mark.PARTLY
        return mark, ", ".join([*(what for what in facts if what not in failed), *(f"NOT: {what}" for what in failed)])

    def _ended(self, number: int) -> tuple[int, bool, bool]:
        """Start a program that waits and end it; return its exit code, whether it was ours, and whether it went."""
        word = f"computeops-probe-{secrets.token_hex(8)}"
        plan = self._plan([_SHELL, "-c", _WAIT, word])
        with proc.start(plan.argv, env=plan.env, stdin=proc.DEVNULL, stdout=proc.PIPE, stderr=proc.DEVNULL) as child:
            assert child.stdout is not None
            if select.select([child.stdout], [], [], self._left())[0]:
                child.stdout.readline()
            below = any(_is_below(one, child.pid) for one in _carrying(word, plan.argv))
            child.send_signal(number)
            with contextlib.suppress(ComputeOpsError):
                proc.ends(child, self._left())
            child.kill()  # nothing, where it has ended
            code = child.wait()
            until = time.monotonic() + 2
            while (left := _carrying(word, plan.argv)) and time.monotonic() < until:
                time.sleep(0.02)
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        return code, below, not left

    def gpu(self) -> tuple[Mark, str]:
        """Load the driver's library, if there is a GPU."""
        kind = machine.gpu("auto")
        able = sorted(word.removeprefix("gpu ") for word in engine.load(self._name).CAN if word.startswith("gpu "))
        if kind == "none":
            return Mark.UNTRIED, f"no GPU here; it is made for {', '.join(able) or 'none'}"
        if kind not in able:
            return Mark.NO, f"it does not bring {kind} GPUs"
        if kind == "amd":
            done = self._run([_SHELL, "-c", "test -w /dev/kfd && echo /dev/kfd can be used"], gpu=kind)
        else:
            done = self._run([str(_PYTHON), "-c", inside_probe.NVIDIA], gpu=kind)
        return (Mark.YES if done.code == 0 else Mark.NO), _last(done)

    def mobility(self) -> tuple[Mark, str]:
        """Start a copy of the image elsewhere, with a cache that has never seen it."""
        moved = self._shared.folder / f"moved-{self._name}"
        moved.mkdir()
        copy = Path(shutil.copy(self._shared.sif, moved / "other.sif"))
        here, self._cache = self._cache, moved / "cache"
        try:
            done = self._run(["/usr/bin/true"], copy)
        finally:
            self._cache = here
        user = "" if os.geteuid() else ", tried by root only"
        return (Mark.YES, f"a copy of the file starts elsewhere{user}") if done.code == 0 else (Mark.NO, _last(done))

    def single_file(self) -> tuple[Mark, str]:
        """Start the SIF; most engines need it unpacked first."""
        done = self._run(["/usr/bin/true"])
        if done.code:
            return Mark.NO, _last(done)
        if "sif" in engine.load(self._name).TAKES:
            return Mark.YES, "it starts from the SIF itself"
        return Mark.PARTLY, "computeops unpacks the SIF once, into its cache"


def _last(done: proc.Observed) -> str:
    """Return the last line of what a program said, or how it ended."""
    lines = [
        line for line in done.output.decode(errors="replace").splitlines() if line.strip() and "level=" not in line
    ]
    if done.timed_out:
        return f"no end after {done.seconds:.0f} s"
    return lines[-1].strip()[:160] if lines else f"exit code {done.code}"


def _is_setuid(file: Path) -> bool:
    return file.exists() and bool(file.stat().st_mode & _SETUID)


def _carrying(word: str, argv: Sequence[str]) -> list[int]:
    """Return the processes that carry `word` as their last argument, but the engine itself."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            if words[-1] == word.encode() and words[0] in {_SHELL.encode(), b"sh"} and len(words) < len(argv):
                found.append(int(folder.name))
    return found


def _is_below(process: int, above: int) -> bool:
    while process > 1:
        if process == above:
            return True
        try:
            text = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return False
        process = int(text.rpartition(")")[2].split()[1])
    return False
