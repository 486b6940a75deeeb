"""Observe, step, act: the production loop. The lab schedules the same steps as simulated events instead."""
