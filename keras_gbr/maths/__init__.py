"""Pure functions of kernels and gradients, as the papers give them."""
