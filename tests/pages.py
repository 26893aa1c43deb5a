"""What a page holds, as a browser would see it."""

from html.parser import HTMLParser


class Seen(HTMLParser):
    """Collect tags, ids and where attributes point."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.links = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
