"""``thano serve``: statements, models and runs over HTTP, for the public ThanoSQL client and for others."""
