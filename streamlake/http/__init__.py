"""HTTP: health, metrics, schema registry and tables on one port."""
