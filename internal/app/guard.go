package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/guard"
)

// Guard watches the leases of data planes until ctx ends.
func Guard(ctx context.Context, settings config.Guard, o Options) error {
	log := logger(settings.Log, o.Log)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	byDriver, err := drivers(settings.Traffic)
	if err != nil {
		return err
	}
	planes := map[string]traffic.Leased{}
	for kind, targets := range byDriver {
		for name, d := range targets {
			leased, ok := d.(traffic.Leased)
			if !ok {
				return fmt.Errorf("traffic target %s: the driver %s has no leases to guard", name, kind)
			}
			planes[name] = leased
		}
	}
	g := guard.New(planes, log, registry)
	served, err := listen(settings.Listen, registry, func(context.Context) error { return g.Ready() })
	if err != nil {
		return err
	}
	log.Info("guard starts", "version", o.Version, "http_addr", served.address(), "targets", len(planes))
	if err := writeAddresses(o.AddrFile, map[string]string{"http": served.address()}); err != nil {
		return errors.Join(err, served.close())
	}
	g.Run(ctx)
	log.Info("guard stops")
	return served.close()
}
