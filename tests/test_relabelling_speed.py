"""The study of relabelling's speed, on small cases: it runs, and its file holds what it returns."""

import json

from comparisons import relabelling_speed


def test_the_study_of_speed_says_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(relabelling_speed, "MIDDLE", (20, 30, 3))
    monkeypatch.setattr(relabelling_speed, "_in_a_child", lambda size: relabelling_speed._large((20, 30, 3)))
    result = relabelling_speed.run(tmp_path, quick=True)
    assert json.loads((tmp_path / "relabelling_speed.json").read_text())["rows"] == json.loads(
        json.dumps(result["rows"])
    )
    objectives = {row["method"]: row["objective"] for row in result["rows"] if tuple(row["size"]) == (400, 200, 5)}
    assert (objectives["ecr_iterative_1"], result["small_case"]) == (63144, "real")
    assert result["large"]["peak_bytes"] >= result["large"]["bytes_before"] > 1e7
