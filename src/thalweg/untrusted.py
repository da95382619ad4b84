"""Files from elsewhere: nothing is taken for granted that they say of themselves.

What a file declares is held against its size before memory is taken for it, and whatever is wrong with
one is said in one line that names it.
"""

import gzip
import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from numpy.lib import format as npy
from numpy.typing import NDArray

from thalweg.errors import Argument, InvalidFileError, ThalwegError

# How many times its own size a file may unpack to. Weights hardly compress; a bomb does a thousandfold.
RATIO = 100
# What any file may unpack to, in bytes: a small one may hold zeros, which compress as a bomb does.
FREE = 1 << 26


@contextmanager
def blamed(path: Path, what: str = "", but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Within: whatever is raised is the fault of what a file holds, and becomes one line that names it.

    Args:
        path: the file.
        what: what it ought to be; "" where that is clear.
        but: errors that stay as they are.

    Raises:
        InvalidFileError: the line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (ImportError, *but)):
            raise
        known = isinstance(error, ThalwegError | ValueError | TypeError | OSError | zipfile.BadZipFile)
        kind = "" if known else f"{type(error).__name__} "
        named = not what and str(path) in str(error)
        where = "" if named else f"{path} is not {what}, or is damaged: " if what else f"{path}: "
        said = error.args if isinstance(error, ThalwegError) else (printable(str(error)),)
        reason = (piece if isinstance(piece, Argument) else _visible(piece) for piece in said)
        raise InvalidFileError(where + kind, *reason) from error


@contextmanager
def opened(path: Path, what: str) -> Iterator[BinaryIO]:
    """A file to read, `blamed` for whatever is wrong with it.

    Raises:
        InvalidFileError: as in `blamed`.
        OSError: it cannot be opened.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device read without end
        raise InvalidFileError(f"{path} is not a file")
    with path.open("rb") as file, blamed(path, what):
        yield file


def size_of(file: BinaryIO) -> int:
    """A file's size in bytes; it is at its beginning again."""
    size = file.seek(0, 2)
    file.seek(0)
    return size


def bound(shapes: Iterable[tuple[tuple[int, ...], int]], size: int) -> None:
    """Refuse arrays that are out of all proportion to the file that declares them.

    Args:
        shapes: the shape of each, and the bytes that an entry takes.
        size: that of the file.

    Raises:
        ValueError: they are.
    """
    # An axis of none counts as one: the others may be long all the same, and be summed over.
    _bound(sum(entry * math.prod(max(n, 1) for n in shape) for shape, entry in shapes), size)


def _bound(declared: int, size: int) -> None:
    if declared > FREE + RATIO * size:
        raise ValueError(f"it would unpack to {declared:,} bytes, from {size:,}")


@contextmanager
def archive(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """A zip archive, the sizes of whose members are in proportion.

    Raises:
        ValueError: they are not; or members are hidden, or two have one name, so that readers could differ.
        zipfile.BadZipFile: it is none.
    """
    size = size_of(file)
    with zipfile.ZipFile(file) as found:
        members = found.infolist()
        _bound(sum(member.file_size for member in members), size)
        if _counted(file, size) != min(len(members), 0xFFFF):
            raise ValueError("it does not list as many members as it counts")
        if len({member.filename.casefold() for member in members}) < len(members):
            raise ValueError("two of its members have one name")
        yield found


def _counted(file: BinaryIO, size: int) -> int:
    """How many members a zip archive says it has, up to 65,535: Python's reader does not compare."""
    file.seek(max(0, size - 0xFFFF - 22))
    end = file.read()
    record = end.rfind(b"PK\x05\x06")
    return int.from_bytes(end[record + 10 : record + 12], "little")


def gunzip(content: bytes) -> bytes:
    """What a gzip file's content unpacks to.

    Raises:
        ValueError: it is out of all proportion.
        EOFError, gzip.BadGzipFile, zlib.error: it is damaged.
    """
    with gzip.open(io.BytesIO(content)) as packed:
        found = packed.read(FREE + RATIO * len(content) + 1)
    _bound(len(found), len(content))
    return found


def npz(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The arrays in a .npz file by name, in this machine's byte order; never pickled ones.

    Raises:
        ValueError, zipfile.BadZipFile: it is none, or damaged.
    """
    found = {}
    with archive(file) as members:
        for member in members.infolist():
            with members.open(member) as entry:
                found[member.filename.removesuffix(".npy")] = _array(entry, member.file_size)
    bound(((a.shape, a.itemsize) for a in found.values()), size_of(file))
    return found


def _array(file: Any, size: int) -> NDArray[Any]:
    """The array in a .npy file of that size."""
    match npy.read_magic(file):
        case (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(file)
        case (2, 0):
            shape, _, dtype = npy.read_array_header_2_0(file)
        case version:
            raise ValueError(f"an array is in version {version} of its format; 1 and 2 are read")
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"an array is of {dtype}, which is no number")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"an array of shape {shape} has {size - file.tell():,} bytes")
    file.seek(0)
    return native(npy.read_array(file, allow_pickle=False))


def native(a: NDArray[Any]) -> NDArray[Any]:
    """An array in this machine's byte order."""
    return a.astype(a.dtype.newbyteorder("="), copy=False)


def printable(text: str) -> str:
    """Text from a file as one line of moderate length, which moves no terminal's cursor."""
    return _visible(next(iter(text.strip().splitlines()), ""))


def _visible(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= 1000 else shown[:1000] + "…"
