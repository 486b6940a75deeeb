"""Handlers that kopf calls: each parses one event into the store and marks the object dirty."""
