"""What stands in a cell's outputs, as Typst markup or as HTML and SVG that can be printed."""

import base64
import html
import re
import struct
import warnings
from io import BytesIO
from urllib.parse import unquote

from nbconvert.filters.ansi import ansi2html, strip_ansi
from PIL import Image

# ------------------------------------------------------------------------- values, strings
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def as_dict(value):
    """The value if it is a dict, else an empty one: damaged metadata is no metadata."""
    return value if isinstance(value, dict) else {}


def as_text(value):
    """A string from what a notebook has in its place, without characters nobody can see."""
    text = as_raw(value).replace("\r\n", "\n").encode(errors="replace").decode()
    return CONTROL.sub("", text.expandtabs(4))


def as_raw(value):
    """A string from a string, a list of them, or nothing at all."""
    if isinstance(value, list):
        return "".join(map(str, value))
    return "" if value is None else str(value)


def quoted(text):
    """A Typst string literal."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# ---------------------------------------------------------------- what a program has written
COLUMNS = 90  # characters on a printed line, at least
SHORT = 24  # lines of code or of output that stay on one page
PROGRESS_BAR = re.compile(
    r"(?<!\d)\d++(%\|.*\|.*\[[^]]*\]|(it|ex|batch)?\s\[\d+:\d+.*/s[^]]*\])"
)
WARNING = re.compile(
    r"^\S.*:\d+: \w*Warning\b"
)  # its message, a line of code with 2 blanks
REPORT = re.compile(r"[=-]{10,}|[.FEsxu]+$|Ran \d+|[A-Z]+:|\d{4}-\d\d-\d\d")
LONG_WORD = re.compile(r"\S{41,}")
OTHER_ESCAPES = re.compile(r"\x1b(\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[^\[\]()])")
SPAN = re.compile(
    r'<span(?: class="([^"]*)")?(?: style="([^"]*)")?>(.*?)</span>|([^<]+)', re.DOTALL
)


def is_short(text):
    """Whether code or output is so short that it is to stay on one page."""
    return height(text) <= SHORT


def height(text):
    """How many lines a text takes on the page."""
    return sum(1 + len(line) // COLUMNS for line in text.split("\n"))


def breakable(text):
    """The text with places where words that are too long for a line may be broken."""
    return LONG_WORD.sub(
        lambda word: re.sub(r"(.{8})", "\\1\u200b", word.group()), text
    )


def output_markup(text):
    """Typst that prints what a program wrote, in its terminal colours."""
    text = OTHER_ESCAPES.sub("", text.encode(errors="replace").decode().expandtabs(8))
    call = "#output(breakable: false)" if is_short(text) else "#output"
    if "\x1b" not in text:
        shown = quoted(breakable(CONTROL.sub("", text)))
        return f"{call}[#raw({shown}, block: true)]"
    lines = [""]
    try:
        coloured = ansi2html(text)
    except (IndexError, ValueError):  # a colour code without its colour
        coloured = html.escape(strip_ansi(text))
    for classes, style, inside, plain in SPAN.findall(coloured):
        shown = breakable(CONTROL.sub("", html.unescape(inside or plain)))
        for number, part in enumerate(shown.split("\n")):
            if number:
                lines.append("")
            lines[-1] += f"#ansi({quoted(part)}, {quoted(classes)}, {quoted(style)})"
    return f"{call}[" + "".join(f"#mono-line[{line}]" for line in lines) + "]"


def coalesced(outputs):
    """The outputs, what was printed in several goes put together."""
    joined = []
    for output in map(as_dict, outputs):
        if output.get("output_type") != "stream":
            joined.append(output)
            continue
        last = joined[-1] if joined else {}
        new = {**output, "name": output.get("name"), "text": as_raw(output.get("text"))}
        if last.get("output_type") == "stream" and last["name"] == new["name"]:
            new["text"] = joined.pop()["text"] + new["text"]
        joined.append(new)
    return joined


def cut(text, longest):
    """The text with its middle left out, and a line that says so, if it has too many lines."""
    if height(text) <= longest:
        return text
    lines = [
        line[start : start + 20 * COLUMNS]
        for line in text.split("\n")
        for start in range(0, max(1, len(line)), 20 * COLUMNS)
    ]
    first, room = 0, longest * 3 // 4
    while room > 0 and first < len(lines):
        room -= height(lines[first])
        first += 1
    last, room = len(lines), longest // 4
    while room > 0 and last > first:
        last -= 1
        room -= height(lines[last])
    if last <= first:
        return text
    left_out = f"[{last - first:,} lines are left out here]"
    return "\n".join([*lines[:first], "", left_out, "", *lines[last:]])


def without_warnings(text):
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


# --------------------------------------------------------------------------- pages of HTML
HTML_OBJECT = re.compile(r"<IPython\.core\.display\.\w+( object)?>")
# what Python makes of an object without a text of its own, and Julia of HTML
PYTHON_OBJECT = re.compile(r"<[^<>\n]*>|HTML\{String\}\(.*\)", re.DOTALL)
STYLER_RULE = re.compile(r"(#T_[\w#,\s]{,100000})\{([^{}]*)\}")
STYLER_COLOUR = re.compile(
    r"(?m)(?:^|(?<=[;\s]))(background-color|color):\s*(#[0-9a-fA-F]{6})\b"
)
STYLER_CELL = re.compile(r'(<td\b[^<>]*\bid="(\w+)"[^<>]*>)([^<>]*)</td>')
DRAWING = re.compile(r"<svg\b[^<>]*>")
UNSPACED = re.compile(r"""(=\s*(?:"[^"<>]*"|'[^'<>]*'))(?=[A-Za-z])""")
DATA_URI = re.compile(
    r"data:(image/[a-z+]+);base64,([\w+/=%\s]+?)(?=[)\"'>\s])", re.ASCII
)


def with_colours(page):
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


FRAME = re.compile(r'frames\[0\] = "(data:image/\w+;base64,[^"]*)"')


def with_first_frame(page):
    """HTML in which an animation of matplotlib shows the first picture of its script."""
    frame = FRAME.search(page)
    picture = f'<img src="{frame[1]}" id="'.replace("\\\n", "") if frame else ""
    return page.replace('<img id="_anim_img', picture, 1) if picture else page


def without_scripts(page):
    """HTML without what is no text on paper: scripts, styles and buttons."""
    first, *parts = re.split(r"(?i)<(?=/?(?:script|style|button)\b)", page)
    return first + "".join(p.partition(">")[2] for p in parts if p.startswith("/"))


def is_readable(page):
    """Whether there is anything to read on a page of HTML: text, a picture or a link."""
    text = without_scripts(page)
    shown = re.search(r"(?i)<(img|iframe|video|audio|embed|hr|svg)\b", text)
    return bool(shown or re.sub(r"<[^<>]*>", "", text).strip())


# -------------------------------------------------------------------------------- pictures
RASTER = ("image/png", "image/jpeg", "image/gif", "image/webp")
DAMAGE = (OSError, ValueError, SyntaxError, ArithmeticError, TypeError, LookupError)
DAMAGE += (struct.error, EOFError, Image.DecompressionBombError)  # says Pillow
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
NO_PICTURE = "(a picture that cannot be drawn)"
UNDRAWN = (  # what is drawn in its place
    '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="20"><text y="14" '
    f'font-family="DejaVu Sans" font-size="11">{NO_PICTURE}</text></svg>'
).encode()
PICTURE_FILES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
LARGEST = 30_000_000  # bytes of a picture


def decoded(encoded):
    """The bytes of a text in base64, or none if it is damaged."""
    try:
        return base64.b64decode(unquote(encoded))
    except ValueError:
        return b""


def raster_in_svg(encoded, metadata):
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
        reason = re.sub(r" <_io.*", "", str(error))  # the same words for each
        warnings.warn(f"a picture cannot be drawn: {reason}", stacklevel=2)
        return UNDRAWN
    size = f'width="{width * scale:.2f}pt" height="{height * scale:.2f}pt"'
    data = base64.b64encode(content).decode()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        f'<image {size} href="data:{mime};base64,{data}"/></svg>'
    ).encode()
