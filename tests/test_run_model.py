"""What a job is asked for in words, and which names schedulers get to see."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.errors import UsageError
from computeops.run import body, gridengine, model
from computeops.run.model import Array, Job, Record


@pytest.mark.parametrize(
    ("text", "array"),
    [("10", Array(1, 10)), ("3-7", Array(3, 7)), ("1-100%5", Array(1, 100, 5)), ("4%2", Array(1, 4, 2))],
)
def test_arrays(text: str, array: Array) -> None:
    assert Array.parse(text) == array


@pytest.mark.parametrize(
    "text", ["", "0", "1-0", "-1", "1-2-3", "5%0", "1,3", "a", "1-2%", "99999999999", "\N{FULLWIDTH DIGIT ONE}"]
)
def test_arrays_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Array.parse(text)


@pytest.mark.parametrize(
    ("text", "mib"),
    [("512", 512), ("512M", 512), ("4G", 4096), ("1.5GiB", 1536), ("2 GB", 2048), ("1T", 1 << 20), ("1K", 1)],
)
def test_memory(text: str, mib: int) -> None:
    assert model.memory(text) == mib


@pytest.mark.parametrize("text", ["", "0", "much", "-1G", "1X", "1e9"])
def test_memory_that_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        model.memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("90s", 90),
        ("1h30m", 5400),
        ("2d", 172800),
        ("02:30", 9000),
        ("1:00:05", 3605),
        ("1-00:00:00", 86400),
    ],
)
def test_spans_of_time(text: str, seconds: int) -> None:
    assert model.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "x", "1y", "-5", "1:2:3:4", "99999999999d"])
def test_spans_of_time_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        model.seconds(text)


@given(st.text())
def test_a_label_is_harmless_whatever_the_name(name: str) -> None:
    label = model.label(name, "k3f9a2qx")
    assert label.endswith("-k3f9a2qx")
    assert set(label) <= set(string.ascii_letters + string.digits + "._-")
    assert label[0].isalpha()
    assert len(model.label(name, "k3f9a2qx", 15)) <= 15


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_a_script_runs_exactly_the_words_of_its_command(tmp_path_factory, words: list[str]) -> None:
    import subprocess

    folder = tmp_path_factory.getbasetemp() / "job '$x"
    for name in ("exits", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    job = Job(name="words", command=("printf", r"%s\0", *words), cwd=str(folder))
    text = body.text(Record("k3f9a2qx", "local", job, 0, folder))
    assert subprocess.run(["sh", "-c", text], check=False).returncode == 0
    assert (folder / "logs/out").read_bytes() == b"".join(word.encode() + b"\0" for word in words)
    assert [one.name for one in (folder / "exits").iterdir()] == ["0.0"]


def test_grid_engine_is_asked_for_no_folder_that_it_would_cut() -> None:
    with pytest.raises(UsageError, match="cannot work in"):
        gridengine.script(
            Record("k3f9a2qx", "gridengine", Job(name="x", command=("a",), cwd="/"), 0, Path("/a\nb")), ()
        )
