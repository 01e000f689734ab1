"""``caso-mesh service``: the systemd service of the daemon."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Group, Parameter
from caso_mesh.cli.options import OwnStateOption, default_state
from caso_mesh.model.errors import InvalidValue, Refused, ServiceManagerFailed, ServiceManagerMissing

app = Group(name="service", help="The systemd service of the daemon.")

UNIT = "caso-mesh.service"
#: Where an administrator's own units lie (systemd.unit(5)).
UNIT_FOLDER = Path("/etc/systemd/system")
MDNS_PORT = 5353

# What is left out, and why: ProtectSystem, ProtectHome, PrivateTmp and ReadOnlyPaths would hide files from backups and
# restores; RestrictSUIDSGID would lose bits that a restore must set; PrivateDevices and ProtectClock (device policy)
# would forbid restoring device nodes. As root it may mount: snapshots of logical volumes are read so.
_HARDENING = """\
NoNewPrivileges=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077"""

# Read all, restore owners, modes, flags, device nodes, file capabilities and (SYS_ADMIN) trusted.* attributes.
_ROOT_CAPABILITIES = (
    "CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SETFCAP CAP_MKNOD CAP_LINUX_IMMUTABLE "
    "CAP_SYS_ADMIN CAP_NET_BIND_SERVICE"
)
_USER_CAPABILITIES = "CAP_DAC_READ_SEARCH"


def render_unit(*, state: Path, user: str | None, python: str) -> str:
    """The unit file. ``user``: run as that user, who may read every file and write only its own."""
    lines = [
        "# Written by: caso-mesh service install",
        "[Unit]",
        "Description=caso-mesh, the backup server of this machine",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={_quoted(python)} -m caso_mesh run --state {_quoted(os.fspath(state))}",
        "Restart=on-failure",
        "RestartSec=2",
        "# a wrong command line or configuration does not heal by itself",
        "RestartPreventExitStatus=2",
        "# first the daemon alone is told to stop; it ends its workers",
        "KillMode=mixed",
        "TimeoutStopSec=90",
        "LimitNOFILE=65536",
    ]
    if user is None:
        lines.append(f"CapabilityBoundingSet={_ROOT_CAPABILITIES}")
    else:
        lines += [
            f"User={user}",
            f"AmbientCapabilities={_USER_CAPABILITIES}",
            f"CapabilityBoundingSet={_USER_CAPABILITIES}",
        ]
    hardening = _HARDENING
    if user is None:
        hardening = hardening.replace("SystemCallFilter=@system-service", "SystemCallFilter=@system-service @mount")
    if state == Path("/var/lib/caso-mesh"):
        lines += ["StateDirectory=caso-mesh", "StateDirectoryMode=0700"]
    return "\n".join([*lines, hardening, "", "[Install]", "WantedBy=multi-user.target", ""])


def _quoted(text: str) -> str:
    """A word of a command line in a unit file (systemd.service(5), systemd.syntax(7))."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != text or not text or " " in text or "'" in text else text


@app.command
def install(
    *,
    state: OwnStateOption = None,
    user_name: Annotated[
        str | None, Parameter(help="Run as this user, who may then read every file (CAP_DAC_READ_SEARCH), not as root.")
    ] = None,
    print_: Annotated[bool, Parameter(name="--print", negative=(), help="Show the unit, change nothing.")] = False,
) -> None:
    """Install, enable and start the daemon as a systemd service. Needs root."""
    from caso_mesh.config import load_config
    from caso_mesh.wire.network import split_address

    folder = Path(os.path.abspath(state if state is not None else default_state()))
    port = split_address(load_config(folder / "config.toml").listen)[1]
    unit = render_unit(state=folder, user=_known(user_name), python=sys.executable)
    if print_:
        sys.stdout.write(unit)
        return
    systemctl = _systemctl(folder, "install")
    if user_name is not None and folder.stat().st_uid != pwd.getpwnam(user_name).pw_uid:
        output.warning(f"{folder} does not belong to {user_name}: chown -R {user_name} {folder}")
    path = UNIT_FOLDER / UNIT
    path.write_text(unit, "utf-8")
    path.chmod(0o644)
    _call(systemctl, "daemon-reload")
    _call(systemctl, "enable", "--now", UNIT)
    output.line(f"{path} is installed, enabled and started.")
    shown = "a port of its own choice, since --listen says 0; set a fixed one in config.toml" if port == 0 else port
    output.line(f"Open in the firewall: TCP {shown} (everything); UDP {MDNS_PORT} (finding servers on the LAN).")
    output.line(f"Its log: journalctl -u {UNIT}")


@app.command
def uninstall(*, state: OwnStateOption = None) -> None:
    """Stop and disable the service and remove its unit; the state folder stays. Needs root."""
    folder = state if state is not None else default_state()
    systemctl = _systemctl(folder, "uninstall")
    path = UNIT_FOLDER / UNIT
    if not path.exists():
        output.line(f"{path} is not installed.")
        return
    _call(systemctl, "disable", "--now", UNIT)
    path.unlink()
    _call(systemctl, "daemon-reload")
    output.line(f"{path} was removed. The state folder {folder} is untouched.")


def _known(user: str | None) -> str | None:
    try:
        return user if user is None else pwd.getpwnam(user).pw_name
    except KeyError:
        raise InvalidValue(value=user, what="user", expected="Name a user of this machine") from None


def _systemctl(state: Path, what: str) -> str:
    if os.geteuid() != 0:
        raise Refused(detail=f'"caso-mesh service {what}" changes {UNIT_FOLDER}; run it as root (sudo)')
    found = shutil.which("systemctl")
    if found is None or not UNIT_FOLDER.is_dir():
        raise ServiceManagerMissing(state=state)
    return found


def _call(systemctl: str, *words: str) -> None:
    done = subprocess.run([systemctl, *words], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        detail = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
        raise ServiceManagerFailed(command=f"systemctl {' '.join(words)}", detail=detail.splitlines()[-1])
