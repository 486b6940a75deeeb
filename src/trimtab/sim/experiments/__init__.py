"""The experiments of the lab, one file each."""
