package router

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// fakeClock is a clock that tests turn. Its wall and its monotonic hands turn apart.
type fakeClock struct {
	mu   sync.Mutex
	wall time.Time
	mono time.Duration
}

func newFakeClock() *fakeClock {
	return &fakeClock{wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), mono: time.Hour}
}

func (c *fakeClock) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *fakeClock) Mono() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mono
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.mono = c.wall.Add(d), c.mono+d
}

func (c *fakeClock) jumpWall(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

const agent = "support-agent"

func testOptions(t testing.TB, clock Clock) Options {
	t.Helper()
	ring, err := NewKeyring(Key{ID: "k1", Secret: []byte("0123456789abcdef0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]api.Version{}
	for _, v := range []string{"v40", "v41", "v42", "v43"} {
		versions[v] = api.Version{URL: "http://127.0.0.1:1/" + v}
	}
	return Options{Clock: clock, Keys: ring, Agents: map[string]AgentOptions{agent: {Stable: "v41", Versions: versions}}}
}

func newTestRouter(t testing.TB) (*Router, *fakeClock) {
	t.Helper()
	clock := newFakeClock()
	r, err := New(testOptions(t, clock))
	if err != nil {
		t.Fatal(err)
	}
	return r, clock
}

// canaryRoute is a usual route at weight, with a lease of a minute.
func canaryRoute(weight int, revision int64) api.Route {
	return api.Route{Stable: "v41", Canary: "v42", Weight: weight, Owner: "canary/support-agent/run1", Revision: revision, LeaseMillis: 60_000}
}

func rollbackRoute(revision int64, policy string) api.Route {
	r := canaryRoute(0, revision)
	r.Rollback, r.OnRollback = true, policy
	return r
}

func mustSet(t testing.TB, r *Router, route api.Route) api.Observed {
	t.Helper()
	o, err := r.SetRoute(agent, route)
	if err != nil {
		t.Fatalf("SetRoute(%+v): %v", route, err)
	}
	return o
}

func mustDecide(t testing.TB, r *Router, q Request) Decision {
	t.Helper()
	d, err := r.Decide(agent, q)
	if err != nil {
		t.Fatalf("Decide(%+v): %v", q, err)
	}
	return d
}

// keyFor is a key that the present owner's salt sends to a bucket in [from, to).
func keyFor(t testing.TB, r *Router, from, to int) string {
	t.Helper()
	for i := range 1_000_000 {
		key := fmt.Sprintf("conversation-%d", i)
		if d := mustDecide(t, r, Request{Key: key}); d.Bucket >= from && d.Bucket < to {
			return key
		}
	}
	t.Fatalf("no key for buckets %d to %d", from, to)
	return ""
}

// conflictOf is the conflict in err, or nil.
func conflictOf(err error) *api.Conflict {
	var c *api.Conflict
	if errors.As(err, &c) {
		return c
	}
	return nil
}

// refusalCode is the code of the refusal in err, or "".
func refusalCode(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}
