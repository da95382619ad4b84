"""Rules explained: a page on each, when it serves well, whose dialect a recorded run follows."""
