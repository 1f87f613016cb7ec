"""Wrapper layers that hold the norms of kernels, or regularize them. One file per method."""
