"""ML programs: their weights, values and names, and edits that raise their version."""
