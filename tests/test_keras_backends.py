"""The Keras front end on Keras's other back ends, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_on_another_back_end(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-q", "-k", "keras", "-p", "no:xdist", "-p", "no:cacheprovider"),
            *(
                str(Path(__file__).with_name(name))
                for name in ("test_keras.py", "test_keras_peer.py", "test_drivers.py")
            ),
        ],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
