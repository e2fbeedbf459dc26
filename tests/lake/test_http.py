"""Questions to a server's HTTP port: whatever answers, or does not, is one clear error."""

import pytest

from streamlake.core.errors import NotFound, Unavailable
from streamlake.lake.http import get_json


def test_no_server_says_how_to_start_one():
    with pytest.raises(Unavailable, match=r"Connection refused.*streamlake server"):
        get_json("http://127.0.0.1:1", "/v1/tables")


def test_an_answer(lake):
    assert get_json(lake.http_url, "/healthz")["status"] == "ok"


def test_an_http_error_names_the_code(lake):
    with pytest.raises(NotFound, match="404"):
        get_json(lake.http_url, "/v1/nothing")


def test_another_server_at_the_address_is_no_traceback(lake):
    with pytest.raises(Unavailable, match="no StreamLake server"):
        get_json(lake.http_url, "/metrics")
    with pytest.raises(Unavailable, match="no StreamLake server"):
        get_json(f"http://{lake.bootstrap}", "/v1/tables")
