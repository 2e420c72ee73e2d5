"""What mkdocs does not do by itself: run the tutorial, cut figures into pages, reach files beside docs/, set maths."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
_FOLDER = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)\)")
_PICTURE = re.compile(r"!\[[^\]]*\]\(\.\./results/(\w+)/published/figures/(\w+)\.png\)")
# Pages that are written elsewhere, by their names here.
_FROM_THE_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and every file of the project that a page leads to."""
    for name, source in _FROM_THE_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    for name, text in _figures():
        files.append(File.generated(config, name, content=text))
    if (notebook := files.get_file_from_path("tutorial.ipynb")) is not None:
        for name, content in _executed(Path(str(notebook.abs_src_path))).items():
            files.append(File.generated(config, name, content=content))
    for file in list(files):
        if file.src_uri.endswith(".md"):
            _add_targets(file.src_uri, file.content_string, files, config)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links out of docs/ to the copies, and typeset formulas."""
    place = page.file.src_uri
    if place == "figures.md":
        markdown = _list_of_figures(markdown)
    markdown = _FOLDER.sub(lambda link: link[1] if _is_folder(link[2], place) else link[0], markdown)
    markdown = _LINK.sub(lambda link: f"{link[1]}{_inside(link[2], place)}{link[3]}", markdown)
    return _typeset(markdown) if "```math" in markdown else markdown


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Take the script that lets the search run in files from this site, where the theme names another host."""
    own = os.path.relpath("assets/iframe-worker.js", os.path.dirname(page.file.dest_uri) or ".")
    return output.replace("https://unpkg.com/iframe-worker/shim", own)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page of an address that there is not."""
    return output_content.replace("https://unpkg.com/iframe-worker/shim", "/assets/iframe-worker.js")


def _add_targets(place: str, text: str, files: Files, config: MkDocsConfig) -> None:
    """Copy the files of the project outside docs/ that a page leads to; pages among them lead to others."""
    for _, link, _ in _LINK.findall(text):
        target = os.path.normpath(os.path.join(os.path.dirname(place), link))
        if not target.startswith("../"):
            continue
        name = target[3:]
        if (ROOT / name).is_file() and files.get_file_from_path(name) is None:
            file = File.generated(config, name, abs_src_path=str(ROOT / name))
            files.append(file)
            if name.endswith(".md"):
                _add_targets(f"../{name}", (ROOT / name).read_text(encoding="utf-8"), files, config)


def _is_folder(link: str, place: str) -> bool:
    """Whether a link leads to a folder of the project, which has no page in the site."""
    return "://" not in link and (DOCS / os.path.dirname(place) / link).is_dir()


def _inside(link: str, place: str) -> str:
    """A link within the site."""
    target = os.path.normpath(os.path.join(os.path.dirname(place), link))
    if "://" in link or not target.startswith("../"):
        return link
    return os.path.relpath(target[3:], os.path.dirname(place) or ".")


def _sections() -> list[tuple[str, str]]:
    text = (DOCS / "figures.md").read_text(encoding="utf-8")
    return [
        (title.strip(), body.strip()) for title, _, body in (part.partition("\n") for part in text.split("\n## ")[1:])
    ]


def _slug(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _figures() -> list[tuple[str, str]]:
    """A page for each section of docs/figures.md."""

    def led(link: re.Match[str]) -> str:
        return link[0] if "://" in link[2] else f"{link[1]}../{link[2]}{link[3]}"

    return [
        (f"figures/{_slug(title)}.md", f"# {title}\n\n{_LINK.sub(led, body + _drawn_anew(body))}\n")
        for title, body in _sections()
    ]


def _drawn_anew(body: str) -> str:
    """For each picture of a page, its PDF and the command that draws it anew."""
    return "".join(
        f"\n\n[{name}.pdf](../results/{study}/published/figures/{name}.pdf) of the study `{study}` is drawn anew by "
        f"`make figure STUDY={study} FIGURE={name}`."
        for study, name in _PICTURE.findall(body)
    )


def _list_of_figures(markdown: str) -> str:
    entries = [f"- [{title}](figures/{_slug(title)}.md)" for title, _ in _sections()]
    return markdown.partition("\n## ")[0] + "\n" + "\n".join(entries) + "\n"


def _executed(path: Path) -> dict[str, str | bytes]:
    """Run a notebook; return its page and pictures by name. A cell that fails ends the build."""
    notebook = nbformat.read(path, as_version=4)
    os.environ |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}  # small networks gain nothing by threads
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    files: dict[str, str | bytes] = {}
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if output.get("name") == "stderr":  # what libraries log of this machine, such as fonts that it lacks
                continue
            data = output.get("data", {})
            if "image/png" in data:
                name = f"tutorial-{len(files) + 1}.png"
                files[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({name})")
            elif said := output.get("text") or data.get("text/plain"):
                parts.append(f"```text\n{said.rstrip()}\n```")
    parts.append("This page is [a notebook](tutorial.ipynb), run when the site was built.")
    return files | {"tutorial.md": "\n\n".join(parts) + "\n"}


def _typeset(markdown: str) -> str:
    """Replace formulas by MathML, which browsers draw without a script."""

    def block(found: re.Match[str]) -> str:
        return f'<div class="formula">{latex2mathml.converter.convert(found[1].strip(), display="block")}</div>'

    def inline(found: re.Match[str]) -> str:
        # In a span, since Markdown takes a line that begins with <math> for a block.
        return f"<span>{latex2mathml.converter.convert(found[1])}</span>"

    markdown = re.sub(r"```math\n(.*?)```", block, markdown, flags=re.DOTALL)
    return re.sub(r"(?<![`$])\$([^$\n`]+)\$", inline, markdown)
