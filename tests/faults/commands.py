"""The commands that write, as the ordeals run them."""

from dataclasses import dataclass

from tests.faults.conftest import Beginnings
from tests.faults.ordeals import DATA_DIR, Ordeal
from tests.indexer.one_layer import NAME


@dataclass(frozen=True)
class Command:
    """A command, and the data folder that it begins with."""

    begins_with: str
    """A name in ``Beginnings``."""
    arguments: tuple[str, ...]
    numbered: bool = True
    """Whether a second run leaves the generation's number as it is."""
    refused: bool = False
    """Whether the command refuses what is done already, as wrong usage."""
    alike: bool = False
    """Whether another command takes the same steps, so that short runs try a part of them."""

    def meets(self, trouble: str, name: str, beginnings: Beginnings, rounds: int) -> Ordeal:
        """The command in trouble."""
        images = str(beginnings.images)
        return Ordeal(
            name=name,
            before=str(beginnings[self.begins_with]),
            command=tuple(one.replace("IMAGES", images) for one in self.arguments),
            trouble=trouble,
            rounds=rounds,
            numbered=self.numbered,
            refused=self.refused,
            alike=self.alike,
        )


_REINDEX = (
    *("reindex", "IMAGES", "--encoder", NAME, "--weights", "untrained", "--batch-size", "2"),
    *("--precision", "fp32", "--device", "cpu", "--prune"),
)

COMMANDS = {
    "reindex into an empty folder": Command("nothing", _REINDEX, alike=True),
    "reindex": Command("images", _REINDEX),
    "generations compact": Command("fields", ("generations", "compact")),
    "generations rebuild": Command(
        "fields", ("generations", "rebuild"), numbered=False, alike=True
    ),
    "generations rollback": Command("fields", ("generations", "rollback", "3"), refused=True),
    "generations prune": Command("fields", ("generations", "prune", "--keep", "1")),
    "backup": Command("fields", ("backup", f"{DATA_DIR}/kept"), refused=True),
    "restore": Command(
        "backup", ("restore", f"{DATA_DIR}/kept", "--replace"), numbered=False, alike=True
    ),
    "db upgrade": Command("older schema", ("db", "upgrade")),
}
"""By the name that the table shows."""

COMMITTING = [name for name in COMMANDS if name != "backup"]
"""Those that change the database."""
