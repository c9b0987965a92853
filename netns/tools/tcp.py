"""Plain TCP programs for the tests. They know nothing of enotun.

    tcp.py echo PORT                        serves: sends back what it gets, ends as the client ends
    tcp.py sink PORT FILE                   serves: appends what it gets to FILE
    tcp.py many HOST PORT COUNT BYTES       COUNT connections open at once, BYTES echoed on each
    tcp.py errno HOST PORT                  connects; prints `connected` or the error's name
"""

import asyncio
import errno
import hashlib
import os
import resource
import socket
import sys


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
        await asyncio.wait_for(everyone_open.wait(), 180)
        sent = hashlib.sha256(b"%d" % number).digest() * (size // 32 + 1)
        sent = sent[:size]
        writer.write(sent)
        writer.write_eof()
        received = await reader.read(-1)
        writer.close()
        return received == sent

    results = await asyncio.wait_for(
        asyncio.gather(*(one(n) for n in range(count)), return_exceptions=True), 240)
    bad = [r for r in results if r is not True]
    print(f"{count - len(bad)} of {count} connections brought back what was sent")
    for r in bad[:5]:
        print(repr(r))
    return 1 if bad else 0


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
    if command == "errno":
        return errno_of(*args)
    return asyncio.run({"echo": echo, "sink": sink, "many": many}[command](*args))


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
