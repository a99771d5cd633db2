-- Turn pieces of notebook text into Typst markup: `pandoc lua pieces.lua < pieces.json`.
--
-- stdin:  {"pieces": [{"format": "markdown" | "html", "text": ..., "images": {source: file},
--            "longest": lines on the page after which the rest is left out, or nothing}],
--          "formulas": [{"source": ..., "tex": ..., "preamble": ..., "display": ...}],
--          "levels": whether no level of headings may be left out}
-- stdout: {"pieces": [Typst, ...], "formulas": [MathML or "", ...]}
--
-- `$$n$$` in a text stands for the n-th of the formulas. Whatever a notebook says is text:
-- the readers run without access to files, raw elements and attributes (pandoc passes some
-- of them on as code) are dropped, and a picture is drawn only when it came with the notebook.

local MAX_COLUMNS = 24 -- a wider table is cut into bands that repeat its first column
local WIDTH = 482 -- points; a table whose words do not fit in 7 points is cut, too
local UNBROKEN = 24 -- letters of a word in a table
local SHORT_TABLE = 15 -- rows of a table that is not to be broken between pages
local MAX_WORD = 40 -- a longer word may be broken anywhere, so that it stays on the page
local MOST_COLUMNS = 231 -- of a table in an output
local SLOW_WORD = 200 -- bytes; pandoc's writer takes long for longer ones
local MAX_DEPTH = 4 -- of tables in tables; deeper ones are printed as text
local LINE = 90 -- characters on a line of a table

local MARKDOWN = 'gfm+tex_math_dollars-tex_math_gfm-emoji-yaml_metadata_block'
local HTML = 'html+tex_math_dollars'
local TYPST = 'typst-smart-citations'
local OPTIONS = { wrap_text = 'none' }
local MEANING = { -- of what pandoc's reader does not know
  ['<summary[^<>]*>'] = '<p><b>', ['</summary>'] = '</b></p>',
  ['<center[^<>]*>'] = '<div align="center">', ['</center>'] = '</div>',
  ['<a%s+(id=["\'][^"\'<>]*["\'])%s*/?>'] = '<span %1></span>', -- often left open
}
local function set(names)
  local found = {}
  for name in names:gmatch('%S+') do
    found[name] = true
  end
  return found
end
local PARTS = set 'table thead tbody tfoot tr td th' -- of a table
local INLINE = set 'tt b i u s em strong code font span sub sup small big center'
local ELSEWHERE = { 'iframe', 'video', 'audio', 'source', 'embed' } -- with an address
local ALERTS = { -- classes of GitHub's alerts and of Jupyter's
  note = 'info', tip = 'success', important = 'info', warning = 'warning',
  caution = 'danger', ['alert-info'] = 'info', ['alert-success'] = 'success',
  ['alert-warning'] = 'warning', ['alert-danger'] = 'danger', alert = 'info',
}

local input = pandoc.json.decode(io.read('a'), false)
local images = {}
local last_level = 0 -- of a heading
local longest_output -- lines, of the piece that is written
local anchors = {} -- of the whole document: where links may go

local function raw(markup)
  return pandoc.RawInline('typst', markup)
end

local function quoted(text)
  local escaped = text:gsub('[\\"]', '\\%0'):gsub('\n', '\\n'):gsub('\t', '\\t')
  escaped = escaped:gsub('#', '\\u{23}') -- so that only a formula looks like one
  return '"' .. escaped .. '"'
end

local function breakable(text, longest)
  local step = longest and 1 or 8 -- letters that stay together
  return (text:gsub('%S+', function(word)
    local length = utf8.len(word)
    if length == nil or length <= (longest or MAX_WORD) then
      return word
    end
    local parts, from = {}, 1
    while from and from <= #word do
      local to = utf8.offset(word, step + 1, from)
      parts[#parts + 1] = word:sub(from, to and to - 1)
      from = to
    end
    return table.concat(parts, '\u{200b}')
  end))
end

-- what was taken out, put back: code and addresses have no formulas
local function restored(text)
  return (text:gsub('%$%$(%d+)%$%$', function(number)
    local formula = input.formulas[tonumber(number) + 1]
    return formula and formula.source
  end))
end

local function enclosed(before, content, after)
  content:insert(1, raw(before))
  content:insert(raw(after))
  return content
end

local function formula(math)
  local number = tonumber(math.text)
  local found = number and input.formulas[number + 1]
  if not found then
    return pandoc.Str('$$' .. math.text .. '$$')
  end
  return found.formula and raw('#f(' .. number .. ');') or pandoc.Str(found.source)
end

-- --------------------------------------------------------------------- links, pictures
-- Jupyter's names of headings keep capitals and pandoc's do not.
local function key(identifier)
  local words = identifier:gsub('^#', ''):gsub('%%20', '-'):lower()
  return (words:gsub('[%s%p]+', '-'):gsub('^%-', ''):gsub('%-$', ''))
end

local function anchor(element)
  local name = element.identifier ~= '' and key(element.identifier)
  if not name or not anchors[name] or anchors[name].used then
    return nil
  end
  anchors[name].used = true
  return raw('#metadata(none)<anchor-' .. anchors[name].number .. '>')
end

local function link(element)
  local target = restored(element.target)
  if target:match('^https?://') or target:match('^mailto:') then
    return enclosed('#link(' .. quoted(target) .. ')[', element.content, '];')
  elseif target:match('^#') then
    local found = anchors[key(target)]
    if found then
      return enclosed('#jump("anchor-' .. found.number .. '")[', element.content, '];')
    end
  end
  return element.content
end

-- a length of HTML (pixels or a share of the line) as Typst has it, or nil
local function width_of(image)
  local style = image.attributes.style or ''
  local width = image.attributes.width or style:match('width:%s*([%d.]+[%%%a]*)')
    or style:match('zoom:%s*([%d.]+%%)')
  local number, unit = (width or ''):match('^%s*([%d.]+)%s*([%%%a]*)')
  number = tonumber(number)
  if not number or number <= 0 then
    return nil
  elseif unit == '%' then
    return string.format('%.1f%%', math.min(number, 100))
  end
  local points = { [''] = 0.75, px = 0.75, pt = 1, em = 10, rem = 10, cm = 28.35, ['in'] = 72 }
  return string.format('%.1fpt', number * (points[unit] or 0.75))
end

local function image(element)
  local source = restored(element.src)
  local alt = restored(pandoc.utils.stringify(element.caption))
  local file = images[element.src] or images[source]
  if file then
    local width = width_of(element)
    return raw(
      (element.attributes.inline and '#inline-' or '#') .. 'picture(' .. quoted(file) .. ', alt: ' .. quoted(alt)
        .. (width and ', width: ' .. width or '') .. ')'
    )
  end
  local name = source:match('^data:') and 'without a name' or breakable(source)
  local what = pandoc.Str('[picture: ' .. (alt ~= '' and alt or name) .. ']')
  if source:match('^https?://') then
    return enclosed('#link(' .. quoted(source) .. ')[', pandoc.Inlines { what }, '];')
  end
  return what
end

local function text_of(str)
  local text = breakable(str.text)
  if #text > SLOW_WORD then
    return raw('#' .. quoted(text) .. ';')
  elseif text:find('%-%-') or text:find('%.%.%.') or text:find('%-%?') then
    -- which Typst would take for dashes, an ellipsis and a place to hyphenate
    return raw('#' .. quoted(text) .. ';')
  end
  return pandoc.Str(text)
end

local function closed(element)
  -- so that "*emphasis*.txt" is no access to a field
  return { element, raw('#[];') }
end

-- The blocks of a cell: words that are too long for its column may be broken, and what looks
-- like the start of a list or a heading is text.
local function in_table(blocks, longest)
  blocks = pandoc.Blocks(blocks):walk { Str = function(str)
    local text = breakable(str.text, math.max(longest, 4))
    return #text > SLOW_WORD and raw('#' .. quoted(text) .. ';') or pandoc.Str(text)
  end }
  local first = blocks[1]
  if first and (first.t == 'Plain' or first.t == 'Para') then
    first.content:insert(1, pandoc.RawInline('typst', '#[]'))
  end
  return blocks
end

local function longest_word(cell)
  local longest = 0
  for word in pandoc.utils.stringify(cell or {}):gmatch('%S+') do
    longest = math.max(longest, utf8.len(word) or #word)
  end
  return longest
end

-- A table as one or more, none of them too wide; a short one stays on one page.
local function bands(simple, depth)
  local tables = pandoc.Blocks {}
  local all = simple.rows
  local count, columns = #all, math.max(2, #simple.aligns)
  if longest_output then
    count = math.min(count, longest_output)
    columns = math.min(columns, MOST_COLUMNS)
  end
  local left_out = {}
  if count < #all then
    left_out[1] = (#all - count) .. ' rows'
  end
  if columns < #simple.aligns then
    left_out[#left_out + 1] = (#simple.aligns - columns) .. ' columns'
  end
  local needed = {}
  for column = 1, columns do
    local longest = longest_word(simple.headers[column])
    for index = 1, count do
      longest = math.max(longest, longest_word(all[index][column]))
    end
    needed[column] = 8 + 3.7 * math.min(longest, UNBROKEN)
  end
  local function last_of(first, limit)
    local last, width = first, needed[1] + (needed[first] or 0)
    while last < columns and last - first < MAX_COLUMNS - 2
      and width + needed[last + 1] <= limit do
      last = last + 1
      width = width + needed[last]
    end
    return last
  end
  local first, number, sum, widest = 2, 0, 0, 0
  repeat -- how many there are, so that all are about as wide
    first, number = last_of(first, WIDTH) + 1, number + 1
  until first > columns
  for column = 2, columns do
    sum, widest = sum + needed[column], math.max(widest, needed[column])
  end
  local limit = math.min(WIDTH, needed[1] + sum / number + widest)
  first = 2
  repeat
    local last = last_of(first, limit)
    local function cut(row)
      if #row == 0 then
        return {}
      end
      local cells = { row[1] }
      for column = first, math.min(#row, last) do
        cells[#cells + 1] = row[column]
      end
      return cells
    end
    local aligns = cut(simple.aligns)
    local function narrow(row)
      local cells = cut(row)
      for index, cell in ipairs(cells) do
        cells[index] = in_table(cell, math.max(LINE // #aligns, UNBROKEN))
      end
      return cells
    end
    local rows = {}
    for index = 1, count do
      rows[index] = narrow(all[index])
    end
    local widths = {}
    for index = 1, #aligns do
      widths[index] = 0
    end
    local band =
      pandoc.SimpleTable(simple.caption, aligns, widths, narrow(simple.headers), rows)
    local made = pandoc.utils.from_simple_table(band)
    made.attributes.depth = tostring(depth)
    local short = #rows <= SHORT_TABLE
    tables:insert(pandoc.RawBlock('typst', short and '#whole[' or '#['))
    tables:insert(made)
    tables:insert(pandoc.RawBlock('typst', ']'))
    first = last + 1
  until first > columns
  if #left_out > 0 then
    local words = '[' .. table.concat(left_out, ' and ') .. ' are left out here]'
    tables:insert(pandoc.Para { pandoc.Str(words) })
  end
  return tables
end

-- Numbers to the right, where the source does not say how a column is aligned.
local function aligned(simple)
  local aligns, rows = simple.aligns, simple.rows
  for column, align in ipairs(aligns) do
    local numbers, others = 0, 0
    for _, row in ipairs(rows) do
      local text = pandoc.utils.stringify(row[column] or {})
      if text:match('^%s*[-+−(]?%s*[$€£]?%d') or text:match('^%s*[Nn][aA][Nn]?%s*$') then
        numbers = numbers + 1
      elseif text:match('%S') then
        others = others + 1
      end
    end
    if align == 'AlignDefault' or align == 'AlignCenter' and numbers > 0 then
      aligns[column] = numbers > others and 'AlignRight' or 'AlignLeft'
    end
  end
  simple.aligns = aligns
  return simple
end

-- -------------------------------------------------------------------------- all the rest
local function division(div)
  local kind
  for _, class in ipairs(div.classes) do
    kind = ALERTS[class] or kind
  end
  local content = div.content
  local mark = anchor(div)
  if mark then
    content:insert(1, pandoc.Plain { mark })
  end
  if div.classes:includes('title') then
    return content:walk { Para = function(para)
      return pandoc.Para { pandoc.Strong(para.content) }
    end }
  elseif kind then
    content:insert(1, pandoc.RawBlock('typst', '#alert("' .. kind .. '")['))
    content:insert(pandoc.RawBlock('typst', ']'))
  elseif div.attributes.align == 'center' then
    content:insert(1, pandoc.RawBlock('typst', '#align(center)['))
    content:insert(pandoc.RawBlock('typst', ']'))
  end
  return content
end

local function drop()
  return {}
end

local clean = {
  RawBlock = drop,
  RawInline = drop,
  Div = division,
  Span = function(span)
    local fill, ink = span.attributes.fill, span.attributes.ink
    if fill or ink then
      local colours = quoted(fill or '') .. ', ' .. quoted(ink or '')
      return enclosed('#tinted(' .. colours .. ')[', span.content, '];')
    elseif span.classes:includes('printed-note') then
      return pandoc.Note { pandoc.Plain(span.content) }
    end
    local mark = anchor(span)
    if mark then
      span.content:insert(1, mark)
    end
    return span.content
  end,
  Header = function(header)
    local mark = anchor(header)
    if mark then
      header.content:insert(mark)
    end
    header.attr = pandoc.Attr()
    if input.levels then
      header.level = math.min(header.level, last_level + 1)
      last_level = header.level
    end
    return header
  end,
  Math = formula,
  Code = function(code)
    return raw('#raw(' .. quoted(breakable(restored(code.text))) .. ');')
  end,
  CodeBlock = function(code)
    local language = (code.classes[#code.classes] or ''):match('^[%w+#-]+$') or 'text'
    local text = breakable(restored(code.text))
    return pandoc.RawBlock('typst', '#code(' .. quoted(text) .. ', ' .. quoted(language) .. ')')
  end,
  Str = text_of,
  Link = link,
  Image = image,
  Emph = closed,
  Strong = closed,
  Strikeout = closed,
  Superscript = closed,
  Subscript = closed,
  Underline = closed,
  Figure = function(figure)
    return figure.content
  end,
  Table = function(element)
    local depth = 1
    element:walk { Table = function(inner)
      depth = math.max(depth, 1 + (tonumber(inner.attributes.depth) or 0))
    end }
    if depth > MAX_DEPTH then
      return pandoc.Para(text_of(pandoc.Str(pandoc.utils.stringify(element))))
    end
    return bands(aligned(pandoc.utils.to_simple_table(element)), depth)
  end,
}

-- `<p align="center">` as a division, whose attributes pandoc keeps
local function centred(text)
  local parts, position = {}, 1
  while true do
    local from, to = text:find('<p%s[^<>]-align=["\']?center[^<>]*>', position)
    local close = from and text:find('</p>', to, true)
    if not close then
      return table.concat(parts) .. text:sub(position)
    end
    parts[#parts + 1] = text:sub(position, from - 1)
    parts[#parts + 1] = '<div align="center"><p>' .. text:sub(to + 1, close + 3) .. '</div>'
    position = close + 4
  end
end

-- The HTML with every row, cell and tag in a cell closed, and paragraphs between rows (as Julia
-- writes them) behind the table: pandoc would give the table up.
local function with_closed_cells(text)
  local parts, position = {}, 1
  local tables, state = {}, { inline = {} } -- cell: its name, row: whether one is open
  local function close(from, row)
    local closing = ''
    for index = #state.inline, 1, -1 do
      closing = closing .. '</' .. state.inline[index] .. '>'
    end
    state.inline = {}
    if state.cell then
      closing, state.cell = closing .. '</' .. state.cell .. '>', nil
    end
    if row and state.row then
      closing, state.row = closing .. '</tr>', nil
    end
    parts[#parts + 1] = text:sub(position, from - 1) .. closing
    position = from
  end
  for from, slash, name, after in text:gmatch('()<(/?)(%a+)[^<>]*>()') do
    name = name:lower()
    local opens, inline = slash == '', state.inline
    if name == 'table' and opens then
      tables[#tables + 1], state = state, { inline = {} }
    elseif name == 'td' or name == 'th' then
      if not opens and state.cell == name then
        state.cell = nil -- closed by itself
      end
      close(from)
      state.cell = opens and name or nil
    elseif name == 'tr' then
      if not opens then
        state.row = nil
      end
      close(from, true)
      state.row = opens
    elseif PARTS[name] then
      close(from, true)
      if name == 'table' and #tables > 0 then
        parts[#parts + 1] = text:sub(from, after - 1) .. (state.between or '')
        position, state = after, table.remove(tables)
      end
    elseif name == 'p' and opens and #tables > 0 and not state.row then
      local between, rest = text:match('^([^<]*</p>)()', after)
      if between then
        parts[#parts + 1] = text:sub(position, from - 1)
        position, state.between = rest, (state.between or '') .. '<p>' .. between
      end
    elseif state.cell and opens and INLINE[name] then
      inline[#inline + 1] = name
    elseif inline[#inline] == name then
      inline[#inline] = nil
    end
  end
  return table.concat(parts) .. text:sub(position)
end

local function from_html(text)
  text = with_closed_cells(centred(text))
  for pattern, replacement in pairs(MEANING) do
    text = text:gsub(pattern, replacement)
  end
  for _, tag in ipairs(ELSEWHERE) do
    local address = '<' .. tag .. '[^<>]-%ssrc=["\']?([^"\'%s>]+)[^>]*>'
    text = text:gsub(address, '<a href="%1">%1</a>')
  end
  return pandoc.read(text, HTML, nil, {}).blocks
end

-- HTML in Markdown means what it means on a web page: where there is some, the whole text is
-- written as HTML and read again.
local function from_markdown(text)
  local blocks = pandoc.read(text .. '\n', MARKDOWN, nil, {}).blocks
  local found = false
  blocks:walk {
    RawInline = function() found = true end,
    RawBlock = function() found = true end,
  }
  if not found then
    return blocks
  end
  blocks = blocks:walk {
    Math = function(math)
      return pandoc.RawInline('html', '$$' .. math.text .. '$$')
    end,
    Note = function(note)
      local inlines = pandoc.utils.blocks_to_inlines(note.content)
      return pandoc.Span(inlines, pandoc.Attr('', { 'printed-note' }))
    end,
  }
  return from_html(pandoc.write(pandoc.Pandoc(blocks), 'html-task_lists', OPTIONS))
end

-- Pictures among words are part of the line.
local function with_inline_pictures(paragraph)
  local words, pictures = false, false
  for _, inline in ipairs(paragraph.content) do
    words = words or inline.t == 'Str'
    pictures = pictures or inline.t == 'Image'
  end
  if words and pictures then
    return paragraph:walk { Image = function(element)
      element.attributes.inline = 'true'
      return element
    end }
  end
end

-- All pieces are read before the first is written: a link may go to any of them.
local documents, targets = {}, {}
for index, piece in ipairs(input.pieces) do
  local is_html = piece.format == 'html'
  local blocks = is_html and from_html(piece.text) or from_markdown(piece.text)
  documents[index] = blocks:walk { Para = with_inline_pictures, Plain = with_inline_pictures }
  documents[index]:walk { Link = function(element)
    if element.target:match('^#') then
      targets[key(element.target)] = true
    end
  end }
end
local count = 0
local function collect(element)
  local name = element.identifier ~= '' and key(element.identifier)
  if name and targets[name] and not anchors[name] then
    count = count + 1
    anchors[name] = { number = count }
  end
end
for _, blocks in ipairs(documents) do
  blocks:walk { Header = collect, Span = collect, Div = collect }
end

-- The blocks without those that follow the lines of a longest output, and a line that says so.
local function cut(blocks, longest)
  local lines, depth = 0, 0
  for index, block in ipairs(blocks) do
    if block.t == 'RawBlock' then
      depth = depth + (block.text:match('%[$') and 1 or block.text == ']' and -1 or 0)
    elseif block.t == 'Table' then
      lines = lines + 2 + (block.bodies[1] and #block.bodies[1].body or 0)
    else
      lines = lines + 2 + #pandoc.utils.stringify(block) // LINE
    end
    if lines >= longest and depth == 0 and index < #blocks then
      local rest = ('[%d paragraphs or tables are left out here]'):format(#blocks - index)
      local kept = pandoc.Blocks(table.move(blocks, 1, index, 1, {}))
      kept:insert(pandoc.Para { pandoc.Str(rest) })
      return kept
    end
  end
  return blocks
end

local results = { pieces = {}, formulas = {} }
for index, piece in ipairs(input.pieces) do
  images = piece.images or {}
  longest_output = math.tointeger(piece.longest)
  local blocks = documents[index]:walk(clean)
  if longest_output then
    blocks = cut(blocks, longest_output + 10) -- which a table and its line may have
  end
  results.pieces[index] = pandoc.write(pandoc.Pandoc(blocks), TYPST, OPTIONS)
end

-- -------------------------------------------------------------------------- the formulas
local function expanded(entry)
  local tex = entry.tex
  if entry.preamble ~= '' then
    local text = entry.preamble .. '\n$' .. tex .. '$'
    local worked, document = pcall(pandoc.read, text, 'latex', nil, {})
    local found
    if worked then
      document:walk { Math = function(math) found = found or math.text end }
    end
    tex = found or tex
  end
  return tex
end

-- one document for all: pandoc's writer takes a millisecond to start
local divs, places = pandoc.Blocks {}, {}
for _, entry in ipairs(input.formulas) do
  local key = tostring(entry.display) .. entry.preamble .. '\0' .. entry.tex
  if entry.tex ~= '' and not places[key] then
    local kind = entry.display and 'DisplayMath' or 'InlineMath'
    divs:insert(pandoc.Div { pandoc.Plain { pandoc.Math(kind, expanded(entry)) } })
    places[key] = #divs
  end
end
local html = pandoc.write(pandoc.Pandoc(divs), 'html', { html_math_method = 'mathml' })
local written = {}
for part in html:gmatch('<div>(.-)</div>') do
  written[#written + 1] = part:match('<math.*</math>') or ''
end
for index, entry in ipairs(input.formulas) do
  local key = tostring(entry.display) .. entry.preamble .. '\0' .. entry.tex
  results.formulas[index] = written[places[key]] or ''
end
io.write(pandoc.json.encode(results))
