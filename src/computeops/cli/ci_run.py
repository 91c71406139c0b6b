"""The pipeline of one recipe in one process: lint -> lock -> build -> test -> SBOM -> scan -> sign -> publish.

Every variant goes through all steps before the first is published, so that a release comes out whole or not at all.
`summary.json` tells machines what the log tells people; it and the other reports are written however the run ends.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from computeops import build as builders
from computeops import pipeline
from computeops import recipe as recipes
from computeops.check import kinds
from computeops.ci import identity, junit, sections
from computeops.config import Settings
from computeops.errors import CHECK_FAILED, ComputeOpsError, LoginError, UsageError
from computeops.files import whole_file
from computeops.http import Session
from computeops.model import Evidence, Reference
from computeops.recipe import Recipe
from computeops.store.credentials import Login
from computeops.store.oci import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for."""

    folder: Path
    push: Reference | None
    out: Path
    reports: Path
    fail_on: str
    """Severity that stops the release; empty: none does."""
    accept: str
    """Verdict that does not, though nobody could judge all."""
    token: str = field(repr=False)
    """Token of the hub; empty: trusted publishing, or what `computeops login` stored."""
    id_token_variable: str


@dataclass(slots=True)
class _Made:
    """One variant on its way."""

    variant: str
    product: pipeline.Product
    evidence: list[Evidence]
    manifest: str = ""
    reference: str = ""

    @property
    def name(self) -> str:
        """As its files are called."""
        return self.product.release.stem.name

    @property
    def tests(self) -> list[dict[str, Any]]:
        """How each test ended."""
        return [one for each in self.evidence for one in each.predicate.get("computeops_tests", ())]


class Run:
    """One run: does the steps, and remembers how they ended."""

    def __init__(self, order: Order, settings: Settings, environ: Mapping[str, str]) -> None:
        self._order = order
        self._settings = settings
        self._environ = environ
        self._service = sections.service(environ)
        self._steps: list[dict[str, Any]] = []
        self._made: list[_Made] = []
        self._facts: dict[str, Any] = {}
        self._last = ""
        self._scans: list[str] = []
        """Reports of GitLab's kind."""

    def go(self) -> int:
        """Do all steps and return the exit code; the reports are written in any case.

        Raises:
            ComputeOpsError: as the step that failed.
        """
        self._order.reports.mkdir(parents=True, exist_ok=True)
        code = 1
        try:
            code = self._all()
        except ComputeOpsError as error:
            code = error.exit_code
            self._facts["error"] = {"message": error.message, "hint": error.hint}
            raise
        finally:
            self._report(code)
        return code

    def _all(self) -> int:
        recipe = self._lint()
        self._lock(recipe)
        for variant in [one.name for one in recipe.variants] or [""]:
            self._variant(recipe, variant)
        if self._fails:
            self._say("a check failed: nothing is published" if self._order.push else "a check failed")
            return CHECK_FAILED
        if self._order.push:
            with self._step("publish") as said:
                said["published"] = self._publish(recipe, self._order.push)
        return 0

    def _lint(self) -> Recipe:
        with self._step("lint") as said:
            recipe = recipes.load(self._order.folder)
            self._facts |= {"name": recipe.package.name, "version": recipe.package.version}
            said["notes"] = builders.lint(self._order.folder, recipe)
            self._say(f"{recipe.package.name} {recipe.package.version}", *(f"note: {note}" for note in said["notes"]))
        if self._order.push and self._order.push.version not in {"", recipe.package.version}:
            raise UsageError(
                f"{self._order.push} is asked for, and the recipe is of version {recipe.package.version}",
                hint="leave the version out: it is the recipe's",
            )
        return recipe

    def _lock(self, recipe: Recipe) -> None:
        """Check the lock, or make it once for all variants."""
        folder = self._order.folder
        with self._step("lock") as said:
            pinned = builders.read_lock(folder)
            if pinned is None:
                pinned = pipeline.lock(folder, recipe, self._settings, self._progress)
                self._say(f"{builders.write_lock(folder, pinned)} was missing: commit the one of this run")
            builders.check_lock(folder, recipe, pinned)
            said["inputs"] = len(pinned.materials)
            self._say(f"{len(pinned.materials)} inputs are pinned by digest")

    def _variant(self, recipe: Recipe, variant: str) -> None:
        """Build, check and sign one variant."""
        settings, suffix = self._settings, f" {variant}" if variant else ""
        with self._step(f"build{suffix}"):
            product = pipeline.build(self._order.folder, variant, self._order.out, settings, self._progress)
            self._say(str(product.release.sif), *(f"{key} {digest}" for key, digest in product.image.subjects.items()))
        made = _Made(variant, product, list(product.evidence))
        self._made.append(made)
        if recipe.tests:
            with self._step(f"test{suffix}") as said:
                made.evidence.append(pipeline.test(product.image, recipe.tests, settings, self._progress))
                self._tested(made, said)
        with self._step(f"sbom{suffix}"):
            made.evidence += pipeline.check(product.image, (), settings, self._progress)
        if settings.advisories.exists():
            with self._step(f"scan{suffix}") as said:
                self._scan(made, said)
        with self._step(f"sign{suffix}"):
            pipeline.attest(product.release, made.evidence, settings)
            if settings.key:
                pipeline.sign(product.release.sif, settings.key, settings)
            self._say(f"signed by {settings.key}" if settings.key else "no key: written, and signed by nobody")

    def _tested(self, made: _Made, said: dict[str, Any]) -> None:
        failed = [one for one in made.tests if "fault" in one]
        said |= {"tests": len(made.tests), "failed": len(failed)}
        for one in made.tests:
            self._say(f"FAILED  {one['name']}: {one['fault']}" if "fault" in one else f"passed  {one['name']}")
        for one in failed:
            self._say(f"{one['name']} printed at its end:", *one.get("output", "").splitlines())

    def _scan(self, made: _Made, said: dict[str, Any]) -> None:
        """Judge the packages by the advisories of this machine; the reports are GitLab's, GitHub's and the table."""
        from computeops.check import inventory
        from computeops.check.report import evidence, gitlab, sarif, table
        from computeops.cli import scan as scanning

        image = made.product.image
        packages = inventory.of_image(image.path, image.arch)
        found = scanning.judge(self._settings, image, packages)
        said |= {"verdict": str(found.verdict), "counts": dict(found.counts)}
        said["failed"] = bool(self._order.fail_on) and scanning.fails(found, self._order.fail_on, (self._order.accept,))
        made.evidence.append(evidence.evidence(found))
        self._scans.append(gitlab.write(found, made.name))
        self._write("gl-container-scanning.json", gitlab.merged(self._scans).encode())  # GitLab takes one file a job
        category = f"computeops/{made.variant or 'generic'}/"
        self._write(f"{made.name}.sarif", sarif.write(found, made.name, category).encode())
        self._say(*table.write(found, made.name, everything=False).splitlines())

    def _publish(self, recipe: Recipe, reference: Reference) -> list[str]:
        """Push every variant, the generic one under the version alone."""
        with self._registry(reference) as registry:
            for made in self._made:
                version = "-".join(filter(None, (recipe.package.version, made.variant)))
                named = replace(reference, version=version)
                digest = pipeline.publish(made.product.release.sif, named, registry, self._settings, self._progress)
                made.manifest, made.reference = str(digest), str(named)
                self._say(f"{named}@{digest}")
        return [made.manifest for made in self._made]

    def _registry(self, reference: Reference) -> Registry:
        from computeops.cli import store
        from computeops.store import trusted

        hub = reference.hub or store.address(self._settings, None)
        if self._order.token:
            return Registry(hub, login=Login(self._order.token))
        with store.registry(self._settings, hub) as known, Session() as session:
            variable = self._order.id_token_variable
            proof = identity.id_token(self._environ, variable, known.base, session)
            if not proof and known.login is None:
                raise LoginError(
                    f"{known.base} does not know this job", hint=f"give it an ID token in {variable}, or a token"
                )
            if not proof:
                return Registry(hub, login=known.login)
            return Registry(hub, login=Login(trusted.push_token(known.base, proof, reference.repository)))

    @property
    def _fails(self) -> bool:
        return any(step.get("failed") for step in self._steps)

    @contextmanager
    def _step(self, name: str) -> Iterator[dict[str, Any]]:
        """Put a step into its section of the log, with its time; gives the facts of it for the summary."""
        began = time.monotonic()
        facts: dict[str, Any] = {"step": name, "outcome": "failed"}
        self._steps.append(facts)
        click.echo(sections.begin(self._service, name, int(time.time())))
        try:
            yield facts
            facts["outcome"] = "failed" if facts.get("failed") else "done"
        finally:
            facts["seconds"] = round(time.monotonic() - began, 3)
            if line := sections.end(self._service, name, int(time.time())):
                click.echo(line)

    def _progress(self, line: str) -> None:
        if line != self._last:  # "sent 2 MiB" once for each part is enough
            self._last = line
            self._say(line)

    def _say(self, *lines: str) -> None:
        for line in lines:
            click.echo(f"   {sections.plain(self._service, line)}")

    def _report(self, code: int) -> None:
        self._write("junit.xml", junit.junit({made.name: made.tests for made in self._made}))
        for made in self._made:
            for one in made.evidence:
                ending = {kinds.CYCLONEDX: "cdx.json", kinds.SPDX: "spdx.json"}.get(one.kind)
                if ending:
                    self._write(f"{made.name}.{ending}", json.dumps(one.predicate, indent=1).encode())
        images = [_facts(one) for one in self._made]
        summary = {**self._facts, "exit_code": code, "steps": self._steps, "images": images}
        self._write("summary.json", json.dumps(summary, indent=1).encode() + b"\n")
        words = {"done": "done  ", "failed": "FAILED"}
        click.echo("\n".join(f"{words[one['outcome']]} {one['seconds']:8.2f} s  {one['step']}" for one in self._steps))

    def _write(self, name: str, data: bytes) -> None:
        with whole_file(self._order.reports / name) as file:
            file.write(data)


def _facts(made: _Made) -> dict[str, Any]:
    return {
        "variant": made.variant,
        "file": str(made.product.release.sif),
        "digests": {name: str(digest) for name, digest in made.product.image.subjects.items()},
        "evidence": {kinds.short(one.kind): one.passed for one in made.evidence},
        "manifest": made.manifest,
        "reference": made.reference,
    }
