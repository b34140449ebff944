"""Hosts as tables: what they offer, what is left of them, what they have to do."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape

from orchestrator.documents.listings import HostDocument, OfferDocument, SideDocument
from orchestrator.render.listings import show_facts, show_table
from orchestrator.render.quantities import rate, size


def show_hosts(console: Console, hosts: Sequence[HostDocument]) -> None:
    """Print hosts, one a line, and which are not who they should be."""
    rows: list[tuple[str, ...]] = [
        (
            one.host,
            _version(one.source),
            _version(one.dest),
            _free(one),
            _machines(one),
            _attempts(one),
            _link(one.dest.offer),
        )
        for one in hosts
    ]
    headings: tuple[str, ...] = ("host", "source agent", "dest agent", "memory free", "machines", "out, in", "link")
    if any(one.maintenance for one in hosts):
        headings = (*headings, "")
        rows = [(*row, "in maintenance" if one.maintenance else "") for row, one in zip(rows, hosts, strict=True)]
    show_table(console, headings, rows, "no hosts")
    for one in hosts:
        _show_conflicts(console, one)


def show_host(console: Console, host: HostDocument) -> None:
    """Print all that is known of one host."""
    rows = [("host", host.host), ("source agent", _agent(host.source)), ("dest agent", _agent(host.dest))]
    rows += _memory(host)
    rows += [("machines", _machines(host)), ("attempts out, in", _attempts(host))]
    rows += [("maintenance", "nobody chooses it")] if host.maintenance else []
    rows += _offered(host.dest.offer or host.source.offer)
    rows.append(("features", ", ".join(host.dest.features) or "unknown"))
    rows.append(("boot", host.source.boot_id or host.dest.boot_id or "unknown"))
    show_facts(console, rows)
    _show_conflicts(console, host)


def _show_conflicts(console: Console, host: HostDocument) -> None:
    for one in host.conflicts:
        console.print(f"[red]{host.host} is not used[/red] {one.code}: {escape(one.message)}", highlight=False)


def _version(side: SideDocument) -> str:
    return side.version or "" if side.answers else "[yellow]does not answer[/yellow]"


def _agent(side: SideDocument) -> str:
    return f"{side.address} {side.version}" if side.answers else f"[yellow]{side.address} does not answer[/yellow]"


def _heard(host: HostDocument) -> SideDocument:
    return host.dest if host.dest.answers else host.source


def _free(host: HostDocument) -> str:
    side = _heard(host)
    if not side.memory_budget_bytes or side.memory_in_use_bytes is None:
        return "unknown"
    free = side.memory_budget_bytes - side.memory_in_use_bytes if side.load is None else side.load.memory_free_bytes
    return f"{size(max(0, free))} of {size(side.memory_budget_bytes)}"


def _memory(host: HostDocument) -> Iterator[tuple[str, str]]:
    side = _heard(host)
    yield "memory free", _free(host)
    if side.memory_in_use_bytes is not None:
        kept = "" if side.load is None else f", {size(side.load.memory_reserved_bytes)} kept for arrivals"
        yield "memory in use", f"{size(side.memory_in_use_bytes)}{kept}"


def _machines(host: HostDocument) -> str:
    load = host.dest.load or host.source.load
    return "unknown" if load is None else str(load.machines)


def _attempts(host: HostDocument) -> str:
    loads = (host.source.load, host.dest.load)
    if loads == (None, None):
        return "unknown"
    return ", ".join("?" if load is None else str(load.attempts) for load in loads)


def _link(offer: OfferDocument | None) -> str:
    return "unknown" if offer is None or offer.link_bytes_per_s is None else rate(offer.link_bytes_per_s)


def _offered(offer: OfferDocument | None) -> Iterator[tuple[str, str]]:
    if offer is None:
        yield "offers", "unknown: an agent of 0.1.0 does not say, or none answers"
        return
    dirty = "with" if offer.host_dirty_tracking else "without"
    bits = " or ".join(map(str, offer.viommu_address_bits)) or "no"
    yield "devices", f"{_names(offer.device_models)} through {_names(offer.backends)}"
    yield "vIOMMU", f"{_names(offer.viommu_modes)}, {bits} bits"
    yield "host IOMMU", f"{dirty} dirty bits"
    yield "state format", str(offer.state_format)
    yield "link", f"{offer.bulk_host}, {_link(offer)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
