"""One packet a millisecond to an allowed and to a denied port, each a new flow.

prober.py send ADDRESS FILE      until FILE is gone
prober.py receive FILE           counts until FILE is gone, then prints "ALLOWED DENIED"

FILE.send and FILE.receive say that it has begun.
"""
import os, select, socket, sys, time

ALLOWED, DENIED = 5000, 5001
RCVBUFFORCE = 33  # Python has no name for SO_RCVBUFFORCE.

def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

def send(address, file):
    sockets = [udp() for _ in range(50)]
    open(file + ".send", "w").close()
    begin, sent = time.monotonic(), 0
    while sent % 100 or os.path.exists(file):
        for port in (ALLOWED, DENIED):
            try:
                sockets[sent % 50].sendto(b"x", (address, port))
            except OSError:  # The link is down.
                pass
        sent += 1
        time.sleep(max(0, begin + sent / 1000 - time.monotonic()))
    print(sent)

def receive(file):
    sockets = {udp(): port for port in (ALLOWED, DENIED)}
    for s, port in sockets.items():
        s.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 64 << 20)
        s.bind(("", port))
    open(file + ".receive", "w").close()
    got = {ALLOWED: 0, DENIED: 0}
    # What is under way when the file goes counts, too.
    while os.path.exists(file) or select.select(sockets, [], [], 1)[0]:
        for s in select.select(sockets, [], [], 0.1)[0]:
            s.recv(10)
            got[sockets[s]] += 1
    print(got[ALLOWED], got[DENIED])

{"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
