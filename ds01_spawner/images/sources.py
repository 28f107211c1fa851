"""What users' images are built from: the recipe and the Dockerfile in a project's folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from ..accounts import Account
from ..workspaces import Directory, Workspaces
from . import project_files
from .members import Member, check_project
from .recipe import Recipe, RecipeError, dockerfile_text, is_edited, read_recipe, recipe_text

#: How deep a recipe may nest; it needs two levels.
_DEEPEST = 8
_READINGS_AT_ONCE = 2


@dataclass(frozen=True)
class Source:
    """What an image is built from.

    Attributes
    ----------
    recipe
        The last recipe, None if there is none that can be read.
    dockerfile
        The project's Dockerfile; empty if there is none.
    is_edited
        Whether the Dockerfile is something else than the recipe comes to: then it is what counts.
    problem
        Why the recipe cannot be read.
    """

    recipe: Recipe | None
    dockerfile: str
    is_edited: bool
    problem: str = ""


class Sources:
    """Reads and keeps them.

    Parameters
    ----------
    workspaces
        Gives a user's account and projects; blocks.
    """

    def __init__(self, workspaces: Callable[[str], tuple[Account, Workspaces]]) -> None:
        self._workspaces = workspaces
        self._readings = asyncio.Semaphore(_READINGS_AT_ONCE)

    async def read(self, member: Member, project: str) -> Source:
        """Return what a member's own image is built from.

        Raises
        ------
        Refused
            If the project's files cannot be read.
        """
        check_project(project)
        account, folder = await self.folder(member, project)
        read = partial(project_files.read, folder, uid=account.uid)
        recipe_file, dockerfile = await asyncio.gather(
            asyncio.to_thread(read, project_files.RECIPE),
            asyncio.to_thread(read, project_files.DOCKERFILE),
        )
        # A full file takes seconds of a core, on threads and under a lock that all users share.
        async with self._readings:
            recipe, problem = await asyncio.to_thread(_read_recipe_file, recipe_file)
        return Source(
            recipe=recipe,
            dockerfile=dockerfile or "",
            is_edited=bool(dockerfile) and is_edited(dockerfile or ""),
            problem=problem,
        )

    async def keep(self, member: Member, project: str, recipe: Recipe) -> None:
        """Write a recipe, and the Dockerfile that it comes to, into the project's folder.

        What was edited by hand, or is not ours, gets another name.

        Raises
        ------
        Refused
            If the files cannot be written.
        """
        account, folder = await self.folder(member, project)
        before = await self.read(member, project)
        not_ours = {
            project_files.DOCKERFILE: before.is_edited,
            project_files.RECIPE: before.problem,
        }
        for name in (name for name, so in not_ours.items() if so):
            await asyncio.to_thread(project_files.set_aside, folder, name)
        for name, content in (
            (project_files.RECIPE, recipe_text(recipe)),
            (project_files.DOCKERFILE, dockerfile_text(recipe)),
        ):
            await asyncio.to_thread(
                project_files.write, folder, name, content, account.uid, account.gid
            )

    async def folder(self, member: Member, project: str) -> tuple[Account, Directory]:
        """Return a member's account, and the folder of a project, made when missing."""
        account, workspaces = await asyncio.to_thread(self._workspaces, member.name)
        return account, await asyncio.to_thread(workspaces.workspace, project)


class _Loader(yaml.BaseLoader):
    """Reads every value as the text that it is, and gives up early on what a recipe never has.

    As text because a version (``1.10``) is no number, and so that no number can be too large.
    """

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        super().fetch_flow_collection_start(token_class)
        self._check_depth()

    def add_indent(self, column: int) -> bool:
        deeper = super().add_indent(column)
        self._check_depth()
        return deeper

    def fetch_anchor(self) -> None:
        # An alias of aliases is small as text and huge when it is read.
        raise RecipeError("anchors and aliases cannot be used.")

    fetch_alias = fetch_anchor

    def _check_depth(self) -> None:
        # The scanner looks through all open levels at each token: it takes a minute for a file of
        # brackets.
        if self.flow_level + len(self.indents) > _DEEPEST:
            raise RecipeError(f"line {self.line + 1} is nested deeper than {_DEEPEST} levels.")


def _read_recipe_file(text: str | None) -> tuple[Recipe | None, str]:
    if text is None:
        return None, ""
    try:
        return read_recipe(yaml.load(text, _Loader)), ""
    # PyYAML lets some of Python's own errors through, such as for characters that there are not.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        return None, f"{project_files.RECIPE} in the project's folder has a mistake: {reason:.300}"
