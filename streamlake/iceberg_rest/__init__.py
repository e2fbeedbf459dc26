"""The Iceberg REST catalog that the server offers at `/iceberg`, over the catalog that its tables are in."""
