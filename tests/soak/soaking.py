"""Mixed questions, writes and switches against a real service, for as long as asked for.

Every answer is held against the truth: each match must be a parcel as it was at some moment of the
request, with that vector's exact score; nothing deleted, nothing that a filter does not allow; and
the nearest must be among them as often as the index promises.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from indexer.catalog.database import connect
from indexer.settings import Settings
from tests.api.serving import environment_of, serving_process
from tests.drawn_index import CROPS, draw_index
from tests.soak.world import FloatArray, Version, World, median_of

PARCELS = 6_000
CLIENTS = 3
WRITES_PER_S = 20
K = 10

SWITCHES: tuple[tuple[str, ...], ...] = (
    ("generations", "compact"),
    ("generations", "rebuild"),
    ("generations", "rollback"),
    ("generations", "compact"),
    ("generations", "prune", "--keep", "2"),
    ("backup", "{backup}"),
    ("check",),
)
"""Commands that are run in turn while everybody asks and writes."""

_WAKING_CLIENTS = 60
"""More than the service has threads (40, as anyio has it)."""

_WAKING_QUESTIONS = 5

_ROUNDING = 2e-3
"""The copies of an index are fp16, and scores are told with six digits."""


@dataclass
class Report:
    """What a soak saw."""

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """Checked answers, by kind of question."""
    commits: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    """Commands that ended as they should."""
    faults: list[str] = field(default_factory=list)
    """Wrong answers and failures, in words."""
    found: int = 0
    """Of the truly nearest parcels."""
    wanted: int = 0
    memory_mib: list[float] = field(default_factory=list)
    """Private memory of the service, once a second."""
    files: list[int] = field(default_factory=list)
    """Files that it holds open."""

    @property
    def recall(self) -> float:
        """Share of the truly nearest that were found."""
        return self.found / max(1, self.wanted)

    @property
    def growth(self) -> float:
        """Memory in the last sixth of the time over that of the sixth before the middle."""
        return _late(self.memory_mib) / _early(self.memory_mib)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "seconds": self.seconds,
            "answers": dict(self.answers),
            "commits": self.commits,
            "commands": dict(self.commands),
            "recall": round(self.recall, 4),
            "memory_mib": [round(_early(self.memory_mib), 1), round(_late(self.memory_mib), 1)],
            "files": [max(self.files[: len(self.files) // 2]), max(self.files)],
            "faults": self.faults,
        }


def _early(values: list[float]) -> float:
    n = len(values)
    return statistics.median(values[n // 3 : n // 2])


def _late(values: list[float]) -> float:
    n = len(values)
    return statistics.median(values[n - max(1, n // 6) :])


def soak(seconds: float, folder: Path, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Ask, write and switch for some time.

    Args:
        seconds: How long.
        folder: An empty folder for the index.
        tell: Is told now and then how it goes.
    """
    tell(f"Drawing an index of {PARCELS} parcels...")
    settings = draw_index(folder / "index", PARCELS)
    engine = connect(settings)
    report = Report()
    with serving_process(settings, PARCELLE_COMPACT_EVERY_S="2") as (address, pid):
        world = World(engine)
        tell("Waking every thread of the service...")
        _wake(world, address)
        started = time.monotonic()
        soaking = _Soaking(settings, world, address, report, started + seconds)
        with ThreadPoolExecutor(CLIENTS + 2) as threads:
            working = [threads.submit(soaking.ask, n) for n in range(CLIENTS)]
            working.append(threads.submit(soaking.write))
            working.append(threads.submit(soaking.switch, folder / "backup"))
            while not soaking.over:
                time.sleep(1)
                report.memory_mib.append(_private_mib(pid))
                report.files.append(len(os.listdir(f"/proc/{pid}/fd")))
                if len(report.memory_mib) % 30 == 0:
                    tell(
                        f"{len(report.memory_mib)} s: {sum(report.answers.values())} answers, "
                        f"{world.commits} commits, {sum(report.commands.values())} commands, "
                        f"{report.memory_mib[-1]:.0f} MiB, {len(report.faults)} faults"
                    )
            for one in working:
                one.result()
        report.seconds = round(time.monotonic() - started, 1)
        report.commits = world.commits
    engine.dispose()
    return report


def _wake(world: World, address: str) -> None:
    """Have every thread of the service search once: each has buffers of its own from then on."""

    def ask(number: int) -> None:
        with httpx2.Client(base_url=address, timeout=60, verify=False) as client:
            for turn in range(_WAKING_QUESTIONS):
                name = world.name(_WAKING_QUESTIONS * number + turn)
                parameters = {"k": str(K), "filter": '"metrics:area" > 20100'}
                client.get(f"/collections/demo/items/{name}/similar", params=parameters)
                client.get(f"/collections/demo/items/{name}/state")

    with ThreadPoolExecutor(_WAKING_CLIENTS) as clients:
        list(clients.map(ask, range(_WAKING_CLIENTS)))


def _private_mib(pid: int) -> float:
    """Memory that the process has for itself; mapped files can be dropped at any time."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("RssAnon:"))
    return int(found.split()[1]) / 1024


class _Soaking:
    """What the threads share."""

    def __init__(
        self, settings: Settings, world: World, address: str, report: Report, until: float
    ) -> None:
        self._settings = settings
        self._world = world
        self._address = address
        self._report = report
        self._until = until
        self._counting = threading.Lock()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until or len(self._report.faults) > 20

    def _fault(self, what: str) -> None:
        with self._counting:
            self._report.faults.append(what)

    # Writing ---------------------------------------------------------------------------------

    def write(self) -> None:
        """Commit changes, some in each second."""
        while not self.over:
            self._world.write_one()
            time.sleep(1 / WRITES_PER_S)

    def switch(self, backup: Path) -> None:
        """Have generations built, taken back and forgotten."""
        # Threads that wait for each other would take all the time of a machine that is busy.
        environment = environment_of(self._settings) | {"OMP_NUM_THREADS": "1"}
        program = str(Path(sys.executable).with_name("parcelle"))
        turn = 0
        while not self.over:
            words = [one.format(backup=backup) for one in SWITCHES[turn % len(SWITCHES)]]
            turn += 1
            done = subprocess.run(
                [program, *words], env=environment, capture_output=True, text=True, timeout=120
            )
            # The service compacts by itself, too, and then it is the only writer.
            if done.returncode and "[reindex-running]" not in done.stderr:
                self._fault(f"parcelle {' '.join(words)}: {done.stderr}{done.stdout}")
            elif not done.returncode:
                self._report.commands[
                    " ".join(words[:2] if words[0] != "backup" else words[:1])
                ] += 1
            if backup.exists():
                shutil.rmtree(backup)

    # Asking ----------------------------------------------------------------------------------

    def ask(self, seed: int) -> None:
        """Ask one question after the other."""
        chosen = random.Random(seed)
        questions = (self._similar, self._similar, self._search, self._state, self._items)
        with httpx2.Client(base_url=self._address, timeout=60, verify=False) as client:
            while not self.over:
                question = chosen.choice(questions)
                try:
                    question(client, chosen)
                except httpx2.TransportError as error:
                    self._fault(f"{question.__name__}: {error!r}")
                with self._counting:
                    self._report.answers[question.__name__.strip("_")] += 1

    def _similar(self, client: httpx2.Client, chosen: random.Random) -> None:
        number = chosen.randrange(len(self._world))
        crop = chosen.choice((None, *CROPS))
        parameters = {"k": str(K)}
        if crop is not None:
            parameters["filter"] = f"\"crop:name\" = '{crop}'"
        asked = time.monotonic()
        answer = client.get(
            f"/collections/demo/items/{self._world.name(number)}/similar", params=parameters
        )
        answered = time.monotonic()
        queries = self._world.possible(number, asked, answered)
        if self._is_missing(answer, queries):
            return
        vectors = [one.vector for one in queries if one.vector is not None]
        self._judge(answer, vectors, crop, number, asked, answered)

    def _search(self, client: httpx2.Client, chosen: random.Random) -> None:
        query = self._world.drawn_near(chosen.randrange(len(self._world)), chosen.random())
        asked = time.monotonic()
        answer = client.post("/search", json={"vector": query.tolist(), "k": K})
        self._judge(answer, [query], None, None, asked, time.monotonic())

    def _state(self, client: httpx2.Client, chosen: random.Random) -> None:
        number = chosen.randrange(len(self._world))
        asked = time.monotonic()
        answer = client.get(f"/collections/demo/items/{self._world.name(number)}/state")
        versions = self._world.possible(number, asked, time.monotonic())
        if self._is_missing(answer, versions):
            return
        if answer.status_code != 200:
            self._fault(f"state: {answer.status_code} {answer.text[:300]}")
            return
        told = answer.json()["observations"][0]["indices"]["NDVI"]["median"]
        allowed = [median_of(one.turn) for one in versions if one.vector is not None and one.turn]
        # What was drawn at first is in no list.
        if told not in allowed and all(one.turn for one in versions):
            self._fault(f"state of {number}: NDVI {told}, {allowed} were there")

    def _items(self, client: httpx2.Client, chosen: random.Random) -> None:
        crop = chosen.choice(CROPS)
        asked = time.monotonic()
        answer = client.get(
            "/collections/demo/items", params={"limit": "50", "filter": f"\"crop:name\" = '{crop}'"}
        )
        answered = time.monotonic()
        if answer.status_code != 200:
            self._fault(f"items: {answer.status_code} {answer.text[:300]}")
            return
        names = [one["id"] for one in answer.json()["features"]]
        if len(names) != 50 or len(set(names)) != 50:
            self._fault(f"items: {len(names)} of 50, {len(set(names))} of them different")
        for name in names:
            number = self._world.numbers[name]
            if self._world.crops[number] != crop:
                self._fault(f"items: {name} is no {crop}")
            versions = self._world.possible(number, asked, answered)
            if all(one.vector is None for one in versions):
                self._fault(f"items: {name} was deleted")

    def _is_missing(self, answer: httpx2.Response, versions: list[Version]) -> bool:
        """Whether the parcel may rightly not have been there."""
        return answer.status_code == 404 and any(one.vector is None for one in versions)

    def _judge(
        self,
        answer: httpx2.Response,
        queries: list[FloatArray],
        crop: str | None,
        but: int | None,
        asked: float,
        answered: float,
    ) -> None:
        """Hold an answer with matches against the truth."""
        if answer.status_code != 200:
            self._fault(f"{answer.status_code}: {answer.text[:300]}")
            return
        matches = [one["properties"] for one in answer.json()["features"]]
        numbers = [self._world.numbers[one["id"]] for one in matches]
        if len(set(numbers)) != K or but in numbers:
            self._fault(f"{len(set(numbers))} of {K} parcels, asked by {but}: {numbers}")
        if [one["score"] for one in matches] != sorted(one["score"] for one in matches)[::-1]:
            self._fault("matches are not in the order of their scores")
        for number, match in zip(numbers, matches, strict=True):
            versions = self._world.possible(number, asked, answered)
            scores = [
                float(query @ one.vector)
                for query in queries
                for one in versions
                if one.vector is not None
            ]
            if not any(abs(match["score"] - score) < _ROUNDING for score in scores):
                self._fault(f"{match['id']} has a score of {match['score']}, {scores} are right")
            if crop is not None and self._world.crops[number] != crop:
                self._fault(f"{match['id']} is no {crop}")
        true = self._world.nearest(queries[-1], K, crop, but)
        with self._counting:
            self._report.found += len(set(true) & set(numbers))
            self._report.wanted += len(true)
