"""Core AI programs: their weights, who uses them, and edits in place."""
