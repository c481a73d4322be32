"""Running models on any machine."""
