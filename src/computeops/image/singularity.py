"""The files in `/.singularity.d` that Apptainer, its GPU libraries and CWL runners expect in every image.

Without `env/99-base.sh` the libraries that `apptainer --nv` binds to `/.singularity.d/libs` are not found; without a
runscript `apptainer run`, and so every CWL runner, silently does nothing.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from computeops.image.tree import Entry, Item, Kind

RUNSCRIPT = "/.singularity.d/runscript"
_PROGRAM_PATHS = "/bin/*|/sbin/*|/usr/*bin/*|/opt/*/bin/*"
_FOLDERS = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}
_PLAIN_FOLDERS = (
    "dev",
    "etc",
    "home",
    "proc",
    "sys",
    "var",
    ".singularity.d",
    ".singularity.d/env",
    ".singularity.d/libs",
)
_LINKS = {
    ".exec": ".singularity.d/actions/exec",
    ".run": ".singularity.d/actions/run",
    ".shell": ".singularity.d/actions/shell",
    "environment": ".singularity.d/env/90-environment.sh",
    "singularity": ".singularity.d/runscript",
}
_BASE = """#!/bin/sh
if test -z "${LD_LIBRARY_PATH:-}"; then
    LD_LIBRARY_PATH=/.singularity.d/libs
else
    LD_LIBRARY_PATH="$LD_LIBRARY_PATH:/.singularity.d/libs"
fi
PS1="Apptainer> "
export LD_LIBRARY_PATH PS1
"""
_ACTION = """#!/bin/sh
for script in /.singularity.d/env/*.sh; do
    if [ -f "$script" ]; then
        . "$script"
    fi
done
"""


def runtime_files(
    command: Sequence[str],
    programs: Sequence[str],
    env: Mapping[str, str],
    labels: Mapping[str, str],
    arguments: Sequence[str] = (),
) -> list[Item]:
    """Return the entries to lay over an image that runs `command`.

    `programs` are other programs of the image that may be named as the first argument of `run`; `arguments` are what
    the command gets when `run` is given none.
    """
    named = {name: value for name, value in env.items() if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)}
    variables = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(named.items()))
    files = {
        ".singularity.d/actions/exec": (0o755, _ACTION + 'exec "$@"\n'),
        ".singularity.d/actions/run": (0o755, _ACTION + f'exec {RUNSCRIPT} "$@"\n'),
        ".singularity.d/actions/shell": (0o755, _ACTION + 'exec /bin/sh "$@"\n'),
        # HTCondor tries `apptainer test` before it starts an image of its container universe.
        ".singularity.d/actions/test": (
            0o755,
            _ACTION + '[ ! -x /.singularity.d/test ] || exec /.singularity.d/test "$@"\n',
        ),
        ".singularity.d/env/90-environment.sh": (0o755, "#!/bin/sh\n" + variables),
        ".singularity.d/env/99-base.sh": (0o755, _BASE),
        ".singularity.d/labels.json": (0o644, json.dumps(dict(labels), indent=1, sort_keys=True) + "\n"),
        ".singularity.d/runscript": (0o755, runscript(command, programs, arguments)),
        ".singularity.d/startscript": (0o755, '#!/bin/sh\nexec "$@"\n'),
    }
    folders = {**dict.fromkeys((*_PLAIN_FOLDERS, ".singularity.d/actions"), 0o755), **_FOLDERS}
    items: list[Item] = [(Entry("", Kind.DIRECTORY, 0o755), ())]
    items += [(Entry(path, Kind.DIRECTORY, mode), ()) for path, mode in folders.items()]
    items += [(Entry(path, Kind.SYMLINK, 0o777, target=target), ()) for path, target in _LINKS.items()]
    for path, (mode, text) in files.items():
        data = text.encode("utf-8", "surrogateescape")
        items.append((Entry(path, Kind.FILE, mode, size=len(data)), (data,)))
    return items


def runscript(command: Sequence[str], programs: Sequence[str] = (), arguments: Sequence[str] = ()) -> str:
    """Return the script behind `run`.

    With a command, arguments are the command's own, unless the first is the command itself, one of `programs` or the
    path of a program: then it is executed as it stands, as CWL runners expect. The path of anything else is data.
    Without a command, the arguments are what is executed.
    """
    if not command:
        return f'#!/bin/sh\n[ $# -gt 0 ] || set -- {shlex.join(arguments) or "/bin/sh"}\nexec "$@"\n'
    default = f"[ $# -gt 0 ] || set -- {shlex.join(arguments)}\n" if arguments else ""
    own = "|".join(shlex.quote(name) for name in dict.fromkeys((command[0].rpartition("/")[2], *programs)))
    return f"""#!/bin/sh
{default}case "${{1:-}}" in
    {own}|{_PROGRAM_PATHS}) exec "$@" ;;
esac
exec {shlex.join(command)} "$@"
"""
