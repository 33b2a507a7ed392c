"""Reading data files: dialects, encodings, and types that hold every value as the file spells it."""
