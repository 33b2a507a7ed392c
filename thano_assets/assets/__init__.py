"""How each kind of asset is computed, and how it becomes a Dagster asset."""
