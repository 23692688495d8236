"""Does the paper hold? Each of its claims beside what the committed results say, as one page of Markdown and one of HTML."""
