"""submission.printer: notebooks of every kind are printed, and the PDFs read back."""

import base64
import importlib.util
import io
import itertools
import json
import re
import subprocess
import sys
import time
import warnings

import matplotlib.pyplot as plt
import nbformat
import pypdf
import pypdfium2
import pypdfium2.raw as pdfium
import pytest
import submission
from matplotlib import animation
from nbconvert.exporters import get_exporter
from PIL import EpsImagePlugin, Image, TiffImagePlugin

import helpers

PAGE = submission.Page("Course · Assignment", "Ada Lovelace")
A4 = (595.3, 841.9)
plt.switch_backend("agg")


# ------------------------------------------------------------------ making notebooks
def markdown(source, **attachments):
    return nbformat.v4.new_markdown_cell(source, attachments=attachments)


def code(source, *outputs):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=1)


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def shown(data, **metadata):
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata)


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def figure(width=4.5, height=2.8, kind="png"):
    """A matplotlib figure as a notebook has it: PNG in base64, or SVG as text."""
    plt.figure(figsize=(width, height), dpi=110)
    plt.plot([1, 3, 2])
    buffer = io.BytesIO()
    plt.savefig(buffer, format=kind)
    plt.close()
    content = buffer.getvalue()
    return content.decode() if kind == "svg" else base64.b64encode(content).decode()


# --------------------------------------------------------------------- reading PDFs
def printed(*cells, page=PAGE):
    return submission.to_pdf([notebook(*cells)], page)


def pages(pdf):
    """The text of each page, without the zero-width spaces where words may break."""
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    return [page.extract_text().replace("\u200b", "") for page in reader.pages]


def squeezed(text):
    """The text without white space: lines may be broken anywhere."""
    return re.sub(r"\s", "", text)


def text_of(*cells, page=PAGE):
    return squeezed("".join(pages(printed(*cells, page=page))))


def fonts(pdf):
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    used = (page["/Resources"].get("/Font", {}) for page in reader.pages)
    return {
        str(font.get_object()["/BaseFont"]) for each in used for font in each.values()
    }


def missing_glyphs(pdf):
    """How many times glyph 0, the box for "no such glyph", is drawn."""
    count = 0
    for page in pypdf.PdfReader(io.BytesIO(pdf)).pages:
        content = pypdf.generic.ContentStream(page.get_contents(), page.pdf)
        for operands, operator in content.operations:
            if operator in (b"Tj", b"TJ"):
                parts = operands[0] if operator == b"TJ" else operands
                for part in parts:
                    if isinstance(part, (bytes, str)):
                        raw = getattr(part, "original_bytes", part)
                        glyphs = zip(raw[::2], raw[1::2])
                        count += sum(pair == (0, 0) for pair in glyphs)
    return count


def boxes(pdf):
    """(left, bottom, right, top) in points of each character and picture on each page."""
    for page in pypdfium2.PdfDocument(pdf):
        text = page.get_textpage()
        yield from (text.get_charbox(index) for index in range(text.count_chars()))
        for item in page.get_objects():
            if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
                yield item.get_bounds()


def assert_on_the_page(pdf):
    for left, bottom, right, top in boxes(pdf):
        assert left >= 10 and bottom >= 10
        assert right <= A4[0] - 10 and top <= A4[1] - 10


def page_of(pdf, word):
    """The numbers of the pages that have `word` on them."""
    return {number for number, text in enumerate(pages(pdf)) if word in text}


def pages_with_pictures(pdf):
    return {
        number
        for number, page in enumerate(pypdfium2.PdfDocument(pdf))
        if any(o.type == pdfium.FPDF_PAGEOBJ_IMAGE for o in page.get_objects())
    }


# ----------------------------------------------------------------- text, code, header
def test_prose_code_and_outputs_are_printed_with_a_header():
    pdf = printed(
        markdown("# A heading\nProse with **bold** and `inline`."),
        code("answer = 6 * 7\nprint(answer)", stream("forty-two\n")),
    )
    (text,) = pages(pdf)
    for words in ("A heading", "Prose with bold and inline.", "answer = 6 * 7"):
        assert words in text
    assert text.index("print(answer)") < text.index("forty-two")
    assert "Course · Assignment" in text and "Ada Lovelace" in text
    assert "page 1 of 1" in text
    assert missing_glyphs(pdf) == 0
    assert_on_the_page(pdf)


def test_pages_are_counted_over_all_notebooks_and_each_starts_a_page():
    parts = [notebook(markdown(f"# Part {n}")) for n in (1, 2, 3)]
    texts = pages(submission.to_pdf(parts, PAGE))
    assert [f"page {n} of 3" in texts[n - 1] for n in (1, 2, 3)] == [True] * 3
    assert [f"Part {n}" in texts[n - 1] for n in (1, 2, 3)] == [True] * 3


def test_code_is_printed_to_the_letter():
    source = 'def f(x: "a\\n#b") -> int:\n    """$x$ @y *z* <w> `v`"""\n    return x["k"] % 2  # ~!\\'
    assert squeezed(source) in text_of(code(source))


def test_only_matplotlibs_fonts_are_needed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: find(n) if n == "matplotlib" else None
    )
    submission.printer._fonts.cache_clear()
    pdf = printed(markdown("Greek αβγ, signs → ⊙ ∈ ✓, Łódź, Привет"), code("x = 1"))
    submission.printer._fonts.cache_clear()
    assert missing_glyphs(pdf) == 0
    assert not [font for font in fonts(pdf) if "LastResort" in font]


needs_fonts = pytest.mark.skipif(
    not importlib.util.find_spec("manimgx_fonts"), reason="the extra fonts is missing"
)


@needs_fonts
@pytest.mark.parametrize(
    "text",
    [
        "Greek αβγδ ΓΔΘ, arrows → ⇒ ↦, signs ⊙ ∈ ∀ ≤ ≈ ∂ ∇ ✓ ☐",
        "中文测试：循环神经网络 かな 한국어",
        "emoji 😀 🚀 🎉 ⚠️ 👍🏽",
        "Ångström, O’Neil, Łódź, Čapek, Привет, שלום, مرحبا, नमस्ते, สวัสดี",
        "█▉▊▋▌▍▎▏ ┌─┐│└┘ ‖ ² ₜ",
    ],
)
def test_every_script_has_its_glyphs_in_prose_code_and_output(text):
    pdf = printed(markdown(text), code(f'x = "{text}"', stream(text)))
    assert missing_glyphs(pdf) == 0
    assert not [font for font in fonts(pdf) if "LastResort" in font]
    assert squeezed("".join(pages(pdf))).count(squeezed(text)[:5]) == 3 or any(
        "\u0590" < letter < "\u0e7f" for letter in text
    )  # pypdf reverses and reorders right-to-left and combining scripts


def test_a_character_without_a_font_is_a_marked_box_and_a_warning():
    with pytest.warns(UserWarning, match=r"𓀀 \(EGYPTIAN.*\.\[fonts\]"):
        pdf = printed(markdown("hieroglyph 𓀀"))
    assert missing_glyphs(pdf) == 0
    assert [font for font in fonts(pdf) if "LastResort" in font]


@pytest.mark.parametrize(
    "formula",
    [
        r"\begin{aligned} a &= b\\ c &= d \end{aligned}",
        r"\begin{align} a &= b \label{eq:a} \tag{1}\\ c &= d \end{align}",
        r"\begin{cases} 1 & x > 0 \\ 0 & \text{otherwise} \end{cases}",
        r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix} \begin{pmatrix} x \end{pmatrix}",
        r"g^{(t)} \odot i^{(t)} \oplus \mathbf{W} \boldsymbol{x} \mathbb{R}^{N \times d}",
        r"\frac{\partial L}{\partial A} = \left(\frac{\partial O}{\partial A}\right)^T",
        r"\min_G \max_D \mathbb{E}_p[\log D(X)] + \mathcal{L} \tilde{y}_k^{(T)}",
        r"\lVert x \rVert_2 \operatorname{softmax}(p) \underbrace{a}_{b} \binom{n}{k}",
        r"\left.\frac{d}{dx}\tanh x\right|_{x=0} \approx 1 - \varepsilon^2, \; x \ll 1",
        "a\n= b % a comment\n+ c\n- d",
        r"\displaystyle \int_0^1 x^{2}\,dx \; \text{and} \! \left[0, 1\right) [0, 1) ]a[",
        r"{\bf d}^k \bf\hat{e} + {\cal L} {\rm d}x",
        r"\class{red}{x} \cssId{y}{z} \LaTeX \large[x] \color{red}{x} \textcolor{red}{y}",
        r"\begin{cases}a & b\cr c & d\end{cases} a \not= b \nexists 50\% \$ \& \# \_",
        r"\overrightarrow{AB} \widehat{xyz} \overline{ab} \underline{c} \boxed{x} \cancel{y}",
        r"\sum\limits_{i=1}^n \prod_{\substack{a\\b}} \xrightarrow{d} \operatorname*{argmin}_x f",
        r"\left<x\middle| y\right> \lvert z\rvert \bigg(\frac12\bigg) \pmod{n} x'' f'^2",
        r"\sqrt[3]{x} \dfrac{a}{b} \tfrac12 \cfrac{1}{1+x} \mathbb{1} \mathscr{L} \mathfrak{g}",
        r"a \\ b",
        "x\\ \\ ",
        r"c \space \$ d",
        r'\text{if "a`"} "b"',
    ],
)
def test_formulas_are_set(formula):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (f"$${formula}$$", f"in $ {formula}$ line".replace("$ ", "$")):
            pdf = printed(markdown(source))
            assert "\\" not in "".join(pages(pdf)) and missing_glyphs(pdf) == 0
            assert [font for font in fonts(pdf) if "Math" in font]


@pytest.mark.parametrize(
    "tex, same",
    [
        (r"\begin{bmatrix}1\\2\\ \end{bmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (
            r"\left[\begin{array}{c}1\\2\end{array}\right]",
            r"\begin{bmatrix}1\\2\end{bmatrix}",
        ),
        (
            r"\begin{aligned}[t]a&=b\\&=c\end{aligned}",
            r"\begin{split}a&=b\\&=c\end{split}",
        ),
        (r"\begin{matrix}1\cr2\end{matrix}", r"\begin{matrix}1\\2\end{matrix}"),
        (r"{\bf x}", r"\mathbf{x}"),
        (r"\pmatrix{1 & 2\cr3 & 4}", r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}"),
        (r"\left(a \over b\right) {1\over 2}", r"\left(\frac{a}{b}\right) \frac{1}{2}"),
        (r"\newcommand{\z}[1]{1 \over #1}\z{x}", r"\frac{1}{x}"),
        (r"\mid\mid x\mid\mid_2", r"\Vert x\Vert_2"),
        (r"\newcommand{\z}[1]{|#1|}\z{x}", "|x|"),
        (r"\def\z{x}\z+\z", "x+x"),
    ],
)
def test_what_is_the_same_looks_the_same(tex, same):
    assert letter_boxes(f"$${tex}$$") == letter_boxes(f"$${same}$$")


def test_what_is_above_and_what_stretches():
    found = letter_boxes(r"$\overset{a}{b} \underset{c}{d}$")
    for high, low in (("𝑎", "𝑏"), ("𝑑", "𝑐")):
        assert (
            abs(sum(found[high][::2]) - sum(found[low][::2])) < 2
        )  # one over the other
        assert found[high][1] > found[low][3]
    for tex, bar in (
        (r"\begin{vmatrix}a\\b\end{vmatrix}", "|"),
        (r"\left\{\begin{array}{ll}a\\b\\ \end{array}\right.", "{"),
        (r"\left.\frac{a}{b}\right|", "|"),
    ):
        found = letter_boxes(f"$${tex}$$")
        bars = [b for c, b in found.items() if c not in "𝑎𝑏 \r\n"]
        top, bottom = max(b[3] for b in bars), min(b[1] for b in bars)
        assert bottom < found["𝑏"][1] and top > found["𝑎"][3], bar


def test_macros_last_through_the_notebook():
    cells = (
        markdown(r"$\newcommand{\ket}[1]{\langle #1 \rangle} \def\half{\tfrac12}$"),
        markdown(r"and $\ket{\psi}$"),
        code("x", shown({"text/latex": r"$\half \ket{y}$"})),
        markdown(r"$\renewcommand{\ket}[1]{[#1]} \ket{z}$"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = text_of(*cells)
    assert "⟨𝜓⟩" in text and "⟨𝑦⟩" in text and "[𝑧]" in text and "\\" not in text


def test_labelled_equations_have_numbers_and_references_are_links():
    first = r"\begin{equation}\label{eq:a} a = b \end{equation}"
    second = (
        r"$$c = d \tag{X} \label{eq:b}$$ by \eqref{eq:a}, $\eqref{eq:b}$, \ref{eq:a}"
    )
    pdf = printed(markdown(first), markdown(second + r" and \eqref{none}"))
    text = squeezed("".join(pages(pdf)))
    assert "by(1),(X),1and\\eqref{none}" in text and text.count("(X)") == 2
    assert targets_of(pdf) == [0, 0, 0]


def test_equation_numbers_stand_at_the_margin_and_none_is_lost():
    one, two = (
        "\n".join(pages(printed(markdown(f"$$\\begin{{align}}{tex}\\end{{align}}$$"))))
        for tex in (r"a &= b \tag{7} \\ c &= d", r"a &= b \tag{3}\\ c &= d \tag{4}")
    )
    assert "(7)" in one and "(3)" in two and "(4)" in two
    for source in (r"$$x = y \tag{12.3}$$", r"$$x = y \quad (4)$$"):
        pdf = printed(markdown(source))
        assert max(right for _, _, right, top in boxes(pdf) if top < 785) > 530


def letter_boxes(tex):
    """{character: (left, bottom, right, top)} of a formula, the last of each kind."""
    (page,) = pypdfium2.PdfDocument(printed(markdown(tex), page=submission.Page("~")))
    text = page.get_textpage()
    found, high = {}, 0
    for index in range(text.count_chars()):
        number = pdfium.FPDFText_GetUnicode(text.raw, index)
        box = text.get_charbox(index)
        if 0xDC00 <= number < 0xE000:  # the second half of a letter
            number += (high - 0xD800) * 0x400 + 0x10000 - 0xDC00
        if box[3] < 785:
            found[chr(number)] = box
        high = number
    return found


@pytest.mark.parametrize(
    "tex, letter, bar",
    [
        ("$|x|$", "𝑥", "|"),
        (r"$\|x\|$", "𝑥", "‖"),
        (r"$\Vert y \Vert$", "𝑦", "‖"),
        (r"$\mid\mid y \mid\mid_2$", "𝑦", "‖"),
        ("$$|x| = |y|$$", "𝑦", "|"),
    ],
)
def test_bars_are_close_to_what_they_enclose(tex, letter, bar):
    found = letter_boxes(tex)
    assert 0 <= found[bar][0] - found[letter][2] < 2.5


def test_a_formula_without_dollars_is_set_too():
    text = text_of(markdown("\\begin{equation}\nE = m\n\\end{equation}"))
    assert "begin" not in text


def test_a_formula_that_pandoc_does_not_know_is_printed_as_tex_with_a_warning():
    with pytest.warns(UserWarning, match="printed as TeX.*nosuchmacro"):
        assert r"\nosuchmacro" in text_of(markdown(r"$\nosuchmacro x$"))


def test_dollars_in_prose_are_no_formula():
    assert "from$5to$6each" in text_of(markdown("from $5 to $6 each"))
    text = text_of(markdown(r"a 3$\times$3 grid, the $\alpha $5 and $8 cost"))
    assert "a3×3grid,the$\\alpha$5and$8cost" in text


def test_html_in_markdown_means_what_it_means():
    source = (
        "a <b>bold</b> <sub>low</sub><br>next <font color='red'>red</font> <odd>odd</odd>"
        " *year*.txt <a href='https://example.org/q'>there</a> <!-- unseen -->"
        "\n\n<center>In the <i>middle</i></center>\n\n<div align='center'>"
        "\n\n## Heading of $x<y$\n\n</div>\n\n<script>alert(1)</script>"
        "\n\n<ul><li>one $a<b$</li></ul> \\$5 and $$y$$ costs $6 to $7"
    )
    pdf = printed(markdown(source))
    text = squeezed("".join(pages(pdf)))
    assert "boldlow" in text and "nextredoddyear.txtthere" in text
    assert "Inthemiddle" in text and "Headingof𝑥<𝑦" in text and "one𝑎<𝑏" in text
    assert "$5and" in text and "costs$6to$7" in text
    for lost in ("<b>", "</", "font", "unseen", "script", "align"):
        assert lost not in text
    assert targets_of(pdf) == ["https://example.org/q"]
    assert any("Bold" in font or "SemiBold" in font for font in fonts(pdf))
    page = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    first = page.get_charbox(page.get_text_range().index("In the"))
    assert first[0] > 200


@pytest.mark.parametrize(
    "source, title",
    [
        ("> [!NOTE]\n> the words", "Note"),
        ("> [!WARNING]\n> the words", "Warning"),
        ('<div class="alert alert-block alert-danger">the words</div>', ""),
        ('<div class="alert alert-info">\n\nthe **words**\n\n</div>', ""),
    ],
)
def test_alerts_are_boxes(source, title):
    pdf = printed(markdown(source))
    text = squeezed("".join(pages(pdf)))
    assert f"{title}thewords" in text and "[!" not in text and "class" not in text
    picture = pypdfium2.PdfDocument(pdf)[0].render(scale=1).to_pil()
    page = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    box = page.get_charbox(page.get_text_range().index("the"))
    assert picture.getpixel((int(box[0]) - 3, int(A4[1] - box[1]))) != (255, 255, 255)


def test_a_table_whose_cells_leave_tags_open_is_a_table():
    head, row = "<tr><th>a<br>b<th><tt>c", "<tr><td>$x$<td><tt>d<b>e<td>f"
    pdf = printed(markdown(f"Here\n\n<table>\n{head}\n{row}\n</table>"))
    page = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    letters = page.get_text_range()
    first, last = (page.get_charbox(letters.rindex(letter)) for letter in "df")
    assert first[1] == pytest.approx(last[1], abs=3) and first[0] < last[0]


def test_words_between_the_rows_of_a_table_stand_behind_it():
    rows = "<tr><th>1</th><td>k</td></tr></tbody></table>"
    source = (
        f"<table><thead><tr><th></th><th>h</th></tr></thead><tbody><p>one row</p>{rows}"
    )
    (page,) = pypdfium2.PdfDocument(printed(code("x", shown({"text/html": source}))))
    letters = page.get_textpage().get_text_range()
    head, cell, word = (
        page.get_textpage().get_charbox(letters.rindex(c)) for c in "hkw"
    )
    assert head[0] == pytest.approx(cell[0], abs=3) and head[1] > cell[1] > word[1]


def test_footnotes_and_task_lists():
    note = "text[^n] and <b>bold</b>\n\n[^n]: the *note*\n\n- [x] done\n- [ ] open"
    for source in (note, note.replace("<b>bold</b>", "plain")):
        text = text_of(markdown(source))
        assert "text1and" in text and "1thenote" in text and "^" not in text
        assert "done" in text and "[x]" not in text


def targets_of(pdf):
    """Where the links of the first page go: addresses, or numbers of pages."""
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    found = []
    for annotation in reader.pages[0].get("/Annots", []):
        annotation = annotation.get_object()
        if "/A" in annotation and "/URI" in annotation["/A"]:
            found.append(annotation["/A"]["/URI"])
        else:
            destination = annotation.get("/Dest") or annotation["/A"]["/D"]
            destination = destination.get_object()
            if not isinstance(destination, list):
                destination = reader.named_destinations[destination].dest_array
            found.append(reader.get_page_number(destination[0].get_object()))
    return found


def test_links_go_to_headings_and_anchors_of_any_cell():
    links = "[a](#The-Heading-(old)) [b](#anchor) [c](#the-heading-old) [d](#none)"
    target = "# The Heading (old) <a id='anchor'>\n\ntext"  # often left open
    pdf = submission.to_pdf(
        [notebook(markdown(links)), notebook(markdown(target))], PAGE
    )
    assert targets_of(pdf) == [1, 1, 1]
    assert "a b c d" in pages(pdf)[0]
    (heading,) = pypdf.PdfReader(io.BytesIO(pdf)).outline
    assert heading.title.strip() == "The Heading (old)"


@pytest.mark.parametrize("source", ["![words]({})", '<img alt="words" src="{}">'])
def test_a_picture_elsewhere_is_a_link(source):
    address = "https://example.org/a.png"
    pdf = printed(markdown(source.format(address)))
    assert targets_of(pdf) == [address] and "words" in pages(pdf)[0]


@pytest.mark.parametrize(
    "width, points",
    [('width="96"', 72), ('style="width: 10%"', 48), ('width="96px"', 72)],
)
def test_a_picture_in_html_has_its_width(width, points):
    uri = f"data:image/png;base64,{figure()}"
    pdf = printed(markdown(f'<img {width} src="{uri}">'))
    (item,) = [
        o
        for o in pypdfium2.PdfDocument(pdf)[0].get_objects()
        if o.type == pdfium.FPDF_PAGEOBJ_IMAGE
    ]
    left, _, right, _ = item.get_bounds()
    assert right - left == pytest.approx(points, abs=1)


def test_links_are_links():
    pdf = printed(markdown("see [the book](https://example.org/a?b=c) and [up](#top)"))
    page = pypdf.PdfReader(io.BytesIO(pdf)).pages[0]
    targets = [a.get_object()["/A"]["/URI"] for a in page["/Annots"]]
    assert targets == ["https://example.org/a?b=c"]
    assert "and up" in pages(pdf)[0]


# ---------------------------------------------------------------------------- outputs
def colour_of(pdf, word):
    text = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    index = text.get_text_range().index(word)
    parts = [pdfium.c_uint() for _ in range(4)]
    pdfium.FPDFText_GetFillColor(text.raw, index, *parts)
    return tuple(part.value for part in parts[:3])


def test_ansi_colours():
    pdf = printed(
        code("f()", stream("\x1b[31mwarm\x1b[0m plain \x1b[38;2;1;2;250mcold"))
    )
    assert "warm plain cold" in pages(pdf)[0]
    red, green, blue = colour_of(pdf, "warm")
    assert red > 150 > max(green, blue)
    assert colour_of(pdf, "plain") == (0, 0, 0)
    assert colour_of(pdf, "cold") == (1, 2, 250)


def test_terminal_codes_leave_no_trace():
    text = (
        "\x1b]8;;http://x\x07link\x1b]8;;\x07 \x1b[2K\x1b[1Gdone\x08\x00\x07 \x1b(B end"
    )
    assert "linkdoneend" in text_of(code("f()", stream(text)))


def test_warnings_and_progress_bars_are_not_printed():
    bars = "".join(f"\rtrain: {n}%|##  | {n}/100 [00:01<00:02, 9it/s]" for n in (1, 99))
    tqdm = {"text/plain": "train: 100%|████| 10/10 [00:01<00:00,  9.99it/s, loss=1]"}
    warning = (
        "/a/b.py:12: ConvergenceWarning: it failed:\nSTOP.\n\n    see there\n  f(x)\n"
    )
    text = text_of(
        code("f()", stream(warning, "stderr"), stream(bars), shown(tqdm)),
        code("g()", stream("old\rnew\r\n50% of them | 1 [2]\n")),
        code("h()", stream(bars.replace("\r", "\n"), "stderr")),
    )
    assert "it/s" not in text and "old" not in text
    assert "Warning" not in text and "STOP" not in text and "f(x)" not in text
    assert "new" in text and "50%ofthem|1[2]" in text


def test_a_program_may_print_what_looks_like_a_progress_bar():
    line = "cell 3: 40%|###  | 4/10 [00:01<00:02, 9it/s]"
    assert squeezed(line) in text_of(code("x", stream(f"{line}\n")))


def test_reports_of_tests_and_logs_are_printed():
    report = (
        "." * 3 + "F\n" + "=" * 70 + "\nFAIL: test_a\nRan 4 tests in 0.1s\n\nFAILED\n"
    )
    log = "INFO:root:epoch 1\nWARNING:root:slow\n"
    warning = "/a/b.py:1: UserWarning: odd\n"
    text = text_of(
        code("x", stream(warning + report, "stderr")), code("y", stream(log, "stderr"))
    )
    for line in (report + log).split():
        assert line in text
    assert "odd" not in text


OBJECT = {"text/plain": "<IPython.core.display.HTML object>"}


def test_html_outputs_print_their_text():
    page = (
        "<style>.a{}</style><h2>Title</h2><p>some <b>words</b></p><script>x()</script>"
    )
    uri = f"data:image/png;base64,{figure()}"
    address = "https://example.org/v"
    pdf = printed(
        code("x", shown({**OBJECT, "text/html": page})),
        code("y", shown({**OBJECT, "text/html": f"<img src='{uri}'>"})),
        code("y", shown({**OBJECT, "text/html": f'<iframe src="{address}"></iframe>'})),
        code("z", shown({"text/plain": "PLAIN", "text/html": "<div>widget</div>"})),
        code(
            "j",
            shown({"text/plain": 'HTML{String}("<p>j\n")', "text/html": "<p>julia"}),
        ),
        code(
            "z", shown({"text/plain": "<A at 0x1>", "text/html": "<script>a</script>"})
        ),
    )
    text = squeezed("".join(pages(pdf)))
    assert "Titlesomewords" in text and "x()" not in text and ".a" not in text
    assert "HTMLobject" not in text and "<Aat0x1>" in text
    assert "PLAIN" in text and "widget" not in text
    assert "julia" in text and "String" not in text
    assert pages_with_pictures(pdf) == {0} and targets_of(pdf) == [address]


def test_html_that_shows_nothing_prints_nothing():
    style = {**OBJECT, "text/html": "<style>a{}</style><button>press</button>"}
    script = {**OBJECT, "text/html": "<script>plot()</script>"}
    text = text_of(code("x", shown(style)), code("y", shown(script)))
    assert "object" not in text and "press" not in text
    assert text.count("interactiveoutput") == 1


def test_pictures_in_a_table_of_an_output_are_drawn():
    cell = f'<td><img src="data:image/png;base64,{figure()}"></td>'
    html = f"<table><tr><td>a</td>{cell}</tr></table>"
    pdf = printed(code("x", shown({"text/html": html})))
    assert pages_with_pictures(pdf) == {0} and "base64" not in pages(pdf)[0]


def test_a_plotly_figure_without_a_picture_is_named():
    data = {"data": [], "layout": {"title": {"text": "Loss by epoch"}}}
    page = {"text/html": "<div></div><script>plot()</script>"}
    for more in ({}, page):
        text = text_of(
            code("x", shown({"application/vnd.plotly.v1+json": data, **more}))
        )
        assert "Lossbyepoch" in text and "interactivefigure" in text


def test_the_colours_of_a_table_are_those_of_its_style():
    style = "#T_a_row0_col0, #T_a_row1_col0 {\n  background-color: #ffff00;\n  color: #0102fa;\n}"
    cells = "".join(
        f'<td id="T_a_row{n}_col0" class="data">cell{n}</td>' for n in (0, 2)
    )
    html = f"<style type='text/css'>{style}</style><table><tr>{cells}</tr></table>"
    pdf = printed(code("df", shown({"text/html": html})))
    assert colour_of(pdf, "cell0") == (1, 2, 250)
    assert colour_of(pdf, "cell2") == (0, 0, 0)


def test_a_drawing_in_html_is_drawn():
    svg = (
        '<svg width="90"height="90"><rect width="90" height="90" fill="#0102fa"/></svg>'
    )
    pdf = printed(
        code("x", shown({**OBJECT, "text/html": f"<div>{svg}</div><p>below"}))
    )
    picture = pypdfium2.PdfDocument(pdf)[0].render(scale=0.5).to_pil().convert("RGB")
    assert (1, 2, 250) in picture.getdata() and "below" in pages(pdf)[0]


def test_a_small_picture_among_words_is_in_the_line():
    uri = f"data:image/png;base64,{figure(0.3, 0.2)}"
    pdf = printed(markdown(f'before <img width="20" src="{uri}"> after'))
    text = pypdfium2.PdfDocument(pdf)[0].get_textpage()
    letters = text.get_text_range()
    first, last = (text.get_charbox(letters.index(w)) for w in ("before", "after"))
    assert first[1] == pytest.approx(last[1], abs=1)


def test_outputs_look_different_from_code():
    pdf = printed(code("the_code", stream("the_output")))
    picture = pypdfium2.PdfDocument(pdf)[0].render(scale=1).to_pil()
    text = pypdfium2.PdfDocument(pdf)[0].get_textpage()

    def background(word):
        left, bottom, _, _ = text.get_charbox(text.get_text_range().index(word))
        return picture.getpixel((int(left) - 3, int(A4[1] - bottom)))

    assert background("the_code") != background("the_output") == (255, 255, 255)


def test_long_lines_go_on_in_the_next_line():
    lines = ["x" * 300, "word " * 60, "1.0 " * 75, "列" * 150, "—" * 300]
    pdf = printed(
        *[markdown(line) for line in lines],
        *[code(f"y = '{line}'", stream(line)) for line in lines],
        markdown(f"`{'c' * 300}` and\n\n    {'b' * 300}\n\n[{'l' * 300}](http://x)"),
    )
    assert_on_the_page(pdf)
    text = squeezed("".join(pages(pdf)))
    assert text.count("x" * 300) == 3 and text.count("列" * 150) == 3


@pytest.mark.parametrize("columns", [3, 21, 40, 100])
def test_tables_stay_on_the_page(columns):
    names = [f"name_{n}" for n in range(columns)]
    row = [f"{n / 7:.4f}" for n in range(columns)]
    html = "".join(f"<th>{name}</th>" for name in names)
    html += "</tr><tr>" + "".join(f"<td>{value}</td>" for value in row)
    html = f"<style>.a{{}}</style><table><tr>{html}</tr></table>"
    lines = ["|".join(names), "|".join(["---"] * columns), "|".join(row)]
    pdf = printed(
        markdown("\n".join(f"|{line}|" for line in lines)),
        code("df", shown({"text/html": html, "text/plain": "PLAIN"})),
    )
    assert_on_the_page(pdf)
    text = squeezed("".join(pages(pdf)))
    assert text.count(row[-1]) == 2 and text.count(names[-1]) == 2
    assert "PLAIN" not in text and "style" not in text


def test_a_long_table_goes_on_under_its_head():
    rows = "".join(f"<tr><td>row {n}</td><td>{n}</td></tr>" for n in range(200))
    head = "<thead><tr><th>the head</th><th>n</th></tr></thead>"
    html = f"<table>{head}<tbody>{rows}</tbody></table>"
    texts = pages(printed(code("df", shown({"text/html": html}))))
    assert len(texts) > 2 and all("the head" in text for text in texts)
    assert "row 0" in texts[0] and "row 199" in texts[-1]


def test_a_picture_has_its_own_size_and_a_large_one_is_made_smaller():
    pdf = printed(
        code("small", shown({"image/png": figure(4.5, 2.8)})),
        code("wide", shown({"image/png": figure(30, 3)})),
        code("tall", shown({"image/png": figure(3, 30)})),
        code("svg", shown({"image/svg+xml": figure(30, 2, "svg")})),
    )
    assert_on_the_page(pdf)
    sizes = [
        (right - left, top - bottom)
        for page in pypdfium2.PdfDocument(pdf)
        for item in page.get_objects()
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE
        for left, bottom, right, top in [item.get_bounds()]
    ]
    assert sizes[0] == pytest.approx((4.5 * 72, 2.8 * 72), abs=2)
    assert (
        sizes[1][0] == pytest.approx(10 * sizes[1][1], rel=0.02) and sizes[1][0] > 400
    )
    assert (
        sizes[2][1] == pytest.approx(10 * sizes[2][0], rel=0.05) and sizes[2][1] > 400
    )


def test_a_picture_takes_the_width_that_the_notebook_gives_it():
    for metadata in ({"image/png": {"width": 96}}, {"width": 96}):
        pdf = printed(code("f", shown({"image/png": figure()}, **metadata)))
        (left, _, right, _) = list(boxes(pdf))[-1]
        assert right - left == pytest.approx(72, abs=1)


def test_an_animation_shows_its_first_frame():
    plt.figure()
    frames = animation.FuncAnimation(plt.gcf(), lambda n: plt.plot([n]), frames=2)
    source = frames.to_jshtml()
    plt.close()
    assert pages_with_pictures(printed(code("x", shown({"text/html": source})))) == {0}


def test_a_wide_formula_is_made_smaller():
    terms = " + ".join(f"a_{{{n}}}" for n in range(60))
    row = " & ".join(f"b_{{{n}}}" for n in range(40))
    pdf = printed(
        markdown(
            f"$${terms}$$\n\n$$\\begin{{bmatrix}}{row}\\end{{bmatrix}}$$\n\n${terms}$"
        )
    )
    assert_on_the_page(pdf)


def test_long_names_and_headings_stay_in_the_header():
    page = submission.Page("Course " * 12, "Ada " * 20)
    pdf = printed(markdown("prose"), page=page)
    assert_on_the_page(pdf)
    assert "page 1 of 1" in pages(pdf)[0]


def test_output_of_many_digits_is_printed():
    """A search for progress bars that backtracks would not end here."""
    assert "77775%|" in text_of(code("x", stream("7" * 100_000 + " 5%|")))


def test_pictures_in_markdown():
    bundle = {"image/png": figure()}
    uri = f"data:image/png;base64,{bundle['image/png']}"
    pdf = printed(
        markdown(f"![a](attachment:a%20b.png)\n\n![b]({uri})", **{"a b.png": bundle}),
        markdown(f'<img src="{uri}" width="50">\n\nand <img src="{uri}"/> inline'),
        markdown("![a missing one](figures/none.png)"),
    )
    items = [o for page in pypdfium2.PdfDocument(pdf) for o in page.get_objects()]
    assert sum(item.type == pdfium.FPDF_PAGEOBJ_IMAGE for item in items) == 4
    text = "".join(pages(pdf))
    assert "[picture: a missing one]" in text and "base64" not in text


TALL = "A sentence that is long enough to fill a line of its column several times. "


@pytest.mark.parametrize("rows, words", [(15, 3), (15, 60), (1, 600), (40, 3)])
def test_tall_tables_stay_on_the_page(rows, words):
    cell = TALL * (words // 3)
    table = "| a | b | c |\n|---|---|---|\n" + f"| {cell} | x | {cell} |\n" * rows
    html = f"<tr><td>{cell}</td><td>{cell}</td></tr>" * rows
    pdf = printed(markdown(table), code("x", shown({"text/html": f"<table>{html}"})))
    assert_on_the_page(pdf)
    assert "".join(pages(pdf)).count("enough") == 4 * rows * (words // 3)


@pytest.mark.parametrize("columns", [2, 10, 20])
def test_long_words_in_tables_neither_leave_the_page_nor_overlap(columns):
    words = [f"a_rather_long_column_name_of_{n:02}" for n in range(columns)]
    row = "".join(f"<td>{word}</td>" for word in words)
    pdf = printed(code("x", shown({"text/html": f"<table><tr>{row}</tr></table>"})))
    assert_on_the_page(pdf)
    for page in pypdfium2.PdfDocument(pdf):
        text = page.get_textpage()
        chars = [
            text.get_charbox(index)
            for index in range(text.count_chars())
            if text.get_text_range(index, 1).strip("_ \r\n\u200b\ufffe")
        ]
        for first, second in itertools.combinations(chars, 2):
            wide = min(first[2], second[2]) - max(first[0], second[0])
            high = min(first[3], second[3]) - max(first[1], second[1])
            assert wide < 1 or high < 1


def test_results_are_printed_as_the_table_beside_them():
    table = "| result | value |\n|---|---:|\n| error | 0.25 |"
    bundle = {"text/markdown": table, helpers.RESULTS_MIME: {"error": 0.25, "n": 71}}
    text = text_of(code("x", shown(bundle)))
    assert "error0.25" in text and "|" not in text and "71" not in text


TAGS = {
    "remove-cell": [False, False],
    "remove-input": [False, True],
    "hide-input": [False, True],
    "remove-output": [True, False],
    "nbval-skip": [True, True],
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("hide_code", [False, True])
def test_tags_leave_out_what_jupyter_leaves_out(tag, hide_code):
    cell = code("the_code", stream("the_output"))
    cell.metadata["tags"] = [tag]
    page = submission.Page("Course", hide_code=hide_code)
    text = text_of(cell, page=page)
    expected = [TAGS[tag][0] and not hide_code, TAGS[tag][1]]
    assert ["the_code" in text, "the_output" in text] == expected


def test_a_markdown_cell_can_be_removed():
    cell = markdown("hidden words")
    cell.metadata["tags"] = ["remove-cell"]
    assert "hidden" not in text_of(cell, markdown("shown"))


def test_details_are_printed_in_full_under_their_summary():
    fold = "<details><summary>Code of <code>f</code></summary>\n\n{}\n\n</details>"
    text = text_of(markdown(fold.format("```python\nx = 1\n```")))
    assert "Codeoffx=1" in text and "<" not in text


def test_pictures_have_the_alternative_text_of_the_output_the_cell_or_the_heading():
    png = {"image/png": figure()}
    pdf = printed(
        markdown("# 1. A heading"),
        code("plot()", shown(png)),
        code("plot()", shown(png, **{"image/png": {"alt": "Loss falls"}})),
        code("#| fig-alt: Accuracy rises\nplot()", shown(png)),
    )
    root = pypdf.PdfReader(io.BytesIO(pdf)).trailer["/Root"]["/StructTreeRoot"]
    alts, nodes = [], [root]
    while nodes:
        node = nodes.pop().get_object()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            alts += [node["/Alt"]] if "/Alt" in node else []
            nodes += [node["/K"]] if "/K" in node else []
    assert sorted(alts) == ["A heading", "Accuracy rises", "Loss falls"]


@pytest.mark.parametrize(
    "text, metadata, language",
    [
        ("words", {}, "en"),
        ("循环神经网络 RNN", {}, "zh"),
        ("ニューラルネット", {}, "ja"),
        ("слова", {}, "ru"),
        ("mots", {"lang": "fr"}, "fr"),
        ("α words of English", {"lang": 3}, "en"),
    ],
)
def test_the_metadata_name_language_title_and_authors(text, metadata, language):
    metadata = metadata | {"title": "A title", "authors": [{"name": "Ada"}, "Grace", 3]}
    cells = [markdown(f"# One\n{text}\n## Two"), markdown("# Three")]
    document = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pdf, _ = submission.TypstPDFExporter().from_notebook_node(document)
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    assert reader.trailer["/Root"]["/Lang"] == language
    assert reader.metadata.title == "A title" and "Grace" in reader.metadata.author
    first, inside, last = reader.outline
    assert [first.title, inside[0].title, last.title] == ["One", "Two", "Three"]
    assert "A title" in reader.pages[0].extract_text()


def test_an_accessible_pdf_can_be_asked_for():
    png = {"image/png": figure()}
    cells = [
        markdown("### Deep first\n$x^2$ ![](attachment:a)\n# Top\n#### Deep", a=png),
        code("plot()", shown(png), shown({"text/html": "<table><tr><td>1"})),
    ]
    exporter = submission.TypstPDFExporter(pdf_standard="ua-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdf, _ = exporter.from_notebook_node(notebook(*cells))
    assert b"pdfuaid" in pdf
    exporter.pdf_standard = "none-such"
    with pytest.raises(submission.PrintError, match="none-such"):
        exporter.from_notebook_node(notebook(*cells))


def test_a_table_or_a_rule_at_the_end_of_a_cell():
    text = text_of(
        markdown("| a | b |\n|---|---|\n| 1 | 2 |"), markdown("prose\n\n***")
    )
    assert "|" not in text and "*" not in text and "ab12prose" in text


@pytest.mark.parametrize("start", ["- 5", "+ 5", "= 5", "1. x", "/ a: b", "* 5"])
def test_what_starts_a_list_is_text_in_a_table(start):
    html = f"<table><tr><td>{start}</td></tr></table>"
    assert squeezed(start) in text_of(code("x", shown({"text/html": html})))


def test_dashes_and_dots_are_text():
    prose = "Use --execute --- so-?what ... http://a.b/c--d or f(--x).y[1]"
    assert squeezed(prose) in text_of(markdown(prose))
    html = f"<table><tr><td>{prose}</td></tr></table>"
    assert squeezed(prose) in text_of(code("x", shown({"text/html": html})))


@pytest.mark.parametrize(
    "broken", ["\x1b[38mB", "\x1b[48mB", "\x1b[38;5mB", "\x1b[31;m B"]
)
def test_a_broken_colour_code_is_left_out(broken):
    assert "beforeB" in text_of(code("x", stream(f"before{broken}\n")))


def test_formulas_in_tables_and_quotations():
    table = "| a | b |\n|---|---|\n| first | $|y| + 2$ |\n"
    assert "first|𝑦|+2" in text_of(markdown(table))
    quotation = text_of(markdown("> $$\n> a\n> = b\n> $$"))
    assert "𝑎=𝑏" in quotation and ">" not in quotation


@pytest.mark.parametrize("kind", ["array}{c|c", "smallmatrix", "matrix"])
def test_the_columns_of_a_matrix_are_apart(kind):
    name = kind.partition("}")[0]
    tex = rf"$$\begin{{{kind}}} 1 & 2 \\ \hline 3 & 4 \end{{{name}}}$$"
    if "array" not in kind:
        tex = tex.replace(r"\hline", "")
    (page,) = pypdfium2.PdfDocument(printed(markdown(tex)))
    text = page.get_textpage()
    letters = text.get_text_range()
    box = {c: text.get_charbox(letters.index(c)) for c in "34"}
    assert box["4"][0] - box["3"][2] > 3


@pytest.fixture
def with_pictures(tmp_path):
    """The folder of a notebook, pictures in it and one outside."""
    content = base64.b64decode(figure())
    folder = tmp_path / "course"
    (folder / "figs").mkdir(parents=True)
    for name in ("course/figs/x.png", "course/figs/my fig.png", "outside.png"):
        (tmp_path / name).write_bytes(content)
    (folder / "figs" / "v.svg").write_text(figure(kind="svg"))
    (folder / "text.png").write_text(SECRET)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    return folder


@pytest.mark.parametrize(
    "source",
    [
        "![a](figs/x.png)",
        "![a](<figs/my fig.png>)",
        "![a](figs/my%20fig.png)",
        '![a](./figs/x.png "title")',
        '<img src="figs/x.png" width="100"/>',
        "inline <img alt='a' src='figs/x.png'> text",
    ],
)
def test_a_picture_beside_the_notebook_is_drawn(source, with_pictures):
    pdf = submission.to_pdf([notebook(markdown(source))], PAGE, with_pictures)
    assert pages_with_pictures(pdf) == {0}
    assert "picture:" not in pages(pdf)[0]


def test_a_drawing_beside_the_notebook_is_drawn(with_pictures):
    cells = [notebook(markdown("![a](figs/v.svg)"))]
    text = "".join(pages(submission.to_pdf(cells, PAGE, with_pictures)))
    assert "picture:" not in text


@pytest.mark.parametrize(
    "source",
    ["../outside.png", "figs/../../outside.png", "link.png", "{folder}/../outside.png"],
)
def test_a_picture_outside_the_folder_is_not_drawn(source, with_pictures):
    source = source.format(folder=with_pictures)
    cells = [notebook(markdown(f"![a]({source})"))]
    pdf = submission.to_pdf(cells, PAGE, with_pictures)
    assert pages_with_pictures(pdf) == set()
    assert "[picture: a]" in pages(pdf)[0]


@pytest.mark.filterwarnings("ignore:printed as plain text")
def test_a_file_that_is_no_picture_gives_words(with_pictures):
    cells = [notebook(markdown("![a](text.png)"))]
    assert SECRET not in "".join(pages(submission.to_pdf(cells, PAGE, with_pictures)))


@pytest.mark.parametrize("here", [False, True])
def test_nbconvert_finds_the_pictures_beside_the_notebook(
    here, with_pictures, monkeypatch
):
    path = with_pictures / "n.ipynb"
    nbformat.write(notebook(markdown("![a](figs/x.png)")), path)
    if here:
        monkeypatch.chdir(with_pictures)
    name = path.name if here else str(path)
    pdf, _ = submission.TypstPDFExporter().from_filename(name)
    assert pages_with_pictures(pdf) == {0}


def test_formulas_may_have_blanks_beside_their_dollars():
    source = r"$ c_t $ and $ \{a_t\}_{t \geq 0} $; $5 and $6 are prices"
    text = text_of(markdown(source))
    assert "{𝑎" in text and "\\" not in text and "$5and$6areprices" in text


@pytest.mark.parametrize(
    "tex", [r"\overrightarrow{AB}", r"\widehat{xyz}", r"\mathtt{xy}", r"\texttt{xy}"]
)
def test_names_of_the_style_do_not_shadow_those_of_formulas(tex):
    text = text_of(markdown(f"${tex}$"))
    assert "rgb" not in text and "DejaVu" not in text and "(" not in text


def with_dots(dots, kind="JPEG"):
    """A picture in base64 that claims so many dots per inch."""
    exif = Image.Exif()
    exif[0x011A] = exif[0x011B] = TiffImagePlugin.IFDRational(dots)
    exif[0x0128] = 2
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "green").save(buffer, kind, exif=exif)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("dots", [72, 96.5, 2147483648])
def test_odd_dots_per_inch_draw_a_picture(dots):
    pdf = printed(code("x", shown({"image/jpeg": with_dots(dots)})))
    assert pages_with_pictures(pdf) == {0}
    assert_on_the_page(pdf)


@pytest.mark.filterwarnings("ignore:printed as plain text")
def test_pillow_tries_no_format_but_those_of_notebooks(monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "EPS")
    eps = base64.b64encode(buffer.getvalue()).decode()
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail())
    assert "cannotbedrawn" in text_of(code("x", shown({"image/png": eps})))


def test_bad_base64_in_an_svg_prints_the_words_around_it():
    text = text_of(markdown("before ![](data:image/svg+xml;base64,AAAAA) after"))
    assert "before" in text and "after" in text


def test_an_svg_in_a_data_uri_is_drawn():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>W</text></svg>'
    uri = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    assert "before*" not in text_of(markdown(f"*before* ![]({uri})"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("# A\n````\n```\n# no\n```\n````\n## B ##", ["A", "B"]),
        ("## C#\n   # D\n    # no", ["C#", "D"]),
        ("~~~\n# no\n```\n# no\n~~~~\n# E", ["E"]),
    ],
)
def test_headings_of_a_text(text, expected):
    assert [title for _, title in submission.printer.headings(text)] == expected


@pytest.mark.filterwarnings("ignore:a picture cannot be drawn")
def test_a_damaged_picture_leaves_the_text_around_it():
    damaged = {"image/png": "iVBORw0KGgoAAAANSUhEUg"}, {"image/svg+xml": "<svg"}
    for bundle in damaged:
        good = markdown("![](attachment:b)", b={"image/png": figure()})
        pdf = printed(markdown("**bold** ![](attachment:a) words", a=bundle), good)
        text = squeezed("".join(pages(pdf)))
        assert "cannotbedrawn" in text and "bold" in text and "**" not in text
        assert pages_with_pictures(pdf) == {0}


# -------------------------------------------------------------------- long and deep texts
@pytest.mark.parametrize("text", ["line\n" * 3000, "word " * 50_000, "x" * 300_000])
def test_a_long_output_is_cut_and_says_so(text):
    text = f"START\n{text}\nEND"
    page = submission.Page("x", longest_output=100)
    pdf = printed(code("x", stream(text)), page=page)
    printed_text = "".join(pages(pdf))
    assert "START" in printed_text and "END" in printed_text
    assert re.search(r"\[[\d,]+ lines are left out here\]", printed_text)
    assert len(pages(pdf)) <= 3


def test_an_output_within_the_limit_is_printed_whole():
    lines = [f"<line {n}>" for n in range(599)]
    text = text_of(code("x", stream("\n".join(lines))))
    assert all(squeezed(line) in text for line in lines) and "leftout" not in text


def test_a_long_table_is_cut_and_says_so():
    rows = "".join(f"<tr><td>{n}</td></tr>" for n in range(3000))
    text = text_of(code("x", shown({"text/html": f"<table>{rows}</table>"})))
    assert "2400rowsareleftouthere" in text


DEEP = {
    "quotations": ">" * 5000 + " x",
    "lists": "<ul><li>" * 5000 + "x",
    "tags": "<b>" * 5000 + "x" + "</b>" * 5000,
    "tables": "<table><tr><td>" * 1000 + "x" + "</td></tr></table>" * 1000,
    "a few tables": "<table><tr><td>" * 20 + "x" + "</td></tr></table>" * 20,
    "links": "[x " * 5000 + "](b)" * 5000,
    "groups": "$" + "{" * 5000 + "x" + "}" * 5000 + "$",
    "fractions": "$" + r"\frac{1}{" * 500 + "x" + "}" * 500 + "$",
    "scripts": "$" + "x^{" * 30 + "x" + "}" * 30 + "$",
    "arrays": "$" + r"\begin{matrix}" * 1000 + "x" + r"\end{matrix}" * 1000 + "$",
    "a note in itself": "x[^1]\n\n[^1]: note[^1]\n    more[^1]\nand[^1]",
}


@pytest.mark.filterwarnings("ignore:printed as")
@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_gives_words(name):
    assert "x" in text_of(markdown(DEEP[name]))


REPEATED = [
    "$ ",
    "\\$",
    "`a ",
    "'",
    r"\begin{a} ",
    "![a](b",
    "<iframe ",
    "# a   ",
    "[^a]: ",
]


@pytest.mark.parametrize("text", REPEATED)
def test_texts_are_read_in_time_in_proportion_to_their_length(text):
    def seconds(count):
        start = time.process_time()
        submission.printer._Document(PAGE).add_markdown(text * count, {})
        return time.process_time() - start

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert seconds(80_000) < 12 * seconds(20_000) + 0.5


# ------------------------------------------------------------------------ page breaks
@pytest.mark.parametrize("lines", range(28, 40))
def test_a_heading_is_never_alone_at_the_foot_of_a_page(lines):
    filler = "\n\n".join(f"line {n}" for n in range(lines))
    for following in (markdown("the next paragraph"), code("the_code()")):
        pdf = printed(markdown(filler), markdown("## THE HEADING"), following)
        together = page_of(pdf, "THE HEADING")
        assert together == page_of(pdf, "the next paragraph") | page_of(pdf, "the_code")


@pytest.mark.parametrize("lines", range(0, 60, 6))
def test_a_figure_stays_with_its_code(lines):
    filler = "\n\n".join(f"line {n}" for n in range(lines))
    outputs = stream("printed before\n"), shown({"image/png": figure()})
    pdf = printed(markdown(filler), code("plot()\nshow()", *outputs))
    assert page_of(pdf, "plot()") == page_of(pdf, "show()") == pages_with_pictures(pdf)


# -------------------------------------------------------------------------- the report
def test_a_report_has_a_title_and_numbered_figures_and_no_code():
    page = submission.Page(
        "Course", "Ada", title="The title", authors=("Ada Lovelace",), hide_code=True
    )
    png = {"image/png": figure()}
    fold = "<details><summary>Code</summary>\n\n```python\ndef hidden(): pass\n```\n\n"
    listing = shown({"text/markdown": f"{fold}</details>"})
    pdf = printed(
        markdown("# Part\n## 2.1 Gradients of $h_t$"),
        code("secret_code()", stream("visible output"), listing, shown(png)),
        code("#| fig-cap: Accuracy by *length*\nplot()", shown(png)),
        code("#| fig-cap: 1. # - not a list\nplot()", shown(png)),
        page=page,
    )
    text = squeezed("".join(pages(pdf)))
    assert "secret_code" not in text and "hidden" not in text and "fig-cap" not in text
    assert "Thetitle" in text and "AdaLovelace" in text and "visibleoutput" in text
    assert "Figure1:Gradientsof" in text and "Figure2:Accuracybylength" in text
    assert "Figure3:1.#-notalist" in text
    information = pypdf.PdfReader(io.BytesIO(pdf)).metadata
    assert (information.title, information.author) == ("The title", "Ada Lovelace")


# ------------------------------------------------------------------------------ safety
SECRET = "the-content-of-a-file"


@pytest.mark.parametrize(
    "source",
    [
        '#read("{path}")',
        '`#read("{path}")`{{=typst}}',
        '```{{=typst}}\n#read("{path}")\n```',
        '```typst\n#read("{path}")\n```',
        '<div typst:fill="read("{path}")">x</div>',
        '<table><tr><td typst:fill="read(&quot;{path}&quot;)">x</td></tr></table>',
        "\\input{{{path}}} $\\input{{{path}}}$",
        '$\\text{{")#read("{path}")("}}$ $\\operatorname{{a")#read("{path}")}}$ $\\#a$',
        '$#read("{path}")$',
        "<script>alert(1)</script> {{{{raw}}}} @cite <label> *a #b [c] ~d ^e __f",
        '![x]({path}) ![y](file://{path}) <img src="{path}">',
        "---\ntitle: '#read(\"{path}\")'\n---\ntext",
        '" #read("{path}") "\\" + read("{path}")',
        "<!-- #read --> &#35;read(x) \\#read(x)",
    ],
)
def test_syntax_of_typst_and_pandoc_is_text(source, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    source = source.format(path=secret)
    html = f"<table><tr><th>{source}</th></tr></table>"
    cells = [
        markdown(source),
        nbformat.v4.new_raw_cell(source, metadata={"raw_mimetype": "text/typst"}),
        code(source, stream(source), shown({"text/html": html})),
        code("x", shown({"text/markdown": source}), shown({"text/latex": source})),
        code("y", shown({"text/html": source}), shown({"text/plain": source})),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = text_of(*cells)
    assert SECRET not in text
    assert text.count(squeezed(source)) >= 3  # the raw cell, the code, its outputs


@pytest.mark.parametrize("target", ["{path}", "file://{path}", "../{name}", "/{name}"])
def test_a_picture_cannot_draw_a_file(target, tmp_path):
    path = tmp_path / "secret.svg"
    path.write_text(
        "<svg xmlns='http://www.w3.org/2000/svg' width='100' height='20'>"
        f"<text y='15' font-family='DejaVu Sans'>{SECRET}</text></svg>"
    )
    target = target.format(path=path, name="style.typ")
    svg = (
        "<svg xmlns='http://www.w3.org/2000/svg' width='200' height='99' "
        "xmlns:xlink='http://www.w3.org/1999/xlink'>"
        f"<image width='200' height='50' href='{target}'/>"
        f"<image width='200' height='50' xlink:href='{target}'/></svg>"
    )
    with pytest.warns(UserWarning, match="a picture cannot be drawn"):
        text = text_of(code("x", shown({"image/svg+xml": svg})))
    assert SECRET not in text and "cannotbedrawn" in text


def test_the_authors_name_and_the_heading_are_text():
    page = submission.Page('"#read("x") $a$ \\', '*A* #b "c"', '#t "u"', ("#v",))
    text = text_of(markdown("x"), page=page)
    for words in ('"#read("x")$a$\\', '*A*#b"c"', '#t"u"', "#v"):
        assert words in text


# ------------------------------------------------------------------ awkward notebooks
BUNDLES = {
    "text/plain": "plain",
    "text/html": "<b>html</b>",
    "text/markdown": "*markdown*",
    "text/latex": "$x^2$",
    "image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "image/png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "image/jpeg": "not base64 at all",
    "image/gif": "R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==",
    "application/pdf": "JVBERi0=",
    "application/javascript": "alert(1)",
    "application/json": {"a": [1, 2, {"b": None}]},
    "application/geo+json": {"type": "Point"},
    "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
    "application/vnd.plotly.v1+json": {"data": []},
    "x/unknown": "unknown",
}


def raw_notebook(**changes):
    base = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
    return {**base, **changes}


def raw_cell(**changes):
    base = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": "x",
        "execution_count": 1,
        "outputs": [],
    }
    return {**base, **changes}


def with_output(**output):
    return raw_notebook(cells=[raw_cell(outputs=[output])])


AWKWARD = {
    "empty": raw_notebook(),
    "empty cells": raw_notebook(cells=[raw_cell(source=""), raw_cell(source=[])]),
    "no outputs": raw_notebook(cells=[raw_cell(source=["x = 1\n", "y = 2"])]),
    "nbformat 4.0": raw_notebook(nbformat_minor=0, cells=[raw_cell()]),
    "nbformat 4.9": raw_notebook(nbformat_minor=9, cells=[raw_cell()]),
    "nbformat 3": {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": "old"},
        "worksheets": [
            {
                "cells": [
                    {
                        "cell_type": "heading",
                        "level": 1,
                        "source": "old",
                        "metadata": {},
                    },
                    {
                        "cell_type": "code",
                        "language": "python",
                        "collapsed": False,
                        "metadata": {},
                        "input": "print(1)",
                        "prompt_number": 1,
                        "outputs": [
                            {"output_type": "stream", "stream": "stdout", "text": "1"}
                        ],
                    },
                ],
                "metadata": {},
            }
        ],
    },
    "metadata null": raw_notebook(metadata=None, cells=[raw_cell()]),
    "metadata list": raw_notebook(metadata=[1], cells=[raw_cell(metadata=[2])]),
    "language a number": raw_notebook(
        metadata={"language_info": {"name": 3}}, cells=[raw_cell()]
    ),
    "language unknown": raw_notebook(
        metadata={"language_info": {"name": 'br"ain'}}, cells=[raw_cell()]
    ),
    "cells null": raw_notebook(cells=None),
    "cells of strings": raw_notebook(cells=["x", 3]),
    "cell without source": raw_notebook(cells=[{"cell_type": "code"}]),
    "cell of unknown type": raw_notebook(cells=[raw_cell(cell_type="slide")]),
    "outputs null": raw_notebook(cells=[raw_cell(outputs=None)]),
    "output a string": raw_notebook(cells=[raw_cell(outputs=["x"])]),
    "count a string": raw_notebook(cells=[raw_cell(execution_count="x")]),
    "text missing": with_output(output_type="stream", name="stdout"),
    "text a number": with_output(output_type="stream", name="stdout", text=3),
    "data null": with_output(output_type="display_data", data=None, metadata=None),
    "data of lists": with_output(
        output_type="display_data", data={"text/plain": ["a\n", "b"]}, metadata={}
    ),
    "error": with_output(
        output_type="error", ename="E", evalue="v", traceback=["\x1b[31mE\x1b[0m: v"]
    ),
    "error without traceback": with_output(output_type="error", ename="E", evalue="v"),
    "damaged png": with_output(
        output_type="display_data",
        data={"image/png": "iVBORw0KGgoAAAANSUhEUg"},
        metadata={},
    ),
    "damaged svg": with_output(
        output_type="display_data", data={"image/svg+xml": "<svg"}, metadata={}
    ),
    "attachment a string": raw_notebook(
        cells=[
            {
                "cell_type": "markdown",
                "id": "a",
                "metadata": {},
                "source": "![](attachment:x)",
                "attachments": {"x": "y"},
            }
        ]
    ),
    "lone surrogate": raw_notebook(cells=[raw_cell(source="x = '\ud800'")]),
    "control characters": raw_notebook(cells=[raw_cell(source="a\x00\x01\x0b\x85b")]),
    "all types at once": with_output(
        output_type="display_data", data=BUNDLES, metadata={}
    ),
    **{
        mime: with_output(output_type="execute_result", data={mime: data}, metadata={})
        for mime, data in BUNDLES.items()
    },
}


REFUSED = {
    "cells null",
    "cells of strings",
    "cell without source",
    "metadata null",
    "metadata list",
    "outputs null",
    "output a string",
    "data null",
    "attachment a string",
}


@pytest.mark.filterwarnings("ignore:printed as plain text")
@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_notebook_is_printed_or_refused(name, tmp_path):
    path = tmp_path / "awkward.ipynb"
    path.write_text(json.dumps(AWKWARD[name]))
    try:
        pdf = submission.to_pdf([submission.read_notebook(path)], PAGE)
    except submission.PrintError as error:
        assert str(path) in str(error) or "notebook" in str(error)
        assert name in REFUSED
    else:
        assert name not in REFUSED
        assert "page 1 of 1" in pages(pdf)[0] and missing_glyphs(pdf) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", "\x00"])
def test_what_is_no_notebook_is_refused(content, tmp_path):
    path = tmp_path / "not.ipynb"
    path.write_text(content)
    with pytest.raises(
        submission.PrintError, match="not.ipynb is not a valid notebook"
    ):
        submission.read_notebook(path)


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(submission.PrintError, match="none.ipynb is missing"):
        submission.read_notebook(tmp_path / "none.ipynb")


def test_markup_that_typst_refuses_is_printed_as_text(monkeypatch):
    monkeypatch.setattr(
        submission.printer._Document,
        "run_pandoc",
        lambda self: [setattr(p, "markup", "#nosuch()") for p in self.pieces if p.job],
    )
    with pytest.warns(UserWarning, match="plain text.*unknown.*: some .prose."):
        text = text_of(markdown("some *prose*"), code("x = 1"))
    assert "some*prose*" in text and "x=1" in text


# -------------------------------------------------------------- exporter, bytes, speed
@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a notebook.ipynb"
    cells = markdown("# Prose 😀"), code("x = 1", shown({"image/png": figure()}))
    nbformat.write(notebook(*cells), path)
    return path


def test_nbconvert_knows_the_exporter(saved):
    arguments = ["-m", "nbconvert", "--to", "typst", saved.name]
    subprocess.run([sys.executable, *arguments], cwd=saved.parent, check=True)
    pdf = saved.with_suffix(".pdf").read_bytes()
    assert "a notebook" in pages(pdf)[0] and "x = 1" in pages(pdf)[0]
    exporter = get_exporter("typst")
    assert (
        exporter is get_exporter("typst_pdf") is submission.TypstPDFExporter
        and exporter.export_from_notebook
    )
    again, resources = exporter(exclude_input=True, name="Ada").from_filename(
        str(saved)
    )
    assert resources["output_extension"] == ".pdf"
    assert "x = 1" not in pages(again)[0] and "Ada" in pages(again)[0]


def test_the_same_notebook_gives_the_same_bytes(saved):
    first = submission.to_pdf([submission.read_notebook(saved)], PAGE)
    time.sleep(1.1)
    code = (
        "import sys, submission; page = submission.Page('Course · Assignment', 'Ada Lovelace');"
        f"nb = submission.read_notebook({str(saved)!r});"
        "sys.stdout.buffer.write(submission.to_pdf([nb], page))"
    )
    second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True
    )
    assert second.stdout == first
