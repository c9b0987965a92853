"""Real applications through enotun: a gateway that encrypts for the hosts behind it."""

from harness import suite, topology

net = topology("gateway")
net.start()
suite(net)
