"""What to choose: objectives, nested search, acquisition, reports."""
