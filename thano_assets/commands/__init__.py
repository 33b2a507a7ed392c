"""Statements and commands that materialize nothing: they list, describe, compare, check and remove."""
