"""Which code is an installed library's, and which is the user's own."""

from __future__ import annotations

import os
import sys
import sysconfig
import types
from pathlib import Path

_FOLDERS = sysconfig.get_path("stdlib"), Path(__file__).parents[1]
_LIBRARIES = tuple(f"{folder}{os.sep}" for folder in _FOLDERS)


def is_library(file: str | None) -> bool:
    """Whether a module's file is an installed library's; built-in modules have none."""
    return file is None or file.startswith((*_LIBRARIES, "<frozen")) or "-packages" in file


def of_library(name: str) -> bool:
    """Whether a module is an installed library's, by its name; a notebook, or one made in code, is not."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    # Modules made by compiled code have no file; then the file of their package decides.
    files = (_file(sys.modules.get(each)) for each in (name, top))
    file = next(filter(None, files), None)
    return file is not None and is_library(file)


def label(name: str) -> str:
    """A module's file within its package, such as "pkg/near.py"; its name where it has none."""
    file = Path(_file(sys.modules.get(name)) or "")
    names = name.split(".")
    if file.suffix != ".py":
        return name
    return "/".join([*(names if file.name == "__init__.py" else names[:-1]), file.name])


def _file(module: types.ModuleType | None) -> str | None:
    """A module's file, or the folder of a package that has none."""
    file = getattr(module, "__file__", None)
    if file is None:
        file = next(iter(getattr(module, "__path__", ())), None)
    return file if isinstance(file, str) else None
