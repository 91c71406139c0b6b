"""The Spack builder, with a stand-in for Spack in the sources: the same words, the same files, a program of its own to compile.

Spack itself is in no index of packages that the tests can reach. With the real one (0.23, commit e8f8cf85) the builder
was driven by hand: docs/how-to/write-a-recipe.md.
"""

import hashlib
import io
import re
import tarfile
from pathlib import Path

import pytest

import building
from computeops import build
from computeops.build import spack
from computeops.errors import MissingProgramError, RecipeError
from computeops.recipe import load

STANDIN = r"""#!/bin/sh
# A stand-in for spack: concretises by copying, knows one package, installs it from the mirror.
set -eu
[ "$1" = -C ] && config=$2 && shift 2
[ "$1" != -e ] || { env=$2; shift 2; }
case "$1" in
    concretize) { cat "$env/spack.yaml" "$config/packages.yaml"; } > "$env/spack.lock" ;;
    python) PYTHONPATH="$PYTHONPATH:$(dirname "$0")/../lib" exec python3 "$2" ;;
    env) [ "$2 $3 $4" = "view enable /opt/view" ] ;;
    install)
        python3 -c 'import clingo'
        grep -q x86_64_v3 "$env/spack.lock"
        grep -q 'root: /opt/spack' "$config/config.yaml"
        mirror=$(sed -n "s|.*file://\(.*\)'.*|\1|p" "$config/mirrors.yaml")
        into=/opt/spack/tool-1.0-abc
        mkdir -p $into/bin $into/.spack/repos /opt/spack/.spack-db /opt/view/bin
        tar -xf "$mirror/_source-cache/archive/aa/tool.tar" -C $into/bin
        date +%N > $into/.spack/install_times.json
        date +%N > $into/.spack/repos/x
        date +%N > /opt/spack/.spack-db/index.json
        echo '{}' > $into/.spack/spec.json
        ln -s $into/bin/tool /opt/view/bin/tool ;;
    gc) [ "$2" = -y ] ;;
    *) echo "spack: unknown $*" >&2; exit 1 ;;
esac
"""
ENVIRONMENT = """
class _Found:
    url, digest = "https://127.0.0.1:9/tool/v1.0.tar", "@DIGEST@"
class _Paths:
    storage_path = "_source-cache/archive/aa/tool.tar"
class _Stage:
    default_fetcher, mirror_paths = _Found, _Paths
class _Bundle:
    class default_fetcher: url = None
    mirror_paths = _Paths
class _Spec:
    name, external = "tool", False
    class package: stage = [_Stage, _Bundle]
class _External:
    external = True
class _Environment:
    def all_specs(self): return [_Spec, _External]
def active_environment(): return _Environment()
"""
RECIPE = """
[package]
name = "tool"
version = "1.0"
summary = "One package of Spack"
license = "MIT"
[[sources]]
path = "spack-0.0.tar"
[[sources]]
path = "tool.tar"
[build]
builder = "spack"
file = "spack.yaml"
suite = "bookworm"
build_packages = ["python3"]
[[variants]]
name = "v3"
cpu = "x86_64_v3"
"""


def tar(file: Path, members: dict[str, bytes]) -> bytes:
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return file.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "recipe"
    made.mkdir()
    # the archive is in the cache already, as a source of the recipe: nothing is asked of the address that Spack names
    digest = hashlib.sha256(tar(made / "tool.tar", {"tool": b"#!/bin/sh\necho a tool\n"})).hexdigest()
    library = {"__init__.py": b"", "environment.py": ENVIRONMENT.replace("@DIGEST@", digest).encode()}
    library = {f"spack-0.0/lib/spack/{name}": data for name, data in library.items()}
    tar(made / "spack-0.0.tar", {"spack-0.0/bin/spack": STANDIN.encode(), **library})
    (made / "spack.yaml").write_text("spack:\n  specs:\n  - tool@1.0\n")
    (made / "computeops.toml").write_text(RECIPE)
    return made


@pytest.mark.mmdebstrap
def test_the_lock_has_what_spack_found_out_and_the_build_has_only_that(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path
) -> None:
    assert request.config.cache
    cache = Path(request.config.cache.mkdir("computeops-packages"))
    pypi = "https://pypi.org/simple"
    try:
        lock = build.lock(folder, load(folder), mirror="", pypi=pypi, cache=cache, tmp=tmp_path)
    except MissingProgramError as error:
        pytest.skip(error.message)
    assert set(lock.options["solved"]) == {"x86_64", "x86_64_v3"}
    assert "target=x86_64_v3" in lock.options["solved"]["x86_64_v3"]
    assert [one.uri for one in lock.of_role("source")][2:] == ["https://127.0.0.1:9/tool/v1.0.tar"]
    assert build.Lock.from_json(build.write_lock(folder, lock).read_bytes()) == lock
    assert not [one for one in build.unpinned(folder, load(folder)) if "snapshot" not in one]

    found = building.look(building.run(folder, tmp_path / "work", cache, "v3"))
    assert found.env["PATH"].startswith("/opt/view/bin:")
    assert found.files["opt/view/bin/tool"].startswith("symlink")
    ours = sorted(path for path in found.files if path.startswith("opt/spack/") and "file" in found.files[path][:5])
    assert ours == ["opt/spack/tool-1.0-abc/.spack/spec.json", "opt/spack/tool-1.0-abc/bin/tool"]
    assert "usr/bin/python3" not in found.files  # it only compiled


def test_lint_tells_what_moves_and_wants_spack_among_the_sources(folder: Path) -> None:
    (folder / "spack.yaml").write_text(
        "spack:\r\n  specs:\r\n  - hdf5@1.14 +mpi  # x\r\n  - 'zlib'\r\n  view: true\r\n"
    )
    assert [one for one in spack.lint(folder, load(folder)) if "no version of zlib:" in one]
    (folder / "spack.yaml").write_text("spack: {specs: [samtools, bwa@0.7.17]}\n")
    (folder / "spack.yaml").write_text("spack:\n  specs: [samtools, bwa@0.7.17]\n")
    assert [one for one in spack.lint(folder, load(folder)) if "no version of samtools:" in one]
    (folder / "computeops.toml").write_text(re.sub(r"\[\[sources\]\]\npath.*\n", "", RECIPE))
    with pytest.raises(RecipeError, match="not among the sources") as caught:
        spack.lint(folder, load(folder))
    assert "github.com/spack/spack" in caught.value.hint


@pytest.mark.parametrize("line", [b'["a", "https://x.org/a.git", "", "a"]', b"3", b"[", b'["a", "u", "../../x", "p"]'])
def test_what_has_no_digest_is_refused(line: bytes) -> None:
    with pytest.raises(RecipeError, match="no sha256"):
        spack._archives(line)
