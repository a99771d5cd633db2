"""Mathematics on the page: formulas are taken out of a text, and TeX becomes Typst.

pandoc turns TeX into MathML, whose tree says what is an accent, a fence or a column; Typst's
mathematics is written from that tree.
"""

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from submission.outputs import quoted

LONGEST = 20_000  # characters of a formula: people's have some hundred
DEEPEST = 40  # nested groups in a formula: TeX of people has a dozen
DEEPEST_SCRIPTS = 10  # pandoc's time doubles with each script of a script
OPENERS = {"$": "$", "$$": "$$", "\\\\(": "\\\\)", "\\\\[": "\\\\]"}
# what a text is made of, as far as formulas are concerned
TOKEN = re.compile(
    r"(?P<fence>^[ >]*(?:`{3,}|~{3,}))|(?P<ticks>`+)|\$\$|\$|\\\\[()\[\]]"
    r"|\\(?:begin|end)\{(?P<name>[a-zA-Z]+\*?)\}|\\(?:eq)?ref\{[^{}\n]*\}"
    r"|(?P<blank>\n(?:[ \t>]*\n)+)|\\[^\n]",
    re.MULTILINE,
)
# a formula even before a digit, as in "3$\times$3": no price starts like this
SURE = re.compile(r"\\[A-Za-z]([^$]*\S)?")
NUMBERED = re.compile(r"\$\$?\d+\$\$?")  # in code: looks like what stands for a formula
DEFINITION = re.compile(
    r"\\(?:newcommand|providecommand|renewcommand|DeclareMathOperator"
    r"|def|let|gdef)(?![A-Za-z])\*?\s*\{?\s*(\\[A-Za-z]+)\s*\}?"
    r"((?:\s*\[[^\[\]]*\])*|(?:#\d)*)\s*=?\s*"
)
BRACE = re.compile(r"\\.|[{}]")
NAME = re.compile(r"\\[A-Za-z]+")
# commands that MathJax has and pandoc has not: number of arguments, meaning
COMMANDS = {
    **dict.fromkeys(("smash", "llap", "rlap", "mathclap"), (1, "#1")),
    **dict.fromkeys(("class", "cssId", "style", "textcolor"), (2, "#2")),
    **dict.fromkeys(("href", "raisebox"), (2, "#2")),
    **dict.fromkeys(("tiny", "scriptsize", "footnotesize", "small"), (0, "")),
    **dict.fromkeys(("normalsize", "large", "Large", "LARGE", "huge", "Huge"), (0, "")),
    **dict.fromkeys(("mathstrut", "strut"), (0, "")),
    **dict.fromkeys(("require", "vphantom"), (1, "")),
    "pmatrix": (1, r"\left(\begin{matrix}#1\end{matrix}\right)"),
    "hphantom": (1, r"\phantom{#1}"),
    "cfrac": (2, r"\dfrac{#1}{#2}"),
    "LaTeX": (0, r"\text{LaTeX}"),
    "TeX": (0, r"\text{TeX}"),
    "bra": (1, r"\langle{#1}|"),
    "ket": (1, r"|{#1}\rangle"),
    "braket": (1, r"\langle{#1}\rangle"),
    "cr": (0, r"\\"),
    "enspace": (0, r"\hspace{0.5em}"),
    "thinspace": (0, r"\,"),
    "space": (0, r"\ "),
}
KNOWN = {
    f"\\{name}": f"\\newcommand{{\\{name}}}[{count}]{{{meaning}}}".replace("[0]", "")
    for name, (count, meaning) in COMMANDS.items()
}
OLD_FONTS = {
    **{f"\\{name}": f"\\math{name}" for name in ("rm", "it", "cal", "sf", "tt")},
    "\\bf": "\\mathbfsfup",
    "\\frak": "\\mathfrak",
    "\\scr": "\\mathscr",
    "\\mit": "\\mathit",
    "\\bold": "\\mathbfsfup",
}
STRUCTURE = re.compile(r"\\[A-Za-z]+\*?|\\[^A-Za-z]|[{}&]")
WORDS = (
    (r"(?<!\\)((?:\\\\)*)%[^\n]*", r"\1"),  # comments
    (r"(?<!\\)((?:\\\\)*)\\(?:\s+|$)", r"\1~ "),
    (r"(\\begin\{[a-z]+\})\s*\[[tbc]\]", r"\1"),
    # pandoc slants the letters of \mathbf: what nobody uses stands for it, see BOLD
    (r"\\mathbf(?![A-Za-z])", r"\\mathbfsfup"),
    (r"\\mid\s*\\mid(?![A-Za-z])", r"\\Vert "),
    (r"\\sb(?![A-Za-z])", "_"),
    (r"(?<!')('+)\^(?=\{)", lambda match: "^{" + r"\prime" * len(match[1]) + " } "),
    (  # pandoc reads these in words alone
        r'(\\(?:text[a-z]*|mbox)\s*\{[^{}]*\})|["`]',
        lambda match: match[1] or rf"\text{{{match[0]}}}",
    ),
    (r"\\(begin|end)\{(equation|displaymath|math)\*?\}", ""),
    (r"\\(?:nonumber|notag|allowbreak)(?![A-Za-z])", ""),
)
# pandoc has no {a \over b}: {a \bangle b}, which nobody uses, stands for it
OVER = re.compile(r"\\over(?![A-Za-z])")
REFERENCE = re.compile(r"\\(?:eq)?ref\s*\{([^{}]*)\}")
LABEL = re.compile(r"\\label\s*\{([^{}]*)\}")
TAG = re.compile(r"\\tag\*?\s*\{([^{}]*)\}")
HAND_NUMBER = re.compile(r"\\q?quad\s*\((\d+)\)\s*$")
LARGE_OPERATORS = "∑∏∐⋃⋂⨁⨂⨀⋁⋀⨄⨆∫∬∭∮"
# bold letters without serifs -> with serifs: Latin, Greek, digits
BOLD = {0x1D5D4 + n: 0x1D400 + n for n in range(52)}
BOLD |= {0x1D756 + n: 0x1D6A8 + n for n in range(58)}
BOLD |= {0x1D7EC + n: 0x1D7CE + n for n in range(10)}
LINES = {"‾": "macron({})", "¯": "overline({})", "_": "underline({})"}
LINES |= {"⏞": "overbrace({})", "⏟": "underbrace({})", "⃖": "accent({}, arrow.l)"}
LINES |= {"⏜": "overparen({})", "⏝": "underparen({})", "→": "accent({}, arrow)"}
NAMED = {
    "∥": "‖",
    "-": "−",
    "*": "∗",
    ":=": "≔",
    "\u2061": "",
    "\u2062": "",
    "\u2063": "",
}


@dataclass
class Taken:
    """What was taken out of a text: its `source` there and, if it is a formula, its `tex`.

    A `reference` is the label that the source refers to; `markup` is Typst.
    """

    source: str
    tex: str | None = None
    display: bool = False
    reference: str = ""
    tag: str = ""
    label: str = ""
    preamble: str = ""
    markup: str = ""


class Formulas:
    """The formulas of a document in their order, and the macros that they have defined."""

    def __init__(self):
        self.taken = []
        self.macros = dict(KNOWN)
        self.labels = {}

    # ------------------------------------------------------------- out of the text
    def take_out(self, text, html=False):
        """The text with `$$n$$` for the n-th formula, reference or dollar in it.

        A Markdown reader then sees nothing of TeX. Formulas are what MathJax would take
        for one; a dollar before a digit closes none, so that prices stay prices.
        """
        tokens = list(TOKEN.finditer(text))
        ends = _ends(tokens, text)
        out, position, number = [], 0, 0
        while number < len(tokens):
            token, end = tokens[number], ends[number]
            out.append(text[position : token.start()])
            position, word = token.end(), token[0]
            if (token["fence"] or token["ticks"]) and not html:
                if end is not None:
                    number, position = end, tokens[end].end()
                code = text[token.start() : position]
                out.append(NUMBERED.sub(lambda m: self._keep(Taken(m[0])), code))
            elif end is not None and word != "\n":
                last = tokens[end]
                if self._is_formula(word, text, token.end(), last.start(), html):
                    number, position = end, last.end()
                    source = text[token.start() : position]
                    inside = text[token.end() : last.start()]
                    tex = source if token["name"] else inside
                    out.append(
                        self._add(source, tex, display=word not in ("$", "\\\\("))
                    )
                else:
                    out.append(self._literal(word))
            elif word.startswith(("\\ref", "\\eqref")):
                label = word.partition("{")[2][:-1]
                out.append(self._keep(Taken(word, reference=label)))
            else:
                out.append(self._literal(word))
            number += 1
        return "".join([*out, text[position:]])

    @staticmethod
    def _is_formula(word, text, start, end, html):
        inside = text[start:end]
        if html and re.search(r"<(?!br)[a-z/]", inside, re.IGNORECASE):
            return False
        if word != "$":
            return bool(inside.strip())
        if inside[:1].isspace() and not inside[-1:].isspace():
            return bool(re.search(r"[\\^_={}]", inside))
        return bool(inside.strip())

    def _literal(self, word):
        if word in ("$", "$$", "\\$"):
            return self._keep(Taken(word.lstrip("\\")))
        return word

    def _keep(self, taken):
        self.taken.append(taken)
        return f"$${len(self.taken) - 1}$$"

    def _add(self, source, tex, display):
        tex = re.sub(r"(?m)^[ \t]*>+", "", tex)  # the marks of a quotation
        tex = self._without_definitions(OVER.sub(r"\\bangle", tex)).strip()
        if len(re.findall(r"(?<!\\)\$", tex)) % 2:  # dollars, not formulas in words
            tex = re.sub(r"(?<!\\)\$", r"\\$", tex)
        if found := REFERENCE.fullmatch(tex):
            return self._keep(Taken(source, reference=found[1]))
        taken = Taken(source, display=display)
        labels, tags = LABEL.findall(tex), TAG.findall(tex)
        if labels and not tags:
            first = len(self.labels) + 1
            tags = [str(first + index) for index in range(len(labels))]
            numbers = iter(tags)
            tex = LABEL.sub(lambda m: rf"\tag{{{next(numbers)}}}", tex)
        tex = LABEL.sub("", tex)
        number = HAND_NUMBER.search(tex)
        if number and display and not tags:
            tags, tex = [number[1]], HAND_NUMBER.sub("", tex)
        if len(tags) == 1:
            taken.tag, tex = tags[0], TAG.sub("", tex)
        tex = TAG.sub(r"\\qquad (\\text{\1})", tex)
        if labels:
            taken.label = f"equation-{len(self.taken)}"
            for label, tag in zip(labels, [*tags, *tags[-1:] * len(labels)]):
                self.labels.setdefault(label, (tag, taken.label))
        taken.tex = _plain_tex(tex)
        used = set(NAME.findall(taken.tex)) & set(self.macros)
        if used - set(KNOWN):  # a macro may use others
            used = set(self.macros)
        taken.preamble = "\n".join(v for k, v in self.macros.items() if k in used)
        return self._keep(taken)

    def _without_definitions(self, tex):
        r"""The TeX without its \newcommand, \def and the like, which are remembered."""
        out, position = [], 0
        while found := DEFINITION.search(tex, position):
            out.append(tex[position : found.start()])
            position = _after_group(tex, found.end())
            name, definition = found[1], tex[found.start() : position]
            self.macros.pop(name, None)
            self.macros[name] = definition.replace("\\gdef", "\\def")
        return "".join([*out, tex[position:]])

    # ------------------------------------------------------------------ onto the page
    def jobs(self):
        """What pandoc is to convert: one entry for each that was taken out."""
        return [
            {
                "source": t.source,
                "tex": "" if _too_deep(t.tex or "") else t.tex or "",
                "preamble": t.preamble,
                "display": t.display,
                "formula": t.tex is not None or bool(t.reference),
            }
            for t in self.taken
        ]

    def set_markup(self, mathml):
        """Make the Typst of everything that was taken out; returns the TeX left as it is."""
        refused = []
        for taken, text in zip(self.taken, mathml):
            if taken.reference:
                tag, label = self.labels.get(taken.reference, ("", ""))
                tag = f"({tag})" if "\\eq" in taken.source else tag
                shown = f"jump({quoted(label)}, {quoted(tag)})"
                taken.markup = shown if label else plain_markup(taken)
                continue
            if not taken.tex:  # only definitions, or no formula
                taken.markup = "[]"
                continue
            try:
                body = _row(ElementTree.fromstring(text)[0][:1]) if text else ""
            except (ElementTree.ParseError, IndexError, RecursionError, LookupError):
                body = text = ""
            display = "true" if taken.display else "false"
            if text and not body.strip():
                taken.markup = "[]"
                continue
            if not text:
                refused.append(taken.source)
                taken.markup = plain_markup(taken)
                continue
            alt = quoted(" ".join(taken.tex.split())[:400])
            markup = f"formula({alt}, {display}, $ {body} $)"
            if taken.tag and taken.display:
                markup = f"tagged({quoted(taken.tag)}, {markup})"
            elif taken.tag:
                markup = f"[#{markup} (#{quoted(taken.tag)})]"
            taken.markup = f"[#{markup} <{taken.label}>]" if taken.label else markup
        return refused

    def markup(self, number):
        """Typst of what was taken out."""
        return f"#{self.taken[number].markup};"


def plain_markup(taken):
    """Typst that shows the source of a formula."""
    return f"raw({quoted(taken.source)})"


# -------------------------------------------------------------------------- the scanner
def _ends(tokens, text):
    """For each token that may open something the index of the one that closes it, or None.

    One pass from the end, so the time is in proportion to the text.
    """
    ends, following = [None] * len(tokens), {}
    for index in range(len(tokens) - 1, -1, -1):
        token, word = tokens[index], tokens[index][0]
        if token["blank"]:  # no formula in one paragraph goes on in the next
            following = {k: v for k, v in following.items() if k[0] in "`~"}
        elif token["fence"]:
            mark = word.strip(" >")
            longer = [following.get(mark[0] * n) for n in range(len(mark), 9)]
            ends[index] = min((end for end in longer if end is not None), default=None)
            line = text[token.end() : text.find("\n", token.end()) + 1 or None]
            if not line.strip():  # may close a fence
                following[mark] = index
            if ends[index] is None and "`" in line:
                ends[index] = following.get("ticks" + mark)
        elif token["ticks"]:
            ends[index] = following.get(word)
            following["ticks" + word] = following[word] = index
        elif token["name"]:
            if word.startswith("\\end"):
                following[word] = index
            else:
                ends[index] = following.get("\\end" + word[6:])
        elif word in OPENERS:
            ends[index] = following.get(OPENERS[word])
        price = following.pop("price", None) if word == "$" else None
        if price and SURE.fullmatch(text, token.end(), tokens[price].start()):
            ends[index] = price
        is_price = word == "$" and text[token.end() : token.end() + 1].isdigit()
        if is_price:
            following["price"] = index
        elif word in ("$", "$$", "\\\\)", "\\\\]"):
            following[word] = index
    return ends


def _after_group(tex, position):
    """Where the group, the command or the character at `position` ends."""
    if tex[position : position + 1] != "{":
        command = NAME.match(tex, position)
        return command.end() if command else min(position + 1, len(tex))
    depth = 0
    for match in BRACE.finditer(tex, position):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(tex)


# ------------------------------------------------------------------------ TeX for pandoc
def _plain_tex(tex):
    r"""TeX in pandoc's words: no comments, no {\bf x}, no \\ outside an environment."""
    for pattern, replacement in WORDS:
        tex = re.sub(pattern, replacement, tex)
    out, closing, environments, lines = [], [0], 0, False
    position = 0
    for token in STRUCTURE.finditer(tex):
        out.append(tex[position : token.start()])
        position, word = token.end(), token[0]
        if word == "\\begin":
            environments += 1
        ends = word in ("}", "&", "\\\\", "\\cr", "\\end", "\\right")
        if ends and closing[-1]:
            out.append("}" * closing[-1])
            closing[-1] = 0
        if word == "\\end":
            environments -= 1
        if word == "{":
            closing.append(0)
        elif word == "}" and len(closing) > 1:
            closing.pop()
        lines |= word in ("\\\\", "\\cr") and not environments and len(closing) == 1
        if word in OLD_FONTS:
            closing[-1] += 1
            word = OLD_FONTS[word] + "{"
        out.append(word)
    tex = "".join([*out, tex[position:], "}" * sum(closing)])
    if lines:
        tex = re.sub(r"\\\\\s*$", "", tex)
        name = "aligned" if "&" in tex else "gathered"
        tex = f"\\begin{{{name}}}{tex}\\end{{{name}}}"
    return " ".join(tex.split())


def _too_deep(tex):
    """Whether pandoc or Typst could fail at how deep or long the formula is."""
    depth = deepest = scripts = most = 0
    script_groups = []
    for token in re.finditer(r"\\(?:left|right|begin|end)\b|\\.|[_^]\s*\{|[{}]", tex):
        word = token[0]
        if word[0] in "_^" or word in ("{", "\\left", "\\begin"):
            depth += 1
            script_groups.append(word[0] in "_^")
            scripts += word[0] in "_^"
        elif word in ("}", "\\right", "\\end") and depth:
            depth -= 1
            scripts -= script_groups.pop()
        deepest, most = max(deepest, depth), max(most, scripts)
    return deepest > DEEPEST or most > DEEPEST_SCRIPTS or len(tex) > LONGEST


# ---------------------------------------------------------------------- MathML for Typst
def _escaped(text):
    return re.sub(r"([^\w\s]|_)", r"\\\1", text, flags=re.ASCII)


def _tag(node):
    return node.tag.rpartition("}")[2]


def _is_upright_letter(node):
    text = node.text or ""
    normal = node.get("mathvariant") == "normal"
    return _tag(node) == "mi" and normal and len(text) == 1 and text.isascii()


def _row(nodes):
    """Typst for nodes in a row."""
    nodes, out, index = list(nodes), "", 0
    while index < len(nodes):
        last = index
        while last < len(nodes) and _is_upright_letter(nodes[last]):
            last += 1
        if last - index > 1:  # a word
            part = quoted("".join(node.text for node in nodes[index:last]))
            index = last
        else:
            part = _typst(nodes[index])
            index += 1
        if out[-1:].isalnum() and part[:1].isalnum() or out.endswith(("em)", "pt)")):
            out += " "
        out += part
    return out


def _typst(node):
    """Typst for one MathML node."""
    tag, children, text = _tag(node), list(node), node.text or ""
    if tag in ("mi", "mn", "mo"):
        return _symbol(node, tag, text)
    if tag in ("mtext", "ms"):
        return quoted(text.replace("\u00a0", " "))
    if tag == "mspace":
        return f" #h({float(node.get('width', '0em').rstrip('em') or 0)}em) "
    if tag == "mfrac":
        if node.get("linethickness") in ("0", "0px"):
            return f"mat(delim: #none, {_typst(children[0])}; {_typst(children[1])})"
        return f"frac({_typst(children[0])}, {_typst(children[1])})"
    if tag == "msqrt":
        return f"sqrt({_row(children)})"
    if tag == "mroot":
        return f"root({_typst(children[1])}, {_typst(children[0])})"
    if tag in ("msub", "msup", "msubsup", "munder", "mover", "munderover"):
        return _scripts(tag, children)
    if tag == "mtable":
        return _table(node)
    if tag == "mphantom":
        return f"#hide[${_row(children)}$]"
    if tag == "menclose":
        if "strike" in node.get("notation", ""):
            return f"cancel({_row(children)})"
        return f"#boxed[${_row(children)}$]"
    if tag == "mstyle" and node.get("displaystyle"):
        style = "display" if node.get("displaystyle") == "true" else "inline"
        return f"{style}({_row(children)})"
    return _fenced(children)


def _symbol(node, tag, text):
    text = NAMED.get(text, text)
    if node.get("mathvariant") == "bold-sans-serif":
        text = text.translate(BOLD)
    if not text:
        return ""
    if tag == "mn":
        return _escaped(text)
    if len(text) > 1 and text.isascii() and text[:1].isalpha():
        if tag == "mo":
            return f'class("binary", {quoted(text)})'
        return f"op({quoted(text)})"
    if len(text) > 1 and any(c.isspace() for c in text):
        return f"op({quoted(text)})"
    shown = text if text.isalnum() else _escaped(text)
    if tag == "mi" and node.get("mathvariant") == "normal" and text.isalpha():
        return f"upright({shown})"
    if tag == "mo" and node.get("minsize"):
        return f"lr(size: #{node.get('minsize')}, {shown})"
    if tag == "mo" and text == "∣" and node.get("stretchy") == "true":
        return r"\|"
    if tag == "mo" and text in "|‖" and node.get("stretchy") == "false":
        return f'class("normal", {shown})'
    return shown


def _stretches(node, form):
    is_fence = _tag(node) == "mo" and node.get("stretchy") == "true"
    return is_fence and node.get("form") == form and not node.get("minsize")


def _fenced(children):
    if [c.text for c in children[::2]] == ["⟨", "⟩"] and _tag(children[1]) == "mfrac":
        return f"frac({', '.join(map(_typst, children[1]))})"  # \bangle, see OVER
    if not children or not (
        _stretches(children[0], "prefix") or _stretches(children[-1], "postfix")
    ):
        return _row(children)
    middle = "".join(
        f"mid({_typst(c)})" if _stretches(c, "infix") else "\0" for c in children
    )
    if "mid" not in middle:
        return f"lr({_row(children)})"
    parts, group = [], []
    for child in children:
        if _stretches(child, "infix"):
            parts += [_row(group), f"mid({_typst(child)})"]
            group = []
        else:
            group.append(child)
    return f"lr({' '.join([*parts, _row(group)])})"


def _scripts(tag, children):
    base, *others = children
    accent = others[0].text if others[0].get("accent") == "true" else None
    shown = _typst(base) or '""'
    if accent:
        if len(accent) == 1 and accent not in LINES:
            return f"accent({shown}, \\u{{{ord(accent):x}}})"
        return LINES[accent].format(shown)
    primes = {"′": 1, "″": 2, "‴": 3, "⁗": 4}.get(others[-1].text or "", 0)
    if primes and tag == "msup":
        return f"attach({shown}, tr: {'′' * primes})"
    places = {
        **dict.fromkeys(("msub", "munder"), "b"),
        **dict.fromkeys(("msup", "mover"), "t"),
        **dict.fromkeys(("msubsup", "munderover"), "bt"),
    }[tag]
    is_large = _tag(base) == "mo" and (base.text or " ") in LARGE_OPERATORS
    if tag.startswith("mu") or tag == "mover":
        shown = f"limits({shown}, inline: #{'false' if is_large else 'true'})"
    elif is_large:
        shown = f"scripts({shown})"
    parts = (
        f"{place}: {_small(other) or '#none'}" for place, other in zip(places, others)
    )
    return f"attach({shown}, {', '.join(parts)})"


def _small(node):
    """Typst for a node above or below a line, in whose tables letters are small too."""
    return _typst(node).replace("inline(", "script(")


def _table(node):
    """Typst for a table: pairs of columns of which the first is right-aligned are equations."""
    rows = [[list(cell) for cell in row] for row in node]
    aligns = [
        cell.get("columnalign", "center") for row in list(node)[:1] for cell in row
    ]
    while rows and not any(rows[-1]):
        rows.pop()
    equations = "padding" in ElementTree.tostring(node, "unicode")[:2000]
    columns = max(map(len, rows), default=0)
    marks = {"left": "#left", "right": "#right", "center": "#center"}
    if not rows or not columns:
        return ""
    lines = []
    for row in rows:
        cells = [_fenced(cell) for cell in row] + [""] * (columns - len(row))
        style = "display" if equations else "inline"
        lines.append([f"{style}({cell})" if cell else "" for cell in cells])
    aligns = [marks.get(align, "#center") for align in aligns] + ["#center"] * columns
    if len(set(aligns[:columns])) == 1 and not equations:
        body = "; ".join(", ".join(cells) for cells in lines)
        return f"mat(delim: #none, align: {aligns[0]}, {body})"
    # cells with points of alignment: `a &` to the right of it, `& a` to the left
    gap = "#0.2em" if equations else "#0.8em"
    shown = []
    for cells in lines:
        if equations:
            pairs = [" & ".join(cells[n : n + 2]) for n in range(0, columns, 2)]
        else:
            form = {"#left": "& {}", "#right": "{} &", "#center": "{}"}
            pairs = [form[a].format(c) for a, c in zip(aligns, cells)]
        shown.append(", ".join(pairs))
    gap = "#2em" if equations else gap
    return f"mat(delim: #none, column-gap: {gap}, {'; '.join(shown)})"
