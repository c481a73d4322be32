"""What every format shares of a run: which weights get which steps, what is done to each, and the records of it."""
