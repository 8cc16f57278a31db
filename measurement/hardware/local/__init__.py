"""The rigs of this machine: its CPU, its NVIDIA GPU, and what counts energy and disturbs here."""
