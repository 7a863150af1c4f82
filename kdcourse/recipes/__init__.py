"""Recipes of the shipped models, as TOML."""
