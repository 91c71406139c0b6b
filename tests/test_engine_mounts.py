"""What a container sees, as options of bwrap: nothing is made in the image, and no link of an image leads out of it."""

from pathlib import Path

import pytest

from computeops.engine import mounts
from computeops.engine.model import Bind, Prepared, Request
from computeops.errors import EngineError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "root"
    for name in ("bin", "dev", "etc", "home", "proc", "sys", "tmp", "usr/lib", "var/tmp"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0\n")
    (tree / "etc/config").write_text("x")
    return tree


def options(root: Path, *binds: Bind, **more) -> list[tuple[str, ...]]:
    """The options, each with its arguments."""
    request = Request(action="exec", argv=("true",), binds=binds, home=False, cwd="/", **more)
    words = mounts.options(Prepared(root, root), request, {})
    found: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            found.append([])
        found[-1].append(word)
    return [tuple(one) for one in found]


def bind(source: Path, target: str, *, read_only: bool = False) -> Bind:
    return Bind(source, target, read_only)


def test_an_image_with_all_places_is_shown_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (root / "data").mkdir()
    found = options(root, bind(root, "/data"))
    assert found[0] == ("--ro-bind", str(root), "/")
    assert ("--bind", str(root), "/data") in found
    assert not any(option[0] == "--tmpfs" for option in found if option[1:] != ("/etc",))


def test_only_the_folder_that_lacks_a_place_is_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = options(root, bind(root, "/usr/lib/new/deep"))
    assert ("--tmpfs", "/usr/lib") in found
    assert ("--tmpfs", "/") not in found
    assert ("--remount-ro", "/usr/lib") in found
    assert found.index(("--remount-ro", "/usr/lib")) > found.index(("--bind", str(root), "/usr/lib/new/deep"))
    assert not (root / "usr/lib/new").exists()


def test_the_entries_of_an_opened_folder_are_all_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (root / "lib").symlink_to("usr/lib")
    found = options(root, bind(root, "/brand/new"))
    assert ("--tmpfs", "/") in found
    assert ("--symlink", "usr/lib", "/lib") in found
    assert ("--ro-bind", str(root / "usr"), "/usr") in found


@pytest.mark.parametrize("link", ["/", "/../../../..", "../../../../../..", "/etc/../.."])
def test_a_link_of_a_hostile_image_stays_inside(root: Path, link: str) -> None:
    (root / "evil").symlink_to(link)
    assert mounts.resolved(root, "/evil/etc/shadow") == ("etc", "shadow")


def test_a_link_that_leads_nowhere_ends(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="links"):
        mounts.resolved(root, "/loop/etc/shadow")


def test_binds_go_where_the_images_links_lead(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (root / "scratch").symlink_to("/var/tmp/real")
    found = options(root, bind(tmp_path, "/scratch"), isolated=True)
    assert ("--bind", str(tmp_path), "/var/tmp/real") in found


def test_parents_are_mounted_before_children_in_whatever_order_they_were_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    found = options(root, bind(tmp_path, "/x/b"), bind(tmp_path / "a", "/x"))
    places = [option[-1] for option in found]
    assert places.index("/x") < places.index("/x/b")


def test_the_last_bind_to_a_place_wins(root: Path, tmp_path: Path) -> None:
    found = options(root, bind(root, "/x"), bind(tmp_path, "/x"))
    assert [option for option in found if option[-1] == "/x"] == [("--bind", str(tmp_path), "/x")]


def test_a_place_inside_another_bind_must_be_there(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    with pytest.raises(EngineError, match="does not have it"):
        options(root, bind(tmp_path / "outer", "/x"), bind(root, "/x/missing"))
    assert list((tmp_path / "outer").iterdir()) == []


def test_files_and_folders_are_not_laid_over_each_other(root: Path) -> None:
    with pytest.raises(UsageError, match="file"):
        options(root, bind(root / "etc", "/etc/config"))
    with pytest.raises(UsageError, match="file"):
        options(root, bind(root / "etc/config", "/usr"))
    with pytest.raises(UsageError, match="whole image"):
        options(root, bind(root, "/"))


@pytest.mark.parametrize(
    ("text", "source", "target", "read_only"),
    [
        ("{0}", "{0}", "{0}", False),
        ("{0}:/data", "{0}", "/data", False),
        ("{0}:/data:ro", "{0}", "/data", True),
        ("{0}:/data:rw", "{0}", "/data", False),
        ("{0}/a\\:b:/x\\:y:ro", "{0}/a:b", "/x:y", True),
        ("{0}::ro", "{0}", "{0}", True),
    ],
)
def test_binds_as_they_are_typed(tmp_path: Path, text: str, source: str, target: str, read_only: bool) -> None:
    (tmp_path / "a:b").mkdir()
    expected = Bind(Path(source.format(tmp_path)), target.format(tmp_path), read_only)
    assert Bind.parse(text.format(tmp_path)) == expected


@pytest.mark.parametrize("text", ["", ":/x", "/:/x:rx", "/:x", "/no/such/place", "/:/a:ro:more"])
def test_binds_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        Bind.parse(text)
