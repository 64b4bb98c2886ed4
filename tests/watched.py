"""Run a command where no host can be reached, and name those that it tried to: unshare --net --mount python watched.py COMMAND...

All addresses are this machine's own here, so that each attempt fails at once and its packet is seen. Lines on stdout after the
command's: host or address, one for each.
"""

import re
import socket
import struct
import subprocess
import sys
import threading
import time

EVERYTHING = 3  # ETH_P_ALL
NAME = re.compile(rb'[\x01-\x3f][A-Za-z0-9_-]+')  # a part of a name in a question to a DNS server


def shut_in():
    for command in (
        'mount -t tmpfs none /run',  # where services listen that look up names for others
        'ip link set lo up',
        'ip route add local default dev lo',
    ):
        subprocess.run(command.split(), check=True)
    subprocess.run(
        ['ip', '-6', 'route', 'add', 'local', 'default', 'dev', 'lo'], stderr=subprocess.DEVNULL
    )  # where there is IPv6


def target(packet):
    """Who an IP packet is for: the name that a DNS server is asked for, an address outside, or None."""
    if packet[0] >> 4 == 4:
        head, protocol, to = 4 * (packet[0] & 15), packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
    else:
        head, protocol, to = 40, packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    came, port = struct.unpack('>HH', packet[head : head + 4])
    if port == 53 and protocol == socket.IPPROTO_UDP:
        return b'.'.join(part[1:] for part in NAME.findall(packet[head + 20 :].partition(b'\0')[0])).decode() or to
    ours = to.startswith('127.') or to == '::1'
    return None if ours and port != 53 else to


def main():
    shut_in()
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING))
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    found = []

    def listen():
        while True:
            packet, about = wire.recvfrom(256)
            if about[1] in (0x800, 0x86DD) and about[2] != socket.PACKET_OUTGOING:  # each packet is seen twice
                found.append(target(packet))

    threading.Thread(target=listen, daemon=True).start()
    status = subprocess.run(sys.argv[1:]).returncode
    time.sleep(0.2)
    print('\n'.join(dict.fromkeys(filter(None, found))))
    sys.exit(status)


main()
