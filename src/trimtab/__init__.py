"""Trimtab keeps AI serving and microservices within their objectives and inside the limits of the machines."""

from importlib.metadata import version

__version__ = version("trimtab")
