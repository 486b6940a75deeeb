"""An engine simulator that speaks vLLM's HTTP API: the serving physics against a wall clock.

`server.serve` is the entry. A request passes through `http` (bytes), `api` (routes), `wire` (what a body may say),
`text` (tokens), `driver` (the physics and the clock) and `replies` (bytes again).
"""
