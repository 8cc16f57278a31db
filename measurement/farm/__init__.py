"""Several devices: who they are, who holds which, and measuring on all of them at once."""
