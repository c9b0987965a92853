"""Sends one recognisable frame out of a device: sentinel.py DEVICE TEXT.

A capture on that device that shows the text has shown all that came before it.
"""

import socket
import struct
import sys

device, text = sys.argv[1], sys.argv[2].encode()
udp = struct.pack("!HHHH", 9, 9, 8 + len(text), 0) + text
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0,
                 socket.inet_aton("192.0.2.9"), socket.inet_aton("192.0.2.9"))
total = sum(struct.unpack("!10H", ip))
total = (total & 0xFFFF) + (total >> 16)
ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as s:
    # 192.0.2.0/24 is documentation space, and the destination MAC is nobody's: no host takes it.
    s.sendto(ip + udp, (device, 0x0800, 0, 0, b"\x02\x00\x00\x00\x00\x09"))
