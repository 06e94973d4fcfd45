package router

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/router/api"
)

func put(t *testing.T, r *Router, version, fingerprint string) error {
	t.Helper()
	_, err := r.PutVersion(agent, version, api.Version{URL: "http://127.0.0.1:2/" + version, Fingerprint: fingerprint})
	return err
}

func observedChanges(t *testing.T, r *Router) []string {
	t.Helper()
	o, err := r.Observed(agent)
	if err != nil {
		t.Fatal(err)
	}
	return o.Changed
}

func TestRegisteredFingerprintMayNotChangeUnderARollout(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	o := testOptions(t, clock)
	a := o.Agents[agent]
	delete(a.Versions, "v42") // so that it is the admin API's
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t, r, "v42", "a"); err != nil {
		t.Fatal(err)
	}
	if err := put(t, r, "v42", "b"); err != nil {
		t.Errorf("a change while nothing runs: %v", err)
	}
	mustSet(t, r, canaryRoute(500, 1))
	if err := put(t, r, "v42", "c"); refusalCode(err) != api.CodeInUse || !strings.Contains(err.Error(), "new name") {
		t.Errorf("a change under a rollout: %v", err)
	}
	if err := put(t, r, "v42", "b"); err != nil {
		t.Errorf("another address of the same: %v", err)
	}
	if err := put(t, r, "v42", ""); err != nil {
		t.Errorf("a fingerprint that is not told: %v", err)
	}
	if got := observedChanges(t, r); got != nil {
		t.Errorf("changed %v, want none since the rollout began", got)
	}
	mustSet(t, r, rollbackRoute(2, api.Evict))
	if err := put(t, r, "v42", "c"); err != nil {
		t.Errorf("a change after the rollout: %v", err)
	}
	if got := observedChanges(t, r); !slices.Equal(got, []string{"v42"}) {
		t.Errorf("changed %v, want v42", got)
	}
}

func TestMetadataIsAFingerprint(t *testing.T) {
	t.Parallel()
	one := declared(api.Version{Metadata: map[string]string{"model": "large-3", "prompt": "9f2c"}})
	two := declared(api.Version{Metadata: map[string]string{"prompt": "9f2c", "model": "large-3"}})
	other := declared(api.Version{Metadata: map[string]string{"model": "large-3", "prompt": "b07e"}})
	if one != two || one == other || one == "" {
		t.Errorf("fingerprints %q, %q, %q", one, two, other)
	}
	if got := declared(api.Version{Fingerprint: "f", Metadata: map[string]string{"model": "x"}}); got != "f" {
		t.Errorf("own fingerprint: %q", got)
	}
	for _, bad := range []string{"a b", "a\nb", "é", strings.Repeat("x", maxFingerprint+1)} {
		if checkFingerprint(bad) == nil {
			t.Errorf("fingerprint %q passed", bad)
		}
	}
}

func TestReportedFingerprintChanges(t *testing.T) {
	t.Parallel()
	r, _ := newTestRouter(t)
	mustSet(t, r, canaryRoute(0, 1))
	d := mustDecide(t, r, Request{Key: "k"})
	report := func(values ...string) { r.Reported(&d, http.Header{HeaderFingerprint: values}) }
	for _, step := range []struct {
		what   string
		values []string
		want   []string
	}{
		{"nothing", nil, nil},
		{"the first", []string{"a"}, nil},
		{"the same", []string{"a"}, nil},
		{"two at once", []string{"b", "c"}, nil},
		{"nonsense", []string{"b\x00"}, nil},
		{"another", []string{"b"}, []string{"v41"}},
		{"the first again", []string{"a"}, []string{"v41"}},
	} {
		report(step.values...)
		if got := observedChanges(t, r); !slices.Equal(got, step.want) {
			t.Errorf("%s: changed %v, want %v", step.what, got, step.want)
		}
	}
	if n := d.version.identity.count(); n != 1 {
		t.Errorf("%d changes counted, want 1", n)
	}
	for i := range 100 {
		report(strings.Repeat("x", i+1))
	}
	if n := len(d.version.identity.reported); n > maxReported {
		t.Errorf("%d fingerprints remembered, want at most %d", n, maxReported)
	}
	// The next rollout compares what is there when it begins.
	mustSet(t, r, rollbackRoute(2, api.Evict))
	next := canaryRoute(500, 1)
	next.Owner = "canary/support-agent/run2"
	mustSet(t, r, next)
	if got := observedChanges(t, r); got != nil {
		t.Errorf("changed %v in the next rollout", got)
	}
}

func TestSettingsThatChangeAVersionOverARestartAreToldOf(t *testing.T) {
	t.Parallel()
	open := func(path, fingerprint string) *Router {
		o := testOptions(t, newFakeClock())
		o.StateFile = path
		o.Agents[agent].Versions["v41"] = api.Version{URL: "http://127.0.0.1:1", Fingerprint: fingerprint}
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	path := filepath.Join(t.TempDir(), "state.json")
	mustSet(t, open(path, "a"), canaryRoute(500, 1))
	if got := observedChanges(t, open(path, "a")); got != nil {
		t.Errorf("changed %v, want none", got)
	}
	if got := observedChanges(t, open(path, "b")); !slices.Equal(got, []string{"v41"}) {
		t.Errorf("changed %v, want v41", got)
	}
}
