"""Measures of chains of dense layers, which have closed forms."""
