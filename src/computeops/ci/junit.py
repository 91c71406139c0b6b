"""Test results as JUnit XML, which GitLab, GitHub's actions, Jenkins and others show.

The schema that all of them read: https://github.com/testmoapp/junitxml
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, escaped or not."""


def junit(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Return the document of all suites: name to its tests, each with `name`, `seconds` and, if it failed, `fault`.

    They are the `computeops_tests` of `check.test`; of a failed one, `output` is the end of what it printed.
    """
    root = ET.Element("testsuites", _sums([one for tests in results.values() for one in tests]))
    for name, tests in results.items():
        suite = ET.SubElement(root, "testsuite", {"name": _text(name), **_sums(tests), "errors": "0", "skipped": "0"})
        for one in tests:
            case = ET.SubElement(
                suite,
                "testcase",
                {"classname": _text(name), "name": _text(one["name"]), "time": f"{one.get('seconds', 0):.3f}"},
            )
            if fault := one.get("fault"):
                ET.SubElement(case, "failure", {"message": _text(fault), "type": "failed"}).text = _text(
                    one.get("output", "")
                )
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _sums(tests: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        "tests": str(len(tests)),
        "failures": str(sum("fault" in one for one in tests)),
        "time": f"{sum(one.get('seconds', 0) for one in tests):.3f}",
    }


def _text(value: object) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))
