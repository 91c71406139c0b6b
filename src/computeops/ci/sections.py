"""The sections of a log, in the words of the service that shows it.

GitLab: https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
GitHub: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#grouping-log-lines
"""

import re
from collections.abc import Mapping

_SAFE = re.compile(r"[^a-z0-9_]+")


def service(environ: Mapping[str, str]) -> str:
    """Return the service that this process runs under: gitlab, github, or ""."""
    if environ.get("GITLAB_CI") == "true":
        return "gitlab"
    return "github" if environ.get("GITHUB_ACTIONS") == "true" else ""


def begin(service: str, title: str, now: int) -> str:
    """Return the line that begins the section `title`."""
    match service:
        case "gitlab":
            return f"\x1b[0Ksection_start:{now}:{_name(title)}\r\x1b[0K\x1b[1m{title}\x1b[0m"
        case "github":
            return f"::group::{title}"
        case _:
            return f"== {title}"


def end(service: str, title: str, now: int) -> str:
    """Return the line that ends the section `title`; empty where none is needed."""
    match service:
        case "gitlab":
            return f"\x1b[0Ksection_end:{now}:{_name(title)}\r\x1b[0K"
        case "github":
            return "::endgroup::"
        case _:
            return ""


def plain(service: str, text: str) -> str:
    """Return a line of a log that the service takes as text, never as a command of ours.

    What a build prints is not ours: `::set-env` or `section_start:` in it must stay words.
    """
    text = "".join(one if one.isprintable() or one == "\t" else " " for one in text)
    return f"| {text}" if service == "github" and text.lstrip().startswith(("::", "##[")) else text


def _name(title: str) -> str:
    return "computeops_" + _SAFE.sub("_", title.lower()).strip("_")
