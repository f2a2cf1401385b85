"""How often a key may ask: counted by the minute in Redis, so that all processes of the API count together."""

import logging
import threading
import time

import redis

from domain.jobs.hints import redis_url

MINUTE = 60
AWAY = 5.0
"""Seconds without a new try after Redis did not answer; this process counts alone meanwhile."""
logger = logging.getLogger(__name__)


class RateLimit:
    """Requests of each key in this minute of the clock. One key's requests never count for another."""

    def __init__(self, broker_url: str, per_minute: int) -> None:
        """per_minute: 0 means no limit."""
        self._most = per_minute
        url = redis_url(broker_url)
        self._redis = None if url is None else _client(url)
        self._away_until = 0.0
        self._own: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str) -> int:
        """Count a request. 0: it may go on; otherwise the seconds until the key may ask again."""
        if not self._most:
            return 0
        now = time.time()
        minute = int(now // MINUTE)
        if self._count(key_id, minute) <= self._most:
            return 0
        return MINUTE - int(now % MINUTE)

    def _count(self, key_id: str, minute: int) -> int:
        if self._redis is not None and time.monotonic() >= self._away_until:
            try:
                with self._redis.pipeline() as together:
                    together.incr(f"tacit:rate:{key_id}:{minute}")
                    together.expire(f"tacit:rate:{key_id}:{minute}", 2 * MINUTE)
                    return int(together.execute()[0])
            except (redis.RedisError, OSError) as error:
                self._away_until = time.monotonic() + AWAY
                logger.warning("requests are counted in this process alone: %s", type(error).__name__)
        with self._lock:
            if not any(of == minute for _, of in self._own):
                self._own.clear()  # what was counted in earlier minutes
            self._own[key_id, minute] = self._own.get((key_id, minute), 0) + 1
            return self._own[key_id, minute]


def _client(url: str) -> "redis.Redis":
    client: redis.Redis = redis.Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5)
    return client
