"""Print notebooks to PDF: pandoc reads the text, Typst sets the page.

No LaTeX, no browser, no network, nothing on disk. Typst gets a virtual folder, in which there
are only its own style and the notebook's pictures; everything a notebook says is text to it.
"""

import base64
import html
import importlib.util
import json
import re
import struct
import subprocess
import unicodedata
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
import pypandoc
import typst
from nbconvert.exporters import Exporter
from nbconvert.filters.ansi import ansi2html, strip_ansi
from nbconvert.utils.exceptions import ConversionException
from PIL import Image
from traitlets import Bool, Int, Unicode

from submission.mathtext import KNOWN, Formulas

HERE = Path(__file__).parent
FONT_FOLDERS = {  # package: where its fonts are
    "matplotlib": "mpl-data/fonts/ttf",
    "manimgx_fonts": "",
    "paperang_p2_fonts_cjk": "fonts",
}
RASTER = ("image/png", "image/jpeg", "image/gif", "image/webp")
DAMAGE = (OSError, ValueError, SyntaxError, ArithmeticError, TypeError, LookupError)
DAMAGE += (struct.error, EOFError, Image.DecompressionBombError)  # says Pillow
# ![words](name), ![words](<name>) or <img src="name">, in a Markdown cell
PICTURE_NAME = re.compile(
    r"!\[[^]\n]{,1000}\]\(\s*(?:<([^>\n]+)>|([^\s()<>]+))"
    r"|<img\b[^>]{,500}?\bsrc=[\"']([^\"'\n]+)"
)
PICTURE_FILES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
LONGEST_RUN = 120  # seconds, of pandoc
LARGEST = 30_000_000  # bytes of a picture
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
NO_PICTURE = "(a picture that cannot be drawn)"
UNDRAWN = (  # what is drawn in its place
    '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="20"><text y="14" '
    f'font-family="DejaVu Sans" font-size="11">{NO_PICTURE}</text></svg>'
).encode()
PICTURE_FILE = re.compile(r'"(picture-\d+\.svg)"')  # in Typst markup
COLUMNS = 90  # characters on a printed line, at least
SHORT = 24  # lines of code or of output that stay on one page
SHORT_OUTPUT = 10  # lines of output that stay with the picture that follows
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
PROGRESS_BAR = re.compile(
    r"(?<!\d)\d++(%\|.*\|.*\[[^]]*\]|(it|ex|batch)?\s\[\d+:\d+.*/s[^]]*\])"
)
ALT = re.compile(r"^#\|\s*fig-alt:\s*(.+)$", re.MULTILINE)
CAPTION = re.compile(r"^#\|\s*fig-cap:\s*(.+)$", re.MULTILINE)
SECTION_NUMBER = re.compile(r"^[\d.]+\s+")
PLOTLY = "application/vnd.plotly.v1+json"
PYTHON_OBJECT = re.compile(
    r"<[^<>\n]*>"
)  # what repr makes of an object without its own
WARNING = re.compile(
    r"^\S.*:\d+: \w*Warning\b"
)  # its message, a line of code with 2 blanks
HTML_OBJECT = re.compile(r"<IPython\.core\.display\.\w+( object)?>")
REPORT = re.compile(r"[=-]{10,}|[.FEsxu]+$|Ran \d+|[A-Z]+:|\d{4}-\d\d-\d\d")
DATA_URI = re.compile(
    r"data:(image/[a-z+]+);base64,([\w+/=%\s]+?)(?=[)\"'>\s])", re.ASCII
)
FORMULA = re.compile(r"#f\((\d+)\);")  # as pieces.lua has it
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
LONGEST_HTML = 500_000  # characters of a text; pandoc takes some seconds and 400 MB
STYLER_RULE = re.compile(r"(#T_[\w#,\s]{,100000})\{([^{}]*)\}")
STYLER_COLOUR = re.compile(
    r"(?m)(?:^|(?<=[;\s]))(background-color|color):\s*(#[0-9a-fA-F]{6})\b"
)
STYLER_CELL = re.compile(r'(<td\b[^<>]*\bid="(\w+)"[^<>]*>)([^<>]*)</td>')
UNSPACED = re.compile(r"""(=\s*(?:"[^"<>]*"|'[^'<>]*'))(?=[A-Za-z])""")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,8})*")
SCRIPTS = {  # language: its letters
    "ja": "[\u3040-\u30ff]",
    "ko": "[\uac00-\ud7a3]",
    "zh": "[\u4e00-\u9fff]",
    "ru": "[\u0400-\u04ff]",
    "el": "[\u0370-\u03ff]",
    "ar": "[\u0600-\u06ff]",
    "he": "[\u0590-\u05ff]",
}
DRAWING = re.compile(r"<svg\b[^<>]*>")
LONG_WORD = re.compile(r"\S{41,}")
OTHER_ESCAPES = re.compile(r"\x1b(\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[^\[\]()])")
SPAN = re.compile(
    r'<span(?: class="([^"]*)")?(?: style="([^"]*)")?>(.*?)</span>|([^<]+)', re.DOTALL
)


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
        metadata = _dict(nb.get("metadata"))
        language = _text(metadata.get("lang") or metadata.get("language"))
        page = Page(
            heading,
            name=self.name,
            title=_text(metadata.get("title")),
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
        language = _dict(_dict(notebook.get("metadata")).get("language_info"))
        cells = notebook.get("cells")
        if not isinstance(cells, list):
            raise PrintError("The notebook has no list of cells.")
        self.formulas.macros = dict(KNOWN)
        for cell in map(_dict, cells):
            kind, source = cell.get("cell_type"), _text(cell.get("source"))
            tags = _dict(cell.get("metadata")).get("tags")
            tags = set(map(str, tags)) if isinstance(tags, list) else set()
            if "remove-cell" in tags:
                continue
            if kind == "markdown":
                self.add_markdown(source, _dict(cell.get("attachments")))
            elif kind == "code":
                self.add_code(cell, source, language.get("name") or "python", tags)
            elif source.strip():
                self.pieces.append(Piece(_output(source)))

    def add_markdown(self, source, attachments):
        """Append a Markdown cell with the pictures attached to it."""
        self.prose.append(source)
        for _, title in headings(source):
            self.heading = title
        images = {
            f"attachment:{quote(name)}": self.picture(_dict(bundle))
            for name, bundle in attachments.items()
        }
        self.pieces.append(self.markdown(source, images))

    def add_code(self, cell, source, language, tags):
        """Append a code cell, its short parts kept together with what follows them."""
        pieces = []
        hidden = self.page.hide_code or tags & {"remove-input", "hide-input"}
        if source.strip() and not hidden:
            code = f"{_quoted(_breakable(source.rstrip()))}, {_quoted(language)}"
            number = cell.get("execution_count")
            label = f", number: {number}" if isinstance(number, int) else ""
            short = _is_short(source)
            label += ", breakable: false" if short else ""
            pieces.append(Piece(f"#code({code}{label})", keep=short))
        caption = CAPTION.search(source)
        self.caption = caption[1] if caption else SECTION_NUMBER.sub("", self.heading)
        alt = ALT.search(source)
        self.alt = alt[1] if alt else ""
        outputs = None if "remove-output" in tags else cell.get("outputs")
        for output in _coalesced(outputs if isinstance(outputs, list) else []):
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
                return self.lines(_without_warnings(text), bars=True)
            return self.lines(text, bars="\r" in text.replace("\r\n", "\n"))
        if kind == "error":
            traceback = output.get("traceback")
            lines = traceback if isinstance(traceback, list) else []
            message = f"{output.get('ename')}: {output.get('evalue')}"
            return self.lines("\n".join(map(str, lines)) or message)
        return self.bundle(_dict(output.get("data")), _dict(output.get("metadata")))

    def bundle(self, data, metadata):
        """The piece that shows the best representation in a MIME bundle, or None."""
        name = self.picture(data, metadata)
        if name:
            sizes = map(_dict, metadata.values())
            alts = [size["alt"] for size in sizes if isinstance(size.get("alt"), str)]
            shown = f"{_quoted(name)}, alt: {_quoted(_text([*alts, self.alt or self.caption][0]))}"
            if self.page.hide_code:
                # an invisible start, so that "1. " does not make a list of it
                job = self.job("markdown", f"\u200b{self.caption}")
                return Piece(f"#numbered({shown})[", NO_PICTURE, job, "]")
            return Piece(f"#drawing({shown})", NO_PICTURE)
        plain, page = data.get("text/plain"), _text(data.get("text/html"))
        if "<table" in page.lower():
            return self.rich("html", page, text=_text(plain))
        for mime in ("text/markdown", "text/latex"):
            if mime in data:
                source = _text(data[mime])
                if not _is_listing(source):
                    return self.rich("markdown", source)
                return None if self.page.hide_code else self.markdown(source)
        is_poor = plain is None or PYTHON_OBJECT.fullmatch(_text(plain).strip())
        if is_poor and _is_readable(page):
            return self.rich("html", page)
        if PLOTLY in data and is_poor:
            layout = _dict(_dict(data[PLOTLY]).get("layout"))
            title = layout.get("title")
            title = title if isinstance(title, str) else _dict(title).get("text")
            words = "(an interactive figure, of which the notebook has no picture)"
            return self.lines(f"{_text(title)}\n{words}".strip())
        if page and HTML_OBJECT.fullmatch(_text(plain).strip()):
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
        text = _raw(value)
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        if bars:
            lines = [line for line in lines if not PROGRESS_BAR.search(line)]
        text = "\n".join(lines).strip("\n")
        if not text.strip():
            return None
        text = _cut(text, self.page.longest_output)
        return Piece(_output(text), keep=text.count("\n") < SHORT_OUTPUT)

    def rich(self, kind, source, text=None):
        """The piece for an output in Markdown or HTML; `text` is printed if Typst refuses it."""
        longest = self.page.longest_output
        if kind == "markdown":
            source = _cut(source, longest)
        else:
            source = _without_scripts(_with_colours(source))
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
                content = _decoded(content).decode(errors="replace")
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
        reason = "it is too long" if len(source) > LONGEST_HTML else _is_deep(source)
        if reason:
            warnings.warn(
                f"printed as plain text, because {reason}: {source[:60]}", stacklevel=4
            )
            return Piece(_output(source))
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
        svg = _text(data.get("image/svg+xml")).strip().encode()
        raster = next((mime for mime in RASTER if mime in data), None)
        if raster and not svg:
            size = _dict(_dict(metadata).get(raster))
            svg = _raster_in_svg(_text(data[raster]), size)
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
                start = _text(piece.text).strip().partition("\n")[0]
                warnings.warn(
                    f"printed as plain text, because Typst says {error}: {start}",
                    stacklevel=3,
                )
                piece.markup, piece.after = _output(piece.text), ""
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
                self.typst([Piece(f"#image({_quoted(name)})")])
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
        authors = "".join(f"{_quoted(author)}, " for author in page.authors)
        main = [
            '#import "style.typ": *',
            f"#show: document-page.with({_quoted(page.heading)}, {_quoted(page.name)},",
            f"  title: {_quoted(page.title)}, authors: ({authors}),",
            f"  language: {_quoted(self.language)})",
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
        name = _text(author.get("name") if isinstance(author, dict) else author)
        if name.strip():
            yield name


def _dict(value):
    """The value if it is a dict, else an empty one: damaged metadata is no metadata."""
    return value if isinstance(value, dict) else {}


def _text(value):
    """A string from what a notebook has in its place, without characters nobody can see."""
    text = _raw(value).replace("\r\n", "\n").encode(errors="replace").decode()
    return CONTROL.sub("", text.expandtabs(4))


def _raw(value):
    """A string from a string, a list of them, or nothing at all."""
    if isinstance(value, list):
        return "".join(map(str, value))
    return "" if value is None else str(value)


def _quoted(text):
    """A Typst string literal."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _is_short(text):
    """Whether code or output is so short that it is to stay on one page."""
    return _height(text) <= SHORT


def _breakable(text):
    """The text with places where words that are too long for a line may be broken."""
    return LONG_WORD.sub(
        lambda word: re.sub(r"(.{8})", "\\1\u200b", word.group()), text
    )


def _output(text):
    """Typst that prints what a program wrote, in its terminal colours."""
    text = OTHER_ESCAPES.sub("", text.encode(errors="replace").decode().expandtabs(8))
    call = "#output(breakable: false)" if _is_short(text) else "#output"
    if "\x1b" not in text:
        shown = _quoted(_breakable(CONTROL.sub("", text)))
        return f"{call}[#raw({shown}, block: true)]"
    lines = [""]
    try:
        coloured = ansi2html(text)
    except (IndexError, ValueError):  # a colour code without its colour
        coloured = html.escape(strip_ansi(text))
    for classes, style, inside, plain in SPAN.findall(coloured):
        shown = _breakable(CONTROL.sub("", html.unescape(inside or plain)))
        for number, part in enumerate(shown.split("\n")):
            if number:
                lines.append("")
            lines[-1] += f"#ansi({_quoted(part)}, {_quoted(classes)}, {_quoted(style)})"
    return f"{call}[" + "".join(f"#mono-line[{line}]" for line in lines) + "]"


def _coalesced(outputs):
    """The outputs, what was printed in several goes put together."""
    joined = []
    for output in map(_dict, outputs):
        if output.get("output_type") != "stream":
            joined.append(output)
            continue
        last = joined[-1] if joined else {}
        new = {**output, "name": output.get("name"), "text": _raw(output.get("text"))}
        if last.get("output_type") == "stream" and last["name"] == new["name"]:
            new["text"] = joined.pop()["text"] + new["text"]
        joined.append(new)
    return joined


def _cut(text, longest):
    """The text with its middle left out, and a line that says so, if it has too many lines."""
    if _height(text) <= longest:
        return text
    lines = [
        line[start : start + 20 * COLUMNS]
        for line in text.split("\n")
        for start in range(0, max(1, len(line)), 20 * COLUMNS)
    ]
    first, room = 0, longest * 3 // 4
    while room > 0 and first < len(lines):
        room -= _height(lines[first])
        first += 1
    last, room = len(lines), longest // 4
    while room > 0 and last > first:
        last -= 1
        room -= _height(lines[last])
    if last <= first:
        return text
    left_out = f"[{last - first:,} lines are left out here]"
    return "\n".join([*lines[:first], "", left_out, "", *lines[last:]])


def _height(text):
    """How many lines a text takes on the page."""
    return sum(1 + len(line) // COLUMNS for line in text.split("\n"))


def _without_warnings(text):
    """What was written to stderr without Python's warnings: reports of tests, logs."""
    kept, inside = [], False
    for line in text.split("\n"):
        if WARNING.match(line):
            inside = True
        elif not inside or REPORT.match(line):
            inside = False
            kept.append(line)
        elif re.match(r"  \S", line):  # the code that warned
            inside = False
    return "\n".join(kept)


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


def _with_colours(page):
    """HTML of pandas' Styler with the colours of its style sheet in the cells."""
    colours = {}
    for names, rules in STYLER_RULE.findall(page):
        found = dict(STYLER_COLOUR.findall(rules))
        ground, ink = found.get("background-color"), found.get("color")
        marks = f' fill="{ground}"' if ground else ""
        marks += f' ink="{ink}"' if ink else ""
        for name in re.findall(r"#(\w+)", names) if marks else ():
            colours[name] = colours.get(name, "") + marks

    def coloured(match):
        marks = colours.get(match[2])
        return f"{match[1]}<span{marks}>{match[3]}</span></td>" if marks else match[0]

    return STYLER_CELL.sub(coloured, page) if colours else page


def _without_scripts(page):
    """HTML without what is no text on paper: scripts, styles and buttons."""
    first, *parts = re.split(r"(?i)<(?=/?(?:script|style|button)\b)", page)
    return first + "".join(p.partition(">")[2] for p in parts if p.startswith("/"))


def _is_readable(page):
    """Whether there is anything to read on a page of HTML: text, a picture or a link."""
    text = _without_scripts(page)
    shown = re.search(r"(?i)<(img|iframe|video|audio|embed|hr|svg)\b", text)
    return bool(shown or re.sub(r"<[^<>]*>", "", text).strip())


def _decoded(encoded):
    """The bytes of a text in base64, or none if it is damaged."""
    try:
        return base64.b64decode(unquote(encoded))
    except ValueError:
        return b""


def _raster_in_svg(encoded, metadata):
    """An SVG (bytes) around a PNG, JPEG, GIF or WebP in base64, of its size in points.

    The size is that of the metadata (CSS pixels) or the file's own, at its dots per inch.
    A damaged picture gives what Typst refuses, so that words are printed in its place.
    Only these formats are tried: for others Pillow may start programs.
    """
    try:
        content = base64.b64decode(unquote(encoded))
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            image.load()
            dots = float(image.info.get("dpi", (96, 96))[0] or 96)
            width, height, mime = image.width, image.height, image.get_format_mimetype()
        scale = 72 / dots if 10 < dots < 5000 else 0.75
        if isinstance(metadata.get("width"), int | float) and metadata["width"] > 0:
            scale = min(metadata["width"], 10_000) * 0.75 / width
    except DAMAGE as error:
        warnings.warn(f"a picture cannot be drawn: {error}", stacklevel=2)
        return UNDRAWN
    size = f'width="{width * scale:.2f}pt" height="{height * scale:.2f}pt"'
    data = base64.b64encode(content).decode()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        f'<image {size} href="data:{mime};base64,{data}"/></svg>'
    ).encode()
