"""What the benchmark found, for people."""

from typing import Any


def table(found: dict[str, Any]) -> str:
    """All parts that were measured."""
    environment = found["environment"]
    head = (
        f"{found['encoder']}, weights {found['weights']}; {environment['cpu']}, "
        f"{environment['threads']} threads, {environment['device']}; load at the start "
        f"{environment['load_at_start']}; {found['seconds']:.0f} s in all"
    )
    shown = [
        show(found[part])
        for part, show in (("chips", _chips), ("parcels", _parcels), ("memory", _memory))
        if part in found
    ]
    return "\n\n".join([head, *shown])


def _chips(found: dict[str, Any]) -> str:
    row = "{:12}{:>9}{:>9}{:>13}{:>10}{:>11}  {}".format
    lines = [
        row("", "chips/s", "x plain", "cosine mean", "least", "neighbors", "of the matrix ceiling"),
        row("plain loop", f"{found['plain_chips_per_s']:.3f}", "1.00", "", "", "", ""),
    ]
    for name, one in found["precisions"].items():
        agreement = one["agreement_with_fp32"]
        kept, share = agreement["neighbors_kept"], one.get("share_of_ceiling")
        lines.append(
            row(
                name,
                f"{one['chips_per_s']:.3f}",
                f"{one['times_plain']:.2f}",
                f"{agreement['cosine_mean']:.6f}",
                f"{agreement['cosine_min']:.6f}",
                "-" if kept is None else f"{kept:.1%}",
                "" if share is None else f"{share:.0%} of {one['matrix_ceiling_gflops']} GFLOP/s",
            ).rstrip()
        )
    return "\n".join(lines)


def _parcels(found: dict[str, Any]) -> str:
    def percent(shares: dict[str, float]) -> str:
        return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())

    return "\n".join(
        [
            f"{found['parcels']} parcels on {found['area_km2']} km2 "
            f"({found['parcels_per_km2']} per km2), {found['passes']} passes, "
            f"{found['parcels_per_pass']} parcels a pass, {found['precision']}",
            f"by tiles                {found['parcels_per_s']:8.2f} parcels/s",
            f"one chip each           {found['one_chip_each_parcels_per_s']:8.2f} parcels/s: "
            f"tiles are {found['times_one_chip_each']:.1f} times as fast",
            f"plain loop, fp32        {found['plain_loop_parcels_per_s']:8.2f} parcels/s: "
            f"tiles are {found['times_plain_loop']:.1f} times as fast",
            f"network computes {found['network_share']:.1%} of the time; it waits: "
            f"{percent(found['waiting_shares'])}",
            f"beside it: {percent(found['beside_shares'])}",
        ]
    )


def _memory(found: dict[str, Any]) -> str:
    few, many = found["images"]
    return (
        f"peak memory {found['peak_mib'][0]:.0f} MiB for {few} images, "
        f"{found['peak_mib'][1]:.0f} MiB for {many}: {found['many_to_few']:.3f} times"
    )
