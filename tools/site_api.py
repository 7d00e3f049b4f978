"""The reference of a module: for each public name its signature and the comments of its parameters (docments), read from the source alone."""
import ast, io, re, tokenize

from site_pages import MD, ROOT, code, esc, heading, read_json


def module_of(source):
    "The module that a library notebook exports, or nothing."
    found = re.search(r"#\|\s*default_exp (\S+)", (ROOT/source).read_text(encoding="utf-8"))
    return found[1].rstrip('\\n",') if found else ""


def comments(source):
    "Line -> its comment."
    return {t.start[0]: t.string.lstrip("# ") for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}


def definitions(source):
    "All definitions of a notebook, in order: syntax tree, comments, the cell they stand in."
    for cell in read_json(source)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code" or not re.search(r"^#\|\s*export", text, re.M): continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef): yield node, comments(text), cell["id"]


def exported(source):
    "The public ones."
    return [d for d in definitions(source) if not d[0].name.startswith("_")]


def members(node, said, private):
    "What stands in a class, and in the private ones of its notebook from which it goes on; beside it the comments of its cell."
    bases = [b.id for b in node.bases if isinstance(b, ast.Name) and b.id in private]
    return [m for b in bases for m in members(*private[b][:2], private)] + [(m, said) for m in node.body]


def name_of(node):
    "The name in the reference; a method that was added with `@patch` belongs to its class."
    patched = isinstance(node, ast.FunctionDef) and any(ast.unparse(d).startswith("patch") for d in node.decorator_list)
    return f"{ast.unparse(node.args.args[0].annotation)}.{node.name}" if patched and node.args.args and node.args.args[0].annotation else node.name


def words(text): return MD.renderInline(text) if text else ""


def parameters(node, said, method=False):
    "Name, type, default and comment of every parameter, and of what comes back; a method's own object apart."
    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults = dict(zip([p.arg for p in plain[len(plain) - len(a.defaults):]], a.defaults)) | {p.arg: d for p, d in zip(a.kwonlyargs, a.kw_defaults) if d is not None}
    every = [("", p) for p in plain] + [("*", a.vararg)] * bool(a.vararg) + [("", p) for p in a.kwonlyargs] + [("**", a.kwarg)] * bool(a.kwarg)
    closing = node.returns.end_lineno if node.returns else None
    rows = []
    for star, p in every:
        end = defaults[p.arg].end_lineno if p.arg in defaults else p.end_lineno
        alone = end != closing and sum((defaults[q.arg].end_lineno if q.arg in defaults else q.end_lineno) == end for _, q in every) == 1
        rows.append((star + p.arg, p.annotation, defaults.get(p.arg), said.get(end, "") if alone else ""))
    if closing: rows.append(("returns", node.returns, None, said.get(closing, "")))
    return [r for r in rows if r[0] != "self" and not (method and r[0] == "cls")]


def listed(rows, first):
    if not rows: return ""
    cell = lambda node: f"<code>{esc(ast.unparse(node))}</code>" if node is not None else ""
    body = "".join(f"<tr><th scope=\"row\">{'<em>returns</em>' if n == 'returns' else f'<code>{esc(n)}</code>'}</th><td>{cell(t)}</td><td>{cell(d)}</td><td>{words(c)}</td></tr>\n" for n, t, d, c in rows)
    return f'<div class="scroll" tabindex="0"><table class="api"><thead><tr><th>{first}</th><th>type</th><th>default</th><th>meaning</th></tr></thead><tbody>\n{body}</tbody></table></div>'


def bases_of(node, private):
    "The public classes that it inherits from."
    return [n for b in node.bases for n in (bases_of(private[b.id][0], private) if isinstance(b, ast.Name) and b.id in private else [ast.unparse(b)])]


def signature(node, name, private=()):
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(bases_of(node, private))
        return f"class {name}({bases})" if bases else f"class {name}"
    args = [p for p in (*node.args.posonlyargs, *node.args.args)]
    line = f"{name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    if len(line) <= 88 or not args + node.args.kwonlyargs: return line
    inner = ast.unparse(ast.parse(f"def f({ast.unparse(node.args)}): pass").body[0].args)
    parts, depth, start = [], 0, 0
    for i, c in enumerate(inner):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth: parts.append(inner[start:i].strip()); start = i + 1
    return f"{name}(\n    " + ",\n    ".join([*parts, inner[start:].strip()]) + "\n)" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def reference(source):
    "The section `Reference` of a page, and the names in it."
    parts, names = [], []
    private = {d[0].name: d for d in definitions(source) if isinstance(d[0], ast.ClassDef) and d[0].name.startswith("_")}
    for node, said, cell in exported(source):
        name = name_of(node)
        names.append((name, ast.get_docstring(node) or ""))
        if isinstance(node, ast.ClassDef):
            inside = members(node, said, private)
            fields = [(f.target.id, f.annotation, f.value, c.get(f.end_lineno, "")) for f, c in inside if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name) and not f.target.id.startswith("_")]
            methods = [(m, c) for m, c in inside if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef) and (not m.name.startswith("_") or m.name in ("__init__", "__call__"))]
            more = listed(fields, "field") + "".join(f'<div class="method">{code(signature(m, f"{name}.{m.name}"))}<p>{words(ast.get_docstring(m))}</p>{listed(parameters(m, c, True), "parameter") if any(r[3] for r in parameters(m, c, True)) else ""}</div>' for m, c in methods)
        else: more = listed(parameters(node, said), "parameter")
        parts.append(heading(3, f"`{name}`", name) + f'<div class="ref">\n{code(signature(node, name, private))}<p>{words(ast.get_docstring(node))} <a class="soft" href="#cell-{esc(cell)}">its code</a></p>{more}\n</div>')
    return (heading(2, "Reference", "reference") + "\n\n".join(parts) if parts else ""), names
