// Package guard takes traffic back from canaries whose lease nobody renews, on data planes that keep no leases of their own. It runs in a
// process of its own, so that it outlives the workers that renew.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	// Every is how often leases are looked at. With reach it keeps the promise of design: stable has all traffic 5 s after a lease ran out.
	Every = time.Second
	// reach bounds one look at a data plane, and one expiry.
	reach = 3 * time.Second
	// looksOfGrace is how often a lease is seen past its time before it is over, if looks have missed it: those who renew were likely blind
	// too, and are about to renew.
	looksOfGrace = 3
)

// Guard watches leases. It is safe for concurrent use.
type Guard struct {
	log     *slog.Logger
	targets []*target

	leases  *prometheus.GaugeVec
	expired *prometheus.CounterVec
	failed  *prometheus.CounterVec
}

// target is a data plane and what is remembered of it.
type target struct {
	name  string
	plane traffic.Leased
	book  book

	mu   sync.Mutex
	err  error // of the last look
	once bool  // it was looked at
}

// New is a guard of planes by the names of their targets. Its metrics go to registerer.
func New(planes map[string]traffic.Leased, log *slog.Logger, registerer prometheus.Registerer) *Guard {
	labels := []string{"target"}
	g := &Guard{
		log:     log,
		leases:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aviary_guard_leases", Help: "Leases of canaries with traffic."}, labels),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aviary_guard_expired_total", Help: "Canaries that were taken back."}, labels),
		failed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aviary_guard_failures_total", Help: "Looks and expiries that failed."}, labels),
	}
	registerer.MustRegister(g.leases, g.expired, g.failed)
	for name, plane := range planes {
		g.targets = append(g.targets, &target{name: name, plane: plane, book: book{}})
		g.expired.WithLabelValues(name)
		g.failed.WithLabelValues(name)
	}
	return g
}

// Run watches until ctx ends. A data plane that hangs does not keep the others waiting.
func (g *Guard) Run(ctx context.Context) {
	var planes sync.WaitGroup
	for _, t := range g.targets {
		planes.Go(func() {
			tick := time.NewTicker(Every)
			defer tick.Stop()
			for {
				g.look(ctx, t)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	planes.Wait()
}

// Ready is why leases can't be watched now, or nil.
func (g *Guard) Ready() error {
	var errs []error
	for _, t := range g.targets {
		t.mu.Lock()
		switch {
		case !t.once:
			errs = append(errs, errors.New("target "+t.name+" was not looked at yet"))
		case t.err != nil:
			errs = append(errs, errors.New("target "+t.name+": "+t.err.Error()))
		}
		t.mu.Unlock()
	}
	return errors.Join(errs...)
}

// look reads a target's leases once, and expires those that ran out, all at once.
func (g *Guard) look(ctx context.Context, t *target) {
	reading, cancel := context.WithTimeout(ctx, reach)
	leases, err := t.plane.Leases(reading)
	cancel()
	if ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	before := t.err
	t.once, t.err = true, err
	t.mu.Unlock()
	if err != nil {
		g.failed.WithLabelValues(t.name).Inc()
		if before == nil {
			g.log.Error("leases can't be read, trying on", "target", t.name, "read", len(leases), "error", err)
		}
	} else if before != nil {
		g.log.Info("leases can be read again", "target", t.name)
	}
	g.leases.WithLabelValues(t.name).Set(float64(len(leases)))
	var back sync.WaitGroup
	for _, l := range t.book.over(leases, err == nil, time.Now()) {
		back.Go(func() { g.expire(ctx, t, l) })
	}
	back.Wait()
}

func (g *Guard) expire(ctx context.Context, t *target, l traffic.Lease) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	log := g.log.With("target", t.name, "agent", l.Agent, "owner", l.Owner, "revision", l.Revision, "lease", l.TTL)
	if err := t.plane.Expire(ctx, l); err != nil {
		g.failed.WithLabelValues(t.name).Inc()
		log.Error("a lease ran out, and the canary could not be taken back, trying on", "error", err)
		return
	}
	g.expired.WithLabelValues(t.name).Inc()
	log.Warn("a lease ran out, stable has all traffic")
}

// key is what a lease is of.
type key struct {
	agent  string
	object rollout.Object
}

// entry is when a lease was last seen to change, by this process's monotonic clock: what others' clocks say is not asked.
type entry struct {
	renewal string
	changed time.Time
	missed  bool // there was a look since that did not see it
	overdue int  // looks since that saw it past its time
}

// book is what is known of a target's leases.
type book map[key]entry

// blind notes that leases could not be read, but for those that were.
func (b book) blind(but map[key]bool) {
	for k, e := range b {
		if !but[k] {
			e.missed = true
			b[k] = e
		}
	}
}

// over notes leases as read at now, and returns those that ran out. One that is new has its whole time from now, as after a restart of
// the guard; one that a look has missed may have been renewed, and is given some looks to be, however many fail in between. All: there are no
// others, so that one that is gone is forgotten.
func (b book) over(leases []traffic.Lease, all bool, now time.Time) []traffic.Lease {
	var out []traffic.Lease
	seen := map[key]bool{}
	for _, l := range leases {
		k := key{agent: l.Agent}
		if l.Object != nil {
			k.object = *l.Object
		}
		seen[k] = true
		e, known := b[k]
		if !known || e.renewal != l.Renewal {
			e = entry{renewal: l.Renewal, changed: now}
		}
		if l.TTL > 0 && now.Sub(e.changed) >= l.TTL {
			if e.overdue++; !e.missed || e.overdue >= looksOfGrace {
				out = append(out, l)
			}
		}
		b[k] = e
	}
	if !all {
		b.blind(seen)
		return out
	}
	for k := range b {
		if !seen[k] {
			delete(b, k)
		}
	}
	return out
}
