"""Print notebooks to PDF: pandoc reads the text, Typst sets the page.

No LaTeX, no browser, no network, nothing on disk. Typst gets a virtual folder, in which there
are only its own style and the notebook's pictures; everything a notebook says is text to it.
"""

import base64
import importlib.util
import json
import re
import subprocess
import unicodedata
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
import pypandoc
import typst
from nbconvert.exporters import Exporter
from nbconvert.utils.exceptions import ConversionException
from traitlets import Bool, Int, Unicode

from submission.mathtext import KNOWN, Formulas
from submission.outputs import (
    DATA_URI,
    DRAWING,
    HTML_OBJECT,
    LARGEST,
    NO_PICTURE,
    PICTURE_FILES,
    PROGRESS_BAR,
    PYTHON_OBJECT,
    RASTER,
    UNDRAWN,
    UNSPACED,
    as_dict,
    as_raw,
    as_text,
    breakable,
    coalesced,
    cut,
    decoded,
    is_readable,
    is_short,
    output_markup,
    quoted,
    raster_in_svg,
    with_colours,
    with_first_frame,
    without_scripts,
    without_warnings,
)

HERE = Path(__file__).parent


class PrintError(ConversionException):
    """The notebook cannot be printed; the message says why."""


@dataclass(frozen=True)
class Page:
    """What stands on the pages of a document beside the notebook.

    `heading` is the left of the page header, `name` its right; with a `title` the first page
    opens with it and with `authors`. `hide_code` prints a report: prose, outputs and numbered
    figures. An output of more lines than `longest_output`, about ten pages, is cut. Without a
    `language` ("en", "zh") the letters of the text decide. `pdf_standard` is one that Typst
    knows, such as "ua-1" or "a-2b".
    """

    heading: str
    name: str = ""
    title: str = ""
    authors: tuple = ()
    hide_code: bool = False
    longest_output: int = 600  # lines
    language: str = ""
    pdf_standard: str = ""


@dataclass
class Piece:
    """A stretch of the document: Typst `markup`, and `text` to print if Typst refuses it.

    What pandoc makes of `job` stands between `markup` and `after`. A piece with `keep` stays on
    one page with the next.
    """

    markup: str = ""
    text: str = ""
    job: dict | None = None
    after: str = ""
    keep: bool = False


LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,8})*")


class TypstPDFExporter(Exporter):
    """`jupyter nbconvert --to typst`, and an entry of Jupyter's export menu."""

    file_extension = ".pdf"
    output_mimetype = "application/pdf"
    export_from_notebook = "PDF via Typst"

    exclude_input = Bool(False, help="Leave the code out.").tag(config=True)
    name = Unicode("", help="Your name, for the page header.").tag(config=True)
    longest_output = Int(
        600, help="Lines of an output; of a longer one the middle is left out."
    ).tag(config=True)
    pdf_standard = Unicode(
        "", help="A standard that the PDF meets: ua-1 (accessible), a-2b, a-3b, ..."
    ).tag(config=True)

    def from_notebook_node(self, nb, resources=None, **kw):
        """The PDF (bytes) of the notebook, and the resources."""
        nb, resources = super().from_notebook_node(nb, resources, **kw)
        resources["output_extension"] = self.file_extension
        heading = resources.get("metadata", {}).get("name") or "Notebook"
        metadata = as_dict(nb.get("metadata"))
        language = as_text(metadata.get("lang") or metadata.get("language"))
        page = Page(
            heading,
            name=self.name,
            title=as_text(metadata.get("title")),
            authors=tuple(_authors(metadata)),
            hide_code=self.exclude_input,
            longest_output=self.longest_output,
            language=language if LANGUAGE.fullmatch(language) else "",
            pdf_standard=self.pdf_standard,
        )
        folder = resources.get("metadata", {}).get("path")
        return to_pdf([nb], page, folder), resources


def read_notebook(path):
    """The notebook in the file `path`, of any nbformat, brought to version 4.

    Raises PrintError when the file is not a notebook.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without an id, and the like
            return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise PrintError(f"{path} is missing.") from error
    except Exception as error:  # nbformat raises whatever the damage leads to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PrintError(f"{path} is not a valid notebook: {reason[0]}") from error


def to_pdf(notebooks, page, folder=None):
    """The PDF (bytes) of one or more notebooks, each on a new page; the same bytes each time.

    Pictures that a Markdown cell names are read from `folder` and what is below it.
    Raises PrintError when a notebook is too damaged to be printed.
    """
    document = _Document(page, folder)
    for number, notebook in enumerate(notebooks):
        if number:
            document.pieces.append(Piece("#pagebreak(weak: true)"))
        document.add(notebook)
    return document.compile()


def headings(markdown):
    """(line number, title) of each heading in a Markdown text, code fences left out."""
    fence = ""
    for number, line in enumerate(markdown.split("\n")):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        heading = re.match(r" {0,3}#{1,6}\s+(\S.*)", line)
        if heading and not fence:
            title = heading[1].rstrip()
            closing = title.rstrip("#")  # "## Title ##"
            yield number, closing.rstrip() if closing[-1:].isspace() else title


LONGEST_RUN = 120  # seconds, of pandoc
SHORT_OUTPUT = 10  # lines of output that stay with the picture that follows
LONGEST_HTML = 500_000  # characters of an output; pandoc takes some seconds and 400 MB
LONGEST_TEXT = LONGEST_HTML + 1000  # of any, with the line that says what is left out
# ![words](name), ![words](<name>) or <img src="name">, in a Markdown cell
PICTURE_NAME = re.compile(
    r"!\[[^]\n]{,1000}\]\(\s*(?:<([^>\n]+)>|([^\s()<>]+))"
    r"|<img\b[^>]{,500}?\bsrc=[\"']([^\"'\n]+)"
)
PICTURE_FILE = re.compile(r'"(picture-\d+\.svg)"')  # in Typst markup
FORMULA = re.compile(r"#f\((\d+)\);")  # as pieces.lua has it
ALT = re.compile(r"^#\|\s*fig-alt:\s*(.+)$", re.MULTILINE)
CAPTION = re.compile(r"^#\|\s*fig-cap:\s*(.+)$", re.MULTILINE)
SECTION_NUMBER = re.compile(r"^[\d.]+\s+")
PLOTLY = "application/vnd.plotly.v1+json"
SCRIPTS = {  # language: its letters
    "ja": "[\u3040-\u30ff]",
    "ko": "[\uac00-\ud7a3]",
    "zh": "[\u4e00-\u9fff]",
    "ru": "[\u0400-\u04ff]",
    "el": "[\u0370-\u03ff]",
    "ar": "[\u0600-\u06ff]",
    "he": "[\u0590-\u05ff]",
}


class _Document:
    """Collects what is to be printed, lets pandoc convert it at one go, and Typst set it."""

    def __init__(self, page, folder=None):
        self.page = page
        # "" is the working directory, as nbconvert's command line has it
        self.folder = None if folder is None else Path(folder).resolve()
        self.pieces = []
        self.formulas = Formulas()
        self.files = {"style.typ": (HERE / "style.typ").read_bytes()}
        self.prose = []  # the text of the Markdown cells
        self.heading = page.heading  # the last one seen, for figures without a caption

    # ------------------------------------------------------------------------- cells
    def add(self, notebook):
        """Append the cells of a notebook."""
        language = as_dict(as_dict(notebook.get("metadata")).get("language_info"))
        cells = notebook.get("cells")
        if not isinstance(cells, list):
            raise PrintError("The notebook has no list of cells.")
        self.formulas.macros = dict(KNOWN)
        for cell in map(as_dict, cells):
            kind, source = cell.get("cell_type"), as_text(cell.get("source"))
            tags = as_dict(cell.get("metadata")).get("tags")
            tags = set(map(str, tags)) if isinstance(tags, list) else set()
            if "remove-cell" in tags:
                continue
            if kind == "markdown":
                self.add_markdown(source, as_dict(cell.get("attachments")))
            elif kind == "code":
                self.add_code(cell, source, language.get("name") or "python", tags)
            elif source.strip():
                self.pieces.append(Piece(output_markup(source)))

    def add_markdown(self, source, attachments):
        """Append a Markdown cell with the pictures attached to it."""
        self.prose.append(source)
        for _, title in headings(source):
            self.heading = title
        images = {
            f"attachment:{quote(name)}": self.picture(as_dict(bundle))
            for name, bundle in attachments.items()
        }
        self.pieces.append(self.markdown(source, images))

    def add_code(self, cell, source, language, tags):
        """Append a code cell, its short parts kept together with what follows them."""
        pieces = []
        hidden = self.page.hide_code or tags & {"remove-input", "hide-input"}
        if source.strip() and not hidden:
            code = f"{quoted(breakable(source.rstrip()))}, {quoted(language)}"
            number = cell.get("execution_count")
            label = f", number: {number}" if isinstance(number, int) else ""
            short = is_short(source)
            label += ", breakable: false" if short else ""
            pieces.append(Piece(f"#code({code}{label})", keep=short))
        caption = CAPTION.search(source)
        self.caption = caption[1] if caption else SECTION_NUMBER.sub("", self.heading)
        alt = ALT.search(source)
        self.alt = alt[1] if alt else ""
        outputs = None if "remove-output" in tags else cell.get("outputs")
        for output in coalesced(outputs if isinstance(outputs, list) else []):
            piece = self.output(output)
            if piece:
                pieces.append(piece)
        if pieces:
            pieces[-1].keep = False
        self.pieces += pieces

    # ----------------------------------------------------------------------- outputs
    def output(self, output):
        """The piece that shows one output, or None when there is nothing to read in it."""
        kind = output.get("output_type")
        if kind == "stream":
            text = output["text"]
            if output["name"] == "stderr":
                return self.lines(without_warnings(text), bars=True)
            return self.lines(text, bars="\r" in text.replace("\r\n", "\n"))
        if kind == "error":
            traceback = output.get("traceback")
            lines = traceback if isinstance(traceback, list) else []
            message = f"{output.get('ename')}: {output.get('evalue')}"
            return self.lines("\n".join(map(str, lines)) or message)
        return self.bundle(as_dict(output.get("data")), as_dict(output.get("metadata")))

    def bundle(self, data, metadata):
        """The piece that shows the best representation in a MIME bundle, or None."""
        name = self.picture(data, metadata)
        if name:
            sizes = map(as_dict, metadata.values())
            alts = [size["alt"] for size in sizes if isinstance(size.get("alt"), str)]
            shown = f"{quoted(name)}, alt: {quoted(as_text([*alts, self.alt or self.caption][0]))}"
            if self.page.hide_code:
                # an invisible start, so that "1. " does not make a list of it
                job = self.job("markdown", f"\u200b{self.caption}")
                return Piece(f"#numbered({shown})[", NO_PICTURE, job, "]")
            return Piece(f"#drawing({shown})", NO_PICTURE)
        plain, page = data.get("text/plain"), as_text(data.get("text/html"))
        if "<table" in page.lower():
            return self.rich("html", page, text=as_text(plain))
        for mime in ("text/markdown", "text/latex"):
            if mime in data:
                source = as_text(data[mime])
                if not _is_listing(source):
                    return self.rich("markdown", source)
                return None if self.page.hide_code else self.markdown(source)
        is_poor = plain is None or PYTHON_OBJECT.fullmatch(as_text(plain).strip())
        if is_poor and is_readable(page):
            return self.rich("html", page)
        if PLOTLY in data and is_poor:
            layout = as_dict(as_dict(data[PLOTLY]).get("layout"))
            title = layout.get("title")
            title = title if isinstance(title, str) else as_dict(title).get("text")
            words = "(an interactive figure, of which the notebook has no picture)"
            return self.lines(f"{as_text(title)}\n{words}".strip())
        if page and HTML_OBJECT.fullmatch(as_text(plain).strip()):
            words = "(an interactive output, of which the notebook has no picture)"
            return self.lines(words) if "<script" in page.lower() else None
        if plain is not None:
            return self.lines(plain, bars=True)
        if "application/json" in data:
            return self.lines(
                json.dumps(data["application/json"], indent=1, default=str)
            )
        return None

    def lines(self, value, bars=False):
        """The piece for what a program printed, or None when there is nothing to read in it.

        A progress bar that writes over itself, or is its only line (`bars`), is not printed.
        """
        text = as_raw(value)
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        if bars:
            lines = [line for line in lines if not PROGRESS_BAR.search(line)]
        text = "\n".join(lines).strip("\n")
        if not text.strip():
            return None
        text = cut(text, self.page.longest_output)
        return Piece(output_markup(text), keep=text.count("\n") < SHORT_OUTPUT)

    def rich(self, kind, source, text=None):
        """The piece for an output in Markdown or HTML; `text` is printed if Typst refuses it."""
        longest = self.page.longest_output
        if kind == "markdown":
            source = cut(source, longest)
        else:
            source = without_scripts(with_first_frame(with_colours(source)))
            if len(source) > LONGEST_HTML:
                end = source.rfind("<", 0, LONGEST_HTML)
                left_out = (len(source) - end) // 1000
                source = (
                    f"{source[:end]}<p>[{left_out:,} kB of HTML are left out here]</p>"
                )
        piece = self.markdown(source, kind=kind)
        if piece.job:
            piece.markup, piece.after = "#rich[", "]"
            piece.text = source if text is None else text
            piece.job["longest"] = longest
        return piece

    def markdown(self, source, images=None, kind="markdown"):
        """The piece for a text in Markdown or HTML; pictures in it are taken out first."""
        images = dict(images or {})

        def replace(match):
            kind, content = match.groups()
            if kind == "image/svg+xml":
                content = decoded(content).decode(errors="replace")
            name = f"attachment:data-{len(self.files)}"
            images[name] = self.picture({kind: content})
            return name

        source = DATA_URI.sub(replace, source)
        if kind == "html":
            source = self.drawings(source, images)
        for match in PICTURE_NAME.finditer(source):
            images.update(self.local_picture(match[1] or match[2] or match[3]))
        images = {name: file for name, file in images.items() if file}
        if kind == "markdown":
            source = _without_notes_in_notes(source)
        reason = "it is too long" if len(source) > LONGEST_TEXT else _is_deep(source)
        if reason:
            warnings.warn(
                f"printed as plain text, because {reason}: {source[:60]}", stacklevel=4
            )
            return Piece(output_markup(source))
        return Piece(text=source, job=self.job(kind, source, images))

    def drawings(self, source, images):
        """The HTML with pictures in the place of its drawings, which go to `images`."""
        parts, position = [], 0
        while match := DRAWING.search(source, position):
            end = source.find("</svg>", match.start())
            if end < 0:
                break
            name = f"attachment:data-{len(self.files)}"
            # HTML needs no blank between attributes
            svg = UNSPACED.sub(r"\1 ", source[match.start() : end + 6])
            if "xmlns=" not in match[0]:
                svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
            images[name] = self.picture({"image/svg+xml": svg})
            parts += [source[position : match.start()], f'<img src="{name}">']
            position = end + 6
        return "".join([*parts, source[position:]])

    def job(self, kind, text, images=None):
        """What pieces.lua is to convert, the formulas taken out."""
        text = self.formulas.take_out(text, html=kind == "html")
        return {"format": kind, "text": text, "images": images or {}}

    def local_picture(self, source):
        """{source: virtual file} if it is a picture below the notebook's folder, else {}."""
        mime = PICTURE_FILES.get(Path(unquote(source)).suffix.lower())
        if self.folder is None or mime is None or ":" in source:
            return {}
        try:
            path = (self.folder / unquote(source)).resolve()
            if not path.is_relative_to(self.folder) or not path.is_file():
                return {}
            content = path.read_bytes() if path.stat().st_size < LARGEST else b""
        except (OSError, ValueError, RuntimeError):
            return {}
        if mime == "image/svg+xml":
            file = self.picture({mime: content.decode(errors="replace")})
        else:
            file = self.picture({mime: base64.b64encode(content).decode()})
        return {source: file, quote(unquote(source)): file}

    def picture(self, data, metadata=None):
        """The name of the virtual file with the picture of a MIME bundle, or None.

        Typst's virtual files are text, so a raster picture travels inside an SVG.
        """
        svg = as_text(data.get("image/svg+xml")).strip().encode()
        raster = next((mime for mime in RASTER if mime in data), None)
        if raster and not svg:
            metadata = as_dict(metadata)  # R writes a size for all kinds at once
            size = as_dict(metadata.get(raster)) or metadata
            svg = raster_in_svg(as_text(data[raster]), size)
        if not svg:
            return None
        name = f"picture-{len(self.files)}.svg"
        self.files[name] = svg
        return name

    # ----------------------------------------------------------------------- the end
    def compile(self):
        """The PDF as bytes. A piece that Typst refuses is printed as plain text."""
        self.run_pandoc()
        standards = [self.page.pdf_standard] if self.page.pdf_standard else []
        try:
            return self.warned(self.typst(self.pieces, standards))
        except typst.TypstError:
            self.replace_pictures()
            for piece, error in self.refused(self.pieces):
                start = as_text(piece.text).strip().partition("\n")[0]
                warnings.warn(
                    f"printed as plain text, because Typst says {error}: {start}",
                    stacklevel=3,
                )
                piece.markup, piece.after = output_markup(piece.text), ""
        try:
            return self.warned(self.typst(self.pieces, standards))
        except typst.TypstError as error:
            raise PrintError(f"Typst cannot set the notebook: {error}") from error

    def replace_pictures(self):
        """Put words in the place of each picture that Typst does not draw."""
        for name in self.files:
            if not name.endswith(".svg"):
                continue
            try:
                self.typst([Piece(f"#image({quoted(name)})")])
            except typst.TypstError as error:
                warnings.warn(f"a picture cannot be drawn: {error}", stacklevel=4)
                self.files[name] = UNDRAWN

    def refused(self, pieces):
        """(piece, error) for each of the pieces that Typst refuses, found by halving."""
        try:
            self.typst(pieces)
        except typst.TypstError as error:
            if len(pieces) == 1:
                yield pieces[0], error
            else:
                middle = len(pieces) // 2
                yield from self.refused(pieces[:middle])
                yield from self.refused(pieces[middle:])

    @staticmethod
    def warned(pdf):
        """The PDF, with a warning that names a character which no font has."""
        if b"LastResort" in pdf:
            character = _without_font(pdf)
            named = f"{character} ({unicodedata.name(character[:1] or ' ', 'no name')})"
            warnings.warn(
                f"No font has {named if character else 'a character'}: a box with the name of "
                "its script is printed. Fonts to install: pip install -e .[fonts], or Noto.",
                stacklevel=4,
            )
        return pdf

    @cached_property
    def language(self):
        """The language of the page, or the one whose letters are a tenth of the prose."""
        prose = "".join(self.prose)
        letters = sum(map(str.isalpha, prose)) if not prose.isascii() else 0
        for language, script in SCRIPTS.items():
            if letters and len(re.findall(script, prose)) > letters / 10:
                return self.page.language or language
        return self.page.language or "en"

    def run_pandoc(self):
        """Convert all jobs in one process, and put the results into their pieces."""
        pieces = [piece for piece in self.pieces if piece.job]
        jobs = {
            "pieces": [piece.job for piece in pieces],
            "formulas": self.formulas.jobs(),
            "levels": self.page.pdf_standard.startswith("ua"),
        }
        try:
            run = subprocess.run(
                [pypandoc.get_pandoc_path(), "lua", HERE / "pieces.lua"],
                input=json.dumps(jobs).encode(),
                capture_output=True,
                check=False,
                timeout=LONGEST_RUN,
            )
        except subprocess.TimeoutExpired as error:
            raise PrintError(
                f"pandoc did not read the notebook within {LONGEST_RUN} s."
            ) from error
        except OSError as error:
            raise PrintError(f"pandoc cannot be started: {error}") from error
        messages = run.stderr.decode(errors="replace").strip()
        if run.returncode:
            raise PrintError(f"pandoc cannot read the notebook: {messages}")
        results = json.loads(run.stdout)
        for formula in self.formulas.set_markup(results["formulas"]):
            warnings.warn(f"printed as TeX, not as a formula: {formula}", stacklevel=2)
        for piece, markup in zip(pieces, results["pieces"]):
            markup = FORMULA.sub(lambda m: self.formulas.markup(int(m[1])), markup)
            piece.markup += markup + piece.after

    def typst(self, pieces, standards=()):
        """The PDF of some of the pieces."""
        page = self.page
        authors = "".join(f"{quoted(author)}, " for author in page.authors)
        main = [
            '#import "style.typ": *',
            f"#show: document-page.with({quoted(page.heading)}, {quoted(page.name)},",
            f"  title: {quoted(page.title)}, authors: ({authors}),",
            f"  language: {quoted(self.language)})",
        ]
        main += [f"#keep[{p.markup}\n]" if p.keep else p.markup for p in pieces]
        text = "\n".join(main)
        names = {"style.typ", *PICTURE_FILE.findall(text)} & set(self.files)
        files = {
            "main.typ": text.encode(),
            **{name: self.files[name] for name in names},
        }
        try:
            return typst.compile(
                files, root=HERE, font_paths=_fonts(), pdf_standards=list(standards)
            )
        except ValueError as error:
            raise PrintError(f"Typst cannot set the notebook: {error}") from error
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # of Rust, no Exception
                raise typst.TypstError(f"it fails ({error})") from error
            raise


# ------------------------------------------------------------------------------- fonts
FONT_FOLDERS = {  # package: where its fonts are
    "matplotlib": "mpl-data/fonts/ttf",
    "manimgx_fonts": "",
    "paperang_p2_fonts_cjk": "fonts",
}


@cache
def _fonts():
    """Typst's own fonts, matplotlib's, the system's and those of the extra `fonts`."""
    folders = []
    for package, folder in FONT_FOLDERS.items():
        spec = importlib.util.find_spec(package)
        if spec:
            folders.append(Path(spec.submodule_search_locations[0]) / folder)
    return typst.Fonts(include_system_fonts=True, font_paths=folders)


def _without_font(pdf):
    """The first character that only the font of last resort has, or ""."""
    font = re.search(rb"/BaseFont /\w+\+LastResort[^>]*/ToUnicode (\d+) 0 R", pdf)
    start = pdf.find(b"\n%s 0 obj" % font[1]) if font else -1
    codes = pdf[start:].partition(b"stream")[2].partition(b"endstream")[0]
    with suppress(zlib.error):  # a short one is not compressed
        codes = zlib.decompress(codes.strip(b"\r\n"))
    letters = re.findall(rb"<\w+> <((?:\w{4})+)>", codes) if font else []
    return bytes.fromhex(letters[-1].decode()).decode("utf-16-be") if letters else ""


def _authors(metadata):
    """The names of the authors in a notebook's metadata: [{"name": ...}] or ["..."]."""
    authors = metadata.get("authors")
    for author in authors if isinstance(authors, list) else [authors]:
        name = as_text(author.get("name") if isinstance(author, dict) else author)
        if name.strip():
            yield name


# ------------------------------------------------- what pandoc or Typst could fail at
DEEPEST = 200  # brackets, quotations or tags in each other; people get to a dozen
MOST_BRACKETS = 4000  # in a paragraph; pandoc's time grows with their square
NESTING = re.compile(
    r"(?m)(?P<marks>^(?:[ \t]*(?:>|(?:[-*+]|\d+[.)])[ \t]))+)|(?P<blank>^[ \t]*$)"
    r"|(?P<bracket>[\[\]])|<(?P<close>/?)(?P<tag>[a-z]+[1-6]?)\b(?![^<>]*/>)",
    re.IGNORECASE,
)
NESTING_TAGS = re.compile(  # those that people close
    "[abisu]|em|strong|small|sub|sup|font|span|code|div|center|details|section"
    "|[uod]l|blockquote|table|h[1-6]",
    re.IGNORECASE,
)


def _without_notes_in_notes(markdown):
    """The text without references in footnotes, in which pandoc would go round for ever."""
    lines, in_note = [], False
    for line in markdown.split("\n"):
        start = re.match(r" {0,3}\[\^[^]\n]+\]:", line)
        if start:
            in_note = True
        elif (
            line.strip() and in_note and not lines[-1].strip() and line[0] not in " \t"
        ):
            in_note = False  # a paragraph of its own
        if in_note:
            end = start.end() if start else 0
            line = line[:end] + line[end:].replace("[^", "[\\^")
        lines.append(line)
    return "\n".join(lines)


def _is_deep(text):
    """Why a text is too deep for Typst or has too many brackets for pandoc, or ""."""
    tags = brackets = deepest = in_paragraph = most = 0
    for mark in NESTING.finditer(text):
        if mark["blank"] is not None:  # no link goes on in the next paragraph
            brackets = in_paragraph = 0
        elif mark["bracket"]:
            brackets = max(0, brackets + (1 if mark[0] == "[" else -1))
            in_paragraph += 1
        elif mark["tag"] and NESTING_TAGS.fullmatch(mark["tag"]):
            tags = max(0, tags + (-1 if mark["close"] else 1))
        marks = len(re.findall(r">|[-*+]|\d+", mark["marks"] or ""))
        deepest = max(deepest, tags, brackets, marks)
        most = max(most, in_paragraph)
    if deepest > DEEPEST:
        return "it is nested too deep"
    return "a paragraph has too many brackets" if most > MOST_BRACKETS else ""


def _is_listing(markdown):
    """Whether a Markdown output is code alone, as helpers.show_source makes it."""
    text = markdown.strip()
    if text.startswith("<details>"):
        text = text.partition("</summary>")[2].removesuffix("</details>").strip()
    return text.startswith("```") and text.endswith("```")
