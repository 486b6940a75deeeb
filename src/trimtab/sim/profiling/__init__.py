"""Measures an engine over its OpenAI-compatible API and fits a profile to it: what `trimtab profile` does.

`survey` asks the engine what it is, `measure` puts load on it phase by phase, `rows` turns what was seen into linear
equations, `estimate` solves them with intervals, `judge` predicts a phase that was not fitted, and `document` writes
the profile. Load goes to a `target`: over HTTP (`http`), or into the serving physics (`modelled`), which is what
makes predictions and lets tests compare a fit with the truth.
"""
