package router

import (
	"fmt"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// stickyRouter remembers n conversations, and turn is a turn of a client that can't echo pins.
func stickyRouter(t *testing.T, n int) (r *Router, clock *fakeClock, turn func(key string) Decision) {
	t.Helper()
	clock = newFakeClock()
	o := testOptions(t, clock)
	o.StickyMemory, o.Memory = n, 1
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r, clock, func(key string) Decision {
		t.Helper()
		d := mustDecide(t, r, Request{Key: key})
		r.Served(&d, key)
		return d
	}
}

func TestStickyMemory(t *testing.T) {
	t.Parallel()
	r, clock, turn := stickyRouter(t, 100)
	want := func(step, key, version string, reason Reason, from string) {
		t.Helper()
		if d := turn(key); d.Version != version || d.Reason != reason || d.MigratedFrom != from {
			t.Errorf("%s: %s by %s from %q, want %s by %s from %q", step, d.Version, d.Reason, d.MigratedFrom, version, reason, from)
		}
	}
	mustSet(t, r, canaryRoute(500, 1))
	early, late := keyFor(t, r, 0, 500), keyFor(t, r, 1000, 1500)
	want("begins on the canary", early, "v42", ByWeight, "")
	want("begins on stable", late, "v41", ByWeight, "")
	mustSet(t, r, canaryRoute(1500, 2))
	want("while the weight rises", late, "v41", ByMemory, "")
	want("second turn", early, "v42", ByMemory, "")
	mustSet(t, r, canaryRoute(100, 3))
	want("though the weight falls", early, "v42", ByMemory, "")
	clock.advance(time.Minute)
	want("past the lease", early, "v41", ByLeaseExpired, "v42")
	mustSet(t, r, canaryRoute(10000, 4))
	want("moved, it stays", early, "v41", ByMemory, "")
	want("another begins on the canary", "x", "v42", ByWeight, "")
	mustSet(t, r, rollbackRoute(5, api.Evict))
	want("rolled back", "x", "v41", ByWeight, "v42")
	want("moved, it stays, too", "x", "v41", ByMemory, "")
	clock.advance(DefaultPinTTL)
	want("forgotten in the end", "x", "v41", ByWeight, "")
	if c := counterOf(t, r, "v41"); c.Conversations != 1 { // "late" alone began there
		t.Errorf("%d conversations began on stable, want 1", c.Conversations)
	}
}

func TestStickyMemoryFollowsTheRulesOfPins(t *testing.T) {
	t.Parallel()
	r, _, turn := stickyRouter(t, 100)
	mustSet(t, r, canaryRoute(10000, 1))
	asleep := "asleep since before the rollback"
	turn(asleep)
	mustSet(t, r, rollbackRoute(2, api.Evict))
	again := canaryRoute(1, 1)
	again.Owner = "canary/support-agent/run2"
	mustSet(t, r, again)
	if d := turn(asleep); d.Reason == ByMemory || d.MigratedFrom != "v42" && d.Version != "v42" {
		t.Errorf("the same canary again: %+v, want the memory void", d)
	}
	drained := "drained"
	mustSet(t, r, api.Route{Stable: "v41", Canary: "v42", Weight: 10000, Owner: again.Owner, Revision: 2})
	turn(drained)
	mustSet(t, r, api.Route{Stable: "v41", Canary: "v42", Owner: again.Owner, Revision: 3, Rollback: true, OnRollback: api.Drain})
	if d := turn(drained); d.Version != "v42" || d.Reason != ByMemory {
		t.Errorf("while it drains: %+v", d)
	}
	pin := mustDecide(t, r, Request{Key: "other"})
	token := string(r.AppendPin(nil, &pin))
	if d := mustDecide(t, r, Request{Key: drained, Pin: token}); d.Version != "v41" || d.Reason != ByPin {
		t.Errorf("a pin and a memory: %+v, want the pin's", d)
	}
}

func TestStickyMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const n = 1000
	r, _, turn := stickyRouter(t, n)
	mustSet(t, r, canaryRoute(10000, 1))
	for i := range 10 * n {
		turn(fmt.Sprint(i))
	}
	mustSet(t, r, canaryRoute(0, 2))
	for i := 9 * n; i < 10*n; i++ {
		if d := mustDecide(t, r, Request{Key: fmt.Sprint(i)}); d.Version != "v42" || d.Reason != ByMemory {
			t.Fatalf("conversation %d, one of the last %d: %+v", i, n, d)
		}
	}
	if d := mustDecide(t, r, Request{Key: "0"}); d.Reason == ByMemory {
		t.Errorf("the oldest conversation: %+v, want it forgotten", d)
	}
	m := r.agents[agent].recall
	if held := len(m.new) + len(m.old); held > 2*n {
		t.Errorf("%d conversations held, want at most %d", held, 2*n)
	}
	if _, err := New(Options{StickyMemory: -1}); err == nil {
		t.Error("a negative sticky memory passes")
	}
}
