"""Everything that touches what Keras does not make public."""
