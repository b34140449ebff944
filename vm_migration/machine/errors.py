"""What can go wrong with a machine, of whatever kind: what its process did, or did not.

Of its own, as many who must tell these apart never touch a machine's memory.
"""


class MachineError(Exception):
    """The root of this package's errors.

    ::

        MachineError
        +-- MachineGone      the process does not answer
        +-- MachineRefused   it answered that it will not, and why
        |   +-- CutOff       a newer controller commands it
        +-- LaunchFailed     it did not come up
    """


class MachineGone(MachineError):
    """The machine's process does not answer."""


class MachineRefused(MachineError):
    """The machine's process refused; nothing happened."""


class CutOff(MachineRefused):
    """A newer controller attached, or the machine was released."""


class LaunchFailed(MachineError):
    """A machine's processes did not come up; what had started was ended."""
