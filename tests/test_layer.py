"""Compressed layers: equal bytes from any number of threads and any size of the pieces, read back whatever packed them."""

import gzip
import io
import random
import subprocess

import pytest

from computeops.errors import FormatError, LimitError
from computeops.image.layer import MEDIA_TYPE, Layer, LayerWriter, plain, zstd
from computeops.model import Digest

DATA = random.Random(1).randbytes(3_000_000) + b"some text " * 400_000


def written(compression: str, *, threads: int = 1, piece: int = 1_000_003) -> tuple[Layer, bytes]:
    out = io.BytesIO()
    layer = LayerWriter(out, compression=compression, threads=threads)
    for at in range(0, len(DATA), piece):
        layer.write(DATA[at : at + piece])
    return layer.close(), out.getvalue()


@pytest.mark.parametrize("compression", ["zstd", "gzip", ""])
def test_the_bytes_depend_on_the_content_alone(compression: str) -> None:
    layer, data = written(compression)
    assert written(compression, threads=3, piece=65_536) == (layer, data)
    assert written(compression, threads=2, piece=5_000_000) == (layer, data)
    assert (layer.digest, layer.size, layer.diff_id) == (Digest.of(data), len(data), Digest.of(DATA))
    assert layer.media_type == MEDIA_TYPE + (f"+{compression}" if compression else "")
    assert plain(io.BytesIO(data), diff_id=layer.diff_id).read() == DATA


def test_the_digests_are_known_without_writing() -> None:
    layer = LayerWriter(None)
    layer.write(DATA)
    assert layer.close() == written("zstd")[0]


def test_gzip_is_read_by_gzip() -> None:
    _, data = written("gzip")
    assert subprocess.run(["gzip", "-dc"], input=data, capture_output=True, check=True).stdout == DATA


@pytest.mark.parametrize(
    "pack",
    [lambda d: gzip.compress(d[:99]) + gzip.compress(d[99:]), lambda d: zstd.compress(d[:99]) + zstd.compress(d[99:])],
)
def test_several_frames_are_one_layer(pack) -> None:
    assert plain(io.BytesIO(pack(DATA[:5000]))).read() == DATA[:5000]


def test_another_content_than_its_diff_id_is_refused() -> None:
    with pytest.raises(FormatError, match="not sha256:"):
        plain(io.BytesIO(DATA), diff_id=Digest.of(b"")).read()


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_what_is_cut_or_broken_is_refused(compression: str) -> None:
    _, data = written(compression)
    for cut in (5, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(FormatError):
            plain(io.BytesIO(data[:cut])).read()
    broken = bytearray(data)
    broken[40:60] = bytes(20)
    with pytest.raises(FormatError):
        plain(io.BytesIO(broken)).read()


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    packing = zstd.ZstdCompressor(level=19)
    stream = plain(io.BytesIO(b"".join(packing.compress(bytes(2**24)) for _ in range(40)) + packing.flush()))
    with pytest.raises(LimitError, match="looks like a bomb"):
        sum(len(piece) for piece in iter(lambda: stream.read(2**20), b""))
