package guard

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

func lease(agent, renewal string, ttl time.Duration) traffic.Lease {
	return traffic.Lease{Agent: agent, Object: &rollout.Object{Namespace: "agents", Name: agent}, Renewal: renewal, TTL: ttl}
}

// of is a lease of another object.
func of(object string, l traffic.Lease) traffic.Lease {
	l.Object = &rollout.Object{Namespace: "agents", Name: object}
	return l
}

// TestOver walks through what a guard may see, one look after the other.
func TestOver(t *testing.T) {
	t.Parallel()
	start := time.Now()
	type look struct {
		at     time.Duration
		leases []traffic.Lease // nil: none; see blind
		blind  bool
		part   bool     // there are others, which could not be read
		want   []string // the agents whose leases ran out
	}
	const ttl = 10 * time.Second
	one := func(renewal string) []traffic.Lease { return []traffic.Lease{lease("a", renewal, ttl)} }
	for name, looks := range map[string][]look{
		"renewed in time": {
			{at: 0, leases: one("1")}, {at: 9 * time.Second, leases: one("2")}, {at: 18 * time.Second, leases: one("3")},
			{at: 27 * time.Second, leases: one("3")},
		},
		"not renewed": {
			{at: 0, leases: one("1")}, {at: ttl - 1, leases: one("1")}, {at: ttl, leases: one("1"), want: []string{"a"}},
			{at: ttl + 1, leases: one("1"), want: []string{"a"}}, // until it is gone
			{at: ttl + 2},
		},
		"renewed at the last moment": {
			{at: 0, leases: one("1")}, {at: ttl, leases: one("2")}, {at: 2*ttl - 1, leases: one("2")}, {at: 2 * ttl, leases: one("2"), want: []string{"a"}},
		},
		"a lease that came back begins anew": {
			{at: 0, leases: one("1")}, {at: ttl - 1}, {at: ttl, leases: one("1")}, {at: 2*ttl - 1, leases: one("1")},
			{at: 2 * ttl, leases: one("1"), want: []string{"a"}},
		},
		"after a blind time others may renew first": {
			{at: 0, leases: one("1")}, {at: time.Second, blind: true}, {at: 2 * ttl, leases: one("1")}, {at: 2*ttl + time.Second, leases: one("2")},
			{at: 3*ttl + time.Second - 1, leases: one("2")}, {at: 3*ttl + time.Second, leases: one("2"), want: []string{"a"}},
		},
		"after a blind time nobody renews": {
			{at: 0, leases: one("1")}, {at: time.Second, blind: true}, {at: 2 * ttl, leases: one("1")},
			{at: 2*ttl + time.Second, leases: one("1")}, {at: 2*ttl + 2*time.Second, leases: one("1"), want: []string{"a"}},
		},
		"every other look fails": {
			{at: 0, leases: one("1")}, {at: ttl / 2, blind: true}, {at: ttl, leases: one("1")}, {at: ttl + 1*time.Second, blind: true},
			{at: ttl + 2*time.Second, leases: one("1")}, {at: ttl + 3*time.Second, blind: true}, {at: ttl + 4*time.Second, leases: one("1"), want: []string{"a"}},
		},
		"a part can't be read": {
			{at: 0, leases: []traffic.Lease{lease("a", "1", ttl), lease("b", "1", ttl)}},
			{at: ttl - 1, leases: []traffic.Lease{lease("a", "1", ttl)}, part: true},
			{at: ttl, leases: []traffic.Lease{lease("a", "1", ttl)}, part: true, want: []string{"a"}}, // nothing of it was missed
			{at: ttl + time.Second, leases: []traffic.Lease{lease("b", "1", ttl)}, part: true},
			{at: ttl + 2*time.Second, leases: []traffic.Lease{lease("b", "1", ttl)}, part: true},
			{at: ttl + 3*time.Second, leases: []traffic.Lease{lease("b", "1", ttl)}, part: true, want: []string{"b"}},
		},
		"each has its own time": {
			{at: 0, leases: []traffic.Lease{lease("a", "1", ttl), lease("b", "1", 2*ttl)}},
			{at: ttl, leases: []traffic.Lease{lease("a", "1", ttl), lease("b", "1", 2*ttl)}, want: []string{"a"}},
			{at: 2 * ttl, leases: []traffic.Lease{lease("b", "1", 2*ttl), lease("c", "1", ttl)}, want: []string{"b"}},
		},
		"two objects of one agent": {
			{at: 0, leases: []traffic.Lease{lease("a", "1", ttl), of("x", lease("a", "1", ttl))}},
			{at: ttl - 1, leases: []traffic.Lease{lease("a", "2", ttl), of("x", lease("a", "1", ttl))}},
			{at: ttl, leases: []traffic.Lease{lease("a", "3", ttl), of("x", lease("a", "1", ttl))}, want: []string{"a"}},
		},
		"a lease without an end": {
			{at: 0, leases: []traffic.Lease{lease("a", "1", 0)}}, {at: 1000 * time.Hour, leases: []traffic.Lease{lease("a", "1", 0)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := book{}
			for i, l := range looks {
				if l.blind {
					b.blind(nil)
					continue
				}
				var got []string
				for _, over := range b.over(l.leases, !l.part, start.Add(l.at)) {
					got = append(got, over.Agent)
				}
				if !slices.Equal(got, l.want) {
					t.Errorf("look %d at %s: %v ran out, want %v", i, l.at, got, l.want)
				}
			}
		})
	}
}

// plane is a data plane in memory; the driver's part of it is not asked.
type plane struct {
	traffic.Driver
	mu     sync.Mutex
	leases []traffic.Lease
	err    error
	hang   bool
	refuse int // that many expiries fail
	done   chan string
}

func (p *plane) Leases(ctx context.Context) ([]traffic.Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hang {
		p.mu.Unlock()
		<-ctx.Done()
		p.mu.Lock()
		return nil, ctx.Err()
	}
	if p.err != nil {
		return nil, p.err
	}
	return slices.Clone(p.leases), nil
}

func (p *plane) Expire(_ context.Context, l traffic.Lease) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse > 0 {
		p.refuse--
		return errors.New("not now")
	}
	p.leases = slices.DeleteFunc(p.leases, func(o traffic.Lease) bool { return o.Agent == l.Agent })
	p.done <- l.Agent
	return nil
}

// TestRun: beside a plane that hangs and one that fails, what ran out is taken back, tried until it is.
func TestRun(t *testing.T) {
	t.Parallel()
	done := make(chan string, 10)
	good := &plane{leases: []traffic.Lease{lease("a", "1", time.Millisecond), lease("b", "1", time.Hour)}, refuse: 1, done: done}
	bad := &plane{err: errors.New("unreachable"), done: done}
	stuck := &plane{hang: true, done: done}
	g := New(map[string]traffic.Leased{"good": good, "bad": bad, "stuck": stuck}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if g.Ready() == nil {
		t.Error("ready before any look")
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { g.Run(ctx); close(stopped) }()
	select {
	case agent := <-done:
		if agent != "a" {
			t.Errorf("%s was taken back, want a", agent)
		}
	case <-time.After(time.Minute):
		t.Error("nothing was taken back")
	}
	if err := g.Ready(); err == nil {
		t.Error("ready with a data plane that can't be reached")
	}
	cancel()
	<-stopped
	if len(good.leases) != 1 || good.leases[0].Agent != "b" {
		t.Errorf("left are %+v, want b", good.leases)
	}
}

// TestBlindGuardWaits: what it could not see for longer than a lease may have been renewed, and is given the time to be.
func TestBlindGuardWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plane{leases: []traffic.Lease{lease("a", "1", 10*time.Second)}, done: make(chan string, 10)}
		set := func(change func()) {
			p.mu.Lock()
			defer p.mu.Unlock()
			change()
		}
		g := New(map[string]traffic.Leased{"plane": p}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go g.Run(ctx)
		time.Sleep(1500 * time.Millisecond)
		set(func() { p.err = errors.New("unreachable") })
		time.Sleep(time.Minute)
		if g.Ready() == nil {
			t.Error("ready while it sees nothing")
		}
		set(func() { p.err = nil })
		time.Sleep(1200 * time.Millisecond)
		set(func() { p.leases = []traffic.Lease{lease("a", "2", 10*time.Second)} })
		time.Sleep(9 * time.Second)
		select {
		case <-p.done:
			t.Error("it took back a canary whose lease was renewed as soon as anybody could")
		default:
		}
		time.Sleep(3 * time.Second)
		if len(p.done) != 1 {
			t.Errorf("%d expiries of a lease that nobody renews any more, want one", len(p.done))
		}
	})
}
