"""A report as Markdown, and as one HTML page without scripts that needs no other file.

A report is a list of blocks (kind, content): ("head", text), ("text", text), ("list", texts),
("code", lines), ("table", rows, the first one the head), ("picture", file, caption).
"""

import base64
import html
from pathlib import Path

from w2s import files

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem;
  color: #222; background: #fff; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2rem }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal }
td, th { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left;
  white-space: nowrap }
thead th { border-bottom: 2px solid #3d3d3d }
figure { margin: 1.5rem 0 } figcaption { font-size: .875rem; color: #444 }
img { max-width: 100%; min-width: 32rem; height: auto; display: block }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; overflow-wrap: normal;
  font-size: .8125rem }
"""


def to_md(blocks):
    """The report as Markdown."""
    told = []
    for kind, content, *more in blocks:
        if kind == "head":
            told.append(f"{'##' if told else '#'} {content}")
        elif kind == "list":
            told.append("\n".join(f"- {one}" for one in content))
        elif kind == "code":
            told.append("\n".join(["```", *content, "```"]))
        elif kind == "picture":
            told.append(f"![{more[0]}]({content})\n\n{more[0]}")
        elif kind == "table":
            rows = [[str(one).replace("|", "\\|") for one in row] for row in content]
            rows.insert(1, ["---"] * len(rows[0]))
            told.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        else:
            told.append(content)
    return "\n\n".join(told) + "\n"


def to_html(folder, blocks):
    """The report as one page that needs no other file."""
    title = html.escape(blocks[0][1])
    told = [f"<h1>{title}</h1>"]
    for kind, content, *more in blocks[1:]:
        if kind == "head":
            told.append(f"<h2>{html.escape(content)}</h2>")
        elif kind == "list":
            items = "".join(f"<li>{html.escape(one)}</li>\n" for one in content)
            told.append(f"<ul>\n{items}</ul>")
        elif kind == "code":
            told.append(f"<pre>{html.escape(chr(10).join(content))}</pre>")
        elif kind == "picture":
            data = base64.b64encode(files.read_bytes(Path(folder) / content)).decode()
            caption = html.escape(more[0])
            image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
            told.append(f'<figure><div class="wide">{image}</div>')
            told[-1] += f"<figcaption>{caption}</figcaption></figure>"
        elif kind == "table":
            head, *rows = ["".join(f"<td>{html.escape(str(x))}</td>" for x in r) for r in content]
            body = "".join(f"<tr>{row}</tr>\n" for row in rows)
            head = head.replace("td>", "th>")
            table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
            told.append(f'<div class="wide">{table}</div>')
        else:
            told.append(f"<p>{html.escape(content)}</p>")
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    page = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{view}'
    page += f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n"
    return page + "\n".join(told) + "\n</body></html>\n"
