"""Whether a penalty and its gradient are right for a model."""
