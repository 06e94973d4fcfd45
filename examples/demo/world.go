package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/aviary-rollouts/aviary/examples/agent"
	"github.com/aviary-rollouts/aviary/internal/stack"
)

//go:embed gateway.yaml
var gatewaySettings string

//go:embed worker.yaml
var workerSettings string

// agentName is the agent whose versions the demo rolls out.
const agentName = "support-agent"

// behaviors are the demo's versions: the stable one, a canary that is a little better and one that is worse.
func behaviors() []agent.Behavior {
	return []agent.Behavior{
		{Version: "v41", ErrorRate: 0.01, TaskFailureRate: 0.06, ToolErrorRate: 0.02, Latency: 12 * time.Millisecond},
		{Version: "v42", ErrorRate: 0.005, TaskFailureRate: 0.03, ToolErrorRate: 0.02, Latency: 10 * time.Millisecond},
		{Version: "v43", ErrorRate: 0.01, TaskFailureRate: 0.30, SafetyRate: 0.01, ToolErrorRate: 0.05, Latency: 12 * time.Millisecond},
	}
}

// world is everything that runs. stop takes it down in the opposite order.
type world struct {
	devstack *stack.Devstack
	gateway  *stack.Gateway
	worker   *stack.Worker
	traffic  *agent.Traffic
	stops    []func() error
}

// ports to listen on; 0 is any free one.
type ports struct {
	temporal, ui, proxy, admin, metrics int
}

type worldOptions struct {
	ports
	dir string  // of logs, settings and state
	db  string  // Temporal's database file; empty keeps it in memory
	rps float64 // turns per second
}

// start brings everything up. On an error what runs already is stopped.
func start(ctx context.Context, o worldOptions) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	values := map[string]string{
		"DIR":   o.dir,
		"PROXY": address(o.proxy), "ADMIN": address(o.admin), "METRICS": address(o.metrics),
	}
	for _, b := range behaviors() {
		if values[b.Version], err = w.serveAgent(b); err != nil {
			return w, err
		}
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w.devstack, err = stack.StartDevstack(ready, o.dir, "--port", strconv.Itoa(o.temporal), "--ui-port", strconv.Itoa(o.ui), "--db-filename", o.db)
	if err != nil {
		return w, err
	}
	w.stops = append(w.stops, w.devstack.Stop)

	token := "AVIARY_ADMIN_TOKEN=" + stack.Token()
	settings := filepath.Join(o.dir, "gateway.yaml")
	if err = stack.WriteSettings(settings, gatewaySettings, values); err != nil {
		return w, err
	}
	if w.gateway, err = stack.StartGateway(ready, "gateway", o.dir, settings, token); err != nil {
		return w, err
	}
	w.stops = append(w.stops, w.gateway.Stop)

	values["ADMIN_URL"] = "http://" + w.gateway.Admin
	settings = filepath.Join(o.dir, "worker.yaml")
	if err = stack.WriteSettings(settings, workerSettings, values); err != nil {
		return w, err
	}
	if w.worker, err = stack.StartWorker(ready, o.dir, settings, token, w.temporalEnv()); err != nil {
		return w, err
	}
	w.stops = append(w.stops, w.worker.Stop)
	w.sendTraffic(o.rps)
	return w, nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (w *world) temporalEnv() string { return "TEMPORAL_ADDRESS=" + w.devstack.Frontend }

// serveAgent serves one version on a free port and returns its URL.
func (w *world) serveAgent(b agent.Behavior) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serve agent %s: %w", b.Version, err)
	}
	server := &http.Server{Handler: agent.Handler(b), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	w.stops = append(w.stops, server.Close)
	return "http://" + listener.Addr().String(), nil
}

func (w *world) sendTraffic(rps float64) {
	w.traffic = &agent.Traffic{URL: "http://" + w.gateway.Proxy + "/agents/" + agentName, RPS: rps, Users: 5000, Turns: 3}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.traffic.Run(ctx)
	}()
	w.stops = append(w.stops, func() error {
		cancel()
		<-done
		return nil
	})
}

// stop takes everything down and reports what did not stop by itself.
func (w *world) stop() error {
	var errs []error
	for i := len(w.stops) - 1; i >= 0; i-- {
		errs = append(errs, w.stops[i]())
	}
	w.stops = nil
	return errors.Join(errs...)
}

// ended says which process ended by itself; it blocks until one does or ctx ends.
func (w *world) ended(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-w.devstack.Done():
		return fmt.Errorf("the Temporal server ended, see %s", w.devstack.Log)
	case <-w.gateway.Done():
		return fmt.Errorf("the gateway ended, see %s", w.gateway.Log)
	case <-w.worker.Done():
		return fmt.Errorf("the worker ended, see %s", w.worker.Log)
	}
}
