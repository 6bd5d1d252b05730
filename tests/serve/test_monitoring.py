"""Every figure that the dashboard draws is one that a real server, or HAProxy, gives."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.serve.argv import ServerSettings
from pipeline.serve.server import run_server
from tests.serve.scripted_gguf import Script, write_model

pytestmark = pytest.mark.serve

_MONITORING = REPOSITORY / "docker" / "monitoring"
_DASHBOARD = _MONITORING / "grafana" / "dashboards" / "serve.json"
_METRIC = re.compile(r"\b((?:llamacpp:|haproxy_)\w+)")
# HAProxy's own; what gives them is in the image's list of features, and tried in test_balancer.
_OF_HAPROXY = {"haproxy_server_http_responses_total", "haproxy_server_connection_errors_total"}


def _read_panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]
    return panels


def _list_metrics() -> set[str]:
    expressions = [target["expr"] for panel in _read_panels() for target in panel["targets"]]
    return {name for expression in expressions for name in _METRIC.findall(expression)}


def test_the_server_gives_every_figure_of_the_dashboard(tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "model.gguf", Script(pieces=["a"]))
    settings = ServerSettings(
        host="127.0.0.1", port=0, context=64, parallel=1, threads=1, web_page=False, metrics=True
    )
    with (
        run_server(gguf, settings) as url,
        urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer,
    ):
        given = set(re.findall(r"^(llamacpp:\w+) ", answer.read().decode(), re.MULTILINE))
    asked = _list_metrics()
    assert asked - given == _OF_HAPROXY
    assert len(asked & given) >= 8


def test_panels_do_not_overlap_and_each_says_what_it_shows() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in _read_panels():
        place = panel["gridPos"]
        covered = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not covered & cells
        cells |= covered
        assert panel["title"] and panel["description"]
        assert panel["datasource"]["uid"] == "prometheus"
    assert max(x for x, _ in cells) < 24


def test_prometheus_and_grafana_are_told_of_each_other() -> None:
    """By the names and ports of compose.yaml."""
    prometheus = (_MONITORING / "prometheus.yml").read_text()
    assert re.findall(r'targets: \["(.+)"\]', prometheus) == [
        *("serve:8080", "canary:8080", "balancer:8405"),
    ]
    source = (_MONITORING / "grafana" / "datasources" / "prometheus.yml").read_text()
    assert "uid: prometheus" in source and "http://prometheus:9090" in source
