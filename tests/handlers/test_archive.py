"""Archives of code: unpacked once, and refused when they are not what they seem."""

from __future__ import annotations

import io
import stat
import struct
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from handlers import archive
from handlers.archive import check, hash_of, prepare, sweep
from router.errors import CodeRefused, HandlerUnavailable

CANNOT_UNZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."


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
        (("", "", 0o644), "a file and a folder of one name"),
        ((".", "", 0o644), "a file and a folder of one name"),
        (("app.py/evil.py", "", 0o644), "a file and a folder of one name: 'app.py'"),
        (("n" * 256, "", 0o644), "too long a name"),
        (("evil/" * 500, "", 0o644), "too long a name"),
        (("e/" * 300 + "evil.py", "", 0o644), "too long a name"),
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


def test_one_whose_names_cannot_be_read_is_named(tmp_path):
    make(tmp_path / "code.zip", [("é.py", "", 0o644)])
    (tmp_path / "code.zip").write_bytes((tmp_path / "code.zip").read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(HandlerUnavailable, match=r"code\.zip is not a usable \.zip archive: 'utf-8' codec"):
        prepare(tmp_path / "code.zip", tmp_path)


def test_one_whose_data_is_cut_off_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "code.zip", "w", zipfile.ZIP_STORED) as content:
        content.writestr("app.py", "x = 1")
    cut = bytearray((tmp_path / "code.zip").read_bytes())
    directory = cut.index(b"PK\x01\x02")
    # both sizes, in both places, are more than there is
    cut[18:26] = cut[directory + 20 : directory + 28] = (5000).to_bytes(4, "little") * 2
    (tmp_path / "code.zip").write_bytes(cut)
    with pytest.raises(HandlerUnavailable, match=r"code\.zip is not a usable \.zip archive: it is cut off"):
        prepare(tmp_path / "code.zip", tmp_path)


def test_those_who_unpack_the_same_at_once_all_have_it(tmp_path):
    make(tmp_path / "code.zip", [(f"{number}.py", "x = 1", 0o644) for number in range(200)])
    with ThreadPoolExecutor(8) as threads:
        roots = list(threads.map(lambda _: prepare(tmp_path / "code.zip", tmp_path / "state"), range(8)))
    assert len(set(roots)) == 1
    assert len(list(roots[0].iterdir())) == 200
    assert [folder.name for folder in roots[0].parent.iterdir()] == [roots[0].name]


def test_what_nobody_has_any_more_is_swept_away(tmp_path):
    sweep(tmp_path, [])
    roots = []
    for name in ("kept", "gone"):
        make(tmp_path / f"{name}.zip", [(f"{name}.py", "x = 1", 0o644)])
        roots.append(prepare(tmp_path / f"{name}.zip", tmp_path))
    (tmp_path / "code" / "unpacking-half").mkdir()
    sweep(tmp_path, [hash_of(tmp_path / "kept.zip")])
    assert [folder.name for folder in (tmp_path / "code").iterdir()] == [roots[0].name]


def test_what_a_loss_of_power_may_have_damaged_is_unpacked_anew(tmp_path):
    make(tmp_path / "code.zip", [("app.py", "x = 1", 0o644)])
    root = prepare(tmp_path / "code.zip", tmp_path)
    (root / "app.py").write_text("")
    kept = [hash_of(tmp_path / "code.zip")]
    sweep(tmp_path, kept)
    assert root.is_dir(), "the machine has not begun since"
    sweep(tmp_path, kept, began_s=root.stat().st_ctime + 1)
    assert (prepare(tmp_path / "code.zip", tmp_path) / "app.py").read_text() == "x = 1"


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(HandlerUnavailable, match=r"lost\.zip cannot be read"):
        prepare(tmp_path / "lost.zip", tmp_path)


def checked(tmp_path, entries) -> None:
    make(tmp_path / "code.zip", entries)
    check((tmp_path / "code.zip").read_bytes())


class TestCheck:
    def test_a_sound_archive_passes(self, tmp_path):
        checked(tmp_path, [("app.py", "x = 1", 0o644), ("tool", "", stat.S_IFREG | 0o755), ("a/", "", stat.S_IFDIR)])

    @pytest.mark.parametrize(
        ("entry", "reason"),
        [
            (("../evil.py", "", 0o644), "it has an entry outside of its folder: '../evil.py'"),
            (("/etc/evil.py", "", 0o644), "it has an entry outside of its folder: '/etc/evil.py'"),
            (("link", "/etc/passwd", stat.S_IFLNK | 0o777), "it has an entry that is no file or folder: 'link'"),
        ],
    )
    def test_an_unsafe_one_is_refused_with_the_reason(self, tmp_path, entry, reason):
        with pytest.raises(CodeRefused) as raised:
            checked(tmp_path, [("app.py", "", 0o644), entry])
        assert str(raised.value) == f"{CANNOT_UNZIP} ({reason})"

    @pytest.mark.parametrize("names", [[""], ["."], ["a", "a/b"], ["a/b", "a"], ["n" * 256], ["n/" * 2000 + "n"]])
    def test_one_whose_files_cannot_all_be_is_refused(self, tmp_path, names):
        with pytest.raises(CodeRefused, match=CANNOT_UNZIP[:29]):
            checked(tmp_path, [(name, "", 0o644) for name in names])

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_one_that_would_be_unpacked_without_bound_is_refused(self, method):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as packed:
            packed.writestr("app.py", "x = 1")
        with pytest.raises(CodeRefused, match=r"packed otherwise than by deflate: 'app\.py'"):
            check(content.getvalue())

    def test_one_of_too_many_entries_is_refused(self, tmp_path):
        with pytest.raises(CodeRefused, match="50001 entries"):
            checked(tmp_path, [(f"{number}", "", 0o644) for number in range(archive.ENTRIES_LIMIT + 1)])

    def test_the_directory_of_one_is_not_read_where_it_is_a_bomb_itself(self, tmp_path):
        count = 20 * archive.ENTRIES_LIMIT
        make(tmp_path / "code.zip", [("a", "", 0o644)])
        sound = (tmp_path / "code.zip").read_bytes()
        begin, end = sound.index(b"PK\x01\x02"), sound.index(b"PK\x05\x06")
        directory = sound[begin:end] * count
        bomb = sound[:begin] + directory + sound[end : end + 12] + struct.pack("<IIH", len(directory), begin, 0)
        tracemalloc.start()
        try:
            with pytest.raises(CodeRefused, match=f"{count} entries"):
                check(bomb)
            # The library's entries would take some ten times as much as the directory.
            assert tracemalloc.get_traced_memory()[1] < 3 * len(directory)
        finally:
            tracemalloc.stop()

    def test_a_bomb_is_refused_whatever_size_it_claims(self, tmp_path):
        piece = bytes(archive.UNPACKED_LIMIT_BYTES // 10)
        checked(tmp_path, [(str(number), piece, 0o644) for number in range(10)])
        with pytest.raises(CodeRefused) as raised:
            checked(tmp_path, [(str(number), piece, 0o644) for number in range(11)])
        assert str(raised.value) == "Unzipped size must be smaller than 262144000 bytes"

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
    def test_what_is_no_archive_is_refused_in_aws_words(self, content):
        with pytest.raises(CodeRefused) as raised:
            check(content)
        assert str(raised.value) == CANNOT_UNZIP

    def test_one_that_is_damaged_or_locked_is_refused(self, tmp_path):
        make(tmp_path / "code.zip", [("app.py", "x = 1" * 999, 0o644)])
        sound = (tmp_path / "code.zip").read_bytes()
        # the first byte of the packed data; the flag of encryption, in both places
        damaged = sound[:40] + bytes([sound[40] ^ 0xFF]) + sound[41:]
        central = sound.index(b"PK\x01\x02")
        locked = bytearray(sound)
        locked[6] |= 1
        locked[central + 8] |= 1
        for content in (damaged, bytes(locked)):
            with pytest.raises(CodeRefused) as raised:
                check(content)
            assert str(raised.value) == CANNOT_UNZIP
