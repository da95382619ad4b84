"""What a study tells the user."""

from thalweg.errors import ThalwegError


class StudyError(ThalwegError):
    """What was asked of a study cannot be done, or its folder, files or processes failed it."""
