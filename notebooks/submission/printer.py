"""Print notebooks to PDF: what Jupyter shows (HTML), read by pandoc, set by Typst.

No LaTeX, no browser, no network. nbconvert renders the Markdown and prepares the outputs;
page.typ says how a page looks.
"""

import base64
import html
import importlib.util
import json
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
from traitlets import Bool, Unicode

from submission.notebooks import used_sample

TEMPLATE = Path(__file__).with_name("page.typ")
BROWSER = ["audio", "video", "iframe", "canvas", "svg"]  # that pages cannot show
TRIAL = "This is a trial run on a sample of the data; the text describes the full run."


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
    parts = [_notebook_html(notebook, page.hide_code) for notebook in notebooks]
    soup = BeautifulSoup(_pre("", "pagebreak").join(parts), "html.parser")
    for element in soup(["script", "style"]):
        element.decompose()
    for element in soup(BROWSER):
        element.replace_with(_words(f"{element.name}: only a browser can show it"))
    if page.trial:
        note = _tag("p", f"<strong>{TRIAL}</strong>")
        title = None if page.title else soup.find("h1")
        title.insert_after(note) if title else soup.insert(0, note)
    pictures = _place_pictures(soup, Path(folder or "."))
    _arrange(soup)
    _set_type(soup)
    _link(soup)
    return _set_pages(_as_typst(str(soup)), pictures, page)


def _words(reason):
    """What stands in the place of what cannot be shown; also a warning."""
    warnings.warn(f"not printed: {reason}", stacklevel=2)
    return f"[{reason}]"


def _tag(name, inner="", **attributes):
    tag = BeautifulSoup(f"<{name}>{inner}</{name}>", "html.parser").find(name)
    tag.attrs = attributes
    return tag


# ------------------------------------------------------------------- Markdown, formulas
# page.typ defines what pandoc's Typst lacks: \tfrac, bars without space, untorn indices
ARGUMENT = r"\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\\w+|\w)"
TFRAC = re.compile(r"\\tfrac" + 2 * ARGUMENT)
BAR = re.compile(r"(?<!\\)(?<!left)(?<!right)\|")
INLINE = r"\({}\)"
TIE = r"\\operatorname{tie}\\left(\\left[\1\\right]\\right)"
INDEX = re.compile(r"(?<![\\{])\[([^][{}&\\]*[-+][^][{}&\\]*)\]")  # y[t-1]
FUNCTION = re.compile(r"\\(?:text|operatorname)(\{\w+\})(?=\s*(?:\\left\s*)?\()")
TAG = re.compile(r"\\tag\{(.*?)\}|\\quad\s*\((\d+)\)$")
TYPST = {  # what to put right in pandoc's Typst, which also rounds the widths of \; and \!
    '"tfrac" (': "tfrac(",
    " semi.rev ": ", ",
    '"tie" (': "tie(",
    '"vbar"': "vbar",
    "#h(0em)": "thick",
    "#h(-1em)": "#h(-0.17em)",
    "#box(stroke: black, inset: 3pt, ": "#boxed(",
}


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with code and formulas in the form that pandoc reads."""

    def block_code(self, code, info=None):
        return _pre(code, re.sub(r"\W.*", "", info or "") or "text")

    def inline_math(self, body):
        return self.formula(INLINE, body)

    def block_math(self, body):
        tag = TAG.search(body.strip())
        if tag:
            number = tag[1] or tag[2]
            body = rf"\text{{⟨tag:{number}⟩}}{body.replace(tag[0], '')}"
        return self.formula(r"\[{}\]", body)

    def latex_environment(self, name, body):
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def formula(self, form, body):
        body = re.sub(r"&(lt|gt|amp);", lambda match: html.unescape(match[0]), body)
        body = FUNCTION.sub(r"\\mathrm\1", body)
        if form == INLINE:
            body = INDEX.sub(TIE, body)
        if "{array}" not in body:  # whose columns can have rules
            body = BAR.sub(r"\\operatorname{vbar}", body)
        for _ in range(body.count(r"\tfrac")):
            body = TFRAC.sub(r"\\operatorname{tfrac}\\left(\1⁏\2\\right)", body)
        return f"<span>{html.escape(form.format(body.strip()))}</span>"

    def _embed_image_or_attachment(self, src):
        return src


def _markdown(source):
    renderer = _Renderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(source)


def _pre(text, kind):
    """Text in a fixed-width font; words longer than a line may break."""
    text = re.sub(r"(\S{90})(?=\S)", "\\1\u200b", text.rstrip())
    return f'<pre class="{kind}"><code>{html.escape(text)}\n</code></pre>'


# ------------------------------------------------------------------------ the notebook
REMOVE = TagRemovePreprocessor(
    remove_cell_tags={"remove-cell"}, remove_input_tags={"remove-input"}
)
COALESCE = CoalesceStreamsPreprocessor()
OPTION = re.compile(r"^#\| ?([\w-]+): *(.*(?:\n#\| {2,}.*)*)", re.MULTILINE)
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
SHOWN = (*PICTURES, "text/html", "text/markdown", "text/latex", "text/plain")
PROGRESS = re.compile(r"^.*\d%\|.*\|.*\[.*\]\n?", re.MULTILINE)  # tqdm's last line
SHORT = 10  # lines of an output that stay with their code


def _notebook_html(notebook, hide_code):
    """What Jupyter shows of a notebook."""
    notebook, _ = REMOVE.preprocess(deepcopy(notebook), {})
    notebook, _ = COALESCE.preprocess(notebook, {})
    language = notebook.metadata.get("language_info", {}).get("name", "python")
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts.append(_code_cell(cell, re.sub(r"\W", "", language), hide_code))
        elif cell.cell_type == "raw":
            parts.append(_pre(cell.source, "output"))
        else:
            source = cell.source
            for name, bundle in cell.get("attachments", {}).items():
                for kind, content in bundle.items():
                    address = f"data:{kind};base64,{content}"
                    for written in (name, quote(name)):
                        source = source.replace(f"attachment:{written}", address)
            parts.append(_markdown(source))
    return "\n".join(parts)


def _code_cell(cell, language, hide_code):
    """The HTML of the code, if it is to be printed, and of the outputs with captions."""
    is_quiet = "remove-output" in cell.metadata.get("tags", [])
    outputs = [_output(output, hide_code) for output in cell.outputs if not is_quiet]
    outputs = [output for output in outputs if output]
    code = re.sub(r"\A(#\|.*\n?)+", "", cell.source).strip("\n")
    shown = ""
    if code and not hide_code and "transient" not in cell.metadata:
        shown = _pre(code, f"in-{cell.execution_count or ''}-{language}")
        first = outputs[0] if outputs else ""
        if first.startswith("<pre") and first.count("\n") <= SHORT:
            shown = f'<div typst:sticky="true" typst:above="0.9em">{shown}</div>'
    soup = BeautifulSoup("".join(outputs), "html.parser")
    options = [(k, re.sub(r"\n#\| +", " ", v)) for k, v in OPTION.findall(cell.source)]
    _caption(soup, options)
    return f"{shown}{soup}"


def _caption(soup, options):
    """Give the first picture and the first table of a cell their captions and names."""
    for key, text in options:
        kind = {"fig-cap": "img", "tbl-cap": "table"}.get(key)
        found = kind and soup.find(kind)
        if found:
            names = [v for k, v in options if k == "label" and v[:4] == key[:4]]
            name = {"id": names[0]} if names else {}
            text = _markdown(text).strip().removeprefix("<p>").removesuffix("</p>")
            if kind == "table":
                found.attrs.update(name)
                found.insert(0, _tag("caption", text))
            else:
                found["alt"] = found.get("alt") or dict(options).get("fig-alt", "")
                figure = found.wrap(_tag("figure", **name))
                figure.append(_tag("figcaption", text))
                if figure.parent.name == "p":
                    figure.parent.unwrap()
        elif kind:
            warnings.warn(f"no output for the caption: {text}", stacklevel=2)


def _output(output, hide_code):
    """The HTML of one output."""
    if output.output_type in ("stream", "error"):
        return _lines(output.get("text") or "\n".join(output.get("traceback", [])))
    data = output.data
    kind = next((kind for kind in SHOWN if kind in data), None)
    if kind in PICTURES:
        content, about = data[kind], output.metadata.get(kind, {})
        if kind == "image/svg+xml":
            content = base64.b64encode(content.encode()).decode()
        address, alt = f"data:{kind};base64,{content}", about.get("alt", "")
        image = _tag("img", src=address, alt=alt)
        if "width" in about:  # of a picture with fine dots
            image["width"] = f"{about['width'] * 0.75:.2f}pt"
        return f"<p>{image}</p>"
    if kind == "text/html":
        soup = BeautifulSoup(data[kind], "html.parser")
        for element in soup(["script", "style"]):
            element.decompose()
        if soup.get_text().strip() or soup(["img", *BROWSER]):
            return str(soup)
    elif kind in ("text/markdown", "text/latex"):
        is_listing = data[kind].startswith("<details>")
        return "" if hide_code and is_listing else _markdown(data[kind])
    elif len(data) == 1 and kind:
        return _lines(data[kind])
    return f"<p>{_words('an output that only Jupyter can show')}</p>"


def _lines(text):
    text = PROGRESS.sub("", strip_ansi(text)).strip("\n")
    return _pre(text, "output") if text.strip() else ""


# ----------------------------------------------------------------------- the whole page
CAPTION = re.compile(r"\s*Table:\s+(.*?)\s*(?:\{#([\w-]+)\})?\s*", re.DOTALL)
MINUS = re.compile(r"(?<![\w.,)\]-])-(?=\d|\.\d|inf\b|nan\b)|(?<=\de)-(?=\d)")
# what is not torn apart at a line's end: 3 %, y[t − 1], 8 · 10⁻³, Table 3, equation (3)
TIES = re.compile(
    r"(?<=\d) (?=(?:%|ms|s|min|h|kB|MB|GB)(?!\w))"
    r"|(?<=\w) (?=[−·×±/=<>≤≥≈] )|(?<= [−·×±/=<>≤≥≈]) (?=\S)"
    r"|(?:(?<=[Ff]igure)|(?<=[Tt]able)|(?<=[Ss]ection)|(?<=[Ii]tem)|(?<=[Tt]ask)"
    r"|(?<=[Qq]uestion)|(?<=[Ee]quation)|(?<=[Pp]roblem)) (?=\(?\d)"
)


def _place_pictures(soup, folder):
    """{file name: (content, words)} of the pictures; words where one cannot be shown."""
    pictures = {}
    for image in soup("img"):
        source, words = unquote(image.get("src", "")), image.get("alt") or "picture"
        try:
            if source.startswith("data:"):
                content = base64.b64decode(source.partition(",")[2])
            else:
                content = (folder / source).read_bytes()
        except (OSError, ValueError):
            words = f"picture “{words}”: {source[:60]} is not beside the notebook"
            image.replace_with(_words(words))
            continue
        image["src"] = f"picture-{len(pictures)}"
        pictures[image["src"]] = content, words
    return pictures


def _arrange(soup):
    """Captions of Markdown tables, titles of folded parts, what stays with what follows."""
    sticky = soup("summary")
    for paragraph in soup("p"):
        match = CAPTION.fullmatch(paragraph.get_text())
        beside = [paragraph.find_previous_sibling(), paragraph.find_next_sibling()]
        tables = [e for e in beside if e and e.name == "table" and not e.caption]
        if match and tables:
            inner = paragraph.decode_contents().strip().removeprefix("Table:")
            tables[0].insert(0, _tag("caption", re.sub(r"\s*\{#.*\}$", "", inner)))
            tables[0].attrs.update({"id": match[2]} if match[2] else {})
            paragraph.decompose()
        elif paragraph.get_text().rstrip().endswith(":"):
            sticky.append(paragraph)
    for element in sticky:
        element.name = "p"
        element.wrap(_tag("div", **{"typst:sticky": "true"}))


def _set_type(soup):
    """What typists do: ties, minus signs in tables, breaks in long words."""
    for text in soup.find_all(string=True):
        names = {parent.name for parent in text.parents}
        if names & {"code", "pre"} or re.search(r"\\[(\[]|\$", text):
            continue
        new = TIES.sub("\u00a0", text)
        new = re.sub(r"(\S{60})(?=\S)", "\\1\u200b", new)
        if "table" in names:
            new = re.sub(r"(\w{12})(?=\w{3})", "\\1\u200b", MINUS.sub("−", new))
        if new != text:
            text.replace_with(new)


def _link(soup):
    """Keep the names that links refer to, once each; a link to nowhere becomes words."""
    links = soup("a", href=re.compile("^#"))
    wanted, found = {link["href"][1:] for link in links}, set()
    for element in soup(True):
        name = element.attrs.pop("id", None)
        if name in wanted - found:
            element["id"] = name
            found.add(name)
    for link in links:
        name = link["href"][1:]
        if name not in found:
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
        check=True,
    )
    messages, text = run.stderr.decode(), run.stdout.decode()
    for formula in re.findall(r"Could not convert TeX math (.*), rendering", messages):
        formula = formula.replace(r"\operatorname{vbar}", "|")
        warnings.warn(f"printed as TeX, not as a formula: {formula}", stacklevel=3)
    for old, new in TYPST.items():
        text = text.replace(old, new)
    return text


def _set_pages(body, pictures, page):
    """The PDF (bytes) that Typst makes."""
    inputs = {key: str(value or "") for key, value in vars(page).items()}
    inputs["authors"] = ", ".join(page.authors)
    # matplotlib has letters that Typst's own fonts lack
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent
    fonts = [matplotlib / "mpl-data" / "fonts" / "ttf"]
    with tempfile.TemporaryDirectory() as folder:
        main = Path(folder, "main.typ")
        main.with_name(TEMPLATE.name).write_bytes(TEMPLATE.read_bytes())
        for name, (content, words) in pictures.items():
            main.with_name(name).write_bytes(content)
            alt = json.dumps(words, ensure_ascii=False)
            body = body.replace(f'image("{name}"', f'image("{name}", alt: {alt}')
        main.write_text(f'#import "page.typ": *\n#show: document\n{body}', "utf-8")
        try:
            pdf = typst.compile(main, font_paths=fonts, sys_inputs=inputs)
        except typst.TypstError as error:
            raise PrintError(f"Typst cannot set the notebook: {error}") from error
    if b"LastResort" in pdf:
        warnings.warn(
            "some characters are in no font and printed as boxes: install a font for "
            "their script, for example from Noto (https://fonts.google.com/noto)",
            stacklevel=3,
        )
    return pdf
