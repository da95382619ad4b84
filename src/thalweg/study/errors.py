"""What a study tells the user."""


class StudyError(Exception):
    """Something that the user can put right; the message says what is wrong and what to do."""
