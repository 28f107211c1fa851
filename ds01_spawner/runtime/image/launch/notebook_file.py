"""Puts what cells have shown into their notebook's file, as JupyterLab saves it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from .executions import Execution

#: So often it is tried when somebody else saves at the same time.
_TRIES = 3


async def save(
    contents: Any, path: str, executions: Iterable[Execution], is_open: Callable[[], bool]
) -> str | None:
    """Put what cells have shown into a notebook that nobody has open.

    Everything else in the file stays as it is found.

    Parameters
    ----------
    contents
        The server's contents manager.
    path
        The notebook, below the server's root.
    executions
        What to put there.
    is_open
        Whether somebody has it open by now.

    Returns
    -------
    str or None
        The file's time as the contents manager gives it, None if nothing was written: no such
        cell is there, or somebody has it open.

    Raises
    ------
    OSError
        Others keep saving it. The contents manager raises errors of its own.
    """
    executions = list(executions)
    for _ in range(_TRIES):
        model = await _get(contents.get(path, content=True, type="notebook"))
        found = [put(model["content"], execution) for execution in executions]
        if not any(found):
            return None
        now = await _get(contents.get(path, content=False))
        if is_open():
            return None
        if now["last_modified"] == model["last_modified"]:
            new = {"type": "notebook", "format": "json", "content": model["content"]}
            saved = await _get(contents.save(new, path))
            return str(saved["last_modified"].isoformat().replace("+00:00", "Z"))
    raise OSError(f"{path} is being saved again and again.")


def put(notebook: dict[str, Any], execution: Execution) -> bool:
    """Put what a cell has shown into a notebook, and return whether the cell is there."""
    cell = _find(notebook.get("cells", []), execution)
    if cell is None:
        return False
    cell["outputs"] = execution.outputs.as_list()
    cell["execution_count"] = execution.count if execution.is_done else None
    # The user ran it: what it shows is as much to be trusted as if the page had saved it.
    cell["metadata"]["trusted"] = True
    return True


def _find(cells: list[dict[str, Any]], execution: Execution) -> dict[str, Any] | None:
    code = [cell for cell in cells if cell.get("cell_type") == "code"]
    if any("id" in cell for cell in cells):
        same = [cell for cell in code if cell.get("id") == execution.cell]
    else:
        # Notebooks from before 2020 have no ids in the file.
        same = [cell for cell in code if cell.get("source") == execution.source]
    return same[0] if len(same) == 1 else None


async def _get(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
