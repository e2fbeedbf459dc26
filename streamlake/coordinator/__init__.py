"""Groups, offsets and producer ids: sans-IO machines and the thin shells that make them durable."""
