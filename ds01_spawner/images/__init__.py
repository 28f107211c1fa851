"""The images that servers start from: the catalogue and the bases that are built here."""
