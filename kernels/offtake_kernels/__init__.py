"""Arithmetic only: draws, stage functions, skeletons and exact tallies. Nothing here knows a deal by name."""
