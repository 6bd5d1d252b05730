"""What scores.json says of one model's answers."""

from pipeline.evaluate.score import Graded, make_score, make_scores


def grade(text: str, correct: bool, domain: str = "", tokens: int = 10) -> Graded:
    return Graded(text=text, correct=correct, domain=domain, tokens=tokens, finished=tokens < 400)


def test_a_models_answers_are_summed() -> None:
    good = "<think>\nStep 1: 3 + 4 = 7\nStep 2: check: 7\n</think>\n7"
    loop = "<think>" + "and so on it goes " * 80
    score = make_score(
        [grade(good, True, "sums"), grade(good, False, "words"), grade(loop, False, "sums", 400)]
    )
    assert (score["correct"], score["total"], score["unfinished"]) == (1, 3, 1)
    low, high = score["interval"]
    assert 0 < low < 1 / 3 < high < 1
    assert score["reasoning"]["well_formed"] == score["reasoning"]["verifies"] == 2
    assert score["reasoning"]["steps"] == {"mean": 1.6667, "least": 1, "most": 2}
    assert sum(score["reasoning"]["depth"]["tenths"]) == 3
    assert score["long_answers"] == {"count": 1, "repetition": 0.9849, "loops": 1}
    assert score["domains"]["sums"]["total"] == 2
    assert score["domains"]["words"]["correct"] == 0


def test_rows_without_domains_have_no_table_of_them() -> None:
    assert "domains" not in make_score([grade("7", True)])


def test_every_model_is_compared_with_the_first_over_all_and_by_file() -> None:
    def answer(exam: str, correct: bool) -> Graded:
        return Graded(text="7", correct=correct, domain="", exam=exam, tokens=1, finished=True)

    asked = ["", "", "mine"]
    first = [answer(exam, True) for exam in asked]
    second = [answer(exam, exam == "") for exam in asked]
    scores = make_scores({"BF16": first, "Q8_0": second})
    assert list(scores) == ["BF16", "Q8_0"]
    assert scores["Q8_0"]["compared"] == {
        "with": "BF16",
        "only_first": 1,
        "only_second": 0,
        "p_value": 1.0,
    }
    by_file = scores["Q8_0"]["exams"]
    assert {name: (each["correct"], each["total"]) for name, each in by_file.items()} == {
        "held out": (2, 2),
        "mine": (0, 1),
    }
    assert by_file["mine"]["compared"]["only_first"] == 1
    assert "exams" not in make_scores({"BF16": first[:2]})["BF16"]
