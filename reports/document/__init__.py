"""The content of a report, independent of any page format (`content`), and its two renderings (`html`, `pdf`)."""
