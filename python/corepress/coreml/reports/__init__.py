"""What a run reports: a record for each weight, totals, remarks, and what is known against an encoding."""
