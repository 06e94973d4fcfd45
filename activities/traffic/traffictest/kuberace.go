//go:build k8s

package traffictest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/rollout"
)

// writers are two workers of one rollout and two strangers who count in places of their own, all at once: nobody's last word
// may be lost.
func writers(t *testing.T, p kubePlane) {
	const rounds = 60
	mustApply(t, p.Plane, p.route("o", 1, 100))
	ctx := t.Context()
	var all sync.WaitGroup
	for worker := range int64(2) {
		all.Go(func() {
			for i := range int64(rounds) {
				revision := 2*i + worker + 2
				err := p.Driver.Apply(ctx, p.route("o", revision, rollout.Weight(revision%50+1)*100))
				var lost *traffic.OwnershipLost
				if err != nil && !errors.As(err, &lost) {
					t.Errorf("revision %d: %v", revision, err)
				}
			}
		})
	}
	for _, manager := range []string{"counter", "tester"} {
		all.Go(func() {
			for range rounds {
				if err := p.edit(ctx, manager, func(o *unstructured.Unstructured) { p.count(o, manager) }); err != nil {
					t.Errorf("%s: %v", manager, err)
				}
			}
		})
	}
	all.Wait()
	o := p.object(t)
	if got := o.GetAnnotations()["counter"]; got != strconv.Itoa(rounds) {
		t.Errorf("the counter counted to %s, want %d", got, rounds)
	}
	if got := o.GetAnnotations()["tester"]; got != strconv.Itoa(rounds) {
		t.Errorf("the tester counted to %s, want %d", got, rounds)
	}
	const last = 2*rounds + 1
	if got := mustRead(t, p.Plane); got.Revision != last || got.Weight != rollout.Weight(last%50+1)*100 {
		t.Errorf("%+v, want revision %d and its weight", got, last)
	}
	if got := p.testers(o); !strings.Contains(got, "x-canary") {
		t.Errorf("the testers' rule is %s, want it to match x-canary", got)
	}
}

func (p kubePlane) count(o *unstructured.Unstructured, key string) {
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	n, _ := strconv.Atoi(annotations[key])
	annotations[key] = strconv.Itoa(n + 1)
	o.SetAnnotations(annotations)
}

// thousand sets weights a thousand times, and tells how long that takes.
func thousand(t *testing.T, p kubePlane) {
	before := p.testers(p.object(t))
	var took []time.Duration
	for i := range int64(1000) {
		r := p.route("o", i+1, rollout.Weight(i%50+1)*100)
		if i%2 == 1 {
			r.Weight, r.Rollback = 0, true
		}
		began := time.Now()
		mustApply(t, p.Plane, r)
		if r.Rollback {
			took = append(took, time.Since(began))
		}
	}
	if after := p.testers(p.object(t)); after != before {
		t.Errorf("the testers' rule is %s, want %s", after, before)
	}
	slices.Sort(took)
	t.Logf("Apply of weight 0: p50 %s, p95 %s of %d", took[len(took)/2], took[len(took)*95/100], len(took))
}

func leases(t *testing.T, p kubePlane) {
	r := p.route("o", 1, 500)
	r.Lease = rollout.Duration(90*time.Second + time.Millisecond)
	mustApply(t, p.Plane, r)
	first := oneLease(t, p)
	if first.Agent != "bot" || first.Owner != "o" || first.Revision != 1 || first.TTL != 91*time.Second {
		t.Errorf("lease %+v, want bot's, of o at 1, for 91s", first)
	}
	mustApply(t, p.Plane, r)
	second := oneLease(t, p)
	if second.Renewal == first.Renewal {
		t.Errorf("renewal %q before and after one, want it to change", first.Renewal)
	}
	mustExpire(t, p, first)
	p.wantWeights(t, p.dialect.Total/20) // it was renewed since
	for range 2 {
		mustExpire(t, p, second)
		p.wantWeights(t, 0)
	}
	if got := mustRead(t, p.Plane); !got.LeaseExpired || got.Weight != 500 || got.Effective != 0 || got.ChangedBy != "" {
		t.Errorf("%+v, want the lease run out", got)
	}
	if all, err := p.leased.Leases(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("leases %+v, %v, want none: nothing is left to take back", all, err)
	}
	mustApply(t, p.Plane, r)
	p.wantWeights(t, p.dialect.Total/20)
	if got := mustRead(t, p.Plane); got.LeaseExpired || got.Effective != 500 {
		t.Errorf("%+v, want the canary back", got)
	}
	// A tool that has removed the annotations does not keep the guard from its work.
	p.mustEdit(t, "replacer", func(o *unstructured.Unstructured) { o.SetAnnotations(nil); o.SetLabels(nil) })
	mustExpire(t, p, oneLease(t, p))
	p.wantWeights(t, 0)
	back := p.route("o", 2, 0)
	back.Rollback = true
	mustApply(t, p.Plane, back)
	if all, err := p.leased.Leases(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("leases %+v, %v, want none after a restore", all, err)
	}
	wantLost(t, p.Driver.Apply(t.Context(), r), "o", 2)
}

// othersLease: whoever may not set the route renews no lease, and a restore that is tried again lets go of no lease but its own.
func othersLease(t *testing.T, p kubePlane) {
	objects := p.leaseObjects()
	lease := func() *unstructured.Unstructured {
		t.Helper()
		all, err := objects.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(all.Items) != 1 {
			t.Fatalf("%d leases, %v, want one", len(all.Items), err)
		}
		return &all.Items[0]
	}
	mustApply(t, p.Plane, p.route("o", 2, 500))
	before := lease().GetResourceVersion()
	wantLost(t, p.Driver.Apply(t.Context(), p.route("o", 1, 500)), "o", 2)
	if lease().GetResourceVersion() != before {
		t.Error("an older revision renewed the lease")
	}
	// A hand that gives the route to another agent in the middle of a rollout does not keep the guard from its work.
	label := func(agent string) {
		p.mustEdit(t, "hand", func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"aviary.dev/agent": agent}) })
	}
	label("another")
	mustExpire(t, p, oneLease(t, p))
	p.wantWeights(t, 0)
	label("bot")
	back := p.route("o", 3, 0)
	back.Rollback = true
	mustApply(t, p.Plane, back)
	next := lease() // of the next rollout, which has not come to the weights yet
	marks := next.GetAnnotations()
	marks["aviary.dev/owner"], marks["aviary.dev/revision"] = "next", "1"
	next.SetAnnotations(marks)
	next.Object["spec"] = map[string]any{"holderIdentity": "next", "leaseDurationSeconds": int64(60)}
	if _, err := objects.Update(t.Context(), next, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	mustApply(t, p.Plane, back)
	if holder, _, _ := unstructured.NestedString(lease().Object, "spec", "holderIdentity"); holder != "next" {
		t.Errorf("the lease of the next rollout is held by %q after a late restore", holder)
	}
}

// someLeases: what can't be read, or hangs, hides nothing else from the guard.
func someLeases(t *testing.T, p kubePlane) {
	// Outside its namespaces the guard would not see a canary, so none comes there.
	elsewhere := p.route("o", 1, 500)
	outside := *elsewhere.Object
	outside.Namespace = "default"
	elsewhere.Object = &outside
	wantRefused(t, p.Driver.Apply(t.Context(), elsewhere), `namespace "default" is none of the target's`, p.namespace)
	_, err := p.Driver.Read(t.Context(), elsewhere)
	wantRefused(t, err, `namespace "default"`)
	mustApply(t, p.Plane, p.route("o", 1, 500))
	both, err := p.dialect.Open(kube.Settings{Kubeconfig: kubeconfig(t, p.proxy.url), Namespaces: []string{"out-of-reach", p.namespace}})
	if err != nil {
		t.Fatal(err)
	}
	p.proxy.with(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/namespaces/out-of-reach/") && refuse(w, r)
	})
	all, err := both.Leases(t.Context())
	if err == nil || !strings.Contains(err.Error(), "out-of-reach") || len(all) != 1 {
		t.Errorf("leases %+v, %v; want the other namespace's, and an error that names this one", all, err)
	}
	p.proxy.with(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/"+p.dialect.Resource.Resource+"/") {
			<-r.Context().Done()
			return true
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if all, err := p.leased.Leases(ctx); err != nil || len(all) != 1 {
		t.Errorf("leases %+v, %v; want one whose object can't be read to be told of all the same", all, err)
	}
	p.proxy.with(nil)
}

func oneLease(t *testing.T, p kubePlane) traffic.Lease {
	t.Helper()
	all, err := p.leased.Leases(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("leases %+v, %v, want one", all, err)
	}
	return all[0]
}

func mustExpire(t *testing.T, p kubePlane, l traffic.Lease) {
	t.Helper()
	if err := p.leased.Expire(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

// may gives a user a right in the plane's namespace.
func (p kubePlane) may(t *testing.T, user, group, resource string, verbs ...any) {
	t.Helper()
	kinds := schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1"}
	create := func(plural string, o map[string]any) {
		kinds.Resource = plural
		o["apiVersion"], o["metadata"] = "rbac.authorization.k8s.io/v1", map[string]any{"name": "reader", "namespace": p.namespace}
		if _, err := p.admin.Resource(kinds).Namespace(p.namespace).Create(context.Background(), &unstructured.Unstructured{Object: o}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create("roles", map[string]any{"kind": "Role", "rules": []any{
		map[string]any{"apiGroups": []any{group}, "resources": []any{resource}, "verbs": verbs},
	}})
	create("rolebindings", map[string]any{
		"kind": "RoleBinding", "roleRef": map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
		"subjects": []any{map[string]any{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}},
	})
}
