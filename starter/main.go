// Command starter is the command line of Aviary: it starts rollouts, shows where they stand and passes on what humans decide.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/aviary-rollouts/aviary/internal/app"
	"github.com/aviary-rollouts/aviary/internal/cli"
)

// version is set by the linker (-X main.version=v1.2.3).
var version = ""

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process as usual
	p := cli.System(stdout, stderr, version)
	p.Past = func(ctx context.Context, q cli.PastQuery) (*cli.History, string, error) {
		return app.Past(ctx, app.PastQuery(q))
	}
	p.Present = func(ctx context.Context, q cli.PresentQuery) ([]cli.Poll, string, error) {
		return app.Present(ctx, app.PresentQuery(q))
	}
	return cli.Run(ctx, args, p)
}
