"""What a pool would do under a recorded load: how many replicas it needs, in which order, and how sure that is."""
