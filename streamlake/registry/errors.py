"""The registry's one error and Confluent's codes for it (Schema Registry API reference, "Errors").

The first three digits of a code are the HTTP status. Clients act on the codes, people on the messages.
"""

from streamlake.core.errors import StreamLakeError

INCOMPATIBLE = 409
TOO_LARGE = 413
TOO_MANY_REQUESTS = 429
SUBJECT_NOT_FOUND = 40401
VERSION_NOT_FOUND = 40402
SCHEMA_NOT_FOUND = 40403
SUBJECT_SOFT_DELETED = 40404
SUBJECT_NOT_SOFT_DELETED = 40405
VERSION_SOFT_DELETED = 40406
VERSION_NOT_SOFT_DELETED = 40407
NO_SUBJECT_LEVEL = 40408
INVALID_SCHEMA = 42201
INVALID_VERSION = 42202
INVALID_LEVEL = 42203
INVALID_MODE = 42204
NOT_PERMITTED = 42205
REFERENCE_EXISTS = 42206
INVALID_SUBJECT = 42208
STORE_FAILED = 50001


class RegistryError(StreamLakeError):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        return self.code if self.code < 1000 else self.code // 100
