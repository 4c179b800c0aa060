"""What backends in nn-Meter's form are, and what users derive theirs from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["BaseBackend", "BaseParser", "BaseProfiler"]


class BaseProfiler:
    """Runs a model on a device."""

    def profile(self, *arguments: Any, **options: Any) -> Any:
        """Run a model file, and return what the device says."""
        raise NotImplementedError(f"{type(self).__name__} has no profile")


class BaseParser:
    """Reads metrics from what a device says."""

    def parse(self, content: Any) -> BaseParser:
        """Read ``content``, and return this parser."""
        return self

    @property
    def results(self) -> Any:
        """What was read, as :class:`nnmeter_nas.compat.builder.results.ProfiledResults`."""
        raise NotImplementedError(f"{type(self).__name__} has no results")


class BaseBackend:
    """A device, which a profiler runs models on and a parser reads the answer of.

    Args:
        configs: ``backend_config.yaml`` of the workspace; None if there is none.
    """

    profiler_class: Any = None
    parser_class: Any = None

    def __init__(self, configs: Any) -> None:
        self.configs = configs
        self.update_configs()
        if self.parser_class:
            self.parser = self.parser_class(**self.parser_kwargs)
        if self.profiler_class:
            self.profiler = self.profiler_class(**self.profiler_kwargs)

    def update_configs(self) -> None:
        """Set the arguments of the parser and the profiler."""
        self.parser_kwargs: dict[str, Any] = {}
        self.profiler_kwargs: dict[str, Any] = {}

    def convert_model(self, model_path: str, save_path: str, input_shape: Any = None) -> str:
        """Return the path of the model in the device's format; the file itself unless overridden."""
        return model_path

    def profile(
        self, converted_model: str, metrics: Sequence[str] = ("latency",), **options: Any
    ) -> dict[str, Any]:
        """Run a converted model; return its metrics."""
        said = self.profiler.profile(converted_model, **options)
        found: dict[str, Any] = self.parser.parse(said).results.get(list(metrics))
        return found

    def profile_model_file(
        self,
        model_path: str,
        save_path: str,
        input_shape: Any = None,
        metrics: Sequence[str] = ("latency",),
        **options: Any,
    ) -> dict[str, Any]:
        """Convert a model and run it; return its metrics."""
        converted = self.convert_model(model_path, save_path, input_shape)
        return self.profile(converted, metrics, input_shape=input_shape, **options)

    def test_connection(self) -> None:
        """Find out whether the device answers."""
