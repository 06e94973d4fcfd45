package router

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

func TestDecideReasons(t *testing.T) {
	t.Parallel()
	r, clock := newTestRouter(t)
	mustSet(t, r, canaryRoute(5000, 1))
	in, out := keyFor(t, r, 0, 5000), keyFor(t, r, 5000, 10000)

	if d := mustDecide(t, r, Request{Key: in}); d.Version != "v42" || d.Reason != ByWeight || !d.NewPin {
		t.Errorf("below the weight: %+v", d)
	}
	if d := mustDecide(t, r, Request{Key: out}); d.Version != "v41" || d.Reason != ByWeight || !d.NewPin {
		t.Errorf("above the weight: %+v", d)
	}
	if d := mustDecide(t, r, Request{}); d.Reason != ByNoKey || d.Bucket < 0 || d.Bucket >= Buckets || d.Canary != (d.Bucket < 5000) {
		t.Errorf("no key: %+v", d)
	}
	if d := mustDecide(t, r, Request{Key: in, Override: "v40"}); d.Version != "v40" || d.Reason != ByOverride || d.Bucket != -1 || d.NewPin {
		t.Errorf("override: %+v", d)
	}
	if _, err := r.Decide(agent, Request{Override: "v99"}); !errors.Is(err, ErrUnknownVersion) {
		t.Errorf("override of an unknown version: %v", err)
	}
	if _, err := r.Decide("nobody", Request{}); !errors.Is(err, ErrUnknownAgent) {
		t.Errorf("unknown agent: %v", err)
	}
	clock.advance(time.Minute)
	if d := mustDecide(t, r, Request{Key: in}); d.Version != "v41" || d.Reason != ByLeaseExpired {
		t.Errorf("after the lease: %+v", d)
	}
}

func TestPinHoldsWhileTheWeightMoves(t *testing.T) {
	t.Parallel()
	r, clock := newTestRouter(t)
	mustSet(t, r, canaryRoute(500, 1))
	key := keyFor(t, r, 1000, 1500) // on stable at 5 %, on the canary at 15 %
	d := mustDecide(t, r, Request{Key: key})
	pin := string(r.AppendPin(nil, &d))

	mustSet(t, r, canaryRoute(1500, 2))
	if d := mustDecide(t, r, Request{Key: key}); d.Version != "v42" {
		t.Fatalf("without the pin: %+v", d)
	}
	got := mustDecide(t, r, Request{Key: key, Pin: pin})
	if got.Version != "v41" || got.Reason != ByPin || got.NewPin || got.MigratedFrom != "" {
		t.Errorf("with the pin: %+v", got)
	}
	clock.advance(DefaultPinTTL/2 + time.Minute)
	if got = mustDecide(t, r, Request{Key: key, Pin: pin}); got.Version != "v41" || !got.NewPin {
		t.Errorf("with an old pin: %+v", got)
	}
	renewed := string(r.AppendPin(nil, &got))
	clock.advance(DefaultPinTTL / 2)
	mustSet(t, r, canaryRoute(1500, 2))
	if got = mustDecide(t, r, Request{Key: key, Pin: pin}); got.Reason == ByPin {
		t.Errorf("with an expired pin: %+v", got)
	}
	if got = mustDecide(t, r, Request{Key: key, Pin: renewed}); got.Reason != ByPin || got.Version != "v41" {
		t.Errorf("with the renewed pin: %+v", got)
	}
}

func TestShortPinIsRenewedInTime(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	o := testOptions(t, clock)
	o.PinTTL = time.Second
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d := mustDecide(t, r, Request{Key: "x"})
	pin := string(r.AppendPin(nil, &d))
	for _, tt := range []struct {
		age  time.Duration
		want bool
	}{{400 * time.Millisecond, false}, {600 * time.Millisecond, true}} {
		clock.jumpWall(tt.age)
		if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Reason != ByPin || d.NewPin != tt.want {
			t.Errorf("%s old: %+v, want it renewed: %t", tt.age, d, tt.want)
		}
		clock.jumpWall(-tt.age)
	}
}

func TestKeyRotation(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	with := func(keys ...Key) *Router {
		o := testOptions(t, clock)
		o.Keys = testRing(t, keys...)
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		mustSet(t, r, canaryRoute(10000, 1))
		return r
	}
	begun, both, after := with(keyA), with(keyB, keyA), with(keyB)
	d := mustDecide(t, begun, Request{Key: "x"})
	pin := string(begun.AppendPin(nil, &d))
	mustSet(t, both, canaryRoute(1, 2))
	mustSet(t, after, canaryRoute(1, 2))

	d = mustDecide(t, both, Request{Key: "x", Pin: pin})
	if d.Version != "v42" || d.Reason != ByPin || !d.NewPin {
		t.Fatalf("pin of the key before: %+v, want it honoured and renewed", d)
	}
	renewed := string(both.AppendPin(nil, &d))
	if d = mustDecide(t, both, Request{Key: "x", Pin: renewed}); d.Reason != ByPin || d.NewPin {
		t.Errorf("renewed pin: %+v, want it left alone", d)
	}
	if d = mustDecide(t, after, Request{Key: "x", Pin: renewed}); d.Version != "v42" || d.Reason != ByPin {
		t.Errorf("renewed pin once the key before is gone: %+v", d)
	}
	if d = mustDecide(t, after, Request{Key: "x", Pin: pin}); d.Reason == ByPin {
		t.Errorf("pin of a key that is gone: %+v", d)
	}
}

func TestPinOnCanaryHoldsThroughPromotionAndTheNextRollout(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(5000, 1))
	onCanary, onStable := mustDecide(t, r, Request{Key: keyFor(t, r, 0, 5000)}), mustDecide(t, r, Request{Key: keyFor(t, r, 5000, 10000)})
	canaryPin, stablePin := string(r.AppendPin(nil, &onCanary)), string(r.AppendPin(nil, &onStable))

	mustSet(t, r, api.Route{Stable: "v42", Owner: "canary/support-agent/run1", Revision: 2, Promoted: true})
	next := api.Route{Stable: "v42", Canary: "v43", Weight: 9000, Owner: "canary/support-agent/run2", Revision: 1}
	for _, step := range []string{"promoted", "next rollout"} {
		if d := mustDecide(t, r, Request{Key: "x", Pin: canaryPin}); d.Version != "v42" || d.Reason != ByPin {
			t.Errorf("%s: pin on the promoted version: %+v", step, d)
		}
		if d := mustDecide(t, r, Request{Key: "x", Pin: stablePin}); d.Version != "v41" || d.Reason != ByPin {
			t.Errorf("%s: pin on the version before: %+v", step, d)
		}
		mustSet(t, r, next)
	}
}

func TestRollbackPolicies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy         string
		during, after  string // the pinned conversation's version, before and after the drain deadline
		migrated, kill bool
	}{
		{api.Evict, "v41", "v41", true, false},
		{"", "v41", "v41", true, false},
		{api.Drain, "v42", "v41", false, false},
		{api.Kill, "v41", "v41", true, true},
	} {
		t.Run("policy "+tt.policy, func(t *testing.T) {
			t.Parallel()
			r, clock := newTestRouter(t)
			mustSet(t, r, canaryRoute(5000, 1))
			key := keyFor(t, r, 0, 5000)
			d := mustDecide(t, r, Request{Key: key})
			pin := string(r.AppendPin(nil, &d))
			ended := false
			done := d.Streams().Add(func() { ended = true })
			defer done()

			mustSet(t, r, rollbackRoute(2, tt.policy))
			if ended != tt.kill {
				t.Errorf("live stream ended: %t, want %t", ended, tt.kill)
			}
			if d := mustDecide(t, r, Request{Key: key}); d.Version != "v41" {
				t.Errorf("new conversation: %+v", d)
			}
			got := mustDecide(t, r, Request{Key: key, Pin: pin})
			if got.Version != tt.during || (got.MigratedFrom == "v42") != tt.migrated {
				t.Errorf("pinned, at once: %+v", got)
			}
			mustSet(t, r, rollbackRoute(3, tt.policy)) // a restore that is repeated must not begin the deadline anew
			clock.advance(DefaultDrainDeadline)
			if got = mustDecide(t, r, Request{Key: key, Pin: pin}); got.Version != tt.after || got.MigratedFrom != "v42" {
				t.Errorf("pinned, after the deadline: %+v", got)
			}

			// The same canary tried again: who was taken back stays so.
			retry := canaryRoute(1, 1)
			retry.Owner = "canary/support-agent/run2"
			mustSet(t, r, retry)
			if got = mustDecide(t, r, Request{Key: key, Pin: pin}); got.Reason == ByPin {
				t.Errorf("pin woke up in the next rollout: %+v", got)
			}
		})
	}
}

func TestLeaseExpiryAndPins(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string][2]string{api.Evict: {"v41", "v41"}, api.Drain: {"v42", "v41"}, api.Kill: {"v41", "v41"}} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			r, clock := newTestRouter(t)
			route := canaryRoute(5000, 1)
			route.OnRollback = policy
			mustSet(t, r, route)
			key := keyFor(t, r, 0, 5000)
			d := mustDecide(t, r, Request{Key: key})
			pin := string(r.AppendPin(nil, &d))
			ended := false
			defer d.Streams().Add(func() { ended = true })()
			// The wall clock jumps; the lease must not care.
			clock.jumpWall(-10 * time.Hour)
			clock.advance(time.Minute - 1)
			r.Tick()
			if got := mustDecide(t, r, Request{Key: key, Pin: pin}); got.Version != "v42" || ended {
				t.Errorf("within the lease: %+v", got)
			}
			clock.advance(1)
			r.Tick()
			if got := mustDecide(t, r, Request{Key: key, Pin: pin}); got.Version != want[0] {
				t.Errorf("past the lease: %+v", got)
			}
			if ended != (policy == api.Kill) {
				t.Errorf("live stream ended: %t", ended)
			}
			clock.advance(DefaultDrainDeadline)
			if got := mustDecide(t, r, Request{Key: key, Pin: pin}); got.Version != want[1] {
				t.Errorf("past the drain: %+v", got)
			}
			mustSet(t, r, route) // renewed: who has not moved meanwhile is at home again
			if got := mustDecide(t, r, Request{Key: key, Pin: pin}); got.Version != "v42" || got.Reason != ByPin {
				t.Errorf("renewed: %+v", got)
			}
			ended = false
			defer d.Streams().Add(func() { ended = true })()
			if ended {
				t.Error("stream ended after the renewal")
			}
		})
	}
}

func TestStreamDecidedBeforeAKillIsEnded(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(10000, 1))
	d := mustDecide(t, r, Request{Key: "x"})
	mustSet(t, r, rollbackRoute(2, api.Kill))
	ended := false
	d.Streams().Add(func() { ended = true })()
	if !ended || d.Streams().Live() != 0 {
		t.Errorf("ended %t, live %d: want true, 0", ended, d.Streams().Live())
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	for hash, clock := range map[string]Clock{HashAviary: newFakeClock(), HashFlagd: nil} {
		o := testOptions(t, clock)
		a := o.Agents[agent]
		a.Hash, o.StickyMemory = hash, 10
		o.Agents = map[string]AgentOptions{agent: a}
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		mustSet(t, r, canaryRoute(5000, 1))
		key := keyFor(t, r, 0, 5000)
		d := mustDecide(t, r, Request{Key: key})
		r.Served(&d, "remembered")
		pin := string(r.AppendPin(nil, &d))
		forged := pin[:len(pin)-4] + "AAAA"
		requests := map[string]Request{"weight": {Key: key}, "override": {Override: "v40"}, "no key": {}, "memory": {Key: "remembered"}}
		if !underRace {
			requests["pin"], requests["forged pin"] = Request{Key: key, Pin: pin}, Request{Key: key, Pin: forged}
		}
		for name, q := range requests {
			if n := testing.AllocsPerRun(1000, func() {
				if _, err := r.Decide(agent, q); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%s, %s: %v allocations, want 0", hash, name, n)
			}
		}
		buf := make([]byte, 0, maxTokenLen)
		if n := testing.AllocsPerRun(1000, func() { buf = r.AppendPin(buf[:0], &d) }); n != 0 && !underRace {
			t.Errorf("AppendPin: %v allocations, want 0", n)
		}
	}
}

func TestDecideWhileRoutesChange(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	var group sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				d, err := r.Decide(agent, Request{Key: fmt.Sprintf("%d-%d", w, i)})
				if err != nil || (d.Version != "v41" && d.Version != "v42") {
					t.Errorf("%+v, %v", d, err)
					return
				}
				d.Streams().Add(func() {})()
			}
		})
	}
	for i := range 300 {
		mustSet(t, r, canaryRoute(i*30, int64(2*i)))
		mustSet(t, r, rollbackRoute(int64(2*i+1), api.Kill))
		r.Tick()
	}
	close(stop)
	group.Wait()
}
