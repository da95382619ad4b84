"""Files that data sets come in: from a folder, from the cache, or downloaded into it; checked by checksum."""

import gzip
import hashlib
import http.client
import json
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thalweg.errors import Argument
from thalweg.study.data.arrays import Array
from thalweg.study.errors import StudyError
from thalweg.untrusted import gunzip, npz, opened

TIMEOUT = 30  # seconds without an answer before the next mirror is tried


@dataclass(frozen=True)
class Files:
    """Files of known content: in a folder, in the cache, or downloaded into it.

    Attributes:
        name: the data set's own name, and that of its folder.
        mirrors: URLs of folders that hold the files, in the order to try them.
        checksums: sha256 of each file's **decompressed** bytes, by file name without ".gz": repacked
            files of the same content are as good.
        packed: the suffix that the names have on the mirrors.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: dict[str, str]
    packed: str = ".gz"

    @property
    def digest(self) -> str:
        """Identifies the content; part of a task's version."""
        return hashlib.sha256(json.dumps(self.checksums).encode()).hexdigest()[:12]

    def find(self, folder: Path | None = None) -> None:
        """Checks that all files are present and correct, downloading them where `read` would.

        Raises:
            StudyError: as `read`.
        """
        for name in self.checksums:
            self.read(name, folder)

    def read(self, name: str, folder: Path | None = None) -> bytes:
        """One file's decompressed content.

        Args:
            name: without ".gz".
            folder: holds the files, or a folder `self.name` that does, packed or not. None: the cache,
                into which a missing file is downloaded.

        Raises:
            StudyError: the file is missing, damaged or of other content, or cannot be downloaded.
        """
        if folder is None:
            path = cache() / self.name / (name + self.packed)
            if not path.exists():
                self._download(path, name)
            return self._checked(path, name)
        for path in self._places(name, folder):
            if path.exists():
                return self._checked(path, name)
        raise StudyError(
            f"{name}{self.packed} is neither in {folder} nor in {folder / self.name}: give ",
            Argument("folder"),
            f", one that holds the {self.name} files ({', '.join(n + self.packed for n in self.checksums)}), "
            "or leave it out to download them",
        )

    def exist(self, folder: Path) -> bool:
        """Whether a folder has any of the files."""
        return any(path.exists() for name in self.checksums for path in self._places(name, folder))

    def _places(self, name: str, folder: Path) -> Iterator[Path]:
        return (base / file for base in (folder, folder / self.name) for file in (f"{name}.gz", name))

    def _checked(self, path: Path, name: str) -> bytes:
        try:
            content = path.read_bytes()
            if path.name != name:
                content = gunzip(content)
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile):
            raise StudyError(f"{path} is truncated or damaged: delete it and fetch it again") from None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.checksums[name]:
            raise StudyError(
                f"{path} is not the official {self.name} file (wrong checksum): delete it and fetch it again"
            )
        return content

    def _download(self, path: Path, name: str) -> None:
        failures = []
        with _replacement(path) as fresh:
            for mirror in self.mirrors:
                try:
                    with urllib.request.urlopen(f"{mirror}/{path.name}", timeout=TIMEOUT) as answer:
                        fresh.write_bytes(answer.read())
                    self._checked(fresh, name)
                except (OSError, http.client.HTTPException, StudyError) as error:
                    failures.append(f"{mirror}: {error}")
                    fresh.unlink(missing_ok=True)
                else:
                    return
        raise StudyError(
            f"{path.name} could not be downloaded ({'; '.join(failures)}): fetch the {self.name} files "
            f"({', '.join(n + self.packed for n in self.checksums)}) yourself and give their folder as ",
            Argument("folder"),
        )


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Within: a temporary file that becomes `path` once it is complete, for another process may read that."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        raise StudyError(
            f"{path.parent} cannot be written: {error.strerror}; give the folder of the data as ",
            Argument("folder"),
        ) from None
    with folder:
        fresh = Path(folder.name) / path.name
        yield fresh
        if fresh.exists():
            fresh.replace(path)


def cached(name: str, prepare: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays that take time to prepare: from the cache, or prepared and stored there.

    Args:
        name: of the file, without ".npz"; it must name all that decides the content.
        prepare: makes the arrays.
    """
    path = cache() / "prepared" / f"{name}.npz"
    try:
        with opened(path, "a file of arrays") as file:
            return npz(file)
    except (OSError, ValueError):  # missing or damaged: prepared again
        arrays = dict(prepare())
        # Where the cache cannot be written, they are prepared every time.
        with suppress(StudyError, OSError), _replacement(path) as fresh:
            np.savez(fresh, **arrays)  # type: ignore[arg-type]
        return arrays


def cache() -> Path:
    """The folder that downloads are stored in."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "thalweg" / "data"
