"""Few errors, each telling the caller what to do next. Messages say what happened and what helps.

Kafka's codes exist only in `handlers`, HTTP's only in `server` and `registry`; both map from these kinds.
"""

SHOWN_CHARS_MAX = 300


class StreamLakeError(Exception):
    """Base of every error that StreamLake raises on purpose."""


class Invalid(StreamLakeError):
    """The request can never succeed as it is: change it."""


class NotFound(StreamLakeError):
    """The named thing does not exist."""


class Exists(StreamLakeError):
    """The named thing exists already."""


class Conflict(StreamLakeError):
    """Somebody changed it in between; nothing was done: read again, then decide."""


class Fenced(StreamLakeError):
    """A newer owner has taken over; nothing was done: stop acting as the owner."""


class Unavailable(StreamLakeError):
    """Nothing was done, for a passing reason: try again later."""


class OutcomeUnknown(StreamLakeError):
    """It may or may not have been done: read back before you write again."""


class Corrupt(StreamLakeError):
    """Stored or received bytes are not what they claim to be."""


class Full(StreamLakeError):
    """A limit (disk, memory, queue) is reached; nothing was done: wait, or raise the limit."""


class Closed(StreamLakeError):
    """The object was closed, or died of an earlier error."""


def describe(error: BaseException) -> str:
    """Any library's error as one short line for logs and reports."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:SHOWN_CHARS_MAX]
