"""Programs that people train with, in an environment of their own: `make test-clients`.

Each test does a thing twice, with the framework's own optimizer and with ours, and compares the ends.
"""

import os

import pytest

os.environ["KERAS_BACKEND"] = "torch"  # where the kernels take the steps
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["HF_HUB_OFFLINE"] = "1"  # models are made from configurations
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "default")  # what a client warns of is its own affair
