"""What all commands share: how words are read, and the error that ends a command."""

from collections.abc import Iterator
from contextlib import contextmanager

from thalweg import dialects

DIALECTS = f"{', '.join([*dialects.DIALECTS][:-1])} or {[*dialects.DIALECTS][-1]}"


class Wrong(Exception):  # noqa: N818  (an answer to the user, not a fault of ours)
    """What was asked for cannot be done; the message says why."""


@contextmanager
def asked() -> Iterator[None]:
    """Within: a ValueError is about what the user asked for."""
    try:
        yield
    except ValueError as error:
        raise Wrong(str(error)) from None


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]
