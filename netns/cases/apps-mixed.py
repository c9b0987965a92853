"""Real applications through enotun: hosts with enotun beside one without."""

from harness import suite, topology

net = topology("mixed")
net.start()
suite(net)
