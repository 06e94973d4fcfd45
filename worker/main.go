// Command worker runs Aviary's workflows and activities. As "worker guard" it is the guard, which takes traffic back from canaries
// that no worker keeps alive, where the data plane doesn't.
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

// part is what the process can be: loading reads its settings and returns what it does.
type part struct {
	name, example, purpose string
	load                   func(path string) (func(context.Context, app.Options) error, error)
}

var (
	workerPart = part{"worker", "examples/worker.yaml", workerPurpose, func(path string) (func(context.Context, app.Options) error, error) {
		settings, err := config.LoadWorker(path)
		return func(ctx context.Context, o app.Options) error { return app.Run(ctx, settings, o) }, err
	}}
	guardPart = part{"worker guard", "examples/guard.yaml", guardPurpose, func(path string) (func(context.Context, app.Options) error, error) {
		settings, err := config.LoadGuard(path)
		return func(ctx context.Context, o app.Options) error { return app.Guard(ctx, settings, o) }, err
	}}
)

const (
	workerPurpose = `worker runs the rollouts: Temporal's workflows, and the activities that set weights, compare metrics and notify.

  worker --config examples/worker.yaml
  worker guard --config examples/guard.yaml   # another process: takes traffic back when no worker renews (worker guard --help)

It finds Temporal by TEMPORAL_ADDRESS and so on. The settings name secrets by file or by environment variable. SIGTERM lets activities end.

`
	guardPurpose = `worker guard takes traffic back from canaries whose lease no worker renews, on data planes that keep no leases: Istio, the Gateway
API, flagd. It needs neither Temporal nor secrets, and runs beside the workers, in a process of its own.

  worker guard --config examples/guard.yaml

`
)

// run is the process until ctx ends: 0 when it stopped cleanly, 1 when it could not go on, 2 for a wrong command line or settings.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	part := workerPart
	if len(args) > 0 && args[0] == "guard" {
		part, args = guardPart, args[1:]
	}
	flags := flag.NewFlagSet(part.name, flag.ContinueOnError)
	flags.SetOutput(errs)
	path := flags.String("config", "", "settings `file` (required), such as "+part.example)
	addrFile := flags.String("addr-file", "", "write the address listened on to this `file` as JSON, once the process works")
	showVersion := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		_, _ = fmt.Fprint(errs, part.purpose)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *showVersion {
		_, _ = fmt.Fprintln(out, part.name, version)
		return 0
	}
	if flags.NArg() > 0 || *path == "" {
		_, _ = fmt.Fprintf(errs, "%s: want --config FILE and no arguments; %s is one to start from, %s --help says more\n", part.name, part.example, part.name)
		return 2
	}
	work, err := part.load(*path)
	if err != nil {
		_, _ = fmt.Fprintf(errs, "%s: %v\n", part.name, err)
		return 2
	}
	if err := work(ctx, app.Options{AddrFile: *addrFile, Log: errs, Version: version}); err != nil {
		_, _ = fmt.Fprintf(errs, "%s: %v\n", part.name, err)
		return 1
	}
	return 0
}
