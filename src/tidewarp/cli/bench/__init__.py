"""``tidewarp bench``: how fast this machine is at what twins do, always beside a reference in the same run.

control    the command for the live control plane: which figures, their table
figures    all of them by name, and those that are measured in processes of their own: live, resident
rates      work by time, each with its reference and a digest of what it computed
published  a published tool beside ours; published_program is what its process runs
phold      the command for the kernel, beside SimPy
spiking    the command for a network of neurons, beside Brian2
stress     the command for its correctness: random cases against the reference
kernel     the command for its parts
storing    a store beside SQLite and files, and syncing, a pull beside git: what tidewarp store bench prints
measure    rounds that alternate between cases, and the slope of a series
"""

from __future__ import annotations

import click

from tidewarp.cli.bench import control, kernel, phold, spiking, stress
from tidewarp.kernel.shell.interrupts import sigterm_interrupts

__all__ = ["command"]


@click.group()
@click.pass_context
def command(ctx: click.Context) -> None:
    """Measure this machine, beside a reference in the same run."""
    ctx.with_resource(sigterm_interrupts())


command.add_command(control.command, "control")
command.add_command(phold.command, "phold")
command.add_command(spiking.command, "spiking")
command.add_command(stress.command, "stress")
command.add_command(kernel.command, "kernel")
