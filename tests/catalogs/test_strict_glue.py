"""The Glue of these tests is as strict as AWS where moto is not: else the suite would prove nothing about Glue."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from support.strict_glue import TYPE_CHARACTERS_MAX, StrictGlue


@pytest.fixture(scope="module")
def glue() -> Iterator[Any]:
    with StrictGlue() as server:
        yield boto3.client(
            "glue",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id="streamlake",
            aws_secret_access_key="streamlake-secret",
        )


def table(name: str, column_type: str = "bigint") -> dict[str, Any]:
    return {"Name": name, "StorageDescriptor": {"Columns": [{"Name": "n", "Type": column_type}]}}


def test_names_are_folded_when_they_are_stored_and_looked_up(glue: Any) -> None:
    glue.create_database(DatabaseInput={"Name": "Folded"})
    glue.create_table(DatabaseName="FOLDED", TableInput=table("Orders"))
    assert [found["Name"] for found in glue.get_tables(DatabaseName="folded")["TableList"]] == ["orders"]
    assert glue.get_table(DatabaseName="Folded", Name="ORDERS")["Table"]["DatabaseName"] == "folded"
    with pytest.raises(glue.exceptions.AlreadyExistsException):
        glue.create_table(DatabaseName="Folded", TableInput=table("oRDERS"))
    glue.delete_table(DatabaseName="folded", Name="OrderS")
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.get_table(DatabaseName="folded", Name="orders")


def test_an_update_of_another_version_is_refused(glue: Any) -> None:
    glue.create_database(DatabaseInput={"Name": "versions"})
    glue.create_table(DatabaseName="versions", TableInput=table("t"))
    seen = glue.get_table(DatabaseName="versions", Name="t")["Table"]["VersionId"]
    glue.update_table(DatabaseName="versions", TableInput=table("t", "int"), VersionId=seen)
    with pytest.raises(glue.exceptions.ConcurrentModificationException):
        glue.update_table(DatabaseName="versions", TableInput=table("t", "string"), VersionId=seen)
    columns = glue.get_table(DatabaseName="versions", Name="t")["Table"]["StorageDescriptor"]["Columns"]
    assert columns == [{"Name": "n", "Type": "int"}]


def test_a_type_has_a_limit(glue: Any) -> None:
    glue.create_database(DatabaseInput={"Name": "limits"})
    glue.create_table(DatabaseName="limits", TableInput=table("fits", "x" * TYPE_CHARACTERS_MAX))
    with pytest.raises(glue.exceptions.InvalidInputException):
        glue.create_table(DatabaseName="limits", TableInput=table("long", "x" * (TYPE_CHARACTERS_MAX + 1)))
