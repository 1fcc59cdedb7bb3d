"""The summary in Markdown: the answer first, and nothing that Markdown would take for its own."""

from types import SimpleNamespace

import pandas as pd
import pytest

from dpgmm.report import markdown


@pytest.mark.quick("report")
def test_the_answer_comes_first_and_words_stay_words():
    answer = SimpleNamespace(
        sentence="Believe nuts: 5 clusters", method="nuts", of_components="", others={"my_method": "a*b|c"}
    )
    rows = pd.DataFrame({"method": ["nuts", "my_method"], "R-hat": [1.00042, float("nan")], "verdict": ["good", None]})
    text = markdown.summary("a_b.csv", answer, SimpleNamespace(sentence="they agree"), rows)
    assert text.splitlines()[:5] == [r"# a\_b.csv", "", "**Believe nuts: 5 clusters**", "", "They agree."]
    assert r"- **my\_method**: a\*b\|c." in text
    assert text.splitlines()[-4:] == [
        r"|  | nuts | my\_method |",
        "| --- | ---: | ---: |",
        "| R-hat | 1 | – |",
        "| verdict | good | – |",
    ]
