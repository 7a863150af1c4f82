"""Figures of the lessons whose code would not fit a cell."""
