"""What models give for the rows of a query: PREDICT, EXPLAIN, EVALUATE, CONVERT, SEARCH."""
