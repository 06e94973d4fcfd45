// Command demo runs all of Aviary on one machine: Temporal with its UI, the gateway, the worker, an agent in three
// versions and the traffic of its users. `demo run` brings a good canary and a bad one; `demo dev` stays up.
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
)

const usage = `usage: demo run [--keep]     bring a good canary and a bad one, and show what happens
       demo dev [flags]      Temporal, gateway, worker, a demo agent and its users, until Ctrl-C

run 'demo run --help' or 'demo dev --help' for the flags
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) == 0 {
		_, _ = fmt.Fprint(errs, usage)
		return 2
	}
	flags := flag.NewFlagSet("demo "+args[0], flag.ContinueOnError)
	flags.SetOutput(errs)
	var do func() error
	switch args[0] {
	case "run":
		keep := flags.Bool("keep", false, "stay up at the end, to look around, until Ctrl-C")
		do = func() error { return show(ctx, out, *keep) }
	case "dev":
		opts := devFlags(flags)
		do = func() error { return develop(ctx, out, *opts) }
	case "help", "-h", "--help":
		_, _ = fmt.Fprint(out, usage)
		return 0
	default:
		_, _ = fmt.Fprintf(errs, "demo: unknown command %q\n%s", args[0], usage)
		return 2
	}
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(errs, "demo %s: unexpected argument %q\n", args[0], flags.Arg(0))
		return 2
	}
	err := do()
	switch {
	case err != nil:
		_, _ = fmt.Fprintln(errs, "demo:", err)
		return 1
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(out, "\nStopped; nothing is left running.")
	}
	return 0
}
