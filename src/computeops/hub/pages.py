"""How a page is made: the templates, what every page has, and the headers that let nothing run in it.

What people wrote is escaped by Jinja, and the Content-Security-Policy lets nothing run even if it were not.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from computeops import __version__
from computeops.errors import ComputeOpsError
from computeops.hub import browser, facts, present
from computeops.hub.auth import ANYONE
from computeops.hub.etag import tagged
from computeops.hub.state import Hub

if TYPE_CHECKING:
    import jinja2

HTML = "text/html"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FOLDER = Path(__file__).parent
STATIC = {path.name: path.read_bytes() for path in (_FOLDER / "static").iterdir()}
"""Style sheet and pictures."""


def page(hub: Hub, request: Request, template: str, values: Mapping[str, Any]) -> Response:
    """Return a page that a browser may keep and ask about again."""
    return tagged(request, render(template, {**common(hub, request), **values}).encode(), HTML, HEADERS)


def own_page(hub: Hub, request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """Return a page with forms or secrets, which nobody keeps."""
    form = browser.signature(hub, request, begin=True)
    html = render(template, {**common(hub, request), "form": form, **values})
    answer = Response(html, status, HEADERS | {"Cache-Control": "no-store"}, HTML)
    return browser.with_form(hub, request, answer)


def see_other(place: str) -> Response:
    """Send the browser on to a path of this hub after a form."""
    return RedirectResponse(place, 303, HEADERS | {"Cache-Control": "no-store"})


def common(hub: Hub, request: Request) -> dict[str, Any]:
    """Return what every template may ask for."""
    try:
        caller = browser.caller(hub, request)
    except ComputeOpsError:
        caller = ANYONE
    form = browser.signature(hub, request)
    return {"caller": caller, "form": form, "query": "", "version": __version__, "style": _STYLE, "private": False}


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return the HTML of a template."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> "jinja2.Environment":
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": present.size, "day": present.day, "moment": present.moment, "short": present.short}
    made.filters |= {"badges": present.badges, "title_of": facts.title, "sentence": present.sentence}
    made.filters |= {"verdict_badges": present.verdict_badges, "verdict_words": present.verdict_words}
    made.filters |= {"kept_back": present.kept_back}
    made.filters |= {"architectures": present.architectures, "variants": present.variants}
    return made


_STYLE = "/-/portal.css?" + hashlib.sha256(STATIC["portal.css"]).hexdigest()[:12]
