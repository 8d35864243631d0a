"""Archives of code: unpacked once, and refused when they are not what they seem."""

from __future__ import annotations

import stat
import zipfile

import pytest

from handlers import archive
from handlers.archive import prepare
from router.errors import HandlerUnavailable


def make(path, entries) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data, mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            content.writestr(entry, data)


def test_a_folder_is_used_as_it_is(tmp_path):
    assert prepare(tmp_path, tmp_path / "state") == tmp_path.resolve()
    assert not (tmp_path / "state").exists()


def test_the_same_content_is_unpacked_once(tmp_path):
    entries = [
        ("pkg/app.py", "x = 1", 0o644),
        ("tool", "#!/bin/sh", stat.S_IFREG | 0o755),
        ("empty/", "", stat.S_IFDIR),
    ]
    for name in ("a.zip", "b.zip"):
        make(tmp_path / name, entries)
    root = prepare(tmp_path / "a.zip", tmp_path)
    (root / "pkg" / "mark").touch()
    assert prepare(tmp_path / "b.zip", tmp_path) == root
    assert (root / "pkg" / "mark").exists()
    assert (root / "pkg" / "app.py").read_text() == "x = 1"
    assert (root / "tool").stat().st_mode & 0o111
    assert (root / "empty").is_dir()
    assert [folder.name for folder in root.parent.iterdir()] == [root.name], "nothing half unpacked is left"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (("../evil.py", "", 0o644), "outside of its folder"),
        (("a/../../evil.py", "", 0o644), "outside of its folder"),
        (("/etc/evil.py", "", 0o644), "outside of its folder"),
        (("a\\..\\evil.py", "", 0o644), "outside of its folder"),
        (("link", "/etc/passwd", stat.S_IFLNK | 0o777), "no file or folder"),
        (("pipe", "", stat.S_IFIFO | 0o644), "no file or folder"),
    ],
)
def test_unsafe_entries_are_refused(tmp_path, entry, reason):
    make(tmp_path / "code.zip", [("app.py", "", 0o644), entry])
    with pytest.raises(HandlerUnavailable, match=reason):
        prepare(tmp_path / "code.zip", tmp_path / "state")
    assert list((tmp_path / "state" / "code").iterdir()) == []
    assert not list(tmp_path.rglob("evil.py"))


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path):
    zeros = bytes(archive.UNPACKED_LIMIT_BYTES // 10)
    make(tmp_path / "code.zip", [(str(number), zeros, 0o644) for number in range(10)])
    prepare(tmp_path / "code.zip", tmp_path / "state")
    make(tmp_path / "code.zip", [(str(number), zeros, 0o644) for number in range(11)])
    with pytest.raises(HandlerUnavailable, match="larger than 250 MB unpacked"):
        prepare(tmp_path / "code.zip", tmp_path / "state")
    assert len(list((tmp_path / "state" / "code").iterdir())) == 1


def test_too_many_entries_are_refused(tmp_path):
    make(tmp_path / "code.zip", [(f"{number}", "", 0o644) for number in range(archive.ENTRIES_LIMIT + 1)])
    with pytest.raises(HandlerUnavailable, match="50001 entries"):
        prepare(tmp_path / "code.zip", tmp_path / "state")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "code.zip").write_bytes(content)
    with pytest.raises(HandlerUnavailable, match=r"code\.zip is not a usable \.zip archive"):
        prepare(tmp_path / "code.zip", tmp_path)


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(HandlerUnavailable, match=r"lost\.zip cannot be read"):
        prepare(tmp_path / "lost.zip", tmp_path)
