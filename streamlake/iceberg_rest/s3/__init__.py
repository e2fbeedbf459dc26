"""Access to the files of tables in S3, for clients that ask the catalog for it."""
