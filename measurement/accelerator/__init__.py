"""Modelled hardware: energy and cycles of networks on edge accelerators, by an analytical cost model."""
