"""Print notebooks to PDF: what Jupyter shows (HTML), read by pandoc, set by Typst.

No LaTeX, no browser, no network. nbconvert renders the Markdown and prepares the outputs;
page.typ says how a page looks.
"""

import base64
import html
import importlib.util
import io
import json
import re
import subprocess
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree

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

from submission.notebooks import used_sample

TEMPLATE = Path(__file__).with_name("page.typ")
TRIAL = "Trial run on a sample of the data"
TRIAL_NOTE = (
    "This is a trial run on a sample of the data; the text describes the full run."
)
PREPROCESSORS = (
    TagRemovePreprocessor(
        remove_cell_tags={"remove-cell"},
        remove_input_tags={"remove-input", "hide-input"},
    ),
    CoalesceStreamsPreprocessor(),
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
        no_input = self.config.TemplateExporter.get("exclude_input") is True
        page = Page(
            about.get("name") or "Notebook",
            name=self.name,
            hide_code=self.exclude_input or no_input,
            trial=used_sample(nb),
        )
        return to_pdf([nb], page, about.get("path")), resources


def to_pdf(notebooks, page, folder=None):
    """The PDF (bytes) of one or more notebooks, each on a new page; the same bytes each time.

    Pictures that Markdown cells name are read relative to `folder`. What cannot be shown
    leaves words on the page and a warning. Raises PrintError when a page cannot be set.
    """
    printout = _Printout(page, Path(folder or "."))
    for notebook in notebooks:
        printout.add(notebook)
    return printout.pdf()


# ------------------------------------------------------------------- Markdown, formulas
# page.typ defines what pandoc's Typst has not: \tfrac, bars without space, indices that
# are not torn at a line's end
ARGUMENT = r"\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\\w+|\w)"
TFRAC = re.compile(r"\\tfrac" + 2 * ARGUMENT)
BAR = re.compile(r"(\\(?:left|right|middle|[bB]igg?[lrm]?)?\s*)?\|")
NORM = re.compile(r"(?<!\\)(?<!\\left)\\\|(.+?)(?<!\\right)\\\|")
INDEX = re.compile(r"(?<![\\{])\[([^][{}&\\]*[-+][^][{}&\\]*)\]")  # y[t-1] is not torn
TIE = r"\\operatorname{tie}\\left(\\left[\1\\right]\\right)"
TAG = re.compile(r"\\tag\*?\{(.*?)\}|\\q?quad\s*\((\d+[a-z]?)\)$")
LABEL = re.compile(r"\\label\{(.*?)\}")
REFERENCE = re.compile(r"\\(eq)?ref\{(.*?)\}")
TYPST_CODE = re.compile(r"(?ms)(^ *(`{3,}).*?^ *\2$)")
TYPST_FIXES = {
    r'"(tfrac|tie)" \(': r"\1(",
    " semi.rev ": ", ",
    '"vbar"': "vbar",
    "∥(.+?)∥": r"norm(\1)",
    r'("\w+"\)?) (?=\\?\()': r"\1",
    r"#box\(stroke: black, inset: 3pt, ": "#boxed(",
}


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with code and formulas in the form that pandoc reads."""

    def __init__(self):
        super().__init__(escape=False, exclude_anchor_links=True)
        self.numbers = {}  # label of a formula: its number

    def block_code(self, code, info=None):
        return _pre(code, re.sub(r"\W.*", "", info or "") or "text")

    def inline_math(self, body):
        return self.formula(r"\({}\)", INDEX.sub(TIE, body))

    def block_math(self, body):
        tag, label = TAG.search(body.strip()), LABEL.search(body)
        body = LABEL.sub("", body)
        if tag:
            number = tag[1] or tag[2]
            self.numbers |= {label[1]: number} if label else {}
            body = rf"\text{{⟨tag:{number}⟩}}{body.replace(tag[0], '')}"
        return self.formula(r"\[{}\]", body)

    def latex_environment(self, name, body):
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def formula(self, form, body):
        body = re.sub(r"&(lt|gt|amp);", lambda m: html.unescape(m[0]), body.strip())
        body = NORM.sub(r"\\lVert \1\\rVert ", body)
        if r"\begin{array}" not in body:  # whose columns can have rules
            body = BAR.sub(lambda m: m[0] if m[1] else r"\operatorname{vbar}", body)
        for _ in range(body.count(r"\tfrac")):
            body = TFRAC.sub(r"\\operatorname{tfrac}\\left(\1⁏\2\\right)", body)
        return (
            f'<span class="tex">{html.escape(form.format(body))}</span>' if body else ""
        )

    def _embed_image_or_attachment(self, src):
        return src


def _pre(text, kind):
    """Text in a fixed-width font; words longer than a line may break."""
    text = re.sub(r"(\S{90})(?=\S)", "\\1\u200b", text.rstrip())
    return f'<pre class="{kind}"><code>{html.escape(text)}\n</code></pre>'


def _words(reason):
    """What stands in the place of what cannot be shown; also a warning."""
    warnings.warn(f"not printed: {reason}", stacklevel=2)
    return f"[{reason}]"


def _tag(name, inner="", **attributes):
    tag = BeautifulSoup(f"<{name}>{inner}</{name}>", "html.parser").find(name)
    tag.attrs = attributes
    return tag


# ------------------------------------------------------------------------- the notebook
OPTION = re.compile(r"^#\| ?([\w-]+): *(.*(?:\n#\| {2,}.*)*)", re.MULTILINE)
PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")
SHOWN = (*PICTURES, "text/html", "text/markdown", "text/latex", "text/plain")
REPR = re.compile(r"<.*>|[\w.]+\(.*\)|", re.DOTALL)  # of an object, not for readers
PROGRESS = re.compile(r"^.*\d%\|.*\|.*\[.*\]\n?", re.MULTILINE)  # tqdm's last line
NEEDS_BROWSER = ("audio", "video", "iframe", "canvas", "object", "embed")
DAMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
SHORT = 10  # lines of an output that stay with their code


class _Printout:
    """The HTML of the cells in `parts`, and their pictures (bytes) in `files`."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        self.parts, self.files = [], {}
        self.renderer = _Renderer()

    def add(self, notebook):
        """Append a notebook, on a new page."""
        notebook = deepcopy(notebook)
        for preprocessor in PREPROCESSORS:
            notebook, _ = preprocessor.preprocess(notebook, {})
        language = notebook.metadata.get("language_info", {}).get("name", "python")
        if self.parts:
            self.parts.append(_pre("", "pagebreak"))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                source = cell.source
                for name, bundle in cell.get("attachments", {}).items():
                    kept = self.keep(base64.b64decode(next(iter(bundle.values()))))
                    for written in (name, quote(name)):
                        source = source.replace(f"attachment:{written}", kept)
                self.parts.append(self.markdown(source))
            elif cell.cell_type == "code":
                self.parts.append(self.code_cell(cell, re.sub(r"\W", "", language)))
            elif cell.source.strip():
                self.parts.append(_pre(cell.source, "output"))

    def keep(self, content):
        """The name of the file that `content`, of a picture, is kept in."""
        name = f"kept-{len(self.files)}"
        self.files[name] = content
        return name

    def markdown(self, source):
        return self.without_drawings(
            MarkdownWithMath(renderer=self.renderer).render(source)
        )

    def without_drawings(self, source):
        """The HTML with an <img> for each <svg>, whose spelling HTML parsers change."""

        def replace(match):
            svg = match[0].replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
            svg = match[0] if "xmlns=" in match[0] else svg
            return f'<img src="{self.keep(svg.encode())}">'

        return re.sub(r"(?s)<svg\b.*?</svg>", replace, source)

    def code_cell(self, cell, language):
        """The HTML of the code, if it is to be printed, and of the outputs."""
        options = [
            (k, re.sub(r"\n#\| +", " ", v)) for k, v in OPTION.findall(cell.source)
        ]
        code = re.sub(r"\A(#\|.*\n?)+", "", cell.source).strip("\n")
        is_quiet = "remove-output" in cell.metadata.get("tags", [])
        outputs = [] if is_quiet else [t for t in map(self.output, cell.outputs) if t]
        shown = ""
        removed = cell.metadata.get("transient", {}).get("remove_source")
        if code.strip() and not self.page.hide_code and not removed:
            shown = _pre(code, f"in-{cell.execution_count or ''}-{language}")
            first = outputs[0] if outputs else ""
            if first.startswith("<pre") and first.count("\n") <= SHORT:
                shown = f'<div typst:sticky="true" typst:above="0.9em">{shown}</div>'
        soup = BeautifulSoup("".join(outputs), "html.parser")
        self.caption(soup, options)
        return f"{shown}{soup}"

    def caption(self, soup, options):
        """Give the first picture and the first table of a cell their captions and names."""
        labels = [value for key, value in options if key == "label"]
        alt = dict(options).get("fig-alt", "").strip("\"' ")
        for key, value in options:
            if key not in ("fig-cap", "tbl-cap"):
                continue
            kind = key.removesuffix("-cap")
            found = soup.find("img" if kind == "fig" else "table")
            if found is None:
                warnings.warn(f"no output for the caption: {value}", stacklevel=2)
                continue
            names = [label for label in labels if label.startswith(kind)]
            name = {"id": names[0]} if names else {}
            text = self.markdown(value.strip("\"' ")).strip()[len("<p>") : -len("</p>")]
            if kind == "tbl":
                found.attrs.update(name)
                found.insert(0, _tag("caption", text))
            else:
                found["alt"] = found.get("alt") or alt
                figure = found.wrap(_tag("figure", **name))
                figure.append(_tag("figcaption", text))
                if figure.parent.name == "p":
                    figure.parent.unwrap()

    # ----------------------------------------------------------------------- outputs
    def output(self, output):
        """The HTML of one output."""
        if output.output_type == "stream":
            return self.lines(output.text)
        if output.output_type == "error":
            message = f"{output.ename}: {output.evalue}"
            return self.lines("\n".join(output.traceback) or message)
        data, plain = output.data, str(output.data.get("text/plain", "")).strip()
        kind = next((kind for kind in SHOWN if kind in data), None)
        if kind in PICTURES:
            return self.picture(data[kind], kind, output.metadata.get(kind))
        if kind == "text/html":
            soup = BeautifulSoup(self.without_drawings(data[kind]), "html.parser")
            for element in soup(["script", "style"]):
                element.decompose()
            if soup.get_text().strip() or soup(["img", *NEEDS_BROWSER]):
                return f"<div>{soup}</div>"
        elif kind in ("text/markdown", "text/latex"):
            is_listing = data[kind].startswith("<details>")
            return (
                "" if self.page.hide_code and is_listing else self.markdown(data[kind])
            )
        if set(data) == {"text/plain"} or not REPR.fullmatch(plain):
            return self.lines(plain)
        return f"<p>{_words('an output that only Jupyter can show')}</p>"

    def lines(self, text):
        text = PROGRESS.sub("", strip_ansi(text)).strip("\n")
        return _pre(text, "output") if text.strip() else ""

    def picture(self, content, kind, size):
        """The HTML of a picture, whose size (of a screen with fine dots) can be given."""
        is_text = kind == "image/svg+xml"
        name = self.keep(content.encode() if is_text else base64.b64decode(content))
        size = size if isinstance(size, dict) else {}
        width = f' width="{size["width"] * 0.75:.2f}pt"' if size.get("width") else ""
        return (
            f'<p><img src="{name}" alt="{html.escape(size.get("alt", ""))}"{width}></p>'
        )

    # ------------------------------------------------------------------- the whole page
    def pdf(self):
        """The PDF as bytes."""
        soup = BeautifulSoup("\n".join(self.parts), "html.parser")
        for element in soup(["script", "style"]):
            element.decompose()
        for element in soup(NEEDS_BROWSER):
            words = f"{element.name}: only a browser can show it"
            element.replace_with(_words(words))
        if self.page.trial:
            note = _tag("p", f"<strong>{TRIAL_NOTE}</strong>")
            title = None if self.page.title else soup.find("h1")
            title.insert_after(note) if title else soup.insert(0, note)
        pictures = self.place_pictures(soup)
        _arrange(soup)
        _set_type(soup, self.renderer.numbers)
        _link(soup)
        return _set(_as_typst(str(soup)), pictures, self.page)

    def place_pictures(self, soup):
        """{file name: (content, words)} of the pictures; words where one is not shown."""
        pictures = {}
        for image in soup("img"):
            try:
                content = self.read_picture(image.get("src", ""))
                ending, width = _measure(content)
            except DAMAGE as error:
                about = image.get("alt") or image.get("src", "")[:60]
                reason = "not found" if isinstance(error, FileNotFoundError) else error
                image.replace_with(_words(f"picture “{about}”: {reason}"))
                continue
            image["src"] = f"picture-{len(pictures)}.{ending}"
            pictures[image["src"]] = content, image.get("alt", "")
            for side in ("width", "height"):
                size = rf"(?<![-\w]){side}: *([\d.]+(px|%|pt|em))"
                if style := re.search(size, image.get("style", "")):
                    image[side] = style[1]
            if width and not image.get("width") and not image.get("height"):
                image["width"] = f"{width:.2f}pt"
        return pictures

    def read_picture(self, source):
        """The bytes of a picture; raises OSError or ValueError when there is none."""
        if source in self.files:
            return self.files[source]
        if source.startswith("data:"):
            kind, _, content = source.partition(",")
            content = unquote(content).encode()
            return base64.b64decode(content) if "base64" in kind else content
        if re.match(r"\w{2,}:|//", source):
            raise ValueError("not a file beside the notebook")
        return (self.folder / unquote(source.split("?")[0])).read_bytes()


def _measure(content):
    """The ending and the width in points (0: its own) of a picture; raises if damaged."""
    if content.lstrip()[:4] in (b"<svg", b"<?xm", b"<!--", b"<!DO"):
        ElementTree.fromstring(content)
        return "svg", 0
    with Image.open(
        io.BytesIO(content), formats=["PNG", "JPEG", "GIF", "WEBP"]
    ) as image:
        image.load()
        dots = float(image.info.get("dpi", (96, 96))[0])
        return image.format.lower(), image.width * (72 / dots if dots > 10 else 0.75)


# ----------------------------------------------------------------------- the whole page
CAPTION = re.compile(r"\s*Table:\s+(.*?)\s*(?:\{#([\w-]+)\})?\s*", re.DOTALL)
MINUS = re.compile(r"(?<![\w.,)\]-])-(?=\d|\.\d|inf\b|nan\b)|(?<=\de)-(?=\d)")
# what is not torn apart at a line's end: 3 %, y[t − 1], 8 · 10⁻³, Table 3, equation (3)
TIES = re.compile(
    r"(?<=\d) (?=(?:%|°|ms|s|min|h|kB|MB|GB|pt|nm)(?!\w))"
    r"|(?<=\w) (?=[−·×±/^=<>≤≥≈] )|(?<= [−·×±/^=<>≤≥≈]) (?=\S)"
    r"|(?:(?<=[Ff]igure)|(?<=[Tt]able)|(?<=[Ss]ection)|(?<=[Ii]tem)|(?<=[Tt]ask)"
    r"|(?<=[Qq]uestion)|(?<=[Ee]quation)|(?<=[Pp]roblem)) (?=\(?\d)"
)


def _arrange(soup):
    """Captions of Markdown tables, titles of folded parts, what stays with what follows."""
    sticky = soup("summary")
    for paragraph in soup("p"):
        match = CAPTION.fullmatch(paragraph.get_text())
        beside = [paragraph.find_previous_sibling(), paragraph.find_next_sibling()]
        tables = [e for e in beside if e and e.name == "table" and not e.caption]
        if match and tables:
            inner = re.sub(
                r"^\s*Table:\s+|\s*\{#[\w-]+\}\s*$", "", paragraph.decode_contents()
            )
            tables[0].insert(0, _tag("caption", inner))
            tables[0].attrs.update({"id": match[2]} if match[2] else {})
            paragraph.decompose()
        elif paragraph.get_text().rstrip().endswith(":"):
            sticky.append(paragraph)
    for element in sticky:
        element.name = "p"
        element.wrap(_tag("div", **{"typst:sticky": "true"}))
    for cell in soup.select("table.dataframe :is(td, th)"):
        cell["style"] = "text-align: right"


def _set_type(soup, numbers):
    """Numbers of formulas, ties between words, minus signs, breaks in long words."""

    def number(match):
        shown = numbers.get(match[2], match[2])
        return f"({shown})" if match[1] else shown

    for text in soup.find_all(string=True):
        names = {parent.name for parent in text.parents}
        if names & {"code", "pre"}:
            continue
        new = REFERENCE.sub(number, text)
        if not re.search(r"\\[(\[]|\$", new):
            new = re.sub(r"(\S{60})(?=\S)", "\\1\u200b", TIES.sub("\u00a0", new))
        if "table" in names:
            row = text.find_parent("tr")
            most = 10 if row and len(row(["td", "th"])) > 6 else 24
            new = re.sub(rf"(\w{{{most}}})(?=\w\w\w)", "\\1\u200b", MINUS.sub("−", new))
        if new != text:
            text.replace_with(new)


def _link(soup):
    """Keep the names that links refer to, once each; a link to nowhere becomes words."""
    links = soup("a", href=re.compile("^#"))
    wanted, found = {link["href"][1:] for link in links}, set()
    for element in soup(True):
        name = element.attrs.pop("id", None) or element.attrs.pop("name", None)
        if name in wanted - found:
            element["id"] = name
            found.add(name)
    for link in links:
        name = link["href"][1:]
        if name not in found:
            if name.startswith(("fig-", "tbl-")):
                words = link.get_text().replace("\u00a0", " ")
                warnings.warn(f"{words}: no {name} in this document", stacklevel=3)
            link.unwrap()


def _as_typst(body):
    """The HTML as Typst."""
    reader = "html+tex_math_dollars+tex_math_single_backslash-auto_identifiers"
    run = subprocess.run(
        [pypandoc.get_pandoc_path(), "-f", reader, "-t", "typst", "--wrap=none"],
        input=body.encode(),
        capture_output=True,
        check=False,
    )
    messages = run.stderr.decode(errors="replace")
    if run.returncode:
        raise PrintError(f"pandoc cannot read the notebook: {messages.strip()}")
    for formula in re.findall(r"Could not convert TeX math (.*), rendering", messages):
        formula = formula.replace(r"\operatorname{vbar}", "|")
        warnings.warn(f"printed as TeX, not as a formula: {formula}", stacklevel=3)
    parts = TYPST_CODE.split(run.stdout.decode())  # text, code, its fence, text, …
    for place in range(0, len(parts), 3):
        for pattern, new in TYPST_FIXES.items():
            parts[place] = re.sub(pattern, new, parts[place])
    return "".join(part for place, part in enumerate(parts) if place % 3 < 2)


def _set(body, pictures, page):
    """The PDF (bytes) that Typst makes."""
    inputs = {
        "heading": page.heading,
        "name": page.name,
        "title": page.title,
        "authors": ", ".join(page.authors),
        "trial": TRIAL if page.trial else "",
    }
    # matplotlib has letters that Typst's own fonts lack
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent
    with tempfile.TemporaryDirectory() as folder:
        main = Path(folder, "main.typ")
        main.with_name(TEMPLATE.name).write_bytes(TEMPLATE.read_bytes())
        for name, (content, words) in pictures.items():
            main.with_name(name).write_bytes(content)
            alt = json.dumps(words or "picture", ensure_ascii=False)
            body = body.replace(f'image("{name}"', f'image("{name}", alt: {alt}')
        main.write_text(f'#import "page.typ": *\n#show: document\n{body}', "utf-8")
        try:
            pdf = typst.compile(
                main,
                font_paths=[matplotlib / "mpl-data/fonts/ttf"],
                sys_inputs=inputs,
            )
        except typst.TypstError as error:
            raise PrintError(f"Typst cannot set the notebook: {error}") from error
    if b"LastResort" in pdf:
        warnings.warn(
            "some characters are in no font and printed as boxes: install a font for "
            "their script, for example from Noto (https://fonts.google.com/noto)",
            stacklevel=3,
        )
    return pdf
