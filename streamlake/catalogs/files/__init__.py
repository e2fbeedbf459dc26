"""Where the files of tables lie, and how they are read, written and deleted: one FileIO for all catalogs."""
