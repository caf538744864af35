from pathlib import Path

import pytest

from indexer.errors import ImageryError
from indexer.imagery.stac.addresses import Home, check_url, is_private_host, resolve, shown

STRANGER = Home()
NEIGHBOR = Home(is_private=True)
PAGE = "https://93.184.216.34/catalogs/s2/item.json"


def refusal(href: object, document: str = PAGE, home: Home = STRANGER) -> str:
    with pytest.raises(ImageryError) as refused:
        resolve(href, document, home)
    assert refused.value.kind == "href-refused"
    return refused.value.message


def test_a_reference_is_understood_from_where_it_stands() -> None:
    assert resolve("../B04.tif", PAGE, STRANGER) == "https://93.184.216.34/catalogs/B04.tif"
    assert resolve("/B04.tif?sig=a", PAGE, STRANGER) == "https://93.184.216.34/B04.tif?sig=a"
    assert resolve("//1.1.1.1/B04.tif", PAGE, STRANGER) == "https://1.1.1.1/B04.tif"


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "s3://bucket/B04.tif",
        "ftp://1.1.1.1/B04.tif",
        "gopher://1.1.1.1/",
        "javascript:alert(1)",
        "data:text/plain,x",
    ],
)
def test_a_catalog_on_a_server_names_no_other_schemes(href: str) -> None:
    assert "neither http:// nor https://" in refusal(href)


def test_a_path_of_gdal_is_only_a_path_on_the_same_server() -> None:
    assert resolve("/vsicurl/http://a/b.tif", PAGE, STRANGER).startswith("https://93.184.216.34/")
    assert resolve("/etc/passwd", PAGE, STRANGER) == "https://93.184.216.34/etc/passwd"


@pytest.mark.parametrize(
    "href", [None, 3, "", " ", ["a"], "http://[::1", "http:///a", "http://a:x/"]
)
def test_what_is_no_address_is_refused(href: object) -> None:
    refusal(href)


def test_passwords_in_addresses_are_refused_and_not_repeated() -> None:
    message = refusal("https://user:secret@1.1.1.1/B04.tif?token=hidden")
    assert "password" in message
    assert "secret" not in message
    assert "hidden" not in message


def test_blanks_and_line_breaks_in_addresses_are_refused() -> None:
    for mark in (" ", "\n", "\x00", "\\"):
        with pytest.raises(ImageryError):
            check_url(f"http://1.1.1.1/a{mark}b.tif", STRANGER)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.5",
        "192.168.1.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
    ],
)
def test_a_stranger_may_not_name_this_machine_or_its_network(host: str) -> None:
    assert "private network" in refusal(f"http://{host}/B04.tif")
    assert resolve(f"http://{host}/B04.tif", PAGE, NEIGHBOR) == f"http://{host}/B04.tif"


def test_a_host_on_the_internet_or_unknown_is_not_private() -> None:
    assert not is_private_host("1.1.1.1")
    assert not is_private_host("no-such-host.invalid")
    assert not is_private_host("")


def test_a_catalog_on_disk_names_files_below_its_folder(tmp_path: Path) -> None:
    home = Home(tmp_path)
    document = str(tmp_path / "s2" / "item.json")
    assert resolve("../B04.tif", document, home) == str(tmp_path / "B04.tif")
    assert resolve(str(tmp_path / "B04.tif"), document, home) == str(tmp_path / "B04.tif")
    assert resolve("https://1.1.1.1/B04.tif", document, home) == "https://1.1.1.1/B04.tif"


@pytest.mark.parametrize(
    "href",
    ["../../B04.tif", "/etc/passwd", "s2/../../secret.tif", "link/secret.tif", "a\x00b.tif"],
)
def test_a_catalog_on_disk_names_no_file_elsewhere(tmp_path: Path, href: str) -> None:
    folder = tmp_path / "catalog"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    refusal(href, str(folder / "item.json"), Home(folder))


@pytest.mark.parametrize("href", ["/vsicurl/http://1.1.1.1/a.tif", "file:///a.tif", "s3://b/a.tif"])
def test_a_catalog_on_disk_names_neither_other_schemes_nor_paths_of_gdal(
    tmp_path: Path, href: str
) -> None:
    refusal(href, str(tmp_path / "item.json"), Home(tmp_path))


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_nobody_may_name_link_local_addresses(host: str) -> None:
    for home in (STRANGER, NEIGHBOR):
        assert "link-local" in refusal(f"http://{host}/latest/meta-data", home=home)


def test_a_document_on_a_server_names_no_file_whoever_led_there(tmp_path: Path) -> None:
    assert resolve(str(tmp_path / "a.tif"), PAGE, Home(tmp_path)).startswith("https://")


def test_messages_show_locations_short_and_without_control_characters() -> None:
    assert shown("https://a/b?c=d#e") == "https://a/b"
    assert shown("/data/a\x1b[2Jb") == "/data/a?[2Jb"
    assert len(shown("x" * 1000)) < 250
