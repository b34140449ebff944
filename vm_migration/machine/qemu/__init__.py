"""Real QEMU machines behind the same port as the model's.

::

    agent --- vmm.process.control over vmm.sock --- viaduct-qemu-shim --- QMP --- qemu-system-x86_64
                                                          |
                                                     fence.json

One small process stands beside each QEMU, where `viaduct-vmm` stands for a model: it starts QEMU, or adopts one that
runs, is the only one that speaks QMP to it, and answers what a machine process is asked. QEMU by itself protects
nobody: after a completed migration `cont` works at both ends. So the shim keeps the fence of the handover design
(epoch, controller, released epoch), durable before any `cont`, counts the guest's stops, and outlives the agents as
QEMU does.

    session       QMP: one command, one answer, deadlines; what hangs, lies or is no QMP
    answers       what QEMU answers, checked
    run_states    what its words for a machine's state mean here
    command_line  how a QEMU is started from a specification
    fence_file    the fence and the number of stops, on disk
    commands      what each request of the control socket does to QEMU
    writes        how much its guest writes, as it finds out itself
    streaming     its own migration: capabilities, parameters, progress
    control_socket, shim, spawning    the process itself; process_file: which QEMU was started for a folder
    devices       VFIO devices and vIOMMU found in a QEMU, for the model's own rules
    judging       why this QEMU cannot move, all at once

QEMU moves its own state, so what concerns pages, devices' records and saved states is refused with that reason, and its
stream goes through `start_stream`, `accept_stream` and their like. Agents learn which it is from `Description.moves`.
"""
