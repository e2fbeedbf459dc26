"""DescribeUserScramCredentials: nobody has a password."""

from support.wire import Client

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_user_scram_credentials import DescribeUserScramCredentialsRequest, UserName


def test_nobody_is_known(client: Client) -> None:
    for all_, users in (("null", None), ("none", ())):
        answer = client.newest(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, DescribeUserScramCredentialsRequest(users))
        assert (answer.error_code, answer.results) == (0, ()), all_
    users = tuple(map(UserName, ("alice", "bob", "alice")))
    answer = client.newest(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, DescribeUserScramCredentialsRequest(users))
    assert [(r.user, r.error_code) for r in answer.results] == [
        ("alice", ErrorCode.DUPLICATE_RESOURCE),
        ("bob", ErrorCode.RESOURCE_NOT_FOUND),
    ]
