"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from thano_assets.resources.model_version import ModelVersion

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one server.

    Attributes:
        requests: by method, path as the API has it, and status.
        seconds: of a request, by method and path.
        queue: texts that wait for a model.
        batch: texts of one pass through a model.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def made(kind: type, name: str, text: str, labels: tuple[str, ...], **more: object) -> object:
            return kind(f"thano_{name}", text, labels, registry=self._registry, **more)

        every = ("method", "path")
        self.requests: Counter = made(Counter, "requests", "Requests.", (*every, "status"))  # type: ignore[assignment]
        self.seconds: Histogram = made(  # type: ignore[assignment]
            Histogram, "request_seconds", "Seconds of a request.", every, buckets=_SECONDS
        )
        self.queue: Gauge = made(Gauge, "model_queue", "Texts that wait.", ("model",))  # type: ignore[assignment]
        self.batch: Histogram = made(  # type: ignore[assignment]
            Histogram, "model_batch", "Texts of one pass.", ("model",), buckets=_TEXTS
        )
        self._texts: Counter = made(Counter, "model_texts", "Texts answered.", ("model",))  # type: ignore[assignment]
        self._version: Gauge = made(Gauge, "model_version", "Version that answered last.", ("model",))  # type: ignore[assignment]

    def answered(self, version: ModelVersion, texts: int) -> None:
        """Count what a model has answered."""
        self._texts.labels(version.name).inc(texts)
        self._version.labels(version.name).set(version.version)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        found: bytes = generate_latest(self._registry)
        return found
