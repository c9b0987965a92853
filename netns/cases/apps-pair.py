"""Real applications through enotun: two hosts, one link."""

from harness import suite, topology

net = topology("pair")
net.start()
suite(net)
