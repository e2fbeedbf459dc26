"""AlterUserScramCredentials: passwords are refused, because nothing asks for them."""

from support.wire import Client

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)


def test_no_password_can_be_set_or_deleted(client: Client) -> None:
    request = AlterUserScramCredentialsRequest(
        deletions=(ScramCredentialDeletion("alice", 1), ScramCredentialDeletion("", 1)),
        upsertions=(ScramCredentialUpsertion("bob", 1, 4096, b"salt", b"secret"),),
    )
    results = client.newest(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, request).results
    assert {r.user: r.error_code for r in results} == {
        "alice": ErrorCode.RESOURCE_NOT_FOUND,
        "": ErrorCode.UNACCEPTABLE_CREDENTIAL,
        "bob": ErrorCode.UNSUPPORTED_SASL_MECHANISM,
    }
    assert all(r.error_message for r in results)
