package router

import (
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// fleet are replicas of one gateway: they share the keys and hear of routes by a control plane alone.
type fleet struct {
	t        *testing.T
	replicas map[string]*Router
	clocks   map[string]*fakeClock
	pins     map[string]string
}

func newFleet(t *testing.T, names ...string) *fleet {
	f := &fleet{t: t, replicas: map[string]*Router{}, clocks: map[string]*fakeClock{}, pins: map[string]string{}}
	for _, name := range names {
		f.start(name)
	}
	return f
}

// start begins a replica that knows nothing, or begins it again.
func (f *fleet) start(name string) {
	f.replicas[name], f.clocks[name] = newTestRouter(f.t)
}

// put sets the route on the replicas named, with the epoch that the control plane has seen so far.
func (f *fleet) put(epoch uint64, route api.Route, names ...string) {
	f.t.Helper()
	route.Epoch = epoch
	for _, name := range names {
		mustSet(f.t, f.replicas[name], route)
	}
}

// begin pins a new conversation on a replica by overriding nothing: its key falls on the version wanted.
func (f *fleet) begin(pin, replica, version string) {
	f.t.Helper()
	r := f.replicas[replica]
	for i := range 100_000 {
		d := mustDecide(f.t, r, Request{Key: pin + string(rune('a'+i%26)) + time.Duration(i).String()})
		if d.Version == version {
			f.pins[pin] = string(r.AppendPin(nil, &d))
			return
		}
	}
	f.t.Fatalf("no conversation of replica %s begins on %s", replica, version)
}

// turn is the conversation's next turn on a replica. It notes a new pin, as a client does.
func (f *fleet) turn(pin, replica string) Decision {
	f.t.Helper()
	r := f.replicas[replica]
	d := mustDecide(f.t, r, Request{Key: pin, Pin: f.pins[pin]})
	if d.NewPin {
		f.pins[pin] = string(r.AppendPin(nil, &d))
	}
	return d
}

// stays and moves say what the pins' next turn must come to, on every replica named.
func (f *fleet) stays(version string, pins []string, replicas ...string) {
	f.t.Helper()
	for _, pin := range pins {
		for _, replica := range replicas {
			if d := mustDecide(f.t, f.replicas[replica], Request{Key: pin, Pin: f.pins[pin]}); d.Version != version || d.Reason != ByPin || d.MigratedFrom != "" {
				f.t.Errorf("pin %s on replica %s: %s by %s (from %q), want it to stay on %s", pin, replica, d.Version, d.Reason, d.MigratedFrom, version)
			}
		}
	}
}

func (f *fleet) moves(from string, pins []string, replicas ...string) {
	f.t.Helper()
	for _, pin := range pins {
		for _, replica := range replicas {
			d := mustDecide(f.t, f.replicas[replica], Request{Key: pin, Pin: f.pins[pin]})
			if d.Reason == ByPin || (d.Version != from && d.MigratedFrom != from) {
				f.t.Errorf("pin %s on replica %s: %s by %s (from %q), want it void on %s", pin, replica, d.Version, d.Reason, d.MigratedFrom, from)
			}
		}
	}
}

// run is a live route of a rollout from stable to canary.
func run(owner, stable, canary string, revision int64) api.Route {
	return api.Route{Stable: stable, Canary: canary, Weight: 5000, Owner: owner, Revision: revision, LeaseMillis: 60_000}
}

func taken(route api.Route, policy string) api.Route {
	route.Weight, route.Rollback, route.OnRollback = 0, true, policy
	route.Revision++
	return route
}

func promoted(route api.Route) api.Route {
	return api.Route{Stable: route.Canary, Owner: route.Owner, Revision: route.Revision + 1, Promoted: true}
}

func (f *fleet) epochs(want map[string]uint64) {
	f.t.Helper()
	for name, epoch := range want {
		o, err := f.replicas[name].Observed(agent)
		if err != nil || o.Epoch != epoch {
			f.t.Errorf("replica %s is at epoch %d (%v), want %d", name, o.Epoch, err, epoch)
		}
	}
}

func TestEpochs(t *testing.T) {
	t.Parallel()
	first, second, third := run("run1", "v41", "v42", 1), run("run2", "v42", "v43", 1), run("run3", "v41", "v42", 1)
	for name, play := range map[string]func(*fleet){
		"promotions void nothing": func(f *fleet) {
			f.begin("p41", "a", "v41")
			f.put(0, first, "a", "b")
			f.begin("p41 too", "b", "v41")
			f.begin("p42", "a", "v42")
			f.put(0, promoted(first), "a", "b")
			f.put(0, second, "a", "b")
			f.begin("p43", "a", "v43")
			f.stays("v41", []string{"p41", "p41 too"}, "a", "b")
			f.stays("v42", []string{"p42"}, "a", "b")
			f.put(0, promoted(second), "a", "b")
			f.stays("v41", []string{"p41", "p41 too"}, "a", "b")
			f.stays("v42", []string{"p42"}, "a", "b")
			f.stays("v43", []string{"p43"}, "a", "b")
			f.epochs(map[string]uint64{"a": 0, "b": 0})
		},
		"a rollback voids the canary's pins on every replica, for good": func(f *fleet) {
			f.put(0, first, "a", "b")
			f.begin("p41", "a", "v41")
			f.begin("p42", "b", "v42")
			f.put(0, taken(first, api.Evict), "a", "b")
			f.epochs(map[string]uint64{"a": 1, "b": 1})
			f.moves("v42", []string{"p42"}, "a", "b")
			f.put(1, taken(first, api.Evict), "a", "b") // a restore that is repeated is one event
			f.epochs(map[string]uint64{"a": 1, "b": 1})
			f.put(1, third, "a", "b") // the same canary again
			f.moves("v42", []string{"p42"}, "a", "b")
			f.begin("new p42", "a", "v42")
			f.stays("v42", []string{"new p42"}, "a", "b")
			f.stays("v41", []string{"p41"}, "a", "b")
			f.epochs(map[string]uint64{"a": 1, "b": 1})
		},
		"the same owner may come back after its rollback": func(f *fleet) {
			f.put(0, first, "a")
			f.begin("old", "a", "v42")
			f.put(0, taken(first, api.Evict), "a")
			again := first
			again.Revision = 9
			f.put(0, again, "a")
			f.moves("v42", []string{"old"}, "a")
			f.begin("new", "a", "v42")
			f.stays("v42", []string{"new"}, "a")
			other := run("other", "v41", "v42", 1)
			other.Weight = 0
			again.Weight, again.Revision = 0, 10
			f.put(0, again, "a")
			f.put(0, other, "a")
			again.Weight, again.Revision = 5000, 11
			f.put(0, again, "a")
			f.moves("v42", []string{"old", "new"}, "a")
		},
		"a replica that hears of its first rollback counts all that its siblings did": func(f *fleet) {
			f.put(4, first, "a")
			f.begin("p42", "a", "v42")
			f.put(5, taken(first, api.Evict), "b") // by now the control plane has seen a's new epoch
			again := first
			again.Revision = 9
			f.put(5, again, "b")
			f.moves("v42", []string{"p42"}, "b")
		},
		"a promotion taken back voids the pins of its time as stable": func(f *fleet) {
			f.put(0, first, "a")
			f.put(0, promoted(first), "a")
			f.begin("p42", "a", "v42")
			back := taken(first, api.Evict)
			back.Revision = 3
			f.put(0, back, "a")
			f.moves("v42", []string{"p42"}, "a")
			f.put(0, third, "a")
			f.moves("v42", []string{"p42"}, "a")
		},
		"a rollout left lying is void in the next one": func(f *fleet) {
			f.put(0, first, "a", "b")
			f.begin("p42", "a", "v42")
			f.clocks["a"].advance(time.Minute)
			f.clocks["b"].advance(time.Minute)
			next := run("run4", "v41", "v43", 1)
			f.put(0, next, "a", "b")
			f.moves("v42", []string{"p42"}, "a", "b")
			f.epochs(map[string]uint64{"a": 1, "b": 1})
		},
		"a retry that knows the sibling's new epoch counts once": func(f *fleet) {
			f.put(0, first, "a", "b")
			f.put(0, taken(first, api.Evict), "a")
			f.put(1, taken(first, api.Evict), "b")
			f.epochs(map[string]uint64{"a": 1, "b": 1})
		},
		"a replica that joins after rollbacks is told by a renewal": func(f *fleet) {
			f.put(0, first, "a")
			f.begin("p42", "a", "v42")
			f.put(0, taken(first, api.Evict), "a")
			f.start("b")
			f.put(1, run("run5", "v41", "v43", 1), "a")
			f.put(0, run("run5", "v41", "v43", 1), "b")
			f.begin("on a", "a", "v43")
			f.begin("on b", "b", "v43")
			f.epochs(map[string]uint64{"a": 1, "b": 0})
			f.stays("v43", []string{"on a", "on b"}, "a", "b")
			f.put(1, run("run5", "v41", "v43", 1), "a", "b")
			f.epochs(map[string]uint64{"a": 1, "b": 1})
			f.stays("v43", []string{"on a", "on b"}, "a", "b")
			f.moves("v42", []string{"p42"}, "a", "b")
			f.put(0, run("run5", "v41", "v43", 1), "b") // an epoch never falls
			f.epochs(map[string]uint64{"b": 1})
		},
		"a pin to stable is renewed so that a rollback long ago does not count": func(f *fleet) {
			f.begin("p41", "a", "v41")
			f.put(0, run("run6", "v41", "v43", 1), "a", "b")
			f.put(0, taken(run("run6", "v41", "v43", 1), api.Evict), "a", "b")
			if d := f.turn("p41", "a"); d.Reason != ByPin || !d.NewPin {
				f.t.Errorf("pin of before the rollback: %+v, want it renewed", d)
			}
			if d := f.turn("p41", "b"); d.Reason != ByPin || d.NewPin {
				f.t.Errorf("renewed pin: %+v, want it left alone", d)
			}
			f.put(1, third, "a", "b")
			f.put(1, promoted(third), "a", "b")
			f.stays("v41", []string{"p41"}, "a", "b")
		},
		"all replicas lose what they knew": func(f *fleet) {
			f.put(0, first, "a", "b")
			f.begin("voided", "a", "v42")
			f.put(0, taken(first, api.Evict), "a", "b")
			f.put(1, third, "a", "b")
			f.begin("p42", "b", "v42")
			f.begin("p41", "b", "v41")
			f.start("a")
			f.start("b")
			f.stays("v42", []string{"p42"}, "a", "b") // before the first renewal
			f.put(0, third, "a", "b")                 // the control plane has just the zeros to see
			f.stays("v42", []string{"p42"}, "a", "b")
			f.stays("v41", []string{"p41"}, "a", "b")
			f.moves("v42", []string{"voided"}, "a", "b") // of another rollout
			f.put(0, taken(third, api.Evict), "a", "b")
			f.moves("v42", []string{"p42", "voided"}, "a", "b")
			f.put(1, run("run7", "v41", "v42", 1), "a", "b")
			f.moves("v42", []string{"p42", "voided"}, "a", "b")
		},
		"a replica that nobody speaks to lets the canary go": func(f *fleet) {
			f.put(0, first, "a")
			f.begin("p42", "a", "v42")
			f.begin("p41", "a", "v41")
			f.put(0, promoted(first), "a") // p41 is now a pin to a version that was stable, p42 one to stable
			f.put(0, second, "a")
			f.begin("p43", "a", "v43")
			f.start("b")
			f.stays("v43", []string{"p43"}, "b")
			f.clocks["b"].advance(unheard)
			f.moves("v43", []string{"p43"}, "b")
			f.stays("v41", []string{"p41"}, "b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(newFleet(t, "a", "b"))
		})
	}
}

func TestDrainHoldsOnlyTheRolloutsOwnPins(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "a")
	first, again := run("run1", "v41", "v42", 1), run("run2", "v41", "v42", 1)
	f.put(0, first, "a")
	f.begin("of run1", "a", "v42")
	f.put(0, taken(first, api.Evict), "a")
	f.put(1, again, "a")
	f.begin("of run2", "a", "v42")
	f.clocks["a"].advance(DefaultPinTTL/2 + time.Second) // old enough to be renewed
	f.put(1, again, "a")
	f.put(1, taken(again, api.Drain), "a")
	f.moves("v42", []string{"of run1"}, "a")
	if d := f.turn("of run2", "a"); d.Version != "v42" || d.Reason != ByPin || !d.NewPin {
		t.Errorf("while it drains: %+v", d)
	}
	f.clocks["a"].advance(DefaultDrainDeadline)
	f.moves("v42", []string{"of run2"}, "a")
	f.put(2, run("run3", "v41", "v42", 1), "a")
	f.moves("v42", []string{"of run2"}, "a") // though renewed after the rollback
}

func TestDrainHoldsNoPinsOfAnEarlierRollback(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "a")
	route := run("run1", "v41", "v42", 1)
	f.put(0, route, "a")
	f.begin("before", "a", "v42")
	f.put(0, taken(route, api.Evict), "a")
	route.Revision = 3
	f.put(0, route, "a")
	f.begin("between", "a", "v42")
	f.put(0, taken(route, api.Drain), "a")
	f.moves("v42", []string{"before"}, "a")
	f.stays("v42", []string{"between"}, "a")
}

func TestCanaryThatWasStableKeepsItsConversations(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "a")
	f.begin("p41", "a", "v41")
	f.put(0, run("run1", "v41", "v42", 1), "a")
	f.put(0, promoted(run("run1", "v41", "v42", 1)), "a")
	back := run("run2", "v42", "v41", 1)
	back.Weight = 1
	f.put(0, back, "a")
	f.stays("v41", []string{"p41"}, "a")
	f.put(0, taken(back, api.Evict), "a")
	f.moves("v41", []string{"p41"}, "a")
}
