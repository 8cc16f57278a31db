"""Devices behind a pipe: the agent's client, its transports, and the Jetson as a rig."""
