"""What a viewer on his way from control to a worker has in his hand: the number of the place that is kept for him, and
the ingest of his stream where that plays already."""


def write(number: int, ingest: int = 0) -> str:
    return f"{number}.{ingest}"


def read(text: str) -> tuple[int, int]:
    """Return (number, ingest), 0 for what is not told."""
    number, _, ingest = text.partition(".")
    return int(number or 0), int(ingest or 0)
