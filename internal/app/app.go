// Package app wires the worker: it is the only place that constructs drivers, providers and notifiers.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/workflows"
)

// Options of a worker process.
type Options struct {
	AddrFile string    // where to write {"http": "host:port"} once the worker polls; empty: nowhere
	Log      io.Writer // where log lines go
	Version  string
}

// How long to wait between tries: to reach Temporal, and to schedule the sweep.
const (
	retryConnect = 2 * time.Second
	retrySweep   = time.Minute
)

// Run is the worker until ctx ends. While Temporal can't be reached it keeps trying, alive but not ready.
func Run(ctx context.Context, settings config.Worker, o Options) error {
	log := logger(settings.Log, o.Log)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	w := &process{settings: settings, log: log, registry: registry}
	served, err := listen(settings.Listen, registry, w.ready)
	if err != nil {
		return err
	}
	log.Info("worker starts", "version", o.Version, "http_addr", served.address(), "task_queue", settings.TaskQueue)
	err = w.run(ctx, func() error { return writeAddresses(o.AddrFile, map[string]string{"http": served.address()}) })
	return errors.Join(err, served.close())
}

// process is a running worker.
type process struct {
	settings config.Worker
	log      *slog.Logger
	registry *prometheus.Registry
	temporal atomic.Pointer[client.Client] // nil until Temporal was reached
	polling  atomic.Bool
}

func (p *process) run(ctx context.Context, polls func() error) error {
	targets, err := p.targets()
	if err != nil {
		return err
	}
	options, err := temporalOptions(p.settings.Temporal, p.registry, p.log)
	if err != nil {
		return err
	}
	c := p.connect(ctx, options)
	if c == nil {
		return nil
	}
	defer c.Close()
	p.temporal.Store(&c)

	targets.Workflows = c
	targets.SearchAttributes = searchAttributes(c, options.Namespace)
	acts, err := activities.New(targets)
	if err != nil {
		return err
	}
	w := worker.New(c, p.settings.TaskQueue, p.workerOptions())
	workflows.Register(w, p.behavior())
	acts.Register(w)
	if err := w.Start(); err != nil {
		return fmt.Errorf("start polling task queue %s at %s: %w", p.settings.TaskQueue, options.HostPort, err)
	}
	p.polling.Store(true)
	p.log.Info("worker polls", "address", options.HostPort, "namespace", options.Namespace, "task_queue", p.settings.TaskQueue)
	go p.sweep(ctx, c)
	err = polls()
	if err == nil {
		<-ctx.Done()
	}
	p.polling.Store(false)
	p.log.Info("worker stops")
	w.Stop()
	return err
}

// targets constructs everything that rollouts may name.
func (p *process) targets() (activities.Config, error) {
	d, errD := drivers(p.settings.Traffic)
	m, errM := providers(p.settings.Metrics)
	n, errN := notifiers(p.settings.Notify, p.log)
	return activities.Config{
		Drivers: d, Providers: m, Notifiers: n,
		CheckSpec: config.CheckSpec, Analysis: config.AnalysisConfig, Registerer: p.registry,
	}, errors.Join(errD, errM, errN)
}

// connect tries until Temporal answers, or ctx ends: then there is no client.
func (p *process) connect(ctx context.Context, options client.Options) client.Client {
	for {
		dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
		c, err := client.DialContext(dialing, options)
		cancel()
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			return nil
		}
		p.log.Warn("temporal does not answer, trying on", "address", options.HostPort, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryConnect):
		}
	}
}

func (p *process) workerOptions() worker.Options {
	o := worker.Options{
		WorkerStopTimeout:                  p.settings.GracefulStop,
		MaxConcurrentActivityExecutionSize: 1000, // a rollout is one long activity; they mostly sleep
	}
	if v := p.settings.Versioning; v != nil {
		o.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning: true,
			Version:       worker.WorkerDeploymentVersion{DeploymentName: v.Deployment, BuildID: v.BuildID},
		}
	}
	return o
}

// behavior keeps a rollout on the version that it began on; it moves to the current one when it continues as new.
func (p *process) behavior() workflow.VersioningBehavior {
	if p.settings.Versioning == nil {
		return workflow.VersioningBehaviorUnspecified
	}
	return workflow.VersioningBehaviorPinned
}

// sweep keeps the schedule that finds orphans. Rollouts run without it, so it is tried until it succeeds, beside them.
func (p *process) sweep(ctx context.Context, c client.Client) {
	if p.settings.Sweep.Disabled {
		return
	}
	for {
		trying, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := workflows.EnsureSweep(trying, c, p.settings.TaskQueue, p.settings.Sweep.Every)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		p.log.Error("the sweep for orphaned canaries is not scheduled, trying on", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retrySweep):
		}
	}
}

// ready reports why the worker can't carry rollouts on now.
func (p *process) ready(ctx context.Context) error {
	c := p.temporal.Load()
	if c == nil || !p.polling.Load() {
		return errors.New("not polling: Temporal was not reached yet, or the worker is stopping")
	}
	if _, err := (*c).CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("temporal does not answer: %w", err)
	}
	return nil
}

// searchAttributes asks whether the namespace knows Aviary's search attributes: using unknown ones would fail a workflow task.
func searchAttributes(c client.Client, namespace string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		answer, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
		if err != nil {
			return false
		}
		for _, name := range []string{"CanaryAgent", "CanaryPhase", "CanaryWeight"} {
			if _, ok := answer.GetCustomAttributes()[name]; !ok {
				return false
			}
		}
		return true
	}
}

func logger(settings config.Log, out io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: settings.Level}
	if settings.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
