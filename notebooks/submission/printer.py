"""Print notebooks to PDF: what Jupyter shows (HTML), read by pandoc, set by Typst.

No LaTeX, no browser, no network. nbconvert renders Markdown and prepares the outputs;
page.typ says how a page looks.
"""

import base64
import html
import importlib.util
import io
import mimetypes
import re
import subprocess
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pypandoc
import typst
from bs4 import BeautifulSoup
from nbconvert.exporters import Exporter
from nbconvert.filters import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbconvert.utils.exceptions import ConversionException
from PIL import Image
from traitlets import Bool, Unicode

from submission.notebooks import read_notebook, used_sample  # noqa: F401

TEMPLATE = Path(__file__).with_name("page.typ")
TRIAL = "Trial run on a sample of the data"
TRIAL_NOTE = (
    "This is a trial run on a sample of the data. The text describes the full run: "
    "figures, tables and outputs below can contradict it."
)
PREPROCESSORS = (
    TagRemovePreprocessor(
        enabled=True,
        remove_cell_tags={"remove-cell"},
        remove_input_tags={"remove-input", "hide-input"},
        remove_all_outputs_tags={"remove-output"},
    ),
    CoalesceStreamsPreprocessor(enabled=True),
)


class PrintError(ConversionException, ValueError):
    """The notebook cannot be printed; the message says why."""


@dataclass(frozen=True)
class Page:
    """What stands on the pages of a document beside the notebook.

    `heading` is the left of the page header, `name` its right; with a `title` the first page
    opens with it and with `authors`. `hide_code` prints a report: prose, outputs, figures.
    A `trial` is marked on every page as a run on a sample of the data.
    """

    heading: str
    name: str = ""
    title: str = ""
    authors: tuple = ()
    hide_code: bool = False
    trial: bool = False


class TypstPDFExporter(Exporter):
    """`jupyter nbconvert --to typst`, and an entry of Jupyter's export menu."""

    file_extension = ".pdf"
    output_mimetype = "application/pdf"
    export_from_notebook = "PDF via Typst"

    exclude_input = Bool(False, help="Leave the code out.").tag(config=True)
    name = Unicode("", help="Your name, for the page header.").tag(config=True)

    def from_notebook_node(self, nb, resources=None, **kw):
        """The PDF (bytes) of the notebook, and the resources."""
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        resources["output_extension"] = self.file_extension
        about = resources.get("metadata", {})
        no_input = self.config.get("TemplateExporter", {}).get("exclude_input", False)
        page = Page(
            heading=about.get("name") or "Notebook",
            name=self.name,
            hide_code=self.exclude_input or no_input is True,
            trial=used_sample(nb),
        )
        return to_pdf([nb], page, about.get("path")), resources


def to_pdf(notebooks, page, folder=None):
    """The PDF (bytes) of one or more notebooks, each on a new page; the same bytes each time.

    Pictures that Markdown cells name are read relative to `folder`. What cannot be shown
    leaves words on the page and a warning. Raises PrintError when Typst cannot set a page.
    """
    with tempfile.TemporaryDirectory() as scratch:
        document = _Document(page, Path(folder or "."), Path(scratch))
        for notebook in notebooks:
            document.add(notebook)
        return document.compile()


def _pre(text, kind):
    """Text in a fixed-width font; words longer than a line may break."""
    text = re.sub(r"(\S{90})(?=\S)", "\\1\u200b", text.rstrip())
    return f'<pre class="{kind}"><code>{html.escape(text)}\n</code></pre>'


def _say(words):
    """Words in the place of what cannot be shown, and a warning."""
    warnings.warn(f"not printed: {words}", stacklevel=2)
    return f"[{words}]"


# ------------------------------------------------------------------- Markdown, formulas
# page.typ defines what pandoc's Typst has not: \tfrac, and bars without space around them
TFRAC = r"\newcommand{\tfrac}[2]{\operatorname{tfrac}\left(#1⁏#2\right)}"
BAR = re.compile(r"(\\(?:left|right|middle|[bB]igg?[lrm]?)?\s*)?\|")
MACRO = re.compile(
    r"\\(?:(?:re)?newcommand\*?\{?\\\w+\}?(?:\[\d\])*|DeclareMathOperator\*?\{\\\w+\})"
    r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
)


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with code and formulas in the form that pandoc reads."""

    def __init__(self, macros):
        super().__init__(escape=False, exclude_anchor_links=True)
        self.macros = macros

    def block_code(self, code, info=None):
        return _pre(code, re.sub(r"\W.*", "", info or "") or "text")

    def inline_math(self, body):
        return self.formula(body, r"\(", r"\)")

    def block_math(self, body):
        return self.formula(body, r"\[", r"\]")

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def formula(self, body, start, end):
        self.macros += MACRO.findall(body)
        body = MACRO.sub("", body).strip()
        body = re.sub(r"(?<!\\)\\\|(.+?)\\\|", r"\\lVert \1\\rVert ", body)
        if r"\begin{array}" not in body:  # whose columns can have rules
            body = BAR.sub(lambda m: m[0] if m[1] else r"\operatorname{vbar}", body)
        tag = re.search(r"\\tag\*?\{(.*?)\}", body)
        if tag and start == r"\[":
            body = rf"\text{{⟨tag:{tag[1]}⟩}}{body.replace(tag[0], '')}"
        text = html.escape("".join([TFRAC, *self.macros, body]), quote=False)
        return f'<span class="tex">{start}{text}{end}</span>' if body else ""

    def _embed_image_or_attachment(self, src):
        return src


# ------------------------------------------------------------------------ the notebook
OPTION = re.compile(r"^#\| ?([\w-]+): *(.*(?:\n#\| {2,}.*)*)\n?", re.MULTILINE)
PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")
SHOWN = (*PICTURES, "text/html", "text/markdown", "text/latex", "text/plain")
REPR = re.compile(r"<.*>|[\w.]+\(.*\)", re.DOTALL)  # of an object, not for readers
UNSHOWN = {
    "audio": "a sound",
    "video": "a video",
    "iframe": "a page of another site",
    "canvas": "an interactive figure",
    "object": "an embedded object",
    "embed": "an embedded object",
}


class _Document:
    """Collects the HTML of the cells, and the pictures as files in `scratch`."""

    def __init__(self, page, folder, scratch):
        self.page, self.folder, self.scratch = page, folder, scratch
        self.parts, self.pictures = [], 0

    def add(self, notebook):
        """Append a notebook, on a new page."""
        notebook = deepcopy(notebook)
        for preprocessor in PREPROCESSORS:
            notebook, _ = preprocessor.preprocess(notebook, {})
        info = notebook.metadata.get("language_info", {})
        language = re.sub(r"\W", "", info.get("name", "python"))
        self.renderer = _Renderer(macros=[])
        if self.parts:
            self.parts.append(_pre("", "pagebreak"))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                self.parts.append(self.markdown_cell(cell))
            elif cell.cell_type == "code":
                self.parts += self.code_cell(cell, language)
            elif cell.source.strip():
                self.parts.append(_pre(cell.source, "output"))

    def markdown(self, source):
        return MarkdownWithMath(renderer=self.renderer).render(source)

    def markdown_cell(self, cell):
        """The HTML of a Markdown cell with the pictures attached to it."""
        source = cell.source
        for name, bundle in cell.get("attachments", {}).items():
            kind = next(iter(bundle))
            data = f"data:{kind};base64,{bundle[kind]}"
            for written in (name, quote(name)):
                source = source.replace(f"(attachment:{written}", f"({data}")
        return self.markdown(source)

    def code_cell(self, cell, language):
        """The HTML of the code, if it is to be printed, and of each output."""
        options = [
            (m[1], re.sub(r"\n#\| +", " ", m[2])) for m in OPTION.finditer(cell.source)
        ]
        code = re.sub(r"\A(#\|.*\n?)+", "", cell.source)
        hidden = self.page.hide_code or cell.metadata.get("transient", {}).get(
            "remove_source"
        )
        if code.strip() and not hidden:
            kind = f"in-{cell.execution_count or ''}-{language}"
            yield _pre(code, kind)
        outputs = BeautifulSoup(
            "\n".join(map(self.output, cell.outputs)), "html.parser"
        )
        self.caption(outputs, options)
        yield str(outputs)

    def caption(self, outputs, options):
        """Give the first picture and the first table of a cell their captions and names."""
        for key, text in options:
            kind = {"fig-cap": "fig", "tbl-cap": "tbl"}.get(key)
            if kind is None:
                continue
            names = [v for k, v in options if k == "label" and v.startswith(kind)]
            found = outputs.find(["img", "svg"] if kind == "fig" else "table")
            text = self.markdown(text.strip("\"' ")).strip()
            text = text.removeprefix("<p>").removesuffix("</p>")
            if found is None:
                warnings.warn(f"no output for the caption {text!r}", stacklevel=2)
            elif kind == "fig":
                alts = [v for k, v in options if k == "fig-alt"]
                found["alt"] = found.get("alt") or "".join(alts)
                figure = found.wrap(outputs.new_tag("figure", attrs=_id(names)))
                figure.append(_tag("figcaption", text))
                if figure.parent.name == "p":
                    figure.parent.unwrap()
            else:
                found.attrs.update(_id(names))
                found.insert(0, _tag("caption", text))

    # ----------------------------------------------------------------------- outputs
    def output(self, output):
        """The HTML of one output."""
        if output.output_type == "stream":
            return self.lines(output.text)
        if output.output_type == "error":
            lines = "\n".join(output.traceback)
            return self.lines(lines or f"{output.ename}: {output.evalue}")
        data, plain = output.data, str(output.data.get("text/plain", ""))
        kind = next((kind for kind in SHOWN if kind in data), None)
        if kind in PICTURES:
            size = output.metadata.get(kind, {})
            return self.picture_output(data[kind], kind, size)
        if kind == "text/html":
            return self.html_output(data[kind], plain)
        if kind in ("text/markdown", "text/latex"):
            if self.page.hide_code and data[kind].startswith("<details>"):
                return ""
            return self.markdown(data[kind])
        if kind and set(data) == {kind} or not REPR.fullmatch(plain.strip()):
            return self.lines(plain)
        return f"<p>{_say('an output that only Jupyter shows')}</p>"

    def lines(self, text):
        text = strip_ansi(text).strip("\n")
        return _pre(text, "output") if text.strip() else ""

    def picture_output(self, content, kind, size):
        if kind != "image/svg+xml":
            content = f"data:{kind};base64,{content}"
        else:
            content = f"data:{kind},{quote(content)}"
        width = size.get("width") if isinstance(size, dict) else None
        alt = html.escape(size.get("alt", "") if isinstance(size, dict) else "")
        width = f' width="{width * 0.75:.2f}pt"' if width else ""
        return f'<p><img src="{content}" alt="{alt}"{width}></p>'

    def html_output(self, source, plain):
        soup = BeautifulSoup(source, "html.parser")
        for element in soup(["script", "style"]):
            element.decompose()
        is_seen = soup.get_text().strip() or soup.find(["img", "svg", *UNSHOWN])
        if not is_seen:
            if plain and not REPR.fullmatch(plain.strip()):
                return self.lines(plain)
            return f"<p>{_say('an output that only Jupyter shows')}</p>"
        for text in _texts(soup):  # formulas, as Jupyter finds them in an output
            formula = r"\$\$(.+?)\$\$|\$(.+?)\$"
            if re.search(formula, text):
                text.replace_with(BeautifulSoup(self.markdown(text), "html.parser"))
        return f'<div class="html">{soup}</div>'

    # ----------------------------------------------------------------------- the end
    def compile(self):
        """The PDF as bytes."""
        soup = BeautifulSoup("\n".join(self.parts), "html.parser")
        for element in soup(["script", "style"]):
            element.decompose()
        if self.page.trial:
            note = _tag("p", f"<strong>{TRIAL_NOTE}</strong>")
            title = None if self.page.title else soup.find("h1")
            title.insert_after(note) if title else soup.insert(0, note)
        self.place_pictures(soup)
        _arrange(soup)
        _set_type(soup)
        _link(soup)
        body = self.pandoc(str(soup))
        main = '#import "page.typ": *\n#show: document\n' + body
        (self.scratch / "main.typ").write_text(main, "utf-8")
        (self.scratch / "page.typ").write_bytes(TEMPLATE.read_bytes())
        inputs = {
            "heading": self.page.heading,
            "name": self.page.name,
            "title": self.page.title,
            "authors": ", ".join(self.page.authors),
            "trial": TRIAL if self.page.trial else "",
        }
        try:
            pdf = typst.compile(
                self.scratch / "main.typ", font_paths=_font_paths(), sys_inputs=inputs
            )
        except typst.TypstError as error:
            raise PrintError(f"Typst cannot set the notebook: {error}") from error
        if b"LastResort" in pdf:
            warnings.warn(
                "no font has some of the characters, which are printed as boxes: install a "
                "font for their script (Noto, https://fonts.google.com/noto)",
                stacklevel=3,
            )
        return pdf

    def pandoc(self, body):
        """The HTML as Typst."""
        reader = "html+tex_math_single_backslash-auto_identifiers"
        run = subprocess.run(
            [pypandoc.get_pandoc_path(), "-f", reader, "-t", "typst", "--wrap=none"],
            input=body.encode(),
            capture_output=True,
            check=False,
        )
        messages = run.stderr.decode(errors="replace")
        if run.returncode:
            raise PrintError(f"pandoc cannot read the notebook: {messages.strip()}")
        for formula in re.findall(
            r"Could not convert TeX math (.*), rendering", messages
        ):
            formula = formula.replace(TFRAC, "")
            warnings.warn(f"printed as TeX, not as a formula: {formula}", stacklevel=3)
        text = (
            run.stdout.decode()
            .replace(r'"tfrac" (', "tfrac(")
            .replace(" semi.rev ", ", ")
        )
        text = text.replace('"vbar"', "vbar")
        return text.replace("#box(stroke: black, inset: 3pt, ", "#boxed(")

    def place_pictures(self, soup):
        """Put each picture into a file of its own, and words where there is none."""
        for svg in soup("svg"):
            svg["xmlns"] = "http://www.w3.org/2000/svg"
            source = f"data:image/svg+xml,{quote(str(svg))}"
            svg.replace_with(soup.new_tag("img", attrs={"src": source}))
        for name, words in UNSHOWN.items():
            for element in soup(name):
                element.replace_with(_say(words))
        for image in soup("img"):
            source = image.get("src", "")
            try:
                content = self.read_picture(source)
                suffix, width = _measure(content)
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                words = image.get("alt") or source[:60]
                image.replace_with(
                    _say(f"a picture that cannot be read: {words} ({error})")
                )
                continue
            self.pictures += 1
            image["src"] = f"picture-{self.pictures}{suffix}"
            (self.scratch / image["src"]).write_bytes(content)
            style = re.search(
                r"(?<![-\w])width:\s*([\d.]+(px|%|pt|em))", image.get("style", "")
            )
            if style:
                image["width"] = style[1]
            elif width and not image.get("width") and not image.get("height"):
                image["width"] = f"{width:.2f}pt"

    def read_picture(self, source):
        """The bytes of a picture; raises OSError or ValueError when there is none."""
        if source.startswith("data:"):
            kind, _, content = source.partition(",")
            content = unquote(content)
            return base64.b64decode(content) if "base64" in kind else content.encode()
        if re.match(r"\w{2,}:|//", source):
            raise ValueError("it is not a file beside the notebook")
        path = self.folder / unquote(source)
        if not path.is_file():
            path = self.folder / unquote(re.sub(r"[?#].*", "", source))
        return path.read_bytes()


def _measure(content):
    """The ending and the width in points (0 for SVG) of a picture; raises ValueError or OSError."""
    if b"<svg" in content[:1000].lower() or content.lstrip()[:5] == b"<?xml":
        return ".svg", 0
    with Image.open(
        io.BytesIO(content), formats=["PNG", "JPEG", "GIF", "WEBP"]
    ) as image:
        image.load()
        dots = float(image.info.get("dpi", (96, 96))[0])
        ending = mimetypes.guess_extension(image.get_format_mimetype())
        return ending, image.width * (72 / dots if 10 < dots < 5000 else 0.75)


def _font_paths():
    """matplotlib's fonts, for what Typst's own lack."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None:
        return []
    return [Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"]


# ------------------------------------------------------------------------ the whole page
NOT_PROSE = ("code", "pre", "script", "style", "svg")
CAPTION = re.compile(r"^\s*Table:\s*(.*?)\s*(?:\{#([\w-]+)\})?\s*$", re.DOTALL)
MINUS = re.compile(r"(?<![\w.,)\]-])-(?=\d|inf\b|nan\b)|(?<=\de)-(?=\d)")
# what is not torn apart at a line's end
TIES = re.compile(
    r"(?<=\d) (?=(?:%|°|ms|s|min|h|kB|MB|GB|pt|nm)(?!\w))"
    r"|(?<=\w) (?=[−·×±/^=<>≤≥≈] )|(?<= [−·×±/^=<>≤≥≈]) (?=\S)"
    r"|(?<=\b[Ff]igure) (?=\d)|(?<=\b[Tt]able) (?=\d)|(?<=\b[Ss]ection) (?=\d)"
    r"|(?<=\b[Qq]uestion) (?=\d)|(?<=\b[Ee]quation) (?=\(?\d)|(?<=\b[Tt]ask) (?=\d)"
)


def _id(names):
    return {"id": names[0]} if names else {}


def _tag(name, inner):
    return BeautifulSoup(f"<{name}>{inner}</{name}>", "html.parser").find(name)


def _texts(soup):
    """The texts of the prose: not those of code and formulas."""
    for text in soup.find_all(string=True):
        if not any(
            p.name in NOT_PROSE or p.get("class") == ["tex"] for p in text.parents
        ):
            yield text


def _sticky(element):
    """Keep an element on one page with what follows."""
    element.wrap(_tag("div", "")).attrs = {"typst:sticky": "true"}


def _arrange(soup):
    """Captions of Markdown tables, titles of folded parts, what stays with what follows."""
    for paragraph in soup("p"):
        match = CAPTION.match(paragraph.get_text())
        tables = [paragraph.find_previous_sibling(), paragraph.find_next_sibling()]
        tables = [t for t in tables if t and t.name == "table" and not t.caption]
        if match and tables:
            inner = re.sub(
                r"^\s*Table:\s*|\s*\{#[\w-]+\}\s*$", "", paragraph.decode_contents()
            )
            tables[0].insert(0, _tag("caption", inner))
            tables[0].attrs.update(_id([match[2]] if match[2] else []))
            paragraph.decompose()
        elif paragraph.get_text().rstrip().endswith(":"):
            _sticky(paragraph)
    for summary in soup("summary"):
        summary.name = "p"
        _sticky(summary)
    for frame in soup("table", class_="dataframe"):
        for cell in frame(["td", "th"]):
            cell["style"] = "text-align: right"
    for frame in soup("table", border=True):
        del frame["border"]


def _set_type(soup):
    """Typographic details of the prose."""
    for text in list(_texts(soup)):
        new = TIES.sub("\u00a0", text)
        new = re.sub(r"(\S{60})(?=\S)", "\\1\u200b", new)
        if text.find_parent(["td", "th"]):
            new = MINUS.sub("−", new)
            new = re.sub(r"(\w{24})(?=\w)", "\\1\u200b", new)
        if new != text:
            text.replace_with(new)


def _link(soup):
    """Keep the names that are referred to, once each; a link to what is not here is words."""
    wanted = {
        unquote(link["href"][1:]): [] for link in soup("a", href=re.compile("^#."))
    }
    for element in soup(id=True) + soup(attrs={"name": True}):
        name = element.attrs.pop("id", None)
        element.attrs.pop("name", None)
        if name in wanted and not wanted[name]:
            element["id"] = name
            wanted[name].append(element)
    for link in soup("a", href=re.compile("^#")):
        name = unquote(link["href"][1:])
        if not wanted.get(name):
            if name.startswith(("fig-", "tbl-")):
                warnings.warn(
                    f"{link.get_text()} refers to {name}, which is not here",
                    stacklevel=2,
                )
            link.unwrap()
