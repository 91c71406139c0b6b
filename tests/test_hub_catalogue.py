"""The catalogue: what pushes become, and what searches find."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from computeops.errors import NotFoundError, UsageError
from computeops.hub import catalogue, contents, facts, present, search
from computeops.hub import details as details_of
from computeops.hub.auth import ANYONE, Caller, Scope
from computeops.hub.db import Repository
from computeops.hub.tables import evidence, manifests, recipes, releases, tags
from computeops.hub.tables import words as words_table
from computeops.image import oci
from shelf import CYCLONEDX, PROVENANCE, RECIPE, TEST, VULNS, Shelf, envelope

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=8), one, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with Shelf(tmp_path / "hub") as empty:
        yield empty


SCOPED = ["bio/x", "bio/x-y", "b/x", "bio/x/y", "bio_z/x", "pub/x"]


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Repositories whose names resemble each other; only those of `pub` are public."""
    with Shelf(tmp_path_factory.mktemp("hub") / "hub") as filled:
        for name in SCOPED:
            filled.hub.database.set_public(name.rpartition("/")[0], public=name.startswith("pub"))
            filled.image(name, "1")
        yield filled


def found(shelf: Shelf, query: str = "", caller: Caller = ANYONE, **options: Any) -> list[str]:
    return [one.reference for one in search.search(shelf.hub.database, caller, query, **options).entries]


def details(shelf: Shelf, repository: str, version: str = "", **options: Any) -> details_of.Details:
    database = shelf.hub.database
    return details_of.details(database, details_of.repository(database, ANYONE, repository), version, **options)


# What a push becomes


def test_an_image_with_a_recipe_is_a_release_with_what_the_recipe_says(shelf: Shelf) -> None:
    shelf.release("bio/samtools", "1.21", summary="Tools for reads", license="MIT", domains=["bioinformatics"])
    (one,) = search.search(shelf.hub.database, ANYONE).entries
    assert (one.reference, one.version, one.variant, one.arch) == ("bio/samtools:1.21", "1.21", "", "amd64")
    assert (one.summary, one.license, one.domains) == ("Tools for reads", "MIT", ("bioinformatics",))
    assert one.image.startswith("sha256:")
    assert one.size > 1000


def test_an_image_without_a_recipe_says_what_its_labels_say(shelf: Shelf) -> None:
    labels = {"org.opencontainers.image.description": "An aligner", "org.opencontainers.image.licenses": "MIT"}
    shelf.image("bio/bwa", "0.7", labels=labels)
    (one,) = search.search(shelf.hub.database, ANYONE, "aligner").entries
    assert (one.summary, one.license, one.version) == ("An aligner", "MIT", "0.7")


def test_a_tag_of_a_variant_is_the_version_and_the_variant(shelf: Shelf) -> None:
    text = RECIPE.format(
        name="samtools", version="1.21", summary="S", license="MIT", domains="[]", more='[[variants]]\nname = "v3"'
    )
    for tag in ("1.21", "1.21-v3", "1.21-other"):
        shelf.recipe("bio/samtools", shelf.image("bio/samtools", tag), text)
    kinds = {one.tag: (one.version, one.variant) for one in search.search(shelf.hub.database, ANYONE).entries}
    assert kinds == {"1.21": ("1.21", ""), "1.21-v3": ("1.21", "v3"), "1.21-other": ("1.21-other", "")}


def test_a_recipe_cannot_put_an_image_under_the_version_of_another_tag(shelf: Shelf) -> None:
    good = shelf.release("bio/samtools", "1.21")
    text = RECIPE.format(name="samtools", version="1.21", summary="S", license="MIT", domains="[]", more="")
    shelf.recipe("bio/samtools", shelf.image("bio/samtools", "2.0"), text)
    assert details(shelf, "bio/samtools", "1.21").release.digest == good
    assert len(details(shelf, "bio/samtools", "1.21").images) == 1


def test_further_names_of_a_release_are_not_releases(shelf: Shelf) -> None:
    digest = shelf.release("bio/samtools", "1.21")
    row = shelf.hub.database.manifest(Repository(1, "bio/samtools", public=True), digest)
    assert row is not None
    shelf.push("bio/samtools", json.loads(row.body), "latest")
    assert found(shelf) == ["bio/samtools:1.21"]
    assert details(shelf, "bio/samtools", "latest").release.tag == "1.21"
    assert details(shelf, "bio/samtools").tags == ("1.21", "latest")


def test_latest_alone_is_a_release(shelf: Shelf) -> None:
    shelf.image("bio/samtools", "latest")
    assert found(shelf) == ["bio/samtools:latest"]


def test_an_index_of_two_architectures_is_one_release_with_two_images(shelf: Shelf) -> None:
    images = [shelf.image("bio/samtools", arch=arch) for arch in ("amd64", "arm64")]
    index = shelf.index("bio/samtools", "1.21", images)
    shelf.recipe(
        "bio/samtools",
        index,
        RECIPE.format(name="samtools", version="1.21", summary="Both", license="MIT", domains="[]", more=""),
    )
    page = search.search(shelf.hub.database, ANYONE, by_version=True)
    assert [present.architectures(one) for one in page.entries] == [["amd64", "arm64"]]
    assert details(shelf, "bio/samtools", "1.21").release.arch == "amd64"
    other = details(shelf, "bio/samtools", "1.21", arch="arm64")
    assert (other.release.arch, other.release.digest, other.release.summary) == ("arm64", images[1], "Both")


@pytest.mark.parametrize(
    "change",
    [
        {"artifactType": "application/vnd.cncf.helm.chart"},
        {"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}},
        {"layers": [{"mediaType": "application/vnd.in-toto+json"}]},
    ],
)
def test_what_is_no_image_is_no_release(change: dict[str, Any]) -> None:
    document = {"config": {"mediaType": oci.CONFIG}, "layers": [{"mediaType": "x"}]}
    assert contents.is_image(json.dumps(document).encode())
    assert not contents.is_image(json.dumps(document | change).encode())


def test_a_moved_tag_leaves_nothing_of_the_old_image(shelf: Shelf) -> None:
    shelf.image("bio/bwa", "main", content="old", labels={"org.opencontainers.image.description": "ancient"})
    shelf.image("bio/bwa", "main", content="new", labels={"org.opencontainers.image.description": "modern"})
    assert found(shelf, "ancient") == []
    assert found(shelf, "modern") == ["bio/bwa:main"]
    assert len(details(shelf, "bio/bwa", "main").images) == 1


def test_a_deleted_tag_leaves_the_catalogue(shelf: Shelf) -> None:
    shelf.release("bio/bwa", "1")
    shelf.release("bio/bwa", "2")
    with shelf.hub.database.write() as connection:
        connection.execute(sa.update(tags).where(tags.c.name == "1").values(retired=True))
    catalogue.removed(shelf.hub, details_of.repository(shelf.hub.database, ANYONE, "bio/bwa"), tag="1")
    assert found(shelf) == ["bio/bwa:2"]
    assert found(shelf, "bwa") == ["bio/bwa:2"]


# Recipes


def test_a_second_recipe_changes_nothing(shelf: Shelf) -> None:
    digest = shelf.release("bio/samtools", "1.21", summary="The first")
    shelf.recipe(
        "bio/samtools",
        digest,
        RECIPE.format(name="samtools", version="1.21", summary="The second", license="MIT", domains="[]", more=""),
    )
    with shelf.hub.database.read() as connection:
        order = [row.digest for row in shelf.hub.database.referrers(Repository(1, "bio/samtools", public=True), digest)]
        (row,) = connection.execute(sa.select(recipes)).all()
    assert row.digest == order[0]


@pytest.mark.parametrize(
    "text", [b"", b"[package", b"\xff\xfe", b"[package]\nname = 3", b"[" * 10_000, b"x" * (2 << 20)]
)
def test_a_broken_recipe_is_shown_as_broken(shelf: Shelf, text: bytes) -> None:
    digest = shelf.image("bio/samtools", "1.21")
    shelf.recipe("bio/samtools", digest, text)
    seen = details(shelf, "bio/samtools", "1.21")
    assert seen.fault
    assert seen.about == {}
    assert [file.name for file in seen.recipe] == ["computeops.toml"]


def test_a_recipe_for_a_builder_that_the_hub_does_not_have_is_not_broken(shelf: Shelf) -> None:
    text = RECIPE.format(name="x", version="1", summary="S", license="MIT", domains="[]", more="")
    text = text.replace('builder = "debian"', 'builder = "nix"').replace(
        'suite = "bookworm"\npackages = ["busybox"]\n', ""
    )
    shelf.recipe("bio/x", shelf.image("bio/x", "1"), text)
    assert details(shelf, "bio/x").fault == ""


def test_a_recipe_artifact_without_a_recipe_is_broken(shelf: Shelf) -> None:
    shelf.artifact("bio/x", shelf.image("bio/x", "1"), oci.RECIPE_ARTIFACT, {"build.sh": b"true"})
    assert "no computeops.toml" in details(shelf, "bio/x").fault


def test_what_makes_a_tag_immutable(shelf: Shelf) -> None:
    plain, with_recipe = shelf.image("bio/x", "1"), shelf.release("bio/x", "2")
    repository = details_of.repository(shelf.hub.database, ANYONE, "bio/x")
    assert not catalogue.is_release(shelf.hub, repository, plain)
    assert catalogue.is_release(shelf.hub, repository, with_recipe)


# Evidence


def test_evidence_in_a_few_words(shelf: Shelf) -> None:
    digest = shelf.release("bio/x", "1")
    shelf.evidence("bio/x", digest, TEST, {"result": "FAILED", "passedTests": ["a", "b"], "failedTests": ["c"]})
    shelf.evidence("bio/x", digest, CYCLONEDX, {"components": [{}, {}, {}]}, signers=["SHA256:one", "SHA256:two"])
    shelf.evidence("bio/x", digest, VULNS, {"scanner": {"result": []}})
    shelf.evidence("bio/x", digest, PROVENANCE, {"runDetails": {"builder": {"id": "https://ci.example.org/b"}}})
    known = {one.kind: one for one in details(shelf, "bio/x").release.evidence}
    assert (known[TEST].passed, known[TEST].words) == (False, "2 passed, 1 failed")
    assert (known[CYCLONEDX].passed, known[CYCLONEDX].packages) == (None, 3)
    assert known[CYCLONEDX].signers == ("SHA256:one", "SHA256:two")
    assert known[VULNS].words == "nothing found"
    assert known[PROVENANCE].words == "by ci.example.org/b"


def test_evidence_about_another_image_does_not_count(shelf: Shelf) -> None:
    digest = shelf.release("bio/x", "1")
    shelf.evidence("bio/x", digest, TEST, {"result": "PASSED"}, about="sha256:" + "0" * 64)
    (one,) = details(shelf, "bio/x").release.evidence
    assert one.passed is None
    assert one.fault == "is about another image"
    assert present.badges([one]) == []


def test_evidence_may_name_the_image_id_alone(shelf: Shelf) -> None:
    digest = shelf.release("bio/x", "1")
    shelf.evidence("bio/x", digest, TEST, {"result": "PASSED"}, about=details(shelf, "bio/x").release.image)
    assert details(shelf, "bio/x").release.evidence[0].passed is True


def test_one_failed_test_cannot_be_outvoted(shelf: Shelf) -> None:
    digest = shelf.release("bio/x", "1")
    for number, result in enumerate(["PASSED", "FAILED", "PASSED", "WARNED"]):
        shelf.evidence("bio/x", digest, TEST, {"result": result, "number": number})
    assert [badge.text for badge in present.badges(details(shelf, "bio/x").release.evidence)] == ["Tests failed"]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"payload": 3}', b"[" * 100_000, envelope(b"x"), envelope(b"{}")]
)
def test_unreadable_evidence_says_so(data: bytes) -> None:
    known = facts.read(data)
    assert known.facts["fault"]
    assert known.passed is None


@QUIET
@given(st.binary(max_size=200) | JSON.map(lambda one: json.dumps(one).encode()))
def test_no_envelope_is_refused(data: bytes) -> None:
    facts.read(data)
    facts.read(envelope(data))


@QUIET
@given(st.sampled_from([TEST, CYCLONEDX, VULNS, PROVENANCE, "x"]), JSON)
def test_no_predicate_is_refused(kind: str, predicate: Any) -> None:
    statement = {"predicateType": kind, "subject": [{"digest": {"sha256": "0"}}], "predicate": predicate}
    known = facts.read(envelope(json.dumps(statement).encode()))
    assert known.kind == kind


@QUIET
@given(st.text())
def test_cleaned_text_can_be_stored_and_shown(text: str) -> None:
    seen = facts.clean(text)
    seen.encode()
    assert "\u202e" not in seen
    assert "\n" not in seen


@QUIET
@given(JSON, JSON, JSON)
def test_no_manifest_is_refused(config: Any, layers: Any, whole: Any) -> None:
    for document in ({"config": config, "layers": layers, "annotations": whole, "manifests": layers}, whole):
        body = json.dumps(document).encode()
        contents.files(body)
        contents.children(body, oci.INDEX)
        contents.is_image(body)


# Made anew


def snapshot(shelf: Shelf) -> list[Any]:
    columns = [column for column in releases.c if column.name != "id"]
    with shelf.hub.database.read() as connection:
        rows = [connection.execute(sa.select(*columns).order_by(releases.c.tag, releases.c.digest)).all()]
        rows += [
            connection.execute(sa.select(table).order_by(*table.primary_key)).all() for table in (recipes, evidence)
        ]
        rows.append(connection.execute(sa.select(words_table.c.terms).order_by("terms")).all())
    return rows


def test_reindexing_an_empty_index_gives_the_same(shelf: Shelf) -> None:
    digest = shelf.release("bio/samtools", "1.21", summary="Tools for reads")
    shelf.evidence("bio/samtools", digest, TEST, {"result": "PASSED"})
    shelf.index("bio/both", "1", [shelf.image("bio/both", arch=arch) for arch in ("amd64", "arm64")])
    before = snapshot(shelf)
    with shelf.hub.database.write() as connection:
        for table in (releases, recipes, evidence, words_table):
            connection.execute(sa.delete(table))
    assert found(shelf, "samtools") == []
    catalogue.reindex(shelf.hub)
    assert snapshot(shelf) == before
    assert found(shelf, "samtools") == ["bio/samtools:1.21"]


def test_reindexing_removes_what_is_no_longer_there(shelf: Shelf) -> None:
    shelf.release("bio/samtools", "1.20")
    shelf.release("bio/samtools", "1.21")
    with shelf.hub.database.write() as connection:
        connection.execute(sa.delete(tags).where(tags.c.name == "1.20"))
        connection.execute(sa.delete(manifests).where(manifests.c.artifact_type == oci.RECIPE_ARTIFACT))
    catalogue.reindex(shelf.hub)
    assert found(shelf) == ["bio/samtools:1.21"]
    assert details(shelf, "bio/samtools").about == {}


# Searching


def test_a_word_in_the_name_comes_first_then_the_newest(shelf: Shelf) -> None:
    shelf.release("bio/samtools", "1.20", summary="Reads")
    shelf.release("bio/pysam", "0.22", summary="Python for samtools")
    shelf.release("bio/samtools", "1.21", summary="Reads")
    assert found(shelf, "samtools") == ["bio/samtools:1.21", "bio/samtools:1.20", "bio/pysam:0.22"]


@pytest.mark.parametrize(
    "query", ["samt", "SAMTOOLS", "bio samtools", "1.21", "sequenc", "bioinf 1.21", "geno", "  samtools !!! "]
)
def test_a_word_may_be_the_beginning_and_from_any_field(shelf: Shelf, query: str) -> None:
    shelf.release("bio/samtools", "1.21", summary="Tools for sequencing", domains=["bioinformatics", "genomics"])
    assert found(shelf, query) == ["bio/samtools:1.21"]


@pytest.mark.parametrize("query", ["samtools bwa", "amtools", "!!!", "-", '"', "*"])
def test_all_words_must_be_there(shelf: Shelf, query: str) -> None:
    shelf.release("bio/samtools", "1.21")
    assert found(shelf, query) == []


@pytest.mark.parametrize(
    "query",
    [
        '"',
        '""',
        "name:samtools OR x",
        "samtools*",
        "NEAR(samtools x)",
        "^samtools",
        "{name}:x",
        "a AND",
        "NOT x",
        "(",
        "') OR 1=1 --",
        "\0",
        "x\0y",
        "-samtools",
        "sam + tools",
        "words MATCH 'x'",
    ],
)
def test_no_word_is_syntax(shelf: Shelf, query: str) -> None:
    shelf.release("bio/other", "1")
    assert found(shelf, query) == []


@QUIET
@given(st.text(max_size=256) | st.text(alphabet="\"*():^{}+-~ ANDORTNEAR\0'\\%_a1é", max_size=60))
def test_any_search_is_answered(scoped: Shelf, query: str) -> None:
    assert set(found(scoped, query)) <= {"pub/x:1"}


@pytest.mark.parametrize("summary", ["Größe der Zelle", "解析ツール", "تحليل الجينوم", "नमस्ते दुनिया", "naïve 🧬 model"])
def test_words_of_every_script_are_found(shelf: Shelf, summary: str) -> None:
    shelf.release("bio/x", "1", summary=summary)
    for word in summary.split():
        if any(char.isalnum() for char in word):
            assert found(shelf, word) == ["bio/x:1"]


def test_accents_do_not_matter(shelf: Shelf) -> None:
    shelf.release("bio/x", "1", summary="naïve")
    assert found(shelf, "naive") == ["bio/x:1"]


@pytest.mark.parametrize("by_version", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("query", ["", "tool"])
def test_pages_have_everything_once(shelf: Shelf, query: str, limit: int, by_version: bool) -> None:
    expected = set()
    for number in range(7):
        name = f"bio/{'tool' if number % 2 else 'other'}{number}"
        shelf.image(name, "1", labels={"org.opencontainers.image.description": "a tool"})
        expected.add(f"{name}:1")
    seen, after = [], ""
    while True:
        page = search.search(shelf.hub.database, ANYONE, query, limit=limit, after=after, by_version=by_version)
        seen += [one.reference for one in page.entries]
        assert len(page.entries) <= limit
        if not page.after:
            break
        after = page.after
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


def test_wrong_limits_and_cursors_are_refused(shelf: Shelf) -> None:
    for options in ({"limit": 0}, {"limit": 101}, {"after": "4.1"}, {"after": "x"}, {"after": "1." + "9" * 30}):
        with pytest.raises(UsageError):
            search.search(shelf.hub.database, ANYONE, **options)
    with pytest.raises(UsageError):
        search.search(shelf.hub.database, ANYONE, "x" * 257)


# Who may see


def test_a_private_release_does_not_exist_for_strangers(shelf: Shelf) -> None:
    shelf.hub.database.set_public("secret", public=False)
    shelf.release("secret/samtools", "1.21", summary="Hidden")
    friend = Caller("friend", (Scope.parse("pull:secret/*"),), 1)
    for stranger in (ANYONE, Caller("other", (Scope.parse("push:bio/*"), Scope.parse("pull:secret/samtool")), 2)):
        assert found(shelf, caller=stranger) == []
        assert found(shelf, "samtools", caller=stranger) == []
        assert found(shelf, "samtools", caller=stranger, by_version=True) == []
        with pytest.raises(NotFoundError) as hidden:
            details_of.repository(shelf.hub.database, stranger, "secret/samtools")
        with pytest.raises(NotFoundError) as missing:
            details_of.repository(shelf.hub.database, stranger, "secret/nothing00")
        assert hidden.value.message == missing.value.message.replace("nothing00", "samtools")
        assert hidden.value.hint == missing.value.hint
    assert found(shelf, "samtools", caller=friend) == ["secret/samtools:1.21"]


PATTERNS = st.sampled_from(["*", "bio/*", "bio/x", "b/*", "bio/x/*", "bi", "bio_/*", "b_o/*", "bio/x-y"])


@QUIET
@given(st.lists(st.tuples(st.sampled_from(["pull", "push", "delete"]), PATTERNS), max_size=3))
def test_lists_show_what_the_caller_sees(scoped: Shelf, scopes: list[tuple[str, str]]) -> None:
    caller = Caller("x", tuple(Scope(action, pattern) for action, pattern in scopes), 1)
    public = {name: name.startswith("pub") for name in SCOPED}
    expected = {f"{name}:1" for name in SCOPED if caller.sees(Repository(0, name, public=public[name]))}
    assert set(found(scoped, caller=caller)) == expected


# Facts


def test_facts_narrow_a_search(shelf: Shelf) -> None:
    more = 'gpu = "nvidia"\n\n[[variants]]\nname = "v3"\ncpu = "x86_64_v3"\n'
    shelf.release("bio/samtools", "1.21", domains=["bioinformatics"], license="MIT OR Apache-2.0")
    shelf.release("bio/samtools", "1.21-v3", arch="arm64", more=f"\n[requires]\n{more}")
    shelf.release("chem/gromacs", "2024", license="LGPL-2.1-only")
    for asked, expected in {
        ("license", "MIT"): ["bio/samtools:1.21-v3", "bio/samtools:1.21"],
        ("license", "apache-2.0"): ["bio/samtools:1.21"],
        ("license", "MIT OR Apache-2.0"): ["bio/samtools:1.21"],
        ("license", "OR"): [],
        ("arch", "arm64"): ["bio/samtools:1.21-v3"],
        ("gpu", "nvidia"): ["bio/samtools:1.21-v3"],
        ("domain", "bioinformatics"): ["bio/samtools:1.21"],
        ("domain", "bio"): [],
        ("collection", "chem"): ["chem/gromacs:2024"],
    }.items():
        assert found(shelf, facts=dict([asked])) == expected, asked
    assert found(shelf, "samtools", facts={"arch": "arm64", "license": "MIT"}) == ["bio/samtools:1.21-v3"]
    assert found(shelf, "gromacs", facts={"collection": "bio"}) == []
    with pytest.raises(UsageError, match="did you mean 'license'"):
        found(shelf, facts={"licence": "MIT"})


def test_a_cpu_level_is_that_of_the_variant(shelf: Shelf) -> None:
    digest = shelf.image("bio/x", "1-v3")
    text = RECIPE.format(name="x", version="1", summary="S", license="MIT", domains="[]", more="")
    shelf.recipe("bio/x", digest, text + '[[variants]]\nname = "v3"\ncpu = "x86_64_v3"\n')
    assert found(shelf, facts={"cpu": "x86_64_v3", "variant": "v3"}) == ["bio/x:1-v3"]
    assert found(shelf, facts={"cpu": "x86_64_v4"}) == []


def test_verified_is_what_has_evidence_and_nothing_that_failed(shelf: Shelf) -> None:
    digest, other = shelf.release("bio/x", "1"), shelf.release("bio/y", "1")
    assert found(shelf, facts={"verified": "test"}) == []
    passed = shelf.evidence("bio/x", digest, TEST, {"result": "PASSED"})
    shelf.evidence("bio/y", other, TEST, {"result": "PASSED"}, about=digest)
    shelf.evidence("bio/y", other, CYCLONEDX, {"components": []})
    assert found(shelf, facts={"verified": "test"}) == ["bio/x:1"]
    assert found(shelf, facts={"verified": "cyclonedx"}) == ["bio/y:1"]
    failed = shelf.evidence("bio/x", digest, TEST, {"result": "FAILED"})
    assert found(shelf, facts={"verified": "test"}) == []
    repository = details_of.repository(shelf.hub.database, ANYONE, "bio/x")
    catalogue.removed(shelf.hub, repository, digest=failed)
    assert found(shelf, facts={"verified": "test"}) == ["bio/x:1"]
    catalogue.removed(shelf.hub, repository, digest=passed)
    assert found(shelf, facts={"verified": "test"}) == []


def test_what_is_called_so_comes_before_what_has_it_in_the_name(shelf: Shelf) -> None:
    for name, summary in (("r", "Statistics"), ("r-base", "R"), ("rust", "Language"), ("x", "for R")):
        shelf.release(f"lang/{name}", "1", summary=summary)
    assert [one.partition(":")[0] for one in found(shelf, "r")] == ["lang/r", "lang/rust", "lang/r-base", "lang/x"]


def test_words_count_by_their_first_letters(shelf: Shelf) -> None:
    word = "tetrahydrocannabinolic"
    shelf.release("bio/x", "1", summary=f"About {word}")
    for end in range(1, len(word) + 1):
        assert found(shelf, word[:end]) == ["bio/x:1"]
