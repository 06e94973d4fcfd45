// Command worker runs Aviary's workflows and activities.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/app"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the process until ctx ends: 0 when it stopped cleanly, 1 when it could not go on, 2 for a wrong command line or settings.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(errs)
	path := flags.String("config", "", "settings `file` (required)")
	addrFile := flags.String("addr-file", "", "write the address listened on to this `file` as JSON, once the worker polls")
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *showVersion {
		_, _ = fmt.Fprintln(out, "worker", version)
		return 0
	}
	if flags.NArg() > 0 || *path == "" {
		_, _ = fmt.Fprintln(errs, "worker: want --config FILE and no arguments; examples/worker.yaml is one to start from")
		return 2
	}
	settings, err := config.LoadWorker(*path)
	if err != nil {
		_, _ = fmt.Fprintln(errs, err)
		return 2
	}
	if err := app.Run(ctx, settings, app.Options{AddrFile: *addrFile, Log: errs, Version: version}); err != nil {
		_, _ = fmt.Fprintln(errs, "worker:", err)
		return 1
	}
	return 0
}
