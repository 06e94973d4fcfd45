//go:build k8s

package traffictest

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/guard"
	"github.com/aviary-rollouts/aviary/rollout"
)

// RunKube runs the suite, with a guard beside the driver, and what only planes on Kubernetes can be asked. Config is an
// administrator's; the API server has the dialect's kinds.
func RunKube(t *testing.T, config *rest.Config, d KubeDialect) {
	t.Helper()
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		Run(t, func(t *testing.T) Plane {
			p := newKubePlane(t, config, d)
			p.guarded(t)
			return p.Plane
		})
	})
	for name, test := range map[string]func(*testing.T, kubePlane){
		"nothing is written twice":                  unchanged,
		"the two destinations take turns":           turns,
		"a rule that is not as it must be is named": unfit,
		"a rule that broke later is asked for":      broke,
		"weights of nobody are put back":            allZero,
		"weights set by hand are taken over":        takenOver,
		"drift names who did it":                    drift,
		"a forced apply is put back":                forced,
		"roles outlive their annotations":           forgetful,
		"a rule that moved is found again":          movedRule,
		"every failed test is decided anew":         failedTests,
		"a refusal of the API server is final":      refusal,
		"an object made anew is another":            anew,
		"no right is named":                         forbidden,
		"the API server goes and comes":             gone,
		"a pause that is asked for is passed on":    pauseAsked,
		"another agent's object is left alone":      othersObject,
		"racing writers lose no update":             writers,
		"leases tell, and expire once":              leases,
		"a lease is its owner's":                    othersLease,
		"some leases are better than none":          someLeases,
		"a thousand patches leave testers alone":    thousand,
		"an older version of the API will do":       olderAPI,
		"acceptance is waited for":                  acceptance,
		"a look before a rollout tells what lacks":  inspected,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newKubePlane(t, config, d))
		})
	}
}

// guarded runs a guard of the plane until the test ends.
func (p kubePlane) guarded(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	g := guard.New(map[string]traffic.Leased{"it": p.leased}, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
}

func wantFault(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		wantPassing(t, err, part)
	}
}

func wantRefused(t *testing.T, err error, parts ...string) {
	t.Helper()
	wantRejected(t, "a refusal", err)
	for _, part := range parts {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want %q in it", err, part)
		}
	}
}

func unchanged(t *testing.T, p kubePlane) {
	r := p.route("o", 3, 500)
	mustApply(t, p.Plane, r)
	before := p.object(t).GetResourceVersion()
	p.proxy.counted(http.MethodGet)
	for range 5 {
		mustApply(t, p.Plane, r)
	}
	if after := p.object(t).GetResourceVersion(); after != before {
		t.Errorf("resource version %s after renewals, want %s", after, before)
	}
	back := p.route("o", 4, 0)
	back.Rollback = true
	mustApply(t, p.Plane, back)
	before = p.object(t).GetResourceVersion()
	mustApply(t, p.Plane, back)
	if after := p.object(t).GetResourceVersion(); after != before {
		t.Errorf("resource version %s after a second restore, want %s", after, before)
	}
	p.proxy.counted(http.MethodGet)
	mustApply(t, p.Plane, p.route("o", 5, 500))
	p.proxy.counted(http.MethodGet)
	mustApply(t, p.Plane, p.route("o", 5, 500)) // a renewal: the lease patched, the route read
	if n := p.proxy.counted(http.MethodPatch); n > 1 {
		t.Errorf("%d patches for a renewal, want 1", n)
	}
}

// turns promotes v2, v3 and v4 by one rollout file, and rolls v5 back.
func turns(t *testing.T, p kubePlane) {
	d := p.dialect.Total
	stable, revision := "v1", int64(0)
	for i, canary := range []string{"v2", "v3", "v4"} {
		owner := "rollout of " + canary
		r := p.route(owner, revision+1, rollout.FullWeight)
		r.Stable, r.Canary = stable, canary
		mustApply(t, p.Plane, r)
		done := p.route(owner, revision+2, 0)
		done.Stable, done.Canary, done.Promoted, done.Lease = canary, "", true, 0
		mustApply(t, p.Plane, done)
		want := [2]int64{0, d} // v2 runs on bot-b
		if i%2 == 1 {
			want = [2]int64{d, 0}
		}
		if got := p.weights(p.object(t)); got != want {
			t.Fatalf("weights %v after the promotion of %s, want %v", got, canary, want)
		}
		stable, revision = canary, 0
	}
	r := p.route("rollout of v5", 1, 500)
	r.Stable, r.Canary = "v4", "v5"
	if r.Weight%p.Driver.Capabilities().Step != 0 {
		t.Fatal("want a weight that the plane can set")
	}
	mustApply(t, p.Plane, r)
	if got, want := p.weights(p.object(t)), [2]int64{d / 20, d - d/20}; got != want {
		t.Errorf("weights %v with v5 at 5%%, want %v", got, want)
	}
	all, err := p.Driver.List(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("list %+v, %v, want one", all, err)
	}
	// What the sweep restores by, without the rollout file.
	back := rollout.Route{
		Agent: "bot", Stable: all[0].Stable, Canary: all[0].Canary, Owner: all[0].Owner, Revision: all[0].Revision + 1,
		Rollback: true, Object: all[0].Object,
	}
	mustApply(t, p.Plane, back)
	if got, want := p.weights(p.object(t)), [2]int64{0, d}; got != want {
		t.Errorf("weights %v after the rollback of v5, want %v", got, want)
	}
}

// unfits are rules that no rollout can work with.
func (p kubePlane) unfits() map[string]func(o *unstructured.Unstructured) {
	name := func(from, to string) func(o *unstructured.Unstructured) {
		return func(o *unstructured.Unstructured) {
			rules := p.rules(o)
			for _, r := range rules {
				if rule := r.(map[string]any); rule["name"] == from {
					rule["name"] = to
				}
			}
			p.setRules(o, rules)
		}
	}
	list := func(change func(to []any) []any) func(o *unstructured.Unstructured) {
		return p.weighted(func(rule map[string]any) { rule[p.dialect.Destinations] = change(rule[p.dialect.Destinations].([]any)) })
	}
	return map[string]func(o *unstructured.Unstructured){
		`no`:           name("weighted", "other"),
		`want two`:     list(func(to []any) []any { return to[:1] }),
		`it goes to`:   list(func(to []any) []any { return []any{to[0], to[0]} }),
		`, bot-b, bot`: list(func(to []any) []any { return append(to, to[0]) }),
	}
}

func unfit(t *testing.T, p kubePlane) {
	good := p.object(t)
	for part, change := range p.unfits() {
		p.mustEdit(t, "somebody", change)
		_, err := p.Driver.Read(t.Context(), p.route("", 0, 0))
		wantRefused(t, err, part, p.namespace+"/bot", `"weighted"`)
		wantRefused(t, p.Driver.Apply(t.Context(), p.route("o", 1, 500)), part)
		p.mustEdit(t, "somebody", func(o *unstructured.Unstructured) { p.setRules(o, p.rules(good)) })
	}
	// A doubled name: Istio's and the Gateway API's own checks may be asleep, as theirs is a webhook.
	err := p.edit(t.Context(), "somebody", func(o *unstructured.Unstructured) {
		rules := p.rules(o)
		p.setRules(o, append(rules, rules[len(rules)-1]))
	})
	if err == nil {
		_, err = p.Driver.Read(t.Context(), p.route("", 0, 0))
		wantRefused(t, err, `two`, `"weighted"`)
	} else if !strings.Contains(err.Error(), "unique") {
		t.Errorf("a doubled rule: %v, want it taken or refused for its name", err)
	}
	other := p.route("", 0, 0)
	o := *other.Object
	o.Canary.Host, other.Object = "bot-c", &o
	_, err = p.Driver.Read(t.Context(), other)
	wantRejected(t, "a destination that is not there", err)
	o.Canary.Host, o.Name = "bot-b", "nothing"
	_, err = p.Driver.Read(t.Context(), other)
	wantRefused(t, err, "nothing does not exist")
	o.Name, o.Kind = "bot", "Deployment"
	_, err = p.Driver.Read(t.Context(), other)
	wantRefused(t, err, "Deployment")
	other.Object = nil
	_, err = p.Driver.Read(t.Context(), other)
	wantRefused(t, err, "traffic.object")
}

func broke(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	good := p.object(t)
	for part, change := range p.unfits() {
		p.mustEdit(t, "somebody", change)
		_, err := p.Driver.Read(t.Context(), p.route("", 0, 0))
		wantFault(t, err, part)
		back := p.route("o", 2, 0)
		back.Rollback = true
		wantRefused(t, p.Driver.Apply(t.Context(), back), part)
		p.mustEdit(t, "somebody", func(o *unstructured.Unstructured) { p.setRules(o, p.rules(good)) })
	}
	mustApply(t, p.Plane, p.route("o", 3, 500))
	p.wantWeights(t, p.dialect.Total/20)
}

func allZero(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.mustEdit(t, "somebody", p.setWeights(0, 0))
	_, err := p.Driver.Read(t.Context(), p.route("", 0, 0))
	wantFault(t, err, "no destination has any weight", "by somebody (Update) at ")
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.wantWeights(t, p.dialect.Total/20)
}

func drift(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.mustEdit(t, "kubectl-edit", p.setWeights(p.dialect.Total/2, p.dialect.Total/2))
	got := mustRead(t, p.Plane)
	if got.Weight != 5000 || got.Effective != 5000 || !strings.HasPrefix(got.ChangedBy, "kubectl-edit (Update) at ") || got.Owner != "o" {
		t.Errorf("%+v, want 50%% by kubectl-edit", got)
	}
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.wantWeights(t, p.dialect.Total/20)
	if got := mustRead(t, p.Plane); got.ChangedBy != "" {
		t.Errorf("changed by %q after it was put back, want nobody", got.ChangedBy)
	}
}

// forced is a GitOps tool that applies what stands in git, weights and all.
func forced(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	git := p.dialect.Object(p.namespace)
	git.SetNamespace(p.namespace)
	git.SetName("bot")
	for round := range 3 {
		if _, err := p.objects().Apply(t.Context(), "bot", git, metav1.ApplyOptions{FieldManager: "argocd-controller", Force: true}); err != nil {
			t.Fatal(err)
		}
		got := mustRead(t, p.Plane)
		if got.Weight != 0 || !strings.HasPrefix(got.ChangedBy, "argocd-controller (Apply) at ") || got.Owner != "o" || got.LeaseExpired {
			t.Fatalf("round %d: %+v, want 0%% by argocd-controller", round, got)
		}
		mustApply(t, p.Plane, p.route("o", 1, 500))
		p.wantWeights(t, p.dialect.Total/20)
	}
	if got, want := p.testers(p.object(t)), p.testers(git); got == "" || len(got) < len(want) {
		t.Errorf("the testers' rule is %s, want %s", got, want)
	}
}

// forgetful is a tool that replaces objects, annotations and all.
func forgetful(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, rollout.FullWeight))
	done := p.route("o", 2, 0)
	done.Stable, done.Canary, done.Promoted = "v2", "", true
	mustApply(t, p.Plane, done)
	p.mustEdit(t, "replacer", func(o *unstructured.Unstructured) {
		o.SetAnnotations(nil)
		o.SetLabels(nil)
	})
	if got := mustRead(t, p.Plane); got.Stable != "v2" || got.Weight != 0 || got.Object.Stable.Host != "bot-b" {
		t.Errorf("%+v on %+v, want v2 on bot-b", got, got.Object)
	}
	r := p.route("next", 1, 500)
	r.Stable, r.Canary = "v2", "v3"
	mustApply(t, p.Plane, r)
	if got, want := p.weights(p.object(t)), [2]int64{p.dialect.Total / 20, p.dialect.Total - p.dialect.Total/20}; got != want {
		t.Errorf("weights %v, want %v: v3 comes to where v1 was", got, want)
	}
	p.mustEdit(t, "replacer", func(o *unstructured.Unstructured) {
		o.SetAnnotations(map[string]string{"team": "agents"})
		p.setWeights(p.dialect.Total, 0)(o)
	})
	got := mustRead(t, p.Plane)
	if got.Owner != "next" || got.Weight != rollout.FullWeight || !strings.HasPrefix(got.ChangedBy, "replacer") {
		t.Errorf("%+v, want all of it on the canary by replacer", got)
	}
	mustApply(t, p.Plane, r)
	if o := p.object(t); o.GetAnnotations()["team"] != "agents" {
		t.Errorf("annotations %v, want the team's kept", o.GetAnnotations())
	}
}

func movedRule(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.proxy.once(http.MethodPatch, "/"+p.dialect.Resource.Resource+"/", func() {
		p.mustEdit(t, "somebody", func(o *unstructured.Unstructured) {
			rules := p.rules(o)
			slices.Reverse(rules)
			p.setRules(o, rules)
		})
	})
	before := p.testers(p.object(t))
	mustApply(t, p.Plane, p.route("o", 2, 2000))
	p.wantWeights(t, p.dialect.Total/5)
	if after := p.testers(p.object(t)); after != before {
		t.Errorf("the testers' rule is %s, want %s", after, before)
	}
}

// failedTests changes each thing that a patch tests for between the driver's look and its patch.
func failedTests(t *testing.T, p kubePlane) {
	between := func(act func()) { p.proxy.once(http.MethodPatch, "/"+p.dialect.Resource.Resource+"/", act) }
	revision := int64(1)
	next := func(weight rollout.Weight) rollout.Route {
		revision++
		return p.route("o", revision, weight)
	}
	between(func() {
		p.mustEdit(t, "somebody", func(o *unstructured.Unstructured) { o.SetAnnotations(map[string]string{"x": "y"}) })
	})
	mustApply(t, p.Plane, next(500)) // the resource version, as there are no annotations yet
	if got := p.object(t).GetAnnotations()["x"]; got != "y" {
		t.Errorf("annotation x is %q, want somebody's y kept", got)
	}
	between(func() { p.mustEdit(t, "somebody", p.setWeights(p.dialect.Total/2, p.dialect.Total/2)) })
	mustApply(t, p.Plane, next(1000)) // the weights
	p.wantWeights(t, p.dialect.Total/10)
	between(func() { p.mustEdit(t, "somebody", p.setWeights(p.dialect.Total*4/5, p.dialect.Total/5)) })
	mustApply(t, p.Plane, next(2000)) // they are already as wanted
	p.wantWeights(t, p.dialect.Total/5)
	between(func() {
		p.mustEdit(t, "somebody", p.weighted(func(rule map[string]any) { slices.Reverse(rule[p.dialect.Destinations].([]any)) }))
	})
	before := p.object(t).GetGeneration()
	mustApply(t, p.Plane, next(3000)) // the destinations, by their order
	if n := p.object(t).GetGeneration() - before; n != 2 {
		t.Errorf("%d changes, want somebody's and one that is right at once", n)
	}
	if got, want := p.weights(p.object(t)), [2]int64{p.dialect.Total * 3 / 10, p.dialect.Total * 7 / 10}; got != want {
		t.Errorf("weights %v with the destinations the other way round, want %v", got, want)
	}
	between(func() { mustApply(t, p.Plane, p.route("o", revision+1, 3000)) })
	wantLost(t, p.Driver.Apply(t.Context(), next(4000)), "o", revision+1) // the revision
}
