"""Addresses of a Redis: what is read, what is refused, and that no sentence holds a secret."""

from __future__ import annotations

import pytest

from state.redis_address import RedisAddress, read_address


@pytest.mark.parametrize(
    ("url", "hosts", "service", "database", "shown"),
    [
        ("redis://h:7000/3", [("h", 7000)], None, 3, "h:7000"),
        ("redis://h", [("h", 6379)], None, 0, "h:6379"),
        ("rediss://u:p@h/", [("h", 6379)], None, 0, "h:6379"),
        ("redis://[::1]:7000", [("::1", 7000)], None, 0, "[::1]:7000"),
        ("redis+sentinel://h/s", [("h", 26379)], "s", 0, "s, by the sentinels h:26379"),
        (
            "rediss+sentinel://u:p@a:1,[::1]:2,c/my%20one/4",
            [("a", 1), ("::1", 2), ("c", 26379)],
            "my one",
            4,
            "my one, by the sentinels a:1,[::1]:2,c:26379",
        ),
        ("unix:///run/redis.sock?db=2", [], None, 0, "/run/redis.sock"),
    ],
)
def test_each_form_is_read(
    url: str, hosts: list[tuple[str, int]], service: str | None, database: int, shown: str
) -> None:
    got = read_address(url)
    assert (list(got.hosts), got.service, got.database, got.shown) == (
        hosts,
        service,
        database,
        shown,
    )
    assert got.tls == url.startswith("rediss")


def test_user_and_password_are_decoded_and_not_shown() -> None:
    got = read_address("redis+sentinel://us%65r:hu%2Fsh%40@h/s")
    assert (got.username, got.password) == ("user", "hu/sh@")
    assert "hu/sh" not in repr(got)
    assert read_address("redis+sentinel://h/s") == RedisAddress(
        "redis+sentinel", (("h", 26379),), "s, by the sentinels h:26379", "s"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "must read redis://HOST:PORT/DB"),
        ("redis://u:hush/hush@h:6379/0", r"in a password, / \? # and @ are written %2F"),
        ("redis://:hu#sh@h:6379/0", "a # in a password is written %23"),
        ("redis://h:port/0", "must read redis://HOST:PORT/DB"),
        ("redis://h:99999/0", "must read redis://HOST:PORT/DB"),
        ("redis://h/zero", "DB is a number"),
        ("redis://h/1/2", "DB is a number"),
        ("redis://a..b/0", "a host that can be none"),
        ("redis://h:1,i:2/0", r"sentinels are named by redis\+sentinel://…/SERVICE"),
        ("redis+sentinel://h:1,i:2", r"must read redis\+sentinel://HOST:PORT,HOST:PORT/SERVICE"),
        ("redis+sentinel://h/s/x", "DB is a number"),
        ("redis+sentinel://h/s?db=1", "unknown option 'db' .none is known here"),
        ("unix://", "must read redis://HOST:PORT/DB"),
        ("redis://h?decode_responses=true", "unknown option 'decode_responses'"),
        ("redis://h?socket_timeout=60", "unknown option 'socket_timeout' .known are client_name"),
        ("redis://h?db=one", "db, which must be a number"),
        ("redis://h?ssl_ca_certs=ca.pem", "ssl_ca_certs, which needs rediss://"),
        ("rediss://:hush@h?ssl_cert_reqs=none", "would trust any server.*EMOTRACK_REDIS_CA_FILE"),
        ("rediss://h?ssl_cert_reqs=optional", "would trust any server"),
        ("rediss://h?ssl_check_hostname=false", "ssl_check_hostname, which would trust any"),
        ("rediss://h?ssl_check_hostname=", "ssl_check_hostname, which would trust any"),
        ("rediss+sentinel://h/s?ssl_cert_reqs=none", "would trust any server"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_cure(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as met:
        read_address(url)
    assert "hush" not in str(met.value)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://h?ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs=ca.pem",
        "redis://h?client_name=emotrack&health_check_interval=30&socket_keepalive=true",
        "redis://h/?password=hush&username=u",
    ],
)
def test_options_that_keep_every_promise_may_stay(url: str) -> None:
    read_address(url)
