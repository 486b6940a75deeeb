"""Which program a container stands for. Only programs on the allow list are ever started."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from trimtab.api import keys
from trimtab.local.process_node.spec import Container, Pod

OWN_PROGRAMS: Final = ("trimtab", "trimtab-operator", "trimtab-extender", "trimtab-gateway")


class NotAllowed(Exception):
    """A command that the process node does not run; the text says which and what it would run."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """The programs that pods may run: name to absolute path."""

    programs: Mapping[str, str]

    def resolve(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command with its program replaced by that program's path on this machine.

        A path in front of the program's name is ignored: it is a path inside an image.

        Raises:
            NotAllowed: the program is not on the list.
        """
        name = PurePosixPath(command[0]).name if command else ""
        if name not in self.programs:
            allowed = ", ".join(sorted(self.programs))
            raise NotAllowed(f"the process node does not run {name or 'an empty command'!r}: it runs only {allowed}")
        return (self.programs[name], *command[1:])


def image_program(image: str) -> str:
    """Return the last path component of an image's name, without tag and digest.

    Our images are named after their entry point, so a container of our own chart needs no `command`.
    """
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def command_line(container: Container) -> tuple[str, ...]:
    """Return command and arguments; the image's name stands for an absent command."""
    return (container.command or (image_program(container.image),)) + container.args


def refuse(pod: Pod, allowed: AllowList) -> str | None:
    """Return why the pod may not run as processes, or None if it may."""
    if pod.labels.get(keys.RUN_AS) != "process":
        return f"pods run as local processes only with the label {keys.RUN_AS}=process"
    for container in pod.all_containers:
        try:
            allowed.resolve(command_line(container))
        except NotAllowed as error:
            return f"container {container.name}: {error}"
    return None
