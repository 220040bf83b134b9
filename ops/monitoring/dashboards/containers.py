"""*Containers*: use, saturation and errors of CPU, memory, network and disk; the labels are plain Docker's."""

from __future__ import annotations

from ops.monitoring.dashboards.panel import Board, Panel, Row, above

WHICH = '{job="cadvisor",name=~"$container"}'
DISKS = '{job="node",fstype!~"tmpfs|overlay|squashfs|ramfs"}'


def _rate(metric: str) -> str:
    return f"sum by (name) (rate({metric}{WHICH}[$__rate_interval]))"


def _max(metric: str) -> str:
    return f"max by (name) ({metric}{WHICH})"


CPU = Row(
    "CPU",
    (
        Panel(
            "CPU of limit",
            "CPU time used, of what the container may use. Above 80 % for ten minutes: ContainerCpuHigh.",
            "percentunit",
            {
                "{{name}}": f"{_rate('container_cpu_usage_seconds_total')} / max by (name) "
                f"(container_spec_cpu_quota{WHICH} / container_spec_cpu_period{WHICH})",
            },
            steps=above(0.8, 0.6),
        ),
        Panel(
            "Throttled",
            "Share of the CPU periods in which the kernel stopped the container because of its limit. Above 25 % for "
            "ten minutes: ContainerThrottled.",
            "percentunit",
            {
                "{{name}}": f"{_rate('container_cpu_cfs_throttled_periods_total')} "
                f"/ ({_rate('container_cpu_cfs_periods_total')} > 0)",
            },
            steps=above(0.25, 0.1),
        ),
    ),
)

MEMORY = Row(
    "Memory",
    (
        Panel(
            "Memory of limit",
            "Working set, without the page cache that the kernel can take back, of the limit. Above 80 % a ticket, "
            "above 95 % a page.",
            "percentunit",
            {
                "{{name}}": f"{_max('container_memory_working_set_bytes')} "
                f"/ ({_max('container_spec_memory_limit_bytes')} > 0)",
            },
            steps=above(0.95, 0.8),
        ),
        Panel(
            "Working set",
            "Memory in use; the kernel kills at the limit.",
            "bytes",
            {"{{name}}": _max("container_memory_working_set_bytes")},
        ),
    ),
)

LIFE = Row(
    "Life",
    (
        Panel(
            "Killed for memory",
            "Processes that the kernel killed in the last hour. Any: ContainerOom.",
            "short",
            {"{{name}}": f"sum by (name) (increase(container_oom_events_total{WHICH}[1h]))"},
            kind="bargauge",
            steps=above(1),
            width=8,
        ),
        Panel(
            "Starts in the last hour",
            "How often the container has been started anew. More than two in 15 minutes: ContainerRestarting.",
            "short",
            {"{{name}}": f"changes({_max('container_start_time_seconds')}[1h:30s])"},
            kind="bargauge",
            steps=above(3, 1),
            width=8,
        ),
        Panel(
            "Running since",
            "Time since the last start; a container that begins anew here was deployed, or has died.",
            "s",
            {"{{name}}": f"time() - {_max('container_start_time_seconds')}"},
            kind="bargauge",
            width=8,
        ),
    ),
)

NETWORK = Row(
    "Network and disk",
    (
        Panel(
            "Network in",
            "Bytes that the container receives per second; it follows the requests.",
            "Bps",
            {"{{name}}": _rate("container_network_receive_bytes_total")},
            width=8,
        ),
        Panel(
            "Network out",
            "Bytes that the container sends per second; it follows the answers.",
            "Bps",
            {"{{name}}": _rate("container_network_transmit_bytes_total")},
            width=8,
        ),
        Panel(
            "Packets dropped and errors",
            "Packets per second that were dropped or damaged, in both directions; there should be none.",
            "pps",
            {
                "{{name}} dropped": f"{_rate('container_network_receive_packets_dropped_total')} "
                f"+ {_rate('container_network_transmit_packets_dropped_total')}",
                "{{name}} errors": f"{_rate('container_network_receive_errors_total')} "
                f"+ {_rate('container_network_transmit_errors_total')}",
            },
            steps=above(1),
            width=8,
        ),
        Panel(
            "Disk of the container",
            "Bytes that the container has written into its own layer; the service should write nothing.",
            "bytes",
            {"{{name}}": f"sum by (name) (container_fs_usage_bytes{WHICH})"},
        ),
        Panel(
            "Disks of the machine",
            "Share of each file system that is left. Below 10 % for 15 minutes: DiskFilling.",
            "percentunit",
            {
                "{{mountpoint}}": "min by (mountpoint) "
                f"(node_filesystem_avail_bytes{DISKS} / node_filesystem_size_bytes{DISKS})"
            },
            kind="bargauge",
            steps=((0, "red"), (0.1, "orange"), (0.2, "green")),
            high=1,
        ),
    ),
)

BOARD = Board(
    "on-time-containers",
    "On-time / Containers",
    "What the containers use of what they may use, from cAdvisor under plain Docker, and the disks of the machine.",
    (CPU, MEMORY, LIFE, NETWORK),
    {"container": 'label_values(container_last_seen{job="cadvisor",name=~".+"}, name)'},
)
