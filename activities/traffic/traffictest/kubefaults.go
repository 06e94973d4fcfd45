//go:build k8s

package traffictest

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/kube"
)

func forbidden(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	user := "nobody-" + p.namespace
	p.proxy.user.Store(&user)
	resource := p.dialect.Resource.Resource + "." + p.dialect.Resource.Group
	_, err := p.Driver.Read(t.Context(), p.route("", 0, 0))
	wantFault(t, err, "not permitted: want the verb get on "+resource+" in namespace "+p.namespace, "rbac.yaml")
	_, err = p.Driver.List(t.Context())
	wantFault(t, err, "the verb list on ", "in namespace "+p.namespace)
	p.may(t, user, p.dialect.Resource.Group, p.dialect.Resource.Resource, "get")
	eventually(t, "the right to read", func() bool {
		_, err := p.Driver.Read(t.Context(), p.route("", 0, 0))
		return err == nil
	})
	back := p.route("o", 2, 0)
	back.Rollback = true
	wantFault(t, p.Driver.Apply(t.Context(), back), "the verb patch on "+resource)
	wantFault(t, p.Driver.Apply(t.Context(), p.route("o", 2, 600)), "the verb patch on leases.coordination.k8s.io")
	p.wantWeights(t, p.dialect.Total/20)
}

func gone(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.proxy.with(refuse)
	back := p.route("o", 2, 0)
	back.Rollback = true
	wantFault(t, p.Driver.Apply(t.Context(), back), "bot")
	_, err := p.Driver.Read(t.Context(), back)
	wantFault(t, err, "get "+p.dialect.Resource.Resource)
	_, err = p.Driver.List(t.Context())
	wantFault(t, err, "list")
	p.proxy.with(nil)
	mustApply(t, p.Plane, back)
	p.wantWeights(t, 0)
	// It goes after it has patched, before it answers: the next try finds it done.
	var cut atomic.Bool
	p.proxy.with(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/"+p.dialect.Resource.Resource+"/") && cut.CompareAndSwap(false, true) {
			return refuse(w, r)
		}
		return false
	})
	up := p.route("o", 3, 500)
	wantFault(t, p.Driver.Apply(t.Context(), up), "patch")
	mustApply(t, p.Plane, up)
	p.wantWeights(t, p.dialect.Total/20)
}

func pauseAsked(t *testing.T, p kubePlane) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		p.proxy.with(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "too many requests", code)
			return true
		})
		for what, err := range map[string]error{
			"apply": p.Driver.Apply(t.Context(), p.route("o", 1, 500)),
			"read":  func() error { _, err := p.Driver.Read(t.Context(), p.route("", 0, 0)); return err }(),
		} {
			var busy *traffic.Busy
			if !errors.As(err, &busy) || busy.RetryAfter != 7*time.Second {
				t.Errorf("%d, %s: error %v, want *traffic.Busy for 7s", code, what, err)
			}
		}
	}
}

func othersObject(t *testing.T, p kubePlane) {
	p.mustEdit(t, "platform", func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{kube.AgentLabel: "other"}) })
	before := p.object(t).GetResourceVersion()
	wantRefused(t, p.Driver.Apply(t.Context(), p.route("o", 1, 500)), "the agent other's")
	_, err := p.Driver.Read(t.Context(), p.route("o", 1, 500))
	wantRefused(t, err, "the agent other's")
	if after := p.object(t).GetResourceVersion(); after != before {
		t.Error("it was written all the same")
	}
	all, err := p.Driver.List(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("list %+v, %v, want nothing: no rollout was there", all, err)
	}
}

func refusal(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	// The server refuses the second patch by its schema.
	p.proxy.with(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/"+p.dialect.Resource.Resource+"/") {
			spoiled := strings.Replace(body(r), `"value":"2"`, `"value":2`, 1)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(spoiled)), int64(len(spoiled))
		}
		return false
	})
	wantRefused(t, p.Driver.Apply(t.Context(), p.route("o", 2, 1000)), "the API server refuses it", "bot")
	p.proxy.with(nil)
	p.wantWeights(t, p.dialect.Total/20)
	var conflicts atomic.Int64
	p.proxy.with(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || !strings.Contains(r.URL.Path, "/"+p.dialect.Resource.Resource+"/") || conflicts.Add(1) > 3 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","message":"the object has been modified","code":409}`)
		return true
	})
	mustApply(t, p.Plane, p.route("o", 2, 1000))
	if conflicts.Load() < 4 {
		t.Errorf("%d patches, want 3 conflicts and one that went through", conflicts.Load())
	}
}

func anew(t *testing.T, p kubePlane) {
	mustApply(t, p.Plane, p.route("o", 1, 500))
	p.proxy.once(http.MethodPatch, "/"+p.dialect.Resource.Resource+"/", func() {
		if err := p.objects().Delete(t.Context(), "bot", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		p.create(t)
	})
	mustApply(t, p.Plane, p.route("o", 2, 1000))
	p.wantWeights(t, p.dialect.Total/10)
	if err := p.objects().Delete(t.Context(), "bot", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, p.Driver.Apply(t.Context(), p.route("o", 3, 1000)), "does not exist")
}
