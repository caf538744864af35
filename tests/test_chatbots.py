"""The chatbot of ``docs/chatbots.md``, with a model that can only repeat what it was told."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from indexer.embedding_space import UNTRAINED_NOTE
from indexer.landscape import draw_landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from retriever.documents import ParcelRetriever
from retriever.peers import MIN_PEERS
from retriever.toolkit import ParcelToolkit
from retriever.tools import TOOLS
from tests.retriever.planted import searching

PAGE = (Path(__file__).parents[1] / "docs" / "chatbots.md").read_text()
PARCEL = "demo-025"
DATE = r"\d{4}-\d{2}-\d{2}"


@pytest.fixture(scope="module")
def whole_demo(tmp_path_factory: pytest.TempPathFactory, tiny_croma: str) -> Settings:
    """The landscape of ``parcelle demo``, embedded by the small encoder.

    ``demo_index`` has no crop with enough parcels for a percentile.
    """
    landscape = draw_landscape(tmp_path_factory.mktemp("landscape"))
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("index"), database_url="", croma_weights="untrained"
    )
    options = ReindexOptions(
        encoder=tiny_croma, parcels=landscape.parcels_file, collection="demo", device="cpu"
    )
    reindex(settings, landscape.scenes, options)
    return settings


# A model ---------------------------------------------------------------------------------------


class Repeater(BaseChatModel):
    """Asks as a model would, and answers with nothing but what it read in the tools' texts."""

    @property
    def _llm_type(self) -> str:
        return "repeater"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> ChatResult:
        assert isinstance(messages[0], SystemMessage)
        (question,) = (message.text for message in messages if isinstance(message, HumanMessage))
        if "tools" in kwargs:
            told = [message.text for message in messages if isinstance(message, ToolMessage)]
            reply = next_step(question, told)
        else:
            reply = AIMessage(answer_from_documents(question))
        return ChatResult(generations=[ChatGeneration(message=reply)])


def next_step(question: str, told: Sequence[str]) -> AIMessage:
    """State, then look-alikes, then the answer."""
    if not told:
        asked = found(r"\b(demo-\d+)\b", question)["1"]
        return calling("get_parcel_state", parcel_id=asked)
    if len(told) == 1:
        parcel = found(r'^Parcel "(?P<id>[^"]+)" of "(?P<collection>[^"]+)"', told[0])
        return calling(
            "find_similar_parcels", parcel_id=parcel["id"], collection=parcel["collection"], k=3
        )
    return AIMessage(answer_from_tools(*told))


def calling(name: str, **arguments: Any) -> AIMessage:  # noqa: ANN401
    return AIMessage("", tool_calls=[ToolCall(name=name, args=arguments, id=name)])


def found(pattern: str, text: str) -> dict[str, str]:
    """What the groups of a pattern hold, by name or number."""
    match = re.search(pattern, text, flags=re.MULTILINE)
    assert match is not None, f"{pattern} is not in {text}"
    numbered = {str(number): group for number, group in enumerate(match.groups(), start=1)}
    return numbered | match.groupdict()


def answer_from_tools(state: str, similar: str) -> str:
    head = found(r'^Parcel "(?P<id>[^"]+)".*?crop "(?P<crop>[^"]+)", (?P<area>\S+) ha', state)
    latest = found(rf"^(?P<day>{DATE}): NDVI (?P<ndvi>\S+), .* % valid$", state)
    trend = found(
        rf"^Trend: NDVI (?P<slope>\S+) per day .*? (?P<start>{DATE}) to (?P<end>{DATE})\.", state
    )
    peers = found(
        rf"^Against (?P<whom>.+?) \((?P<n>\d+), seen (?P<day>{DATE}), within (?P<km>\S+) km\): "
        r"NDVI percentile (?P<percentile>\d+) \(median (?P<median>[\d.-]+)\)",
        state,
    )
    matches = re.findall(rf'^"([^"]+)","([^"]+)",(\S+),({DATE})$', similar, flags=re.MULTILINE)
    look_alikes = ", ".join(
        f"{name} ({crop}, score {score}, seen {day})" for name, crop, score, day in matches
    )
    return (
        f"On {latest['day']} the NDVI of {head['id']} ({head['crop']}, {head['area']} ha) was "
        f"{latest['ndvi']}: percentile {peers['percentile']} among {peers['n']} peers "
        f"({peers['whom']}, seen {peers['day']}, within {peers['km']} km), whose median is "
        f"{peers['median']}. Trend: {trend['slope']} per day from {trend['start']} to "
        f"{trend['end']}. Look-alikes: {look_alikes}. "
        f"{found('^(Source: .*)$', similar)['1']} {found('^(Note: .*)$', similar)['1']}"
    )


def answer_from_documents(prompt: str) -> str:
    seen = re.findall(
        rf'^Parcel "([^"]+)" .*? similarity to "[^"]+" (\S+) .*? Seen ({DATE})',
        prompt,
        flags=re.MULTILINE,
    )
    note = found("(Note: .*)", prompt)["1"]
    return "; ".join(f"{name} {score} {day}" for name, score, day in seen) + f". {note}"


# Numbers that are held by an artifact ----------------------------------------------------------

# The part of a field's name tells what it may be converted to.
FACTORS = {"ha": Decimal("0.0001"), "%": Decimal(100)}
CONVERTED = {"metrics:area": "ha", "valid_fraction": "%", "share": "%", "declared_share": "%"}

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
TOKEN = re.compile(r"[\w.+-]*\d[\w.+-]*(?: (?:ha|%))?")


@dataclass
class Held:
    """What an artifact holds, for texts to be held against."""

    texts: set[str] = field(default_factory=set)
    """Every text, and every name of a field."""
    numbers: list[tuple[str, Decimal]] = field(default_factory=list)
    """Every number, by the name of its field."""

    @classmethod
    def by(cls, *artifacts: Any) -> "Held":  # noqa: ANN401 - JSON
        held = cls()
        for artifact in artifacts:
            held._take("", artifact)
        return held

    def _take(self, name: str, value: Any) -> None:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            for inner, item in value.items():
                self.texts.add(inner)
                self._take(inner, item)
        elif isinstance(value, list):
            for item in value:
                self._take(name, item)
        elif isinstance(value, str):
            self.texts.add(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self.numbers.append((name, Decimal(str(value))))

    def holds(self, token: str) -> bool:
        """Whether a number with its unit, a date or a word is in the artifact."""
        shown, _, unit = token.partition(" ")
        if re.fullmatch(DATE, shown):
            return any(text.startswith(f"{shown}T") for text in self.texts)
        if not re.fullmatch(r"[+-]?\d+(\.\d+)?", shown):
            return shown in self.texts
        number = Decimal(shown)
        return any(
            is_rounded(number, value, factor)
            for name, value in self.numbers
            if (factor := self._factor(name, unit)) is not None
        )

    def _factor(self, name: str, unit: str) -> Decimal | None:
        if not unit:
            return Decimal(1)
        return FACTORS[unit] if CONVERTED.get(name) == unit else None

    def quotes(self, quotation: str) -> bool:
        """Whether a quoted text is in the artifact, or the beginning of one that is."""
        text = json.loads(quotation)
        if text.endswith("…"):
            return any(known.startswith(text[:-1]) for known in self.texts)
        return text in self.texts or any(text == str(number) for _, number in self.numbers)


def is_rounded(shown: Decimal, held: Decimal, factor: Decimal) -> bool:
    """Whether a number is one that is held, times a factor, each rounded to its own decimals.

    Text and artifact round the same measurement, so each may be half a unit of its last decimal
    away from it.
    """
    return abs(shown - held * factor) <= (last_decimal(shown) + factor * last_decimal(held)) / 2


def last_decimal(number: Decimal) -> Decimal:
    """What one more in the last decimal is worth."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(10) ** exponent


def not_held(text: str, held: Held) -> list[str]:
    """Quotations, dates, numbers and words with digits that an artifact does not hold."""
    strange = [quotation for quotation in QUOTED.findall(text) if not held.quotes(quotation)]
    tokens = [token.rstrip(".") for token in TOKEN.findall(QUOTED.sub(" ", text))]
    return strange + [token for token in tokens if not held.holds(token)]


@pytest.mark.parametrize(
    ("text", "strange"),
    [
        ('"a b" of "demo-01": NDVI 0.21, 6.32 ha, 98 % valid on 2023-08-12.', []),
        ("Trend -0.0061, p10 2, space 0a1b.", []),
        ("NDVI 0.22", ["0.22"]),
        ("NDVI -0.21", ["-0.21"]),
        ("NDVI 0.2051", ["0.2051"]),
        ("6.33 ha", ["6.33 ha"]),
        ("97 % valid", ["97 %"]),
        ("21 % valid", ["21 %"]),
        ("63218 %", ["63218 %"]),
        ("on 2023-08-13", ["2023-08-13"]),
        ("demo-02", ["demo-02"]),
        ('"demo-02"', ['"demo-02"']),
        ('"demo-…"', []),
        ('"demi-…"', ['"demi-…"']),
    ],
)
def test_what_an_artifact_does_not_hold_is_noticed(text: str, strange: list[str]) -> None:
    artifact = {
        "id": "demo-01",
        "crop:name": "a b",
        "metrics:area": 63_218.4,
        "NDVI": 0.2068,
        "valid_fraction": 0.9812,
        "datetime": "2023-08-12T10:50:31Z",
        "per_day": -0.00608,
        "p10": 2,
        "reliable": True,
        "space": {"id": "0a1b"},
    }
    assert not_held(text, Held.by(artifact)) == strange


# What the tools say ----------------------------------------------------------------------------


def taken_out(pattern: str, text: str) -> tuple[str, list[str]]:
    """A text without what a pattern finds, and what the pattern's group held."""
    found = re.findall(pattern, text, flags=re.MULTILINE)
    return re.sub(pattern, " ", text, flags=re.MULTILINE), found


def explained(tool: str, text: str, artifact: Mapping[str, Any], told_before: int) -> str:
    """A tool's text without the numbers that are no measurements, each of which is checked."""
    text, notes = taken_out(r"^Note: (.*)$", text)
    # The later pages of a state hold nothing but observations.
    needed = [] if tool == "get_parcel_state" and told_before else artifact.get("notes", [])
    assert set(notes) == set(needed)
    # Where the text ended, which is not where the artifact does.
    text, _ = taken_out(r"\bcursor ([\w.]+)\. ", text)
    # The range of a cosine, which every answer with scores repeats.
    text, _ = taken_out(r"-1 to 1\b", text)
    match tool:
        case "search_parcels":
            return listing_explained(text, artifact)
        case "get_parcel_state":
            return state_explained(text, artifact, told_before)
        case "find_similar_parcels":
            return similar_explained(text, artifact)
        case _:
            return comparison_explained(text, artifact)


def listing_explained(text: str, artifact: Mapping[str, Any]) -> str:
    text, more = taken_out(r"and (\d+) more attributes", text)
    shown = max((len(one["attributes"]) for one in artifact["parcels"]), default=0)
    assert all(int(number) < shown for number in more)
    # The head of the column names the unit.
    return re.sub(r'^(".*"),([\d.]+),', r"\1,\2 ha,", text, flags=re.MULTILINE)


def state_explained(text: str, artifact: Mapping[str, Any], told_before: int) -> str:
    text, needed = taken_out(r"at least (\d+) needed", text)
    assert set(needed) <= {str(MIN_PEERS)}
    text, more = taken_out(r"\b(\d+) more observations", text)
    told = len(re.findall(rf"^{DATE}: ", text, flags=re.MULTILINE))
    left = len(artifact["observations"]) - told_before - told
    assert more == ([str(left)] if left else [])
    return text


def similar_explained(text: str, artifact: Mapping[str, Any]) -> str:
    query = artifact["query"]
    text, numbers = taken_out(r"^(\d+)\. ", text)
    assert numbers in ([], [str(match["rank"]) for match in artifact["matches"]][: len(numbers)])
    text, like = taken_out(r"with (\d+) more like it", text)
    assert like == ([str(len(query["like"]) - 1)] if len(query.get("like", "")) > 1 else [])
    text, unlike = taken_out(r"unlike (\d+)", text)
    assert unlike == ([str(len(query["unlike"]))] if query.get("unlike") else [])
    # The conditions stand in one quotation, as they were asked.
    text, conditions = taken_out(rf", only ({QUOTED.pattern})", text)
    for value in query["filter"].values():
        for one in [value] if isinstance(value, str) else value:
            assert one in conditions[0]
    return text


def comparison_explained(text: str, artifact: Mapping[str, Any]) -> str:
    count = len(artifact["parcels"])
    text, counts = taken_out(r"^(\d+) parcels side by side", text)
    assert counts == [str(count)]
    text, numbers = taken_out(r"^(\d+)(?:\. |,)", text)
    told = len(numbers)
    assert numbers == [str(number) for number in range(1, told + 1)]
    assert ("There is no room for the others" in text) == (told < count)
    # Pairs of the numbers before the parcels.
    text, pairs = taken_out(r"\b(\d-\d): ", text)
    assert {int(number) for pair in pairs for number in pair.split("-")} <= set(range(1, told + 1))
    if told == count:
        assert len(pairs) == len(artifact["scores"])
    return text


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("search_parcels", {}),
    ("search_parcels", {"limit": 50, "crops": ["winter wheat", "maize"]}),
    ("search_parcels", {"bbox": "2,49,2.05,50", "attributes": {"variety": "late"}}),
    ("search_parcels", {"text": "no such parcel"}),
    *(("get_parcel_state", {"parcel_id": f"demo-{n:03d}"}) for n in range(1, 16)),
    ("get_parcel_state", {"parcel_id": "demo-001", "datetime": "2023-05"}),
    ("find_similar_parcels", {"parcel_id": "demo-002"}),
    ("find_similar_parcels", {"parcel_id": "demo-012", "k": 50}),
    ("find_similar_parcels", {"parcel_id": "demo-001", "like": ["demo-009"], "k": 3}),
    (
        "find_similar_parcels",
        {"parcel_id": "demo-003", "unlike": ["demo-001", "demo-008"], "datetime": "2023-08"},
    ),
    ("find_similar_parcels", {"parcel_id": "demo-003", "crops": ["maize"], "bbox": "2,49,3,50"}),
    ("find_similar_parcels", {"parcel_id": "demo-003", "crops": ["rice"]}),
    ("compare_parcels", {"parcel_ids": ["demo-001", "demo-002"]}),
    ("compare_parcels", {"parcel_ids": [f"demo-{n:03d}" for n in range(5, 10)]}),
    ("compare_parcels", {"parcel_ids": ["demo-004", "demo-012"], "datetime": "2023-05"}),
]


@pytest.mark.parametrize("index", ["demo_index", "whole_demo"])
@pytest.mark.parametrize("detail", ["concise", "detailed"])
def test_every_number_that_a_tool_tells_is_held_by_its_artifact(
    request: pytest.FixtureRequest, index: str, detail: str
) -> None:
    with searching(request.getfixturevalue(index)) as searcher:
        tools = {tool.name: tool for tool in ParcelToolkit(searcher).get_tools()}
        for name, arguments in CALLS:
            for message, told_before in pages(
                tools[name], {**arguments, "response_format": detail}
            ):
                text = explained(name, message.text, message.artifact, told_before)
                strange = not_held(text, Held.by(message.artifact))
                assert not strange, f"{name} {arguments}: {strange} in\n{message.text}"


def pages(tool: BaseTool, arguments: dict[str, Any]) -> Iterator[tuple[ToolMessage, int]]:
    """The first pages of an answer, with where each begins."""
    cursor = None
    for _ in range(4):
        asked = arguments if cursor is None else {**arguments, "cursor": cursor}
        message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": asked})
        assert message.status == "success", message.content
        yield message, 0 if cursor is None else int(cursor.split(".")[0])
        cursors = re.findall(r"\bcursor ([\w.]+)\. ", str(message.content))
        if not cursors:
            return
        (cursor,) = cursors


def test_every_number_of_a_document_is_held_by_its_metadata(whole_demo: Settings) -> None:
    with searching(whole_demo) as searcher:
        retriever = ParcelRetriever(searcher=searcher, k=50)
        for question in (PARCEL, "like demo-001, demo-002, demo-003 or demo-004?"):
            documents = retriever.invoke(question)
            assert len(documents) == 50
            for document in documents:
                text, notes = taken_out(r"Note: (.*)$", document.page_content)
                assert notes == [UNTRAINED_NOTE]
                text, _ = taken_out(r"-1 to 1\b", text)
                text, more = taken_out(r"and (\d+) more", text)
                assert more == (["1"] if "or" in question else [])
                assert not_held(text, Held.by(document.metadata)) == []


# The page --------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def run_page(until: str | None = None) -> dict[str, Any]:
    """Run the page's Python from top to bottom, with another model in place of the chosen one.

    Args:
        until: Stop before the block that holds this.
    """
    names: dict[str, Any] = {}
    for block in blocks("python"):
        if until is not None and until in block:
            break
        if "init_chat_model" in block:
            *imports, chosen = ast.parse(block).body
            assert all(isinstance(one, ast.ImportFrom) for one in imports)
            assert ast.unparse(chosen).startswith("model = init_chat_model(")
            names["model"] = Repeater()
        else:
            exec(block, names)
    return names


@pytest.fixture
def at_the_demo(whole_demo: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(whole_demo.data_dir))


def check_conversation(messages: Sequence[BaseMessage]) -> None:
    """Two tools answered, and the last message says nothing but what they told."""
    told = [message for message in messages if isinstance(message, ToolMessage)]
    assert [message.name for message in told] == ["get_parcel_state", "find_similar_parcels"]
    assert [message.status for message in told] == ["success", "success"]
    assert isinstance(messages[-1], AIMessage)
    final = messages[-1].text
    assert not_held(final, Held.by(*(message.artifact for message in told))) == []
    check_content(final, told[0].artifact, told[1].artifact)


def check_content(final: str, state: Mapping[str, Any], similar: Mapping[str, Any]) -> None:
    """Whatever such an answer must tell is told, as the artifacts have it."""
    latest = state["observations"][-1]
    group = state["peers"]["similar"]
    assert latest["reliable"]
    assert group["n"] >= MIN_PEERS
    percentile = group["indices"]["NDVI"]["percentile"]
    for part in (
        f"On {latest['datetime'][:10]} the NDVI of {PARCEL} (winter wheat, ",
        f" was {latest['indices']['NDVI']['median']:.2f}: ",
        f"percentile {percentile:.0f} among {group['n']} peers",
        f"Trend: {state['trend']['per_day']:+.4f} per day ",
        f"space {similar['space']['id']} ",
        UNTRAINED_NOTE,
    ):
        assert part in final, f"{part!r} is not in {final!r}"
    assert len(similar["matches"]) == 3
    for match in similar["matches"]:
        assert f"{match['id']} ({match['crop:name']}, score {match['score']:.3f}, seen " in final


@pytest.mark.usefixtures("at_the_demo")
def test_the_agent_of_the_page_says_nothing_but_what_was_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = run_page()
    messages = names["answer"]["messages"]
    check_conversation(messages)
    assert isinstance(messages[0], HumanMessage)
    assert messages[0].text == names["question"]
    assert capsys.readouterr().out.startswith(messages[-1].text)


@pytest.mark.usefixtures("at_the_demo")
async def test_the_agent_of_the_page_answers_asynchronously() -> None:
    names = run_page(until="agent.invoke")
    with names["searcher"] as searcher:
        agent_block = next(block for block in blocks("python") if "agent.invoke" in block)
        before, _, _ = agent_block.partition("answer = ")
        exec(before, names)
        asked = {"messages": [{"role": "user", "content": names["question"]}]}
        answer = await names["agent"].ainvoke(asked)
        assert names["tools"][0].searcher is searcher
    check_conversation(answer["messages"])


@pytest.mark.usefixtures("at_the_demo")
def test_the_page_reads_on_and_asks_the_retriever(
    whole_demo: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page()
    printed = capsys.readouterr().out
    with searching(whole_demo) as searcher:
        look_alikes = searcher.similar_by_id(PARCEL, k=5).matches
    for match in look_alikes:
        assert f"{match.parcel_id} {match.score:.3f} {match.acquired_at:%Y-%m-%d}" in printed
    assert printed.rstrip().endswith(UNTRAINED_NOTE)
    # Every parcel of wheat but the one that asks, once, in order.
    ranks = re.findall(rf"^(\d+) demo-\d+ {DATE} \S+$", printed, flags=re.MULTILINE)
    assert ranks == [str(rank) for rank in range(1, 24)]


# What depends on the encoder: the page's is CROMA-Base, the test's a small one.
ENCODED = re.compile(
    r"(?<=cosine of embeddings )\S+"
    r"|(?<=^Crop of its look-alikes: ).*"
    r"|(?<=space )\w+ \([\w-]+"
    r'|(?<=^")demo-\d+","[^"]+",\d\.\d{3},\d{4}-\d{2}-\d{2}$'
)


def without_encoder(text: str) -> list[str]:
    """The lines of an answer, but for its observations and how many of them there is room for.

    Which parcels are most alike depends on the encoder as well.
    """
    text = re.sub(r"^(Most alike \(NDVI\): ).*$", r"\1*", text, flags=re.MULTILINE)
    lines = [ENCODED.sub("*", line) for line in text.splitlines()]
    lines = [line for line in lines if not re.match(rf"{DATE}: ", line)]
    return [re.sub(r"^(\d+ m|M)ore.*: cursor \S+ ", "", line) for line in lines]


def observations(text: str) -> list[str]:
    return re.findall(rf"^{DATE}: .*$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("first", "tool", "arguments"),
    [
        ("Parcel ", "get_parcel_state", {"parcel_id": PARCEL}),
        ("Parcels most like ", "find_similar_parcels", {"parcel_id": PARCEL, "k": 3}),
        ("No parcel ", "get_parcel_state", {"parcel_id": "demo-25"}),
    ],
)
def test_the_printed_answers_are_those_of_the_tools(
    whole_demo: Settings, first: str, tool: str, arguments: dict[str, Any]
) -> None:
    (printed,) = (block for block in blocks("text") if block.startswith(first))
    with searching(whole_demo) as searcher:
        tools = {one.name: one for one in ParcelToolkit(searcher).get_tools()}
        answer = tools[tool].invoke(arguments)
        told = [answer]
        if observations(printed):
            told = [message.text for message, _ in pages(tools[tool], arguments)]
    assert without_encoder(printed) == without_encoder(answer)
    every = [line for text in told for line in observations(text)]
    assert observations(printed) == every[: len(observations(printed))]


def test_the_table_of_the_page_names_every_tool_and_argument() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [tool.name for tool in TOOLS]
    for (_, cell), tool in zip(rows, TOOLS, strict=True):
        fields = tool.arguments.model_fields.items()
        needed = [(name, "*" if field.is_required() else "") for name, field in fields]
        assert re.findall(r"`(\w+)`(\*?)", cell) == needed


def test_the_page_names_no_tool_that_does_not_exist() -> None:
    named = set(re.findall(r"\b(?:search|get|find|compare)_\w*parcel\w*", PAGE))
    assert named == {tool.name for tool in TOOLS}


# Configurations of clients ---------------------------------------------------------------------


def servers(configuration: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for name in ("mcpServers", "servers"):
        if name in configuration:
            return list(configuration[name].values())
    return list(configuration.values())


@pytest.mark.parametrize("block", blocks("json"))
def test_every_configuration_of_the_page_is_json_and_starts_or_reaches_parcelle(
    block: str,
) -> None:
    (server,) = servers(json.loads(block))
    if server.get("command") == "parcelle":
        assert server["args"] == ["mcp"]
        assert list(server["env"]) == ["PARCELLE_DATA_DIR"]
        assert server["env"]["PARCELLE_DATA_DIR"].startswith("/")
    else:
        written = json.dumps(server)
        assert "http://127.0.0.1:8000/mcp" in written
        assert "Authorization" in written
        assert "Bearer " in written


def test_each_client_is_told_how_to_start_and_how_to_reach_parcelle() -> None:
    sections = dict(
        re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    )
    for client in ("Claude Desktop", "Claude Code", "Cursor", "VS Code"):
        assert "PARCELLE_DATA_DIR" in sections[client]
        assert "http://127.0.0.1:8000/mcp" in sections[client]
    assert "langchain-mcp-adapters" in sections["LangChain in another process"]
