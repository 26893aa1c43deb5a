"""A tiny folder of local data for tasks of lm-evaluation-harness, in the layout of RECTILINEAR_DATA."""

import gzip
import json

WORDS = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12".split()
ARC = [
    {
        "question": f"w{i} w{i + 20}",
        "choices": [f"w{i + 2 * j} w{i + 3}"[: 9 - j] for j in range(3 + i % 2)],
        "label": i % 3,
    }
    for i in range(1, 9)
]
LAMBADA = [{"context": f"w{i} w{i + 5} w{i + 9},", "continuation": f"w{i + 3}"} for i in range(1, 4)]
ROWS = {
    "arc_easy/arc_easy_test": ARC,
    "lambada/lambada_openai": LAMBADA,
    "superglue/BoolQ_val": [
        {"question": "is w1", "passage": "w1 -- w2", "idx": 0, "label": False},
        {"question": "is w3", "passage": "w3 -- w4", "idx": 1, "label": True},
    ],
    "superglue/CB_val": [
        {"premise": f"w{i} w1?", "hypothesis": f"w{i}", "label": label, "idx": i}
        for i, label in enumerate(("contradiction", "entailment", "neutral"))
    ],
    "superglue/COPA_val": [
        {"premise": "W1 w2.", "choice1": "W3 w4.", "choice2": "W5.", "question": "effect", "label": 1, "idx": 0},
        {"premise": "W6 w7.", "choice1": "W8.", "choice2": "W9.", "question": "cause", "label": 0, "idx": 1},
    ],
    "superglue/MultiRC_val": [
        {
            "idx": 0,
            "passage": {
                "text": "w1 w2.",
                "questions": [
                    {"question": "w1?", "answers": [{"text": "w2", "label": 1}, {"text": "w3", "label": 0}]},
                    {"question": "w4?", "answers": [{"text": "w5", "label": 0}]},
                ],
            },
        }
    ],
    "superglue/RTE_val": [
        {"premise": "w1 w2.", "hypothesis": "w3.", "label": "not_entailment", "idx": 0},
        {"premise": "w4 w5.", "hypothesis": "w5.", "label": "entailment", "idx": 1},
    ],
    "superglue/WiC_val": [
        {"word": "w2", "sentence1": "w1 w2.", "sentence2": "w2 w3.", "start1": 3, "end1": 5, "idx": 0, "label": False},
        {"word": "w4", "sentence1": "w4 w5.", "sentence2": "w4.", "start1": 0, "end1": 2, "idx": 1, "label": True},
    ],
}
WIKITEXT = " \n = w1 = \n \n w2 w3 \n = = w4 = = \n w5 \n = w6 = \n \n w7 w8 \n"


def write(root):
    """Write all files below the folder `root`; return it."""
    for name, rows in ROWS.items():
        write_rows(root / f"{name}.jsonl.gz", rows)
    (root / "wikitext2").mkdir()
    (root / "wikitext2" / "wiki.test.raw.gz").write_bytes(gzip.compress(WIKITEXT.encode()))
    return root


def write_rows(path, rows):
    """Write rows as lines of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
