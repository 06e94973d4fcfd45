package simulate

import (
	"context"
	"sync"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// plane is a data plane in memory that does what it is told at once, and remembers when it was told what.
type plane struct {
	now func() time.Time

	mu      sync.Mutex
	route   rollout.Route
	applied bool
	moves   []move
}

// move is a change of the canary's weight or mirror.
type move struct {
	at             time.Time
	weight, mirror rollout.Weight
}

// Capabilities are those of Aviary's own router.
func (p *plane) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: 1, Sticky: "conversation", Lease: true, Override: true, Mirror: true}
}

// Apply sets the route. Errors: *traffic.OwnershipLost for an older revision.
func (p *plane) Apply(_ context.Context, route rollout.Route) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.applied && p.route.Owner == route.Owner && route.Revision < p.route.Revision {
		return &traffic.OwnershipLost{Agent: route.Agent, Owner: p.route.Owner, Revision: p.route.Revision}
	}
	if !p.applied || p.route.Weight != route.Weight || p.route.Mirror != route.Mirror {
		p.moves = append(p.moves, move{at: p.now(), weight: route.Weight, mirror: route.Mirror})
	}
	p.route, p.applied = route, true
	return nil
}

// Read is the route as it was set. Leases are always renewed in time: nothing fails here.
func (p *plane) Read(_ context.Context, asked rollout.Route) (traffic.Observed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.applied || p.route.Agent != asked.Agent {
		return traffic.Observed{Agent: asked.Agent}, nil
	}
	r := p.route
	return traffic.Observed{
		Agent: r.Agent, Stable: r.Stable, Canary: r.Canary, Weight: r.Weight, Effective: r.Weight, Mirror: r.Mirror, Owner: r.Owner, Revision: r.Revision,
	}, nil
}

// List is the one agent that there is.
func (p *plane) List(ctx context.Context) ([]traffic.Observed, error) {
	p.mu.Lock()
	route, applied := p.route, p.applied
	p.mu.Unlock()
	if !applied {
		return nil, nil
	}
	seen, err := p.Read(ctx, route)
	return []traffic.Observed{seen}, err
}

// spell is a time under one weight and mirror.
type spell struct {
	from, to       time.Time
	weight, mirror rollout.Weight
}

// spells cut [from, to) where the weight changed.
func (p *plane) spells(from, to time.Time) []spell {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []spell{{from: from, to: to}}
	for _, m := range p.moves {
		last := &out[len(out)-1]
		switch {
		case !m.at.After(last.from):
			last.weight, last.mirror = m.weight, m.mirror
		case m.at.Before(to):
			last.to = m.at
			out = append(out, spell{from: m.at, to: to, weight: m.weight, mirror: m.mirror})
		}
	}
	return out
}
