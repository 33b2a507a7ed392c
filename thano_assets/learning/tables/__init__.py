"""Models of tables: columns to numbers, the search for the best model, and its report."""
