"""The penalties: what holds the representation."""
