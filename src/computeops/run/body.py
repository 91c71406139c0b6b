"""The script that runs on the machine that computes, the same for every scheduler that shares a file system.

POSIX shell, because nothing else is certain to be there. It sets COMPUTEOPS_JOB_ID and COMPUTEOPS_TASK_ID, runs the
command with its files, time and retries, and leaves `exits/TASK.CODE` behind. A script that is killed leaves nothing:
then accounting and queue must tell. Every word of the user is quoted and never read by the shell.
"""

import shlex
from collections.abc import Sequence

from computeops.run.model import SINGLE, Record

NAME = "job.sh"
_GRACE = 10
"""Seconds between the request to end and the end by force."""
_CANNOT_START = 125
_MODULES = (
    "/etc/profile.d/modules.sh",
    "/etc/profile.d/lmod.sh",
    "/usr/share/lmod/lmod/init/sh",
    "/usr/share/modules/init/sh",
)
"""Where the command `module` is defined."""
_LOOK = 1
"""Seconds between two looks at the memory of a job."""
_SUM = (
    "{ up[$1] = $2; kib[$1] = $3 } END { for (one in up) {"
    " at = one; while (at in up && at != top && at != skip) at = up[at];"
    ' if (at == top && one != top) { sum += kib[one]; all = all " " one } } print sum + 0 all }'
)
"""For awk: lines of process, parent and KiB become the sum of all below `top`, but not of `skip`, and their names."""


def text(record: Record, *, number: str = "", launcher: Sequence[str] = (), guard: Sequence[Record] = ()) -> str:
    """Return the script of `record`.

    `number` is the shell's expression for a task's number, `launcher` starts the command on all nodes, and every job
    of `guard` must have succeeded, for schedulers that start a job however those before it ended.
    """
    job = record.job
    parts = [
        "#!/bin/sh",
        f"# Job {record.id} of computeops.",
        f"co_folder={shlex.quote(str(record.folder))}",
        f"co_task={number if job.array else SINGLE}",
        'co_exit="$co_folder/exits/$co_task"',
        'rm -f "$co_exit".*; : >"$co_exit.running"',
        # A renamed file needs no room on a disk that is full by now.
        'co_end() { mv -f "$co_exit.running" "$co_exit.$1" || : >"$co_exit.$1"; exit "$2"; }',
        f"export COMPUTEOPS_JOB_ID={record.id}",
        *(['export COMPUTEOPS_TASK_ID="$co_task"'] if job.array else []),
        *(f"{succeeded(before)} || co_end dependency 1" for before in guard),
        *_files(record),
        *_modules(job.modules),
        *_memory(job.memory),
        f"cd {shlex.quote(job.cwd)} || co_end {_CANNOT_START} {_CANNOT_START}",
        *_command([*launcher, *job.command], job.seconds, job.retries),
        *(['[ ! -e "$co_exit.memory" ] || exit 137'] if job.memory else []),
        # Who ended the program is perhaps about to end this script too, and knows better why.
        "case $co_code in 130 | 137 | 143) sleep 1 ;; esac",
        'co_end "$co_code" "$co_code"',
    ]
    return "\n".join(parts) + "\n"


def succeeded(before: Record) -> str:
    """Return the shell's test of whether every task of `before` left a 0."""
    exits = shlex.quote(f"{before.folder}/exits")
    return f'[ "$(ls {exits} | grep -c "[.]0$")" = {len(before.job.numbers)} ]'


def log_files(record: Record) -> tuple[str, str]:
    """Return the files for the program's output and its errors, with `{task}` for the number of a task."""
    suffix = ".{task}" if record.job.array else ""
    out, err = f"{record.folder}/logs/out{suffix}", f"{record.folder}/logs/err{suffix}"
    return record.job.stdout or out, record.job.stderr or err


def _files(record: Record) -> list[str]:
    out, err = log_files(record)
    opened = f"exec >{_path(out)} 2>{_path(err)} <{_path(record.job.stdin or '/dev/null')}"
    # A redirection of `exec` that fails would end the shell at once, without a trace.
    return [f"( {opened} ) || co_end {_CANNOT_START} {_CANNOT_START}", opened]


def _modules(names: Sequence[str]) -> list[str]:
    """Return what loads the site's environment modules: Environment Modules or Lmod, which a batch shell may lack."""
    if not names:
        return []
    places = " ".join(shlex.quote(one) for one in _MODULES)
    return [
        f'command -v module >/dev/null || for co_init in {places}; do [ ! -r "$co_init" ] || . "$co_init"; done',
        f"module load {shlex.join(names)} || co_end {_CANNOT_START} {_CANNOT_START}",
    ]


def _memory(limit: int) -> list[str]:
    """Return the watch over the memory of the program, in MiB, for schedulers that do not keep it themselves.

    Pages that several processes share count once (Pss of proc_pid_smaps(5)); only what is near the limit is asked for
    that. What a daemon starts for the program is not seen.
    """
    if not limit:
        return []
    kib = limit * 1024
    tree = f'ps -eo pid=,ppid=,rss= 2>/dev/null | awk -v top=$$ -v skip="$co_me" {shlex.quote(_SUM)}'
    pages = 'for one; do cat "/proc/$one/smaps_rollup"; done 2>/dev/null'
    return [
        "co_watch() {",
        "co_me=$(exec sh -c 'echo $PPID')",
        f"while sleep {_LOOK} && kill -0 $$; do",
        f"set -- $({tree})",
        f'[ "${{1:-0}}" -gt {kib} ] || continue',
        "shift",
        f"co_kib=$({pages} | awk '/^Pss:/ {{ sum += $2 }} END {{ print sum + 0 }}')",
        f'[ "$co_kib" -gt {kib} ] || continue',
        'mv -f "$co_exit.running" "$co_exit.memory" || : >"$co_exit.memory"',
        'kill -KILL "$@"',
        "return",
        "done",
        "}",
        "co_watch >/dev/null 2>&1 </dev/null &",
        "co_watcher=$!",
        "trap 'kill $co_watcher 2>/dev/null' EXIT",
    ]


def _path(path: str) -> str:
    return '"$co_task"'.join(shlex.quote(part) if part else "" for part in path.split("{task}"))


def _command(words: Sequence[str], seconds: int, retries: int) -> list[str]:
    command = shlex.join(words)
    if not seconds:
        return _again([command, "co_code=$?"], retries)
    lines = [
        "co_began=$(date +%s)",
        f"timeout -k {_GRACE} {seconds} {command}",
        "co_code=$?",
        # timeout(1) exits with 124, or as the program that it had to kill: only when late was it surely its doing.
        "co_took=$(($(date +%s) - co_began))",
        f"case $co_code in 124 | 137 | 143) [ $co_took -lt {seconds} ] || co_end timeout 124 ;; esac",
    ]
    return _again(lines, retries)


def _again(lines: list[str], retries: int) -> list[str]:
    if not retries:
        return lines
    return [
        f"for co_try in $(seq 0 {retries}); do",
        'export COMPUTEOPS_ATTEMPT="$co_try"',
        *lines,
        '[ "$co_code" != 0 ] && [ ! -e "$co_exit.memory" ] || break',
        "done",
    ]
