"""What people get of a run of the lab: tables, pictures, a page, and files for other programs."""
