"""What a run reports: a record for each weight, totals, remarks, and known problems of encodings."""
