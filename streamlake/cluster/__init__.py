"""Who exists, who leads, what is configured: the metadata store and what lives in it."""
