"""Rows of local files, in the columns of the Hub's data sets that the harness's tasks are written for.

Each function takes the data set of a local file and returns the other; the files in this folder name it as
`process_docs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
LETTERS = "ABCDEFGHIJ"
CB = ("entailment", "contradiction", "neutral")  # in the order of the Hub's labels
RTE = ("entailment", "not_entailment")


def _columns(convert: Callable[[Row], Iterable[Row]]) -> Callable[[Iterable[Row]], Dataset]:
    """Return a function that converts a whole data set; a row may become several."""

    def converted(docs: Iterable[Row]) -> Dataset:
        from datasets import Dataset

        return Dataset.from_list([new for row in docs for new in convert(row)])

    return converted


@_columns
def arc_easy(row: Row) -> Iterator[Row]:
    """Turn question, choices (texts) and label into question, choices (text, label) and answerKey."""
    choices = row["choices"]
    yield {
        "question": row["question"],
        "choices": {"text": choices, "label": list(LETTERS[: len(choices)])},
        "answerKey": LETTERS[row["label"]],
    }


@_columns
def flags(row: Row) -> Iterator[Row]:
    """Turn a label that is true or false into 1 or 0 (BoolQ, COPA, WiC)."""
    yield {**row, "label": int(row["label"])}


@_columns
def cb(row: Row) -> Iterator[Row]:
    """Turn the label's name into its number."""
    yield {**row, "label": CB.index(row["label"])}


@_columns
def sglue_rte(row: Row) -> Iterator[Row]:
    """Turn the label's name into its number."""
    yield {**row, "label": RTE.index(row["label"])}


@_columns
def rte(row: Row) -> Iterator[Row]:
    """Do the same in the columns of GLUE, whose validation part SuperGLUE took over."""
    yield {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": RTE.index(row["label"])}


@_columns
def multirc(row: Row) -> Iterator[Row]:
    """Make one row an answer of a passage with its questions and their answers."""
    passage = row["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "label": int(answer["label"]),
            }


@_columns
def lambada(row: Row) -> Iterator[Row]:
    """Join context and continuation to the text that was cut at its last space; keep a text."""
    yield {"text": row["text"] if "text" in row else f"{row['context']} {row['continuation']}"}


@_columns
def wikitext(row: Row) -> Iterator[Row]:
    """Cut a whole file into articles, before each heading of the first level, as the Hub's pages are."""
    page: list[str] = []
    for line in row["text"].split("\n"):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare.startswith("= ") and bare.endswith(" ="):
            if "".join(page).strip():
                yield {"page": "\n".join(page)}
            page = []
        page.append(line)
    yield {"page": "\n".join(page)}
