"""Log lines of requests without their secrets."""

import pytest

from drycc.kit.access import redact


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/x?token=abc123&page=2", "/x?token=***&page=2"),
        ("/callback?code=c&state=s", "/callback?code=***&state=***"),
        ("/x?page=2&access_token=a.b-c", "/x?page=2&access_token=***"),
        ("/x?API-Key=abc&keyboard=us", "/x?API-Key=***&keyboard=us"),
        ("/v2/auth/token/0123abcd/?alias=cli", "/v2/auth/token/***/?alias=cli"),
        ("/v2/auth/token/0123abcd", "/v2/auth/token/***"),
        ("/x?next=/y%3Ftoken%3Dabc&page=2", "/x?next=/y%3Ftoken%3Dabc&page=2"),
        ("/plain", "/plain"),
    ],
)
def test_se01_se02_secrets_are_left_out_of_targets(target: str, shown: str) -> None:
    assert redact(target) == shown
