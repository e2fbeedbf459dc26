from streamlake.registry.errors import INCOMPATIBLE, SCHEMA_NOT_FOUND, STORE_FAILED, RegistryError


def test_the_status_is_the_head_of_the_code():
    assert [RegistryError(code, "").status for code in (SCHEMA_NOT_FOUND, INCOMPATIBLE, STORE_FAILED)] == [
        404,
        409,
        500,
    ]
