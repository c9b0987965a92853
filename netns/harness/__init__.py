"""What the cases in netns/cases are written with. One process runs one case (netns/run.sh), so this is the case's own state.

    net = topology("pair")                         built by netns/topologies/pair.sh; net.a, net.b are its nodes
    net.start()                                    enotun on the nodes that have it
    check("it works", net.a.run, "ping", "-c1", net.server[4])

Nothing here waits for a fixed time: `wait_for` polls a condition up to a deadline.
"""

from harness.apps import (ECHO, HTTP, IPERF, REDIS, SIZES, SSH, Connection, echo_server, fetch, fetch_kept_alive, iperf, many, nginx,
                          redis, redis_session, scp_copies, serve_all, ssh_options, ssh_says, sshd, suite)
from harness.capture import Capture
from harness.checks import (PATIENCE, Failed, case, check, check_enotun, fails, need, note, plain, same, temporary, wait_for,
                            work)
from harness.net import (ENOTUN, MARKER, PYTHON, TOOLS, Node, bracket, command, down, losing, no_offloads, sessions_agree, topology)

__all__ = [name for name in dir() if not name.startswith("_")]
