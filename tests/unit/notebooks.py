"""Notebooks as their files have them."""

from __future__ import annotations

import copy


def notebook(*cells):
    """Return a notebook of code cells, each given by its id and its text."""
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**copy.deepcopy(code), "id": id, "source": source} for id, source in cells]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
