"""`viaduct demo`: a whole site on this machine, a working guest, one migration, and nothing left."""

import click
from rich.console import Console

from orchestrator.commands.migrate import interrupts, result_answer
from orchestrator.commands.options import DURATION, RATE, SIZE
from orchestrator.demo.play import Played, play
from orchestrator.demo.scene import Backend, DemoOptions, GuestIommu, Viommu, specification
from orchestrator.demo.site import demo_site
from orchestrator.policy import MigrationPolicy, require_offered
from orchestrator.render.progress import LiveProgress
from orchestrator.site import agents_of, open_desk
from vm_migration.command_line.invocation import Answer, Invocation, answering


@click.command("demo")
@click.option("--memory", type=SIZE, default="1GiB", show_default=True, help="The machine's RAM.")
@click.option("--cpu-dirty-rate", type=RATE, default="100MiB/s", show_default=True, help="What the vCPU writes.")
@click.option("--dma-rate", type=RATE, default="50MiB/s", show_default=True, help="What the accelerator writes.")
@click.option(
    "--downtime-limit", type=DURATION, default="300ms", show_default=True, help="Longest standstill of the guest."
)
@click.option("--backend", type=click.Choice(["iommufd", "type1"]), default="iommufd", show_default=True)
@click.option("--viommu", type=click.Choice(["scalable", "legacy", "none"]), default="scalable", show_default=True)
@click.option("--guest-iommu", type=click.Choice(["pt", "nopt"]), default="nopt", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--insecure", is_flag=True, envvar="VIADUCT_INSECURE", help="Plaintext instead of mutual TLS.")
@answering
async def demo(
    call: Invocation,
    *,
    memory: int,
    cpu_dirty_rate: int,
    dma_rate: int,
    downtime_limit: int,
    backend: Backend,
    viommu: Viommu,
    guest_iommu: GuestIommu,
    seed: int,
    insecure: bool,
) -> Answer:
    """Boot a machine on one host, move it to another while it works, and show what happened.

    Everything is real and runs on this machine: daemons, mutual TLS, a broker. Nothing is left afterwards.
    """
    options = DemoOptions(
        memory, cpu_dirty_rate, dma_rate, backend, viommu, guest_iommu, seed, insecure, downtime_limit
    )
    wanted = specification(options)
    require_offered(MigrationPolicy(downtime_limit_ms=downtime_limit))
    with LiveProgress(call.err) as progress:

        def say(words: str) -> None:
            progress.say(words)
            if words.startswith("type1"):
                call.err.print(words)

        say("starts a broker, an orchestrator and the agents of two hosts")
        async with demo_site(options) as configuration:
            async with agents_of(configuration) as agents, open_desk(configuration) as desk:
                played = await play(
                    options,
                    specification=wanted,
                    agents=agents,
                    desk=desk,
                    observe=progress.update,
                    say=say,
                    interruptible=interrupts(call, desk.interrupt),
                )
            say("cleans up")
    return _answer(played)


def _answer(played: Played) -> Answer:
    answer = result_answer(played.attempt)

    def show(console: Console) -> None:
        answer.show(console)
        if played.after is not None:
            before, after = played.before.guest, played.after.guest
            console.print(
                f"[green]The machine works on {played.after.host}[/green]: {after.jobs_done} jobs "
                f"({before.jobs_done} before the migration), {after.errors} errors"
            )

    return Answer(answer.document, show, answer.exit_code, answer.complaint)
