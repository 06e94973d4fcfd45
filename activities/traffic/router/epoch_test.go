package router_test

import (
	"testing"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// TestAReplicaThatCameAfterARollback must refuse the pins which those that went through it refuse, however the driver learns of
// the epoch: from what it has seen itself, or, after a restart of the worker, from the other replicas.
func TestAReplicaThatCameAfterARollback(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"the driver remembers": false, "the worker was restarted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 3, "v42", "v43")
			d := f.driver(t)
			f.set(false, f.addresses(2)...)
			old := pinOf(t, f.gateways[0]) // on v41, the stable version of its day

			done := rollout.Route{Agent: "support", Stable: "v42", Owner: "first", Revision: 2, Promoted: true}
			if err := d.Apply(t.Context(), done); err != nil {
				t.Fatal(err)
			}
			second := rollout.Route{Agent: "support", Stable: "v42", Canary: "v43", Weight: 2500, Owner: "second", Revision: 1}
			if err := d.Apply(t.Context(), second); err != nil {
				t.Fatal(err)
			}
			if v := versionFor(t, f.gateways[0], old); v != "v41" {
				t.Fatalf("before the rollback the pin leads to %s, want v41", v)
			}
			back := second
			back.Revision, back.Weight, back.Rollback, back.OnRollback = 2, 0, true, rollout.Evict
			if err := d.Apply(t.Context(), back); err != nil {
				t.Fatal(err)
			}

			// The third has heard of the promotion, not of what came then.
			if _, err := f.gateways[2].router.SetRoute("support", api.Route{Stable: "v42", Owner: "first", Revision: 2, Promoted: true}); err != nil {
				t.Fatal(err)
			}
			if v := versionFor(t, f.gateways[2], old); v != "v41" {
				t.Fatalf("before it is told, the newcomer leads the pin to %s, want v41", v)
			}
			if f.set(false, f.addresses(3)...); restart {
				d = f.driver(t)
			}
			third := rollout.Route{Agent: "support", Stable: "v42", Canary: "v43", Weight: 1, Owner: "third", Revision: 1}
			if err := d.Apply(t.Context(), third); err != nil {
				t.Fatal(err)
			}
			for i, g := range f.gateways {
				o, err := g.router.Observed("support")
				if err != nil || o.Epoch != 1 || o.Weight != 1 || o.Owner != "third" {
					t.Errorf("gateway %d is at %+v, %v; want epoch 1", i, o, err)
				}
				if v := versionFor(t, g, old); v == "v41" {
					t.Errorf("gateway %d still honours the pin of before the rollback", i)
				}
			}
		})
	}
}

func pinOf(t *testing.T, g *gateway) string {
	t.Helper()
	d, err := g.router.Decide("support", router.Request{Key: "somebody"})
	if err != nil || d.Version != "v41" || !d.NewPin {
		t.Fatalf("decision %+v, %v; want a new pin on v41", d, err)
	}
	return string(g.router.AppendPin(nil, &d))
}

func versionFor(t *testing.T, g *gateway, pin string) string {
	t.Helper()
	d, err := g.router.Decide("support", router.Request{Key: "somebody", Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	return d.Version
}
