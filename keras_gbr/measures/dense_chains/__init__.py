"""Measures of chains of dense layers, for which there are closed forms."""
