"""A machine's own stream on its way through the agents: each connection that its process opens is one call.

::

    QEMU ── out.sock ── source agent ══ Carry ══ destination agent ── in.sock ── QEMU
            accepted    opening ──────> let in, then connected to
                              <────── opened
            the next one is opened at the other end only now
            bytes       pieces ───────> bytes
            end         empty piece ──> shutdown(SHUT_WR)          and the same the other way

Order counts: until 8.0 QEMU takes the connection that comes first for the main one, says so of another that comes in
its place on stderr alone, and waits for ever. So no connection is opened at the destination before the one that was
opened before it at the source is there. Ends are carried each way for itself. What ends otherwise, a call that was cut
or a socket that broke, ends every connection of the attempt at both hosts: a process of which one connection only is
closed may wait for it.

Each end works on two pieces of a direction at a time: one is carried while the next one comes. What that costs, and
what bounds it, is in docs/qemu.md.
"""
