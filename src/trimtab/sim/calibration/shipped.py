"""The measured runs that come with Trimtab, laid out as a folder of data sets."""

from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent / "data"
