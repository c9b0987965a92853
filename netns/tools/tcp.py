"""Plain TCP programs for the tests. They know nothing of enotun.

    tcp.py echo PORT                        serves: sends back what it gets, ends as the client ends
    tcp.py sink PORT FILE                   serves: appends what it gets to FILE
    tcp.py many HOST PORT COUNT BYTES       COUNT connections open at once, BYTES echoed on each
    tcp.py hold HOST PORT [LOCAL]           one connection: a line from stdin is sent, the reply printed
    tcp.py idle HOST PORT COUNT [FIRST]     COUNT connections that have sent one byte; until stdin ends
    tcp.py source HOST PORT                 prints the local address the kernel chose
    tcp.py cross LOCAL PORT HOST PORT AT TEXT
                                            connects at the time AT (seconds since the epoch) from LOCAL PORT, sends a line,
                                            prints the peer's, and ends when stdin does
    tcp.py errno HOST PORT                  connects; prints `connected` or the error's name
"""

import asyncio
import errno
import hashlib
import os
import resource
import socket
import sys
import time


def lift_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def echo(port):
    async def serve(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, ["0.0.0.0", "::"], port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


async def sink(port, path):
    async def serve(reader, writer):
        try:
            while data := await reader.read(65536):
                with open(path, "ab") as f:
                    f.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, ["0.0.0.0", "::"], port)
    await server.serve_forever()


async def many(host, port, count, size):
    everyone_open = asyncio.Event()
    opened = 0

    async def one(number):
        nonlocal opened
        reader, writer = await asyncio.open_connection(host, port)
        opened += 1
        if opened == count:
            everyone_open.set()
        await asyncio.wait_for(everyone_open.wait(), 60)
        sent = hashlib.sha256(b"%d" % number).digest() * (size // 32 + 1)
        sent = sent[:size]
        writer.write(sent)
        writer.write_eof()
        received = await reader.read(-1)
        writer.close()
        return received == sent

    results = await asyncio.wait_for(
        asyncio.gather(*(one(n) for n in range(count)), return_exceptions=True), 90)
    bad = [r for r in results if r is not True]
    print(f"{count - len(bad)} of {count} connections brought back what was sent")
    for r in bad[:5]:
        print(repr(r))
    return 1 if bad else 0


def hold(host, port, local=None):
    # None or an address: the source is chosen by the kernel or given.
    s = socket.create_connection((host, port), timeout=30, source_address=(local, 0) if local else None)
    print("open from", s.getsockname()[0], s.getsockname()[1], flush=True)
    s.settimeout(20)
    replies = s.makefile("rb")
    try:
        for line in sys.stdin.buffer:
            s.sendall(line)
            reply = replies.readline()
            if not reply:
                print("end of file", flush=True)
                return 1
            print("reply", reply.decode(errors="backslashreplace").rstrip(), flush=True)
    except OSError as e:
        print("error", errno.errorcode.get(e.errno, repr(e)), flush=True)
        return 1
    return 0


def idle(host, port, count, first=0):
    connections = []
    for _ in range(count):
        s = socket.create_connection((host, port), timeout=30)
        s.sendall(b"x")
        connections.append(s)
    for s in connections:
        if s.recv(1) != b"x":
            return 1
    print("open", flush=True)
    sys.stdin.read()
    return 0


def source(host, port):
    with socket.create_connection((host, port), timeout=10) as s:
        print(s.getsockname()[0])
    return 0


def cross(local, local_port, host, port, at, text):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((local, local_port))
    s.settimeout(30)
    time.sleep(max(0.0, float(at) - time.time()))
    try:
        s.connect((host, port))
        s.sendall(text.encode() + b"\n")
        print("got", s.makefile("rb").readline().decode(errors="backslashreplace").rstrip(), flush=True)
        sys.stdin.read()
        s.shutdown(socket.SHUT_WR)
        end = s.recv(1)
        print("end of file" if end == b"" else f"more: {end!r}", flush=True)
    except OSError as e:
        print("error", errno.errorcode.get(e.errno, repr(e)), flush=True)
        return 1
    return 0


def errno_of(host, port):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 2)
    try:
        s.connect((host, port))
    except OSError as e:
        print(errno.errorcode.get(e.errno, repr(e)))
        return 1
    print("connected")
    s.close()
    return 0


def main():
    lift_descriptor_limit()
    command, *args = sys.argv[1:]
    args = [int(a) if a.isdigit() else a for a in args]
    if command in ("echo", "sink", "many"):
        return asyncio.run({"echo": echo, "sink": sink, "many": many}[command](*args))
    return {"hold": hold, "idle": idle, "source": source, "cross": cross, "errno": errno_of}[command](*args)


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except OSError as e:
        print("error", errno.errorcode.get(e.errno, repr(e)), flush=True)
        status = 1
    os._exit(status or 0)
