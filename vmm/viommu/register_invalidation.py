"""Invalidation by registers, as software does it while the queue is off: CCMD, IOTLB and IVA (semantics 4.4, 4.11).

Software sets the request bit with the granularity that it asks for; the unit clears that bit when it is done and shows
the granularity that it served. A granularity of 0 says that the request was invalid and nothing was done.
"""

from vmm.viommu.commands import Command, InvalidateContexts, InvalidateIotlb, masked_devices, page_range
from vmm.viommu.registers import CCMD_CAIG, CCMD_ICC, IOTLB_IAIG, IOTLB_IVT, MAMV


def context_command(value: int) -> tuple[Command | None, int]:
    """Return what a request in CCMD means, and CCMD as it reads afterwards."""
    done = value & ~(CCMD_ICC | CCMD_CAIG)
    match value >> 61 & 3:
        case 1 | 2:  # domain-selective is served as global
            return InvalidateContexts(None), done | 1 << 59
        case 3:
            return masked_devices(value >> 16 & 0xFFFF, value >> 32 & 3), done | 3 << 59
        case _:
            return None, done


def iotlb_command(value: int, address: int) -> tuple[Command | None, int]:
    """Return what a request in IOTLB means, with the address in IVA, and IOTLB as it reads afterwards."""
    done, domain_id = value & ~(IOTLB_IVT | IOTLB_IAIG), value >> 32 & 0xFFFF
    match value >> 60 & 3:
        case 1:
            return InvalidateIotlb(None, None, None), done | 1 << 57
        case 2:
            return InvalidateIotlb(domain_id, None, None), done | 2 << 57
        case 3 if address & 0x3F <= MAMV:
            return InvalidateIotlb(domain_id, None, page_range(address)), done | 3 << 57
        case _:
            return None, done
