import io

from rich.console import Console

from rectilinear.cli.progress import progress_bar


def test_a_terminal_sees_task_tokens_rate_and_what_is_known():
    file = io.StringIO()
    with progress_bar(Console(file=file, force_terminal=True, width=150, force_interactive=True)) as show:
        show("loading [b]m", 0, None, "")
        show("predicting m", 0, 4000, "")
        show("predicting m", 1000, 4000, "perplexity 30.20")
        show("predicting m", 2000, 4000, "perplexity 30.10")
        show("arc_easy m", 5, 9, "", "requests")
    said = file.getvalue()
    assert "5/9 requests" in said
    assert "2,000/4,000 tokens" in said and "perplexity 30.10" in said and "tokens/s" in said and "left" in said


def test_anything_else_sees_nothing():
    file = io.StringIO()
    with progress_bar(Console(file=file)) as show:
        show("predicting", 1, 2, "perplexity 3")
    assert file.getvalue() == ""
