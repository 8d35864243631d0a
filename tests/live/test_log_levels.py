"""What a mapping is logged from, when it says so itself. It needs no server: there is nobody at its brokers."""

from tests.live.daemon import Daemon, plain

NOBODY = plain("127.0.0.1:1", "orders")


async def test_a_mapping_has_a_level_of_its_own(tmp_path):
    async with Daemon(tmp_path) as daemon:
        daemon.document["log_level"] = "error"
        daemon.function("worker", "def handle(event, context): pass")
        for name, level in (("quiet", {}), ("loud", {"log_level": "debug"})):
            daemon.mapping(name, {**NOBODY, "consumer_group": name}, function="worker", **level)
        await daemon.start()
        await daemon.line("mapping.waiting", mapping="loud")
        assert await daemon.terminate() == 0
        assert {line["mapping"] for line in daemon.lines if "mapping" in line} == {"loud"}
        assert daemon.events("daemon.started") == []
