"""The conformance suite of OCI distribution-spec, run whole against a hub.

It is a Go program, `github.com/opencontainers/distribution-spec/conformance`; `.ci/install-peers` shows how it is built and
installs it as `oci-conformance`. Version `dev` of the suite demands more than 1.1 does: every
digest header, cancelled uploads, tags as parameters.
"""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from conftest import RunningHub


@pytest.mark.oci_conformance
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_official_suite(hub: RunningHub, tmp_path: Path, version: str) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "OCI_REGISTRY": hub.host,
        "OCI_TLS": "disabled",
        "OCI_REPO1": "conformance/one",
        "OCI_REPO2": "conformance/two",
        "OCI_USERNAME": "conformance",
        "OCI_PASSWORD": hub.token("delete:conformance/*"),
        "OCI_RESULTS_DIR": str(tmp_path),
        "OCI_VERSION": version,
        "OCI_LOG": "warn",
    }
    done = subprocess.run(["oci-conformance"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    suite = ET.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert not failed
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(suite.get("tests", "0")) > 800
    assert re.search(r"Skip\.+: +0\n", done.stdout) or version == "1.1"
