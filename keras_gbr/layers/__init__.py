"""Wrapper layers that normalise or regularize kernels. One file per method."""
