import os
import sys
from pathlib import Path

import pytest

from indexer.errors import InvalidInputError
from indexer.imagery import scanning
from indexer.imagery.scanning import files_below, matches
from indexer.imagery.sources import find_sources
from indexer.imagery.spectral_sources import find_spectral_sources
from indexer.skipped import Skipped
from indexer.training.inputs import open_images
from tests.synthetic import make_dn, write_geotiff

BANDS = ("B02", "B03", "B04")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good image, ``good.tif``."""
    (tmp_path / "named").mkdir()
    write_geotiff(tmp_path / "named" / "good.tif", make_dn(8, BANDS), BANDS)
    return tmp_path / "named"


def kinds(skipped: list[Skipped]) -> dict[str, str]:
    return {Path(one.source).name: one.kind for one in skipped}


def found_everywhere(folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    """What both ways to look through a folder, and a glob of each, find and refuse."""
    pattern = str(folder / "**")
    told = []
    for named in (folder, pattern):
        for find in (find_sources, find_spectral_sources):
            sources, skipped = find([named])
            told.append(([source.name for source in sources], kinds(skipped)))
    return told


# Links


def test_a_link_out_of_the_folder_is_listed_and_not_followed(folder: Path) -> None:
    secret = write_geotiff(folder.parent / "secret.tif", make_dn(8, BANDS), BANDS)
    (folder / "link.tif").symlink_to(secret)
    (folder / "relative.tif").symlink_to("../secret.tif")
    for found, refused in found_everywhere(folder):
        assert found == ["good"]
        assert refused == {"link.tif": "outside-folder", "relative.tif": "outside-folder"}


def test_training_images_are_no_links_out_of_the_folder_either(folder: Path) -> None:
    secret = write_geotiff(folder.parent / "secret.tif", make_dn(8, BANDS), BANDS)
    (folder / "link.tif").symlink_to(secret)
    opened = open_images([folder], None, None)
    assert [image.source.name for image in opened.images] == ["good"]
    assert any("outside-folder" in note for note in opened.notes)


def test_a_link_to_another_file_of_the_folder_is_that_file(folder: Path) -> None:
    (folder / "again.tif").symlink_to("good.tif")
    for found, refused in found_everywhere(folder):
        assert sorted(found) == ["again", "good"]
        assert refused == {}


def test_a_link_that_is_named_itself_is_followed(folder: Path) -> None:
    secret = write_geotiff(folder.parent / "elsewhere.tif", make_dn(8, BANDS), BANDS)
    (folder / "link.tif").symlink_to(secret)
    (source,), skipped = find_sources([folder / "link.tif"])
    assert (source.name, skipped) == ("link", [])


def test_the_folder_that_is_named_may_be_a_link(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    (source,), skipped = find_sources([folder.parent / "link"])
    assert (source.name, skipped) == ("good", [])


def test_links_to_folders_are_not_gone_into(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    write_geotiff(elsewhere / "secret.tif", make_dn(8, BANDS), BANDS)
    (folder / "link").symlink_to(elsewhere)
    for found, refused in found_everywhere(folder):
        assert found == ["good"]
        assert set(refused.values()) <= {"outside-folder"}


def test_circles_of_links_end(folder: Path) -> None:
    for number in range(5):
        (folder / f"circle{number}").symlink_to(folder)
    (folder / "self.tif").symlink_to("self.tif")
    (folder / "nowhere.tif").symlink_to("gone.tif")
    for found, refused in found_everywhere(folder):
        assert found == ["good"]
        assert refused == {"self.tif": "unreadable", "nowhere.tif": "unreadable"}


# Files that are none


@pytest.mark.parametrize("name", ["pipe.tif", "pipe.zip", "pipe.hdr", "pipe.npy"])
def test_a_pipe_is_listed_and_not_waited_for(folder: Path, name: str) -> None:
    os.mkfifo(folder / name)
    for found, refused in found_everywhere(folder):
        assert found == ["good"]
        assert set(refused.items()) <= {(name, "unreadable")}


def test_a_pipe_that_is_named_itself_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.tif")
    with pytest.raises(InvalidInputError, match="pipe, a socket or a device") as caught:
        find_sources([folder / "pipe.tif"])
    assert caught.value.kind == "no-imagery"


def test_a_device_is_refused(folder: Path) -> None:
    (folder / "zero.tif").symlink_to("/dev/zero")
    _, skipped = find_sources([folder])
    assert kinds(skipped) == {"zero.tif": "outside-folder"}


# Names


@pytest.mark.parametrize(
    "name",
    [
        "two\nlines.tif",
        "\x1b[2Jclear.tif",
        "bell\x07.tif",
        "\x9b31mred.tif",
        "exe\u202efit.tif",
        os.fsdecode(b"\xff\xfe.tif"),
    ],
    ids=["line break", "escape", "bell", "C1", "direction", "no UTF-8"],
)
def test_a_name_that_a_terminal_obeys_is_refused_and_shown_harmless(
    folder: Path, name: str
) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems do not allow such names")
    write_geotiff(folder / "x.tif", make_dn(8, BANDS), BANDS).rename(folder / name)
    for find in (find_sources, find_spectral_sources):
        with pytest.raises(InvalidInputError) as caught:
            find([folder / name])
        assert caught.value.message.isprintable()
        for named in (folder, str(folder / "*.tif")):
            sources, skipped = find([named])
            assert [source.name for source in sources] == ["good"]
            (refused,) = skipped
            assert refused.kind == "unsafe-path"
            for text in (refused.source, refused.reason):
                assert text.isprintable()
                text.encode()


def test_names_in_all_scripts_are_taken(folder: Path) -> None:
    write_geotiff(folder / "x.tif", make_dn(8, BANDS), BANDS).rename(folder / "Maïs 小麦 %s.tif")
    sources, skipped = find_sources([folder])
    assert [source.name for source in sources] == ["Maïs 小麦 %s", "good"]
    assert skipped == []


# What a glob matches


def test_a_glob_goes_into_folders_but_not_into_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.tif", "b/c.tif", "b/d/e.tif", ".hidden/f.tif", "b/.g.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    skipped: list[Skipped] = []

    def matched(pattern: str) -> list[str]:
        found = matches(str(tmp_path / pattern), lambda name: name.endswith(".tif"), skipped)
        return [path.relative_to(tmp_path).as_posix() for path in found]

    assert matched("**/*.tif") == ["a.tif", "b/c.tif", "b/d/e.tif"]
    assert matched("*.tif") == ["a.tif"]
    assert matched("b/**") == ["b", "b/c.tif", "b/d", "b/d/e.tif"]
    assert matched(".hidden/*.tif") == [".hidden/f.tif"]
    assert matched("**/d/*.tif") == ["b/d/e.tif"]
    assert skipped == []


def test_more_files_than_are_looked_at_are_refused_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "MAX_ENTRIES", 3)
    (folder / "below").mkdir()
    for number in range(4):
        (folder / "below" / f"{number}.tif").touch()
    skipped: list[Skipped] = []
    found = files_below(folder, lambda name: name.endswith(".tif"), skipped)
    assert found == [folder / "good.tif"]
    assert [one.kind for one in skipped] == ["too-large"]
