"""The seven criteria, tried on the engines of this machine, and how the result is shown."""

import json
import re
from pathlib import Path

import pytest

import containers
from computeops import engine
from computeops.cli import judgement, judgement_page
from computeops.engine.criteria import CRITERIA, KNOWN, Judged, Mark, Verdict, known


@pytest.mark.squashfs
@pytest.mark.apptainer
@pytest.mark.bubblewrap
@pytest.mark.charliecloud
@pytest.mark.docker
@pytest.mark.podman
@pytest.mark.podman_hpc
@pytest.mark.udocker
@pytest.mark.mpi
@pytest.mark.x11
def test_every_engine_is_tried_as_an_ordinary_user(scientist, docker_host: str) -> None:
    launch = containers.Launcher(scientist)
    for name in ("docker", "podman-hpc", "udocker"):
        containers.set_up(launch, name, lambda: docker_host)
    page = scientist.home / "engines.html"
    done = launch("engines", "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    judged = {one["engine"]: one for one in json.loads(done.stdout)}
    works = {name for name, one in judged.items() if one["works"]}
    assert works == {name for name in engine.names() if name not in {"kata", "sarus", "shifter", "singularity"}}
    for name in works:
        marks = {criterion: one["mark"] for criterion, one in judged[name]["criteria"].items()}
        assert list(marks) == list(CRITERIA)
        assert (marks["docker"], marks["mobility"]) == ("yes", "yes"), judged[name]
        assert "received 42" in judged[name]["criteria"]["io"]["evidence"]
        assert "was opened" in judged[name]["criteria"]["io"]["evidence"]
        assert marks["file"] == ("yes" if name == "apptainer" else "partly")
        assert judged[name]["start_seconds"] > 0
    assert judged["native"]["criteria"]["security"]["mark"] == "yes"
    assert judged["native"]["criteria"]["scheduler"]["mark"] == "yes"
    assert "NOT: SIGTERM reaches it" in judged["bubblewrap"]["criteria"]["scheduler"]["evidence"]
    assert "NOT: it is a child of its caller" in judged["docker"]["criteria"]["scheduler"]["evidence"]
    assert judged["docker"]["criteria"]["security"]["mark"] == "partly"
    assert not judged["sarus"]["works"]
    text = page.read_text()
    assert "http" not in text
    assert len(re.findall(r'<tr class="tried">', text)) == len(works)
    assert len(re.findall("as known, not tried: ", text)) == len(judged) - len(works)


def test_a_machine_without_engines_is_told_what_to_install() -> None:
    judged = [known(name, "it is not installed") for name in KNOWN]
    assert "apt-get install apptainer" in judgement.as_text(judged)
    assert all(one.verdicts and not one.tried for one in judged)


def test_the_best_is_recommended_and_nothing_breaks_the_page() -> None:
    def one(name: str, mark: Mark, seconds: float) -> Judged:
        return Judged(name, True, "", tuple(Verdict(c, mark, "<script>") for c in CRITERIA), seconds)

    judged = [one("good", Mark.YES, 0.5), one("fast", Mark.PARTLY, 0.1)]
    assert judgement.as_markdown(judged).endswith("On this machine: good meets most; fast starts fastest.")
    assert "<script>" not in judgement_page.page(judged, judgement.recommended(judged))
    assert judged[0].points == 14


def test_what_manuals_say_is_complete() -> None:
    assert all(set(facts) == set(CRITERIA) for facts in KNOWN.values())
    assert known("unheard-of", "why").verdicts[0] == Verdict("docker", Mark.UNTRIED, "why")


def test_the_page_of_the_documentation_has_every_criterion() -> None:
    text = (Path(__file__).parents[1] / "docs/explanation/engines.md").read_text()
    assert all(title.partition(":")[0] in text for title in CRITERIA.values())
