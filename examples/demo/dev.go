package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

type devOptions struct {
	ports
	dir string
	rps float64
}

func devFlags(flags *flag.FlagSet) *devOptions {
	o := &devOptions{}
	flags.IntVar(&o.temporal, "port", 7233, "Temporal's port; 0 is any free one")
	flags.IntVar(&o.ui, "ui-port", 8233, "the Temporal UI's port")
	flags.IntVar(&o.proxy, "gateway-port", 8080, "the gateway's port for users")
	flags.IntVar(&o.admin, "admin-port", 9901, "the gateway's admin port")
	flags.IntVar(&o.metrics, "metrics-port", 9464, "the worker's port for metrics and health")
	flags.StringVar(&o.dir, "dir", ".aviary", "folder of logs, settings and state; rollouts survive a restart in it")
	flags.Float64Var(&o.rps, "rps", 50, "turns per second of the demo agent's users")
	return o
}

// develop keeps everything up until ctx ends.
func develop(ctx context.Context, out io.Writer, o devOptions) (err error) {
	if o.rps <= 0 || o.rps > 2000 {
		return fmt.Errorf("--rps %v: want more than 0 and at most 2000", o.rps)
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	w, err := start(ctx, worldOptions{ports: o.ports, dir: dir, db: filepath.Join(dir, "temporal.db"), rps: o.rps})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	_, _ = fmt.Fprintf(out, `Aviary is up; Ctrl-C stops it, rollouts go on at the next start.
  Temporal      %s
  Temporal UI   %s
  agent         http://%s/agents/%s/chat   (versions v41, v42, v43; %g turns a second)
  gateway       http://%s   (admin; metrics at /metrics)
  worker        http://%s   (/metrics /healthz /readyz)
  logs          %s

Try:
  bin/starter start examples/quick.yaml --watch
`, w.devstack.Frontend, w.devstack.UI, w.gateway.Proxy, agentName, o.rps, w.gateway.Admin, w.worker.HTTP, dir)
	return w.ended(ctx)
}
