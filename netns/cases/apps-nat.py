"""Real applications through enotun: a client behind NAT."""

from harness import suite, topology

net = topology("nat")
net.start()
suite(net)
