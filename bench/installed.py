"""`computeops` as pip installs it for an ordinary user: compiled modules and a console script of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import material

_SOURCES = Path(__file__).parents[1] / "src" / "computeops"


def command(work: Path) -> Path:
    """Install the working copy under `work` with a Python that the ordinary user may execute; return the command."""
    same = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"  # compiled modules fit only this version
    python = next(one for one in (os.path.realpath(sys.executable), same) if _works(one))
    place = work / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True)
    packages = place / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    shutil.copytree(_SOURCES, packages / "computeops", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([place / "bin/python", "-m", "compileall", "-q", packages], check=True, env=environ)
    script = place / "bin/computeops"
    script.write_text(f"#!{place}/bin/python\nimport sys\nfrom computeops.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return script


def _works(python: str) -> bool:
    argv = material.as_user([python, "-c", "import venv"])
    if os.geteuid() == 0 and argv[0] == python:  # it would run, but as root
        return False
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
