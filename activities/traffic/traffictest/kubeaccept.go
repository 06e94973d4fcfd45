//go:build k8s

package traffictest

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aviary-rollouts/aviary/internal/kube"
)

// olderAPI is a server that does not have the best version of the API yet.
func olderAPI(t *testing.T, p kubePlane) {
	if p.dialect.Older == "" {
		return
	}
	best := "/apis/" + p.dialect.Resource.Group + "/" + p.dialect.Resource.Version + "/"
	var asked atomic.Int64
	p.proxy.with(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, best) {
			return false
		}
		asked.Add(1)
		http.Error(w, "404 page not found", http.StatusNotFound) // as a real one answers for a version that it does not serve
		return true
	})
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.wantWeights(t, p.dialect.Total/20)
	if n := asked.Load(); n != 1 {
		t.Errorf("the best version was asked for %d times, want once", n)
	}
	other := p.route("o", 2, 500)
	o := *other.Object
	o.Name, other.Object = "nothing", &o
	wantRefused(t, p.Driver.Apply(t.Context(), other), "does not exist")
}

// acceptance is a parent that takes its time, and one that finds no Service.
func acceptance(t *testing.T, p kubePlane) {
	if p.dialect.Parent == nil {
		return
	}
	p.mustEdit(t, "platform", p.dialect.Parent)
	wantFault(t, p.Driver.Apply(t.Context(), p.route("o", 1, 500)), "has not said anything about it")
	p.wantWeights(t, p.dialect.Total/20) // it is written all the same
	back := p.route("o", 2, 0)
	back.Rollback = true
	mustApply(t, p.Plane, back) // taking traffic back waits for nobody

	var resolved atomic.Bool
	resolved.Store(true)
	stop := p.controller(t, &resolved)
	mustApply(t, p.Plane, p.route("o", 3, 500))
	if got := mustRead(t, p.Plane); got.Effective != 500 {
		t.Errorf("%+v, want 5%%", got)
	}
	resolved.Store(false)
	wantFault(t, p.Driver.Apply(t.Context(), p.route("o", 4, 1000)), "BackendNotFound")
	resolved.Store(true)
	mustApply(t, p.Plane, p.route("o", 4, 1000))
	stop()
	wantFault(t, p.Driver.Apply(t.Context(), p.route("o", 5, 2000)), "Accepted is of generation")
}

// controller says what it thinks of every generation, a little late, until it is stopped.
func (p kubePlane) controller(t *testing.T, resolved *atomic.Bool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			o, err := p.objects().Get(ctx, "bot", metav1.GetOptions{})
			if err == nil {
				o.Object["status"] = p.dialect.Status(o.GetGeneration(), resolved.Load())
				_, err = p.objects().UpdateStatus(ctx, o, metav1.UpdateOptions{FieldManager: "controller"})
			}
			if err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
				t.Errorf("controller: %v", err)
			}
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// takenOver is a route that somebody has set by hand before: 5 % on the canary, and no word of an agent.
func takenOver(t *testing.T, p kubePlane) {
	p.mustEdit(t, "platform", func(o *unstructured.Unstructured) {
		o.SetLabels(nil)
		p.setWeights(p.dialect.Total*19/20, p.dialect.Total/20)(o)
	})
	if got := mustRead(t, p.Plane); got.Weight != 500 || got.Effective != 500 || got.Owner != "" || got.Stable != "" || got.ChangedBy != "" {
		t.Errorf("%+v, want 5%% of nobody", got)
	}
	mustApply(t, p.Plane, p.route("o", 1, 1000))
	p.wantWeights(t, p.dialect.Total/10)
	if got := p.object(t).GetLabels()[kube.AgentLabel]; got != "bot" {
		t.Errorf("label %s is %q, want bot", kube.AgentLabel, got)
	}
	other := p.route("o", 2, 1000)
	other.Agent = "another"
	wantRejected(t, "another agent's rollout", p.Driver.Apply(t.Context(), other))
	// All of it on the canary's place: the rollout file has them the wrong way round.
	q := p.route("p", 1, 500)
	back := p.route("o", 3, 0)
	back.Rollback = true
	mustApply(t, p.Plane, back)
	if err := p.leaseObjects().DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	p.mustEdit(t, "platform", func(o *unstructured.Unstructured) {
		o.SetAnnotations(nil)
		p.setWeights(0, p.dialect.Total)(o)
	})
	wantRefused(t, p.Driver.Apply(t.Context(), q), "the other way round")
	_, err := p.Driver.Read(t.Context(), q)
	wantRefused(t, err, "the other way round")
}
