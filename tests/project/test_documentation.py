"""The documentation builds without a warning, and its code is code that the tests run."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
README, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
PAIRS = [
    (README, CHINESE),
    (ROOT / "docs/coming-from/torchpruner.md", ROOT / "docs/coming-from/torchpruner.zh-CN.md"),
]
IDS = ["readme", "coming-from"]


def shown(example: str) -> str:
    """The part of an example between its markers, as a page shows it."""
    text = (ROOT / "examples" / example).read_text()
    part = re.search(r"--8<-- \[start:example\]\n(.*?)\n# --8<-- \[end:example\]", text, re.DOTALL)
    assert part is not None, example
    return part[1]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [*(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"), "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_mkdocs_builds_strictly_and_fills_in_every_snippet(site: Path) -> None:
    for page in ("index.html", "tutorial/index.html", "reference/core/index.html"):
        text = (site / page).read_text()
        assert "--8&lt;--" not in text and "--8<--" not in text


@pytest.mark.parametrize(
    "package",
    [
        "torchpruner_core",
        "torchpruner_core.capture",
        "torchpruner_core.importance",
        "torchpruner_core.recovery",
        "torchpruner_client",
    ],
)
def test_the_reference_has_every_public_name(site: Path, package: str) -> None:
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documented = {line.split(" ")[0] for line in inventory.splitlines()}
    found = importlib.import_module(package)
    missing = []
    for name in found.__all__:
        value = getattr(found, name)
        if isinstance(value, ModuleType):
            continue
        if hasattr(value, "__qualname__"):
            there = f"{value.__module__}.{value.__qualname__}" in documented
        else:  # an instance does not know its own name
            there = f"{type(value).__module__}.{name}" in documented
        if not there:
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("page", [README, CHINESE], ids=["english", "chinese"])
def test_the_readmes_code_is_the_examples_code(page: Path) -> None:
    assert blocks(page, "python") == [shown(f"{name}.py") for name in ("half", "sdk", "local")]
    assert blocks(page, "bash") == [shown(f"{name}.sh") for name in ("shell", "cut")]


def test_the_readmes_examples_are_as_short_as_promised() -> None:
    assert len([x for x in shown("half.py").splitlines() if x and "import" not in x]) <= 5
    assert len(shown("sdk.py").splitlines()) <= 20
    assert len(shown("cut.sh").splitlines()) <= 14


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=IDS)
def test_the_chinese_page_says_what_the_english_one_says(english: Path, chinese: Path) -> None:
    pages = [english.read_text(), chinese.read_text()]

    def of(pattern: str) -> list[list[str]]:
        return [re.findall(pattern, page, re.MULTILINE) for page in pages]

    for pattern in (r"^(#+) ", r"^(- )", r"^(\| )"):
        here, there = of(pattern)
        assert len(here) == len(there), pattern
    commands = of(r"^    (make \S+)")
    assert commands[0] == commands[1]
    codes = of(r"`([^`\n]+)`")
    assert sorted(set(codes[0])) == sorted(set(codes[1]))


@pytest.mark.parametrize("page", [README, CHINESE], ids=["english", "chinese"])
def test_the_readmes_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_pictures_are_drawn_in_the_readers_colours() -> None:
    for picture in (ROOT / "docs/images").glob("*.svg"):
        text = picture.read_text()
        assert "currentColor" in text and "aria-label" in text
        assert "\n\n" not in text, "an empty line ends inline HTML in Markdown"
