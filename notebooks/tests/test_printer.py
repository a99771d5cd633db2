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
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs))
    cell.update(execution_count=number, metadata={"tags": list(tags)})
    return nbformat.from_dict(cell)


def stream(written):
    return nbformat.v4.new_output("stream", name="stdout", text=written)


def shown(data, **metadata):
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata)


def figure(width=400, height=200):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "steelblue").save(buffer, "PNG")
    size = {"width": width, "height": height}
    return shown(
        {"image/png": base64.b64encode(buffer.getvalue()).decode()},
        **{"image/png": size},
    )


def printed(*cells, page=PAGE, folder=None):
    return to_pdf([nbformat.v4.new_notebook(cells=list(cells))], page, folder)


# --------------------------------------------------------------------- reading pages
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
    """(left, bottom, right, top) in points of what is drawn."""
    return [element.get_bounds() for element in page.get_objects()]


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
def words_and_letters(markdown):
    """The words of the prose, and the letters of the formulas."""
    formulas = re.findall(r"\$\$.*?\$\$|\$.*?\$", markdown, re.DOTALL)
    other = r"\$\$.*?\$\$|\$.*?\$|\]\(.*?\)|<.*?>|\{#.*?\}|```\w*"
    prose = re.sub(other, " ", markdown, flags=re.DOTALL)
    letters = re.sub(r"\\[a-zA-Z]+", " ", " ".join(formulas))
    return re.findall(r"\w{3,}", prose), re.findall(r"[a-zA-Z]", letters)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_our_notebooks_lose_nothing(path):
    """All words of prose, code and outputs, all letters of formulas; pages that are full."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdf = to_pdf([read_notebook(path)], Page(""), path.parent)
    on_pages = squeezed("".join(pages(pdf)))
    wanted, letters = [], []
    for cell in read_notebook(path).cells:
        tags = cell.metadata.get("tags", [])
        if "remove-cell" in tags:
            continue
        markdown = [cell.source] if cell.cell_type == "markdown" else []
        if cell.cell_type == "code" and "remove-input" not in tags:
            wanted += re.findall(r"\w+", re.sub(r"(?m)^#\|.*\n?", "", cell.source))
        for output in [] if "remove-output" in tags else cell.get("outputs", []):
            if output.output_type == "stream":
                wanted += re.findall(r"\w+", output.text)
            else:
                markdown.append(output.data.get("text/markdown", ""))
        for source in markdown:
            words, symbols = words_and_letters(source)
            wanted, letters = wanted + words, letters + symbols
    assert {word for word in wanted if squeezed(word) not in on_pages} == set()
    for letter in set(letters):
        assert on_pages.count(letter) >= letters.count(letter), f"{letter} is lost"
    document = pypdfium2.PdfDocument(pdf)
    assert len(document) <= 20
    for number, page in enumerate(document, 1):
        left, bottom, right, _ = zip(*boxes(page))
        assert min(left) > 15 and max(right) < 595 - 50, f"page {number} is too wide"
        fill = (842 - 71 - min(bottom)) / (842 - 71 - 57)
        assert fill > 0.66 or number == len(document), f"page {number}: {fill:.0%} full"


def test_same_bytes():
    cells = code("1", figure()), text("$x$ and `y`")
    assert printed(*cells) == printed(*cells)


# ------------------------------------------------------------------------- captions
def test_captions_and_references():
    table = {"text/markdown": "| a | b |\n|---:|---|\n| 1 | 2 |", "text/plain": ""}
    rates = "#| label: tbl-rates\n#| tbl-cap: Rates of $x^2$, a caption\n#|   goes on."
    second = "#| label: fig-b\n#| fig-cap: Second.\n#| fig-alt: Words.\nplot()"
    cells = (
        text("See [Figure 9](#fig-b), [Table 9](#tbl-m) and [Figure 7](#fig-none)."),
        code(rates, shown({"text/plain": "no table"}), shown(table)),
        code("#| fig-cap: First `kind`.\nplot()", figure()),
        code(second, figure()),
        text("| a | b |\n|---|---|\n| 1 | 2 |\n\nTable: Of *Markdown*. {#tbl-m}"),
        code("#| fig-cap: Lost.\nplot()"),
    )
    with pytest.warns(UserWarning) as caught:
        pdf = printed(*cells)
    assert [str(warning.message) for warning in caught] == [
        "no output for the caption: Lost.",
        "Figure 7: no fig-none in this document",
    ]
    on_page = squeezed("".join(pages(pdf)))
    assert "SeeFigure2,Table2andFigure7." in on_page
    assert on_page.count("Table1.Ratesofx2,acaptiongoeson.") == 1
    assert on_page.count("Figure1.Firstkind.") == on_page.count("Figure2.Second.") == 1
    assert on_page.count("Table2.OfMarkdown.") == 1 and "#|" not in on_page
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    objects = map(reader.get_object, range(1, reader.trailer["/Size"]))
    assert "Words." in [o.get("/Alt") for o in objects if isinstance(o, dict)]


def test_numbers_go_on_over_notebooks():
    cells = [code("#| label: fig-a\n#| fig-cap: A figure.\n1", figure())]
    pdf = to_pdf([nbformat.v4.new_notebook(cells=cells)] * 2, PAGE)
    assert [number_of(f"Figure{n}.Afigure.", pdf) for n in (1, 2)] == [1, 2]


# ------------------------------------------------------- what is printed, what is not
def test_tags_and_numbers():
    on_page = text_of(
        code("cell()", stream("of nothing"), tags=["remove-cell"]),
        code("hidden()", stream("first"), tags=["remove-input"]),
        code("shown()", stream("unwanted"), tags=["remove-output"], number=12),
    )
    assert on_page.endswith("first[12]shown()")


def test_reports_have_no_code():
    code_of = "<details><summary>Code of <code>f</code></summary>"
    source = f"{code_of}\n\n```python\ndef f():\n    pass\n```\n\n</details>"
    cells = code("run()", shown({"text/markdown": source}), stream("result"))
    assert text_of(cells, page=Page("", hide_code=True)) == "page1of1result"
    assert "Codeoffdeff():pass" in text_of(cells)


def test_trial():
    cells = text("# Title\n\n" + 60 * SENTENCE), text("end " + 60 * SENTENCE)
    marked = pages(printed(*cells, page=Page("Course", trial=True)))
    assert len(marked) > 1
    assert all("Trial run on a sample of the data" in page for page in marked)
    after_title = squeezed(marked[0]).partition("Title")[2]
    assert after_title.startswith("Thisisatrialrunonasampleofthedata;thetextdescribes")
    assert "rial" not in text_of(*cells)


def test_exporter():
    cells = [text("# Report"), code("run()", stream("result"))]
    record = {"coursework": {"data": "sample"}}
    sample = nbformat.v4.new_notebook(cells=cells, metadata=record)
    without = Config({"TemplateExporter": {"exclude_input": True}})
    for config, has_code in ((Config(), True), (without, False)):
        exporter, about = get_exporter("typst")(config=config), {"name": "study"}
        pdf, resources = exporter.from_notebook_node(sample, {"metadata": about})
        (page,) = pages(pdf)
        assert resources["output_extension"] == ".pdf"
        assert "study" in page and "result" in page and "Trial run" in page
        assert ("run()" in page) == has_code


WIDGET = {"application/vnd.jupyter.widget-view+json": {"a": 1}, "text/plain": "HBox()"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (WIDGET, "Jupyter"),
        ({"text/html": "<script>draw()</script>", "text/plain": "Figure()"}, "Jupyter"),
        ({"text/html": '<video src="data:video/mp4;base64,AAAA"></video>'}, "video"),
        ({"text/html": '<img src="https://a.example/b.png" alt="far">'}, "far"),
    ],
)
def test_what_cannot_be_shown_leaves_words_and_a_warning(data, words):
    with pytest.warns(UserWarning, match="not printed"):
        on_page = text_of(code("1", shown(data)), text("after"))
    inner = on_page.partition("[1]1")[2].removesuffix("after")
    assert words in inner and len(inner) < 120


def test_what_has_no_glyph_or_no_page():
    with pytest.warns(UserWarning, match="install a font"):
        printed(text("\U00012000"))  # cuneiform
    with pytest.raises(PrintError, match="Typst cannot set the notebook"):
        printed(code("", shown({"image/png": base64.b64encode(b"damaged").decode()})))


def test_outputs_as_jupyter_shows_them():
    page = "<style>p {}</style><p>a : <b>1</b>, $x &lt; y$</p><pre>z</pre>"
    data = {
        "text/html": page,
        "text/markdown": "m",
        "text/latex": "l",
        "text/plain": "",
    }
    picture = figure()
    picture.data |= {"text/html": "<b>unwanted</b>", "text/plain": "unwanted"}
    trace = ["\x1b[31mError\x1b[0m: why"]
    error = nbformat.v4.new_output("error", ename="E", evalue="v", traceback=trace)
    bar = stream("run: 100%|####| 3/3 [00:01<00:00]\ndone\n")
    pdf = printed(*(code("", output) for output in (shown(data), picture, error, bar)))
    assert squeezed(pages(pdf)[0]).partition("1of1")[2] == "a:1,x<yzError:whydone"
    assert len(list(pictures(pdf))) == 1


# ----------------------------------------------------------------- formulas and prose
def test_formulas():
    source = r"""
Spaces $ a_1 $, old \\(b_2\\), entities $c &lt; d$, bars $|z|$, prices: \$5, $8\;9$.

$$\left\langle\frac{p}{q}\right\rangle = \boxed{\tfrac{1}{\tfrac{2}{k}}} \tag{7}$$

\begin{align} h &= \text{softmax}(W x) \quad (8) \end{align}
"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_page = text_of(text(source))
    for wanted in ("a1,", "b2,", "c<d", "|z|", ":$5", "⟨", "⟩", "(7)", "softmax(Wx)"):
        assert wanted in on_page, wanted
    assert "frac" not in on_page and "\\" not in on_page
    words = pypdfium2.PdfDocument(printed(text(source)))[0].get_textpage()
    place, _ = words.search("(7)").get_next()
    assert words.get_charbox(place)[0] > 500  # at the right
    with pytest.warns(UserWarning, match="printed as TeX"):
        assert r"\nosuchthing" in text_of(text(r"$\nosuchthing{x}$"))


def test_quotes_and_minus():
    prose = "It's item 1's \"so\".\n\n| a |\n|---|\n| -1 |\n| 2020-01-02 |"
    (on_page,) = pages(printed(text(prose), code("f('1', -1)", stream("'1' \"s\""))))
    assert "It’s item 1’s “so”." in on_page
    assert "f('1', -1)" in on_page and "'1' \"s\"" in on_page
    assert "−1" in on_page and "2020-01-02" in on_page


TIED = ("97.5 %", "t − 1", "8 · 10", "$[71-93]$", "`y[t - 1]`", "Table 3")


@pytest.mark.parametrize("length", range(1, 40, 7))
def test_not_torn_at_the_end_of_a_line(length):
    start = "m" * length + " in" * 14
    cells = [text(start + f" {tied} and so on" * 4) for tied in TIED]
    words = pypdfium2.PdfDocument(printed(*cells))[0].get_textpage()
    every = [squeezed(words.get_text_range(n, 1)) for n in range(words.count_chars())]
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


# ------------------------------------------------------------------ pictures and pages
def test_pictures_of_any_name_and_size(tmp_path):
    names = ["image (1).png", "été.png", "a+b.png", "x&y.png"]
    data = figure().data
    for name in names:
        (tmp_path / name).write_bytes(base64.b64decode(data["image/png"]))
    cells = [text(f"![words](<{name}>)") for name in names]
    cells += [text('<img src="image (1).png" width="100">')]
    attached = {name: data for name in names}
    cells += [text("".join(f"![x](attachment:{n})" for n in names), **attached)]
    cells += [code("", figure()), code("", figure(4000, 1000))]
    sizes = [
        (width, height)
        for *_, width, height in pictures(printed(*cells, folder=tmp_path))
    ]
    assert len(sizes) == 11
    assert sizes[4] == (75, 38) and sizes[9:] == [(300, 150), (482, 120)]


@pytest.mark.parametrize("lines", range(22, 45, 6))
def test_kept_together(lines):
    """A figure with its caption and what introduces it; a function."""
    filler = "\n\n".join([SENTENCE] * lines)
    hidden = code("#| fig-cap: Caption.\n1", figure(400, 300), tags=["remove-input"])
    pdf = printed(text(filler + "\n\nIntroduced as:"), hidden)
    ((shown_on, _, _),) = pictures(pdf)
    assert number_of("Figure1.Caption.", pdf) == shown_on
    assert number_of("Introducedas:", pdf) == shown_on
    body = "\n".join(f"    line_{n} = {n}" for n in range(40))
    function = f"import this\n\n\ndef start():\n{body}\n    return 'end'\n\n\nother = 1"
    pdf = printed(text(filler), code(function))
    assert number_of("defstart", pdf) == number_of("return'end'", pdf)


def test_long_table_goes_on():
    rows = "\n".join(f"| row {n} |" for n in range(30))
    table = {"text/markdown": f"| a |\n|---|\n{rows}", "text/plain": ""}
    cell = code("#| tbl-cap: Caption.\n1", shown(table), tags=["remove-input"])
    pdf = printed(text("\n\n".join([SENTENCE] * 26)), cell)
    assert number_of("Caption.", pdf) == number_of("row0", pdf) == 1
    assert number_of("row29", pdf) == 2


def test_long_lines_and_wide_tables_stay_on_the_page():
    row = " | ".join(["COMMUNICATIONALLY"] * 9)
    table = text(f"| {row} |\n|{'---|' * 9}\n| {row} |")
    pdf = printed(code("x = '" + "a" * 400 + "'", stream("b " * 300)), table)
    (page,) = pypdfium2.PdfDocument(pdf)
    assert max(right for _, _, right, _ in boxes(page)) < 595 - 50
    on_page = squeezed(pages(pdf)[0])
    assert "a" * 90 in on_page and on_page.count("a") > 400
    assert "b" * 300 in on_page
