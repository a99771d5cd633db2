-- Turn pieces of notebook text into Typst markup: `pandoc lua pieces.lua < pieces.json`.
--
-- stdin:  a JSON list of {"format": "markdown" | "html", "text": ..., "images": {source: file}}
-- stdout: a JSON list of Typst strings, one per piece
--
-- Whatever a notebook says is text. The readers run without access to files, raw elements
-- and attributes (pandoc passes some of them on as code) are printed or dropped, and a
-- picture is drawn only when it came with the notebook.

local MAX_COLUMNS = 24 -- a wider table is cut into bands that repeat its first column
local SHORT_TABLE = 15 -- rows of a table that is not to be broken between pages
local MAX_WORD = 40 -- a longer word may be broken anywhere, so that it stays on the page
local LINE = 90 -- characters on a line of a table

local MARKDOWN = 'gfm+tex_math_dollars-tex_math_gfm-alerts-emoji-footnotes'
  .. '-yaml_metadata_block'

local IMAGE_TAG = '^<img[^>]-src=["\']([^"\']+)'
local TYPST = 'typst-smart-citations'
local OPTIONS = { wrap_text = 'none' }

local images = {}

local function quoted(text)
  local escaped = text:gsub('[\\"]', '\\%0'):gsub('\n', '\\n'):gsub('\t', '\\t')
  return '"' .. escaped .. '"'
end

local function breakable(text, longest)
  return (text:gsub('%S+', function(word)
    if utf8.len(word) == nil or utf8.len(word) <= (longest or MAX_WORD) then
      return word
    end
    local pieces = {}
    for _, code in utf8.codes(word) do
      pieces[#pieces + 1] = utf8.char(code)
    end
    return table.concat(pieces, '\u{200b}')
  end))
end

local function lines(text)
  local inlines = pandoc.Inlines {}
  for line in (text .. '\n'):gmatch('(.-)\n') do
    if #inlines > 0 then
      inlines:insert(pandoc.LineBreak())
    end
    inlines:insert(pandoc.Str(breakable(line)))
  end
  return inlines
end

local function plain_attributes(element)
  element.attr = pandoc.Attr()
  return element
end

-- the picture of a source that came with the notebook, or nil
local function drawn(source)
  local file = source and images[source]
  return file and pandoc.RawInline('typst', '#picture(' .. quoted(file) .. ')')
end

local function unwrapped(element)
  return element.content
end

local function formula(math)
  local typst = pandoc.write(pandoc.Pandoc { pandoc.Plain { math } }, TYPST, OPTIONS)
  typst = typst:gsub('bar%.v%.double', '\u{2016}')
  for _, bar in ipairs { '\\|', '\u{2016}' } do
    -- pandoc puts spaces around bars, which Typst shows: |x|, not | x |;
    -- a space beside a dollar is not one between bars: it says that this is a display
    typst = typst:gsub('([^$])%s+' .. bar, '%1' .. bar):gsub(bar .. '%s+([^$])', bar .. '%1')
  end
  typst = typst:gsub('mat%(delim: "%(", upright%("\u{e000}"%)', 'mat(delim: #none, ')
  -- \boxed: a formula in the formula is not one to be centred on the page
  typst = typst:gsub('#box%([^[]*%[%$ (.-) %$%]%)', '#boxed($display(%1)$)')
  typst = typst:gsub('%s+$', '')
  local body, tag = typst:match('^(%$ .-)%s*#h%(2em%)%s*\\%(%s*upright%("([^"]*)"%)%s*\\%)%s*%$$')
  if tag then
    typst = '#tagged("' .. tag .. '", ' .. body .. ' $)'
  end
  return pandoc.RawInline('typst', typst)
end

-- The blocks of a cell: words that are too long for its column may be broken, and what looks
-- like the start of a list or a heading is text.
local function in_table(blocks, longest)
  blocks = pandoc.Blocks(blocks):walk { Str = function(str)
    return pandoc.Str(breakable(str.text, math.max(longest, 4)))
  end }
  local first = blocks[1]
  if first and (first.t == 'Plain' or first.t == 'Para') then
    first.content:insert(1, pandoc.RawInline('typst', '#[]'))
  end
  return blocks
end

-- A table as one or more, none of them too wide; a short one stays on one page.
local function bands(simple)
  local tables = pandoc.Blocks {}
  for column, align in ipairs(simple.aligns) do
    if align == 'AlignDefault' then
      simple.aligns[column] = 'AlignLeft'
    end
  end
  for first = 2, math.max(2, #simple.widths), MAX_COLUMNS - 1 do
    local function cut(row)
      if #row == 0 then
        return {}
      end
      local cells = { row[1] }
      for column = first, math.min(#row, first + MAX_COLUMNS - 2) do
        cells[#cells + 1] = row[column]
      end
      return cells
    end
    local columns = #cut(simple.aligns)
    local function narrow(row)
      local cells = cut(row)
      for index, cell in ipairs(cells) do
        cells[index] = in_table(cell, LINE // columns)
      end
      return cells
    end
    local rows = {}
    for index, row in ipairs(simple.rows) do
      rows[index] = narrow(row)
    end
    local aligns = cut(simple.aligns)
    local widths = {}
    for index = 1, #aligns do
      widths[index] = 0
    end
    local band =
      pandoc.SimpleTable(simple.caption, aligns, widths, narrow(simple.headers), rows)
    tables:insert(pandoc.utils.from_simple_table(band))
  end
  if #simple.rows <= SHORT_TABLE then
    tables:insert(1, pandoc.RawBlock('typst', '#whole['))
    tables:insert(pandoc.RawBlock('typst', ']'))
  end
  return tables
end

local read_html -- defined below, with the filter that it uses

local clean = {
  RawBlock = function(raw)
    local summary = raw.text:match('^<details.->%s*<summary.->(.*)</summary>')
    if summary then
      return pandoc.Para { pandoc.Strong(pandoc.utils.blocks_to_inlines(read_html(summary))) }
    elseif raw.text:match('^</?details') then
      return {}
    end
    if raw.format == 'html' and raw.text:lower():find('<table', 1, true) then
      return read_html(raw.text)
    elseif raw.text:match('^<!%-%-.*%-%->%s*$') then
      return {}
    end
    local picture = drawn(raw.text:match(IMAGE_TAG))
    return pandoc.Para(picture or lines((raw.text:gsub('%s+$', ''))))
  end,
  RawInline = function(raw)
    if raw.text:lower():match('^<br%s*/?>$') then
      return pandoc.LineBreak()
    elseif raw.text:match('^<!%-%-.*%-%->$') then
      return {}
    end
    return drawn(raw.text:match(IMAGE_TAG)) or pandoc.Str(raw.text)
  end,
  Div = unwrapped,
  Span = unwrapped,
  Header = plain_attributes,
  Math = formula,
  Code = function(code)
    return pandoc.Code(breakable(code.text))
  end,
  CodeBlock = function(code)
    local language = (code.classes[1] or ''):match('^%w+$') or 'text'
    local call = '#code(' .. quoted(breakable(code.text)) .. ', ' .. quoted(language) .. ')'
    return pandoc.RawBlock('typst', call)
  end,
  Str = function(str)
    local text = breakable(str.text)
    if text:find('%-%-') or text:find('%.%.%.') or text:find('%-%?') then
      -- which Typst would take for dashes, an ellipsis and a place to hyphenate
      return pandoc.RawInline('typst', '#' .. quoted(text) .. ';')
    end
    return pandoc.Str(text)
  end,
  Link = function(link)
    if link.target:match('^https?://') or link.target:match('^mailto:') then
      return pandoc.Link(link.content, link.target)
    end
    return link.content
  end,
  Image = function(image)
    local what = pandoc.utils.stringify(image.caption)
    return drawn(image.src)
      or pandoc.Str('[picture: ' .. (what ~= '' and what or breakable(image.src)) .. ']')
  end,
  Figure = function(figure)
    return figure.content
  end,
  Table = function(element)
    return bands(pandoc.utils.to_simple_table(element))
  end,
}

-- HTML, as outputs have it: numbers to the right; scripts and styles are not for reading.
function read_html(text)
  local drop = function() return {} end
  local blocks = pandoc.read(text, 'html', nil, {}).blocks
  blocks = blocks:walk { RawBlock = drop, RawInline = drop, Table = function(element)
    local simple = pandoc.utils.to_simple_table(element)
    for column in ipairs(simple.aligns) do
      simple.aligns[column] = 'AlignRight'
    end
    return pandoc.utils.from_simple_table(simple)
  end }
  return blocks:walk(clean)
end

local function to_typst(piece)
  images = piece.images or {}
  local blocks
  if piece.format == 'html' then
    blocks = read_html(piece.text)
  else
    blocks = pandoc.read(piece.text .. '\n', MARKDOWN, nil, {}).blocks:walk(clean)
  end
  return pandoc.write(pandoc.Pandoc(blocks), TYPST, OPTIONS)
end

local results = {}
for index, piece in ipairs(pandoc.json.decode(io.read('a'), false)) do
  results[index] = to_typst(piece)
end
io.write(pandoc.json.encode(results))
