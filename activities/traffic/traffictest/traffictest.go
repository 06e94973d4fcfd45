// Package traffictest is the conformance suite of traffic drivers.
package traffictest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Plane is a fresh data plane under test. It knows one agent with two versions, all of whose traffic goes to Stable,
// and that the agent is not "nobody".
type Plane struct {
	Driver                traffic.Driver
	Agent, Stable, Canary string
	// Object is where the agent's weights are; nil: the plane goes by the agent's name.
	Object *rollout.Object
	// Fail makes one of several replicas unreachable, or reachable again, and returns how the driver names it. Nil: there is
	// nothing between the driver and a plane that is one.
	Fail func(down bool) (name string)
	// Join adds a replica that knows no route, and returns how the driver names it. Nil: none can come while the driver lives.
	Join func() (name string)
}

func (p Plane) route(owner string, revision int64, weight rollout.Weight) rollout.Route {
	return rollout.Route{
		Agent: p.Agent, Stable: p.Stable, Canary: p.Canary, Weight: weight, Owner: owner, Revision: revision,
		Lease: rollout.Duration(time.Hour), OnRollback: rollout.Evict, Object: p.Object,
	}
}

// Run runs the suite. Setup makes a fresh plane for one test and cleans it up.
func Run(t *testing.T, setup func(t *testing.T) Plane) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Plane){
		"what is applied is read":                applied,
		"the same again is fine":                 idempotent,
		"an older revision is refused":           olderRevision,
		"a second owner is refused":              secondOwner,
		"a rollout that was replaced is over":    replaced,
		"a restore takes all traffic back":       restore,
		"a promotion makes the canary stable":    promotion,
		"nonsense is rejected":                   nonsense,
		"the list says what read says":           list,
		"the lease takes traffic back":           lease,
		"the highest revision wins any race":     race,
		"a caller that is gone gets an error":    canceled,
		"capabilities are the same at any time":  capabilities,
		"a replica that is down is named alone":  oneDown,
		"a replica that comes is set by renewal": oneComes,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, setup(t))
		})
	}
}

func mustApply(t *testing.T, p Plane, r rollout.Route) {
	t.Helper()
	if err := p.Driver.Apply(t.Context(), r); err != nil {
		t.Fatalf("apply %+v: %v", r, err)
	}
}

func mustRead(t *testing.T, p Plane) traffic.Observed {
	t.Helper()
	o, err := p.Driver.Read(t.Context(), p.route("", 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantRead(t *testing.T, p Plane, want traffic.Observed) {
	t.Helper()
	if diff := cmp.Diff(want, mustRead(t, p), cmpopts.IgnoreFields(traffic.Observed{}, "Versions", "Object")); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

func wantLost(t *testing.T, err error, owner string, revision int64) {
	t.Helper()
	var lost *traffic.OwnershipLost
	if !errors.As(err, &lost) || lost.Owner != owner || lost.Revision != revision {
		t.Errorf("error %v, want *traffic.OwnershipLost to %s at %d", err, owner, revision)
	}
}

func wantRejected(t *testing.T, what string, err error) {
	t.Helper()
	var rejected *traffic.Rejected
	if !errors.As(err, &rejected) {
		t.Errorf("%s: error %v, want *traffic.Rejected", what, err)
	}
}

func applied(t *testing.T, p Plane) {
	before := mustRead(t, p)
	if before.Stable != p.Stable && before.Stable != "" || before.Weight != 0 || before.Effective != 0 {
		t.Errorf("a fresh plane reads %+v, want all traffic on %s", before, p.Stable)
	}
	if before.Versions != nil && (!slices.Contains(before.Versions, p.Canary) || !slices.Contains(before.Versions, p.Stable)) {
		t.Errorf("versions %v, want %s and %s among them", before.Versions, p.Stable, p.Canary)
	}
	step := p.Driver.Capabilities().Step
	for i, w := range []rollout.Weight{step, 5000, rollout.FullWeight - step, rollout.FullWeight} {
		mustApply(t, p, p.route("o", int64(i)+1, w))
		wantRead(t, p, traffic.Observed{
			Agent: p.Agent, Stable: p.Stable, Canary: p.Canary, Weight: w, Effective: w, Owner: "o", Revision: int64(i) + 1,
		})
	}
}

func idempotent(t *testing.T, p Plane) {
	for range 3 {
		mustApply(t, p, p.route("o", 7, 500))
	}
	wantRead(t, p, traffic.Observed{Agent: p.Agent, Stable: p.Stable, Canary: p.Canary, Weight: 500, Effective: 500, Owner: "o", Revision: 7})
}

func olderRevision(t *testing.T, p Plane) {
	mustApply(t, p, p.route("o", 5, 500))
	wantLost(t, p.Driver.Apply(t.Context(), p.route("o", 4, 2000)), "o", 5)
	if got := mustRead(t, p); got.Weight != 500 {
		t.Errorf("weight %s after a refused route, want 5%%", got.Weight)
	}
}

func secondOwner(t *testing.T, p Plane) {
	mustApply(t, p, p.route("first", 5, 500))
	wantLost(t, p.Driver.Apply(t.Context(), p.route("second", 9, 2000)), "first", 5)
	back := p.route("first", 6, 0)
	back.Rollback = true
	mustApply(t, p, back)
	mustApply(t, p, p.route("second", 1, 2000))
	wantLost(t, p.Driver.Apply(t.Context(), p.route("first", 7, 500)), "second", 1)
}

// replaced: what a rollout still had under way when the next one was promoted undoes nothing of it.
func replaced(t *testing.T, p Plane) {
	mustApply(t, p, p.route("first", 1, 500))
	back := p.route("first", 2, 0)
	back.Rollback = true
	mustApply(t, p, back)
	mustApply(t, p, p.route("second", 1, rollout.FullWeight))
	done := p.route("second", 2, 0)
	done.Stable, done.Canary, done.Promoted, done.Lease = p.Canary, "", true, 0
	mustApply(t, p, done)
	late := p.route("first", 9, 0)
	late.Rollback = true
	for what, r := range map[string]rollout.Route{"a late raise": p.route("first", 1, 500), "a late restore": late} {
		var lost *traffic.OwnershipLost
		var rejected *traffic.Rejected
		if err := p.Driver.Apply(t.Context(), r); !errors.As(err, &lost) && !errors.As(err, &rejected) {
			t.Errorf("%s: %v, want it refused", what, err)
		}
		if got := mustRead(t, p); got.Stable != p.Canary || got.Weight != 0 || got.Owner != "second" {
			t.Errorf("after %s: %+v", what, got)
		}
	}
}

func restore(t *testing.T, p Plane) {
	mustApply(t, p, p.route("o", 1, 2500))
	back := p.route("o", 2, 0)
	back.Rollback = true
	for range 2 {
		mustApply(t, p, back)
		got := mustRead(t, p)
		if got.Weight != 0 || got.Effective != 0 || got.Stable != p.Stable || got.Revision != 2 || len(got.Lagging) > 0 {
			t.Errorf("after a restore: %+v", got)
		}
	}
	wantLost(t, p.Driver.Apply(t.Context(), p.route("o", 1, 2500)), "o", 2)
}

func promotion(t *testing.T, p Plane) {
	mustApply(t, p, p.route("o", 1, rollout.FullWeight))
	done := p.route("o", 2, 0)
	done.Stable, done.Canary, done.Promoted, done.Lease = p.Canary, "", true, 0
	for range 2 {
		mustApply(t, p, done)
	}
	wantRead(t, p, traffic.Observed{Agent: p.Agent, Stable: p.Canary, Owner: "o", Revision: 2})
}

const unheardOf = "v-unheard-of"

func nonsense(t *testing.T, p Plane) {
	for what, change := range map[string]func(*rollout.Route){
		"unknown agent":      func(r *rollout.Route) { r.Agent = "nobody" },
		"unknown canary":     func(r *rollout.Route) { r.Canary = unheardOf },
		"agent with a slash": func(r *rollout.Route) { r.Agent = "../" + r.Agent },
		"no stable":          func(r *rollout.Route) { r.Stable = "" },
		"negative weight":    func(r *rollout.Route) { r.Weight = -1 },
		"weight above all":   func(r *rollout.Route) { r.Weight = rollout.FullWeight + 1 },
		"weight for nobody":  func(r *rollout.Route) { r.Canary = "" },
		"negative lease":     func(r *rollout.Route) { r.Lease = -1 },
	} {
		r := p.route("o", 1, 500)
		change(&r)
		if r.Canary == unheardOf && mustRead(t, p).Versions == nil {
			continue // a plane that goes by destinations knows no versions
		}
		wantRejected(t, what, p.Driver.Apply(t.Context(), r))
	}
	if step := p.Driver.Capabilities().Step; step > 1 {
		wantRejected(t, "a weight too fine", p.Driver.Apply(t.Context(), p.route("o", 1, step+1)))
	}
	for _, agent := range []string{"nobody", "", "../" + p.Agent} {
		r := p.route("", 0, 0)
		r.Agent = agent
		_, err := p.Driver.Read(t.Context(), r)
		wantRejected(t, "read "+agent, err)
	}
	if got := mustRead(t, p); got.Weight != 0 {
		t.Errorf("weight %s after nothing but nonsense, want 0%%", got.Weight)
	}
}

func list(t *testing.T, p Plane) {
	mustApply(t, p, p.route("o", 1, 500))
	want := mustRead(t, p)
	all, err := p.Driver.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range all {
		if got.Agent == p.Agent {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("list against read (-read +list):\n%s", diff)
			}
			return
		}
	}
	t.Errorf("no %s in %+v", p.Agent, all)
}

func lease(t *testing.T, p Plane) {
	if !p.Driver.Capabilities().Lease {
		return // this plane leaves leases to a guard beside it
	}
	route := p.route("o", 1, 500)
	mustApply(t, p, route)
	route.Revision, route.Lease = 2, rollout.Duration(300*time.Millisecond)
	mustApply(t, p, route)
	deadline := time.Now().Add(10 * time.Second)
	got := mustRead(t, p)
	for got.Effective != 0 && time.Now().Before(deadline) {
		got = mustRead(t, p)
	}
	if got.Effective != 0 || !got.LeaseExpired || got.Weight != 500 {
		t.Fatalf("%+v, want the weight set and nothing in force", got)
	}
	mustApply(t, p, route) // a renewal
	// A lease that ran out leaves the agent to others.
	for mustRead(t, p).Effective != 0 && time.Now().Before(deadline) {
	}
	mustApply(t, p, p.route("other", 1, 100))
}

func race(t *testing.T, p Plane) {
	const revisions = 20
	var wg sync.WaitGroup
	for i := range revisions {
		wg.Go(func() {
			err := p.Driver.Apply(t.Context(), p.route("o", int64(i)+1, rollout.Weight(i+1)*100))
			var lost *traffic.OwnershipLost
			if err != nil && !errors.As(err, &lost) {
				t.Errorf("revision %d: %v, want it applied or *traffic.OwnershipLost", i+1, err)
			}
		})
	}
	wg.Wait()
	wantRead(t, p, traffic.Observed{
		Agent: p.Agent, Stable: p.Stable, Canary: p.Canary, Weight: revisions * 100, Effective: revisions * 100, Owner: "o", Revision: revisions,
	})
}

func oneDown(t *testing.T, p Plane) {
	if p.Fail == nil {
		return
	}
	mustApply(t, p, p.route("o", 1, 2500))
	name := p.Fail(true)
	back := p.route("o", 2, 0)
	back.Rollback = true
	wantPassing(t, p.Driver.Apply(t.Context(), back), name)
	got := mustRead(t, p)
	if got.Revision != 2 || got.Weight != 0 || !slices.Equal(got.Lagging, []string{name}) {
		t.Errorf("read %+v, want the others taken back, and %s named", got, name)
	}
	p.Fail(false)
	if got := mustRead(t, p); got.Weight != 2500 || !slices.Equal(got.Lagging, []string{name}) {
		t.Errorf("read %+v, want it to tell of the weight on %s", got, name)
	}
	mustApply(t, p, back)
	if got := mustRead(t, p); got.Weight != 0 || len(got.Lagging) > 0 {
		t.Errorf("read %+v after the next try, want nobody behind", got)
	}
}

// wantPassing wants a fault after which the caller tries again, and which names the replica.
func wantPassing(t *testing.T, err error, name string) {
	t.Helper()
	var lost *traffic.OwnershipLost
	var rejected *traffic.Rejected
	if err == nil || errors.As(err, &lost) || errors.As(err, &rejected) || !strings.Contains(err.Error(), name) {
		t.Errorf("error %v, want a passing fault that names %s", err, name)
	}
}

func oneComes(t *testing.T, p Plane) {
	if p.Join == nil {
		return
	}
	route := p.route("o", 1, 2500)
	mustApply(t, p, route)
	name := p.Join()
	if got := mustRead(t, p); !slices.Equal(got.Lagging, []string{name}) {
		t.Errorf("read %+v, want %s named", got, name)
	}
	mustApply(t, p, route)
	wantRead(t, p, traffic.Observed{Agent: p.Agent, Stable: p.Stable, Canary: p.Canary, Weight: 2500, Effective: 2500, Owner: "o", Revision: 1})
}

func canceled(t *testing.T, p Plane) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Driver.Apply(ctx, p.route("o", 1, 500)); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: error %v, want %v", err, context.Canceled)
	}
	if _, err := p.Driver.Read(ctx, p.route("", 0, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: error %v, want %v", err, context.Canceled)
	}
	if _, err := p.Driver.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("list: error %v, want %v", err, context.Canceled)
	}
}

func capabilities(t *testing.T, p Plane) {
	before := p.Driver.Capabilities()
	if before.Step < 1 || rollout.FullWeight%before.Step != 0 || before.Sticky == "" {
		t.Errorf("capabilities %+v, want a step that divides the full weight, and what a choice sticks to", before)
	}
	mustApply(t, p, p.route("o", 1, 5000))
	if after := p.Driver.Capabilities(); after != before {
		t.Errorf("capabilities changed from %+v to %+v", before, after)
	}
}
