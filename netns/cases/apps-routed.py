"""Real applications through enotun: a router between the hosts."""

from harness import suite, topology

net = topology("routed")
net.start()
suite(net)
