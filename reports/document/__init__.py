"""The content of a report, independent of any page format (`content`), and its two renderings (`html`, `pdf`).

A new kind of block is a dataclass in `content`, and how it is shown in `templates/blocks.html.j2` and `report.typ`.
"""
