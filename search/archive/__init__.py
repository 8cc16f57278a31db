"""Search by a growing archive: predictors fitted to what was evaluated propose what to evaluate next."""
