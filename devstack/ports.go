package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// claimPort returns the port to listen on: the one asked for if nobody has it, or a free one when it is 0.
func claimPort(host string, port int, flagName string) (int, error) {
	if port == 0 {
		free, err := freePort(host)
		if err != nil {
			return 0, fmt.Errorf("%s 0: find a free port on %s: %w", flagName, host, err)
		}
		return free, nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return 0, fmt.Errorf("port %d on %s is taken (asked for by %s): stop who has it, name another, or let the system choose with %s 0",
			port, host, flagName, flagName)
	case err != nil:
		return 0, fmt.Errorf("listen on port %d of %s (asked for by %s): %w", port, host, flagName, err)
	}
	return port, l.Close()
}

// freePort returns a port nobody listens on. The server opens its listeners itself, later, so the port has to stay free
// until then: a connection is made and closed from the listener's side, which leaves the port in TIME_WAIT. The system
// then gives it to nobody who asks for any port, while a listener that asks for just this one still gets it.
func freePort(host string) (port int, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	port = l.Addr().(*net.TCPAddr).Port

	client, err := net.Dial("tcp", net.JoinHostPort(reachable(host), strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return 0, err
	}
	return port, server.Close()
}

// reachable is the address by which a listener on host is reached from this machine.
func reachable(host string) string {
	switch ip := net.ParseIP(host); {
	case ip == nil || !ip.IsUnspecified():
		return host
	case ip.To4() == nil:
		return "::1"
	default:
		return "127.0.0.1"
	}
}
