from streamlake.core.share import shared_files


def test_what_people_copy_or_read_is_there() -> None:
    for name in ("catalogs/rest.toml", "docs/guides/configuration.md", "schemas/avro/order.avsc"):
        assert (shared_files() / name).is_file()
