"""What a report holds, free of any page format (`content`), and its two renderings (`html`, `pdf`)."""
