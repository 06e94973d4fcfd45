// Command devstack is a whole Temporal in one process: the server, its web UI and its storage (SQLite, in memory or in a
// file), with the search attributes of Aviary registered. It is meant for laptops, tests and demos; it has no
// authentication, so it listens on the loopback address unless told otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker (-X main.version=v1.2.3).
var version = "dev"

// stopTimeout bounds a clean stop. Every acknowledged write is already in the database, so leaving late requests behind
// after it loses nothing.
const stopTimeout = 2500 * time.Millisecond

// Exit codes of run.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run starts the stack, says where it is, and serves until ctx is done. It returns the exit code of the process: 0 after
// a clean stop, 1 when it could not start or stopped by itself, 2 for wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "devstack: %v\nRun devstack --help for the flags.\n", err)
		return exitUsage
	case opts.showVersion:
		fmt.Fprintf(stdout, "devstack %s\n", version)
		return exitOK
	}
	if err := serve(ctx, opts, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "devstack: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// serve runs one stack from start to stop.
func serve(ctx context.Context, opts options, stdout, stderr io.Writer) error {
	level := &slog.LevelVar{}
	level.Set(opts.logLevel)
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))

	if err := opts.resolve(); err != nil {
		return err
	}
	if err := removeAddrFile(opts.addrFile); err != nil {
		return err
	}
	s, err := startStack(ctx, opts, logger)
	if err != nil {
		return err
	}
	if err := announce(opts, s, stdout); err != nil {
		s.stop(stopTimeout)
		return err
	}

	<-ctx.Done()
	// A server that is told to stop warns about each of its own connections going away; only errors say anything then.
	level.Set(max(opts.logLevel, levelSilent))
	s.stop(stopTimeout)
	return removeAddrFile(opts.addrFile)
}

// announce tells the caller that the stack is ready: on stdout for people, in the address file for programs.
func announce(opts options, s *stack, stdout io.Writer) error {
	state := "in memory, gone when this stops"
	if opts.dbFile != "" {
		state = opts.dbFile
	}
	ui := s.addrs.UI
	if ui == "" {
		ui = "off"
	}
	fmt.Fprintf(stdout, "Temporal   %s  (namespace %s)\nUI         %s\nState      %s\nReady. Stop with Ctrl-C.\n",
		s.addrs.Frontend, opts.namespace, ui, state)
	return writeAddrFile(opts.addrFile, s.addrs)
}
