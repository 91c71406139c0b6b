"""The Guix builder, with a stand-in for the program guix: it answers as guix does, and its store is a folder here.

The real one is not installed by `.ci/install-peers`: it needs half a gigabyte and, to realise anything, its servers.
"""

import io
import tarfile
from pathlib import Path

import pytest

from computeops import build
from computeops.build import guix
from computeops.errors import BuildError, RecipeError
from computeops.recipe import digest, load

STANDIN = r"""#!/bin/sh
# A stand-in for guix: the same words, the same kind of answers, a store in the folder beside it.
set -eu
store=@STORE@
if [ "$1" = build ]; then
    echo "$2" >> "$store/realised"
    echo "The following derivation will be built:" >&2
    echo "$store/00000000000000000000000000000000-tarball-pack.tar"
    exit
fi
[ "$1 $2 $3" = "time-machine --channels=channels.scm --" ]
[ -z "${SECRET:-}" ] && [ -z "$(ls /home)" ] || { echo "the box is open" >&2; exit 1; }
grep -q channel channels.scm
shift 3
case $1 in
    describe) echo '(list (channel (name (quote guix)) (url "https://x") (commit "0123456789abcdef0123456789abcdef01234567")))' ;;
    pack)
        grep -q 0123456789abcdef0123456789abcdef01234567 channels.scm
        ! grep -q nonsense manifest.scm || { echo 'guix pack: error: nonsense: unknown package' >&2; exit 1; }
        case $(cat manifest.scm) in
            *hello*) echo "$store/11111111111111111111111111111111-tarball-pack.tar.drv" ;;
            *) echo "$store/22222222222222222222222222222222-tarball-pack.tar.drv" ;;
        esac ;;
esac
"""
MANIFEST = '(specifications->manifest (list "bash" "hello"))\n'
RECIPE = """
[package]
name = "hello"
version = "2.12"
summary = "Says hello"
license = "GPL-3.0-or-later"
[build]
builder = "guix"
file = "manifest.scm"
[run]
command = ["hello"]
[[tests]]
name = "says"
run = "hello"
expect = "Hello"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = tmp_path / "gnu/store"
    store.mkdir(parents=True)
    for start in "12":
        (store / f"{start * 32}-tarball-pack.tar.drv").write_text(f"Derive({start})")
    profile = f"gnu/store/{'3' * 32}-profile"
    with tarfile.open(store / f"{'0' * 32}-tarball-pack.tar", "w") as pack:
        for path, content in ((f"./{profile}/bin/hello", b"#!/bin/sh\necho Hello\n"), ("./bin", None)):
            entry = tarfile.TarInfo(path)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, f"/{profile}/bin"
            else:
                entry.size, entry.mode = len(content), 0o555
            pack.addfile(entry, io.BytesIO(content or b""))
    program = tmp_path / "programs/guix"
    program.parent.mkdir()
    program.write_text(STANDIN.replace("@STORE@", str(store)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("SECRET", "x")
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "computeops.toml").write_text(RECIPE)
    (recipe / "manifest.scm").write_text(MANIFEST)
    (recipe / "channels.scm").write_text('(list (channel (name \'guix) (url "https://x")))\n')
    return recipe


def lock(folder: Path, tmp_path: Path) -> build.Lock:
    return build.lock(folder, load(folder), mirror="", pypi="", cache=tmp_path / "cache", tmp=tmp_path)


def run(folder: Path, tmp_path: Path, pinned: build.Lock) -> build.Built:
    where = {"work": tmp_path / "work", "cache": tmp_path / "cache"}
    return build.build(folder, load(folder), pinned=pinned, **where, epoch=1, mirror="", pypi="")


def test_the_lock_has_the_commits_and_the_derivation_and_only_that_is_realised(folder: Path, tmp_path: Path) -> None:
    pinned = lock(folder, tmp_path)
    assert "0123456789abcdef0123456789abcdef01234567" in pinned.options["channels"]
    (derivation,) = pinned.materials
    store = tmp_path / "gnu/store"
    assert derivation.uri == f"guix:{store}/{'1' * 32}-tarball-pack.tar.drv"
    assert build.Lock.from_json(build.write_lock(folder, pinned).read_bytes()) == pinned

    made = run(folder, tmp_path, pinned)
    assert (store / "realised").read_text() == f"{derivation.uri.removeprefix('guix:')}\n"
    assert made.materials == pinned.materials
    assert made.env == {"PATH": "/bin"}
    found = {entry.path: entry for entry, _ in made.tree.items()}
    assert found["bin"].target == f"/gnu/store/{'3' * 32}-profile/bin"
    assert found[f"gnu/store/{'3' * 32}-profile/bin/hello"].mode == 0o555
    assert "etc/resolv.conf" in found


def test_other_channels_make_the_lock_stale(folder: Path, tmp_path: Path) -> None:
    pinned = lock(folder, tmp_path)
    build.write_lock(folder, pinned)
    assert not [one for one in build.unpinned(folder, load(folder)) if "another state" in one]
    before = digest(folder)
    (folder / "channels.scm").write_text('(list (channel (name \'guix) (url "https://y")))\n')
    assert [one for one in build.unpinned(folder, load(folder)) if "another state" in one]
    assert digest(folder) != before
    with pytest.raises(RecipeError, match="another state"):
        run(folder, tmp_path, pinned)


def test_what_is_not_what_the_lock_says_is_not_built(folder: Path, tmp_path: Path) -> None:
    pinned = lock(folder, tmp_path)
    (tmp_path / f"gnu/store/{'1' * 32}-tarball-pack.tar.drv").write_text("Derive(other)")
    with pytest.raises(RecipeError, match="of the lock"):
        run(folder, tmp_path, pinned)
    (folder / "manifest.scm").write_text('(specifications->manifest (list "nonsense"))\n')
    with pytest.raises(BuildError, match="unknown package") as caught:
        lock(folder, tmp_path)
    assert "guix search" in caught.value.hint


def test_lint_tells_of_channels_that_move_and_of_a_missing_shell(folder: Path) -> None:
    assert any("without a commit" in one for one in guix.lint(folder, load(folder)))
    (folder / "channels.scm").write_text(
        '(list (channel (name \'guix) (url "https://x")\n  (commit "0123456789abcdef0123456789abcdef01234567")))\n'
    )
    assert guix.lint(folder, load(folder)) == []
    (folder / "channels.scm").unlink()
    (folder / "manifest.scm").write_text('(specifications->manifest (list "hello"))\n')
    assert len(guix.lint(folder, load(folder))) == 2
    assert guix.detect(folder) == "manifest.scm"
