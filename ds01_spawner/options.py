"""What a user may ask for. The form, REST and an admin's start all pass through here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .admission import quota
from .errors import Refused
from .gpus.devices import Device
from .gpus.request import GpuRequest, parse_request
from .images import shelf
from .images.catalogue import Catalogue
from .images.shelf import UserImage
from .policy import GIB, Folder, Limits, format_bytes, parse_bytes

#: Below this JupyterLab and one kernel do not start.
SMALLEST_MEMORY_BYTES = GIB // 2
SMALLEST_CPUS = 0.25

#: What is asked for without a GPU.
NO_GPU = "none"

#: Written by us for the Hub's admin page, so it comes back with stored options.
PROFILE = "profile"


#: Options that one message speaks of; the text goes to the log as well.
_MOST_NAMED = 3
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Choices:
    """What one user can choose from.

    Attributes
    ----------
    catalogue
        The images that everybody has.
    limits, folders
        What the policy allows.
    images
        Users' own images, as far as this user may use them.
    """

    catalogue: Catalogue
    limits: Limits
    folders: tuple[Folder, ...] = ()
    images: tuple[UserImage, ...] = ()

    @property
    def default_cpus(self) -> float:
        """A modest share: what a first notebook needs, never above the limit."""
        return min(4.0, self.limits.cpus)

    @property
    def default_memory_bytes(self) -> int:
        """A modest share: what a first notebook needs, never above the limit."""
        return min(8 * GIB, self.limits.memory_bytes)


class SpawnOptions(BaseModel):
    """One request for a server.

    Attributes
    ----------
    image
        Name of a catalogue image, or of a user's (``ds01-alice/vision``); the catalogue's first
        by default.
    cpus
        Cores.
    memory
        RAM in bytes; also read from text such as ``8g``.
    gpu
        Size of GPU: ``none``, a MIG profile such as ``3g.40gb``, ``full`` for a whole GPU, or
        ``>=20g`` for at least so much memory; with ``@A100`` behind it, of that model only.
    gpu_count
        How many of them.
    folders
        Names of shared folders to have in the server; None is all that the user may have.
    safe_start
        Ignore the settings in HOME, for a server that they keep from starting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str = Field(max_length=255)
    cpus: float = Field(ge=SMALLEST_CPUS, allow_inf_nan=False)
    memory: int = Field(ge=SMALLEST_MEMORY_BYTES)
    gpu: str = Field(default=NO_GPU, max_length=80)
    gpu_count: int = Field(default=1, ge=1, le=64)
    folders: tuple[Annotated[str, Field(max_length=63)], ...] | None = Field(None, max_length=100)
    safe_start: bool = False

    @field_validator("gpu")
    @classmethod
    def _check_gpu(cls, value: str) -> str:
        value = value.strip()
        if value.lower() == NO_GPU:
            return NO_GPU
        parse_request(value)
        return value

    @property
    def gpus(self) -> GpuRequest | None:
        """What is asked for in GPUs; None without any."""
        return None if self.gpu == NO_GPU else parse_request(self.gpu, self.gpu_count)

    @field_validator("memory", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> int:
        if not isinstance(value, str | int | float):
            raise ValueError("must be a size such as 8g")
        return parse_bytes(value)

    def profile(self, granted: Sequence[Device] = ()) -> str:
        """Return the one line that an admin reads in the Hub's Profile column.

        Parameters
        ----------
        granted
            The devices that the server got, which may be larger than what was asked for.
        """
        size = f"{self.cpus:g} CPU · {format_bytes(self.memory)}"
        if self.gpus is not None:
            size += f" · {_in_short(self.gpus, granted)}"
        return f"{self.image} · {size}" + (" · safe start" if self.safe_start else "")

    def stored(self, granted: Sequence[Device] = ()) -> dict[str, Any]:
        """Return what the Hub keeps for the next start and shows to admins.

        Safe start is for once: kept, it would ignore a user's settings for ever. A choice of
        folders is, too: kept, it would refuse the next start of whoever has lost one.
        """
        kept = self.model_dump(exclude={"safe_start", "folders"})
        return {**kept, PROFILE: self.profile(granted)}


def parse_options(raw: Mapping[str, Any], choices: Choices) -> SpawnOptions:
    """Check a request against what the user may have.

    Raises
    ------
    Refused
        400 for a request that makes no sense, 403 for one above the limits.
    """
    _check_known(raw)
    asked = {key: value for key, value in raw.items() if key != PROFILE}
    defaults = {
        "image": next(iter(choices.catalogue)).name,
        "cpus": choices.default_cpus,
        "memory": choices.default_memory_bytes,
    }
    try:
        options = SpawnOptions.model_validate({**defaults, **asked})
    except ValidationError as error:
        raise Refused(_explain(error), reason="options") from None
    _check_image(options.image, choices)
    _check_limits(options, choices.limits)
    _check_folders(options, choices.folders)
    return options


def read_form(form: Mapping[str, list[str]]) -> dict[str, Any]:
    """Turn submitted form fields, lists of text, into raw options; empty fields are left out.

    Raises
    ------
    Refused
        If there is no such field, or one comes more than once or as a file.
    """
    _check_known(key for key in form if key != "_xsrf")
    raw: dict[str, Any] = {}
    for key, values in form.items():
        if key == "_xsrf":
            continue
        if len(values) != 1 or not isinstance(values[0], str):
            raise Refused(f"The field {key!r:.40} must come once.", reason="options")
        if values[0].strip():
            raw[key] = values[0].strip()
    return raw


def _check_known(keys: Iterable[str]) -> None:
    """Refuse options that there are not, and name a few of them: there may be a million."""
    unknown = (key for key in keys if key != PROFILE and key not in SpawnOptions.model_fields)
    if few := list(islice(unknown, _MOST_NAMED)):
        named = " or ".join(f"{key!r:.40}" for key in few)
        known = ", ".join(SpawnOptions.model_fields)
        raise Refused(f"There is no option {named}; the options are {known}.", reason="options")


def _in_short(gpus: GpuRequest, granted: Sequence[Device]) -> str:
    asked = _times(gpus.count, gpus.size.replace("full", "GPU", 1))
    has = Counter(device.profile or "GPU" for device in granted)
    if not has or list(has) == [gpus.profile or ("GPU" if gpus.whole else "")]:
        return asked
    return f"{' + '.join(_times(count, size) for size, count in has.items())} (for {asked})"


def _times(count: int, size: str) -> str:
    return f"{count} × {size}" if count > 1 else size


def _check_image(name: str, choices: Choices) -> None:
    """Refuse an image that is not offered to this user, in the same words as one that is not."""
    if shelf.looks_like_users(name):
        if shelf.named(choices.images, name) is None:
            raise Refused(
                f"There is no image {name!r:.120} that you may use; perhaps it was deleted, or is "
                "not shared any more. Choose another.",
                reason="image",
            )
        return
    try:
        choices.catalogue.get(name)
    except KeyError:
        offered = ", ".join(image.name for image in choices.catalogue)
        raise Refused(
            f"There is no image {name!r:.80} here. Choose one of: {offered}.", reason="image"
        ) from None


def _check_folders(options: SpawnOptions, folders: Sequence[Folder]) -> None:
    """Refuse a folder that the user may not have, in the same words as one that there is not."""
    yours = [folder.name for folder in folders]
    for name in options.folders or ():
        if name not in yours:
            have = f"You have: {', '.join(yours)}." if yours else "You have none."
            raise Refused(
                f"{name!r:.80} is none of your shared folders. {have}",
                reason="folders",
                status_code=403,
            )


def _check_limits(options: SpawnOptions, limits: Limits) -> None:
    if options.memory > limits.memory_bytes:
        raise Refused(
            f"{format_bytes(options.memory)} of memory is more than your limit of "
            f"{format_bytes(limits.memory_bytes)} per server. Choose less.",
            reason="limits",
            status_code=403,
        )
    if options.cpus > limits.cpus:
        raise Refused(
            f"{options.cpus:g} CPUs are more than your limit of {limits.cpus:g} per server. "
            "Choose fewer.",
            reason="limits",
            status_code=403,
        )
    objection = quota.objection(options.gpus, limits) if options.gpus else ""
    if objection:
        raise Refused(objection, reason="limits", status_code=403)


def _explain(error: ValidationError) -> str:
    """Say in a sentence per field what is wrong with it, of a few fields."""
    sentences = []
    for problem in error.errors()[:_MOST_NAMED]:
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
        sentences.append(f"Option {field!r:.40}: {message:.300}.")
    return f"{' '.join(sentences):.{_LONGEST_TEXT}}"
