"""Everything that touches what Keras does not make public; README.md lists the names."""
