"""Pushes by real git over real ssh, from the first byte to the release."""

from tests.build.builder import WEB, Builder


async def test_a_push_is_built_released_and_cloned(builder_on_both: Builder) -> None:
    builder = builder_on_both
    repository = await builder.make_repository(WEB)
    said = await builder.push(repository)
    wanted = [
        "-----> Build 1",
        "Starting build... but first, coffee!",
        "built",
        "Build complete.",
        "Launching App...",
        "Done, shop:v2 deployed to Workflow",
    ]
    lines = [line.removeprefix("remote: ").rstrip() for line in said.splitlines()]
    assert [line for line in lines if line in wanted] == wanted, said
    assert "* [new branch]" in said
    assert await builder.releases() == [(2, "succeed")]
    await builder.git("clone", "-q", builder.remote(), "copy", cwd=builder.home)
    head = (await builder.git("rev-parse", "HEAD", "main", cwd=repository)).out
    assert (await builder.git("rev-parse", "HEAD", "main", cwd=builder.home / "copy")).out == head
