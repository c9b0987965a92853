"""Real applications through enotun: an overlay prefix selected by a route."""

from harness import suite, topology

net = topology("overlay")
net.start()
suite(net)
