"""submission.printer: small notebooks and ours are printed, and the pages read back."""

import base64
import io
import re
import unicodedata
import warnings
from pathlib import Path

import nbformat
import pypdf
import pypdfium2
import pytest
from nbconvert.exporters import get_exporter
from nbconvert.filters import strip_ansi
from PIL import Image
from submission import Page, PrintError, to_pdf
from submission.notebooks import read_notebook
from traitlets.config import Config

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("[a-z]*/[!.]*.ipynb"))
PAGE = Page("Course · Assignment", "Ada Lovelace")
SENTENCE = (
    "Each of these sentences fills a line of the page with words that say little. "
)


# ------------------------------------------------------------------ making notebooks
def text(source, **attachments):
    return nbformat.v4.new_markdown_cell(source, attachments=attachments)


def code(source, *outputs, tags=(), number=1):
    return nbformat.v4.new_code_cell(
        source,
        outputs=list(outputs),
        execution_count=number,
        metadata={"tags": list(tags)},
    )


def stream(written):
    return nbformat.v4.new_output("stream", name="stdout", text=written)


def shown(data, **metadata):
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata)


def notebook(*cells, **metadata):
    return nbformat.v4.new_notebook(cells=list(cells), metadata=metadata)


def png(width=400, height=200):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "steelblue").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# -------------------------------------------------------------------- reading pages
def printed(*cells, page=PAGE, folder=None):
    return to_pdf([notebook(*cells)], page, folder)


def pages(pdf):
    """The text of each page, with letters as one types them."""
    texts = [
        page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(pdf)
    ]
    texts = [re.sub("[\ufffe\u00ad\u200b]|-\r\n", "", text) for text in texts]
    return [unicodedata.normalize("NFKC", text) for text in texts]


def squeezed(words):
    """Without white space and hyphens: lines may be broken anywhere."""
    return re.sub(r"[\s\u00ad\u200b-]", "", unicodedata.normalize("NFKC", words))


def text_of(*cells, **options):
    return squeezed("".join(pages(printed(*cells, **options))))


def boxes(page):
    """(left, bottom, right, top) in points of each character and picture."""
    words = page.get_textpage()
    yield from (words.get_charbox(place) for place in range(words.count_chars()))
    yield from (picture.get_bounds() for picture in page.get_objects(filter=[3]))


def pictures(pdf):
    """(page, width, height) in points of each picture."""
    for number, page in enumerate(pypdfium2.PdfDocument(pdf), 1):
        for picture in page.get_objects(filter=[3]):
            left, bottom, right, top = picture.get_bounds()
            yield number, round(right - left), round(top - bottom)


def number_of(words, pdf):
    """The number of the first page with these words."""
    found = [words in page for page in map(squeezed, pages(pdf))]
    return 1 + found.index(True)


# --------------------------------------------------------------------- our notebooks
def words_of(source):
    """The words of a Markdown text without formulas, addresses and tags."""
    source = re.sub(
        r"\$\$.*?\$\$|\$.*?\$|\]\(.*?\)|<.*?>|\{#.*?\}", " ", source, flags=re.DOTALL
    )
    return re.findall(
        r"\w{3,}", re.sub(r"\\begin.*?\\end|```\w*", " ", source, flags=re.DOTALL)
    )


def letters_of(source):
    """The letters of the formulas in a Markdown text."""
    formulas = re.findall(r"\$\$.*?\$\$|\$.*?\$", source, flags=re.DOTALL)
    return re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", " ", " ".join(formulas)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_our_notebooks_lose_nothing(path):
    """All words of prose, code and outputs, all letters of formulas; pages that are full."""
    source = read_notebook(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdf = to_pdf([source], Page(""), path.parent)
    assert [str(warning.message) for warning in caught] == []
    page_texts = pages(pdf)
    on_pages = squeezed("".join(page_texts))
    wanted, letters = [], []
    for cell in source.cells:
        tags = cell.metadata.get("tags", [])
        if "remove-cell" in tags:
            continue
        if cell.cell_type == "markdown":
            wanted += words_of(cell.source)
            letters += letters_of(cell.source)
            continue
        if "remove-input" not in tags:
            wanted += re.findall(r"\w+", re.sub(r"(?m)^#\|.*\n?", "", cell.source))
        for output in [] if "remove-output" in tags else cell.outputs:
            if output.output_type == "stream":
                lines = re.sub(r"(?m)^.*\d%\|.*", "", strip_ansi(output.text))
                wanted += re.findall(r"\w+", lines)
            elif "text/markdown" in output.data:
                wanted += words_of(output.data["text/markdown"])
                letters += letters_of(output.data["text/markdown"])
    lost = {word for word in wanted if squeezed(word) not in on_pages}
    assert lost == set()
    for letter in set(letters):
        assert on_pages.count(letter) >= letters.count(letter), f"{letter} is lost"
    assert len(page_texts) <= 20
    for number, page in enumerate(pypdfium2.PdfDocument(pdf), 1):
        left, bottom, right, _ = zip(*boxes(page))
        assert min(left) > 15 and max(right) < 595 - 50, f"page {number} is too wide"
        if number < len(page_texts):
            fill = (841.9 - 71 - min(bottom)) / (841.9 - 71 - 57)
            assert fill > 0.6, f"page {number} is {fill:.0%} full"


def test_same_bytes():
    cells = code("1", shown({"image/png": png()})), text("$x$ and ![a](a.png)")
    with pytest.warns(UserWarning, match="a.png|not found"):
        first = printed(*cells)
    with pytest.warns(UserWarning):
        assert printed(*cells) == first


# ------------------------------------------------------------------------- captions
TABLE = {"text/markdown": "| a | b |\n|---:|---|\n| -1.5 | one-two |", "text/plain": ""}


def test_captions_and_references():
    cells = (
        text("See [Figure 9](#fig-b), [Table 9](#tbl-m) and [Figure 7](#fig-none)."),
        code(
            "#| label: tbl-rates\n#| tbl-cap: Rates of $x^2$, a caption\n#|   that goes on.\nrun()",
            shown({"text/plain": "no table"}),
            shown(TABLE),
        ),
        code("#| fig-cap: First `kind`.\nplot()", shown({"image/png": png()})),
        code(
            "#| label: fig-b\n#| fig-cap: Second.\n#| fig-alt: Words.\nplot()",
            shown({"image/png": png()}),
        ),
        text("| a | b |\n|---|---|\n| 1 | 2 |\n\nTable: Of *Markdown*. {#tbl-m}"),
    )
    with pytest.warns(UserWarning, match="Figure 7: no fig-none"):
        pdf = printed(*cells)
    on_page = squeezed("".join(pages(pdf)))
    assert "SeeFigure2,Table2andFigure7." in on_page
    for caption in (
        "Table1.Ratesofx2,acaptionthatgoeson.",
        "Figure1.Firstkind.",
        "Figure2.Second.",
        "Table2.OfMarkdown.",
    ):
        assert on_page.count(caption) == 1
    assert "#|" not in on_page and "fig-cap" not in on_page
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    objects = map(reader.get_object, range(1, reader.trailer["/Size"]))
    assert "Words." in [o.get("/Alt") for o in objects if isinstance(o, dict)]


def test_numbers_go_on_over_notebooks():
    figure = code("#| fig-cap: A figure.\n1", shown({"image/png": png()}))
    pdf = to_pdf([notebook(figure), notebook(figure)], PAGE)
    assert [number_of(f"Figure{n}.Afigure.", pdf) for n in (1, 2)] == [1, 2]


def test_caption_without_an_output_warns():
    with pytest.warns(UserWarning, match="no output for the caption: Lost"):
        printed(code("#| fig-cap: Lost.\nplot()"))


# ------------------------------------------------------- what is printed, what is not
def test_tags_and_numbers():
    on_page = text_of(
        code("cell()", stream("of nothing"), tags=["remove-cell"]),
        code("hidden()", stream("first"), tags=["remove-input"]),
        code("shown()", stream("unwanted"), tags=["remove-output"], number=12),
    )
    assert "first" in on_page and "[12]shown()" in on_page
    for lost in ("cell", "nothing", "hidden", "unwanted"):
        assert lost not in on_page


def test_reports_have_no_code():
    source = "<details><summary>Code of <code>f</code></summary>\n\n```python\ndef f():\n    pass\n```\n\n</details>"
    cells = code("run()", shown({"text/markdown": source}), stream("result"))
    report = text_of(cells, page=Page("", hide_code=True))
    assert "result" in report and "run" not in report and "def" not in report
    assert "Codeoffdeff():pass" in text_of(cells)


def test_trial():
    cells = text("# Title\n\n" + 60 * SENTENCE), text("end " + 60 * SENTENCE)
    marked = pages(printed(*cells, page=Page("Course", trial=True)))
    assert len(marked) > 1
    assert all("Trial run on a sample of the data" in page for page in marked)
    after_title = squeezed(marked[0]).partition("Title")[2]
    assert after_title.startswith("Thisisatrialrun")
    assert "thetextdescribesthefullrun" in after_title
    assert "rial" not in text_of(*cells)


def test_exporter():
    cells = [text("# Report"), code("run()", stream("result"))]
    sample = notebook(*cells, coursework={"data": "sample"})
    options = Config({"TemplateExporter": {"exclude_input": True}})
    for config, is_shown in ((Config(), True), (options, False)):
        pdf, resources = get_exporter("typst")(config=config).from_notebook_node(
            sample, {"metadata": {"name": "study"}}
        )
        (page,) = pages(pdf)
        assert resources["output_extension"] == ".pdf"
        assert "study" in page and "result" in page and "Trial run" in page
        assert ("run()" in page) == is_shown


WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = {
    "application/vnd.plotly.v1+json": {"data": []},
    "text/html": "<script>draw()</script>",
}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({WIDGET: {"a": 1}, "text/plain": "HBox(children=())"}, "Jupyter"),
        (PLOTLY, "Jupyter"),
        ({"text/html": '<video src="data:video/mp4;base64,AAAA"></video>'}, "video"),
        ({"text/html": '<img src="https://a.example/b.png" alt="far">'}, "far"),
        ({"image/png": base64.b64encode(b"\x89PNG damaged").decode()}, "picture"),
        ({"image/svg+xml": "<svg><path></svg>"}, "picture"),
    ],
)
def test_what_cannot_be_shown_leaves_words_and_a_warning(data, words):
    with pytest.warns(UserWarning, match="not printed"):
        on_page = text_of(text("before"), code("1", shown(data)), text("after"))
    inner = on_page.partition("[1]1")[2].removesuffix("after")
    assert words in inner and len(inner) < 120


def test_missing_glyph_warns():
    with pytest.warns(UserWarning, match="install a font"):
        printed(text("\U00012000"))  # cuneiform


def test_impossible_page():
    with pytest.raises(PrintError, match="Typst"):
        printed(text('<div typst:sticky="nonsense()">x</div>'))


def test_outputs_as_jupyter_shows_them():
    data = {
        "text/html": "<style>p {}</style><p>a : <b>1</b> and $x &lt; y$</p>",
        "text/markdown": "markdown",
        "text/latex": "latex",
        "text/plain": "plain",
    }
    picture = {"image/png": png(), "text/html": "<b>page</b>", "text/plain": "plain"}
    error = nbformat.v4.new_output(
        "error", ename="E", evalue="v", traceback=["\x1b[31mError\x1b[0m: why"]
    )
    bar = stream("run: 100%|####| 3/3 [00:01<00:00]\ndone\n")
    pdf = printed(
        *(code("", output) for output in (shown(data), shown(picture), error, bar))
    )
    on_page = squeezed("".join(pages(pdf)))
    assert "a:1andx<yError:whydone" in on_page
    assert len(list(pictures(pdf))) == 1
    for lost in ("plain", "markdown", "latex", "page", "p{}", "[31m", "100%"):
        assert lost not in on_page.replace("page1of1", "")


def test_data_frame():
    html = (
        '<table border="1" class="dataframe"><thead><tr><th></th><th>COMMONWEALTH</th></tr>'
        "</thead><tbody><tr><th>0</th><td>-1.5</td></tr><tr><th>1</th><td>x-y</td></tr>"
        "</tbody></table>"
    )
    on_page = pages(
        printed(code("frame", shown({"text/html": html, "text/plain": ""})))
    )[0]
    assert "COMMONWEALTH" in on_page and "−1.5" in on_page and "x-y" in on_page


# ----------------------------------------------------------------- formulas and prose
def test_formulas():
    source = r"""
Spaces $ a_1 $, old \\(b_2\\), entities $c &lt; d$, bars $|z|$ and $\|v\|_2$, a number
(see \eqref{eq:one}), and prices: \$5.

$$\left\langle\frac{p}{q}\right\rangle = \boxed{\tfrac{1}{\tfrac{2}{k}}} \tag{7}\label{eq:one}$$

$$\text{softmax}(m) \quad (8)$$

\begin{align} h &= \tanh(W x) \end{align}
"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_page = text_of(text(source))
    for wanted in (
        "a1",
        "b2",
        "|z|",
        "‖v‖",
        "(see(7))",
        "$5",
        "⟨",
        "⟩",
        "softmax(m)(8)",
        "tanh(Wx)",
    ):
        assert squeezed(wanted) in on_page, wanted
    assert "tfrac" not in on_page and "\\" not in on_page


def test_refused_formula_is_printed_as_tex():
    with pytest.warns(UserWarning, match="printed as TeX"):
        assert r"\nosuchthing" in text_of(text(r"$\nosuchthing{x}$"))


def test_number_stands_at_the_right():
    page = pypdfium2.PdfDocument(printed(text(r"$$a = b \tag{3}$$")))[0]
    words = page.get_textpage()
    place, _ = words.search("(3)").get_next()
    assert words.get_charbox(place)[0] > 500


def test_quotes_and_minus():
    on_page = pages(
        printed(
            text('It\'s "so".\n\n| a |\n|---|\n| -1 |\n| 2020-01-02 |'),
            code('print("it\'s", -1)', stream('"it\'s" -1')),
        )
    )[0]
    assert "It’s “so”." in on_page
    assert 'print("it\'s", -1)' in on_page and '"it\'s" -1' in on_page
    assert "−1" in on_page and "2020-01-02" in on_page


TIED = ("97.5 %", "t − 1", "8 · 10", "$y[t-1]$", "`y[t - 1]`", "Table 3")


@pytest.mark.parametrize("length", range(1, 40, 5))
def test_not_torn_at_the_end_of_a_line(length):
    start = "m" * length + " in" * 14
    cells = [text(start + f" {tied} and so on" * 4) for tied in TIED]
    words = pypdfium2.PdfDocument(printed(*cells))[0].get_textpage()
    every = [words.get_text_range(n, 1) for n in range(words.count_chars())]
    places = [n for n, letter in enumerate(every) if re.match(r"[\w%]", letter)]
    letters = "".join(every[n] for n in places)
    for tied in TIED:
        wanted = re.sub(r"[^\w%]", "", tied)
        starts = [match.start() for match in re.finditer(wanted, letters)]
        assert len(starts) >= 4
        for start in starts:
            ends = places[start], places[start + len(wanted) - 1]
            (_, low, _, _), (_, high, _, _) = map(words.get_charbox, ends)
            assert abs(low - high) < 6, f"{tied} is torn"


# --------------------------------------------------------------------------- pictures
def test_pictures_of_any_name(tmp_path):
    names = ["image (1).png", "été.png", "a+b.png", "x&y.png"]
    for name in names:
        (tmp_path / name).write_bytes(base64.b64decode(png()))
    cells = [text(f"![words](<{name}>)") for name in names]
    cells += [text('<img src="image (1).png">')]
    attached = {name: {"image/png": png()} for name in names}
    cells += [text("".join(f"![x](attachment:{n})" for n in names), **attached)]
    cells += [text(f'<img src="data:image/png;base64,{png()}">')]
    assert len(list(pictures(printed(*cells, folder=tmp_path)))) == 10
    with pytest.warns(UserWarning, match="“words”: not found"):
        assert "words" in text_of(text("![words](none.png)"), folder=tmp_path)


def test_size_of_a_picture():
    retina = shown({"image/png": png()}, **{"image/png": {"width": 200, "height": 100}})
    cells = (
        code("", shown({"image/png": png()})),
        code("", retina),
        code("", shown({"image/png": png(4000, 1000)})),
        text(f'<img src="data:image/png;base64,{png()}" width="100">'),
    )
    sizes = [(width, height) for _, width, height in pictures(printed(*cells))]
    assert sizes == [(300, 150), (150, 75), (482, 120), (75, 38)]


# ------------------------------------------------------------------------------ pages
@pytest.mark.parametrize("lines", range(22, 45, 6))
def test_kept_together(lines):
    """A function, a caption and its figure, and what introduces it are on one page."""
    body = "\n".join(f"    line_{n} = {n}" for n in range(40))
    function = f"import this\n\n\ndef start():\n{body}\n    return 'end'\n\n\nother = 1"
    figure = code("#| fig-cap: Caption.\n1", shown({"image/png": png(400, 300)}))
    filler = "\n\n".join([SENTENCE] * lines)
    for tags in ([], ["remove-input"]):
        figure.metadata.tags = tags
        pdf = printed(text(filler + "\n\nIntroduced as:"), figure)
        (shown_on, _, _), caption = *pictures(pdf), number_of("Figure1.Caption.", pdf)
        assert shown_on == caption
        if tags:
            assert number_of("Introducedas:", pdf) == caption
    pdf = printed(text(filler), code(function))
    assert number_of("defstart", pdf) == number_of("return'end'", pdf)


def test_long_lines_and_wide_tables_stay_on_the_page():
    row = " | ".join(["COMMUNICATIONALLY"] * 9)
    table = f"| {row} |\n|{'---|' * 9}\n| {row} |"
    pdf = printed(code("x = '" + "a" * 400 + "'", stream("b " * 300)), text(table))
    for page in pypdfium2.PdfDocument(pdf):
        assert max(right for _, _, right, _ in boxes(page)) < 595 - 55
    on_page = squeezed("".join(pages(pdf)))
    assert "a" * 400 in on_page and "b" * 300 in on_page
    assert on_page.count("COMMUNICATIONALLY") == 18 or "COMMUNICATI" in on_page
