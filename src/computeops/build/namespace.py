"""Root in a box: a build needs root's view of files but must not have root's power, nor see the host's files.

The box is a mount namespace whose root is made anew: the system's programs read-only, empty homes and temporary
folders, the build's own folder, and what it may read. Inside is a user namespace of its own, so that what is read-only
stays so.
User 0 in the box is never user 0 of the host: for an ordinary user it is that user, and 1 to 65535 are the subordinate
ids of /etc/subuid; for root all of them are ids that nobody has. So equal builds give equal trees whoever builds.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from computeops import proc
from computeops.build import enter
from computeops.errors import EngineError

_ROOTS_RANGE = 1_879_048_192
"""First host id behind the box when root builds: above what systemd and login.defs hand out."""
_HINT = "allow it with: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, and install uidmap"
_SCRIPT = r"""
set -eu
root=$1
shift
mount -t tmpfs -o mode=755 box "$root"
for one in /*; do
    case $one in
        /dev | /tmp | /run | /home | /root | /mnt | /media | /srv | /boot | /lost+found) mkdir "$root$one" ;;
        *)
            if [ -L "$one" ]; then
                cp -P "$one" "$root$one"
            elif [ -d "$one" ]; then
                mkdir "$root$one"
                mount --rbind "$one" "$root$one"
            fi ;;
    esac
done
mount -t tmpfs -o mode=755 run "$root/run"
for one in /tmp /var/tmp; do [ ! -d "$root$one" ] || mount -t tmpfs -o mode=1777 tmp "$root$one"; done
while read -r _ _ _ _ point options _; do
    case $point in
        "$root" | "$root"/proc* | "$root"/run | "$root"/tmp | "$root"/var/tmp* | "$root$root"*) ;;
        # where a mount cannot be changed, the owners of its files are enough: nobody in the box is one of them
        "$root"/*) mount -o "remount,bind,ro,${options#*,}" "$point" 2>/dev/null || : ;;
    esac
done < /proc/self/mountinfo
for one in null zero full random urandom tty; do
    : > "$root/dev/$one"
    mount --bind "/dev/$one" "$root/dev/$one"
done
mkdir -m 1777 "$root/dev/shm"
mkdir "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
while [ $# -gt 0 ]; do
    if [ -d "$2" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; [ -e "$root$2" ] || : > "$root$2"; fi
    mount --bind "$2" "$root$2"
    [ "$1" = rw ] || mount -o remount,bind,ro "$root$2" 2>/dev/null || :
    shift 2
done
mkdir "$root/.host"
cd "$root"
pivot_root . .host
cd /
umount -l /.host
rmdir /.host
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A box that commands can be run in."""

    folder: Path
    """Where they may write; removed with all in it when the box is closed."""
    prefix: tuple[str, ...]

    def argv(self, *command: str) -> list[str]:
        """Return the argv that runs `command` as root of the box."""
        return [*self.prefix, *command]

    def tar(self, tree: Path, into: Path) -> None:
        """Write the tree in `tree` to the tar file `into`, with its owners as the box sees them.

        Raises:
            EngineError: tar failed.
        """
        options = ("--format=pax", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse")
        argv = self.argv("tar", "--create", *options, f"--directory={tree}", f"--file={into}", ".")
        proc.run(argv, error=EngineError)


@contextmanager
def box(work: Path, *, readable: Sequence[Path] = (), network: bool = False) -> Iterator[Box]:
    """Give a box in which `work` may be written and `readable` be read, without network unless `network`.

    Raises:
        MissingProgramError: unshare or newuidmap is not installed.
        EngineError: this machine does not allow namespaces.
    """
    work = work.resolve()
    root, folder = work / ".box", work / "inside"
    for one in (root, folder):
        one.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        for one in (work, folder):
            os.chown(one, _ROOTS_RANGE, _ROOTS_RANGE)
    (work / ".box.sh").write_text(_SCRIPT)
    if network and (names := Path("/etc/resolv.conf").resolve()).is_relative_to("/run"):
        readable = [*readable, names]
    made = Box(folder, tuple(_prefix(root, work, [one.resolve() for one in readable], network=network)))
    done = proc.capture(made.argv("true"))
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise EngineError(f"this machine does not let a build have namespaces of its own: {said}", hint=_HINT)
    try:
        yield made
    finally:
        # for an ordinary user, files of other owners of the box can be removed from inside only
        proc.capture(made.argv("rm", "-rf", str(folder)))


def _prefix(root: Path, work: Path, readable: Sequence[Path], *, network: bool) -> Iterator[str]:
    is_root = os.geteuid() == 0
    yield from ("unshare", "--mount")
    if not is_root:
        proc.need("newuidmap")
        yield from ("--user", "--map-root-user", "--map-auto")
    yield from (sys.executable, "-I", "-S", enter.__file__, str(work / ".box.sh"))
    yield from (str(_ROOTS_RANGE if is_root else 0), "yes" if network else "no", str(root))
    for one in readable:
        yield from ("ro", str(one))
    yield from ("rw", str(work), "--")
