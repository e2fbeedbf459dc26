from typing import Any

import pytest

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.secrets import hider


def hidden(text: str, **properties: Any) -> str:
    given = {key.replace("__", ".").replace("_", "-"): value for key, value in properties.items()}
    return hider([CatalogConfig("rest", "lake", given)])(text)


@pytest.mark.parametrize(
    "properties",
    [
        {"token": "s3cr3t/"},
        {"credential": "client:s3cr3t/"},
        {"s3__secret_access_key": "s3cr3t/"},
        {"client__session_token": "s3cr3t/"},
        {"header__Authorization": "s3cr3t/"},
        {"auth": {"type": "basic", "basic": {"username": "somebody", "password": "s3cr3t/"}}},
        {"uri": "postgresql://user:s3cr3t%2F@db/lake"},
        {"adls__account_key": "s3cr3t/"},
    ],
)
def test_secrets_are_hidden_also_as_part_of_a_url(properties: dict[str, Any]) -> None:
    shown = hidden("refused: s3cr3t%2F at http://lake", **properties)
    assert shown == "refused: [secret] at http://lake"


def test_what_is_no_secret_stays() -> None:
    text = "https://login.example.com/token at https://catalog.example.com for key AKIA in eu-central-1"
    assert (
        hidden(
            text,
            uri="https://catalog.example.com",
            oauth2_server_uri="https://login.example.com/token",
            s3__access_key_id="AKIA",
            s3__region="eu-central-1",
        )
        == text
    )


def test_a_short_secret_does_not_blot_out_words() -> None:
    assert hidden("an error at the table", token="at") == "an error at the table"


def test_the_longest_first() -> None:
    both = [CatalogConfig("rest", name, {"token": token}) for name, token in (("a", "abcd"), ("b", "abcdef"))]
    assert hider(both)("abcdef abcd") == "[secret] [secret]"
