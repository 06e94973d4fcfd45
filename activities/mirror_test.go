package activities_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// shadow is a slice of a stage that mirrors a tenth of stable's requests.
func shadow() (*world, rollout.ObserveRequest) {
	w, r := newWorld(), request()
	w.mirrors, w.weight, w.mirror = true, 0, 1000
	w.share = func(time.Duration) float64 { return 0 } // copies begin no conversation
	r.Spec.Stages[0].Weight, r.Spec.Stages[0].Mirror = 0, 1000
	r.Route.Weight, r.Route.Mirror = 0, 1000
	return w, r
}

func TestShadowIsJudgedByCopies(t *testing.T) {
	t.Parallel()
	w, r := shadow()
	got := w.observe(t, r)
	if got.Finding != rollout.FoundReady || got.Mismatch != "" || got.Requests.Canary == 0 {
		t.Errorf("found %s (%s), mismatch %q, requests %+v", got.Finding, got.Reason, got.Mismatch, got.Requests)
	}
	w, r = shadow()
	w.canary.failing = 0.2
	if got := w.observe(t, r); got.Finding != rollout.FoundViolation || got.Blame == "" {
		t.Errorf("a bad canary: found %s (%s)", got.Finding, got.Reason)
	}
}

func TestShadowWithoutCopiesIsToldOf(t *testing.T) {
	t.Parallel()
	w, r := shadow()
	w.canary.rps = 0
	got := w.observe(t, r)
	if got.Finding != rollout.FoundNoData || !strings.Contains(got.Reason, "mirror 10%") {
		t.Errorf("found %s (%s)", got.Finding, got.Reason)
	}
}

func TestMirrorThatSomebodyTookAwayIsPutBack(t *testing.T) {
	t.Parallel()
	w, r := shadow()
	w.onSample = func(n int) {
		if n == 3 {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mirror = 0
		}
	}
	got := w.observe(t, r)
	if got.PutBack != "mirror 0% instead of 10%" || w.mirror != 1000 {
		t.Errorf("put back %q, the mirror is %s", got.PutBack, w.mirror)
	}
}
