"""Folders as people have them: parts by other names, stray files, links, odd names, odd tables."""

import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clkit import data
from clkit.data import DataError, Stream, facts, layout, load
from clkit.experiments import PresetError, experiment

CLASSES = ("ant", "bee", "cow", "dog")
PACKAGE_ROOT = Path(data.__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Each test has an empty data root and an empty home."""
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "root"


def write(path, value=0):
    """A picture of one grey value; all BMP files are of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)


def folders(root, parts=("train", "test"), classes=CLASSES, n=3, below="", ending="png"):
    """root/PART/CLASS/below/*; the value of a picture is 10 times its class, plus its part."""
    for p, part in enumerate(parts):
        for k, name in enumerate(classes):
            for i in range(n):
                write(root / part / name / below / f"{i}.{ending}", 10 * k + p)
    return root


def values(part):
    """The value of each picture of an ImageSet."""
    return part.images[:, 0, 0, 0].tolist()


def refused(path, *words):
    """Load class folders that are refused in one sentence with these words."""
    with pytest.raises(DataError, match="^" + "".join(f"(?=.*{word})" for word in words) + ".*$"):
        load(f"folder:{path}")


# ---- the parts of a divided set


@pytest.mark.parametrize(
    "parts",
    [
        ("training", "testing"),
        ("Train", "Test"),
        ("TRAINING", "TESTING"),
        ("seg_train", "seg_test"),
        ("train_set", "test-set"),
        ("trainset", "testset"),
        ("TrainingData", "TestData"),
        ("train2017", "test2017"),
        ("01_train", "02_test"),
        ("train images", "test images"),
        ("trn", "tst"),
        ("training", "test"),
    ],
)
@pytest.mark.parametrize("more", [(), ("val",), ("Validation", "docs")])
def test_parts_may_have_any_usual_name(home, parts, more):
    train, test = load(f"folder:{folders(home / 'set', (*parts, *more))}")
    assert train.names == test.names == CLASSES
    assert values(train) == [10 * k for k in range(4) for _ in range(3)]
    assert values(test) == [10 * k + 1 for k in range(4) for _ in range(3)]
    assert data.present(f"folder:{home / 'set'}") and data.present("set")
    assert [row.name for row in data.catalogue() if row.present][-1] == "set"


@pytest.mark.parametrize(
    "parts",
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("seg_train", "seg_test", "seg_pred"),
        ("train", "val", "test"),
        ("train", "Train"),
        ("train", "images"),
        ("images", "labels"),
        ("val", "cat", "dog"),
        ("test", "cat", "dog"),
        ("train", "valid", "cat"),
    ],
)
def test_parts_without_class_folders_are_never_classes(home, parts):
    for part in parts:
        for i in range(3):
            write(home / "set" / part / f"{i}.png")
    write(home / "set" / "beside.png")
    refused(home / "set", "set cannot be taken for", "set/train/<class>/ and .*set/test/<class>/")
    assert not data.present("set")


@pytest.mark.parametrize(
    "parts, words",
    [
        (("train", "val"), "folders in train/ and val/ but none in test/.* rename val/ if it is the test"),
        (("Training", "valid"), "in Training/ and valid/ but none in test/.*rename valid/"),
        (("val",), "in val/ but none in train/"),
        (("Testing",), "in Testing/ but none in train/.*80 % training"),
        (("train", "Train", "test"), "set holds (train/ and Train/|Train/ and train/).*same part: keep one"),
        (("train", "test", "testing"), "holds test/ and testing/.*same part"),
    ],
)
def test_a_part_is_there_once(home, parts, words):
    refused(folders(home / "set", parts), words)


@pytest.mark.parametrize(
    "classes",
    [
        ("bullet train", "bus", "car"),
        ("train", "bus", "car"),  # as in CIFAR-100
        ("valid", "broken"),
        ("test tube", "flask"),
        ("steam_train", "train station"),
        ("validator", "tester", "trainer"),
        ("photographs", "dataset card"),
    ],
)
def test_classes_may_sound_like_parts(home, classes):
    train, test = load(f"folder:{folders(home / 'set', [''], classes)}")
    assert train.names == test.names == tuple(sorted(classes))


def test_classes_that_are_divided_one_by_one_are_refused(home):
    for name in CLASSES:
        folders(home / "set", [name], ("train", "test"))
    refused(home / "set", "hold no images, only folders such as test/ and train/ in ant/", "move the images")


def test_class_folders_of_superclasses_are_refused_and_one_inner_folder_is_not(home):
    folders(home / "deep", ["mammal", "insect"], CLASSES)
    refused(home / "deep", "folders such as ant/ and bee/ in insect/", "whose folders are the classes")
    train, _ = load(f"folder:{folders(home / 'tiny', below='images')}")  # as in Tiny ImageNet
    assert train.names == CLASSES and len(train) == 12
    write(home / "deep" / "insect" / "own.png")
    assert load(f"folder:{home / 'deep'}")[0].names == ("insect", "mammal")


def test_a_folder_around_the_set_is_named(home):
    folders(home / "outer" / "set")
    refused(
        home / "outer", "outer holds 1 class folder, .* or name .*outer/set if its folders are the classes"
    )


def test_experiments_on_own_data_take_parts_of_any_name(home):
    folders(home / "set", ("Training", "Testing"))
    assert experiment("finetune/set", tasks=(2, 2)).stream_row.data == "set"
    with pytest.raises(PresetError, match="there is no experiment 'finetune/sat'"):
        experiment("finetune/sat")


def test_a_part_can_be_loaded_by_itself(home):
    folders(home / "set", ["train"], ("train", "bus", "car"))
    assert load(f"folder:{home / 'set' / 'train'}")[0].names == ("bus", "car", "train")


def test_published_names_take_parts_of_any_name(home):
    names = facts.PUBLISHED["cifar10"].names
    folders(home / "cifar10", ("Training", "Testing"), names, n=1)
    assert load("cifar10")[0].names == names and data.present("cifar10")


def test_a_system_that_ignores_capitals_finds_no_class_folders_in_mnist(home):
    (home / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(DataError) as plain:
        load("mnist")
    (home / "mnist").symlink_to("MNIST")
    with pytest.raises(DataError) as odd:
        load("mnist")
    assert str(odd.value) == str(plain.value) and "data get mnist" in str(odd.value)
    (row,) = [row for row in data.catalogue() if row.name == "mnist"]
    assert row.how_to_get == "python -m clkit data get mnist"
    (home / "mnist").unlink()
    folders(home / "mnist")
    assert load("mnist")[0].names == CLASSES


# ---- what nobody put there


@pytest.mark.parametrize(
    "name",
    [
        "Thumbs.db",
        "thumbs.DB",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "Desktop.ini",
        "Icon\r",
        ".DS_Store",
        "._0.png",
        "0.png:Zone.Identifier",
        "Zone.Identifier",
        "Picasa.ini",
    ],
)
def test_stray_files_are_passed_over(home, name):
    folders(home / "set")
    for part in ("train", "test"):
        (home / "set" / part / "bee" / name).write_bytes(b"\0 no picture")
    assert len(load("set")[0]) == len(load("set")[1]) == 12


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "lost+found", "System Volume Information", ".git"])
def test_stray_folders_are_no_classes_and_hold_no_images(home, name):
    folders(home / "set", [""])
    write(home / "set" / name / "0.png")
    write(home / "set" / "bee" / name / "0.png")
    train, test = load(f"folder:{home / 'set'}")
    assert train.names == CLASSES and len(train) + len(test) == 12


@pytest.mark.parametrize("name", ["broken.png", "thumbs.png", "icon.jpg", "notes.ini", "my desktop.ini"])
def test_broken_pictures_are_named_all_the_same(home, name):
    folders(home / "set")
    (home / "set" / "train" / "bee" / name).write_bytes(b"\0 no picture")
    refused(home / "set", f"bee/{name} is not an image file: remove or replace it")


# ---- links, pipes, depths


@pytest.mark.parametrize(
    "link, target",
    [
        ("train/ant/up", ".."),
        ("train/ant/up", "."),
        ("train/ant/up", "/"),
        ("train/ant/up", "../.."),
        ("train/ant/b", "../bee"),
    ],
)
def test_links_that_lead_round_are_named(home, link, target):
    folders(home / "set")
    (home / "set" / link).symlink_to(target)
    (home / "set" / "train" / "bee" / "a").symlink_to("../ant")
    refused(home / "set", r"once more, which a link leads to: remove the link")


def test_many_paths_to_one_folder_are_not_all_walked(home):
    """Two links at each of 30 depths make 2^30 paths."""
    folders(home / "set")
    for n in range(30):
        (home / "deep" / f"{n}").mkdir(parents=True)
        for link in "ab":
            (home / "deep" / f"{n}" / link).symlink_to(f"../{n + 1}")
    (home / "deep" / "30").mkdir()
    (home / "set" / "train" / "ant" / "in").symlink_to(home / "deep" / "0")
    refused(home / "set", "once more")


def test_links_to_other_places_are_followed(home, tmp_path):
    write(tmp_path / "elsewhere" / "x.png", 7)
    folders(home / "set")
    (home / "set" / "train" / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    (home / "set" / "train" / "bee" / "x.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (home / "other").symlink_to(home / "set")
    assert values(load("other")[0]).count(7) == 2


def test_a_link_to_itself_is_named(home):
    folders(home / "set")
    (home / "set" / "train" / "ant" / "0.png").unlink()
    (home / "set" / "train" / "ant" / "0.png").symlink_to("0.png")
    refused(home / "set", "ant/0.png cannot be read .*: remove or replace it")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["0.png", "pipe"])
def test_a_pipe_is_named_and_never_waited_for(home, name):
    folders(home / "set")
    (home / "set" / "train" / "bee" / name).unlink(missing_ok=True)
    os.mkfifo(home / "set" / "train" / "bee" / name)
    refused(home / "set", f"bee/{name} is a pipe or a device, not a file: remove it")
    (home / "set" / "train" / "bee" / name).unlink()
    write(home / "set" / "train" / "bee" / name.replace("pipe", "9.png"))
    os.mkfifo(home / "set" / "classes.csv")
    assert load("set")[0].names == CLASSES


def test_folders_in_folders_have_no_depth_that_is_too_much(home):
    folders(home / "set")
    deep = home / "set" / "train" / "ant"
    top = deep / "d"
    for _ in range(1500):
        deep /= "d"
        deep.mkdir()
    write(deep / "x.png", 7)
    try:
        assert values(load("set")[0])[:4] == [0, 0, 0, 7]
    finally:  # as shutil.rmtree cannot in older versions of Python
        (deep / "x.png").unlink()
        while deep != top.parent:
            deep.rmdir()
            deep = deep.parent


def test_long_names_and_paths(home):
    long = home / ("é" * 100) / ("n" * 250)
    for _ in range(3):
        long /= "p" * 200
    folders(long)
    assert len(str(long)) > 1000
    assert len(load(f"folder:{long}")[0]) == 12
    name = "é" * 127  # 254 bytes
    folders(home / name)
    for _ in range(2):
        assert len(load(name)[0]) == 12
    assert len(list((home / ".clkit-cache").glob("*.images"))) == 2
    with pytest.raises(DataError, match="no folder"):
        load(f"folder:{home}/{'x' * 300}")
    with pytest.raises(DataError, match="no data set"):
        load("x" * 300)
    assert not data.present("x" * 300) and not data.present(f"folder:{home}/{'x' * 5000}")


def test_files_are_sorted_folder_by_folder(tmp_path):
    for name in ("b.png", "a-1.png", "a/z.png", "a/b/y.png", "c/x.png", "a.png"):
        write(tmp_path / "cat" / name)
    found = [
        str(Path(path).relative_to(tmp_path / "cat")) for path, _ in layout.files_below(tmp_path / "cat")
    ]
    assert found == ["a/b/y.png", "a/z.png", "a-1.png", "a.png", "b.png", "c/x.png"]


# ---- names


def spelt(form, *names):
    return [unicodedata.normalize(form, name) for name in names]


@pytest.mark.parametrize("train, test", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_in_either_spelling_are_one_class(home, train, test):
    names = ("café", "naïve", "Ångström", "한글")
    folders(home / "set", ["train"], spelt(train, *names))
    folders(home / "set", ["test"], spelt(test, *names))
    table = "folder,name\n" + "".join(f"{name},{name} x\n" for name in spelt(test, *names))
    for csv in (None, table):
        if csv:
            (home / "set" / "classes.csv").write_text(csv, encoding="utf-8")
        sets = load("set")
        known = [name + " x" * bool(csv) for name in names]
        assert sets[0].names == sets[1].names == tuple(sorted(known))
        stream = Stream(*sets, (1, 1, 1, 1), order=spelt("NFD", *known))
        assert stream.names == tuple(known)


def test_both_spellings_in_one_place_are_told_apart(home):
    folders(home / "set", classes=[*CLASSES, *spelt("NFC", "café"), *spelt("NFD", "café")])
    refused(home / "set", r"'cafe\\u0301' and 'caf\\xe9'", "merge them into one")


def test_names_that_look_alike_are_shown_in_both_spellings(home):
    folders(home / "set", ["train"], ["cat", "dog"])
    folders(home / "set", ["test"], ["c\u0430t", "dog"])  # a Cyrillic a
    refused(home / "set", r"c\\u0430t", "same class folders")


NOT_UTF8 = os.fsdecode(b"k\xfche")


@pytest.mark.parametrize("name", [NOT_UTF8, "two\nlines", "bell\a"])
def test_names_that_no_record_can_hold_are_refused(home, name, capsys):
    folders(home / "set", classes=[*CLASSES, name])
    refused(home / "set", r"\\(udcfc|n|x07).* is not UTF-8, or has control characters: rename the folder")
    folders(home / name)
    for asked in (f"folder:{home / name}", f"folder:{home / 'set' / 'train' / name}"):
        with pytest.raises(DataError, match="not UTF-8, or has control") as said:
            load(asked)
        str(said.value).encode()
        assert not data.present(asked)
    data.catalogue()
    with pytest.raises(DataError):
        load(name)


def test_a_file_name_that_is_not_utf8_is_no_fault(home):
    folders(home / "set")
    write(home / "set" / "train" / "ant" / f"{NOT_UTF8}.png", 7)
    for _ in range(2):
        assert values(load("set")[0]).count(7) == 1
    (home / "set" / "train" / "ant" / f"{NOT_UTF8}2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not an image file") as said:
        load("set")
    str(said.value).encode()  # what is displayed in a notebook


# ---- tables from spreadsheets

ROWS = [
    ["folder", "name", "group"],
    ["001", "ant", "insect"],
    ["002", "bee", "insect"],
    ["010", "cow", "mammal"],
]


def table(rows, delimiter=",", newline="\r\n", encoding="utf-8"):
    return newline.join(delimiter.join(row) for row in rows).encode(encoding)


@pytest.mark.parametrize(
    "content",
    [
        table(ROWS, encoding="utf-8-sig"),
        table(ROWS, ";", encoding="utf-8-sig"),
        table(ROWS, ";"),
        table(ROWS, "\t", encoding="utf-16"),
        b"\xef\xbb\xbfsep=;\r\n" + table(ROWS, ";"),
        b"sep=,\n" + table(ROWS, newline="\n"),
        table([*ROWS, ["", "", ""], ["", "", ""]]) + b"\r\n\r\n",
        table([["", "", ""], *ROWS]),
        table([[f"  {cell} " for cell in row] for row in ROWS]),
        table([[*row, "", ""] for row in ROWS], ";"),
        table([["Folder", "NAME", "Group"], *ROWS[1:]]),
        table([[f'"{cell}"' for cell in row] for row in ROWS], ";"),
        table([[row[1], row[0], row[2]] for row in ROWS], encoding="utf-8-sig"),
    ],
)
def test_tables_of_spreadsheets_are_read(home, content):
    folders(home / "set", classes=("001", "002", "010"))
    (home / "set" / "classes.csv").write_bytes(content)
    train, _ = load("set")
    assert (train.names, train.groups) == (("ant", "bee", "cow"), ("insect", "insect", "mammal"))


def test_an_empty_column_of_groups_is_none(home):
    folders(home / "set", classes=("001", "002", "010"))
    (home / "set" / "classes.csv").write_bytes(table([[*row[:2], ""] for row in ROWS[1:]]))
    refused(home / "set", "no column called folder")
    (home / "set" / "classes.csv").write_bytes(table([ROWS[0], *([*row[:2], ""] for row in ROWS[1:])]))
    assert load("set")[0].groups is None and load("set")[0].names == ("ant", "bee", "cow")


def test_zeros_that_a_spreadsheet_dropped_are_hinted_at(home):
    folders(home / "set", classes=("001", "002", "010"))
    rows = [[row[0].lstrip("0"), *row[1:]] for row in ROWS]
    (home / "set" / "classes.csv").write_bytes(table(rows))
    refused(
        home / "set", "no complete row for the class folder '001'", "leading zeros, which spreadsheets drop"
    )


@pytest.mark.parametrize(
    "content", [table(ROWS).replace(b"ant", b"\xe4nt"), b"\xff\xfe", b"\0\0\0\0", b"PK\3\4"]
)
def test_tables_that_are_no_text_are_named(home, content):
    folders(home / "set", classes=("001", "002", "010"))
    (home / "set" / "classes.csv").write_bytes(content)
    refused(home / "set", "classes.csv", "(UTF-8 text, or remove|must name the columns)")


# ---- the cache, and pictures that change places


@pytest.mark.parametrize("how", ["renamed", "copied", "linked"])
def test_pictures_that_change_places_are_noticed(home, how):
    """Both have the same size and date before and after."""
    folders(home / "set", ending="bmp")
    a, b, other = (home / "set" / "train" / name for name in ("ant/0.bmp", "bee/0.bmp", "x"))
    for path in (a, b):
        os.utime(path, (10**9, 10**9))
    assert a.stat().st_size == b.stat().st_size
    first = values(load("set")[0])
    if how == "renamed":
        a.rename(other), b.rename(a), other.rename(b)
    elif how == "copied":
        shutil.copy2(a, other), shutil.copy2(b, a), shutil.copy2(other, b)
    else:
        a.unlink(), a.hardlink_to(b)
    assert a.stat().st_mtime == b.stat().st_mtime == 10**9
    again = values(load("set")[0])
    assert again[0] == 10 != first[0] and again[3] == (10 if how == "linked" else 0)


def test_a_cache_on_a_read_only_disk_is_used(home, monkeypatch, capsys):
    folders(home / "set")
    load("set")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != home and access(path, mode))
    monkeypatch.setattr("clkit.data.folders._decode", lambda *_: pytest.fail("decoded again"))
    assert len(load("set")[0]) == 12 and capsys.readouterr().err == ""


def test_a_disk_that_takes_no_cache_stops_nothing(home, monkeypatch, capsys):
    folders(home / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert len(load("set")[0]) == 12
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "could not be cached" in said


# ---- closed folders and homes

LOOK = """
import os, sys
from clkit import data, doctor
from clkit.__main__ import main
data.load("digits"), data.catalogue(), doctor.examine()  # everything is imported before the user changes
for user, removed, added in {scenes}:
    if os.fork():
        assert os.wait()[1] == 0
        print("====", flush=True)
        continue
    for name in removed:
        os.environ.pop(name, None)
    os.environ.update(added)
    if os.getuid() == 0:
        os.setgroups([]), os.setgid(65534), os.setuid(user)
    print(len(data.load("digits")[0]))
    for words in (["data", "list"], ["list", "er/split-digits"], ["doctor"]):
        main(words)
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.fixture
def open_folder():
    """A folder that every user may enter; pytest closes its own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_cannot_be_read_is_named_and_passed_over(open_folder):
    """Closed folders in the root, a closed root, a closed or absent home, a user whom nobody knows."""
    home = open_folder / "sets"
    folders(home / "set")
    folders(home / "shut")
    (home / "lost+found").mkdir(0)
    (home / "link").symlink_to(home / "nowhere")
    (home / "loop").symlink_to("loop")
    (open_folder / "closed").mkdir(0)
    (home / "shut" / "train").chmod(0)
    nowhere = ["CLKIT_DATA", "XDG_CACHE_HOME", "HOME"]
    scenes = {
        "a folder": (65534, [], {"CLKIT_DATA": str(home)}),
        "root": (65534, [], {"CLKIT_DATA": f"{open_folder}/closed/sets"}),
        "home": (65534, nowhere, {"HOME": f"{open_folder}/closed"}),
        "no home": (65534, nowhere, {"HOME": "/nowhere"}),
        "nobody": (54321, nowhere, {}),  # whom the system does not know
    }
    code = LOOK.format(scenes=list(scenes.values()))
    here = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, cwd="/")
    (home / "shut" / "train").chmod(0o755)
    assert done.stderr == "" and done.stdout.count("1438\n") == len(scenes), done
    said = dict(zip(scenes, done.stdout.split("====\n")))
    assert f"{home}/lost+found cannot be read (Permission denied)" in said["a folder"]
    assert f"{home}/shut/train cannot be read (Permission denied)" in said["a folder"]
    assert "data sets present: digits, digits28, shapes, set" in said["a folder"]
    for scene in ("root", "home"):
        assert said[scene].count("(passed over: it cannot be read, Permission denied)") == 2
    for scene in ("no home", "nobody"):
        assert said[scene].count("clkit (not there yet)") == 2


# ---- what no machine could hold


@pytest.mark.parametrize("name", ["digits", "digits28", "shapes", "set", "folder:{}/set"])
@pytest.mark.parametrize("side", [10**6, np.int64(10**6), 10**9])
def test_a_size_beyond_all_memory_is_refused(home, name, side):
    folders(home / "set")
    few = (
        {"families": 1, "siblings": 1, "train_per_class": 1, "test_per_class": 1} if name == "shapes" else {}
    )
    with pytest.raises(DataError, match=r"would take [\d,.]+ GB of memory, but there are .*smaller side"):
        load(name.format(home), side=side, **few)


def test_a_number_of_shapes_beyond_all_memory_is_refused():
    with pytest.raises(DataError, match=r"shapes: .* would take [\d,.]+ GB of memory.*train_per_class"):
        load("shapes", train_per_class=10**6)


def test_memory_is_that_of_the_machine_or_its_container(monkeypatch):
    facts.check_memory("little", 10**6, "no cure")
    monkeypatch.setattr(Path, "read_text", lambda self: "1000" if self.name == "memory.max" else "max")
    with pytest.raises(DataError, match="little would take 0.0 GB of memory, but there are 0.0 GB: no"):
        facts.check_memory("little", 1001, "no cure")
    facts.check_memory("little", 1000, "no cure")


def test_resizing_in_parts_changes_nothing(monkeypatch):
    train, _ = load("digits")
    whole = train.resized(16)
    few = train.select(slice(0, 50))
    monkeypatch.setattr(data.images, "CHUNK", 16 * 16 * 3)
    assert (few.resized(16).images == whole.images[:50]).all()
