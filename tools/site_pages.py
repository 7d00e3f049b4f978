"""Notebooks and Markdown files to pages: prose as Jupyter shows it, LaTeX as MathML, code and outputs in colour, links that lead to pages.

A page mirrors the path of its source (nbs/30_model.ipynb is nbs/30_model.html), so a link in a notebook means the same thing on the site.
Only headings stay Markdown, for Zensical's contents and search; the rest is HTML already.
"""
import base64, csv, hashlib, html, json, os, re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound
from site_islands import CLOSE, OPEN

ROOT = Path(__file__).resolve().parents[1]
MD = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
FORMAT = HtmlFormatter(cssclass="highlight", wrapcode=True)
MATH = re.compile(r"(```.*?```|``[^\n]+?``|`[^`]*`)|\$\$(.+?)\$\$|\$([^\s$](?:[^$]*?[^\s$\\])?)\$(?!\d)", re.S)
ESCAPED = {"<": "\ue000", ">": "\ue001", "&": "\ue002", "\\_": "\ue003", "\\textbackslash ": "\ue004", "\\%": "\ue005", "\\#": "\ue006"}  # in text, where the library leaves them raw
MEANT = {"\ue000": "&lt;", "\ue001": "&gt;", "\ue002": "&amp;", "\ue003": "_", "\ue004": "&#92;", "\ue005": "%", "\ue006": "#"}


def esc(text): return html.escape(str(text), quote=True)


def slug(text): return re.sub(r"[^\w]+", "-", re.sub(r"<[^>]+>", "", text).lower()).strip("-") or "part"


def heading(level, words, name=""):
    "A heading, which stays Markdown."
    return f"\n\n\ue200{'#' * level} {words}" + (f" {{#{name}}}" if name else "") + "\n\n"


def rel(target, page):
    "A link from a page to a path of the site."
    path, _, anchor = target.partition("#")
    return (os.path.relpath(path, Path(page).parent) if path else "") + (f"#{anchor}" if anchor else "")


@cache
def mathml(tex, block=False):
    "LaTeX as MathML, which browsers draw themselves; a command that would stay LaTeX is an error."
    def plain(m):
        inner = m[2]
        for raw, sign in ESCAPED.items(): inner = inner.replace(raw, sign)
        return f"\\{m[1]}{{{inner}}}"
    tex = re.sub(r"\\(text\w*)\{((?:[^{}]|\\textbackslash )*)\}", plain, tex.strip().replace("\\textbackslash\\", "\\textbackslash \\"))
    made = convert(re.sub(r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}", tex), display="block" if block else "inline")
    made = re.sub(r">\\([{}#%_])<", r">\1<", made).replace("&#x0005C;", "&#92;")
    for sign, meant in MEANT.items(): made = made.replace(sign, meant)
    if left := re.findall(r".{20}\\.{20}", made): raise ValueError(f"no MathML for {tex!r}: {left}")
    return made


def code(source, lexer="python"):
    try: return highlight(source, get_lexer_by_name(lexer, stripnl=False), FORMAT)
    except ClassNotFound: return highlight(source, get_lexer_by_name("text", stripnl=False), FORMAT)


def table(rows, heads=None, most=None, html_cells=()):
    "Rows of a CSV as a table that scrolls by itself; cells named in `html_cells` are HTML already."
    if not rows: return ""
    heads = heads or list(rows[0])
    cell = lambda r, k: f"<td>{r[k]}</td>" if k in html_cells else f'<td class="num">{esc(r[k])}</td>' if re.fullmatch(r"-?[\d.]+(e-?\d+)?", str(r[k])) else f"<td>{esc(r[k])}</td>"
    body = "\n".join("<tr>" + "".join(cell(r, k) for k in heads) + "</tr>" for r in rows[:most])
    more = f'<p class="soft">The first {most} of {len(rows)} rows.</p>' if most and len(rows) > most else ""
    return f'<div class="scroll" tabindex="0"><table class="rows"><thead><tr>{"".join(f"<th>{esc(h)}</th>" for h in heads)}</tr></thead><tbody>\n{body}\n</tbody></table></div>{more}'


def read_csv(path):
    with open(ROOT/path, encoding="utf-8", newline="") as f: return list(csv.DictReader(f))


def read_json(path): return json.loads((ROOT/path).read_text(encoding="utf-8"))


class Site:
    "Which sources are pages, which names they define, and which other files they link to."
    def __init__(self, docs): self.docs, self.sources, self.names, self.files = Path(docs), {}, {}, set()

    def add(self, source, title, page=""): self.sources[source] = (page or str(Path(source).with_suffix(".html")), title)

    def page(self, source): return self.sources[source][0]

    def href(self, link, source):
        "Where a link of a source leads on the site; a link to nothing is an error, a linked file comes along."
        path, _, anchor = unquote(link).partition("#")
        if ":" in link or not path: return link
        found = next((p for p in (os.path.normpath(Path(source).parent/path), path) if (ROOT/p).exists()), None)
        if found is None: raise FileNotFoundError(f"{source}: the link {link} leads nowhere")
        if found in self.sources: return rel(self.page(found) + (f"#{anchor}" if anchor else ""), self.page(source))
        if (ROOT/found).is_dir(): return None
        self.files.add(found)
        return rel(found, self.page(source))

    def place(self, text):
        "Where a name in backquotes leads: a function, or a notebook by its name; empty: nowhere."
        return self.names.get(text.removesuffix("()"), "")

    def write(self, page, title, body, lead="", description=""):
        "A page of Zensical: title, one line, body."
        path, parts = self.docs/Path(page).with_suffix(".md"), re.split("^\ue200(.*)$", body, flags=re.M)
        body = "\n\n".join(p if i % 2 else f"{OPEN}\n<div>{p.strip()}</div>\n{CLOSE}" for i, p in enumerate(parts) if p.strip())
        path.parent.mkdir(parents=True, exist_ok=True)
        words = json.dumps(re.sub(r"<[^>]+>", "", html.unescape(description or lead or title)).replace("`", ""), ensure_ascii=False)
        path.write_text(f"---\ntitle: {json.dumps(title.replace('`', ''), ensure_ascii=False)}\ndescription: {words}\n---\n\n# {title}\n\n" + (f'<p class="lead">{lead}</p>\n\n' if lead else "") + body, encoding="utf-8")

    def prose(self, text, source, seen=None):
        "Markdown as headings in Markdown and HTML between them."
        seen, page, kept = set() if seen is None else seen, self.page(source), []
        def keep(m):
            if m[1]: return m[0]
            kept.append(mathml(m[2] or m[3], bool(m[2])))
            return f"\ue100{len(kept) - 1}\ue101"
        tokens = MD.parse(MATH.sub(keep, text))
        out, run, depth, i = [], [], 0, 0
        def flush():
            made = MD.renderer.render(run, MD.options, {})
            made = re.sub("\ue100(\\d+)\ue101", lambda m: kept[int(m[1])], made)
            if made.strip(): out.append(f'<div class="prose">\n{made.strip()}\n</div>')
            run.clear()
        while i < len(tokens):
            t = tokens[i]
            if t.type == "html_block": depth += t.content.count("<details") - t.content.count("</details")
            if t.type == "fence":
                t.type, t.content = "html_block", code(t.content, t.info.split()[0] if t.info.strip() else "text")
            for c in t.children or []: self._inline(c, source, page)
            if t.children: self._linked(t.children, page)
            if t.type == "heading_open" and not depth and t.level == 0:
                flush()
                words, name = tokens[i + 1].content, slug(tokens[i + 1].content)
                words = re.sub("\ue100(\\d+)\ue101", lambda m: kept[int(m[1])], words)
                while name in seen: name += "-"
                seen.add(name)
                out.append(heading(max(2, int(t.tag[1])), words, name))
                i += 3; continue
            run.append(t); i += 1
        flush()
        return "\n\n".join(out)

    def inline(self, text, source):
        "One line of prose."
        return re.sub(r"\A<div[^>]*>\s*<p>|</p>\s*</div>\Z", "", self.prose(text, source)) if text else ""

    def _inline(self, c, source, page):
        "Links and pictures of a paragraph as they are on the site."
        if c.type == "link_open":
            where = self.href(c.attrs["href"], source)
            if where is None: c.attrs.pop("href"); c.attrs["class"] = "folder"
            else: c.attrs["href"] = where
        if c.type == "image":
            c.attrs["src"], c.attrs["loading"] = self.href(c.attrs["src"], source), "lazy"
            if not c.content.strip(): raise ValueError(f"{source}: {c.attrs['src']} has no alternative text")

    def _linked(self, children, page):
        "Names of the package in backquotes become links, except where they stand in a link already."
        inside = 0
        for c in children:
            inside += (c.type == "link_open") - (c.type == "link_close")
            if c.type == "code_inline" and not inside and (where := self.place(c.content)):
                c.type, c.content = "html_inline", f'<a class="name" href="{rel(where, page)}"><code>{esc(c.content)}</code></a>'

    def notebook(self, source, taken=()):
        "The cells of a notebook but the title: prose, code, outputs; `taken` are anchors that stand elsewhere on the page."
        nb, page, out, last, seen = read_json(source), self.page(source), [], "", {"reference", "what-it-makes", *taken}
        for n, cell in enumerate(nb["cells"]):
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                if n == 0: text = re.sub(r"\A# .*\n*(> .*\n?)*", "", text)
                if text.strip(): out.append(self.prose(text, source, seen=seen)); last = text
            elif cell["cell_type"] == "code" and not re.search(r"^#\|\s*hide\b|nbdev_export\(", text, re.M):
                exported = bool(re.search(r"^#\|\s*export", text, re.M))
                text = re.sub(r"^#\|.*\n?", "", text, flags=re.M).strip()
                if text: out.append(f'<div class="cell{" exported" if exported else ""}{" parameters" if "parameters" in cell["metadata"].get("tags", []) else ""}" id="cell-{esc(cell["id"])}">\n{code(text)}</div>')
                shown = "".join(self.output(o, page, last) for o in cell.get("outputs", []))
                if shown: out.append(f'<div class="shown">\n{shown}</div>')
        return "\n\n".join(out)

    def output(self, o, page, about):
        "One output: a picture as a file beside the page, a table, or text."
        if o["output_type"] == "stream": return f'<pre class="said"><code>{esc("".join(o["text"]).rstrip())}</code></pre>\n'
        data = o.get("data", {})
        if "image/png" in data:
            raw = base64.b64decode("".join(data["image/png"]))
            name = f"{Path(page).stem}_{hashlib.sha256(raw).hexdigest()[:10]}.png"
            (self.docs/Path(page).parent).mkdir(parents=True, exist_ok=True)
            (self.docs/Path(page).parent/name).write_bytes(raw)
            first = re.sub(r"[`*$#>|]", "", re.split(r"(?<=[.:?])\s", re.sub(r"^#+.*$", "", about, flags=re.M).strip())[0]).strip()
            return f'<figure><img alt="{esc("Drawn by the cell above: " + (first or "a figure"))}" src="{name}" loading="lazy"></figure>\n'
        if "text/html" in data:
            bare = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.S).replace(' border="1"', "")
            return f'<div class="scroll" tabindex="0">{bare}</div>\n'
        if "text/markdown" in data: return MD.render("".join(data["text/markdown"]))
        return f'<pre class="said value"><code>{esc("".join(data.get("text/plain", "")))}</code></pre>\n' if data.get("text/plain") else ""


def title_of(source):
    "Title and one line of a notebook or Markdown file, in Markdown."
    text = "".join(read_json(source)["cells"][0]["source"]) if source.endswith(".ipynb") else (ROOT/source).read_text(encoding="utf-8")
    title, line = re.search(r"^# (.+)$", text, re.M), re.search(r"\A# .*\n+((?:> .*\n?)+)", text)
    return title[1].strip() if title else Path(source).stem, " ".join(line[1].replace("> ", "").split()) if line else ""
