// Command gateway runs the router as a process: a reverse proxy for agents, and its admin API.
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
	"runtime/debug"
	"syscall"

	"github.com/aviary-rollouts/aviary/config"
)

// version is set by the linker.
var version = ""

// stdio is where a process writes to.
type stdio struct{ out, err io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:], stdio{out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}

// run is the process until ctx ends: 0 when it stopped cleanly, 1 when it could not go on, 2 for a wrong command line.
func run(ctx context.Context, args []string, std stdio) int {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(std.err)
	path := flags.String("config", "", "settings `file` (required)")
	addrFile := flags.String("addr-file", "", "write the addresses listened on to this `file`, as JSON")
	showVersion := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprint(std.err, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *showVersion {
		fmt.Fprintln(std.out, "gateway", buildVersion())
		return 0
	}
	if flags.NArg() > 0 || *path == "" {
		fmt.Fprintln(std.err, "gateway: want --config FILE and no arguments; examples/gateway.yaml is one to start from")
		return 2
	}
	hup := hangups()
	log := slog.New(slog.NewTextHandler(std.err, nil))
	settings, err := config.LoadGateway(*path)
	if err != nil {
		fmt.Fprintln(std.err, "gateway:", err)
		return 1
	}
	g, err := setup(settings, log)
	if err != nil {
		fmt.Fprintln(std.err, "gateway:", err)
		return 1
	}
	reload, err := newReloader(g, *path, hup)
	if err != nil {
		fmt.Fprintln(std.err, "gateway:", err)
		return 1
	}
	go reload.run(ctx)
	if err := g.run(ctx, *addrFile); err != nil {
		fmt.Fprintln(std.err, "gateway:", err)
		return 1
	}
	return 0
}

const usage = `gateway proxies users' requests to the versions of agents, and takes routes and versions by its admin API.

  gateway --config examples/gateway.yaml

The settings name secrets by file or by environment variable, such as AVIARY_ADMIN_TOKEN. They are read again when the file changes
or at SIGHUP; what can't change while it runs is said. SIGTERM lets requests finish.

`

// buildVersion is the linker's, or the module's version, or the commit it was built from.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (info.Main.Version == "" || info.Main.Version == "(devel)") {
			return s.Value
		}
	}
	return info.Main.Version
}
