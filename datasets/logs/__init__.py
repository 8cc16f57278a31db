"""Device logs: read with every unit checked, nothing lost, nothing doubled; and written."""
