"""Scenarios through real agents: a site of two hosts on loopback, `viaduct migrate`, and RAM looked at from outside.

::

    lab ── creates, commands the guest ──> machine of host-a ══ pages ══> machine of host-b
     |                                           |                               |
     |── `viaduct migrate --json` ──────── source agent                 destination agent
     | <────────────────────────────────────────────────── before_ready: knock   |
     '── compares both RAMs, page by page, while neither machine runs ───────────'
"""
